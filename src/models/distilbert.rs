//! DistilBERT (Sanh et al. 2019): BERT without token types, under other names. multi-qa-distilbert, distiluse, tas-b.

use super::activation;
use super::layers::{check_heads, dense, embed_normed};
use super::masked_lm::Head;
use super::post_norm::{Mlp, Names, PostNorm};
use crate::checkpoint::JsonFile;
use crate::error::Result;
use crate::program::{Activation, Builder, Index, Lookup, Pool, PoolMode, Value};

const NAMES: Names = Names {
    qkv: ["attention.q_lin", "attention.k_lin", "attention.v_lin"],
    projection: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    up: "ffn.lin1",
    down: "ffn.lin2",
    output_norm: "output_layer_norm",
};

/// Of every layer norm: no configuration has a key for it.
const EPS: f32 = 1e-12;

/// The backbone that `config.json` describes; absent keys have the defaults of transformers' `DistilBertConfig`.
pub(super) fn backbone(b: &mut Builder, config: &JsonFile) -> Result<Value> {
    let (hidden, heads) = (config.usize_or("dim", 768)?, config.usize_or("n_heads", 12)?);
    check_heads(config, ("dim", hidden), ("n_heads", heads))?;
    let layer = PostNorm::new(heads, EPS);
    let mlp = Mlp {
        intermediate: config.usize_or("hidden_dim", 4 * 768)?,
        activation: activation::hidden_act(config, "activation", "gelu")?,
    };

    b.label("embeddings");
    let words = b.matrix("embeddings.word_embeddings.weight", config.usize_or("vocab_size", 30_522)?, hidden);
    let positions = config.usize_or("max_position_embeddings", 512)?;
    let positions = b.matrix("embeddings.position_embeddings.weight", positions, hidden);
    let lookups = vec![
        Lookup { table: words, index: Index::Ids, offset: 0 },
        Lookup { table: positions, index: Index::Positions, offset: 0 },
    ];
    let mut x = embed_normed(b, lookups, "embeddings.LayerNorm", EPS);
    b.hidden_state(x);
    for i in 0..config.usize_or("n_layers", 6)? {
        x = layer.layer(b, &format!("transformer.layer.{i}"), &NAMES, mlp, x);
        b.hidden_state(x);
    }
    Ok(x)
}

/// The head of its masked language model.
pub(super) fn masked_lm(config: &JsonFile) -> Result<Head> {
    Ok(Head {
        dense: ("vocab_transform", config.usize_or("dim", 768)?),
        dense_bias: true,
        activation: activation::hidden_act(config, "activation", "gelu")?,
        norm: "vocab_layer_norm",
        norm_bias: true,
        eps: EPS,
        tokens: "embeddings.word_embeddings.weight",
        decoder: "vocab_projector.weight",
        bias: Some(("vocab_projector.bias", "vocab_projector.bias")),
    })
}

/// The first token through a hidden layer and the classifier: `[sequences, labels]`.
pub(super) fn classifier(b: &mut Builder, _: &JsonFile, x: Value, labels: usize) -> Result<Value> {
    let hidden = b.shape(x).cols;
    let first = b.pool(Pool::new(x, PoolMode::Cls));
    let h = dense("pre_classifier", hidden).activation(Activation::Relu).of(b, first);
    Ok(dense("classifier", labels).of(b, h))
}
