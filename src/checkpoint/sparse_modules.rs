//! The modules of sparse encoders: what their files say.

use std::path::{Path, PathBuf};

use super::files::{TOKEN_WEIGHTS_FILE, token_weights_file};
use super::modules::read_config;
use super::transformer::tokenizer_limit;
use crate::error::{Error, Result};

/// How the logits of a text's tokens become one sparse embedding (Formal et al. 2021).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpladeConfig {
    /// How those of several tokens become one.
    pub strategy: SpladeStrategy,
    /// Of a logit `x`: `ln(1 + max(x, 0))`, and with this `ln(1 + ln(1 + max(x, 0)))`.
    pub twice: bool,
}

/// How [`SpladeConfig`] makes one number of several tokens'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpladeStrategy {
    /// Their maximum.
    Max,
    /// Their sum.
    Sum,
}

/// Where the weights of tokens are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SparseStaticConfig {
    /// A JSON object of weights by token; `None`: the tensor `weight` of the module's own file.
    pub weights: Option<PathBuf>,
    /// Longer texts are truncated to this many tokens. `None`: no limit is stored anywhere.
    pub max_seq_length: Option<usize>,
}

/// How a sentence embedding becomes a sparse one (Wen et al. 2025).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SparseAutoEncoderConfig {
    /// Width of the sentence embedding.
    pub input: usize,
    /// Features: width of the sparse embedding.
    pub features: usize,
    /// How many features are kept, the largest, unless the model's settings say otherwise.
    pub k: usize,
}

impl SpladeConfig {
    pub(super) fn read(module: &Path) -> Result<SpladeConfig> {
        let config = read_config(module)?;
        let strategy = match config.str_or("pooling_strategy", "max")? {
            "max" => SpladeStrategy::Max,
            "sum" => SpladeStrategy::Sum,
            _ => return Err(config.unsupported("pooling_strategy", "max, sum")),
        };
        let twice = match config.str_or("activation_function", "relu")? {
            "relu" => false,
            "log1p_relu" => true,
            _ => return Err(config.unsupported("activation_function", "relu, log1p_relu")),
        };
        Ok(SpladeConfig { strategy, twice })
    }
}

impl SparseStaticConfig {
    /// Of the module in a folder, which something in the folder `above` lists.
    pub(super) fn read(module: &Path, above: &Path) -> Result<SparseStaticConfig> {
        let weights = token_weights_file(module, above)?;
        if weights.as_ref().is_some_and(|file| !file.is_file()) {
            return Err(Error::NotFound {
                what: format!("file {TOKEN_WEIGHTS_FILE} in {} or {}", module.display(), above.display()),
                detail: "the weights of tokens, which the module's config.json names by its key path".into(),
            });
        }
        Ok(SparseStaticConfig { weights, max_seq_length: tokenizer_limit(module)? })
    }
}

impl SparseAutoEncoderConfig {
    pub(super) fn read(module: &Path) -> Result<SparseAutoEncoderConfig> {
        let config = read_config(module)?;
        if config.bool_or("normalize", false)? {
            return Err(config.unsupported("normalize", "false"));
        }
        let (input, features) = (config.usize("input_dim")?, config.usize_or("hidden_dim", 512)?);
        let k = config.usize_or("k", 8)?;
        if !(1..=features).contains(&k) {
            return Err(config.invalid("k", &format!("a whole number from 1 to hidden_dim = {features}")));
        }
        Ok(SparseAutoEncoderConfig { input, features, k })
    }
}
