//! Sentence embeddings on any GPU (to be written).

pub mod error;

pub use error::{Error, Result, RunError};
