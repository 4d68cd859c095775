//! Models of late interaction: what the repositories of PyLate and of Stanford's ColBERT mean, which store elsewhere what
//! sentence-transformers stores in modules.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::adapter::Bases;
use super::config::{JsonFile, SETTINGS_FILE, Settings};
use super::dense_modules::{DenseConfig, Feature, read_dense};
use super::modules::{MODULES_FILE, Module, ModuleEntry, ModuleKind, read_entries, read_module};
use super::multi_vector_modules::{MultiVectorMaskConfig, words};
use super::task_lengths::QueryExpansion;
use super::transformer::TransformerModule;
use super::weights::CheckpointWeights;
use crate::error::{Error, Result};
use crate::program::WeightSource;

/// What ColBERT's documents leave out: Python's `string.punctuation`.
const PUNCTUATION: &str = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

/// The projection among Stanford's weights, and to how many columns it leads as a rule.
const PROJECTION: &str = "linear.weight";
const DIM: usize = 128;

/// Stanford's settings.
pub(crate) const STANFORD_FILE: &str = "artifact.metadata";

/// What PyLate stores among a model's settings, and nobody else.
const PYLATE_KEYS: [&str; 9] = [
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

/// Whether a repository's files show that it is a model of late interaction, though none says so: PyLate's did not always.
pub(super) fn is_known_by_its_files(folder: &Path) -> Result<bool> {
    let settings = JsonFile::read_if_present(&folder.join(SETTINGS_FILE))?;
    let has_keys = settings.is_some_and(|settings| PYLATE_KEYS.iter().any(|key| settings.contains(key)));
    let entries = read_entries(folder)?.unwrap_or_default();
    Ok(has_keys || entries.iter().any(|entry| entry.class_path.starts_with("pylate.")) || is_stanford(folder)?)
}

/// Whether a repository's architecture is that of Stanford's.
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
        let mut legacy = Legacy { skiplist_words: words(&file)?, ..Legacy::default() };
        for (key, prompt) in [("query_prefix", "query"), ("document_prefix", "document")] {
            if file.contains(key) {
                legacy.prefixes.push((prompt, file.str_or(key, "")?.to_string()));
            }
        }
        for key in ["query_length", "document_length"] {
            match file.usize_opt(key)? {
                Some(0) if key == "document_length" => return Err(file.invalid(key, "at least 1")),
                Some(length) => drop(legacy.transformer.insert(key.into(), length.into())),
                None => {}
            }
        }
        const KEY: &str = "query_expansion";
        if file.contains(KEY) {
            // What is wrong with it is wrong with this file.
            QueryExpansion::read(&file)?;
            legacy.transformer.insert(KEY.into(), file.get(KEY).cloned().unwrap_or(Value::Null));
        } else if file.bool_opt("do_query_expansion")? == Some(false) {
            legacy.transformer.insert(KEY.into(), Value::Null);
        } else if PYLATE_KEYS.iter().any(|key| file.contains(key)) {
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
        match file.usize_opt("doc_maxlen")? {
            Some(0) => return Err(file.invalid("doc_maxlen", "at least 1")),
            Some(length) => drop(legacy.transformer.insert("document_length".into(), length.into())),
            None => {}
        }
        let attend = file.bool_or("attend_to_mask_tokens", false)?;
        let length = file.usize_opt("query_maxlen")?.filter(|&length| length > 0).unwrap_or(32);
        let expansion = json!({ "strategy": "fixed", "attend": attend, "length": length });
        legacy.transformer.insert("query_expansion".into(), expansion);
        // Where it is null, it is not true.
        let is_skipped = file.bool_or("mask_punctuation", !file.contains("mask_punctuation"))?;
        legacy.skiplist_words = Some(if is_skipped { punctuation() } else { Vec::new() });
        Ok(legacy)
    }

    /// The prompts with the prefixes before them.
    fn add_to(&self, settings: &mut Settings) {
        for (name, prefix) in &self.prefixes {
            let prompt = settings.prompts.entry(name.to_string()).or_default();
            *prompt = format!("{prefix}{}", prompt.strip_prefix(prefix.as_str()).unwrap_or(prompt));
        }
    }

    /// The prompts whose beginnings are tokens.
    fn whole_prompts(&self) -> Vec<String> {
        self.prefixes.iter().map(|(_, prefix)| prefix.clone()).collect()
    }
}

fn punctuation() -> Vec<String> {
    PUNCTUATION.chars().map(String::from).collect()
}

/// The settings and modules of a model of late interaction: as they are stored, or what the reference makes of a bi-encoder with a
/// projection, of PyLate's and of Stanford's repositories.
pub(super) fn read(folder: &Path, bases: &Bases) -> Result<(Settings, Vec<Module>)> {
    let mut settings = Settings::read(folder)?;
    let Some(entries) = read_entries(folder)? else { return stanford(folder, bases) };
    let legacy = Legacy::of_pylate(folder)?;
    legacy.add_to(&mut settings);
    let stored = settings.model_type.as_deref();
    let is_other = matches!(stored, Some("CrossEncoder" | "SparseEncoder"));
    if is_other {
        return Err(no_projection(folder, &format!("saved as a {}", stored.unwrap_or_default())));
    }
    let mut modules = Vec::new();
    for entry in entries {
        modules.push(module(folder, bases, &legacy, entry)?);
    }
    match stored {
        Some("MultiVectorEncoder") => {}
        // PyLate's own classes do what these modules do.
        Some("ColBERT") => {
            append_mask(folder, legacy.skiplist_words.unwrap_or_else(punctuation), &mut modules);
        }
        None if is_stanford(folder)? => {}
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
fn module(folder: &Path, bases: &Bases, legacy: &Legacy, entry: ModuleEntry) -> Result<Module> {
    let path = entry.folder(folder)?;
    let kind = match entry.class.as_str() {
        "Transformer" => {
            let mut transformer = TransformerModule::read_with(&path, bases, &legacy.transformer)?;
            transformer.whole_prompts = legacy.whole_prompts();
            ModuleKind::Transformer(Box::new(transformer))
        }
        "Dense" => ModuleKind::Dense(read_dense(&path, Feature::Tokens)?),
        _ => read_module(&folder.join(MODULES_FILE), &entry.class_path, &path, bases)?,
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
fn stanford(folder: &Path, bases: &Bases) -> Result<(Settings, Vec<Module>)> {
    if !is_stanford(folder)? {
        return Err(no_projection(folder, &format!("no {MODULES_FILE}, and no architecture HF_ColBERT")));
    }
    let legacy = Legacy::of_stanford(folder)?;
    let mut settings = Settings::default();
    legacy.add_to(&mut settings);
    let mut transformer = TransformerModule::of_backbone(folder, bases, &legacy.transformer)?;
    transformer.whole_prompts = legacy.whole_prompts();
    let module = |name: &str, kind| Module { name: name.into(), path: folder.to_path_buf(), kind };
    let transformer = module("0", ModuleKind::Transformer(Box::new(transformer)));
    // Before the weights are there, nobody asks for the projection's shape.
    let stored = CheckpointWeights::open(std::slice::from_ref(&transformer), None).ok();
    let (out_features, in_features) = match stored.map(|weights| weights.shape(0, PROJECTION)) {
        None => (DIM, DIM),
        Some(Some(shape)) if shape.len() == 2 && !shape.contains(&0) => (shape[0], shape[1]),
        Some(_) => return Err(no_projection(folder, &format!("the weights have no matrix '{PROJECTION}'"))),
    };
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
