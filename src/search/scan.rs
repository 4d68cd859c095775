//! Every query against every row of a corpus, on all cores, without the matrix of all scores: blocks of both, each score handed
//! on while it is in the cache.

use crate::cpu::PackedRows;
use crate::error::Result;
use crate::finite::{Odd, check_finite, is_finite};
use crate::matrix::Matrix;
use crate::similarity::{SimilarityFunction, same_columns};
use rayon::prelude::*;
use std::ops::Range;

/// Queries of a block: enough work for each row of the corpus that memory brings.
const QUERIES: usize = 256;

/// Rows of a corpus that a core takes at a time, at most, and about how many numbers these have: they come from memory once, are
/// looked at, and are still in the second cache when they are multiplied. Their scores for a block of queries are half a megabyte.
const ROWS: usize = 512;
const NUMBERS: usize = 1 << 16;

/// Queries, a corpus, and what is known of their rows.
pub(super) struct Scan<'a> {
    function: SimilarityFunction,
    queries: &'a Matrix,
    corpus: &'a Matrix,
    query_norms: Vec<f32>,
}

/// What a core needs for the rows that it has.
#[derive(Default)]
struct Scratch {
    norms: Vec<f32>,
    /// `[rows, queries]`
    scores: Vec<f32>,
}

impl<'a> Scan<'a> {
    /// # Errors
    /// [`Error::InvalidInput`](crate::Error::InvalidInput) if the two differ in their columns, or a query is not finite.
    pub fn new(queries: &'a Matrix, corpus: &'a Matrix, function: SimilarityFunction) -> Result<Scan<'a>> {
        same_columns(queries.cols, corpus.cols)?;
        check_finite("queries", queries.rows, |row| queries.row(row))?;
        Ok(Scan { function, queries, corpus, query_norms: function.norms(queries) })
    }

    /// The queries, some at a time.
    pub fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let rows = self.queries.rows;
        (0..rows).step_by(QUERIES).map(move |first| first..rows.min(first + QUERIES))
    }

    /// One `T` for each query of a block: `take` gets the index and the score of each row of the corpus, in no particular order.
    /// What the cores have of a query, `merge` makes one of.
    ///
    /// # Errors
    /// [`Error::InvalidInput`](crate::Error::InvalidInput) if a row of the corpus is not finite.
    pub fn fold<T: Send>(
        &self,
        block: Range<usize>,
        new: impl Fn() -> T + Sync,
        take: impl Fn(&mut T, usize, f32) + Sync,
        merge: impl Fn(T, T) -> T + Sync,
    ) -> Result<Vec<T>> {
        let queries = self.pack(block);
        let count = queries.block.len();
        let empty = || std::iter::repeat_with(&new).take(count).collect::<Vec<T>>();
        let most = (NUMBERS / self.corpus.cols.max(1)).clamp(16, ROWS);
        let odd = Odd::default();
        let chunks = (0..self.corpus.rows.div_ceil(most)).into_par_iter();
        let folded = chunks.fold(
            || (empty(), Scratch::default()),
            |(mut of_queries, mut scratch), chunk| {
                let rows = chunk * most..self.corpus.rows.min((chunk + 1) * most);
                rows.clone().filter(|&row| !is_finite(self.corpus.row(row))).for_each(|row| odd.note(row));
                self.score(&queries, rows.clone(), &mut scratch);
                for (row, scores) in rows.zip(scratch.scores.chunks_exact(count)) {
                    for (of_query, &score) in of_queries.iter_mut().zip(scores) {
                        take(of_query, row, score);
                    }
                }
                (of_queries, scratch)
            },
        );
        let both = |a: Vec<T>, b: Vec<T>| a.into_iter().zip(b).map(|(a, b)| merge(a, b)).collect();
        let folded = folded.map(|(of_queries, _)| of_queries).reduce(empty, both);
        odd.refuse("corpus").map(|()| folded)
    }

    fn pack(&self, block: Range<usize>) -> Queries {
        let cols = self.queries.cols;
        let is_product = matches!(self.function, SimilarityFunction::Cosine | SimilarityFunction::Dot) && cols > 0;
        let rows = &self.queries.data[block.start * cols..block.end * cols];
        Queries { packed: is_product.then(|| PackedRows::pack(rows, block.len(), cols)), block }
    }

    /// The scores of some rows of the corpus for a block of queries.
    fn score(&self, queries: &Queries, rows: Range<usize>, scratch: &mut Scratch) {
        let Scratch { norms: row_norms, scores } = scratch;
        row_norms.clear();
        row_norms.extend(rows.clone().map(|row| self.function.norm(self.corpus.row(row))));
        let norms = &self.query_norms[queries.block.clone()];
        scores.resize(rows.len() * norms.len(), 0.0);
        let Some(packed) = &queries.packed else {
            for ((row, row_norm), scores) in rows.zip(row_norms).zip(scores.chunks_exact_mut(norms.len())) {
                for ((score, query), norm) in scores.iter_mut().zip(queries.block.clone()).zip(norms) {
                    let (a, b) = (self.queries.row(query), self.corpus.row(row));
                    *score = self.function.score(a, b, *norm, *row_norm);
                }
            }
            return;
        };
        let cols = self.corpus.cols;
        packed.products(&self.corpus.data[rows.start * cols..rows.end * cols], scores);
        if self.function == SimilarityFunction::Cosine {
            for (row_norm, scores) in row_norms.iter().zip(scores.chunks_exact_mut(norms.len())) {
                scores.iter_mut().zip(norms).for_each(|(score, norm)| *score = *score / norm / row_norm);
            }
        }
    }
}

/// A block of queries.
struct Queries {
    block: Range<usize>,
    /// For the functions that are products.
    packed: Option<PackedRows>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::search::semantic_search;

    /// Numbers between -1 and 1 that a seed decides, as in tests/golden/make_search.py.
    pub fn numbers(seed: u32, rows: usize, cols: usize) -> Matrix {
        let mut state = seed;
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        Matrix::new(rows, cols, (0..rows * cols).map(next).collect())
    }

    #[test]
    fn each_query_meets_each_row_once() {
        let (queries, corpus) = (numbers(1, 2 * QUERIES + 3, 4), numbers(2, 3 * ROWS + 5, 4));
        let scan = Scan::new(&queries, &corpus, SimilarityFunction::Dot).unwrap();
        let join = |mut a: Vec<usize>, b: Vec<usize>| {
            a.extend(b);
            a
        };
        let mut met = 0;
        for block in scan.blocks() {
            for mut rows in scan.fold(block, Vec::new, |rows: &mut Vec<usize>, row, _| rows.push(row), join).unwrap() {
                rows.sort();
                assert!(rows.into_iter().eq(0..corpus.rows));
                met += 1;
            }
        }
        assert_eq!(met, queries.rows);
    }

    #[test]
    fn rows_that_are_not_finite_and_shapes_that_do_not_fit_are_refused() {
        let (a, mut b) = (numbers(1, 3, 4), numbers(2, 5, 4));
        b.row_mut(3)[1] = f32::NAN;
        let message =
            |a: &Matrix, b: &Matrix| semantic_search(a, b, 1, SimilarityFunction::Cosine).unwrap_err().to_string();
        assert!(message(&a, &b).contains("row 3 of the corpus"), "{}", message(&a, &b));
        assert!(message(&b, &a).contains("row 3 of the queries"));
        assert!(message(&a, &Matrix::zeros(1, 3)).contains("dimensions"));
    }
}
