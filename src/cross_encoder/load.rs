//! From an id or folder to a cross-encoder on a device.

use super::{CrossEncoder, Model, default_activation};
use crate::checkpoint::ModelType;
use crate::error::Result;
use crate::loader::Loader;
use crate::{models, prompts};
use std::sync::Arc;

impl Loader<CrossEncoder> {
    /// Loads the model: files, tokenizer, weights on the device.
    ///
    /// # Errors
    /// Whatever keeps the model from running exactly as its files say: see [`Error`](crate::Error).
    pub fn load(self) -> Result<CrossEncoder> {
        let checkpoint = self.checkpoint(ModelType::CrossEncoder)?;
        let program = Arc::new(models::cross_encoder(checkpoint.modules(), &checkpoint.weights()?)?);
        let tokenizer = self.tokenizer(&checkpoint, &program)?;
        tokenizer.check_pairs()?;
        let settings = checkpoint.settings();
        prompts::check_default(&settings.prompts, settings.default_prompt_name.as_deref())?;
        let labels = models::labels(checkpoint.modules())?;
        let activation = default_activation(&checkpoint, labels.len())?;
        let executor = self.executor(&checkpoint, &program, &tokenizer, true)?;
        let model = Model {
            folders: checkpoint.folders().to_vec(),
            modules: checkpoint.modules().to_vec(),
            prompts: settings.prompts.clone(),
            default_prompt_name: settings.default_prompt_name.clone(),
            labels,
            activation,
            tokenizer,
            program,
            executor,
        };
        Ok(CrossEncoder { model: Arc::new(model) })
    }
}
