//! Sentence embeddings on any GPU, and without one (crate documentation follows with the public face).

pub mod batch;
pub mod checkpoint;
pub mod cpu;
pub mod error;
pub mod executor;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod matrix;
pub mod program;

pub use error::{Error, Result, RunError};
