//! How a model is loaded: from where, onto which device, in which numbers.

use crate::checkpoint::{Checkpoint, DownloadProgress, ModelType, SourceOptions, Tokenizer};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::executor::{Dtype, Executor, ExecutorOptions};
use crate::program::{Program, WeightSource};
use crate::sample;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;

/// Loads a model of kind `M`: a [`SentenceTransformer`](crate::SentenceTransformer), a [`SparseEncoder`](crate::SparseEncoder), a
/// [`MultiVectorEncoder`](crate::MultiVectorEncoder) or a [`CrossEncoder`](crate::CrossEncoder), whose `builder` makes it.
#[derive(Debug, Clone)]
pub struct Loader<M> {
    id_or_folder: String,
    source: SourceOptions,
    device: Device,
    options: ExecutorOptions,
    max_seq_length: Option<usize>,
    adapter: Option<String>,
    sample: Option<Vec<String>>,
    kind: PhantomData<fn() -> M>,
}

impl<M> Loader<M> {
    /// `organisation` completes a short id.
    pub(crate) fn new(id_or_folder: String, organisation: &str) -> Loader<M> {
        Loader {
            id_or_folder,
            source: SourceOptions { organisation: organisation.into(), ..SourceOptions::default() },
            device: Device::Auto,
            options: ExecutorOptions::default(),
            max_seq_length: None,
            adapter: None,
            sample: None,
            kind: PhantomData,
        }
    }

    /// Where to compute. Default: [`Device::Auto`].
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// What to compute in. Default: [`Dtype::F32`].
    pub fn dtype(mut self, dtype: Dtype) -> Self {
        self.options.dtype = dtype;
        self
    }

    /// Someone works at this machine: keep what is queued on a GPU within 20 ms, in pieces of 10, so that no frame is late.
    /// Default: false, within 100 ms.
    pub fn interactive(mut self, interactive: bool) -> Self {
        self.options.interactive = interactive;
        self
    }

    /// Texts like those to come, some dozens, for int8 on the CPU: they go through the model at its first load, and its weights are
    /// rounded for them (a cross-encoder takes them two by two), which is [kept](crate::set_cache_folder) for the next load with
    /// the same texts. Default: texts of many kinds. Without any, weights are rounded to what is nearest: the first load is
    /// faster, and results are further from those in f32.
    pub fn sample(mut self, texts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.sample = Some(texts.into_iter().map(Into::into).collect());
        self
    }

    /// A branch, tag or commit of the hub's repository. Default: `main`.
    pub fn revision(mut self, revision: impl Into<String>) -> Self {
        self.source.revision = Some(revision.into());
        self
    }

    /// An access token for the hub. Default: `HF_TOKEN`, or the saved login.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.source.token = Some(token.into());
        self
    }

    /// The hub's cache folder. Default: that of the Python library (`HF_HUB_CACHE`, `HF_HOME`, ...).
    pub fn cache_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.source.cache_dir = Some(folder.into());
        self
    }

    /// Use the cache only, never the network. Default: `HF_HUB_OFFLINE`.
    pub fn offline(mut self, offline: bool) -> Self {
        self.source.offline = offline;
        self
    }

    /// The hub's address, for a mirror. Default: `HF_ENDPOINT`.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.source.endpoint = Some(endpoint.into());
        self
    }

    /// Called while files are downloaded.
    pub fn download_progress(mut self, progress: impl Fn(&DownloadProgress) + Send + Sync + 'static) -> Self {
        self.source.progress = Some(Arc::new(progress));
        self
    }

    /// Truncate inputs to this many tokens, special tokens included, instead of the model's own maximum: queries and documents alike,
    /// but for queries that a model always expands to some length.
    pub fn max_seq_length(mut self, tokens: usize) -> Self {
        self.max_seq_length = Some(tokens);
        self
    }

    /// Merge a low-rank adapter (LoRA) into the weights: a task that the checkpoint has adapters for (of jina-embeddings-v3, e.g.
    /// `retrieval.query`), or what PEFT wrote, with `adapter_config.json`: a folder, by its path or by its name inside the model's
    /// folder, or a repository of the hub. Default: none, the weights as they are.
    pub fn adapter(mut self, adapter: impl Into<String>) -> Self {
        self.adapter = Some(adapter.into());
        self
    }

    /// The files, with the caller's limit in place of theirs.
    pub(crate) fn checkpoint(&self, model_type: ModelType) -> Result<Checkpoint> {
        let mut checkpoint = Checkpoint::open_as(model_type, &self.id_or_folder, &self.source)?;
        if let Some(tokens) = self.max_seq_length {
            checkpoint.set_max_seq_length(tokens);
        }
        if let Some(adapter) = &self.adapter {
            checkpoint.set_adapter(adapter, &self.source)?;
        }
        Ok(checkpoint)
    }

    /// The tokenizer, cutting to the checkpoint's limit, never beyond the position table.
    pub(crate) fn tokenizer(&self, checkpoint: &Checkpoint, program: &Program) -> Result<Tokenizer> {
        let mut tokenizer = checkpoint.tokenizer()?;
        let length = match (self.max_seq_length.or(tokenizer.max_seq_length()), program.max_positions()) {
            (Some(length), Some(table)) if length > table => {
                return Err(Error::InvalidInput(format!(
                    "max_seq_length = {length} is beyond the model's {table} positions: set it to {table} or less"
                )));
            }
            (length, table) => length.or(table),
        };
        tokenizer.set_max_seq_length(length)?;
        tokenizer.limit_tasks(program.max_positions())?;
        if let Some(rows) = program.vocabulary() {
            tokenizer.set_rows(rows);
        }
        Ok(tokenizer)
    }

    /// The program with its weights on the device. It is given `pairs`, or single texts.
    pub(crate) fn executor(
        &self,
        checkpoint: &Checkpoint,
        program: &Arc<Program>,
        tokenizer: &Tokenizer,
        pairs: bool,
    ) -> Result<Arc<dyn Executor>> {
        let weights = checkpoint.weights()?;
        // Before anything is allocated for a tensor that is stored in another shape.
        for tensor in program.tensors() {
            weights.read(tensor, 0..0)?;
        }
        let mut options = self.options.clone();
        if options.dtype == Dtype::Int8 {
            let sample = match &self.sample {
                Some(texts) => sample::of_texts(texts, tokenizer, program, pairs)?,
                None => sample::of_all_kinds(tokenizer, program, pairs),
            };
            options.sample = sample.map(Arc::new);
        }
        let executor = self.device.load(program.clone(), &weights, &options)?;
        weights.unused_layers(program).iter().for_each(|unused| log::warn!("{unused}"));
        log::info!("{} on {}", self.id_or_folder, executor.describe());
        Ok(executor)
    }
}
