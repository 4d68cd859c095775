//! ELECTRA (Clark et al. 2020), the discriminator: BERT whose tables may be narrower than its hidden states.
//! ms-marco-electra.

use super::bert::BertConfig;
use super::layers::dense;
use super::masked_lm::Head;
use crate::checkpoint::JsonFile;
use crate::error::Result;
use crate::program::{Activation, Builder, Pool, PoolMode, Value};

/// The backbone that `config.json` describes.
pub(super) fn backbone(b: &mut Builder, config: &JsonFile) -> Result<Value> {
    let electra = BertConfig { embedding: config.usize_or("embedding_size", 128)?, ..BertConfig::from_json(config)? };
    let mut x = electra.embeddings(b);
    if electra.embedding != electra.hidden {
        x = dense("embeddings_project", electra.hidden).of(b, x);
    }
    Ok(electra.encoder(b, x))
}

/// The head of its generator, which is a masked language model.
pub(super) fn masked_lm(config: &JsonFile) -> Result<Head> {
    let bert = BertConfig::from_json(config)?;
    Ok(Head {
        dense: ("generator_predictions.dense", config.usize_or("embedding_size", 128)?),
        dense_bias: true,
        activation: Activation::Gelu,
        norm: "generator_predictions.LayerNorm",
        norm_bias: true,
        eps: bert.eps,
        tokens: "embeddings.word_embeddings.weight",
        decoder: "generator_lm_head.weight",
        bias: Some(("generator_lm_head.bias", "generator_lm_head.bias")),
    })
}

/// The first token through a hidden layer and the classifier: `[sequences, labels]`.
pub(super) fn classifier(b: &mut Builder, _: &JsonFile, x: Value, labels: usize) -> Result<Value> {
    let hidden = b.shape(x).cols;
    let first = b.pool(Pool::new(x, PoolMode::Cls));
    let h = dense("classifier.dense", hidden).activation(Activation::Gelu).of(b, first);
    Ok(dense("classifier.out_proj", labels).of(b, h))
}
