//! MPNet (Song et al. 2020): BERT without token types, whose layers share a bias by distance. all-mpnet-base-v2, multi-qa-mpnet.

use super::activation;
use super::layers::{check_heads, dense, embed_normed, relative_bias};
use super::masked_lm::Head;
use super::post_norm::{Mlp, Names, PostNorm};
use crate::checkpoint::JsonFile;
use crate::error::Result;
use crate::program::{Activation, Builder, Index, Lookup, Pool, PoolMode, Value};

const NAMES: Names = Names {
    qkv: ["attention.attn.q", "attention.attn.k", "attention.attn.v"],
    projection: "attention.attn.o",
    attention_norm: "attention.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    output_norm: "output.LayerNorm",
};

/// The padding id, whatever the configuration says: positions begin behind it, and it takes none.
const PADDING: u32 = 1;

/// From this distance on, all keys are in one bucket: no configuration has a key for it.
const MAX_DISTANCE: usize = 128;

/// Buckets of distances.
const BUCKETS: usize = 32;

/// The backbone that `config.json` describes; absent keys have the defaults of transformers' `MPNetConfig`.
pub(super) fn backbone(b: &mut Builder, config: &JsonFile) -> Result<Value> {
    let (hidden, heads) = (config.usize_or("hidden_size", 768)?, config.usize_or("num_attention_heads", 12)?);
    check_heads(config, ("hidden_size", hidden), ("num_attention_heads", heads))?;
    let eps = config.f32_or("layer_norm_eps", 1e-12)?;
    b.padding(PADDING);

    b.label("embeddings");
    let words = b.matrix("embeddings.word_embeddings.weight", config.usize_or("vocab_size", 30_527)?, hidden);
    let positions = config.usize_or("max_position_embeddings", 512)?;
    let positions = b.matrix("embeddings.position_embeddings.weight", positions, hidden);
    let lookups = vec![
        Lookup { table: words, index: Index::Ids, offset: 0 },
        Lookup { table: positions, index: Index::Positions, offset: PADDING + 1 },
    ];
    let mut x = embed_normed(b, lookups, "embeddings.LayerNorm", eps);
    b.hidden_state(x);

    // Transformers' model does not look at it when it computes them.
    let key = "relative_attention_num_buckets";
    if config.usize_or(key, BUCKETS)? != BUCKETS {
        return Err(config.unsupported(key, BUCKETS.to_string()));
    }
    let bias = Some(relative_bias(b, config, "encoder.relative_attention_bias.weight", heads, MAX_DISTANCE)?);
    let layer = PostNorm { bias, ..PostNorm::new(heads, eps) };
    let mlp = Mlp {
        intermediate: config.usize_or("intermediate_size", 3072)?,
        activation: activation::hidden_act(config, "hidden_act", "gelu")?,
    };
    for i in 0..config.usize_or("num_hidden_layers", 12)? {
        x = layer.layer(b, &format!("encoder.layer.{i}"), &NAMES, mlp, x);
        b.hidden_state(x);
    }
    Ok(x)
}

/// The head of its masked language model.
pub(super) fn masked_lm(config: &JsonFile) -> Result<Head> {
    Ok(Head {
        dense: ("lm_head.dense", config.usize_or("hidden_size", 768)?),
        dense_bias: true,
        activation: Activation::Gelu,
        norm: "lm_head.layer_norm",
        norm_bias: true,
        eps: config.f32_or("layer_norm_eps", 1e-12)?,
        tokens: "embeddings.word_embeddings.weight",
        decoder: "lm_head.decoder.weight",
        bias: Some(("lm_head.decoder.bias", "lm_head.bias")),
    })
}

/// The first token through a hidden layer and the classifier: `[sequences, labels]`.
pub(super) fn classifier(b: &mut Builder, _: &JsonFile, x: Value, labels: usize) -> Result<Value> {
    let hidden = b.shape(x).cols;
    let first = b.pool(Pool::new(x, PoolMode::Cls));
    let h = dense("classifier.dense", hidden).activation(Activation::Tanh).of(b, first);
    Ok(dense("classifier.out_proj", labels).of(b, h))
}
