//! From an id or folder to a model on a device.

use super::{Model, SentenceTransformer};
use crate::checkpoint::{Checkpoint, DownloadProgress, ModuleKind, SourceOptions};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::executor::Dtype;
use crate::models;
use std::path::PathBuf;
use std::sync::Arc;

/// Loads a [`SentenceTransformer`]; made by [`SentenceTransformer::builder`].
#[derive(Clone)]
pub struct Loader {
    id_or_folder: String,
    source: SourceOptions,
    device: Device,
    dtype: Dtype,
    max_seq_length: Option<usize>,
}

impl Loader {
    pub(super) fn new(id_or_folder: String) -> Loader {
        Loader {
            id_or_folder,
            source: SourceOptions::default(),
            device: Device::Auto,
            dtype: Dtype::F32,
            max_seq_length: None,
        }
    }

    /// Where to compute. Default: [`Device::Auto`].
    pub fn device(mut self, device: Device) -> Loader {
        self.device = device;
        self
    }

    /// What to compute in. Default: [`Dtype::F32`].
    pub fn dtype(mut self, dtype: Dtype) -> Loader {
        self.dtype = dtype;
        self
    }

    /// A branch, tag or commit of the hub's repository. Default: `main`.
    pub fn revision(mut self, revision: impl Into<String>) -> Loader {
        self.source.revision = Some(revision.into());
        self
    }

    /// An access token for the hub. Default: `HF_TOKEN`, or the saved login.
    pub fn token(mut self, token: impl Into<String>) -> Loader {
        self.source.token = Some(token.into());
        self
    }

    /// The hub's cache folder. Default: that of the Python library (`HF_HUB_CACHE`, `HF_HOME`, ...).
    pub fn cache_dir(mut self, folder: impl Into<PathBuf>) -> Loader {
        self.source.cache_dir = Some(folder.into());
        self
    }

    /// Use the cache only, never the network. Default: `HF_HUB_OFFLINE`.
    pub fn offline(mut self, offline: bool) -> Loader {
        self.source.offline = offline;
        self
    }

    /// The hub's address, for a mirror. Default: `HF_ENDPOINT`.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Loader {
        self.source.endpoint = Some(endpoint.into());
        self
    }

    /// Called while files are downloaded.
    pub fn download_progress(mut self, progress: impl Fn(&DownloadProgress) + Send + Sync + 'static) -> Loader {
        self.source.progress = Some(Arc::new(progress));
        self
    }

    /// Truncate texts to this many tokens, special tokens included, instead of the model's own maximum.
    pub fn max_seq_length(mut self, tokens: usize) -> Loader {
        self.max_seq_length = Some(tokens);
        self
    }

    /// Loads the model: files, tokenizer, weights on the device.
    ///
    /// # Errors
    /// Whatever keeps the model from running exactly as its files say: see [`Error`].
    pub fn load(self) -> Result<SentenceTransformer> {
        let checkpoint = Checkpoint::open(&self.id_or_folder, &self.source)?;
        let weights = checkpoint.weights()?;
        let program = Arc::new(models::sentence_transformer(checkpoint.modules(), &weights)?);
        let max_seq_length = self.resolve_length(&checkpoint, program.max_positions())?;
        let mut tokenizer = checkpoint.tokenizer()?;
        tokenizer.set_max_seq_length(max_seq_length)?;
        let settings = checkpoint.settings().clone();
        let prompts = settings.bi_encoder_prompts();
        if let Some(name) = &settings.default_prompt_name
            && !prompts.contains_key(name)
        {
            let known = prompts.keys().cloned().collect::<Vec<_>>().join(", ");
            let file = "config_sentence_transformers.json";
            return Err(Error::unsupported(file, "default_prompt_name", name, format!("the stored prompts: {known}")));
        }
        let similarity = match &settings.similarity_fn_name {
            Some(name) => name.parse().map_err(|_| {
                let file = "config_sentence_transformers.json";
                Error::unsupported(file, "similarity_fn_name", name, "cosine, dot, euclidean, manhattan")
            })?,
            None => Default::default(),
        };
        let include_prompt = checkpoint.modules().iter().all(|module| match &module.kind {
            ModuleKind::Pooling(pooling) => pooling.include_prompt,
            _ => true,
        });
        let executor = self.device.load(program.clone(), &weights, self.dtype)?;
        log::info!("{} on {}", self.id_or_folder, executor.describe());
        let model = Model {
            folder: checkpoint.folder().to_path_buf(),
            modules: checkpoint.modules().to_vec(),
            settings,
            prompts,
            similarity,
            include_prompt,
            tokenizer,
            max_seq_length,
            program,
            executor,
        };
        Ok(SentenceTransformer { model: Arc::new(model) })
    }

    /// The caller's limit, else the files'; never beyond the position table.
    fn resolve_length(&self, checkpoint: &Checkpoint, table: Option<usize>) -> Result<Option<usize>> {
        let (_, transformer) = checkpoint.transformer()?;
        let stored = transformer.max_seq_length;
        match (self.max_seq_length.or(stored), table) {
            (Some(length), Some(table)) if length > table => Err(Error::InvalidInput(format!(
                "max_seq_length = {length} is beyond the model's {table} positions: set it to {table} or less"
            ))),
            (length, table) => Ok(length.or(table)),
        }
    }
}
