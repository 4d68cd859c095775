//! Weights that a checkpoint does not store as they are used, but that follow from what it stores.

use super::weights::{TensorSpec, WeightSource};
use crate::error::Result;
use rayon::prelude::*;
use std::ops::Range;

/// `norm(table) * weight^T + bias`, of which nothing depends on a text: DeBERTa's positions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Projected {
    /// `[rows, in]`
    pub table: TensorSpec,
    /// Weight and bias of a layer norm, `[in]` each, and its eps as the bits of an f32.
    pub norm: Option<(TensorSpec, TensorSpec, u32)>,
    /// `[out, in]`
    pub weight: TensorSpec,
    /// `[out]`
    pub bias: Option<TensorSpec>,
}

impl Projected {
    /// Some of its rows, `[rows, out]`.
    pub(super) fn read(&self, source: &dyn WeightSource, rows: Range<usize>) -> Result<Vec<f32>> {
        let all = |tensor: &TensorSpec| source.read(tensor, 0..tensor.rows());
        let (inner, outer) = (self.weight.cols(), self.weight.rows());
        let mut table = source.read(&self.table, rows)?;
        if let Some((scale, shift, eps)) = &self.norm {
            let (scale, shift) = (all(scale)?, all(shift)?);
            table.chunks_exact_mut(inner).for_each(|row| normalise(row, &scale, &shift, f32::from_bits(*eps)));
        }
        let weight = all(&self.weight)?;
        let bias = self.bias.as_ref().map_or_else(|| Ok(vec![0.0; outer]), all)?;
        let mut out = vec![0.0; table.len() / inner * outer];
        out.par_chunks_mut(outer).zip(table.par_chunks(inner)).for_each(|(out, row)| {
            for ((out, weight), bias) in out.iter_mut().zip(weight.chunks_exact(inner)).zip(&bias) {
                *out = dot(row, weight) + bias;
            }
        });
        Ok(out)
    }
}

/// Row `i` is `factors[i] * table[mapping[i]]`: a Model2Vec vocabulary of which many tokens share a vector.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mapped {
    /// `[stored rows, cols]`
    pub table: TensorSpec,
    /// `[rows]`: a stored row for each; without it, row i is stored row i.
    pub mapping: Option<TensorSpec>,
    /// `[rows]`
    pub factors: Option<TensorSpec>,
}

impl Mapped {
    /// How many rows it has.
    pub(super) fn rows(&self) -> usize {
        self.mapping.as_ref().unwrap_or(&self.table).rows()
    }

    /// Some of its rows, `[rows, cols]`.
    pub(super) fn read(&self, source: &dyn WeightSource, rows: Range<usize>) -> Result<Vec<f32>> {
        let cols = self.table.cols();
        let mut values = match &self.mapping {
            None => source.read(&self.table, rows.clone())?,
            Some(mapping) => {
                let table = source.read(&self.table, 0..self.table.rows())?;
                // Row numbers are whole and below 2^24, so an f32 holds them.
                let numbers = source.read(mapping, rows.clone())?;
                let row = |number: f32| table.chunks_exact(cols).nth(number as usize).unwrap_or(&[]);
                numbers.into_iter().flat_map(row).copied().collect()
            }
        };
        if values.len() != rows.len() * cols {
            let (name, expected) = (&self.mapping.as_ref().unwrap_or(&self.table).name, self.table.rows());
            let (expected, found) = (format!("row numbers below {expected}"), "a larger one".to_string());
            return Err(crate::Error::Weight { name: name.clone(), expected, found });
        }
        if let Some(factors) = &self.factors {
            for (row, factor) in values.chunks_exact_mut(cols).zip(source.read(factors, rows)?) {
                row.iter_mut().for_each(|value| *value *= factor);
            }
        }
        Ok(values)
    }
}

/// Row `row` of a matrix, less row `other`: a language model's head as far as two of its tokens are compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Difference {
    /// `[stored rows, cols]`
    pub table: TensorSpec,
    /// Below the stored rows, as is `other`.
    pub row: usize,
    /// Without it, the row itself.
    pub other: Option<usize>,
}

impl Difference {
    /// Its one row, `[1, cols]`, if `rows` has it.
    pub(super) fn read(&self, source: &dyn WeightSource, rows: Range<usize>) -> Result<Vec<f32>> {
        let stored = |row| source.read(&self.table, row..row + 1);
        if rows.is_empty() {
            return Ok(vec![]);
        }
        let mut row = stored(self.row)?;
        if let Some(other) = self.other {
            row.iter_mut().zip(stored(other)?).for_each(|(x, other)| *x -= other);
        }
        Ok(row)
    }
}

/// `bias - weight * centre`: what a linear layer adds that takes `x - centre` in the place of `x`, a sparse auto-encoder's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Centred {
    /// `[out]`
    pub bias: TensorSpec,
    /// `[out, in]`
    pub weight: TensorSpec,
    /// `[in]`
    pub centre: TensorSpec,
}

impl Centred {
    /// Some of its numbers.
    pub(super) fn read(&self, source: &dyn WeightSource, rows: Range<usize>) -> Result<Vec<f32>> {
        let (mut out, centre) =
            (source.read(&self.bias, rows.clone())?, source.read(&self.centre, 0..self.centre.rows())?);
        let weight = source.read(&self.weight, rows)?;
        for (out, weight) in out.iter_mut().zip(weight.chunks_exact(centre.len())) {
            *out -= dot(weight, &centre);
        }
        Ok(out)
    }
}

/// Each row of a table, and the first row of another added: ERNIE's types of segments, of its first task.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shifted {
    /// `[rows, cols]`
    pub table: TensorSpec,
    /// `[at least 1, cols]`
    pub by: TensorSpec,
}

impl Shifted {
    /// Some of its rows, `[rows, cols]`.
    pub(super) fn read(&self, source: &dyn WeightSource, rows: Range<usize>) -> Result<Vec<f32>> {
        let (mut values, by) = (source.read(&self.table, rows)?, source.read(&self.by, 0..1)?);
        for row in values.chunks_exact_mut(by.len()) {
            row.iter_mut().zip(&by).for_each(|(x, by)| *x += by);
        }
        Ok(values)
    }
}

/// T5's relative positions: row `head` has the bias of every distance of a key from its query, `-max_distance..=max_distance`: the one of the distance's
/// bucket (Raffel et al. 2020).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bucketed {
    /// `[buckets, heads]`, of at least 4 buckets.
    pub table: TensorSpec,
    /// The distance from which on all are in the last bucket: more than a quarter of the buckets.
    pub max_distance: usize,
}

impl Bucketed {
    /// The distances of a row.
    pub(super) fn cols(&self) -> usize {
        2 * self.max_distance + 1
    }

    /// The rows of some heads, `[heads, distances]`.
    pub(super) fn read(&self, source: &dyn WeightSource, heads: Range<usize>) -> Result<Vec<f32>> {
        let (buckets, all_heads) = (self.table.rows(), self.table.cols());
        let table = source.read(&self.table, 0..buckets)?;
        let furthest = self.max_distance as i64;
        let bucket = |distance| relative_bucket(distance, buckets, self.max_distance);
        let row = |head| (-furthest..=furthest).map(bucket).map(move |bucket| bucket * all_heads + head);
        Ok(heads.flat_map(row).map(|i| table[i]).collect())
    }
}

/// The bucket of a key at `distance = key - query`: half of the buckets for each direction, of which the first half hold one
/// distance each and the others grow in powers up to `max_distance`. In f32 as the reference, since it decides at edges.
fn relative_bucket(distance: i64, buckets: usize, max_distance: usize) -> usize {
    let half = buckets / 2;
    let exact = half / 2;
    let far = distance.unsigned_abs() as usize;
    let within = if far < exact {
        far
    } else {
        let powers = (far as f32 / exact as f32).ln() / ((max_distance as f64 / exact as f64).ln() as f32);
        (exact + (powers * (half - exact) as f32) as usize).min(half - 1)
    };
    within + if distance > 0 { half } else { 0 }
}

/// Layer normalisation of a row.
fn normalise(row: &mut [f32], scale: &[f32], shift: &[f32], eps: f32) {
    let n = row.len() as f64;
    let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let variance = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
    let factor = 1.0 / (variance + f64::from(eps)).sqrt();
    for ((x, scale), shift) in row.iter_mut().zip(scale).zip(shift) {
        *x = ((f64::from(*x) - mean) * factor) as f32 * scale + shift;
    }
}

/// In 16 sums, which the compiler keeps in vectors.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 16];
    for (a, b) in a.chunks(16).zip(b.chunks(16)) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    /// Numbers 0, 1, 2, ... but for the named vectors.
    struct Counting;

    impl WeightSource for Counting {
        fn read(&self, tensor: &TensorSpec, rows: Range<usize>) -> Result<Vec<f32>> {
            let cols = tensor.cols();
            Ok(match tensor.name.as_str() {
                "mapping" => vec![2.0, 0.0, 2.0, 1.0][rows].to_vec(),
                "far" => vec![9.0],
                _ => (rows.start * cols..rows.end * cols).map(|i| i as f32).collect(),
            })
        }
    }

    fn tensor(name: &str, shape: &[usize]) -> TensorSpec {
        TensorSpec { module: 0, name: name.into(), shape: shape.to_vec() }
    }

    #[test]
    fn a_bias_that_centres() {
        let (bias, weight) = (tensor("bias", &[3]), tensor("weight", &[3, 2]));
        let centred = Centred { bias, weight, centre: tensor("centre", &[2]) };
        assert_eq!(centred.read(&Counting, 1..3).unwrap(), [1.0 - 3.0, 2.0 - 5.0]);
    }

    #[test]
    fn mapped_rows_share_stored_ones() {
        let mapping = Some(tensor("mapping", &[4]));
        let mapped = Mapped { table: tensor("table", &[3, 2]), mapping, factors: Some(tensor("factors", &[4])) };
        assert_eq!(mapped.rows(), 4);
        assert_eq!(mapped.read(&Counting, 1..4).unwrap(), [0.0, 1.0, 8.0, 10.0, 6.0, 9.0]);
        let lost = Mapped { mapping: Some(tensor("far", &[1])), ..mapped };
        assert!(matches!(lost.read(&Counting, 0..1), Err(Error::Weight { .. })));
    }

    #[test]
    fn a_row_less_another() {
        let difference = Difference { table: tensor("table", &[3, 2]), row: 2, other: Some(0) };
        assert_eq!(difference.read(&Counting, 0..1).unwrap(), [4.0, 4.0]);
        let row = Difference { other: None, ..difference };
        assert_eq!(row.read(&Counting, 0..1).unwrap(), [4.0, 5.0]);
        assert!(row.read(&Counting, 0..0).unwrap().is_empty());
    }

    #[test]
    fn a_row_that_all_have() {
        let shifted = Shifted { table: tensor("table", &[3, 2]), by: tensor("by", &[3, 2]) };
        assert_eq!(shifted.read(&Counting, 1..3).unwrap(), [2.0, 4.0, 4.0, 6.0]);
    }

    #[test]
    fn a_projection_is_a_linear_layer_of_the_table() {
        let bias = Some(tensor("bias", &[3]));
        let projected =
            Projected { table: tensor("table", &[2, 2]), norm: None, weight: tensor("weight", &[3, 2]), bias };
        // Row 1 of the table is [2, 3], the weight's rows are [0, 1], [2, 3], [4, 5].
        assert_eq!(projected.read(&Counting, 1..2).unwrap(), [3.0, 14.0, 25.0]);
    }

    #[test]
    fn buckets_grow_with_the_distance() {
        // transformers' T5Attention._relative_position_bucket with 32 buckets up to 128.
        let bucket = |distance| relative_bucket(distance, 32, 128);
        assert_eq!([-1, 0, 1, -7, 7, -8, 8].map(bucket), [1, 0, 17, 7, 23, 8, 24]);
        assert_eq!([-11, -12, -15, -16, -22, -23, -31, -32].map(bucket), [8, 9, 9, 10, 10, 11, 11, 12]);
        assert_eq!([-90, -91, -127, -128, -5000, 5000].map(bucket), [14, 15, 15, 15, 15, 31]);
    }

    #[test]
    fn a_row_is_a_head_and_its_middle_the_distance_0() {
        let table = tensor("table", &[8, 2]);
        let biases = Bucketed { table, max_distance: 6 };
        assert_eq!(biases.cols(), 13);
        // Distances -1 and 0 are buckets 1 and 0; 1 is bucket 4 + 1, and from 6 on it is the last of a direction.
        let head = biases.read(&Counting, 1..2).unwrap();
        assert_eq!((head[0], head[5], head[6], head[7], head[12]), (7.0, 3.0, 1.0, 11.0, 15.0));
        let both = biases.read(&Counting, 0..2).unwrap();
        assert_eq!((both.len(), &both[13..]), (26, &head[..]));
    }
}
