//! `modules.json`: the modules of a model in the order they run, and what each one's configuration says.
//!
//! sentence-transformers has moved its modules between Python packages and renamed keys over the years. Both are
//! resolved here: a class is known by the last component of its path, and old key names stand beside the new ones.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::adapter::Bases;
use super::config::{JsonFile, Settings, brief, read_json};
use super::dense_modules::{
    DenseConfig, Feature, LogitScoreConfig, PoolingConfig, WeightedLayersConfig, read_dense, read_logit_score,
    read_normalize, read_pooling, read_weighted_layers,
};
use super::files::join_inside;
use super::late_interaction;
use super::multi_vector_modules::MultiVectorMaskConfig;
use super::router::Router;
use super::sparse_modules::{SparseAutoEncoderConfig, SparseStaticConfig, SpladeConfig};
use super::transformer::{FILL_MASK, TransformerModule};
use super::{ModelType, default_modules};
use crate::error::{Error, Result};
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

impl ModuleKind {
    /// The class, as the reference calls it.
    pub fn name(&self) -> &'static str {
        match self {
            ModuleKind::Transformer(_) => "Transformer",
            ModuleKind::StaticEmbedding => "StaticEmbedding",
            ModuleKind::WeightedLayers(_) => "WeightedLayerPooling",
            ModuleKind::Pooling(_) => "Pooling",
            ModuleKind::Normalize(_) => "Normalize",
            ModuleKind::Dense(_) => "Dense",
            ModuleKind::LayerNorm { .. } => "LayerNorm",
            ModuleKind::LogitScore(_) => "LogitScore",
            ModuleKind::SpladePooling(_) => "SpladePooling",
            ModuleKind::SparseStaticEmbedding(_) => "SparseStaticEmbedding",
            ModuleKind::SparseAutoEncoder(_) => "SparseAutoEncoder",
            ModuleKind::MultiVectorMask(_) => "MultiVectorMask",
            ModuleKind::TokenPooling(_) => "HierarchicalTokenPooling",
            ModuleKind::Router(_) => "Router",
            ModuleKind::Dropout => "Dropout",
        }
    }
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

/// What the model in `folder` was saved as. Older ones do not say so: bi-encoders, unless something else shows it.
pub(super) fn stored_type(folder: &Path) -> Result<ModelType> {
    let settings = Settings::read(folder)?;
    match settings.model_type {
        None if late_interaction::is_known_by_its_files(folder)? => Ok(ModelType::MultiVectorEncoder),
        _ => Ok(settings.stored_type()),
    }
}

/// Refuses what lexel cannot run, whatever the model is used as: before its weights are downloaded.
#[cfg(feature = "hub")]
pub(crate) fn check_modules(folder: &Path) -> Result<()> {
    // Of an adapter's base model nothing is known yet.
    let is_adapter =
        |(_, module): &(String, String)| folder.join(module).join(super::adapter::ADAPTER_CONFIG).is_file();
    match super::files::classes(folder)?.iter().any(is_adapter) {
        true => Ok(()),
        false => read(folder, stored_type(folder)?, &Bases::default()).map(drop),
    }
}

/// The settings of the model in `folder`, and its modules in the order they run. A repository without `modules.json`, or that
/// was stored for another use than `model_type`, is taken as a transformer that stands alone: its settings are then those of
/// something else, and not looked at, as in the reference. (For late interaction, the modules of a dense model are kept.)
pub(crate) fn read(folder: &Path, model_type: ModelType, bases: &Bases) -> Result<(Settings, Vec<Module>)> {
    let backbone = bases.backbone_of(folder);
    if !folder.join(MODULES_FILE).is_file() && !backbone.join("config.json").is_file() {
        return Err(Error::NotFound {
            what: format!("model in folder '{}'", backbone.display()),
            detail: match backbone == folder {
                true => format!("it has neither {MODULES_FILE} nor config.json"),
                false => format!("it has no config.json, and {} is an adapter of it", folder.display()),
            },
        });
    }
    let build: fn(&Path, &Bases, &str) -> Result<Vec<Module>> = match model_type {
        ModelType::MultiVectorEncoder => return late_interaction::read(folder, bases),
        ModelType::SentenceTransformer => default_modules::sentence_transformer,
        ModelType::CrossEncoder => |folder, bases, _| default_modules::cross_encoder(folder, bases),
        ModelType::SparseEncoder => default_modules::sparse_encoder,
    };
    let settings = Settings::read(folder)?;
    let stored = stored_type(folder)?;
    let why = match read_entries(folder)? {
        Some(entries) if stored == model_type => return Ok((settings, read_stored(folder, bases, entries)?)),
        Some(_) => format!("saved as a {0}, and gives its own results only as a {0}", stored.name()),
        None => format!("no {MODULES_FILE}"),
    };
    Ok((Settings::default(), build(folder, bases, &why)?))
}

fn read_stored(folder: &Path, bases: &Bases, entries: Vec<ModuleEntry>) -> Result<Vec<Module>> {
    entries
        .into_iter()
        .map(|entry| {
            let path = entry.folder(folder)?;
            let kind = read_module(&folder.join(MODULES_FILE), &entry.class_path, &path, bases)?;
            Ok(Module { name: entry.name, path, kind })
        })
        .collect()
}

/// What the module in `path` is, which `listed_in` says to be of a class.
pub(super) fn read_module(listed_in: &Path, class_path: &str, path: &Path, bases: &Bases) -> Result<ModuleKind> {
    Ok(match class_path.rsplit('.').next().unwrap_or_default() {
        "Transformer" => ModuleKind::Transformer(Box::new(TransformerModule::read(path, bases)?)),
        "MLMTransformer" => ModuleKind::Transformer(Box::new(TransformerModule::read_as(path, bases, FILL_MASK)?)),
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
        "Router" | "Asym" => ModuleKind::Router(Box::new(Router::read(path, bases)?)),
        _ => {
            let file = listed_in.display().to_string();
            return Err(Error::unsupported(file, "type", class_path, SUPPORTED_CLASSES));
        }
    })
}

pub(super) fn read_config(module: &Path) -> Result<JsonFile> {
    JsonFile::read(&module.join("config.json"))
}

#[cfg(test)]
mod tests;
