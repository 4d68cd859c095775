//! From an id or folder to a sparse encoder on a device.

use super::{Path, SparseEncoder};
use crate::bi_encoder::{self, BiEncoder, ProgramPath};
use crate::checkpoint::{Checkpoint, ModelType};
use crate::error::Result;
use crate::loader::Loader;
use crate::models::{self, SparseProgram};
use crate::similarity::SimilarityFunction;
use std::sync::Arc;

impl Loader<SparseEncoder> {
    /// Loads the model: files, tokenizer, weights on the device.
    ///
    /// # Errors
    /// Whatever keeps the model from running exactly as its files say: see [`Error`](crate::Error).
    pub fn load(self) -> Result<SparseEncoder> {
        let checkpoint = self.checkpoint(ModelType::SparseEncoder)?;
        let similarity = bi_encoder::similarity_of(&checkpoint, SimilarityFunction::Dot)?;
        let model = BiEncoder::new(&checkpoint, similarity, |checkpoint| self.path(checkpoint))?;
        Ok(SparseEncoder { model: Arc::new(model) })
    }

    fn path(&self, checkpoint: &Checkpoint) -> Result<Path> {
        let weights = checkpoint.weights()?;
        match models::sparse_encoder(checkpoint.modules(), &weights)? {
            Some(SparseProgram { program, activation, most }) => {
                Ok(Path::Program { path: ProgramPath::load(self, checkpoint, program)?, activation, most })
            }
            None => {
                let tokenizer = checkpoint.tokenizer()?;
                let weights = models::token_weights(checkpoint.modules(), &tokenizer, &weights)?;
                Ok(Path::Tokens(tokenizer, weights))
            }
        }
    }
}
