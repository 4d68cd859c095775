//! The modules of sparse encoders: what their files say, and which stand where `modules.json` is missing.

use std::path::{Path, PathBuf};

use super::config::JsonFile;
use super::files::TOKEN_WEIGHTS_FILE;
use super::modules::{Module, ModuleKind, is_masked_lm, read_config};
use super::transformer::{FILL_MASK, TransformerModule, tokenizer_limit};
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
    pub(super) fn read(module: &Path) -> Result<SparseStaticConfig> {
        let config = JsonFile::read_if_present(&module.join("config.json"))?;
        let path = config.as_ref().map_or(Ok(None), |config| config.str_opt("path"))?;
        // A name that ends otherwise is not looked at, as in the reference; which looks for the file in the folder where it
        // runs, or in a repository of that name. Here it is the module's, or the model's.
        let weights = match path.filter(|path| path.ends_with(".json")) {
            None => None,
            Some(path) => {
                let folders = [Some(module), module.parent()].into_iter().flatten();
                let file = folders.map(|folder| folder.join(TOKEN_WEIGHTS_FILE)).find(|file| file.is_file());
                Some(file.ok_or_else(|| Error::NotFound {
                    what: format!("file {TOKEN_WEIGHTS_FILE} in {} or above", module.display()),
                    detail: format!("the weights of tokens, which its config.json names: path = {path:?}"),
                })?)
            }
        };
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

/// What the reference builds for a repository that does not list modules of a sparse encoder: a masked language model and
/// SPLADE's maximum. (Without its head, it makes a sparse auto-encoder of random weights, which is to be trained.)
pub(super) fn default(folder: &Path, why: &str) -> Result<Vec<Module>> {
    let mut transformer = TransformerModule::read_without_modules(folder)?;
    if !is_masked_lm(&transformer.config)? {
        let supported = "a sparse encoder: ...ForMaskedLM. If the model makes dense embeddings, load it as a \
                         SentenceTransformer";
        return Err(transformer.config.unsupported("architectures", supported));
    }
    log::info!("{}: {why}; using SPLADE's maximum over the masked language model", folder.display());
    transformer.task = FILL_MASK.into();
    transformer.chat = None;
    let splade = SpladeConfig { strategy: SpladeStrategy::Max, twice: false };
    Ok(vec![
        Module { name: "0".into(), path: folder.to_path_buf(), kind: ModuleKind::Transformer(Box::new(transformer)) },
        Module { name: "1".into(), path: folder.join("1_SpladePooling"), kind: ModuleKind::SpladePooling(splade) },
    ])
}
