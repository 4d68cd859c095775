//! `encode` and its relatives: which numbers of an embedding are kept.

use super::{Path, SparseEncodeOptions, SparseEncoder};
use crate::bi_encoder::{Request, Task};
use crate::checkpoint::{Frame, Tokenizer};
use crate::cpu::activate;
use crate::error::{Error, Result};
use crate::job::{Cancel, Progress};
use crate::program::{Activation, Output};
use crate::sparse_matrix::SparseMatrix;

/// Texts that are looked up together.
const TOGETHER: usize = 1024;

/// The columns of a row's numbers, and the numbers.
type Row = (Vec<u32>, Vec<f32>);

impl SparseEncoder {
    /// The sparse embeddings of texts, in their order: `[texts, dim]`.
    ///
    /// # Errors
    /// [`Error::Run`] if the device fails.
    pub fn encode<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<SparseMatrix> {
        self.encode_with(texts, &SparseEncodeOptions::default())
    }

    /// [`encode`](Self::encode) with options.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for options that make no sense for this model, [`Error::Cancelled`] once cancelled,
    /// [`Error::Run`] if the device fails.
    pub fn encode_with<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        options: &SparseEncodeOptions,
    ) -> Result<SparseMatrix> {
        self.encode_for(Task::Any, texts, options)
    }

    /// The embeddings of search queries: the prompt named `query` goes before each, unless the options name another.
    ///
    /// # Errors
    /// As [`encode_with`](Self::encode_with).
    pub fn encode_query<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        options: &SparseEncodeOptions,
    ) -> Result<SparseMatrix> {
        self.encode_for(Task::Query, texts, options)
    }

    /// The embeddings of documents to be found: the first prompt of `document`, `passage` and `corpus` goes before each, unless the
    /// options name another.
    ///
    /// # Errors
    /// As [`encode_with`](Self::encode_with).
    pub fn encode_document<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        options: &SparseEncodeOptions,
    ) -> Result<SparseMatrix> {
        self.encode_for(Task::Document, texts, options)
    }

    fn encode_for<S: AsRef<str> + Sync>(
        &self,
        task: Task,
        texts: &[S],
        options: &SparseEncodeOptions,
    ) -> Result<SparseMatrix> {
        if options.max_active_dims == Some(0) {
            return Err(Error::InvalidInput("max_active_dims is 0: give at least 1".into()));
        }
        let request = Request {
            prompt: self.model.prompt(task, options.prompt.as_deref(), options.prompt_name.as_deref())?,
            task: options.task.as_deref().or(task.name()),
            batch_tokens: options.batch_tokens,
            progress: options.progress.as_ref(),
            cancel: options.cancel.as_ref(),
        };
        let path = self.model.path(request.task)?;
        let most = options.max_active_dims.or(self.limit(path));
        let mut rows: Vec<Row> = vec![Row::default(); texts.len()];
        match path {
            Path::Program { path, activation, .. } => {
                path.run(texts, &request, Output::Sentences, |finished, s, targets| {
                    let row = largest(active(finished.rows.row(s), *activation), most);
                    targets.iter().for_each(|&target| rows[target].clone_from(&row));
                })?;
            }
            Path::Tokens(tokenizer, weights) => {
                look_up(texts, &request, tokenizer, weights, |text, row| rows[text] = largest(row, most))?;
            }
        }
        let mut embeddings = SparseMatrix::new(path.dim());
        rows.iter().for_each(|(indices, values)| embeddings.push_row(indices, values));
        Ok(embeddings)
    }
}

/// What is positive, after the activation; and what is no number, so that it shows.
fn active(row: &[f32], activation: Activation) -> Row {
    let (indices, mut values): Row = (0..).zip(row.iter().copied()).filter(|(_, x)| *x > 0.0 || x.is_nan()).unzip();
    activate(activation, &mut values);
    (indices, values)
}

/// The `most` numbers that are largest in absolute value; of equal ones, the first.
fn largest((indices, values): Row, most: Option<usize>) -> Row {
    let Some(most) = most.filter(|&most| most < values.len()) else { return (indices, values) };
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].abs().total_cmp(&values[a].abs()));
    order.truncate(most);
    order.sort_unstable();
    order.into_iter().map(|i| (indices[i], values[i])).unzip()
}

/// Gives `store` the weights of the tokens that each text has.
fn look_up<S: AsRef<str> + Sync>(
    texts: &[S],
    request: &Request<'_>,
    tokenizer: &Tokenizer,
    weights: &[f32],
    mut store: impl FnMut(usize, Row),
) -> Result<()> {
    let work = |text: &S| text.as_ref().len() + 1;
    let total = texts.len();
    let mut progress = Progress { total, total_work: texts.iter().map(work).sum(), ..Progress::default() };
    let frame = Frame { prompt: request.prompt, task: request.task };
    for chunk in texts.chunks(TOGETHER) {
        if request.cancel.is_some_and(Cancel::is_cancelled) {
            return Err(Error::Cancelled { done: progress.texts, total, results: None });
        }
        for (text, encoding) in chunk.iter().zip(tokenizer.encode_batch_in(frame, chunk)?) {
            progress.tokens += encoding.ids.len();
            progress.truncated += usize::from(encoding.truncated);
            progress.work += work(text);
            let mut ids = encoding.ids;
            ids.sort_unstable();
            ids.dedup();
            let weighted = ids.into_iter().map(|id| (id, weights[id as usize])).filter(|(_, weight)| *weight != 0.0);
            store(progress.texts, weighted.unzip());
            progress.texts += 1;
        }
        if let Some(callback) = request.progress {
            callback(&progress);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_positive_is_kept_and_what_is_no_number() {
        let (indices, values) = active(&[0.0, -1.0, 3.0, f32::NAN, -0.0, 1.0], Activation::Log1pRelu);
        assert_eq!(indices, [2, 3, 5]);
        assert!(values[0] == 4f32.ln() && values[1].is_nan() && values[2] == 2f32.ln());
    }

    #[test]
    fn the_largest_stay_in_their_order() {
        let row = || (vec![1, 4, 5, 9], vec![0.5, -3.0, 2.0, 2.0]);
        assert_eq!(largest(row(), Some(2)), (vec![4, 5], vec![-3.0, 2.0]));
        assert_eq!(largest(row(), Some(4)), row());
        assert_eq!(largest(row(), None), row());
    }
}
