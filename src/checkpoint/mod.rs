//! Where a pretrained model comes from and what its files say.
//!
//! ```text
//!   source        an id or a folder -> a local folder      (hub_cache: what is on disk; hub: what must be fetched)
//!   files         which files a model needs, and paths that stay inside its folder
//!   config        JSON with errors that name file, key and value; prompts and settings
//!   modules       modules.json and each module's configuration   (transformer: the backbone's)
//!                 (router: chains of them, by what a text is encoded for)
//!                 (dense_modules, sparse_modules, multi_vector_modules: those of each kind of encoder)
//!                 (default_modules: where none are listed; late_interaction: where others list them)
//!   weights       tensors by the names that programs use         (module_weights: one module's; safetensors: one mapped file)
//!                                                          (adapter: what fine-tuning adds to them, by adapter_names)
//!   tokenizer     texts -> ids                             (tokenizer_files: what its files mean)
//!                                                          (leading: the first of a long text's)
//!                                                          (task_lengths: how many for a query, and for a document)
//!   chat          texts as messages -> ids                 (chat_template: the messages as text)
//! ```
//!
//! Everything here is parsed and checked, nothing is computed: the layers above turn a [`Checkpoint`] into a program.

mod adapter;
mod adapter_names;
mod adapter_scaling;
#[cfg(feature = "hub")]
mod blob;
mod chat;
mod chat_template;
pub mod config;
mod default_modules;
mod dense_modules;
mod files;
#[cfg(feature = "hub")]
mod hub;
mod hub_cache;
#[cfg(feature = "hub")]
mod hub_failure;
mod late_interaction;
mod leading;
mod module_weights;
mod modules;
mod multi_vector_modules;
mod router;
mod safetensors;
mod source;
mod sparse_modules;
mod task_lengths;
mod tokenizer;
mod tokenizer_arguments;
mod tokenizer_class;
mod tokenizer_files;
mod transformer;
mod weights;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use adapter::Adapter;
pub use chat_template::{ChatTemplate, Frame};
pub use config::{JsonFile, Settings};
pub use dense_modules::{DenseConfig, Feature, LogitScoreConfig, PoolingConfig, WeightedLayersConfig};
pub use modules::{Module, ModuleKind};
pub use multi_vector_modules::MultiVectorMaskConfig;
pub use router::Router;
pub(crate) use router::route;
pub use source::{DownloadProgress, ProgressCallback, SourceOptions, download};
pub use sparse_modules::{SparseAutoEncoderConfig, SparseStaticConfig, SpladeConfig, SpladeStrategy};
pub use task_lengths::{QueryExpansion, TaskLengths};
pub use tokenizer::{Encoding, Tokenizer};
pub use transformer::TransformerModule;
pub(crate) use transformer::{FEATURE_EXTRACTION, FILL_MASK, SEQUENCE_CLASSIFICATION, TEXT_GENERATION, is_flash};
pub use weights::CheckpointWeights;

use crate::error::{Error, Result};

/// What a model is used as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelType {
    /// Texts to embeddings.
    SentenceTransformer,
    /// Texts to sparse embeddings.
    SparseEncoder,
    /// Texts to a vector for each of their tokens.
    MultiVectorEncoder,
    /// Pairs of texts to scores.
    CrossEncoder,
}

impl ModelType {
    /// The class of the reference.
    pub fn name(self) -> &'static str {
        match self {
            ModelType::SentenceTransformer => "SentenceTransformer",
            ModelType::SparseEncoder => "SparseEncoder",
            ModelType::MultiVectorEncoder => "MultiVectorEncoder",
            ModelType::CrossEncoder => "CrossEncoder",
        }
    }
}

/// A model's files: where they are, and what they say.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    name: String,
    /// Its own first.
    folders: Vec<PathBuf>,
    commit: Option<String>,
    settings: Settings,
    modules: Vec<Module>,
    adapter: Option<Arc<Adapter>>,
}

impl Checkpoint {
    /// Finds the model `id_or_folder` (downloading it where that is needed and allowed) and reads its configuration.
    ///
    /// A folder is used as it is. An id is `organisation/name`, or a short name such as `all-MiniLM-L6-v2`.
    pub fn open(id_or_folder: &str, options: &SourceOptions) -> Result<Checkpoint> {
        Checkpoint::open_as(ModelType::SentenceTransformer, id_or_folder, options)
    }

    /// The same for a model that is to be used as `model_type`, which decides what is built where the files do not say.
    pub fn open_as(model_type: ModelType, id_or_folder: &str, options: &SourceOptions) -> Result<Checkpoint> {
        let source = source::resolve(id_or_folder, options)?;
        let (settings, modules) = modules::read(&source.folder, model_type, &source.bases)?;
        let folders = std::iter::once(&source.folder).chain(source.bases.folders()).cloned().collect();
        Ok(Checkpoint { name: source.name, folders, commit: source.commit, settings, modules, adapter: None })
    }

    /// What the files of `id_or_folder` say that the model is: they name it, or a head for sequence classification stands for a
    /// cross-encoder, and ColBERT's for late interaction.
    pub fn type_of(id_or_folder: &str, options: &SourceOptions) -> Result<ModelType> {
        let folder = source::resolve(id_or_folder, options)?.folder;
        if folder.join(modules::MODULES_FILE).is_file() {
            return modules::stored_type(&folder);
        }
        // A folder that holds no model is told of by whoever opens it.
        let config = JsonFile::read_if_present(&folder.join("config.json"))?;
        let is_classifier = config.is_some_and(|config| default_modules::is_classifier(&config).unwrap_or(false));
        if late_interaction::is_stanford(&folder).unwrap_or(false) {
            return Ok(ModelType::MultiVectorEncoder);
        }
        Ok(if is_classifier { ModelType::CrossEncoder } else { ModelType::SentenceTransformer })
    }

    /// The repository's id, or the folder as it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder with its files.
    pub fn folder(&self) -> &Path {
        &self.folders[0]
    }

    /// All folders that its files are in: its own first, then those of the models that its adapters change, and that of an adapter
    /// that is merged.
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// The commit, for a model that came from the hub.
    pub fn commit(&self) -> Option<&str> {
        self.commit.as_deref()
    }

    /// Prompts and other settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The modules, in the order they run.
    pub fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// Truncate to this many tokens instead of what the files say.
    pub fn set_max_seq_length(&mut self, tokens: usize) {
        fn set(modules: &mut [Module], tokens: usize) {
            for module in modules {
                match &mut module.kind {
                    ModuleKind::Transformer(transformer) => {
                        transformer.max_seq_length = Some(tokens);
                        transformer.lengths.set_max(tokens);
                    }
                    ModuleKind::SparseStaticEmbedding(config) => config.max_seq_length = Some(tokens),
                    ModuleKind::Router(router) => router.routes.iter_mut().for_each(|(_, chain)| set(chain, tokens)),
                    _ => {}
                }
            }
        }
        set(&mut self.modules, tokens);
    }

    /// Merges a low-rank adapter into the transformer's weights: a task of the checkpoint's own, or a folder or a repository of
    /// PEFT's, which is looked for with these options.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none, and [`Error::Unsupported`] for one that is not known or a model without a transformer.
    pub fn set_adapter(&mut self, name: &str, options: &SourceOptions) -> Result<()> {
        let (i, transformer) = self.transformer().map_err(|_| {
            let what = "the model has no transformer, or has routes, and takes none";
            Error::InvalidInput(format!("adapter '{name}' for {}: {what}", self.name))
        })?;
        if transformer.backbone != self.modules[i].path {
            let what = "its transformer is an adapter itself, and takes no other";
            return Err(Error::InvalidInput(format!("adapter '{name}' for {}: {what}", self.name)));
        }
        let is_id = name.matches('/').count() == 1 && !name.starts_with(['.', '/', '~']) && !name.ends_with('/');
        let adapter = match Adapter::find(name, [self.folder(), &self.modules[i].path], &transformer.config) {
            Err(Error::NotFound { .. }) if is_id => Adapter::of_peft(name, &source::find_adapter(name, options)?)?,
            found => found?,
        };
        self.folders.extend(adapter.folder().map(Path::to_path_buf));
        self.adapter = Some(Arc::new(adapter));
        Ok(())
    }

    /// The tasks that the checkpoint has adapters for.
    pub(crate) fn adapter_tasks(&self) -> Result<Vec<String>> {
        self.transformer().map_or_else(|_| Ok(vec![]), |(_, transformer)| adapter::tasks(&transformer.config))
    }

    /// The name of the adapter that is merged.
    pub(crate) fn adapter(&self) -> Option<&str> {
        self.adapter.as_ref().map(|adapter| adapter.name())
    }

    /// The paths that texts take through the modules, by the names of their routes: one without names unless there is a
    /// [`Router`].
    pub fn routes(&self) -> Vec<(Vec<String>, Checkpoint)> {
        let paths = router::flattened(&self.modules).into_iter();
        paths.map(|(names, modules)| (names, Checkpoint { modules, ..self.clone() })).collect()
    }

    /// The index and the configuration of the transformer among the modules.
    pub fn transformer(&self) -> Result<(usize, &TransformerModule)> {
        let found = self.modules.iter().enumerate().find_map(|(i, module)| match &module.kind {
            ModuleKind::Transformer(transformer) => Some((i, transformer.as_ref())),
            _ => None,
        });
        found.ok_or_else(|| {
            let file = self.folder().join(modules::MODULES_FILE).display().to_string();
            Error::unsupported(file, "type", "no Transformer", "a model with a Transformer module")
        })
    }

    /// The tokenizer of the first module, with the model's own maximum length.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        match self.modules.first() {
            Some(Module { kind: ModuleKind::StaticEmbedding, path, .. }) => Tokenizer::without_special_tokens(path),
            Some(Module { kind: ModuleKind::SparseStaticEmbedding(config), path, .. }) => {
                Tokenizer::load_plain(path, config.max_seq_length)
            }
            _ => {
                let (i, transformer) = self.transformer()?;
                let (length, do_lower_case) = (transformer.max_seq_length, transformer.do_lower_case);
                let folder = adapter::tokenizer_folder(&self.modules[i].path, &transformer.backbone);
                let arguments = &transformer.tokenizer_arguments;
                let mut tokenizer = Tokenizer::load_with(folder, length, do_lower_case, arguments)?;
                tokenizer.keep_whole(&transformer.whole_prompts)?;
                tokenizer.with_chat(transformer.chat.clone()).with_lengths(&transformer.lengths)
            }
        }
    }

    /// The weights of all modules, memory-mapped.
    pub fn weights(&self) -> Result<CheckpointWeights> {
        CheckpointWeights::open(&self.modules, self.adapter.as_deref())
    }
}
