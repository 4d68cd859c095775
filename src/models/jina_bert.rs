//! JinaBERT version 2 (Günther et al. 2023): BERT whose scores fall with the distance (ALiBi) and whose feed-forward networks
//! are gated; the code model also normalises q and k. Known by its custom code. jina-embeddings-v2, jina-reranker-v1.

use super::activation;
use super::layers::{check_heads, dense, embed_normed, stacked};
use super::post_norm::PostNorm;
use crate::checkpoint::JsonFile;
use crate::error::Result;
use crate::program::{Activation, Builder, Glu, Half, HeadNorm, Index, Lookup, NormKind, PositionBias, Value};

/// What the configurations of the two kinds name as their code.
const PLAIN: &str = "jina-bert-implementation";
const NORMALISED: &str = "jina-bert-v2-qk-post-norm";

/// Whether a configuration of model type `bert` is one of these.
pub(super) fn is_jina(config: &JsonFile) -> Result<bool> {
    Ok(config.str_or("position_embedding_type", "absolute")? == "alibi"
        || names(config, PLAIN)
        || names(config, NORMALISED))
}

/// Whether the configuration comes from that repository, or its code does.
fn names(config: &JsonFile, repository: &str) -> bool {
    let found = |value: Option<&serde_json::Value>| value.is_some_and(|value| value.to_string().contains(repository));
    found(config.get("auto_map")) || found(config.get("_name_or_path"))
}

/// The backbone that `config.json` describes.
pub(super) fn backbone(b: &mut Builder, config: &JsonFile) -> Result<Value> {
    if config.str_or("position_embedding_type", "absolute")? != "alibi" {
        return Err(config.unsupported("position_embedding_type", "alibi"));
    }
    let normalised = names(config, NORMALISED);
    let (hidden, heads) = (config.usize("hidden_size")?, config.usize("num_attention_heads")?);
    check_heads(config, ("hidden_size", hidden), ("num_attention_heads", heads))?;
    let eps = config.f32_or("layer_norm_eps", 1e-12)?;
    let layer = PostNorm { bias: Some(PositionBias::Alibi), ..PostNorm::new(heads, eps) };
    let intermediate = config.usize("intermediate_size")?;
    let activation = match config.str_or("feed_forward_type", "geglu")? {
        "geglu" => Activation::Gelu,
        "reglu" => Activation::Relu,
        // Not gated.
        _ => return Err(config.unsupported("feed_forward_type", "geglu, reglu")),
    };
    activation::hidden_act(config, "hidden_act", "gelu")?;

    b.label("embeddings");
    let mut lookup = |name: &str, rows, index| {
        let table = b.matrix(format!("embeddings.{name}.weight"), rows, hidden);
        Lookup { table, index, offset: 0 }
    };
    let words = lookup("word_embeddings", config.usize("vocab_size")?, Index::Ids);
    let types = lookup("token_type_embeddings", config.usize_or("type_vocab_size", 2)?, Index::Types);
    let mut x = embed_normed(b, vec![words, types], "embeddings.LayerNorm", eps);
    for i in 0..config.usize("num_hidden_layers")? {
        let name = |name: &str| format!("encoder.layer.{i}.{name}");
        b.label(name("attention"));
        let mut qkv =
            stacked(["query", "key", "value"].map(|part| (name(&format!("attention.self.{part}")), hidden))).of(b, x);
        if normalised {
            qkv = norm_q_and_k(b, &name("attention.self"), hidden, eps, qkv);
        }
        let projection = dense(name("attention.output.dense"), hidden);
        let mut h = layer.attend(b, x, qkv, projection, &name("attention.output.LayerNorm"));
        if normalised {
            // This kind adds the residual a second time.
            h = layer.add_normalised(b, x, h, &name("layer_norm_1"));
        }

        b.label(name("mlp"));
        let (up, activated, down, norm) = match normalised {
            true => ("mlp.up_gated_layer", Half::Second, "mlp.down_layer", "layer_norm_2"),
            false => ("mlp.gated_layers", Half::First, "mlp.wo", "mlp.layernorm"),
        };
        let up = dense(name(up), 2 * intermediate).bias(false).of(b, h);
        let gated = b.glu(Glu { x: up, activation, activated });
        x = layer.add(b, h, gated, dense(name(down), hidden), &name(norm));
    }
    Ok(x)
}

/// q and k normalised over all their heads.
fn norm_q_and_k(b: &mut Builder, prefix: &str, hidden: usize, eps: f32, qkv: Value) -> Value {
    let mut both = |part: &str| {
        let tensors = ["q", "k"].map(|x| b.tensor(format!("{prefix}.layer_norm_{x}.{part}"), vec![hidden]).into());
        b.weight(tensors.into())
    };
    let (weight, bias) = (both("weight"), Some(both("bias")));
    b.head_norm(HeadNorm { qkv, kind: NormKind::Layer, groups: [1, 1, 0], group: hidden, weight, bias, eps })
}
