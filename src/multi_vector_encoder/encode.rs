//! `encode` and its relatives.

use super::{MultiVectorEncodeOptions, MultiVectorEncoder, Path};
use crate::bi_encoder::{Request, Task};
use crate::error::{Error, Result};
use crate::job::Cancel;
use crate::matrix::Matrix;
use crate::program::Output;
use crate::scheduler::Finished;
use crate::token_pooling::HierarchicalTokenPooling;

/// Texts that are pooled between two looks at the cancel flag.
const POOLED_TOGETHER: usize = 64;

impl MultiVectorEncoder {
    /// A `[vectors, dim]` matrix for each text, in their order. Search queries and documents differ: see
    /// [`encode_query`](Self::encode_query) and [`encode_document`](Self::encode_document).
    ///
    /// # Errors
    /// [`Error::Run`] if the device fails.
    pub fn encode<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<Matrix>> {
        self.encode_with(texts, &MultiVectorEncodeOptions::default())
    }

    /// [`encode`](Self::encode) with options.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for options that make no sense for this model,
    /// [`Error::Cancelled`] once cancelled, [`Error::Run`] if the device fails.
    pub fn encode_with<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        options: &MultiVectorEncodeOptions,
    ) -> Result<Vec<Matrix>> {
        self.encode_for(Task::Any, texts, options)
    }

    /// The embeddings of search queries: the prompt named `query` goes before each, unless the options name another; they have the
    /// length of queries, and are expanded if the model's files say so.
    ///
    /// # Errors
    /// As [`encode_with`](Self::encode_with).
    pub fn encode_query<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        options: &MultiVectorEncodeOptions,
    ) -> Result<Vec<Matrix>> {
        self.encode_for(Task::Query, texts, options)
    }

    /// The embeddings of documents to be found: the first prompt of `document`, `passage` and `corpus` goes before each, unless the
    /// options name another; they have the length of documents, and what their skiplist names does not count.
    ///
    /// # Errors
    /// As [`encode_with`](Self::encode_with).
    pub fn encode_document<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        options: &MultiVectorEncodeOptions,
    ) -> Result<Vec<Matrix>> {
        self.encode_for(Task::Document, texts, options)
    }

    fn encode_for<S: AsRef<str> + Sync>(
        &self,
        task: Task,
        texts: &[S],
        options: &MultiVectorEncodeOptions,
    ) -> Result<Vec<Matrix>> {
        let request = Request {
            prompt: self.model.prompt(task, options.prompt.as_deref(), options.prompt_name.as_deref())?,
            task: options.task.as_deref().or(task.name()),
            batch_tokens: options.batch_tokens,
            progress: options.progress.as_ref(),
            cancel: options.cancel.as_ref(),
        };
        let path = self.model.path(request.task)?;
        let mut embeddings = vec![Matrix::zeros(0, path.dim()); texts.len()];
        path.inner.run(texts, &request, Output::Tokens, |finished, s, targets| {
            let own = path.vectors(finished, s, request.task);
            targets.iter().for_each(|&target| embeddings[target].clone_from(&own));
        })?;
        let is_wanted = |pooling: &&HierarchicalTokenPooling| pooling.applies_to(request.task);
        for pooling in path.pooling.iter().filter(is_wanted) {
            pool(pooling, &mut embeddings, options.cancel.as_ref())?;
        }
        if options.normalize {
            embeddings.iter_mut().for_each(Matrix::normalize_rows);
        }
        if let Some(pooling) = options.token_pooling.as_ref().filter(is_wanted) {
            pool(pooling, &mut embeddings, options.cancel.as_ref())?;
        }
        Ok(embeddings)
    }
}

/// Pools all texts, some at a time: that of a long one takes longer than its encoding.
fn pool(pooling: &HierarchicalTokenPooling, embeddings: &mut [Matrix], cancel: Option<&Cancel>) -> Result<()> {
    let total = embeddings.len();
    for chunk in embeddings.chunks_mut(POOLED_TOGETHER) {
        if cancel.is_some_and(Cancel::is_cancelled) {
            return Err(Error::Cancelled { done: 0, total, results: None });
        }
        chunk.clone_from_slice(&pooling.pool(chunk)?);
    }
    Ok(())
}

impl Path {
    /// The rows of a sequence that count.
    fn vectors(&self, finished: &Finished, sequence: usize, task: Option<&str>) -> Matrix {
        let batch = &finished.batch;
        // What expands a query counts for the modules that know of it.
        let tokens = match task == Some("query") && !self.masks.is_empty() {
            true => batch.range(sequence),
            false => batch.seen(sequence),
        };
        let mut vectors = Matrix::zeros(0, finished.rows.cols);
        for token in tokens.filter(|&token| self.masks.iter().all(|mask| mask.counts(batch.ids[token], task))) {
            vectors.push_row(finished.rows.row(token));
        }
        vectors
    }
}
