//! The weights that a program names, and where an executor gets their numbers.

use super::RotaryTable;
use super::folded::{Bucketed, Centred, Difference, Mapped, Projected, Shifted};
use crate::error::Result;
use std::ops::Range;

/// One tensor of a checkpoint, as a program names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TensorSpec {
    /// Which module of the repository it belongs to: an index in the order of `modules.json`.
    pub module: usize,
    /// Its name there, without the prefix of the backbone, e.g. `encoder.layer.0.output.dense.weight`.
    pub name: String,
    /// Its shape: `[out, in]` for a matrix, `[n]` for a vector.
    pub shape: Vec<usize>,
}

/// Some rows of a weight, and where their numbers come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Part {
    /// A tensor of the checkpoint.
    Tensor(TensorSpec),
    /// So many rows of a tensor, from one of them on.
    Rows(TensorSpec, usize, usize),
    /// A tensor, and 1 added to each number: Gemma's norms.
    PlusOne(TensorSpec),
    /// A tensor, each number multiplied by an f32, given as its bits: Gemma's embeddings.
    Scaled(TensorSpec, u32),
    /// A matrix, its rows and columns exchanged: the experts' second matrices.
    Transposed(TensorSpec),
    /// A table after a norm and a linear layer of its own.
    Projected(Box<Projected>),
    /// Rows of a table that are shared or scaled.
    Mapped(Box<Mapped>),
    /// A table of buckets, by distances.
    Bucketed(Box<Bucketed>),
    /// A row of a matrix, or the difference of two.
    Difference(Box<Difference>),
    /// A bias that centres the input, too.
    Centred(Box<Centred>),
    /// A table with one row added to each.
    Shifted(Box<Shifted>),
    /// No tensor but a formula.
    Rotary(RotaryTable),
    /// No tensor but so many ones: the weights of a norm that has none.
    Ones(usize),
}

/// A matrix `[rows, cols]` (or a vector: `cols` is 1) of a program: the rows of one or several parts, stacked. So Q, K and V
/// become one matrix.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WeightSpec {
    /// Stacked in this order; all of `cols` columns.
    pub parts: Vec<Part>,
    /// Rows of all parts.
    pub rows: usize,
    /// Columns: 1 for a vector.
    pub cols: usize,
}

impl WeightSpec {
    /// The rows of `parts`, stacked.
    ///
    /// # Panics
    /// If the parts differ in their columns: a mistake in a model's builder.
    pub fn stacked(parts: Vec<Part>) -> WeightSpec {
        let cols = parts[0].cols();
        assert!(parts.iter().all(|part| part.cols() == cols), "stacked parts differ in columns: {parts:?}");
        WeightSpec { rows: parts.iter().map(Part::rows).sum(), cols, parts }
    }

    /// The name for messages and printed programs: the first part's, and how many more there are.
    pub fn name(&self) -> String {
        match self.parts.len() {
            1 => self.parts[0].name().to_string(),
            n => format!("{} (+{})", self.parts[0].name(), n - 1),
        }
    }

    /// Rows `range` of the stacked matrix, row-major, as f32.
    pub fn read(&self, source: &dyn WeightSource, range: Range<usize>) -> Result<Vec<f32>> {
        let mut values = Vec::with_capacity(range.len() * self.cols);
        let mut first = 0;
        for part in &self.parts {
            let (from, to) = (range.start.max(first), range.end.min(first + part.rows()));
            if from < to {
                values.append(&mut part.read(source, from - first..to - first)?);
            }
            first += part.rows();
        }
        Ok(values)
    }

    /// The whole matrix, row-major, as f32.
    pub fn read_all(&self, source: &dyn WeightSource) -> Result<Vec<f32>> {
        self.read(source, 0..self.rows)
    }
}

impl Part {
    /// Its tensor's name, for messages.
    pub fn name(&self) -> &str {
        match self {
            Part::Projected(projected) => &projected.weight.name,
            Part::Mapped(mapped) => &mapped.table.name,
            Part::Bucketed(bucketed) => &bucketed.table.name,
            Part::Difference(difference) => &difference.table.name,
            Part::Centred(centred) => &centred.bias.name,
            Part::Shifted(shifted) => &shifted.table.name,
            Part::Ones(_) => "ones",
            _ => self.tensor().map_or("rotary", |tensor| &tensor.name),
        }
    }

    /// The one tensor behind it.
    pub(crate) fn tensor(&self) -> Option<&TensorSpec> {
        match self {
            Part::Tensor(tensor) | Part::PlusOne(tensor) | Part::Scaled(tensor, _) => Some(tensor),
            Part::Rows(tensor, ..) | Part::Transposed(tensor) => Some(tensor),
            Part::Projected(_) | Part::Mapped(_) | Part::Bucketed(_) => None,
            Part::Difference(_) | Part::Centred(_) | Part::Shifted(_) | Part::Rotary(_) | Part::Ones(_) => None,
        }
    }

    /// All tensors behind it.
    pub(crate) fn tensors(&self) -> Vec<&TensorSpec> {
        match self {
            Part::Projected(projected) => {
                let norm = projected.norm.iter().flat_map(|(weight, bias, _)| [weight, bias]);
                [&projected.table, &projected.weight].into_iter().chain(&projected.bias).chain(norm).collect()
            }
            Part::Mapped(mapped) => [&mapped.table].into_iter().chain(&mapped.mapping).chain(&mapped.factors).collect(),
            Part::Bucketed(bucketed) => vec![&bucketed.table],
            Part::Difference(difference) => vec![&difference.table],
            Part::Centred(centred) => vec![&centred.bias, &centred.weight, &centred.centre],
            Part::Shifted(shifted) => vec![&shifted.table, &shifted.by],
            _ => self.tensor().into_iter().collect(),
        }
    }

    /// Whether some of its rows are read without the others.
    pub(crate) fn is_read_by_rows(&self) -> bool {
        matches!(self, Part::Tensor(_) | Part::Rows(..) | Part::PlusOne(_) | Part::Scaled(..))
    }

    /// The tensor whose numbers it has: none for what follows from others.
    pub(super) fn stored(&self) -> Option<&TensorSpec> {
        match self {
            Part::Mapped(mapped) => Some(&mapped.table),
            Part::Bucketed(bucketed) => Some(&bucketed.table),
            Part::Shifted(shifted) => Some(&shifted.table),
            _ => self.tensor(),
        }
    }

    /// Its rows.
    pub fn rows(&self) -> usize {
        match self {
            Part::Tensor(tensor) | Part::PlusOne(tensor) | Part::Scaled(tensor, _) => tensor.rows(),
            Part::Rows(_, _, rows) => *rows,
            Part::Transposed(tensor) => tensor.cols(),
            Part::Projected(projected) => projected.table.rows(),
            Part::Mapped(mapped) => mapped.rows(),
            Part::Bucketed(bucketed) => bucketed.table.cols(),
            Part::Difference(_) => 1,
            Part::Centred(centred) => centred.bias.rows(),
            Part::Shifted(shifted) => shifted.table.rows(),
            Part::Rotary(table) => table.positions,
            Part::Ones(rows) => *rows,
        }
    }

    /// Elements of a row.
    pub fn cols(&self) -> usize {
        match self {
            Part::Tensor(tensor) | Part::PlusOne(tensor) | Part::Scaled(tensor, _) => tensor.cols(),
            Part::Rows(tensor, ..) => tensor.cols(),
            Part::Transposed(tensor) => tensor.rows(),
            Part::Projected(projected) => projected.weight.rows(),
            Part::Mapped(mapped) => mapped.table.cols(),
            Part::Bucketed(bucketed) => bucketed.cols(),
            Part::Difference(difference) => difference.table.cols(),
            Part::Centred(_) | Part::Ones(_) => 1,
            Part::Shifted(shifted) => shifted.table.cols(),
            Part::Rotary(table) => table.cols(),
        }
    }

    /// Some of its rows, row-major, as f32.
    fn read(&self, source: &dyn WeightSource, rows: Range<usize>) -> Result<Vec<f32>> {
        let changed = |tensor, change: &dyn Fn(f32) -> f32| {
            let mut values = source.read(tensor, rows.clone())?;
            values.iter_mut().for_each(|value| *value = change(*value));
            Ok(values)
        };
        match self {
            Part::Tensor(tensor) => source.read(tensor, rows),
            Part::Rows(tensor, first, _) => source.read(tensor, first + rows.start..first + rows.end),
            Part::PlusOne(tensor) => changed(tensor, &|value| value + 1.0),
            Part::Scaled(tensor, factor) => changed(tensor, &|value| value * f32::from_bits(*factor)),
            Part::Transposed(tensor) => {
                let (all, cols) = (source.read(tensor, 0..tensor.rows())?, tensor.cols());
                Ok(rows.flat_map(|column| all[column..].iter().step_by(cols)).copied().collect())
            }
            Part::Projected(projected) => projected.read(source, rows),
            Part::Mapped(mapped) => mapped.read(source, rows),
            Part::Bucketed(bucketed) => bucketed.read(source, rows),
            Part::Difference(difference) => difference.read(source, rows),
            Part::Centred(centred) => centred.read(source, rows),
            Part::Shifted(shifted) => shifted.read(source, rows),
            Part::Rotary(table) => Ok(rows.flat_map(|position| table.row(position)).collect()),
            Part::Ones(_) => Ok(vec![1.0; rows.len()]),
        }
    }
}

impl From<TensorSpec> for Part {
    fn from(tensor: TensorSpec) -> Part {
        Part::Tensor(tensor)
    }
}

impl TensorSpec {
    /// Rows: the first dimension.
    pub fn rows(&self) -> usize {
        self.shape[0]
    }

    /// Elements of a row: 1 for a vector.
    pub fn cols(&self) -> usize {
        self.shape[1..].iter().product()
    }
}

/// Where an executor gets the numbers of a program's weights: a checkpoint, or a generator for benchmarks and tests.
pub trait WeightSource: Send + Sync {
    /// Rows `rows` of a tensor, row-major, as f32; a vector of n elements has n rows of one element.
    ///
    /// # Errors
    /// [`Error::Weight`](crate::Error::Weight) if there is no such tensor, its shape differs, or a number is not finite.
    fn read(&self, tensor: &TensorSpec, rows: Range<usize>) -> Result<Vec<f32>>;

    /// The shape of a tensor, where the source knows it before it is asked for: some modules have no other configuration.
    fn shape(&self, module: usize, name: &str) -> Option<Vec<usize>> {
        let _ = (module, name);
        None
    }
}

/// Seeded random weights of any shape: for benchmarks without a checkpoint, and for tests. Matrices are uniform with
/// standard deviation `1 / sqrt(cols)`, so that activations keep their size; a norm's weights lie around 1.
#[derive(Debug, Clone, Copy)]
pub struct RandomWeights {
    /// Another seed gives other numbers.
    pub seed: u64,
}

impl WeightSource for RandomWeights {
    fn read(&self, tensor: &TensorSpec, rows: Range<usize>) -> Result<Vec<f32>> {
        let name = tensor.name.bytes().fold(self.seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3) // FNV-1a
        });
        let is_norm = tensor.shape.len() == 1 && tensor.name.ends_with("weight");
        let scale = if tensor.shape.len() == 1 { 0.1 } else { 3f32.sqrt() / (tensor.cols() as f32).sqrt() };
        let cols = tensor.cols();
        let values = (rows.start * cols..rows.end * cols).map(|i| {
            let uniform = (splitmix64(name.wrapping_add(i as u64)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
            uniform * scale + if is_norm { 1.0 } else { 0.0 }
        });
        Ok(values.collect())
    }
}

/// A well-mixed function of its argument (Steele et al. 2014): any element can be computed without those before it.
fn splitmix64(x: u64) -> u64 {
    let z = x.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_stacked_rows_equals_that_part_of_the_whole() {
        let part = |name: &str, rows| TensorSpec { module: 0, name: name.into(), shape: vec![rows, 3] }.into();
        let spec = WeightSpec::stacked(vec![part("q", 4), part("k", 1), part("v", 5)]);
        let source = RandomWeights { seed: 1 };
        let all = spec.read_all(&source).unwrap();
        assert_eq!((spec.rows, all.len()), (10, 30));
        for from in 0..10 {
            for to in from..=10 {
                assert_eq!(spec.read(&source, from..to).unwrap(), all[from * 3..to * 3]);
            }
        }
    }

    #[test]
    fn random_weights_have_the_stated_spread() {
        let tensor = TensorSpec { module: 0, name: "dense.weight".into(), shape: vec![100, 400] };
        let values = RandomWeights { seed: 7 }.read(&tensor, 0..100).unwrap();
        let mean = values.iter().sum::<f32>() / 40_000.0;
        let deviation = (values.iter().map(|x| x * x).sum::<f32>() / 40_000.0).sqrt();
        assert!(mean.abs() < 0.001 && (deviation - 0.05).abs() < 0.001, "mean {mean}, deviation {deviation}");
    }
}
