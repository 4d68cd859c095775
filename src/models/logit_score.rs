//! A causal language model as a cross-encoder: how much it expects one token, or one rather than another, behind the pair.
//! Qwen3-Reranker, mxbai-rerank-v2.

use crate::checkpoint::{JsonFile, LogitScoreConfig, Module};
use crate::error::{Error, Result};
use crate::program::{Activation, Builder, Difference, Linear, Part, Pool, PoolMode, TensorSpec, Value, WeightSource};

/// The logit of the last token, or the difference of two: `[sequences, 1]`. Of the vocabulary's matrix, no other rows are
/// needed.
pub(super) fn build(
    b: &mut Builder,
    config: &JsonFile,
    module: &Module,
    score: &LogitScoreConfig,
    weights: &dyn WeightSource,
    x: Value,
) -> Result<Value> {
    let table = head(b, config, weights, b.shape(x).cols)?;
    for (key, token) in [("true_token_id", Some(score.true_token)), ("false_token_id", score.false_token)] {
        if let Some(token) = token.filter(|&token| token >= table.rows()) {
            let detail = format!("{key} = {token}, but the vocabulary has {} tokens", table.rows());
            return Err(Error::invalid_file(module.path.join("config.json"), detail));
        }
    }
    let x = b.pool(Pool { x, modes: vec![PoolMode::LastToken] });
    let difference = Difference { table, row: score.true_token, other: score.false_token };
    let weight = b.weight(vec![Part::Difference(Box::new(difference))]);
    Ok(b.linear(Linear { x, weight, bias: None, activation: Activation::Identity, residual: None }))
}

/// The matrix from hidden states to logits. Where it is not stored, it is the table of tokens, if the configuration says so.
fn head(b: &Builder, config: &JsonFile, weights: &dyn WeightSource, hidden: usize) -> Result<TensorSpec> {
    let vocab = config.usize("vocab_size")?;
    let head = b.tensor("lm_head.weight", vec![vocab, hidden]);
    let is_tied = config.bool_or("tie_word_embeddings", false)?;
    match is_tied && weights.shape(head.module, &head.name).is_none() {
        true => Ok(b.tensor("embed_tokens.weight", vec![vocab, hidden])),
        false => Ok(head),
    }
}
