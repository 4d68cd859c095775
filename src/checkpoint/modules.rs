//! `modules.json`: the modules of a model in the order they run, and what each one's configuration says.
//!
//! sentence-transformers has moved its modules between Python packages and renamed keys over the years. Both are
//! resolved here: a class is known by the last component of its path, and old key names stand beside the new ones.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::config::{JsonFile, Settings, brief, read_json};
use super::files::join_inside;
use super::late_interaction::{self, MultiVectorMaskConfig};
use super::router::Router;
use super::sparse_modules::{SparseAutoEncoderConfig, SparseStaticConfig, SpladeConfig};
use super::transformer::{FILL_MASK, TransformerModule};
use super::{ModelType, default_modules};
use crate::error::{Error, Result};
use crate::program::PoolMode;
use crate::token_pooling::HierarchicalTokenPooling;

/// One module of a model.
#[derive(Debug, Clone)]
pub struct Module {
    /// Its name in `modules.json`, usually its index.
    pub name: String,
    /// The folder with its configuration and weights.
    pub path: PathBuf,
    /// What it is.
    pub kind: ModuleKind,
}

/// What a module is, with what its configuration says.
#[derive(Debug, Clone)]
pub enum ModuleKind {
    /// A transformer with its tokenizer: texts to token embeddings.
    Transformer(Box<TransformerModule>),
    /// A table of token vectors with its tokenizer: texts to the means of their tokens' vectors.
    StaticEmbedding,
    /// The hidden states of all layers to a weighted mean.
    WeightedLayers(WeightedLayersConfig),
    /// Token embeddings to one sentence embedding.
    Pooling(PoolingConfig),
    /// Each row divided by its L2 norm.
    Normalize(Feature),
    /// A linear layer.
    Dense(DenseConfig),
    /// Layer normalisation of the embedding.
    LayerNorm {
        /// Width of the embedding.
        dim: usize,
    },
    /// The last token's hidden state to the logit of a token, or the difference of two.
    LogitScore(LogitScoreConfig),
    /// The logits of a masked language model to one sparse embedding.
    SpladePooling(SpladeConfig),
    /// A weight for each token with its tokenizer: texts to the weights of the tokens that they have.
    SparseStaticEmbedding(SparseStaticConfig),
    /// A sentence embedding to the largest of many more features.
    SparseAutoEncoder(SparseAutoEncoderConfig),
    /// Token embeddings to those that count.
    MultiVectorMask(MultiVectorMaskConfig),
    /// The token embeddings of a text to fewer.
    TokenPooling(HierarchicalTokenPooling),
    /// Several chains of modules, of which a text takes one.
    Router(Box<Router>),
    /// Does nothing outside training.
    Dropout,
}

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

/// The file that lists the modules.
pub(crate) const MODULES_FILE: &str = "modules.json";

const SUPPORTED_CLASSES: &str = "Transformer, StaticEmbedding, WeightedLayerPooling, Pooling, Normalize, Dense, LayerNorm, \
    Dropout, LogitScore, SpladePooling, SparseStaticEmbedding, SparseAutoEncoder, MLMTransformer, MultiVectorMask, \
    HierarchicalTokenPooling, Router";

/// An entry of `modules.json`, not yet interpreted.
#[derive(Debug, Clone)]
pub(crate) struct ModuleEntry {
    pub name: String,
    /// Folder inside the repository: empty for the root.
    pub path: String,
    /// The last component of the class path.
    pub class: String,
    pub class_path: String,
}

impl ModuleEntry {
    /// Its folder.
    pub fn folder(&self, repository: &Path) -> Result<PathBuf> {
        join_inside(repository, &self.path).map_err(|detail| Error::invalid_file(repository, detail))
    }
}

/// The entries of `modules.json` in `folder`; `None` without that file.
pub(crate) fn read_entries(folder: &Path) -> Result<Option<Vec<ModuleEntry>>> {
    let path = folder.join(MODULES_FILE);
    if !path.is_file() {
        return Ok(None);
    }
    let Value::Array(list) = read_json(&path)? else {
        return Err(Error::invalid_file(path, "expected a list of modules"));
    };
    let mut entries = Vec::new();
    for (i, value) in list.into_iter().enumerate() {
        let Value::Object(object) = value else {
            return Err(Error::invalid_file(path, format!("module {i}: expected an object, found {}", brief(&value))));
        };
        let entry = JsonFile::from_object(&path, object);
        let class_path = entry.str("type")?.to_string();
        let module_path = entry.str_or("path", "")?.to_string();
        join_inside(folder, &module_path).map_err(|detail| {
            Error::invalid_file(&path, format!("module {i}: path {module_path:?} is refused: {detail}"))
        })?;
        entries.push(ModuleEntry {
            name: entry.str_opt("name")?.map_or_else(|| i.to_string(), str::to_string),
            path: module_path,
            class: class_path.rsplit('.').next().unwrap_or_default().to_string(),
            class_path,
        });
    }
    if entries.is_empty() {
        return Err(Error::invalid_file(path, "the list of modules is empty"));
    }
    Ok(Some(entries))
}

/// Refuses what lexel cannot run, whatever the model is used as: before its weights are downloaded.
#[cfg(feature = "hub")]
pub(crate) fn check_modules(folder: &Path) -> Result<()> {
    let model_type = match folder.join(MODULES_FILE).is_file() || !late_interaction::is_stanford(folder)? {
        true => Settings::read(folder)?.stored_type(),
        false => ModelType::MultiVectorEncoder,
    };
    read(folder, model_type).map(drop)
}

/// The settings of the model in `folder`, and its modules in the order they run. A repository without `modules.json`, or that
/// was stored for another use than `model_type`, is taken as a transformer that stands alone: its settings are then those of
/// something else, and not looked at, as in the reference.
pub(crate) fn read(folder: &Path, model_type: ModelType) -> Result<(Settings, Vec<Module>)> {
    if !folder.join(MODULES_FILE).is_file() && !folder.join("config.json").is_file() {
        return Err(Error::NotFound {
            what: format!("model in folder '{}'", folder.display()),
            detail: format!("it has neither {MODULES_FILE} nor config.json"),
        });
    }
    let settings = Settings::read(folder)?;
    let entries = match read_entries(folder)? {
        Some(entries) if settings.stored_type() == model_type && model_type != ModelType::MultiVectorEncoder => {
            return Ok((settings, read_stored(folder, entries)?));
        }
        other => other,
    };
    let why = match entries {
        Some(_) => format!("saved as a {0}, and gives its own results only as a {0}", settings.stored_type().name()),
        None => format!("no {MODULES_FILE}"),
    };
    let modules = match model_type {
        ModelType::SentenceTransformer => default_modules::sentence_transformer(folder, &why)?,
        ModelType::CrossEncoder => default_modules::cross_encoder(folder)?,
        ModelType::SparseEncoder => default_modules::sparse_encoder(folder, &why)?,
        ModelType::MultiVectorEncoder => return late_interaction::read(folder),
    };
    Ok((Settings::default(), modules))
}

fn read_stored(folder: &Path, entries: Vec<ModuleEntry>) -> Result<Vec<Module>> {
    entries
        .into_iter()
        .map(|entry| {
            let path = entry.folder(folder)?;
            let kind = read_module(&folder.join(MODULES_FILE), &entry.class_path, &path)?;
            Ok(Module { name: entry.name, path, kind })
        })
        .collect()
}

/// What the module in `path` is, which `listed_in` says to be of a class.
pub(super) fn read_module(listed_in: &Path, class_path: &str, path: &Path) -> Result<ModuleKind> {
    Ok(match class_path.rsplit('.').next().unwrap_or_default() {
        "Transformer" => ModuleKind::Transformer(Box::new(TransformerModule::read(path)?)),
        "MLMTransformer" => ModuleKind::Transformer(Box::new(TransformerModule::read_as(path, FILL_MASK)?)),
        "StaticEmbedding" => ModuleKind::StaticEmbedding,
        "WeightedLayerPooling" => ModuleKind::WeightedLayers(read_weighted_layers(path)?),
        "Pooling" => ModuleKind::Pooling(read_pooling(path)?),
        "Normalize" => read_normalize(path)?,
        "Dense" => ModuleKind::Dense(read_dense(path, Feature::Sentences)?),
        "LayerNorm" => ModuleKind::LayerNorm { dim: read_config(path)?.usize("dimension")? },
        "Dropout" => ModuleKind::Dropout,
        "LogitScore" => ModuleKind::LogitScore(read_logit_score(path)?),
        "SpladePooling" => ModuleKind::SpladePooling(SpladeConfig::read(path)?),
        "SparseStaticEmbedding" => {
            let above = listed_in.parent().unwrap_or(path);
            ModuleKind::SparseStaticEmbedding(SparseStaticConfig::read(path, above)?)
        }
        "SparseAutoEncoder" => ModuleKind::SparseAutoEncoder(SparseAutoEncoderConfig::read(path)?),
        "MultiVectorMask" => ModuleKind::MultiVectorMask(MultiVectorMaskConfig::read(path)?),
        "HierarchicalTokenPooling" => ModuleKind::TokenPooling(HierarchicalTokenPooling::read(path)?),
        "Router" | "Asym" => ModuleKind::Router(Box::new(Router::read(path)?)),
        _ => {
            let file = listed_in.display().to_string();
            return Err(Error::unsupported(file, "type", class_path, SUPPORTED_CLASSES));
        }
    })
}

pub(super) fn read_config(module: &Path) -> Result<JsonFile> {
    JsonFile::read(&module.join("config.json"))
}

fn read_pooling(module: &Path) -> Result<PoolingConfig> {
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

fn read_weighted_layers(module: &Path) -> Result<WeightedLayersConfig> {
    let config = read_config(module)?;
    let dim = config.usize_opt("embedding_dimension")?;
    let dim = dim.map_or_else(|| config.usize("word_embedding_dimension"), Ok)?;
    let (first, layers) = (config.usize_or("layer_start", 4)?, config.usize_or("num_hidden_layers", 12)?);
    if first > layers {
        return Err(config.invalid("layer_start", &format!("at most num_hidden_layers = {layers}")));
    }
    Ok(WeightedLayersConfig { dim, first, layers })
}

fn read_logit_score(module: &Path) -> Result<LogitScoreConfig> {
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

fn read_normalize(module: &Path) -> Result<ModuleKind> {
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
    Ok(DenseConfig {
        feature: read_feature(&config, default)?,
        in_features: config.usize("in_features")?,
        out_features: config.usize("out_features")?,
        bias: config.bool_or("bias", true)?,
        activation: activation.rsplit('.').next().unwrap_or_default().to_string(),
        residual: config.bool_or("use_residual", false)?,
    })
}

/// The feature that Dense or Normalize reads and writes: the same one.
fn read_feature(config: &JsonFile, default: Feature) -> Result<Feature> {
    let (input, output) = ("module_input_name", "module_output_name");
    let name = config.str_or(input, default.name())?;
    if config.str_or(output, name)? != name {
        return Err(config.unsupported(output, format!("the same as {input}")));
    }
    let known = [Feature::Sentences, Feature::Tokens];
    let found = known.into_iter().find(|feature| feature.name() == name);
    found.ok_or_else(|| config.unsupported(input, known.map(Feature::name).join(", ")))
}

#[cfg(test)]
mod tests;
