//! How alike embeddings are: the four functions of sentence-transformers, over all pairs or row by row.

use crate::error::{Error, Result};
use crate::matrix::Matrix;
use rayon::prelude::*;
use std::fmt;
use std::str::FromStr;

/// A similarity of two vectors: larger is more alike. Names as in sentence-transformers' `similarity_fn_name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SimilarityFunction {
    /// The dot product of the normalised vectors; 0 where one of them is zero.
    #[default]
    Cosine,
    /// The dot product.
    Dot,
    /// Minus the Euclidean distance.
    Euclidean,
    /// Minus the Manhattan distance.
    Manhattan,
}

impl SimilarityFunction {
    /// All functions.
    pub const ALL: [SimilarityFunction; 4] = [
        SimilarityFunction::Cosine,
        SimilarityFunction::Dot,
        SimilarityFunction::Euclidean,
        SimilarityFunction::Manhattan,
    ];

    /// The name in configuration files.
    pub fn name(self) -> &'static str {
        match self {
            SimilarityFunction::Cosine => "cosine",
            SimilarityFunction::Dot => "dot",
            SimilarityFunction::Euclidean => "euclidean",
            SimilarityFunction::Manhattan => "manhattan",
        }
    }

    /// Every row of `a` against every row of `b`: `[a.rows, b.rows]`.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] if the two differ in their columns.
    pub fn matrix(self, a: &Matrix, b: &Matrix) -> Result<Matrix> {
        same_columns(a.cols, b.cols)?;
        let mut scores = Matrix::zeros(a.rows, b.rows);
        if a.rows == 0 || b.rows == 0 {
            return Ok(scores);
        }
        let (a_norms, b_norms) = (self.norms(a), self.norms(b));
        scores.data.par_chunks_mut(b.rows).enumerate().for_each(|(i, row)| {
            for (j, score) in row.iter_mut().enumerate() {
                *score = self.score(a.row(i), b.row(j), a_norms[i], b_norms[j]);
            }
        });
        Ok(scores)
    }

    /// Row `i` of `a` against row `i` of `b`: one score a row.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] if the two differ in their shape.
    pub fn pairwise(self, a: &Matrix, b: &Matrix) -> Result<Vec<f32>> {
        same_columns(a.cols, b.cols)?;
        same_rows(a.rows, b.rows)?;
        let (a_norms, b_norms) = (self.norms(a), self.norms(b));
        Ok((0..a.rows).map(|i| self.score(a.row(i), b.row(i), a_norms[i], b_norms[i])).collect())
    }

    /// What each row is divided by. Normalising both sides first is what the reference does; dividing after the product
    /// rounds once less.
    pub(crate) fn norms(self, m: &Matrix) -> Vec<f32> {
        match self {
            SimilarityFunction::Cosine => {
                (0..m.rows).into_par_iter().with_min_len(1024).map(|row| self.norm(m.row(row))).collect()
            }
            _ => vec![1.0; m.rows],
        }
    }

    /// That of one row.
    pub(crate) fn norm(self, row: &[f32]) -> f32 {
        match self {
            SimilarityFunction::Cosine => dot(row, row).sqrt().max(1e-12),
            _ => 1.0,
        }
    }

    /// One score, from two rows and their [norms](Self::norms).
    pub(crate) fn score(self, a: &[f32], b: &[f32], a_norm: f32, b_norm: f32) -> f32 {
        match self {
            SimilarityFunction::Cosine => dot(a, b) / a_norm / b_norm,
            SimilarityFunction::Dot => dot(a, b),
            SimilarityFunction::Euclidean => -sum(a, b, |x, y| (x - y) * (x - y)).sqrt(),
            SimilarityFunction::Manhattan => -sum(a, b, |x, y| (x - y).abs()),
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum(a, b, |x, y| x * y)
}

/// Sums `f` over two rows in 16 lanes: lets the compiler vectorise, and rounds less than one running sum.
fn sum(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let (a_lanes, b_lanes) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest: f32 = a_lanes.remainder().iter().zip(b_lanes.remainder()).map(|(x, y)| f(*x, *y)).sum();
    let mut lanes = [0f32; 16];
    for (x, y) in a_lanes.zip(b_lanes) {
        for lane in 0..16 {
            lanes[lane] += f(x[lane], y[lane]);
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// Refuses embeddings that cannot be compared.
pub(crate) fn same_columns(a: usize, b: usize) -> Result<()> {
    if a == b {
        return Ok(());
    }
    Err(Error::InvalidInput(format!(
        "embeddings of {a} and of {b} dimensions cannot be compared: encode both with the same model and truncate_dim"
    )))
}

/// Refuses embeddings that cannot be compared row by row.
pub(crate) fn same_rows(a: usize, b: usize) -> Result<()> {
    if a == b {
        return Ok(());
    }
    Err(Error::InvalidInput(format!("pairwise similarity needs as many rows on both sides: {a} and {b}")))
}

impl fmt::Display for SimilarityFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SimilarityFunction {
    type Err = Error;

    fn from_str(name: &str) -> Result<SimilarityFunction> {
        Self::ALL.into_iter().find(|function| function.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|function| function.name()).collect();
            Error::InvalidInput(format!("unknown similarity function '{name}'; known: {}", names.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_functions_on_numbers_done_by_hand() {
        let a = Matrix::new(2, 2, vec![3.0, 4.0, 0.0, 0.0]);
        let b = Matrix::new(1, 2, vec![4.0, 3.0]);
        let scores = |function: SimilarityFunction| function.matrix(&a, &b).unwrap().data;
        let cosines = scores(SimilarityFunction::Cosine);
        assert!((cosines[0] - 0.96).abs() < 1e-7 && cosines[1] == 0.0, "{cosines:?}");
        assert_eq!(scores(SimilarityFunction::Dot), [24.0, 0.0]);
        assert_eq!(scores(SimilarityFunction::Euclidean), [-(2f32.sqrt()), -5.0]);
        assert_eq!(scores(SimilarityFunction::Manhattan), [-2.0, -7.0]);
    }

    #[test]
    fn pairwise_is_the_diagonal() {
        let m = |seed: usize| Matrix::new(5, 37, (0..185).map(|i| ((i * seed) % 23) as f32 - 11.0).collect());
        let (a, b) = (m(7), m(13));
        for function in SimilarityFunction::ALL {
            let (all, pairs) = (function.matrix(&a, &b).unwrap(), function.pairwise(&a, &b).unwrap());
            assert_eq!(pairs, (0..5).map(|i| all.row(i)[i]).collect::<Vec<_>>());
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let (a, b) = (Matrix::zeros(2, 3), Matrix::zeros(2, 4));
        let message = SimilarityFunction::Dot.matrix(&a, &b).unwrap_err().to_string();
        assert!(message.contains('3') && message.contains('4'), "{message}");
        assert!(SimilarityFunction::Dot.pairwise(&a, &Matrix::zeros(3, 3)).is_err());
        assert_eq!(SimilarityFunction::Dot.matrix(&a, &Matrix::zeros(0, 3)).unwrap().shape(), [2, 0]);
    }
}
