//! One call's inputs through a model: equal ones computed once, longest first, tokenised in chunks ahead of the executor,
//! with progress and cancellation. What `encode` and `predict` share.

use crate::checkpoint::Encoding;
use crate::error::{Error, Result};
use crate::executor::Executor;
use crate::program::{Output, Program};
use crate::scheduler::{Finished, Scheduler, Sequence};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Inputs that are tokenised at once: enough for all cores, few enough that the first batch starts early.
const CHUNK: usize = 256;

/// Up to so many inputs, a call starts no thread of its own.
const FEW: usize = 16;

/// What is called with the [`Progress`] of a call.
pub type OnProgress = Arc<dyn Fn(&Progress) + Send + Sync>;

/// How far a call is. A text is what the call was given: for a cross-encoder, a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Texts whose results are there, equal ones included.
    pub texts: usize,
    /// Texts in the call.
    pub total: usize,
    /// Tokens computed, special tokens included. Equal texts count once.
    pub tokens: usize,
    /// Texts that were longer than the model's maximum and lost their end.
    pub truncated: usize,
    /// Bytes of the texts whose results are there: a measure of the work, unlike texts, since the longest go first.
    pub bytes: usize,
    /// Bytes of all texts.
    pub total_bytes: usize,
}

impl Progress {
    /// The share of the work that is done, from 0 to 1.
    pub fn share(&self) -> f64 {
        // A text of no bytes is some work too.
        (self.bytes + self.texts) as f64 / ((self.total_bytes + self.total) as f64).max(1.0)
    }
}

/// A flag that ends running calls. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A flag that is not set.
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// Ends the calls that carry this flag.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it is set.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where and how a call runs.
pub(crate) struct Job<'a> {
    pub program: &'a Program,
    pub executor: &'a dyn Executor,
    pub output: Output,
    pub batch_tokens: Option<usize>,
    pub progress: Option<&'a OnProgress>,
    pub cancel: Option<&'a Cancel>,
}

impl Job<'_> {
    /// Runs each different input once. `tokenize` gets some of them at a time; their first `skip` tokens stay out of
    /// pooling. `store(batch, sequence, targets)` gets each result with the indices of the inputs that it belongs to.
    pub fn run<I: Input>(
        &self,
        inputs: impl ExactSizeIterator<Item = I>,
        skip: u32,
        tokenize: impl Fn(&[I]) -> Result<Vec<Encoding>> + Sync,
        mut store: impl FnMut(&Finished, usize, &[usize]),
    ) -> Result<()> {
        let mut progress = Progress { total: inputs.len(), ..Progress::default() };
        if self.cancel.is_some_and(Cancel::is_cancelled) && progress.total > 0 {
            return Err(Error::Cancelled { done: 0, total: progress.total });
        }
        let (unique, targets) = unique(inputs);
        let bytes = |key: usize| unique[key].bytes() * targets[key].len();
        progress.total_bytes = (0..unique.len()).map(bytes).sum();
        let truncated = AtomicUsize::new(0);
        let sequences = |chunk: &[I], first: usize| -> Result<Vec<Sequence>> {
            let encodings = tokenize(chunk)?.into_iter().zip(first..);
            let sequence = |(mut encoding, key): (Encoding, usize)| {
                if let Some(padding) = self.program.trim {
                    let end = encoding.ids.iter().rposition(|&id| id != padding).map_or(1, |last| last + 1);
                    encoding.ids.truncate(end);
                    encoding.types.truncate(end);
                }
                truncated.fetch_add(if encoding.truncated { targets[key].len() } else { 0 }, Ordering::Relaxed);
                Sequence { key, ids: encoding.ids, types: encoding.types, skip }
            };
            Ok(encodings.map(sequence).collect())
        };

        let done = |finished: Finished| {
            for (s, &key) in finished.keys.iter().enumerate() {
                store(&finished, s, &targets[key]);
                progress.texts += targets[key].len();
                progress.bytes += bytes(key);
            }
            progress.tokens += finished.batch.tokens();
            progress.truncated = truncated.load(Ordering::Relaxed);
            if let Some(callback) = self.progress {
                callback(&progress);
            }
            match self.cancel {
                Some(cancel) if cancel.is_cancelled() && progress.texts < progress.total => {
                    Err(Error::Cancelled { done: progress.texts, total: progress.total })
                }
                _ => Ok(()),
            }
        };
        let (executor, output, batch_tokens) = (self.executor, self.output, self.batch_tokens);
        let scheduler = Scheduler { executor, output, padding: self.program.padding, batch_tokens };
        if unique.len() <= FEW {
            return scheduler.run_few(sequences(&unique, 0)?, done);
        }
        let chunks = unique.chunks(CHUNK).enumerate().map(|(i, chunk)| sequences(chunk, i * CHUNK));
        scheduler.run(chunks, done)
    }
}

/// What a model takes: a text, or a pair of texts.
pub(crate) trait Input: Copy + Eq + Hash + Sync {
    /// Bytes of text: a measure of its tokens that costs nothing.
    fn bytes(&self) -> usize;
}

impl Input for &str {
    fn bytes(&self) -> usize {
        self.len()
    }
}

impl Input for (&str, &str) {
    fn bytes(&self) -> usize {
        self.0.len() + self.1.len()
    }
}

/// The different inputs, longest first, and for each the places where it stands. Longest first shows at once whether the
/// largest batch fits, and leaves the short ones to even out the end.
fn unique<I: Input>(inputs: impl ExactSizeIterator<Item = I>) -> (Vec<I>, Vec<Vec<usize>>) {
    let mut seen: HashMap<I, usize> = HashMap::with_capacity(inputs.len());
    let mut unique: Vec<(I, Vec<usize>)> = Vec::with_capacity(inputs.len());
    for (i, input) in inputs.enumerate() {
        match seen.entry(input) {
            Entry::Occupied(entry) => unique[*entry.get()].1.push(i),
            Entry::Vacant(entry) => {
                entry.insert(unique.len());
                unique.push((input, vec![i]));
            }
        }
    }
    unique.sort_by_key(|(input, _)| std::cmp::Reverse(input.bytes()));
    unique.into_iter().unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_counts_the_longest_texts_first() {
        let pairs = [("a", ""), ("abcdefgh", "ijk"), ("", "bcd")];
        let (unique, _) = unique(pairs.into_iter());
        let mut progress = Progress { total: 3, total_bytes: 15, ..Progress::default() };
        let mut shares = vec![progress.share() * 36.0];
        for pair in unique {
            progress.texts += 1;
            progress.bytes += pair.bytes();
            shares.push(progress.share() * 36.0);
        }
        assert_eq!(shares.into_iter().map(f64::round).map(|x| x as u64).collect::<Vec<_>>(), [0, 24, 32, 36]);
    }

    #[test]
    fn equal_inputs_are_computed_once_and_the_longest_first() {
        let texts = ["b", "long text", "b", "", "", "middle"];
        let expected = (vec!["long text", "middle", "b", ""], vec![vec![1], vec![5], vec![0, 2], vec![3, 4]]);
        assert_eq!(unique(texts.into_iter()), expected);
        let pairs = [("ab", "c"), ("a", "bc"), ("ab", "c")];
        assert_eq!(unique(pairs.into_iter()), (vec![("ab", "c"), ("a", "bc")], vec![vec![0, 2], vec![1]]));
    }
}
