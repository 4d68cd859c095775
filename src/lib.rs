//! sentence-transformers on any GPU: texts to embeddings, dense, sparse, or one for each token, and pairs of texts to scores, through
//! WGSL compute shaders (Vulkan, Metal, DX12), or on the CPU.
//!
//! ```no_run
//! # fn main() -> lexel::Result<()> {
//! let model = lexel::SentenceTransformer::load("all-MiniLM-L6-v2")?;
//! let embeddings = model.encode(&["The weather is lovely today.", "He drove to the stadium."])?;
//! println!("{}", model.similarity(&embeddings, &embeddings)?);
//! # Ok(())
//! # }
//! ```
//!
//! # The layers, each importing only those below it
//!
//! | layer | what it is |
//! |---|---|
//! | [`SentenceTransformer`], [`SparseEncoder`], [`MultiVectorEncoder`], [`CrossEncoder`] | texts to embeddings, dense, sparse or of each token, pairs of texts to scores; [`search`], [`similarity`], [`late_interaction`], [`quantization`] beside them |
//! | [`jobs`] | millions of rows in parts, by processes that may be killed |
//! | [`Loader`], [`Call`], `bi_encoder`, `job`, `prompts` | what they share: loading, calls that are awaited, a call's inputs through the scheduler, prompts |
//! | [`scheduler`], [`device`], [`several`] | sequences to batches to executors; which executors |
//! | [`checkpoint`], [`models`] | what a repository's files say; the configuration to a program |
//! | [`cpu`], [`gpu`] | the two executors; they never import each other |
//! | [`program`], [`executor`] | a model as data; the trait that runs it |
//! | [`batch`], [`matrix`], [`sparse_matrix`], `token_pooling`, `finite`, [`error`], `kept` | packed token ids; rows of f32; those that are mostly zero; fewer of them; numbers that are none; what can go wrong; files for the next start |
//!
//! # Features
//!
//! `gpu` (on by default) brings the GPU executor, `hub` (on by default) downloads from the Hugging Face hub. Without both,
//! models are read from folders and from an existing cache, and run on the CPU.

pub mod batch;
mod bi_encoder;
mod call;
pub mod checkpoint;
pub mod cpu;
pub mod cross_encoder;
pub mod device;
pub mod error;
pub mod executor;
mod finite;
#[cfg(feature = "gpu")]
pub mod gpu;
mod job;
pub mod jobs;
mod kept;
pub mod late_interaction;
mod loader;
pub mod matrix;
pub mod models;
pub mod multi_vector_encoder;
pub mod program;
mod prompts;
pub mod quantization;
mod sample;
pub mod scheduler;
pub mod search;
pub mod sentence_transformer;
pub mod several;
pub mod similarity;
pub mod sparse_encoder;
pub mod sparse_matrix;
mod token_pooling;

pub use call::Call;
pub use cross_encoder::{CrossEncoder, Hit, PredictOptions, RankOptions};
pub use device::Device;
pub use error::{Error, Result, RunError};
pub use executor::Dtype;
pub use job::{Cancel, OnProgress, Progress};
pub use kept::set_cache_folder;
pub use late_interaction::LateInteraction;
pub use loader::Loader;
pub use matrix::Matrix;
pub use multi_vector_encoder::{MultiVectorEncodeOptions, MultiVectorEncoder};
pub use program::Activation;
pub use quantization::{Precision, Quantized, QuantizedData, Ranges, quantize_embeddings};
pub use search::{
    CommunityOptions, MiningOptions, ParaphrasePair, SearchHit, community_detection, paraphrase_mining_embeddings,
    semantic_search,
};
pub use sentence_transformer::{EncodeOptions, SentenceTransformer};
pub use similarity::SimilarityFunction;
pub use sparse_encoder::{SparseEncodeOptions, SparseEncoder};
pub use sparse_matrix::{SparseMatrix, Sparsity};
pub use token_pooling::HierarchicalTokenPooling;
/// The wgpu that lexel is built with, for an application that shares its device.
#[cfg(feature = "gpu")]
pub use wgpu;
