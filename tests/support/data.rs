//! Weights and batches of tests: seeded, so that a failure can be repeated.

use lexel::Result;
use lexel::batch::Batch;
use lexel::program::{RandomWeights, TensorSpec, WeightSource};
use std::ops::Range;

/// Random weights, with some tensors filled as a case needs them. The longest rule whose name a tensor's name begins with
/// holds; without a rule the numbers are those of [`RandomWeights`].
#[derive(Debug, Clone, Default)]
pub struct TestWeights {
    pub rules: Vec<(&'static str, Fill)>,
}

/// What a tensor holds.
#[derive(Debug, Clone, Copy)]
pub enum Fill {
    /// Uniform with this mean and standard deviation.
    Random { mean: f32, deviation: f32 },
    /// Evenly spaced from the first element to the last.
    Ramp { from: f32, to: f32 },
    /// Ones on the diagonal.
    Identity,
    /// The same number everywhere.
    Constant(f32),
}

impl TestWeights {
    /// With a rule for the tensors whose names begin so.
    pub fn with(mut self, prefix: &'static str, fill: Fill) -> TestWeights {
        self.rules.push((prefix, fill));
        self
    }
}

impl WeightSource for TestWeights {
    fn read(&self, tensor: &TensorSpec, rows: Range<usize>) -> Result<Vec<f32>> {
        let random = RandomWeights { seed: 42 }.read(tensor, rows.clone())?;
        let rule = self.rules.iter().filter(|(prefix, _)| tensor.name.starts_with(prefix));
        let Some((_, fill)) = rule.max_by_key(|(prefix, _)| prefix.len()) else { return Ok(random) };
        let (cols, all) = (tensor.cols(), tensor.cols() * tensor.rows());
        let indices = rows.start * cols..rows.end * cols;
        Ok(match *fill {
            Fill::Random { mean, deviation } => {
                let spread = (cols as f32).sqrt() * deviation;
                random.iter().map(|x| x * spread + mean).collect()
            }
            Fill::Ramp { from, to } => {
                indices.map(|i| from + (to - from) * i as f32 / (all.max(2) - 1) as f32).collect()
            }
            Fill::Identity => indices.map(|i| if i / cols == i % cols { 1.0 } else { 0.0 }).collect(),
            Fill::Constant(value) => vec![value; indices.len()],
        })
    }
}

/// Ids that a batch draws from; a test's tables have at least so many rows.
pub const VOCABULARY: usize = 61;
/// Positions that a test's tables have room for.
pub const POSITIONS: usize = 640;

/// A batch of sequences of these lengths with varied ids; some pairs, no skipped tokens.
pub fn batch(lengths: &[usize]) -> Batch {
    let skip = vec![0; lengths.len()];
    batch_skipping(lengths, &skip)
}

/// The same, with so many leading tokens of each sequence left out of pooling.
pub fn batch_skipping(lengths: &[usize], skip: &[u32]) -> Batch {
    let mut batch = Batch::new();
    for (s, (&length, &skip)) in lengths.iter().zip(skip).enumerate() {
        let ids: Vec<u32> = (0..length).map(|t| ((s * 31 + t * 17 + t * t) % VOCABULARY) as u32).collect();
        let types: Vec<u32> = (0..length).map(|t| u32::from(s % 2 == 1 && t > length / 2)).collect();
        batch.push(&ids, &types, skip);
    }
    batch
}

/// The same as [`batch`], with up to so many tokens at the end of each sequence that attention does not look at.
pub fn batch_expanded(lengths: &[usize], unseen: usize) -> Batch {
    let (plain, mut batch) = (batch(lengths), Batch::new());
    for (s, &length) in lengths.iter().enumerate() {
        let unseen = unseen.min(length) as u32;
        batch.push_expanded(&plain.ids[plain.range(s)], &plain.types[plain.range(s)], 0, unseen);
    }
    batch
}

/// Some sequences of a batch, in this order.
pub fn select(batch: &Batch, sequences: impl IntoIterator<Item = usize>) -> Batch {
    let mut selected = Batch::new();
    sequences.into_iter().for_each(|s| selected.push_from(batch, s));
    selected
}

/// One sequence of each of these lengths, each a batch of its own.
pub fn single(lengths: &[usize]) -> Vec<Batch> {
    lengths.iter().map(|&length| batch(&[length])).collect()
}

/// Rows around the edges of every tile size that a kernel may have.
pub const EDGES: [usize; 22] = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 95, 127, 128, 129];

/// Batches whose shape is the difficulty: nothing, nothing but empty sequences, empty ones among others, many lengths.
pub fn odd_batches() -> Vec<Batch> {
    vec![Batch::new(), batch(&[0]), batch(&[0, 0, 0]), batch(&[0, 3, 0, 0, 20, 1, 0]), batch(&[7, 1, 33, 2, 64, 5, 16])]
}

/// One long sequence among many of a single token.
pub fn long_among_short() -> Batch {
    let mut lengths = vec![1; 33];
    lengths[17] = 600;
    batch(&lengths)
}
