//! Texts to embeddings: a sentence-transformers repository, loaded on a device.

mod asynchronous;
mod encode;
mod load;
mod options;

pub use options::EncodeOptions;

use crate::bi_encoder::{BiEncoder, ProgramPath};
use crate::checkpoint::{Module, Tokenizer};
use crate::error::Result;
use crate::executor::Executor;
use crate::loader::Loader;
use crate::matrix::Matrix;
use crate::program::Program;
use crate::search::{self, SearchHit};
use crate::similarity::SimilarityFunction;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A bi-encoder: turns each text into a vector. Cheap to clone and to share between threads.
///
/// ```no_run
/// # fn main() -> lexel::Result<()> {
/// let model = lexel::SentenceTransformer::load("all-MiniLM-L6-v2")?;
/// let embeddings = model.encode(&["The weather is lovely today.", "It's so sunny outside!"])?;
/// println!("{:?}", embeddings.shape()); // [2, 384]
/// println!("{}", model.similarity(&embeddings, &embeddings)?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SentenceTransformer {
    model: Arc<BiEncoder<ProgramPath>>,
}

impl SentenceTransformer {
    /// Loads a model by hub id (`org/name`, or a short id such as `all-MiniLM-L6-v2`) or from a folder, on the device that
    /// [`Device::Auto`](crate::Device::Auto) chooses. [`SentenceTransformer::builder`] has the options.
    ///
    /// # Errors
    /// Whatever keeps the model from running exactly as its files say: see [`Error`](crate::Error).
    pub fn load(id_or_folder: impl Into<String>) -> Result<SentenceTransformer> {
        SentenceTransformer::builder(id_or_folder).load()
    }

    /// Options for loading a model: device, dtype, revision, cache folder, ...
    pub fn builder(id_or_folder: impl Into<String>) -> Loader<SentenceTransformer> {
        Loader::new(id_or_folder.into(), "sentence-transformers")
    }

    /// Every row of `a` against every row of `b`, by the model's own similarity function: `[a.rows, b.rows]`.
    ///
    /// # Errors
    /// [`Error::InvalidInput`](crate::Error::InvalidInput) if the two differ in their columns.
    pub fn similarity(&self, a: &Matrix, b: &Matrix) -> Result<Matrix> {
        self.model.similarity.matrix(a, b)
    }

    /// Row `i` of `a` against row `i` of `b`, by the model's own similarity function.
    ///
    /// # Errors
    /// [`Error::InvalidInput`](crate::Error::InvalidInput) if the two differ in their shape.
    pub fn similarity_pairwise(&self, a: &Matrix, b: &Matrix) -> Result<Vec<f32>> {
        self.model.similarity.pairwise(a, b)
    }

    /// For each row of `queries`, the `top_k` rows of `corpus` that are most like it by the model's own similarity function, best
    /// first: see [`semantic_search`](crate::semantic_search).
    ///
    /// # Errors
    /// As [`semantic_search`](crate::semantic_search).
    pub fn semantic_search(&self, queries: &Matrix, corpus: &Matrix, top_k: usize) -> Result<Vec<Vec<SearchHit>>> {
        search::semantic_search(queries, corpus, top_k, self.model.similarity)
    }

    /// The similarity function that the model's files name: cosine unless they say otherwise.
    pub fn similarity_function(&self) -> SimilarityFunction {
        self.model.similarity
    }

    /// Dimensions of an embedding, lowered to the model's own `truncate_dim`.
    pub fn dim(&self) -> usize {
        let full = self.program().shape(self.program().sentences).cols;
        self.model.settings.truncate_dim.map_or(full, |dim| dim.min(full))
    }

    /// Longer texts are truncated to this many tokens, special tokens included. `None`: the files name no limit.
    pub fn max_seq_length(&self) -> Option<usize> {
        self.tokenizer().max_seq_length()
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
    pub fn folder(&self) -> &Path {
        &self.model.folders[0]
    }

    /// All folders that its files are in: its own first, then those of the models that its adapters change, and that of an adapter
    /// that is merged.
    pub fn folders(&self) -> &[std::path::PathBuf] {
        &self.model.folders
    }

    /// The modules of the repository, in order.
    pub fn modules(&self) -> &[Module] {
        &self.model.modules
    }

    /// The model as a program: prints as text. With a Router, that of a text for no task, as in the next two.
    pub fn program(&self) -> &Program {
        &self.model.default_path().program
    }

    /// What runs the program: for traces and for work on token ids.
    pub fn executor(&self) -> &dyn Executor {
        &*self.model.default_path().executor
    }

    /// The tokenizer, with the model's truncation.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.model.default_path().tokenizer
    }
}

impl std::fmt::Debug for SentenceTransformer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SentenceTransformer")
            .field("folder", &self.folder())
            .field("device", &self.device())
            .finish_non_exhaustive()
    }
}
