//! ALBERT (Lan et al. 2020): BERT with narrow tables, whose layers share their weights. paraphrase-albert-small-v2.

use super::activation;
use super::bert::BertConfig;
use super::layers::dense;
use super::masked_lm::Head;
use super::post_norm::{Mlp, Names, PostNorm};
use crate::checkpoint::JsonFile;
use crate::error::Result;
use crate::program::{Activation, Builder, Pool, PoolMode, Value};

const NAMES: Names = Names {
    qkv: ["attention.query", "attention.key", "attention.value"],
    projection: "attention.dense",
    attention_norm: "attention.LayerNorm",
    up: "ffn",
    down: "ffn_output",
    output_norm: "full_layer_layer_norm",
};

/// The backbone that `config.json` describes; absent keys have the defaults of transformers' `AlbertConfig`.
pub(super) fn backbone(b: &mut Builder, config: &JsonFile) -> Result<Value> {
    let albert = BertConfig {
        embedding: config.usize_or("embedding_size", 128)?,
        activation: activation::hidden_act(config, "hidden_act", "gelu_new")?,
        ..BertConfig::from_json(config)?
    };
    let (layers, groups) = (albert.layers, config.usize_or("num_hidden_groups", 1)?.max(1));
    let inner = config.usize_or("inner_group_num", 1)?;
    let layer = PostNorm::new(albert.heads, albert.eps);
    let mlp = Mlp { intermediate: albert.intermediate, activation: albert.activation };

    let x = albert.embeddings(b);
    let mut x = dense("encoder.embedding_hidden_mapping_in", albert.hidden).of(b, x);
    for i in 0..layers {
        // Layer i has the weights of group i / (layers / groups), which need not be whole.
        let group = i * groups / layers;
        for j in 0..inner {
            x = layer.layer(b, &format!("encoder.albert_layer_groups.{group}.albert_layers.{j}"), &NAMES, mlp, x);
        }
    }
    Ok(x)
}

/// The head of its masked language model.
pub(super) fn masked_lm(config: &JsonFile) -> Result<Head> {
    Ok(Head {
        dense: ("predictions.dense", config.usize_or("embedding_size", 128)?),
        dense_bias: true,
        activation: activation::hidden_act(config, "hidden_act", "gelu_new")?,
        norm: "predictions.LayerNorm",
        norm_bias: true,
        eps: config.f32_or("layer_norm_eps", 1e-12)?,
        tokens: "embeddings.word_embeddings.weight",
        decoder: "predictions.decoder.weight",
        bias: Some(("predictions.decoder.bias", "predictions.bias")),
    })
}

/// The first token through the pooler and the classifier: `[sequences, labels]`.
pub(super) fn classifier(b: &mut Builder, _: &JsonFile, x: Value, labels: usize) -> Result<Value> {
    let hidden = b.shape(x).cols;
    let first = b.pool(Pool::new(x, PoolMode::Cls));
    let pooled = dense("pooler", hidden).activation(Activation::Tanh).of(b, first);
    Ok(dense("classifier", labels).of(b, pooled))
}
