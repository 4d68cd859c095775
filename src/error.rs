//! What can go wrong, said so that a user can act on it: every variant names the thing, the value found, and what was
//! expected or what to do.

use crate::matrix::{Matrix, SomeRows};
use std::path::PathBuf;

/// Everything lexel can fail with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A model, folder or file that is not where it was asked for.
    #[error("{what} not found: {detail}")]
    NotFound {
        /// What was looked for, e.g. `model 'all-MiniLM-L6-v2'`.
        what: String,
        /// Where it was looked for, and what to do.
        detail: String,
    },
    /// The hub could not be reached, or answered with something that is not accepted.
    #[error("hub: {repo}: {detail}")]
    Hub {
        /// The repository, e.g. `sentence-transformers/all-MiniLM-L6-v2`.
        repo: String,
        /// What happened, and what to do.
        detail: String,
    },
    /// A configuration that lexel does not implement. Nothing is approximated instead.
    #[error("{file}: {key} = {value} is not supported; supported: {supported}")]
    Unsupported {
        /// The file that says so, e.g. `config.json`.
        file: String,
        /// The key in that file.
        key: String,
        /// The value found.
        value: String,
        /// What would be accepted.
        supported: String,
    },
    /// A file whose contents are not what its format demands.
    #[error("{}: {detail}", file.display())]
    InvalidFile {
        /// The file.
        file: PathBuf,
        /// What is wrong with it, with the expected and the found value.
        detail: String,
    },
    /// A tensor that is missing, has another shape than the configuration demands, or holds NaN or infinity.
    #[error("weight '{name}': expected {expected}, found {found}")]
    Weight {
        /// The tensor's name in the checkpoint.
        name: String,
        /// What the model needs, e.g. `[384, 1536]`.
        expected: String,
        /// What the checkpoint has, e.g. `[384, 1024]` or `no such tensor`.
        found: String,
    },
    /// The operating system refused to read or write a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// An argument that makes no sense for this model, e.g. an unknown prompt name.
    #[error("{0}")]
    InvalidInput(String),
    /// No device of the kind that was asked for, or the device cannot run this model.
    #[error("device: {0}")]
    Device(String),
    /// The device failed while it computed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A job that lacks parts or rows: run it again to complete it.
    #[error("incomplete: {0}")]
    Incomplete(String),
    /// The caller cancelled the call.
    #[error("cancelled after {done} of {total} texts")]
    Cancelled {
        /// Texts whose vectors were complete.
        done: usize,
        /// Texts in the call.
        total: usize,
        /// Their results, where a text's result is one row.
        results: Option<Box<SomeRows>>,
    },
}

/// What an executor can fail with while it runs a batch.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The batch does not fit. The scheduler halves its token budget and tries again; this surfaces only when a single
    /// text does not fit.
    #[error(
        "out of memory: a batch of {tokens} tokens needs {needed} bytes, of which the device grants {granted}; \
         shorten the texts (max_seq_length), or choose a device or memory budget that is larger"
    )]
    OutOfMemory {
        /// Tokens in the batch that failed.
        tokens: usize,
        /// Bytes that it needed.
        needed: u64,
        /// Bytes that the device or the memory budget grants.
        granted: u64,
    },
    /// The device did not do all of a batch, and its driver does not say why. As with [`RunError::OutOfMemory`], the
    /// scheduler tries again with less at once.
    #[error(
        "the device gave up on a batch of {tokens} tokens and does not say why (its memory may be full, or it took too \
         long); shorten the texts (max_seq_length), or choose another device"
    )]
    Unfinished {
        /// Tokens in the batch that failed.
        tokens: usize,
    },
    /// The device is gone (driver reset, unplugged, destroyed by the application). The model must be loaded again.
    #[error("device lost: {0}; load the model again, on another device if this one keeps failing")]
    DeviceLost(String),
    /// The batch contradicts the program: an id beyond the vocabulary, a sequence beyond the position table.
    #[error("invalid batch: {0}")]
    InvalidBatch(String),
    /// The device returned NaN or infinity for a text: its driver computes wrongly, or the weights overflow the chosen
    /// dtype.
    #[error("the result of sequence {sequence} is not finite; try dtype f32, or another device")]
    NotFinite {
        /// Index of the sequence in its batch.
        sequence: usize,
    },
}

/// `Result` with lexel's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::InvalidFile`].
    pub fn invalid_file(file: impl Into<PathBuf>, detail: impl std::fmt::Display) -> Error {
        Error::InvalidFile { file: file.into(), detail: detail.to_string() }
    }

    /// An [`Error::Unsupported`].
    pub fn unsupported(
        file: impl Into<String>,
        key: impl Into<String>,
        value: impl std::fmt::Display,
        supported: impl Into<String>,
    ) -> Error {
        Error::Unsupported { file: file.into(), key: key.into(), value: value.to_string(), supported: supported.into() }
    }

    /// An [`Error::Cancelled`] gets the results that are there: those of `results` whose row is `done`.
    pub(crate) fn with_results(self, results: Matrix, done: &[bool]) -> Error {
        match self {
            Error::Cancelled { done: count, total, .. } => {
                Error::Cancelled { done: count, total, results: Some(Box::new(SomeRows::of(results, done))) }
            }
            error => error,
        }
    }

    /// An [`Error::Io`]: for `map_err(Error::io(path))`.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { path, source }
    }
}
