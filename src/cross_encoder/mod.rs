//! Pairs of texts to scores: a cross-encoder's repository, loaded on a device.

mod activation;
mod asynchronous;
mod load;
mod options;
mod predict;
mod rank;

pub use activation::default_activation;
pub use options::{PredictOptions, RankOptions};
pub use rank::Hit;

use crate::checkpoint::{Module, Tokenizer};
use crate::error::Result;
use crate::executor::Executor;
use crate::loader::Loader;
use crate::program::{Activation, Program};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A cross-encoder: reads both texts of a pair together and gives it a score, or one for each label. More accurate than
/// comparing embeddings, and slower: every pair runs through the model. Cheap to clone and to share between threads.
///
/// ```no_run
/// # fn main() -> lexel::Result<()> {
/// let model = lexel::CrossEncoder::load("cross-encoder/ms-marco-MiniLM-L6-v2")?;
/// let passages = ["Berlin has 3.7 million people.", "A cheetah runs behind its prey."];
/// for hit in model.rank("How many people live in Berlin?", &passages)? {
///     println!("{:.2}\t{}", hit.score, passages[hit.corpus_id]);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct CrossEncoder {
    model: Arc<Model>,
}

/// What the clones of a model share.
struct Model {
    folders: Vec<PathBuf>,
    modules: Vec<Module>,
    prompts: BTreeMap<String, String>,
    default_prompt_name: Option<String>,
    labels: Vec<String>,
    activation: Activation,
    tokenizer: Tokenizer,
    program: Arc<Program>,
    executor: Arc<dyn Executor>,
}

impl CrossEncoder {
    /// Loads a model by hub id (`org/name`) or from a folder, on the device that [`Device::Auto`](crate::Device::Auto)
    /// chooses. [`CrossEncoder::builder`] has the options.
    ///
    /// # Errors
    /// Whatever keeps the model from running exactly as its files say: see [`Error`](crate::Error).
    pub fn load(id_or_folder: impl Into<String>) -> Result<CrossEncoder> {
        CrossEncoder::builder(id_or_folder).load()
    }

    /// Options for loading a model: device, dtype, revision, cache folder, ...
    pub fn builder(id_or_folder: impl Into<String>) -> Loader<CrossEncoder> {
        Loader::new(id_or_folder.into(), "cross-encoder")
    }

    /// The names of the labels, one for each score of a pair: `LABEL_0` and so on where the files give none.
    pub fn labels(&self) -> &[String] {
        &self.model.labels
    }

    /// What turns the model's logits into scores unless a call says otherwise: as the model's files say, else the sigmoid
    /// for one label and nothing for several.
    pub fn activation(&self) -> Activation {
        self.model.activation
    }

    /// Longer pairs are truncated to this many tokens, special tokens included. `None`: the files name no limit.
    pub fn max_seq_length(&self) -> Option<usize> {
        self.model.tokenizer.max_seq_length()
    }

    /// The prompts by name, as stored.
    pub fn prompts(&self) -> &BTreeMap<String, String> {
        &self.model.prompts
    }

    /// The name of the prompt that goes before the first text of every pair, if the model's files name one.
    pub fn default_prompt_name(&self) -> Option<&str> {
        self.model.default_prompt_name.as_deref()
    }

    /// What the model runs on, for people.
    pub fn device(&self) -> String {
        self.model.executor.describe()
    }

    /// The folder that the model was loaded from: its own, or a snapshot in the hub's cache.
    pub fn folder(&self) -> &Path {
        &self.model.folders[0]
    }

    /// All folders that its files are in: its own first, then those of the models that its adapters change, and that of an adapter
    /// that is merged.
    pub fn folders(&self) -> &[PathBuf] {
        &self.model.folders
    }

    /// The modules of the repository, in order.
    pub fn modules(&self) -> &[Module] {
        &self.model.modules
    }

    /// The model as a program: prints as text. Its sentences are the logits, before the activation.
    pub fn program(&self) -> &Program {
        &self.model.program
    }

    /// What runs the program: for traces and for work on token ids.
    pub fn executor(&self) -> &dyn Executor {
        &*self.model.executor
    }

    /// The tokenizer, with the model's truncation.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.model.tokenizer
    }
}

impl std::fmt::Debug for CrossEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CrossEncoder")
            .field("folder", &self.folder())
            .field("device", &self.device())
            .finish_non_exhaustive()
    }
}
