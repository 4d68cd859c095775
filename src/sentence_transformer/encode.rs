//! `encode` and its relatives: prompts, truncation and normalisation of the result.

use super::{EncodeOptions, SentenceTransformer};
use crate::bi_encoder::{ProgramPath, Request, Task};
use crate::error::{Error, Result};
use crate::matrix::{Matrix, normalize};
use crate::program::Output;
use crate::quantization::{Precision, Quantized, Ranges, quantize_embeddings};
use crate::scheduler::Finished;

impl SentenceTransformer {
    /// The embeddings of texts, in their order: `[texts, dim]`.
    ///
    /// # Errors
    /// [`Error::Run`] if the device fails.
    pub fn encode<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Matrix> {
        self.encode_with(texts, &EncodeOptions::default())
    }

    /// [`encode`](Self::encode) with options.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for options that make no sense for this model, [`Error::Cancelled`] once cancelled,
    /// [`Error::Run`] if the device fails.
    pub fn encode_with<S: AsRef<str> + Sync>(&self, texts: &[S], options: &EncodeOptions) -> Result<Matrix> {
        self.encode_for(Task::Any, texts, options)
    }

    /// The embeddings of search queries: the prompt named `query` goes before each, unless the options name another.
    ///
    /// # Errors
    /// As [`encode_with`](Self::encode_with).
    pub fn encode_query<S: AsRef<str> + Sync>(&self, texts: &[S], options: &EncodeOptions) -> Result<Matrix> {
        self.encode_for(Task::Query, texts, options)
    }

    /// The embeddings of documents to be found: the first prompt of `document`, `passage` and `corpus` goes before each,
    /// unless the options name another. (`document` always exists, so a model that stores only `passage` gets none, as
    /// in the reference.)
    ///
    /// # Errors
    /// As [`encode_with`](Self::encode_with).
    pub fn encode_document<S: AsRef<str> + Sync>(&self, texts: &[S], options: &EncodeOptions) -> Result<Matrix> {
        self.encode_for(Task::Document, texts, options)
    }

    /// Embeddings in fewer bits: [`encode_with`](Self::encode_with), then
    /// [`quantize_embeddings`]. Without `ranges`, int8 and uint8 take those of these very texts.
    ///
    /// # Errors
    /// As [`encode_with`](Self::encode_with) and [`quantize_embeddings`].
    pub fn encode_quantized<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        options: &EncodeOptions,
        precision: Precision,
        ranges: Option<&Ranges>,
    ) -> Result<Quantized> {
        quantize_embeddings(&self.encode_with(texts, options)?, precision, ranges)
    }

    /// The last hidden state of every token, special tokens included, a `[tokens, hidden]` matrix a text: the reference's
    /// `output_value="token_embeddings"`. Never truncated or normalised.
    ///
    /// # Errors
    /// As [`encode_with`](Self::encode_with).
    pub fn encode_tokens<S: AsRef<str> + Sync>(&self, texts: &[S], options: &EncodeOptions) -> Result<Vec<Matrix>> {
        let mut results = vec![Matrix::zeros(0, 0); texts.len()];
        self.run(Task::Any, texts, options, Output::Tokens, |finished, s, targets| {
            let range = finished.batch.range(s);
            let cols = finished.rows.cols;
            let rows = finished.rows.data[range.start * cols..range.end * cols].to_vec();
            let matrix = Matrix::new(range.len(), cols, rows);
            for &target in targets {
                results[target] = matrix.clone();
            }
        })?;
        Ok(results)
    }

    fn encode_for<S: AsRef<str> + Sync>(&self, task: Task, texts: &[S], options: &EncodeOptions) -> Result<Matrix> {
        let path = self.path(task, options)?;
        let full = path.program.shape(path.program.sentences).cols;
        let dim = match options.truncate_dim.or(self.model.settings.truncate_dim) {
            Some(0) => return Err(Error::InvalidInput("truncate_dim is 0: give at least 1".into())),
            Some(dim) => dim.min(full),
            None => full,
        };
        let mut embeddings = Matrix::zeros(texts.len(), dim);
        let mut done = vec![false; texts.len()];
        let ran = self.run(task, texts, options, Output::Sentences, |finished, s, targets| {
            for &target in targets {
                done[target] = true;
                let row = embeddings.row_mut(target);
                row.copy_from_slice(&finished.rows.row(s)[..dim]);
                if options.normalize {
                    normalize(row);
                }
            }
        });
        match ran {
            Ok(()) => Ok(embeddings),
            Err(error) => Err(error.with_results(embeddings, &done)),
        }
    }

    /// As [`ProgramPath::run`].
    fn run<S: AsRef<str> + Sync>(
        &self,
        task: Task,
        texts: &[S],
        options: &EncodeOptions,
        output: Output,
        store: impl FnMut(&Finished, usize, &[usize]),
    ) -> Result<()> {
        let request = Request {
            prompt: self.model.prompt(task, options.prompt.as_deref(), options.prompt_name.as_deref())?,
            task: options.task.as_deref().or(task.name()),
            batch_tokens: options.batch_tokens,
            progress: options.progress.as_ref(),
            cancel: options.cancel.as_ref(),
        };
        self.path(task, options)?.run(texts, &request, output, store)
    }

    fn path(&self, task: Task, options: &EncodeOptions) -> Result<&ProgramPath> {
        self.model.path(options.task.as_deref().or(task.name()))
    }
}
