//! From an id or folder to a multi-vector encoder on a device.

use super::mask::Mask;
use super::{MultiVectorEncoder, Path};
use crate::bi_encoder::{BiEncoder, ProgramPath};
use crate::checkpoint::{Checkpoint, ModelType, ModuleKind};
use crate::error::Result;
use crate::late_interaction::LateInteraction;
use crate::loader::Loader;
use crate::models;
use std::sync::Arc;

impl Loader<MultiVectorEncoder> {
    /// Loads the model: files, tokenizer, weights on the device.
    ///
    /// # Errors
    /// Whatever keeps the model from running exactly as its files say: see [`Error`](crate::Error).
    pub fn load(self) -> Result<MultiVectorEncoder> {
        let checkpoint = self.checkpoint(ModelType::MultiVectorEncoder)?;
        let similarity = LateInteraction::of_files(checkpoint.settings().similarity_fn_name.as_deref());
        let model = BiEncoder::new(&checkpoint, similarity, |checkpoint| self.path(checkpoint))?;
        Ok(MultiVectorEncoder { model: Arc::new(model) })
    }

    fn path(&self, checkpoint: &Checkpoint) -> Result<Path> {
        let program = models::multi_vector_encoder(checkpoint.modules(), &checkpoint.weights()?)?;
        let inner = ProgramPath::load(self, checkpoint, program)?;
        let (mut masks, mut pooling) = (Vec::new(), Vec::new());
        for module in checkpoint.modules() {
            match &module.kind {
                ModuleKind::MultiVectorMask(config) => masks.push(Mask::new(config, &inner.tokenizer)),
                ModuleKind::TokenPooling(config) => pooling.push(config.clone()),
                _ => {}
            }
        }
        if masks.is_empty() && checkpoint.transformer()?.1.lengths.expansion.is_some() {
            log::warn!(
                "{}: queries are expanded, and without a MultiVectorMask the new tokens do not count unless attention looks at them",
                checkpoint.name()
            );
        }
        Ok(Path { inner, masks, pooling })
    }
}
