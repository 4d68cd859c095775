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
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Inputs that are tokenised at once: enough for all cores, few enough that the first batch starts early.
const CHUNK: usize = 256;

/// Bytes of text that are tokenised at once, as far as the model reads them: half a second on a core.
const CHUNK_BYTES: usize = 1 << 20;

/// Bytes of text a token, about: of English with its spaces. A text that is cut counts as a little more than others do, and it
/// takes a little more too, by attention.
const TOKEN_BYTES: usize = 5;

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
    /// Of the texts whose results are there, those that were longer than the model's maximum and lost their end.
    pub truncated: usize,
    /// The work on the texts whose results are there, as their bytes tell it. Their number does not: the longest go first.
    pub work: usize,
    /// The work on all texts.
    pub total_work: usize,
}

impl Progress {
    /// The share of the work that is done, from 0 to 1.
    pub fn share(&self) -> f64 {
        self.work as f64 / (self.total_work as f64).max(1.0)
    }
}

/// A flag that ends running calls. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<Flag>);

#[derive(Debug, Default)]
struct Flag {
    set: AtomicBool,
    parent: Option<Cancel>,
}

impl Cancel {
    /// A flag that is not set.
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// Ends the calls that carry this flag.
    pub fn cancel(&self) {
        self.0.set.store(true, Ordering::Relaxed);
    }

    /// Whether it is set.
    pub fn is_cancelled(&self) -> bool {
        self.0.set.load(Ordering::Relaxed) || self.0.parent.as_ref().is_some_and(Cancel::is_cancelled)
    }

    /// A flag that is set with this one, or alone.
    pub fn child(&self) -> Cancel {
        Cancel(Arc::new(Flag { set: AtomicBool::new(false), parent: Some(self.clone()) }))
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
    /// The most tokens of an input: what is longer loses its end.
    pub longest: Option<usize>,
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
            return Err(Error::Cancelled { done: 0, total: progress.total, results: None });
        }
        let (unique, targets) = unique(inputs);
        let work = |key: usize| work(unique[key].bytes(), self.longest);
        progress.total_work = (0..unique.len()).map(work).sum();
        let truncated: Vec<AtomicBool> = unique.iter().map(|_| AtomicBool::new(false)).collect();
        let sequences = |chunk: &[I], first: usize| -> Result<Vec<Sequence>> {
            let encodings = tokenize(chunk)?.into_iter().zip(first..);
            let sequence = |(mut encoding, key): (Encoding, usize)| {
                if let Some(padding) = self.program.trim {
                    let end = encoding.ids.iter().rposition(|&id| id != padding).map_or(1, |last| last + 1);
                    encoding.ids.truncate(end);
                    encoding.types.truncate(end);
                }
                truncated[key].store(encoding.truncated, Ordering::Relaxed);
                Sequence { key, ids: encoding.ids, types: encoding.types, skip, unseen: encoding.unseen }
            };
            Ok(encodings.map(sequence).collect())
        };

        let done = |finished: Finished| {
            for (s, &key) in finished.keys.iter().enumerate() {
                store(&finished, s, &targets[key]);
                progress.texts += targets[key].len();
                progress.work += work(key);
                progress.truncated += if truncated[key].load(Ordering::Relaxed) { targets[key].len() } else { 0 };
            }
            progress.tokens += finished.batch.tokens();
            if let Some(callback) = self.progress {
                callback(&progress);
            }
            match self.cancel {
                Some(cancel) if cancel.is_cancelled() && progress.texts < progress.total => {
                    Err(Error::Cancelled { done: progress.texts, total: progress.total, results: None })
                }
                _ => Ok(()),
            }
        };
        let (executor, output, batch_tokens) = (self.executor, self.output, self.batch_tokens);
        let scheduler = Scheduler { executor, output, padding: self.program.padding, batch_tokens };
        if unique.len() <= FEW {
            return scheduler.run_few(sequences(&unique, 0)?, done);
        }
        let is_wanted = || !self.cancel.is_some_and(Cancel::is_cancelled);
        let ranges = chunks((0..unique.len()).map(work));
        let chunks = ranges.take_while(|_| is_wanted()).map(|range| sequences(&unique[range.clone()], range.start));
        scheduler.run(chunks, done)?;
        // No chunk was left out unless the flag was set.
        match progress.texts < progress.total {
            true => Err(Error::Cancelled { done: progress.texts, total: progress.total, results: None }),
            false => Ok(()),
        }
    }
}

/// The work on a text, before anyone knows its tokens: its bytes as far as the model reads them, and special tokens.
fn work(bytes: usize, longest: Option<usize>) -> usize {
    bytes.min(longest.unwrap_or(usize::MAX).saturating_mul(TOKEN_BYTES)) + 2 * TOKEN_BYTES
}

/// Inputs of so much work each, cut into chunks.
fn chunks(works: impl Iterator<Item = usize>) -> impl Iterator<Item = Range<usize>> {
    let mut works = works.peekable();
    let mut end = 0;
    std::iter::from_fn(move || {
        works.peek()?;
        let (start, mut bytes) = (end, 0);
        while end - start < CHUNK
            && bytes < CHUNK_BYTES
            && let Some(work) = works.next()
        {
            (end, bytes) = (end + 1, bytes + work);
        }
        Some(start..end)
    })
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
    fn progress_counts_the_longest_texts_first_and_no_more_of_them_than_is_read() {
        let pairs = [("a", ""), ("abcdefgh", "ijk"), ("", "bcd")];
        let (unique, _) = unique(pairs.into_iter());
        for (longest, expected) in [(None, [0, 21, 34, 45]), (Some(2), [0, 20, 33, 44])] {
            let works: Vec<usize> = unique.iter().map(|pair| work(pair.bytes(), longest)).collect();
            let mut progress = Progress { total: 3, total_work: works.iter().sum(), ..Progress::default() };
            let total = progress.total_work as f64;
            let mut shares = vec![progress.share()];
            for work in works {
                progress.work += work;
                shares.push(progress.share());
            }
            assert_eq!(shares.iter().map(|share| (share * total).round() as u64).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn chunks_are_cut_by_inputs_and_by_bytes() {
        let cut = |works: &[usize]| chunks(works.iter().copied()).map(|chunk| chunk.len()).collect::<Vec<_>>();
        assert_eq!(cut(&[10; 600]), [256, 256, 88]);
        assert_eq!(cut(&[CHUNK_BYTES / 4; 9]), [4, 4, 1]);
        assert_eq!(cut(&[usize::MAX / 4, 1, 1]), [1, 2]);
        assert!(cut(&[]).is_empty());
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
