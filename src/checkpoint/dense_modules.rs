//! The modules of dense models behind the backbone: what their files say.

use std::path::Path;

use serde_json::Value;

use super::config::JsonFile;
use super::modules::{ModuleKind, read_config};
use crate::error::Result;
use crate::program::PoolMode;

/// Which layers' hidden states are averaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightedLayersConfig {
    /// Width of the hidden states.
    pub dim: usize,
    /// The first: 0 are the embeddings, 1 is the first layer.
    pub first: usize,
    /// The last: how many layers the backbone has.
    pub layers: usize,
}

/// Which tokens of a language model's vocabulary score a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogitScoreConfig {
    /// The token that speaks for it.
    pub true_token: usize,
    /// The token that speaks against it.
    pub false_token: Option<usize>,
}

/// How token embeddings become one sentence embedding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolingConfig {
    /// Width of the token embeddings.
    pub dim: usize,
    /// The results of these modes are concatenated, in this order. At least one.
    pub modes: Vec<PoolMode>,
    /// Whether the prompt's tokens take part.
    pub include_prompt: bool,
}

/// Every mode with its old boolean key, in the order in which old configurations concatenate.
const POOL_MODES: [(PoolMode, &str); 6] = [
    (PoolMode::Cls, "pooling_mode_cls_token"),
    (PoolMode::Max, "pooling_mode_max_tokens"),
    (PoolMode::Mean, "pooling_mode_mean_tokens"),
    (PoolMode::MeanSqrtLenTokens, "pooling_mode_mean_sqrt_len_tokens"),
    (PoolMode::WeightedMean, "pooling_mode_weightedmean_tokens"),
    (PoolMode::LastToken, "pooling_mode_lasttoken"),
];

fn pool_mode(name: &str) -> Option<PoolMode> {
    POOL_MODES.iter().map(|(mode, _)| *mode).find(|mode| mode.name() == name)
}

/// What a module reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Feature {
    /// The sentence embedding: one row a text.
    Sentences,
    /// The token embeddings: one row a token.
    Tokens,
}

impl Feature {
    /// The name in configuration files.
    pub fn name(self) -> &'static str {
        match self {
            Feature::Sentences => "sentence_embedding",
            Feature::Tokens => "token_embeddings",
        }
    }
}

/// A linear layer: `activation(W x + b)`, plus `x` (or its projection, where the widths differ) with `residual`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DenseConfig {
    /// What it is applied to.
    pub feature: Feature,
    /// Width of its input.
    pub in_features: usize,
    /// Width of its output.
    pub out_features: usize,
    /// Whether there is a bias.
    pub bias: bool,
    /// The last component of the stored class path, e.g. `Tanh`.
    pub activation: String,
    /// Whether the input is added to the result.
    pub residual: bool,
}

pub(super) fn read_pooling(module: &Path) -> Result<PoolingConfig> {
    let config = read_config(module)?;
    let supported = POOL_MODES.map(|(mode, _)| mode.name()).join(", ");
    let mode_named = |name: &str| pool_mode(name).ok_or_else(|| config.unsupported("pooling_mode", supported.clone()));
    let modes = match config.get("pooling_mode") {
        Some(Value::String(name)) => vec![mode_named(name)?],
        Some(_) => {
            let names = config.strings_opt("pooling_mode")?.unwrap_or_default();
            names.into_iter().map(mode_named).collect::<Result<Vec<_>>>()?
        }
        None => {
            let mut modes = Vec::new();
            for (mode, old_key) in POOL_MODES {
                if config.bool_or(old_key, false)? {
                    modes.push(mode);
                }
            }
            if modes.is_empty() { vec![PoolMode::Mean] } else { modes }
        }
    };
    if modes.is_empty() {
        return Err(config.unsupported("pooling_mode", supported));
    }
    // A boolean key for a mode that is not in the table would otherwise be dropped in silence.
    let is_known = |key: &str| POOL_MODES.iter().any(|(_, old_key)| *old_key == key);
    if let Some(key) = config.keys().find(|key| key.starts_with("pooling_mode_") && !is_known(key))
        && config.get(key) != Some(&Value::Bool(false))
    {
        return Err(config.unsupported(key, supported));
    }
    let dim = config.usize_opt("embedding_dimension")?;
    let dim = dim.map_or_else(|| config.usize("word_embedding_dimension"), Ok)?;
    Ok(PoolingConfig { dim, modes, include_prompt: config.bool_or("include_prompt", true)? })
}

pub(super) fn read_weighted_layers(module: &Path) -> Result<WeightedLayersConfig> {
    let config = read_config(module)?;
    let dim = config.usize_opt("embedding_dimension")?;
    let dim = dim.map_or_else(|| config.usize("word_embedding_dimension"), Ok)?;
    let (first, layers) = (config.usize_or("layer_start", 4)?, config.usize_or("num_hidden_layers", 12)?);
    if first > layers {
        return Err(config.invalid("layer_start", &format!("at most num_hidden_layers = {layers}")));
    }
    Ok(WeightedLayersConfig { dim, first, layers })
}

pub(super) fn read_logit_score(module: &Path) -> Result<LogitScoreConfig> {
    let config = read_config(module)?;
    let input = "causal_logits";
    if config.str_or("module_input_name", input)? != input {
        return Err(config.unsupported("module_input_name", input));
    }
    Ok(LogitScoreConfig {
        true_token: config.usize("true_token_id")?,
        false_token: config.usize_opt("false_token_id")?,
    })
}

pub(super) fn read_normalize(module: &Path) -> Result<ModuleKind> {
    // Versions before 5 store nothing for this module, not even its folder.
    let config = JsonFile::read_if_present(&module.join("config.json"))?;
    Ok(ModuleKind::Normalize(
        config.map_or(Ok(Feature::Sentences), |config| read_feature(&config, Feature::Sentences))?,
    ))
}

/// `default` is what it reads where its file does not say so.
pub(super) fn read_dense(module: &Path, default: Feature) -> Result<DenseConfig> {
    let config = read_config(module)?;
    let activation = config.str_or("activation_function", "torch.nn.modules.activation.Tanh")?;
    if !activation.starts_with("torch.") {
        return Err(config.unsupported("activation_function", "the activation classes of torch.nn"));
    }
    let at_least_1 = |key: &str| match config.usize(key)? {
        0 => Err(config.invalid(key, "at least 1")),
        features => Ok(features),
    };
    Ok(DenseConfig {
        feature: read_feature(&config, default)?,
        in_features: at_least_1("in_features")?,
        out_features: at_least_1("out_features")?,
        bias: config.bool_or("bias", true)?,
        activation: activation.rsplit('.').next().unwrap_or_default().to_string(),
        residual: config.bool_or("use_residual", false)?,
    })
}

/// The feature that Dense or Normalize reads and writes: the same one.
pub(super) fn read_feature(config: &JsonFile, default: Feature) -> Result<Feature> {
    let (input, output) = ("module_input_name", "module_output_name");
    let name = config.str_or(input, default.name())?;
    if config.str_or(output, name)? != name {
        return Err(config.unsupported(output, format!("the same as {input}")));
    }
    let known = [Feature::Sentences, Feature::Tokens];
    let found = known.into_iter().find(|feature| feature.name() == name);
    found.ok_or_else(|| config.unsupported(input, known.map(Feature::name).join(", ")))
}
