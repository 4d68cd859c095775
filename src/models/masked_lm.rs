//! The heads of masked language models, as sparse encoders have them: hidden states through a layer of their own, then to a logit
//! for each token of the vocabulary, and those of a text's tokens to one. There is never a matrix of tokens by vocabulary: a block
//! of columns is pooled before the next is computed.

use super::layers::{dense, layer_norm_with};
use crate::checkpoint::{JsonFile, SpladeConfig, SpladeStrategy};
use crate::error::{Error, Result};
use crate::program::{Activation, Builder, Linear, Part, Pool, PoolMode, TensorSpec, Value};

/// Columns of a block, a multiple of four. A batch of 512 tokens takes 8 MB for it.
pub(super) const BLOCK: usize = 4096;

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
    /// Hidden states to one row of pooled logits for each text: `[sequences, vocab]`, in blocks of so many columns ([`BLOCK`]).
    /// What [`after`] says remains to be done.
    pub fn build(
        self,
        b: &mut Builder,
        config: &JsonFile,
        splade: &SpladeConfig,
        x: Value,
        block: usize,
    ) -> Result<Value> {
        let (name, cols) = self.dense;
        let vocab = config.usize("vocab_size")?;
        if vocab == 0 {
            return Err(config.invalid("vocab_size", "at least 1"));
        }
        let x = dense(name, cols).bias(self.dense_bias).activation(self.activation).of(b, x);
        let x = layer_norm_with(b, self.norm, self.eps, self.norm_bias, x);
        let is_stored = |name: &str| b.stored_shape(name).is_some();
        let is_tied = config.bool_or("tie_word_embeddings", true)?;
        let table = if is_tied && !is_stored(self.decoder) { self.tokens } else { self.decoder };
        let bias = self.bias.and_then(|(own, tied)| {
            let stored = [(own, true), (tied, is_tied)].into_iter().find(|&(name, counts)| counts && is_stored(name));
            if stored.is_none() {
                let names = if is_tied && tied != own { format!("{own} and {tied}") } else { own.to_string() };
                log::warn!("{}: {names} not stored: the logits have no bias", config.path().display());
            }
            stored.map(|(name, _)| name)
        });
        // Before there are as many blocks as a wrong number makes.
        let stored = b.stored_shape(table).filter(|shape| *shape != [vocab, cols]);
        if let Some(found) = stored {
            let (name, expected) = (table.to_string(), format!("[{vocab}, {cols}]"));
            return Err(Error::Weight { name, expected, found: format!("{found:?}") });
        }
        let (table, bias) = (b.tensor(table, vec![vocab, cols]), bias.map(|name| b.tensor(name, vec![vocab])));
        // The function that makes weights of logits grows: the maximum can be taken first, and the function of far fewer numbers.
        let (activation, mode) = match splade.strategy {
            SpladeStrategy::Max => (Activation::Identity, PoolMode::Max),
            SpladeStrategy::Sum => (function(splade), PoolMode::Sum),
        };
        let mut pooled = Vec::new();
        for first in (0..vocab).step_by(block) {
            let rows = block.min(vocab - first);
            let part = |tensor: &TensorSpec| match rows == vocab {
                true => tensor.clone().into(),
                false => Part::Rows(tensor.clone(), first, rows),
            };
            let (weight, bias) = (b.weight(vec![part(&table)]), bias.as_ref().map(|bias| b.weight(vec![part(bias)])));
            let logits = b.linear(Linear { x, weight, bias, activation, residual: None });
            pooled.push(b.pool(Pool::new(logits, mode)));
        }
        Ok(b.join(pooled))
    }
}

/// What is left to do with what [`Head::build`] gives.
pub(super) fn after(config: &SpladeConfig) -> Activation {
    match config.strategy {
        SpladeStrategy::Max => function(config),
        SpladeStrategy::Sum => Activation::Identity,
    }
}

fn function(config: &SpladeConfig) -> Activation {
    if config.twice { Activation::Log1pLog1pRelu } else { Activation::Log1pRelu }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Batch;
    use crate::cpu::{CpuExecutor, CpuOptions};
    use crate::executor::Executor;
    use crate::models::bert;
    use crate::program::{Output, Program, RandomWeights, Rows};
    use std::sync::Arc;

    const VOCAB: usize = 70;

    fn program(strategy: SpladeStrategy, block: usize) -> Program {
        let text = r#"{"model_type": "bert", "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1,
            "intermediate_size": 8, "max_position_embeddings": 16, "vocab_size": 70}"#;
        let Ok(serde_json::Value::Object(object)) = serde_json::from_str(text) else { panic!("{text}") };
        let (config, mut b) = (JsonFile::from_object("config.json", object), Builder::new());
        let x = bert::backbone(&mut b, &config).unwrap();
        let (head, splade) = (bert::masked_lm(&config).unwrap(), SpladeConfig { strategy, twice: false });
        let y = head.build(&mut b, &config, &splade, x, block).unwrap();
        b.finish(y, x)
    }

    #[test]
    fn blocks_of_the_vocabulary_are_the_whole() {
        let mut batch = Batch::new();
        batch.push(&[1, 5, 60, 3], &[0; 4], 0);
        batch.push(&[7, 69], &[0; 2], 0);
        for strategy in [SpladeStrategy::Max, SpladeStrategy::Sum] {
            let run = |block| {
                let program = Arc::new(program(strategy, block));
                let widest =
                    program.steps.iter().filter(|step| step.shape.rows == Rows::Tokens).map(|step| step.shape.cols);
                let widest = widest.max().unwrap();
                assert_eq!(widest, block.clamp(24, VOCAB));
                let (weights, options) = (RandomWeights { seed: 1 }, CpuOptions::default());
                let executor = CpuExecutor::load(program.clone(), &weights, &options).unwrap();
                (executor.submit(batch.clone(), Output::Sentences).unwrap().wait().unwrap(), program.parameters())
            };
            let (whole, parameters) = run(VOCAB);
            assert_eq!(whole.shape(), [2, VOCAB]);
            for block in [16, 32, 68] {
                let (pooled, of_blocks) = run(block);
                assert_eq!(of_blocks, parameters, "the table is there once");
                for (a, b) in pooled.data.iter().zip(&whole.data) {
                    assert!((a - b).abs() <= 1e-6, "{strategy:?}, blocks of {block}: {a}, {b}");
                }
            }
        }
    }
}
