//! From an id or folder to a bi-encoder on a device.

use super::SentenceTransformer;
use crate::bi_encoder::{self, BiEncoder, ProgramPath};
use crate::checkpoint::ModelType;
use crate::error::Result;
use crate::loader::Loader;
use crate::models;
use std::sync::Arc;

impl Loader<SentenceTransformer> {
    /// Loads the model: files, tokenizer, weights on the device.
    ///
    /// # Errors
    /// Whatever keeps the model from running exactly as its files say: see [`Error`](crate::Error).
    pub fn load(self) -> Result<SentenceTransformer> {
        let checkpoint = self.checkpoint(ModelType::SentenceTransformer)?;
        let similarity = bi_encoder::similarity_of(&checkpoint, Default::default())?;
        let model = BiEncoder::new(&checkpoint, similarity, |checkpoint| {
            let program = models::sentence_transformer(checkpoint.modules(), &checkpoint.weights()?)?;
            ProgramPath::load(&self, checkpoint, program)
        })?;
        Ok(SentenceTransformer { model: Arc::new(model) })
    }
}
