//! RoBERTa (Liu et al. 2019), XLM-RoBERTa, CamemBERT and data2vec: BERT whose positions begin behind the padding id,
//! which takes none even in a text. bge-m3, multilingual-e5, paraphrase-multilingual, arctic-embed-l-v2, bge-reranker, stsb-roberta.

use super::bert::BertConfig;
use super::layers::dense;
use super::masked_lm::Head;
use crate::checkpoint::JsonFile;
use crate::error::Result;
use crate::program::{Activation, Builder, Pool, PoolMode, Value};

/// The backbone that `config.json` describes.
pub(super) fn backbone(b: &mut Builder, config: &JsonFile) -> Result<Value> {
    let first_position = first_position(b, config)?;
    Ok(BertConfig { first_position, ..BertConfig::from_json(config)? }.build(b))
}

/// The row of a text's first position: behind that of the padding id, which takes no position.
pub(super) fn first_position(b: &mut Builder, config: &JsonFile) -> Result<u32> {
    let padding = config.usize_or("pad_token_id", 1)? as u32;
    b.padding(padding);
    Ok(padding + 1)
}

/// The head of its masked language model.
pub(super) fn masked_lm(config: &JsonFile) -> Result<Head> {
    let bert = BertConfig::from_json(config)?;
    Ok(head(bert.hidden, bert.eps))
}

/// That of hidden states of so many columns.
pub(super) fn head(hidden: usize, eps: f32) -> Head {
    Head {
        dense: ("lm_head.dense", hidden),
        dense_bias: true,
        activation: Activation::Gelu,
        norm: "lm_head.layer_norm",
        norm_bias: true,
        eps,
        tokens: "embeddings.word_embeddings.weight",
        decoder: "lm_head.decoder.weight",
        bias: Some(("lm_head.decoder.bias", "lm_head.bias")),
    }
}

/// The first token through a hidden layer and the classifier: `[sequences, labels]`.
pub(super) fn classifier(b: &mut Builder, _: &JsonFile, x: Value, labels: usize) -> Result<Value> {
    let hidden = b.shape(x).cols;
    let first = b.pool(Pool::new(x, PoolMode::Cls));
    let h = dense("classifier.dense", hidden).activation(Activation::Tanh).of(b, first);
    Ok(dense("classifier.out_proj", labels).of(b, h))
}
