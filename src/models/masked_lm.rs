//! The heads of masked language models: hidden states through a layer of their own, and then to a logit for each token of the
//! vocabulary. What [`splade`] makes of the logits is a sparse embedding.

use super::layers::{dense, layer_norm_with};
use crate::checkpoint::{JsonFile, SpladeConfig, SpladeStrategy};
use crate::error::Result;
use crate::program::{Activation, Builder, Linear, Pool, PoolMode, Value, WeightSource};

/// A head, by the names of its tensors.
pub(super) struct Head {
    /// Its own layer, of so many columns, and what follows there.
    pub dense: (&'static str, usize),
    pub dense_bias: bool,
    pub activation: Activation,
    /// The norm behind that.
    pub norm: &'static str,
    pub norm_bias: bool,
    pub eps: f32,
    /// The table of tokens, which is the matrix of the logits, too, where none is stored.
    pub tokens: &'static str,
    /// The matrix of the logits `[vocab, cols]`.
    pub decoder: &'static str,
    /// Whether logits have a bias: under the matrix's name, or, where it is tied, under the head's.
    pub bias: Option<(&'static str, &'static str)>,
}

impl Head {
    /// Hidden states to logits: `[tokens, vocab]`. `activation` is applied to them.
    pub fn build(
        self,
        b: &mut Builder,
        config: &JsonFile,
        weights: &dyn WeightSource,
        activation: Activation,
        x: Value,
    ) -> Result<Value> {
        let (name, cols) = self.dense;
        let vocab = config.usize("vocab_size")?;
        let h = dense(name, cols).bias(self.dense_bias).activation(self.activation).of(b, x);
        let h = layer_norm_with(b, self.norm, self.eps, self.norm_bias, h);
        let is_stored = |name: &str| weights.shape(b.tensor(name, vec![]).module, name).is_some();
        let is_tied = config.bool_or("tie_word_embeddings", true)?;
        let table = if is_tied && !is_stored(self.decoder) { self.tokens } else { self.decoder };
        let bias = self.bias.and_then(|(own, tied)| {
            let stored = [(own, true), (tied, is_tied)].into_iter().find(|&(name, counts)| counts && is_stored(name));
            if stored.is_none() {
                log::warn!("{}: no {own} is stored: the logits have no bias", config.path().display());
            }
            stored.map(|(name, _)| name)
        });
        let bias = bias.map(|name| b.vector(name, vocab));
        let weight = b.matrix(table, vocab, cols);
        Ok(b.linear(Linear { x: h, weight, bias, activation, residual: None }))
    }
}

/// What a text's logits have to go through before [`splade`] pools them.
pub(super) fn before(config: &SpladeConfig) -> Activation {
    match config.strategy {
        // The function grows, so the maximum can be taken first, and the function of far fewer numbers.
        SpladeStrategy::Max => Activation::Identity,
        SpladeStrategy::Sum => function(config),
    }
}

/// What is left to do with what [`splade`] gives.
pub(super) fn after(config: &SpladeConfig) -> Activation {
    match config.strategy {
        SpladeStrategy::Max => function(config),
        SpladeStrategy::Sum => Activation::Identity,
    }
}

/// Logits to one row for each text: `[sequences, vocab]`.
pub(super) fn splade(b: &mut Builder, config: &SpladeConfig, logits: Value) -> Value {
    let mode = match config.strategy {
        SpladeStrategy::Max => PoolMode::Max,
        SpladeStrategy::Sum => PoolMode::Sum,
    };
    b.pool(Pool::new(logits, mode))
}

fn function(config: &SpladeConfig) -> Activation {
    if config.twice { Activation::Log1pLog1pRelu } else { Activation::Log1pRelu }
}
