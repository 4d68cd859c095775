//! From an id or folder to a bi-encoder on a device.

use super::{Model, ModelPath, SentenceTransformer};
use crate::checkpoint::{self, Checkpoint, ModelType, ModuleKind};
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
        let checkpoint = self.checkpoint(ModelType::SentenceTransformer)?;
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
        let mut paths = Vec::new();
        for (routes, checkpoint) in checkpoint.routes() {
            paths.push(self.path(routes, &checkpoint)?);
        }
        // Without a default, the first stands for the model where it is asked about itself.
        let default = checkpoint::route(checkpoint.modules(), None).unwrap_or_default();
        if let Some(i) = paths.iter().position(|path| path.routes == default) {
            paths.swap(0, i);
        }
        let model = Model {
            folder: checkpoint.folder().to_path_buf(),
            modules: checkpoint.modules().to_vec(),
            settings,
            prompts,
            similarity,
            paths,
        };
        Ok(SentenceTransformer { model: Arc::new(model) })
    }

    fn path(&self, routes: Vec<String>, checkpoint: &Checkpoint) -> Result<ModelPath> {
        let program = Arc::new(models::sentence_transformer(checkpoint.modules(), &checkpoint.weights()?)?);
        let tokenizer = self.tokenizer(checkpoint, &program)?;
        let include_prompt = checkpoint.modules().iter().all(|module| match &module.kind {
            ModuleKind::Pooling(pooling) => pooling.include_prompt,
            _ => true,
        });
        let executor = self.executor(checkpoint, &program, &tokenizer, false)?;
        Ok(ModelPath { routes, include_prompt, tokenizer, program, executor })
    }
}
