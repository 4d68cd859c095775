//! From an id or folder to a bi-encoder on a device.

use super::{Model, SentenceTransformer};
use crate::checkpoint::{Checkpoint, ModelType, ModuleKind};
use crate::error::{Error, Result};
use crate::loader::Loader;
use crate::{models, prompts};
use std::sync::Arc;

impl Loader<SentenceTransformer> {
    /// Loads the model: files, tokenizer, weights on the device.
    ///
    /// # Errors
    /// Whatever keeps the model from running exactly as its files say: see [`Error`].
    pub fn load(self) -> Result<SentenceTransformer> {
        let checkpoint = Checkpoint::open_as(ModelType::SentenceTransformer, self.id_or_folder(), self.source())?;
        let program = Arc::new(models::sentence_transformer(checkpoint.modules(), &checkpoint.weights()?)?);
        let tokenizer = self.tokenizer(&checkpoint, &program)?;
        let settings = checkpoint.settings().clone();
        let prompts = settings.bi_encoder_prompts();
        prompts::check_default(&prompts, settings.default_prompt_name.as_deref())?;
        let similarity = match &settings.similarity_fn_name {
            Some(name) => name.parse().map_err(|_| {
                let file = "config_sentence_transformers.json";
                Error::unsupported(file, "similarity_fn_name", name, "cosine, dot, euclidean, manhattan")
            })?,
            None => Default::default(),
        };
        let include_prompt = checkpoint.modules().iter().all(|module| match &module.kind {
            ModuleKind::Pooling(pooling) => pooling.include_prompt,
            _ => true,
        });
        let executor = self.executor(&checkpoint, &program)?;
        let model = Model {
            folder: checkpoint.folder().to_path_buf(),
            modules: checkpoint.modules().to_vec(),
            settings,
            prompts,
            similarity,
            include_prompt,
            tokenizer,
            program,
            executor,
        };
        Ok(SentenceTransformer { model: Arc::new(model) })
    }
}
