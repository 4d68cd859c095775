//! What subcommands run: the library's kinds of models, as far as they are alike.

use lexel::{CrossEncoder, Loader, MultiVectorEncoder, SentenceTransformer, SparseEncoder};
use std::path::PathBuf;

/// A model on a device.
pub trait Model: Sized {
    /// Options for loading it.
    fn builder(id_or_folder: &str) -> Loader<Self>;
    /// Loads it.
    fn load(loader: Loader<Self>) -> lexel::Result<Self>;
    /// What it runs on, for people.
    fn device(&self) -> String;
    /// Longer inputs are truncated to this many tokens.
    fn max_seq_length(&self) -> Option<usize>;
    /// The folders that it was loaded from.
    fn folders(&self) -> &[PathBuf];
}

macro_rules! model {
    ($model:ty) => {
        impl Model for $model {
            fn builder(id_or_folder: &str) -> Loader<Self> {
                <$model>::builder(id_or_folder)
            }

            fn load(loader: Loader<Self>) -> lexel::Result<Self> {
                loader.load()
            }

            fn device(&self) -> String {
                self.device()
            }

            fn max_seq_length(&self) -> Option<usize> {
                self.max_seq_length()
            }

            fn folders(&self) -> &[PathBuf] {
                self.folders()
            }
        }
    };
}

model!(SentenceTransformer);
model!(SparseEncoder);
model!(MultiVectorEncoder);
model!(CrossEncoder);
