//! Texts to sparse embeddings: a weight for each token of a vocabulary, most of them zero.

mod asynchronous;
mod encode;
mod load;
mod options;

pub use options::SparseEncodeOptions;

use crate::bi_encoder::{BiEncoder, ProgramPath};
use crate::checkpoint::{Module, Tokenizer};
use crate::error::Result;
use crate::loader::Loader;
use crate::matrix::Matrix;
use crate::program::{Activation, Program};
use crate::search::SearchHit;
use crate::similarity::SimilarityFunction;
use crate::sparse_matrix::SparseMatrix;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A sparse encoder: turns each text into a few weighted tokens, of which some need not be in the text (SPLADE and its like). Cheap
/// to clone and to share between threads.
///
/// ```no_run
/// # fn main() -> lexel::Result<()> {
/// let model = lexel::SparseEncoder::load("naver/splade-v3")?;
/// let embeddings = model.encode(&["The weather is lovely today.", "It's so sunny outside!"])?;
/// println!("{:?}", embeddings.shape()); // [2, 30522]
/// println!("{}", model.similarity(&embeddings, &embeddings)?);
/// println!("{:?}", model.decode(&embeddings, Some(5)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SparseEncoder {
    model: Arc<BiEncoder<Path>>,
}

/// One way of a text through the modules.
enum Path {
    /// A program, and what remains to be done with its rows, as a [`SparseProgram`](crate::models::SparseProgram) says.
    Program { path: ProgramPath, activation: Activation, most: Option<usize> },
    /// The weight of each token, without a program.
    Tokens(Tokenizer, Vec<f32>),
}

impl Path {
    fn tokenizer(&self) -> &Tokenizer {
        match self {
            Path::Program { path, .. } => &path.tokenizer,
            Path::Tokens(tokenizer, _) => tokenizer,
        }
    }

    /// Numbers of an embedding.
    fn dim(&self) -> usize {
        match self {
            Path::Program { path, .. } => path.program.shape(path.program.sentences).cols,
            Path::Tokens(_, weights) => weights.len(),
        }
    }
}

impl SparseEncoder {
    /// Loads a model by hub id or from a folder, on the device that [`Device::Auto`](crate::Device::Auto) chooses.
    /// [`SparseEncoder::builder`] has the options. A repository that does not name its modules must be a masked language model.
    ///
    /// # Errors
    /// Whatever keeps the model from running exactly as its files say: see [`Error`](crate::Error).
    pub fn load(id_or_folder: impl Into<String>) -> Result<SparseEncoder> {
        SparseEncoder::builder(id_or_folder).load()
    }

    /// Options for loading a model: device, dtype, revision, cache folder, ...
    pub fn builder(id_or_folder: impl Into<String>) -> Loader<SparseEncoder> {
        Loader::new(id_or_folder.into(), "sparse-encoder")
    }

    /// Every row of `a` against every row of `b`, by the model's own similarity function: `[a.rows, b.rows]`.
    ///
    /// # Errors
    /// [`Error::InvalidInput`](crate::Error::InvalidInput) if the two differ in their columns.
    pub fn similarity(&self, a: &SparseMatrix, b: &SparseMatrix) -> Result<Matrix> {
        self.model.similarity.sparse_matrix(a, b)
    }

    /// Row `i` of `a` against row `i` of `b`, by the model's own similarity function.
    ///
    /// # Errors
    /// [`Error::InvalidInput`](crate::Error::InvalidInput) if the two differ in their shape.
    pub fn similarity_pairwise(&self, a: &SparseMatrix, b: &SparseMatrix) -> Result<Vec<f32>> {
        self.model.similarity.sparse_pairwise(a, b)
    }

    /// For each row of `queries`, the `top_k` rows of `corpus` that are most like it by the model's own similarity function, best
    /// first. Every row is compared with every other: for more than some hundred thousand, an index of a search engine is better.
    ///
    /// # Errors
    /// [`Error::InvalidInput`](crate::Error::InvalidInput) if the two differ in their columns, or a number is NaN or infinity.
    pub fn semantic_search(
        &self,
        queries: &SparseMatrix,
        corpus: &SparseMatrix,
        top_k: usize,
    ) -> Result<Vec<Vec<SearchHit>>> {
        self.model.similarity.sparse_search(queries, corpus, top_k)
    }

    /// Each row as tokens and their weights, the largest first, `top_k` at most; `None`: all.
    pub fn decode(&self, embeddings: &SparseMatrix, top_k: Option<usize>) -> Vec<Vec<(String, f32)>> {
        let tokenizer = self.tokenizer();
        let decode = |(indices, values): (&[u32], &[f32])| {
            let mut tokens: Vec<(u32, f32)> = indices.iter().copied().zip(values.iter().copied()).collect();
            tokens.sort_by(|a, b| b.1.total_cmp(&a.1));
            tokens.truncate(top_k.unwrap_or(usize::MAX));
            // A table may have rows that no token has.
            let token = |(id, weight)| (tokenizer.id_to_token(id).unwrap_or_else(|| format!("#{id}")), weight);
            tokens.into_iter().map(token).collect()
        };
        embeddings.iter().map(decode).collect()
    }

    /// The similarity function that the model's files name: the dot product unless they say otherwise.
    pub fn similarity_function(&self) -> SimilarityFunction {
        self.model.similarity
    }

    /// Dimensions of an embedding, zeros included: tokens of the vocabulary, as a rule.
    pub fn dim(&self) -> usize {
        self.model.default_path().dim()
    }

    /// How many numbers of an embedding are kept at most, unless a call says otherwise. `None`: all.
    pub fn max_active_dims(&self) -> Option<usize> {
        self.limit(self.model.default_path())
    }

    /// How many numbers of an embedding that goes this way are kept.
    fn limit(&self, path: &Path) -> Option<usize> {
        let most = match path {
            Path::Program { most, .. } => *most,
            Path::Tokens(..) => None,
        };
        self.model.settings.max_active_dims.or(most)
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
        let executor = self.model.paths().find_map(|path| match path {
            Path::Program { path, .. } => Some(path.executor.describe()),
            Path::Tokens(..) => None,
        });
        executor.unwrap_or_else(|| "no device: weights of tokens".into())
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

    /// The modules of the repository, in order.
    pub fn modules(&self) -> &[Module] {
        &self.model.modules
    }

    /// The model as a program: prints as text. With a Router, that of a text for no task, as in the next. `None` if weights of
    /// tokens do without.
    pub fn program(&self) -> Option<&Program> {
        match self.model.default_path() {
            Path::Program { path, .. } => Some(&path.program),
            Path::Tokens(..) => None,
        }
    }

    /// The tokenizer, with the model's truncation.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.model.default_path().tokenizer()
    }
}

impl std::fmt::Debug for SparseEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SparseEncoder")
            .field("folder", &self.folder())
            .field("device", &self.device())
            .finish_non_exhaustive()
    }
}
