//! The weight files of one module, one or the shards that an index lists. Every prefix and old name is resolved here and nowhere
//! else.
//!
//! The same backbone is stored bare (`embeddings...`) or under the name of a task model (`bert.embeddings...`), heads
//! always bare. So one prefix is found by a tensor that every backbone has, and a name is looked for with the prefix
//! first, then without. Old checkpoints call a norm's `weight` and `bias` `gamma` and `beta`.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::adapter::ORIGINAL;
use super::config::JsonFile;
use super::files::{PICKLED_WEIGHTS, WEIGHTS_FILE, WEIGHTS_INDEX, pickled_weights_error, shards};
use super::safetensors::SafetensorsFile;
use crate::error::{Error, Result};

/// What a backbone may be stored under.
pub(super) const PREFIXES: [&str; 20] = [
    "",
    "bert.",
    "roberta.",
    "xlm-roberta.",
    "camembert.",
    "distilbert.",
    "mpnet.",
    "albert.",
    "electra.",
    "deberta.",
    "ernie.",
    "ultrabert.",
    "data2vec_text.",
    "language_model.",
    "model.language_model.",
    "model.",
    "new.",
    "gte.",
    "nomic_bert.",
    "transformer.",
];

/// The table of tokens, as the families name it: BERT and its kin, ModernBERT, decoders, T5, GPT-2.
const SENTINELS: [&str; 6] = [
    "embeddings.word_embeddings.weight",
    "embeddings.tok_embeddings.weight",
    "embed_tokens.weight",
    "shared.weight",
    "encoder.embed_tokens.weight",
    "wte.weight",
];

/// Names of one tensor, of which a checkpoint may store either: T5's encoder has its table from the whole model.
const ALIASES: [(&str, &str); 1] = [("shared.weight", "encoder.embed_tokens.weight")];

/// The files of one module.
pub(super) struct ModuleWeights {
    /// The file, or the index of several.
    pub(super) path: PathBuf,
    pub(super) files: Vec<SafetensorsFile>,
    /// What the backbone is stored under.
    pub(super) prefix: &'static str,
}

impl ModuleWeights {
    /// Opens the files in `folder` and checks their headers.
    pub(super) fn open(folder: &Path) -> Result<ModuleWeights> {
        let (single, index) = (folder.join(WEIGHTS_FILE), folder.join(WEIGHTS_INDEX));
        let (path, files) = if single.is_file() {
            let file = SafetensorsFile::open(&single)?;
            (single, vec![file])
        } else if index.is_file() {
            let files = open_shards(folder, &index)?;
            (index, files)
        } else if folder.join(PICKLED_WEIGHTS).is_file() {
            return Err(pickled_weights_error(folder.display()));
        } else {
            return Err(Error::NotFound {
                what: format!("weights in {}", folder.display()),
                detail: format!("neither {WEIGHTS_FILE} nor {WEIGHTS_INDEX} is there"),
            });
        };
        let has = |prefix: &str| {
            let stored = SENTINELS.map(|sentinel| format!("{prefix}{sentinel}"));
            let adapted = stored.iter().filter_map(|name| Some(format!("{}{ORIGINAL}", name.strip_suffix("weight")?)));
            let adapted: Vec<String> = adapted.collect();
            stored.iter().chain(&adapted).any(|name| files.iter().any(|file| file.shape(name).is_some()))
        };
        let prefix = PREFIXES.into_iter().find(|prefix| has(prefix)).unwrap_or("");
        Ok(ModuleWeights { path, files, prefix })
    }

    /// The stored name of the table of tokens.
    pub(super) fn table(&self) -> Option<String> {
        SENTINELS.into_iter().find_map(|sentinel| Some(self.find(sentinel)?.1))
    }

    /// The file and the stored name of a tensor.
    pub(super) fn find(&self, name: &str) -> Option<(&SafetensorsFile, String)> {
        let old = if let Some(stem) = name.strip_suffix(".weight") {
            Some(format!("{stem}.gamma"))
        } else {
            name.strip_suffix(".bias").map(|stem| format!("{stem}.beta"))
        };
        let alias = ALIASES.iter().find(|(known, _)| *known == name).map(|(_, alias)| *alias);
        // Where adapters stand beside it.
        let original = name.strip_suffix("weight").map(|stem| format!("{stem}{ORIGINAL}"));
        let names = [Some(name), old.as_deref(), alias, original.as_deref()].into_iter().flatten();
        let mut stored = names.flat_map(|name| [format!("{}{name}", self.prefix), name.to_string()]);
        stored.find_map(|stored| Some((self.file_of(&stored)?, stored)))
    }

    /// The stored names of all tensors.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().flat_map(SafetensorsFile::names)
    }

    /// The shape of a tensor, by its stored name.
    pub(super) fn shape(&self, stored: &str) -> Option<&[usize]> {
        self.file_of(stored)?.shape(stored)
    }

    fn file_of(&self, stored: &str) -> Option<&SafetensorsFile> {
        self.files.iter().find(|file| file.shape(stored).is_some())
    }

    /// Rows of a tensor, by its stored name, as f32.
    pub(super) fn read(&self, stored: &str, rows: Range<usize>) -> Result<Vec<f32>> {
        self.file_of(stored).unwrap_or(&self.files[0]).read(stored, rows)
    }
}

/// Opens the shards that `index` lists, and checks that each tensor lies in the shard that the index says.
fn open_shards(folder: &Path, index: &Path) -> Result<Vec<SafetensorsFile>> {
    let names = shards(index)?;
    let mut files = Vec::new();
    for name in &names {
        let path = folder.join(name);
        if !path.is_file() {
            let what = format!("shard {}", path.display());
            return Err(Error::NotFound { what, detail: format!("{} lists it; get it again", index.display()) });
        }
        files.push(SafetensorsFile::open(&path)?);
    }
    let listed = JsonFile::read(index)?.object_opt("weight_map")?;
    for tensor in listed.iter().flat_map(|map| map.keys()) {
        let shard = listed.as_ref().map_or(Ok(""), |map| map.str(tensor))?;
        let file = names.iter().position(|name| name == shard).map(|i| &files[i]);
        if file.is_none_or(|file| file.shape(tensor).is_none()) {
            let found = format!("no such tensor in {}", folder.join(shard).display());
            return Err(Error::Weight {
                name: tensor.to_string(),
                expected: format!("in {shard}, as the index says"),
                found,
            });
        }
    }
    Ok(files)
}
