//! Well-known shapes without their checkpoints: for benchmarks on machines that have no model at hand.

use super::BertConfig;
use crate::error::{Error, Result};
use crate::program::{Activation, Builder, Pool, PoolMode, Program};

/// A model's shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Preset {
    /// The name of the model that has it.
    pub name: &'static str,
    /// Its backbone.
    pub backbone: BertConfig,
    /// Its pooling; a Normalize follows.
    pub pooling: PoolMode,
    /// The length at which the model truncates.
    pub max_seq_length: usize,
}

impl Preset {
    /// All presets.
    pub fn all() -> Vec<Preset> {
        let bert = |name, hidden, layers, heads, pooling, max_seq_length| Preset {
            name,
            backbone: BertConfig {
                vocab: 30_522,
                embedding: hidden,
                hidden,
                layers,
                heads,
                intermediate: 4 * hidden,
                max_positions: 512,
                first_position: 0,
                token_types: 2,
                activation: Activation::Gelu,
                eps: 1e-12,
            },
            pooling,
            max_seq_length,
        };
        vec![
            bert("all-MiniLM-L6-v2", 384, 6, 12, PoolMode::Mean, 256),
            bert("all-MiniLM-L12-v2", 384, 12, 12, PoolMode::Mean, 128),
            bert("bge-small", 384, 12, 12, PoolMode::Cls, 512),
            bert("bert-base", 768, 12, 12, PoolMode::Mean, 512),
            bert("bge-large", 1024, 24, 16, PoolMode::Cls, 512),
        ]
    }

    /// The preset of that name.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] with the known names.
    pub fn named(name: &str) -> Result<Preset> {
        Preset::all().into_iter().find(|preset| preset.name == name).ok_or_else(|| {
            let names: Vec<_> = Preset::all().iter().map(|preset| preset.name).collect();
            Error::InvalidInput(format!("unknown preset '{name}'; known: {}", names.join(", ")))
        })
    }

    /// Its program. [`RandomWeights`](crate::program::RandomWeights) gives it weights.
    pub fn program(&self) -> Program {
        let mut b = Builder::new();
        let x = self.backbone.build(&mut b);
        b.label("pooling");
        let pooled = b.pool(Pool { x, modes: vec![self.pooling] });
        let embedding = b.normalize(pooled);
        b.finish(embedding, x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_presets_have_the_known_numbers_of_parameters() {
        // Published: 22.7 M, 33.4 M, 109 M and 335 M, poolers (hidden * (hidden + 1)) included, which are not used here.
        let parameters = |name| Preset::named(name).unwrap().program().parameters();
        assert_eq!(parameters("all-MiniLM-L6-v2"), 22_713_216 - 384 * 385);
        assert_eq!(parameters("bert-base"), 109_482_240 - 768 * 769);
        assert_eq!(parameters("bge-large"), 335_141_888 - 1024 * 1025);
        assert!(Preset::named("bert").unwrap_err().to_string().contains("bert-base"));
    }
}
