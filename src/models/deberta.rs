//! DeBERTa version 2 and 3 (He et al. 2021): BERT whose scores also depend on what q and k make of their distance.
//! mxbai-rerank-v1, nli-deberta-v3.

use super::activation;
use super::layers::{check_heads, dense, embed_normed, layer_norm, stacked};
use super::post_norm::PostNorm;
use crate::checkpoint::JsonFile;
use crate::error::{Error, Result};
use crate::program::{
    Builder, Distances, Index, Lookup, Part, Pool, PoolMode, PositionBias, Projected, TensorSpec, Value, WeightId,
};

/// The backbone that `config.json` describes; absent keys have the defaults of transformers' `DebertaV2Config`.
pub(super) fn backbone(b: &mut Builder, config: &JsonFile) -> Result<Value> {
    let (hidden, heads) = (config.usize_or("hidden_size", 1536)?, config.usize_or("num_attention_heads", 24)?);
    check_heads(config, ("hidden_size", hidden), ("num_attention_heads", heads))?;
    refuse_what_is_not_known(config, hidden, heads)?;
    let eps = config.f32_or("layer_norm_eps", 1e-7)?;
    let intermediate = config.usize_or("intermediate_size", 6144)?;
    let activation = activation::hidden_act(config, "hidden_act", "gelu")?;

    let mut x = embeddings(b, config, hidden, eps)?;
    let positions = Positions::from_json(b, config, hidden, eps)?;
    // Transformers counts those of positions even where there are none.
    let terms = position_terms(config)?;
    let score_terms = 1.0 + ["c2p", "p2c"].iter().filter(|term| terms.contains(term)).count() as f32;
    for i in 0..config.usize_or("num_hidden_layers", 24)? {
        let name = |name: &str| format!("encoder.layer.{i}.{name}");
        b.label(name("attention"));
        let bias = positions.as_ref().map(|positions| positions.bias(b, &name("attention.self"), hidden));
        let layer = PostNorm { bias, score_terms, ..PostNorm::new(heads, eps) };
        let qkv =
            ["query_proj", "key_proj", "value_proj"].map(|part| (name(&format!("attention.self.{part}")), hidden));
        let qkv = stacked(qkv).of(b, x);
        let projection = dense(name("attention.output.dense"), hidden);
        let h = layer.attend(b, x, qkv, projection, &name("attention.output.LayerNorm"));

        b.label(name("mlp"));
        let up = dense(name("intermediate.dense"), intermediate).activation(activation).of(b, h);
        x = layer.add(b, h, up, dense(name("output.dense"), hidden), &name("output.LayerNorm"));
    }
    Ok(x)
}

/// The first token through the pooler and the classifier: `[sequences, labels]`.
pub(super) fn classifier(b: &mut Builder, config: &JsonFile, x: Value, labels: usize) -> Result<Value> {
    let hidden = config.usize_or("pooler_hidden_size", b.shape(x).cols)?;
    let activation = activation::hidden_act(config, "pooler_hidden_act", "gelu")?;
    let first = b.pool(Pool::new(x, PoolMode::Cls));
    let pooled = dense("pooler.dense", hidden).activation(activation).of(b, first);
    Ok(dense("classifier", labels).of(b, pooled))
}

fn refuse_what_is_not_known(config: &JsonFile, hidden: usize, heads: usize) -> Result<()> {
    if config.usize_or("conv_kernel_size", 0)? > 0 {
        return Err(config.unsupported("conv_kernel_size", "0"));
    }
    if config.usize_or("attention_head_size", hidden / heads)? != hidden / heads {
        return Err(config.unsupported("attention_head_size", "hidden_size / num_attention_heads"));
    }
    Ok(())
}

/// The sum of the tables that there are, normalised: `[tokens, hidden]`.
fn embeddings(b: &mut Builder, config: &JsonFile, hidden: usize, eps: f32) -> Result<Value> {
    b.label("embeddings");
    let cols = config.usize_or("embedding_size", hidden)?;
    let mut lookup = |name: &str, rows, index| {
        let table = b.matrix(format!("embeddings.{name}.weight"), rows, cols);
        Lookup { table, index, offset: 0 }
    };
    let mut lookups = vec![lookup("word_embeddings", config.usize_or("vocab_size", 128_100)?, Index::Ids)];
    if config.bool_or("position_biased_input", true)? {
        let rows = config.usize_or("max_position_embeddings", 512)?;
        lookups.push(lookup("position_embeddings", rows, Index::Positions));
    }
    let token_types = config.usize_or("type_vocab_size", 0)?;
    if token_types > 0 {
        lookups.push(lookup("token_type_embeddings", token_types, Index::Types));
    }
    let norm = "embeddings.LayerNorm";
    if cols == hidden {
        return Ok(embed_normed(b, lookups, norm, eps));
    }
    let x = b.embed(lookups);
    let x = dense("embeddings.embed_proj", hidden).bias(false).of(b, x);
    Ok(layer_norm(b, norm, eps, x))
}

/// What of positions is in a score, by name.
fn position_terms(config: &JsonFile) -> Result<Vec<&str>> {
    Ok(match config.get("pos_att_type").and_then(|value| value.as_str()) {
        Some(text) => text.split('|').map(str::trim).collect(),
        None => config.strings_opt("pos_att_type")?.unwrap_or_default(),
    })
}

/// The table of distances, which every layer projects anew.
struct Positions {
    table: TensorSpec,
    norm: Option<(TensorSpec, TensorSpec, u32)>,
    distances: Distances,
    /// Whether the layers project it as they do tokens.
    shared: bool,
}

impl Positions {
    /// `None` for a configuration without relative positions.
    fn from_json(b: &Builder, config: &JsonFile, hidden: usize, eps: f32) -> Result<Option<Positions>> {
        if !config.bool_or("relative_attention", false)? {
            return Ok(None);
        }
        let terms = position_terms(config)?;
        let has = |name| terms.contains(&name);
        if !has("c2p") || !has("p2c") || terms.len() != 2 {
            return Err(config.unsupported("pos_att_type", "c2p and p2c"));
        }
        // Below 1: as many as there are positions.
        let positive = |key: &str| config.get(key).and_then(|value| value.as_i64()).filter(|&value| value > 0);
        let positions = config.usize_or("max_position_embeddings", 512)?;
        let max_distance = positive("max_relative_positions").map_or(positions, |value| value as usize);
        let buckets = positive("position_buckets").map(|value| value as usize);
        let span = buckets.unwrap_or(max_distance);
        if buckets.is_some_and(|buckets| buckets < 4 || max_distance <= buckets / 2 + 1) {
            let detail = format!("position_buckets = {span} for distances up to {max_distance}");
            return Err(Error::invalid_file(config.path(), detail));
        }
        let norm = match config.str_or("norm_rel_ebd", "none")? {
            "none" => None,
            "layer_norm" => {
                let tensor = |part: &str| b.tensor(format!("encoder.LayerNorm.{part}"), vec![hidden]);
                Some((tensor("weight"), tensor("bias"), eps.to_bits()))
            }
            _ => return Err(config.unsupported("norm_rel_ebd", "none, layer_norm")),
        };
        Ok(Some(Positions {
            table: b.tensor("encoder.rel_embeddings.weight", vec![2 * span, hidden]),
            norm,
            distances: Distances { span, max_distance: buckets.map(|_| max_distance) },
            shared: config.bool_or("share_att_key", false)?,
        }))
    }

    /// The bias of a layer: the table as its queries meet it, then as its keys do.
    fn bias(&self, b: &mut Builder, prefix: &str, hidden: usize) -> PositionBias {
        let names = if self.shared { ["key_proj", "query_proj"] } else { ["pos_key_proj", "pos_query_proj"] };
        let part = |name: &str| {
            Part::Projected(Box::new(Projected {
                table: self.table.clone(),
                norm: self.norm.clone(),
                weight: b.tensor(format!("{prefix}.{name}.weight"), vec![hidden, hidden]),
                bias: Some(b.tensor(format!("{prefix}.{name}.bias"), vec![hidden])),
            }))
        };
        let parts = names.map(part).into();
        let table: WeightId = b.weight(parts);
        PositionBias::Disentangled { table, distances: self.distances }
    }
}
