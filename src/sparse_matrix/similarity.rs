//! How alike sparse embeddings are. One side's row is spread out, and the other's numbers are looked up there: zeros are never
//! looked at. Sums are in f64.

use super::SparseMatrix;
use crate::error::Result;
use crate::finite::check_finite;
use crate::matrix::Matrix;
use crate::search::{SearchHit, best_of};
use crate::similarity::{SimilarityFunction, same_columns, same_rows};
use rayon::prelude::*;

impl SimilarityFunction {
    /// Every row of `a` against every row of `b`: `[a.rows, b.rows]`, as [`matrix`](Self::matrix).
    ///
    /// # Errors
    /// [`Error::InvalidInput`](crate::Error::InvalidInput) if the two differ in their columns.
    pub fn sparse_matrix(self, a: &SparseMatrix, b: &SparseMatrix) -> Result<Matrix> {
        same_columns(a.cols, b.cols)?;
        let mut scores = Matrix::zeros(a.rows(), b.rows());
        let b_norms = norms(b);
        scores.data.par_chunks_mut(b.rows().max(1)).enumerate().for_each_init(
            || vec![0.0; a.cols],
            |spread, (i, scores)| {
                let row = Spread::new(spread, a.row(i));
                for (j, score) in scores.iter_mut().enumerate() {
                    *score = row.score(self, b.row(j), b_norms[j]);
                }
            },
        );
        Ok(scores)
    }

    /// Row `i` of `a` against row `i` of `b`: one score a row, as [`pairwise`](Self::pairwise).
    ///
    /// # Errors
    /// [`Error::InvalidInput`](crate::Error::InvalidInput) if the two differ in their shape.
    pub fn sparse_pairwise(self, a: &SparseMatrix, b: &SparseMatrix) -> Result<Vec<f32>> {
        same_columns(a.cols, b.cols)?;
        same_rows(a.rows(), b.rows())?;
        let (mut spread, b_norms) = (vec![0.0; a.cols], norms(b));
        let score = |i| Spread::new(&mut spread, a.row(i)).score(self, b.row(i), b_norms[i]);
        Ok((0..a.rows()).map(score).collect())
    }

    /// For each row of `queries`, the `top_k` rows of `corpus` that are most like it, best first, as
    /// [`semantic_search`](crate::semantic_search).
    ///
    /// # Errors
    /// [`Error::InvalidInput`](crate::Error::InvalidInput) if the two differ in their columns, or a number is NaN or infinity.
    pub fn sparse_search(
        self,
        queries: &SparseMatrix,
        corpus: &SparseMatrix,
        top_k: usize,
    ) -> Result<Vec<Vec<SearchHit>>> {
        same_columns(queries.cols, corpus.cols)?;
        check_finite("queries", queries.rows(), |row| queries.row(row).1)?;
        check_finite("corpus", corpus.rows(), |row| corpus.row(row).1)?;
        let norms = norms(corpus);
        let search = |spread: &mut Vec<f32>, query| {
            let query = Spread::new(spread, queries.row(query));
            let scores = (0..corpus.rows()).map(|row| query.score(self, corpus.row(row), norms[row]));
            best_of(scores, top_k)
        };
        Ok((0..queries.rows()).into_par_iter().map_init(|| vec![0.0; queries.cols], search).collect())
    }
}

/// A row with its zeros, as long as it is compared.
struct Spread<'a> {
    values: &'a mut [f32],
    indices: &'a [u32],
    /// Of its numbers: the sum of their squares, and of their absolute values.
    squares: f64,
    absolutes: f64,
}

impl<'a> Spread<'a> {
    /// In memory that is all zeros, and will be again.
    fn new(values: &'a mut [f32], (indices, row): (&'a [u32], &[f32])) -> Spread<'a> {
        indices.iter().zip(row).for_each(|(&i, &value)| values[i as usize] = value);
        let sum = |f: fn(f64) -> f64| row.iter().map(|&x| f(x.into())).sum();
        Spread { values, indices, squares: sum(|x| x * x), absolutes: sum(f64::abs) }
    }

    /// Against a row with this norm.
    fn score(&self, function: SimilarityFunction, (indices, values): (&[u32], &[f32]), norm: f64) -> f32 {
        let sum = |f: fn(f64, f64) -> f64| -> f64 {
            indices.iter().zip(values).map(|(&i, &y)| f(self.values[i as usize].into(), y.into())).sum()
        };
        // What is not in the other row is counted, and taken back where it is.
        let score = match function {
            SimilarityFunction::Dot => sum(|x, y| x * y),
            SimilarityFunction::Cosine => sum(|x, y| x * y) / self.squares.sqrt().max(1e-12) / norm,
            SimilarityFunction::Euclidean => {
                let square = self.squares + sum(|x, y| (x - y) * (x - y) - x * x);
                // Not `max`, which would make 0 of what is no number.
                -(if square < 0.0 { 0.0 } else { square }).sqrt()
            }
            SimilarityFunction::Manhattan => -(self.absolutes + sum(|x, y| (x - y).abs() - x.abs())),
        };
        score as f32
    }
}

impl Drop for Spread<'_> {
    fn drop(&mut self) {
        self.indices.iter().for_each(|&i| self.values[i as usize] = 0.0);
    }
}

/// The L2 norm of each row, floored at 1e-12 as in the reference.
fn norms(matrix: &SparseMatrix) -> Vec<f64> {
    let norm = |(_, values): (&[u32], &[f32])| {
        values.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt().max(1e-12)
    };
    matrix.iter().map(norm).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every third number or so is not zero.
    fn numbers(seed: usize, rows: usize) -> SparseMatrix {
        let number = |i: usize| match (i * seed) % 7 {
            0..3 => 0.0,
            n => n as f32 - 4.5,
        };
        SparseMatrix::from_dense(&Matrix::new(rows, 37, (0..37 * rows).map(number).collect()))
    }

    #[test]
    fn scores_are_those_of_the_dense_rows() {
        let (a, mut b) = (numbers(3, 6), numbers(5, 5));
        b.push_row(&[], &[]);
        for function in SimilarityFunction::ALL {
            let expected = function.matrix(&a.to_dense(), &b.to_dense()).unwrap();
            let (found, pairs) = (function.sparse_matrix(&a, &b).unwrap(), function.sparse_pairwise(&a, &b).unwrap());
            for (i, (found, expected)) in found.iter().zip(expected.iter()).enumerate() {
                assert_eq!(pairs[i], found[i]);
                for (found, expected) in found.iter().zip(expected) {
                    assert!(
                        (found - expected).abs() < 1e-5 * expected.abs().max(1.0),
                        "{function}: {found}, {expected}"
                    );
                }
            }
            let hits = function.sparse_search(&a, &b, 3).unwrap();
            let dense = crate::semantic_search(&a.to_dense(), &b.to_dense(), 3, function).unwrap();
            let ids = |hits: &[Vec<SearchHit>]| -> Vec<Vec<usize>> {
                hits.iter().map(|hits| hits.iter().map(|hit| hit.corpus_id).collect()).collect()
            };
            assert_eq!(ids(&hits), ids(&dense), "{function}");
        }
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let (a, other) = (numbers(3, 2), SparseMatrix::new(36));
        let message = SimilarityFunction::Dot.sparse_matrix(&a, &other).unwrap_err().to_string();
        assert!(message.contains("37") && message.contains("36"), "{message}");
        assert!(SimilarityFunction::Dot.sparse_pairwise(&a, &numbers(3, 3)).is_err());
        let mut bad = SparseMatrix::new(37);
        bad.push_row(&[4], &[f32::NAN]);
        let message = SimilarityFunction::Dot.sparse_search(&a, &bad, 1).unwrap_err().to_string();
        assert!(message.contains("row 0 of the corpus holds NaN"), "{message}");
        for function in SimilarityFunction::ALL {
            assert!(function.sparse_matrix(&a, &bad).unwrap().data.iter().all(|score| score.is_nan()), "{function}");
        }
        assert_eq!(SimilarityFunction::Dot.sparse_matrix(&a, &SparseMatrix::new(37)).unwrap().shape(), [2, 0]);
    }
}
