//! Texts to a vector for each of their tokens.

mod asynchronous;
mod encode;
mod load;
mod mask;
mod options;

pub use options::MultiVectorEncodeOptions;

use crate::bi_encoder::{BiEncoder, ProgramPath};
use crate::checkpoint::{Module, Tokenizer};
use crate::error::Result;
use crate::executor::Executor;
use crate::late_interaction::LateInteraction;
use crate::loader::Loader;
use crate::matrix::Matrix;
use crate::program::Program;
use crate::search::SearchHit;
use crate::token_pooling::HierarchicalTokenPooling;
use mask::Mask;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A multi-vector encoder: turns each text into a vector for each of its tokens, and compares them one by one (ColBERT and its like).
/// Cheap to clone and to share between threads.
///
/// ```no_run
/// # fn main() -> lexel::Result<()> {
/// let model = lexel::MultiVectorEncoder::load("lightonai/GTE-ModernColBERT-v1")?;
/// let queries = model.encode_query(&["What is the capital of France?"], &Default::default())?;
/// let texts = ["Paris is the capital of France.", "Berlin is the capital of Germany."];
/// let documents = model.encode_document(&texts, &Default::default())?;
/// println!("{:?}", documents[0].shape()); // [8, 128]: vectors, dimensions
/// println!("{}", model.similarity(&queries, &documents)?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MultiVectorEncoder {
    model: Arc<BiEncoder<Path, LateInteraction>>,
}

/// One way of a text through the modules.
struct Path {
    inner: ProgramPath,
    /// A token counts if it does for all of them.
    masks: Vec<Mask>,
    /// In their order.
    pooling: Vec<HierarchicalTokenPooling>,
}

impl Path {
    fn dim(&self) -> usize {
        self.inner.program.shape(self.inner.program.tokens).cols
    }
}

impl MultiVectorEncoder {
    /// Loads a model by hub id or from a folder, on the device that [`Device::Auto`](crate::Device::Auto) chooses: one that
    /// sentence-transformers' class of this name, PyLate or Stanford's ColBERT saved, or a dense one with a projection, which is then
    /// applied to each token. [`MultiVectorEncoder::builder`] has the options.
    ///
    /// # Errors
    /// Whatever keeps the model from running exactly as its files say: see [`Error`](crate::Error).
    pub fn load(id_or_folder: impl Into<String>) -> Result<MultiVectorEncoder> {
        MultiVectorEncoder::builder(id_or_folder).load()
    }

    /// Options for loading a model: device, dtype, revision, cache folder, ...
    pub fn builder(id_or_folder: impl Into<String>) -> Loader<MultiVectorEncoder> {
        // No organisation completes a short id, as in the reference.
        Loader::new(id_or_folder.into(), "")
    }

    /// Every query against every document, by the model's own similarity function: `[queries, documents]`.
    ///
    /// # Errors
    /// [`Error::InvalidInput`](crate::Error::InvalidInput) if two texts differ in their columns, or one holds NaN or infinity.
    pub fn similarity(&self, queries: &[Matrix], documents: &[Matrix]) -> Result<Matrix> {
        self.model.similarity.matrix(queries, documents)
    }

    /// Query `i` against document `i`, by the model's own similarity function.
    ///
    /// # Errors
    /// As [`similarity`](Self::similarity), and if there are not as many documents as queries.
    pub fn similarity_pairwise(&self, queries: &[Matrix], documents: &[Matrix]) -> Result<Vec<f32>> {
        self.model.similarity.pairwise(queries, documents)
    }

    /// For each query, the `top_k` documents that are most like it by the model's own similarity function, best first. Every query is
    /// compared with every document: for more than some hundred thousand, an index is better.
    ///
    /// # Errors
    /// As [`similarity`](Self::similarity).
    pub fn semantic_search(&self, queries: &[Matrix], corpus: &[Matrix], top_k: usize) -> Result<Vec<Vec<SearchHit>>> {
        self.model.similarity.search(queries, corpus, top_k)
    }

    /// The similarity function that the model's files name: [`LateInteraction::MaxSim`] unless they say otherwise.
    pub fn similarity_function(&self) -> LateInteraction {
        self.model.similarity
    }

    /// Dimensions of a vector.
    pub fn dim(&self) -> usize {
        self.model.default_path().dim()
    }

    /// Texts for no task are truncated to this many tokens, special tokens included. `None`: the files name no limit.
    pub fn max_seq_length(&self) -> Option<usize> {
        self.tokenizer().max_seq_length()
    }

    /// Queries have at most this many tokens, special tokens and those that expand them included.
    pub fn query_length(&self) -> Option<usize> {
        self.length_for("query")
    }

    /// Documents are truncated to this many tokens, special tokens included.
    pub fn document_length(&self) -> Option<usize> {
        self.length_for("document")
    }

    fn length_for(&self, task: &str) -> Option<usize> {
        let path = self.model.path(Some(task)).unwrap_or(self.model.default_path());
        path.inner.tokenizer.length_for(Some(task))
    }

    /// The prompts by name. `query` and `document` are always there, empty where the files have none.
    pub fn prompts(&self) -> &BTreeMap<String, String> {
        &self.model.prompts
    }

    /// The name of the prompt that [`encode`](Self::encode) puts before every text, if the model's files name one.
    pub fn default_prompt_name(&self) -> Option<&str> {
        self.model.settings.default_prompt_name.as_deref()
    }

    /// What the model runs on, for people.
    pub fn device(&self) -> String {
        self.executor().describe()
    }

    /// The folder that the model was loaded from: its own, or a snapshot in the hub's cache.
    pub fn folder(&self) -> &std::path::Path {
        &self.model.folders[0]
    }

    /// All folders that its files are in: its own first, then those of the models that its adapters change, and that of an adapter
    /// that is merged.
    pub fn folders(&self) -> &[std::path::PathBuf] {
        &self.model.folders
    }

    /// The modules of the repository, in order, and those that it implies.
    pub fn modules(&self) -> &[Module] {
        &self.model.modules
    }

    /// The model as a program: prints as text.
    pub fn program(&self) -> &Program {
        &self.model.default_path().inner.program
    }

    /// What runs the program: for traces and for work on token ids.
    pub fn executor(&self) -> &dyn Executor {
        &*self.model.default_path().inner.executor
    }

    /// The tokenizer, with the model's truncation.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.model.default_path().inner.tokenizer
    }
}

impl std::fmt::Debug for MultiVectorEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MultiVectorEncoder")
            .field("folder", &self.folder())
            .field("device", &self.device())
            .finish_non_exhaustive()
    }
}
