//! `encode` and its relatives: prompts, equal texts once, longest first, truncation and normalisation of the result.

use super::{EncodeOptions, Progress, SentenceTransformer};
use crate::error::{Error, Result};
use crate::matrix::Matrix;
use crate::program::Output;
use crate::quantization::{Precision, Quantized, Ranges, quantize_embeddings};
use crate::scheduler::{Finished, Scheduler, Sequence};
use std::borrow::Cow;
use std::collections::HashMap;

/// Texts that are tokenised at once: enough for all cores, few enough that the first batch starts early.
const CHUNK: usize = 256;

/// Up to so many texts, a call starts no thread of its own.
const FEW: usize = 16;

/// What the texts are encoded for: decides the prompt where the caller names none.
#[derive(Clone, Copy)]
enum Task {
    Any,
    Query,
    Document,
}

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
        let full = self.model.program.shape(self.model.program.sentences).cols;
        let dim = match options.truncate_dim.or(self.model.settings.truncate_dim) {
            Some(0) => return Err(Error::InvalidInput("truncate_dim is 0: give at least 1".into())),
            Some(dim) => dim.min(full),
            None => full,
        };
        let mut embeddings = Matrix::zeros(texts.len(), dim);
        self.run(task, texts, options, Output::Sentences, |finished, s, targets| {
            for &target in targets {
                let row = embeddings.row_mut(target);
                row.copy_from_slice(&finished.rows.row(s)[..dim]);
                if options.normalize {
                    normalize(row);
                }
            }
        })?;
        Ok(embeddings)
    }

    /// Computes each different text once; `store(batch, sequence, targets)` gets each result with the indices of the texts
    /// that it belongs to.
    fn run<S: AsRef<str> + Sync>(
        &self,
        task: Task,
        texts: &[S],
        options: &EncodeOptions,
        output: Output,
        mut store: impl FnMut(&Finished, usize, &[usize]),
    ) -> Result<()> {
        let prompt = self.prompt(task, options)?;
        let skip = match self.model.include_prompt || prompt.is_empty() {
            true => 0,
            false => self.model.tokenizer.prompt_tokens(prompt)? as u32,
        };
        let unique = unique(texts);
        let truncated = std::sync::atomic::AtomicUsize::new(0);
        let sequences = |chunk: &[(&str, Vec<usize>)], first: usize| -> Result<Vec<Sequence>> {
            let texts: Vec<Cow<str>> = chunk.iter().map(|(text, _)| with_prompt(prompt, text)).collect();
            let encodings = self.model.tokenizer.encode_batch(&texts)?;
            let sequence = |(i, encoding): (usize, crate::checkpoint::Encoding)| {
                let targets = chunk[i].1.len();
                truncated.fetch_add(if encoding.truncated { targets } else { 0 }, std::sync::atomic::Ordering::Relaxed);
                Sequence { key: first + i, ids: encoding.ids, types: encoding.types, skip }
            };
            Ok(encodings.into_iter().enumerate().map(sequence).collect())
        };

        let mut progress = Progress { total: texts.len(), ..Progress::default() };
        let done = |finished: Finished| {
            for (s, &key) in finished.keys.iter().enumerate() {
                store(&finished, s, &unique[key].1);
                progress.texts += unique[key].1.len();
            }
            progress.tokens += finished.batch.tokens();
            progress.truncated = truncated.load(std::sync::atomic::Ordering::Relaxed);
            if let Some(callback) = &options.progress {
                callback(&progress);
            }
            match &options.cancel {
                Some(cancel) if cancel.is_cancelled() && progress.texts < progress.total => {
                    Err(Error::Cancelled { done: progress.texts, total: progress.total })
                }
                _ => Ok(()),
            }
        };
        if options.cancel.as_ref().is_some_and(|cancel| cancel.is_cancelled()) && !texts.is_empty() {
            return Err(Error::Cancelled { done: 0, total: texts.len() });
        }
        let scheduler = Scheduler { executor: self.executor(), output, batch_tokens: options.batch_tokens };
        if unique.len() <= FEW {
            return scheduler.run_few(sequences(&unique, 0)?, done);
        }
        let chunks = unique.chunks(CHUNK).enumerate().map(|(i, chunk)| sequences(chunk, i * CHUNK));
        scheduler.run(chunks, done)
    }

    /// The prompt that goes before every text: empty if none does.
    fn prompt<'a>(&'a self, task: Task, options: &'a EncodeOptions) -> Result<&'a str> {
        let prompts = &self.model.prompts;
        if let Some(prompt) = &options.prompt {
            if options.prompt_name.is_some() {
                log::warn!("both prompt and prompt_name are given: prompt_name is ignored");
            }
            return Ok(prompt);
        }
        let name = match (&options.prompt_name, task) {
            (Some(name), _) => Some(name.as_str()),
            (None, Task::Any) => self.default_prompt_name(),
            (None, Task::Query) => Some("query"),
            (None, Task::Document) => {
                ["document", "passage", "corpus"].into_iter().find(|name| prompts.contains_key(*name))
            }
        };
        match name {
            None => Ok(""),
            Some(name) => prompts.get(name).map(String::as_str).ok_or_else(|| {
                let known: Vec<_> = prompts.keys().map(String::as_str).collect();
                Error::InvalidInput(format!("the model has no prompt named '{name}'; it has: {}", known.join(", ")))
            }),
        }
    }
}

/// The different texts, longest first, each with the places where it stands. Longest first shows at once whether the
/// largest batch fits, and leaves the short ones to even out the end.
fn unique<S: AsRef<str>>(texts: &[S]) -> Vec<(&str, Vec<usize>)> {
    let mut seen: HashMap<&str, usize> = HashMap::with_capacity(texts.len());
    let mut unique: Vec<(&str, Vec<usize>)> = Vec::with_capacity(texts.len());
    for (i, text) in texts.iter().enumerate() {
        let text = text.as_ref();
        match seen.entry(text) {
            std::collections::hash_map::Entry::Occupied(entry) => unique[*entry.get()].1.push(i),
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(unique.len());
                unique.push((text, vec![i]));
            }
        }
    }
    unique.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
    unique
}

fn with_prompt<'a>(prompt: &str, text: &'a str) -> Cow<'a, str> {
    if prompt.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(format!("{prompt}{text}")) }
}

/// Divides by the L2 norm, floored at 1e-12 as in the reference.
fn normalize(row: &mut [f32]) {
    let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
    row.iter_mut().for_each(|x| *x /= norm);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_computed_once_and_the_longest_first() {
        let texts = ["b", "long text", "b", "", "", "middle"];
        assert_eq!(unique(&texts), [("long text", vec![1]), ("middle", vec![5]), ("b", vec![0, 2]), ("", vec![3, 4])]);
    }

    #[test]
    fn a_zero_row_stays_zero() {
        let mut rows = [[0.0, 0.0], [3.0, 4.0]];
        rows.iter_mut().for_each(|row| normalize(row));
        assert_eq!(rows, [[0.0, 0.0], [0.6, 0.8]]);
    }
}
