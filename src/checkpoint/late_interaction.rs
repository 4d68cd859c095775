//! Models of late interaction: the modules that say which tokens' vectors count, and what the repositories of PyLate and of
//! Stanford's ColBERT mean, which store the same things elsewhere.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::config::{JsonFile, SETTINGS_FILE, Settings};
use super::modules::{
    DenseConfig, Feature, MODULES_FILE, Module, ModuleEntry, ModuleKind, read_config, read_dense, read_entries,
    read_module,
};
use super::transformer::TransformerModule;
use super::weights::CheckpointWeights;
use crate::error::{Error, Result};
use crate::program::WeightSource;
use crate::token_pooling::HierarchicalTokenPooling;

/// What ColBERT's documents leave out: Python's `string.punctuation`.
const PUNCTUATION: &str = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

/// The projection among Stanford's weights, and to how many columns it leads as a rule.
const PROJECTION: &str = "linear.weight";
const DIM: usize = 128;

/// Stanford's settings.
pub(crate) const STANFORD_FILE: &str = "artifact.metadata";

/// Which tokens of a text count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultiVectorMaskConfig {
    /// Tokens that do not.
    pub skiplist_words: Vec<String>,
    /// The tasks for which that is so: `document` stands for a text for no task, too.
    pub skiplist_tasks: Vec<String>,
    /// Of a text for another task than `query`, only tokens of these ids count. `None`: all.
    pub keep_only: Option<Vec<u32>>,
}

impl MultiVectorMaskConfig {
    pub(super) fn read(module: &Path) -> Result<MultiVectorMaskConfig> {
        let config = read_config(module)?;
        let keep_only = match config.get("keep_only_token_ids") {
            Some(Value::Array(ids)) if !ids.is_empty() => {
                let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
                let ids: Option<Vec<u32>> = ids.iter().map(id).collect();
                Some(ids.ok_or_else(|| config.invalid("keep_only_token_ids", "a list of token ids"))?)
            }
            Some(Value::Array(_)) | None => None,
            Some(_) => return Err(config.invalid("keep_only_token_ids", "a list of token ids")),
        };
        let skiplist_words = strings(&config, "skiplist_words")?.unwrap_or_default();
        let skiplist_tasks = strings(&config, "skiplist_tasks")?;
        Ok(MultiVectorMaskConfig { skiplist_tasks: skiplist_tasks.unwrap_or_else(document), skiplist_words, keep_only })
    }

    /// For documents, without these words.
    fn skipping(skiplist_words: Vec<String>) -> MultiVectorMaskConfig {
        MultiVectorMaskConfig { skiplist_words, skiplist_tasks: document(), keep_only: None }
    }
}

impl HierarchicalTokenPooling {
    pub(super) fn read(module: &Path) -> Result<HierarchicalTokenPooling> {
        let config = read_config(module)?;
        let pool_factor = config.get("pool_factor").map_or(Some(1.0), Value::as_f64).filter(|&factor| factor >= 1.0);
        Ok(HierarchicalTokenPooling {
            pool_factor: pool_factor.ok_or_else(|| config.invalid("pool_factor", "a number, 1 or more"))?,
            num_protected_tokens: config.usize_or("num_protected_tokens", 1)?,
            normalize_embeddings: config.bool_or("normalize_embeddings", false)?,
            tasks: strings(&config, "tasks")?.unwrap_or_else(document),
        })
    }
}

fn document() -> Vec<String> {
    vec!["document".into()]
}

/// A list of strings, or one.
fn strings(config: &JsonFile, key: &str) -> Result<Option<Vec<String>>> {
    match config.get(key) {
        Some(Value::String(one)) => Ok(Some(vec![one.clone()])),
        _ => Ok(config.strings_opt(key)?.map(|list| list.into_iter().map(String::from).collect())),
    }
}

/// Whether a repository without `modules.json` is Stanford's.
pub(super) fn is_stanford(folder: &Path) -> Result<bool> {
    let config = JsonFile::read_if_present(&folder.join("config.json"))?;
    let architectures = config.as_ref().map_or(Ok(None), |config| config.strings_opt("architectures"))?;
    Ok(architectures.is_some_and(|names| names.contains(&"HF_ColBERT")))
}

/// What older repositories store beside `modules.json`.
#[derive(Debug, Default)]
struct Legacy {
    /// What the transformer module's own file would have, by its keys.
    transformer: Map<String, Value>,
    /// The words of the mask that is not among the modules.
    skiplist_words: Option<Vec<String>>,
    /// What goes before a query and a document, a token each.
    prefixes: Vec<(&'static str, String)>,
}

impl Legacy {
    /// What PyLate stores among a model's settings.
    fn of_pylate(folder: &Path) -> Result<Legacy> {
        let Some(file) = JsonFile::read_if_present(&folder.join(SETTINGS_FILE))? else { return Ok(Legacy::default()) };
        let mut legacy = Legacy { skiplist_words: strings(&file, "skiplist_words")?, ..Legacy::default() };
        for (key, prompt) in [("query_prefix", "query"), ("document_prefix", "document")] {
            if file.contains(key) {
                legacy.prefixes.push((prompt, file.str_or(key, "")?.to_string()));
            }
        }
        for key in ["query_length", "document_length"] {
            if let Some(length) = file.usize_opt(key)? {
                legacy.transformer.insert(key.into(), length.into());
            }
        }
        const MARKERS: [&str; 9] = [
            "query_length",
            "document_length",
            "query_expansion",
            "do_query_expansion",
            "attend_to_expansion_tokens",
            "attend_to_mask_tokens",
            "query_prefix",
            "document_prefix",
            "skiplist_words",
        ];
        const KEY: &str = "query_expansion";
        if file.contains(KEY) {
            legacy.transformer.insert(KEY.into(), file.get(KEY).cloned().unwrap_or(Value::Null));
        } else if file.bool_opt("do_query_expansion")? == Some(false) {
            legacy.transformer.insert(KEY.into(), Value::Null);
        } else if MARKERS.iter().any(|key| file.contains(key)) {
            let attend = match file.contains("attend_to_expansion_tokens") {
                true => file.bool_or("attend_to_expansion_tokens", false)?,
                false => file.bool_or("attend_to_mask_tokens", false)?,
            };
            let length = match legacy.transformer.remove("query_length") {
                Some(length) if length != 0 => length,
                _ => 32.into(),
            };
            legacy.transformer.insert(KEY.into(), json!({ "strategy": "fixed", "attend": attend, "length": length }));
        }
        Ok(legacy)
    }

    /// What Stanford stores. Its defaults are those of its `ColBERTConfig`.
    fn of_stanford(folder: &Path) -> Result<Legacy> {
        let path = folder.join(STANFORD_FILE);
        let file = JsonFile::read_if_present(&path)?.unwrap_or_else(|| {
            log::warn!("{}: no {STANFORD_FILE}; using its default values", folder.display());
            JsonFile::from_object(path, Map::new())
        });
        let mut legacy = Legacy::default();
        for (key, marker, prompt) in
            [("query_token_id", "[unused0]", "query"), ("doc_token_id", "[unused1]", "document")]
        {
            let marker = file.str_opt(key)?.filter(|marker| !marker.is_empty()).unwrap_or(marker);
            legacy.prefixes.push((prompt, format!("{marker} ")));
        }
        if let Some(length) = file.usize_opt("doc_maxlen")? {
            legacy.transformer.insert("document_length".into(), length.into());
        }
        let attend = file.bool_or("attend_to_mask_tokens", false)?;
        let length = file.usize_opt("query_maxlen")?.filter(|&length| length > 0).unwrap_or(32);
        let expansion = json!({ "strategy": "fixed", "attend": attend, "length": length });
        legacy.transformer.insert("query_expansion".into(), expansion);
        legacy.skiplist_words = Some(if file.bool_or("mask_punctuation", true)? { punctuation() } else { Vec::new() });
        Ok(legacy)
    }

    /// The prompts with the prefixes before them.
    fn add_to(&self, settings: &mut Settings) {
        for (name, prefix) in &self.prefixes {
            let prompt = settings.prompts.entry(name.to_string()).or_default();
            *prompt = format!("{prefix}{}", prompt.strip_prefix(prefix.as_str()).unwrap_or(prompt));
        }
    }

    /// A transformer with what its own file does not say, and the prompts whose beginnings are tokens.
    fn transformer(&self, mut transformer: TransformerModule) -> TransformerModule {
        transformer.whole_prompts = self.prefixes.iter().map(|(_, prefix)| prefix.clone()).collect();
        transformer
    }
}

fn punctuation() -> Vec<String> {
    PUNCTUATION.chars().map(String::from).collect()
}

/// The settings and modules of a model of late interaction: as they are stored, or what the reference makes of a bi-encoder with a
/// projection, of PyLate's and of Stanford's repositories.
pub(super) fn read(folder: &Path) -> Result<(Settings, Vec<Module>)> {
    let mut settings = Settings::read(folder)?;
    let Some(entries) = read_entries(folder)? else { return stanford(folder) };
    let legacy = Legacy::of_pylate(folder)?;
    legacy.add_to(&mut settings);
    // A dense model's function cannot compare rows of tokens.
    settings.similarity_fn_name =
        settings.similarity_fn_name.filter(|name| name.parse::<crate::LateInteraction>().is_ok());
    let stored = settings.model_type.as_deref();
    let is_other = matches!(stored, Some("CrossEncoder" | "SparseEncoder"));
    if is_other {
        return Err(no_projection(folder, &format!("saved as a {}", stored.unwrap_or_default())));
    }
    let mut modules = Vec::new();
    for entry in entries {
        modules.push(module(folder, &legacy, entry)?);
    }
    match stored {
        Some("MultiVectorEncoder") => {}
        // PyLate's own classes do what these modules do.
        Some("ColBERT") => {
            append_mask(folder, legacy.skiplist_words.unwrap_or_else(punctuation), &mut modules);
        }
        _ if is_stanford(folder)? => {}
        _ => {
            let is_pylate = !legacy.prefixes.is_empty();
            let words = legacy.skiplist_words.unwrap_or_else(|| if is_pylate { punctuation() } else { Vec::new() });
            convert(folder, &mut modules)?;
            append_mask(folder, words, &mut modules);
        }
    }
    Ok((settings, modules))
}

/// A module that `modules.json` lists.
fn module(folder: &Path, legacy: &Legacy, entry: ModuleEntry) -> Result<Module> {
    let path = entry.folder(folder)?;
    let kind = match entry.class.as_str() {
        "Transformer" => {
            let transformer = TransformerModule::read_with(&path, &legacy.transformer)?;
            ModuleKind::Transformer(Box::new(legacy.transformer(transformer)))
        }
        "Dense" => ModuleKind::Dense(read_dense(&path, Feature::Tokens)?),
        _ => read_module(&folder.join(MODULES_FILE), &entry.class_path, &path)?,
    };
    Ok(Module { name: entry.name, path, kind })
}

/// Makes of the modules of a dense model those of late interaction: its projection is of tokens then, and nothing is pooled.
fn convert(folder: &Path, modules: &mut Vec<Module>) -> Result<()> {
    modules.retain(|module| !matches!(module.kind, ModuleKind::Pooling(_) | ModuleKind::Normalize(Feature::Sentences)));
    let mut has_projection = false;
    for module in modules.iter_mut() {
        if let ModuleKind::Dense(dense) = &mut module.kind {
            (dense.feature, has_projection) = (Feature::Tokens, true);
        }
    }
    match has_projection {
        true => Ok(()),
        false => Err(no_projection(folder, "a dense model without a Dense module")),
    }
}

/// The mask, and vectors of length 1.
fn append_mask(folder: &Path, words: Vec<String>, modules: &mut Vec<Module>) {
    let mask = ModuleKind::MultiVectorMask(MultiVectorMaskConfig::skipping(words));
    for (name, kind) in [("MultiVectorMask", mask), ("Normalize", ModuleKind::Normalize(Feature::Tokens))] {
        let name = format!("{}_{name}", modules.len());
        modules.push(Module { path: folder.join(&name), name, kind });
    }
}

/// Stanford's ColBERT: a backbone, and its projection in the same file.
fn stanford(folder: &Path) -> Result<(Settings, Vec<Module>)> {
    if !is_stanford(folder)? {
        return Err(no_projection(folder, &format!("no {MODULES_FILE}, and no architecture HF_ColBERT")));
    }
    let legacy = Legacy::of_stanford(folder)?;
    let mut settings = Settings::default();
    legacy.add_to(&mut settings);
    let transformer = legacy.transformer(TransformerModule::read_with(folder, &legacy.transformer)?);
    let in_features = transformer.config.usize("hidden_size")?;
    let module = |name: &str, kind| Module { name: name.into(), path: folder.to_path_buf(), kind };
    let transformer = module("0", ModuleKind::Transformer(Box::new(transformer)));
    // The weights say it. Where they are not there yet, nobody asks.
    let stored = CheckpointWeights::open(std::slice::from_ref(&transformer)).ok();
    let shape = stored.and_then(|weights| weights.shape(0, PROJECTION));
    let out_features = shape.map_or(DIM, |shape| shape[0]);
    let (feature, activation) = (Feature::Tokens, "Identity".to_string());
    let dense = DenseConfig { feature, in_features, out_features, bias: false, activation, residual: false };
    let mut modules = vec![transformer, module("1", ModuleKind::Dense(dense))];
    append_mask(folder, legacy.skiplist_words.unwrap_or_default(), &mut modules);
    Ok((settings, modules))
}

/// The error for a model whose projection would have to be trained first.
fn no_projection(folder: &Path, why: &str) -> Error {
    let supported = "a model of late interaction: one saved by MultiVectorEncoder, PyLate or ColBERT, or a dense one with a \
                     Dense module";
    Error::unsupported(folder.display().to_string(), "projection to vectors of tokens", why, supported)
}
