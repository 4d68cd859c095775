//! What the rows that a linear op reads are like: how large each of their numbers is, and which are large together.

use super::linear::PackedRows;
use super::parallel::each;
use std::ops::Range;

/// Numbers that are looked at together: whole blocks of a rotation. Of all-MiniLM-L6-v2 in int8, without VNNI and
/// with one scale a row, 1e6 times 1 - cosine on 2,000 sentences was 233 with blocks of 128 and 213 with these, which take three
/// times as long to learn from.
pub const BLOCK: usize = 3 * 128;

/// Sums over rows.
#[derive(Clone)]
pub struct Moments {
    /// Rows so far.
    pub rows: usize,
    /// For each block of columns, `[columns, columns]`: sums of the products of two columns' numbers.
    pub blocks: Vec<Vec<f32>>,
    inner: usize,
}

/// The columns of each block.
pub fn blocks(inner: usize) -> impl Iterator<Item = Range<usize>> {
    (0..inner).step_by(BLOCK).map(move |first| first..inner.min(first + BLOCK))
}

impl Moments {
    /// Of no rows yet, of `inner` numbers each.
    pub fn new(inner: usize) -> Moments {
        let blocks = blocks(inner).map(|columns| vec![0.0; columns.len() * columns.len()]).collect();
        Moments { rows: 0, blocks, inner }
    }

    /// Adds the rows of each of `parts`. The sums do not depend on the number of threads.
    pub fn add(&mut self, parts: &[&[f32]], threads: usize) {
        let inner = self.inner;
        let rows: usize = parts.iter().map(|part| part.len() / inner).sum();
        if rows == 0 {
            return;
        }
        self.rows += rows;
        let mut of_blocks: Vec<_> = blocks(inner).zip(&mut self.blocks).collect();
        each(threads, &mut of_blocks, |(columns, sums)| {
            let rows: Vec<&[f32]> = parts.iter().flat_map(|part| part.chunks_exact(inner)).collect();
            let transposed: Vec<f32> = columns.clone().flat_map(|c| rows.iter().map(move |row| row[c])).collect();
            let mut products = vec![0.0; sums.len()];
            PackedRows::pack(&transposed, columns.len(), rows.len()).products(&transposed, &mut products);
            sums.iter_mut().zip(products).for_each(|(sum, product)| *sum += product);
        });
    }

    /// Adds the rows of others.
    pub fn merge(&mut self, other: &Moments) {
        self.rows += other.rows;
        for (sums, other) in self.blocks.iter_mut().zip(&other.blocks) {
            sums.iter_mut().zip(other).for_each(|(sum, other)| *sum += other);
        }
    }

    /// The mean square of each column.
    pub fn squares(&self) -> Vec<f32> {
        let diagonal = |(columns, sums): (Range<usize>, &Vec<f32>)| {
            let diagonal = sums.iter().step_by(columns.len() + 1);
            diagonal.map(|sum| sum / self.rows.max(1) as f32).collect::<Vec<_>>()
        };
        blocks(self.inner).zip(&self.blocks).flat_map(diagonal).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::tests::{assert_close, numbers};

    #[test]
    fn sums_of_products_over_all_parts() {
        for inner in [1, 40, 128, 300, 500, 900] {
            let x = numbers(1, 9 * inner);
            let (first, rest) = x.split_at(2 * inner);
            let (second, third) = rest.split_at(4 * inner);
            for threads in [1, 3] {
                let mut moments = Moments::new(inner);
                moments.add(&[first, &[], second], threads);
                moments.add(&[third], threads);
                assert_eq!(moments.rows, 9);
                let product = |a: usize, b: usize| {
                    x.chunks_exact(inner).map(|row| f64::from(row[a]) * f64::from(row[b])).sum::<f64>()
                };
                for (columns, sums) in blocks(inner).zip(&moments.blocks) {
                    let expected: Vec<f64> = columns
                        .clone()
                        .flat_map(|a| columns.clone().map(move |b| (a, b)))
                        .map(|(a, b)| product(a, b))
                        .collect();
                    assert_close(sums, &expected, 1e-5, &format!("{inner} columns, block {columns:?}"));
                }
                let squares: Vec<f64> = (0..inner).map(|c| product(c, c) / 9.0).collect();
                assert_close(&moments.squares(), &squares, 1e-5, "squares");
            }
        }
    }
}
