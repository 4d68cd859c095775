//! jina-embeddings-v3 (Sturua et al. 2024): XLM-RoBERTa with rotary positions. config.json has two dialects, transformers' own and
//! that of the original's code, which calls it XLM-RoBERTa flash and knows learned positions, too: jina-colbert-v2,
//! jina-reranker-v2. Both name the same tensors.

use super::activation;
use super::layers::{check_heads, dense, embed_normed};
use super::masked_lm::Head;
use super::post_norm::{Mlp, PostNorm};
use super::roberta;
use super::rope::{self, Base};
use crate::checkpoint::JsonFile;
use crate::error::Result;
use crate::program::{Builder, Index, Lookup, Value};

/// What both dialects say.
struct Jina {
    vocab: usize,
    token_types: usize,
    hidden: usize,
    layers: usize,
    heads: usize,
    positions: usize,
    mlp: Mlp,
    eps: f32,
}

/// The backbone that `config.json` describes in transformers' dialect.
pub(super) fn backbone(b: &mut Builder, config: &JsonFile) -> Result<Value> {
    let jina = Jina::from_json(config)?;
    let layer = jina.rotary(b, config, Base { key: "rope_theta", default: 20_000.0 })?;
    Ok(jina.build(b, &layer, None))
}

/// The same in the original's dialect.
pub(super) fn original(b: &mut Builder, config: &JsonFile) -> Result<Value> {
    let jina = Jina::from_json(config)?;
    match config.str_or("position_embedding_type", "rotary")? {
        "rotary" => {
            let layer = jina.rotary(b, config, Base { key: "rotary_emb_base", default: 10_000.0 })?;
            Ok(jina.build(b, &layer, None))
        }
        "absolute" => {
            let offset = roberta::first_position(b, config)?;
            let table = b.matrix("embeddings.position_embeddings.weight", jina.positions, jina.hidden);
            let positions = Lookup { table, index: Index::Positions, offset };
            Ok(jina.build(b, &PostNorm::new(jina.heads, jina.eps), Some(positions)))
        }
        _ => Err(config.unsupported("position_embedding_type", "absolute, rotary")),
    }
}

/// The head of its masked language model: RoBERTa's.
pub(super) fn masked_lm(config: &JsonFile) -> Result<Head> {
    let jina = Jina::from_json(config)?;
    Ok(roberta::head(jina.hidden, jina.eps))
}

impl Jina {
    /// Absent keys have the defaults of transformers' `JinaEmbeddingsV3Config`.
    fn from_json(config: &JsonFile) -> Result<Jina> {
        let (hidden, heads) = (config.usize_or("hidden_size", 1024)?, config.usize_or("num_attention_heads", 16)?);
        check_heads(config, ("hidden_size", hidden), ("num_attention_heads", heads))?;
        Ok(Jina {
            vocab: config.usize_or("vocab_size", 250_002)?,
            token_types: config.usize_or("type_vocab_size", 1)?,
            hidden,
            layers: config.usize_or("num_hidden_layers", 24)?,
            heads,
            positions: config.usize_or("max_position_embeddings", 8194)?,
            mlp: Mlp {
                intermediate: config.usize_or("intermediate_size", 4096)?,
                activation: activation::hidden_act(config, "hidden_act", "gelu")?,
            },
            eps: config.f32_or("layer_norm_eps", 1e-5)?,
        })
    }

    /// A layer that turns q and k.
    fn rotary(&self, b: &mut Builder, config: &JsonFile, base: Base) -> Result<PostNorm> {
        let table = rope::table(b, config, base, self.hidden / self.heads, self.positions)?;
        Ok(PostNorm { rotary: Some(b.rotary_table(table)), ..PostNorm::new(self.heads, self.eps) })
    }

    /// The tables of tokens and their types, and learned `positions`, through all layers.
    fn build(&self, b: &mut Builder, layer: &PostNorm, positions: Option<Lookup>) -> Value {
        let hidden = self.hidden;
        b.label("embeddings");
        let mut lookup = |name: &str, rows, index| {
            let table = b.matrix(format!("embeddings.{name}.weight"), rows, hidden);
            Lookup { table, index, offset: 0 }
        };
        let mut lookups = vec![lookup("word_embeddings", self.vocab, Index::Ids)];
        if self.token_types > 0 {
            lookups.push(lookup("token_type_embeddings", self.token_types, Index::Types));
        }
        lookups.extend(positions);
        let mut x = embed_normed(b, lookups, "emb_ln", self.eps);
        for i in 0..self.layers {
            let name = |name: &str| format!("encoder.layers.{i}.{name}");
            b.label(name("attention"));
            let qkv = dense(name("mixer.Wqkv"), 3 * hidden).of(b, x);
            let h = layer.attend(b, x, qkv, dense(name("mixer.out_proj"), hidden), &name("norm1"));
            b.label(name("mlp"));
            let up = dense(name("mlp.fc1"), self.mlp.intermediate).activation(self.mlp.activation).of(b, h);
            x = layer.add(b, h, up, dense(name("mlp.fc2"), hidden), &name("norm2"));
        }
        x
    }
}
