//! T5's relative positions: the biases of buckets of distances, as those of distances.

use super::weights::{TensorSpec, WeightSource};
use crate::error::Result;
use std::ops::Range;

/// Row `head` has the bias of every distance of a key from its query, `-max_distance..=max_distance`: the one of the distance's
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_grow_with_the_distance() {
        // transformers' T5Attention._relative_position_bucket with 32 buckets up to 128.
        let bucket = |distance| relative_bucket(distance, 32, 128);
        assert_eq!([-1, 0, 1, -7, 7, -8, 8].map(bucket), [1, 0, 17, 7, 23, 8, 24]);
        assert_eq!([-11, -12, -15, -16, -22, -23, -31, -32].map(bucket), [8, 9, 9, 10, 10, 11, 11, 12]);
        assert_eq!([-90, -91, -127, -128, -5000, 5000].map(bucket), [14, 15, 15, 15, 15, 31]);
    }

    /// Numbers 0, 1, 2, ...
    struct Counting;

    impl WeightSource for Counting {
        fn read(&self, tensor: &TensorSpec, rows: Range<usize>) -> Result<Vec<f32>> {
            Ok((rows.start * tensor.cols()..rows.end * tensor.cols()).map(|i| i as f32).collect())
        }
    }

    #[test]
    fn a_row_is_a_head_and_its_middle_the_distance_0() {
        let table = TensorSpec { module: 0, name: "table".into(), shape: vec![8, 2] };
        let biases = Bucketed { table, max_distance: 6 };
        assert_eq!(biases.cols(), 13);
        // Distances -1 and 0 are buckets 1 and 0; 1 is bucket 4 + 1, and from 6 on it is the last of a direction.
        let head = biases.read(&Counting, 1..2).unwrap();
        assert_eq!((head[0], head[5], head[6], head[7], head[12]), (7.0, 3.0, 1.0, 11.0, 15.0));
        let both = biases.read(&Counting, 0..2).unwrap();
        assert_eq!((both.len(), &both[13..]), (26, &head[..]));
    }
}
