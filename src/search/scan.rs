//! Every query against every row of a corpus, on all cores, without the matrix of all scores: blocks of both, each score handed
//! on while it is in the cache.

use crate::cpu::PackedRows;
use crate::error::{Error, Result};
use crate::matrix::Matrix;
use crate::similarity::{SimilarityFunction, same_columns};
use rayon::prelude::*;
use std::ops::Range;

/// Queries of a block: enough work for each row of the corpus that memory brings.
const QUERIES: usize = 256;

/// Rows of a corpus that a core takes at a time. Their scores for a block of queries are half a megabyte.
const ROWS: usize = 512;

/// Queries, a corpus, and what is known of their rows.
pub(super) struct Scan<'a> {
    function: SimilarityFunction,
    queries: &'a Matrix,
    corpus: &'a Matrix,
    query_norms: Vec<f32>,
    corpus_norms: Vec<f32>,
}

impl<'a> Scan<'a> {
    /// # Errors
    /// [`Error::InvalidInput`] if the two differ in their columns, or a row is not finite.
    pub fn new(queries: &'a Matrix, corpus: &'a Matrix, function: SimilarityFunction) -> Result<Scan<'a>> {
        same_columns(queries.cols, corpus.cols)?;
        check_finite("queries", queries.rows, |row| queries.row(row))?;
        check_finite("corpus", corpus.rows, |row| corpus.row(row))?;
        let (query_norms, corpus_norms) = (function.norms(queries), function.norms(corpus));
        Ok(Scan { function, queries, corpus, query_norms, corpus_norms })
    }

    /// The queries, some at a time.
    pub fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let rows = self.queries.rows;
        (0..rows).step_by(QUERIES).map(move |first| first..rows.min(first + QUERIES))
    }

    /// One `T` for each query of a block: `take` gets the index and the score of each row of the corpus, in no particular order.
    /// What the cores have of a query, `merge` makes one of.
    pub fn fold<T: Send>(
        &self,
        block: Range<usize>,
        new: impl Fn() -> T + Sync,
        take: impl Fn(&mut T, usize, f32) + Sync,
        merge: impl Fn(T, T) -> T + Sync,
    ) -> Vec<T> {
        let queries = self.pack(block);
        let count = queries.block.len();
        let empty = || std::iter::repeat_with(&new).take(count).collect::<Vec<T>>();
        let chunks = (0..self.corpus.rows.div_ceil(ROWS)).into_par_iter();
        let folded = chunks.fold(
            || (empty(), vec![0.0; ROWS * count]),
            |(mut of_queries, mut scores), chunk| {
                let rows = chunk * ROWS..self.corpus.rows.min((chunk + 1) * ROWS);
                self.score(&queries, rows.clone(), &mut scores[..rows.len() * count]);
                for (row, scores) in rows.zip(scores.chunks_exact(count)) {
                    for (of_query, &score) in of_queries.iter_mut().zip(scores) {
                        take(of_query, row, score);
                    }
                }
                (of_queries, scores)
            },
        );
        let both = |a: Vec<T>, b: Vec<T>| a.into_iter().zip(b).map(|(a, b)| merge(a, b)).collect();
        folded.map(|(of_queries, _)| of_queries).reduce(empty, both)
    }

    fn pack(&self, block: Range<usize>) -> Queries {
        let cols = self.queries.cols;
        let is_product = matches!(self.function, SimilarityFunction::Cosine | SimilarityFunction::Dot) && cols > 0;
        let rows = &self.queries.data[block.start * cols..block.end * cols];
        Queries { packed: is_product.then(|| PackedRows::pack(rows, block.len(), cols)), block }
    }

    /// The scores of some rows of the corpus for a block of queries: `[rows, queries]`.
    fn score(&self, queries: &Queries, rows: Range<usize>, scores: &mut [f32]) {
        let norms = &self.query_norms[queries.block.clone()];
        let Some(packed) = &queries.packed else {
            for (row, scores) in rows.zip(scores.chunks_exact_mut(norms.len())) {
                for ((score, query), norm) in scores.iter_mut().zip(queries.block.clone()).zip(norms) {
                    let (a, b) = (self.queries.row(query), self.corpus.row(row));
                    *score = self.function.score(a, b, *norm, self.corpus_norms[row]);
                }
            }
            return;
        };
        let cols = self.corpus.cols;
        packed.products(&self.corpus.data[rows.start * cols..rows.end * cols], scores);
        if self.function == SimilarityFunction::Cosine {
            for (row, scores) in rows.zip(scores.chunks_exact_mut(norms.len())) {
                let row_norm = self.corpus_norms[row];
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

/// Refuses rows that hold what is no finite number.
pub(crate) fn check_finite<'a>(name: &str, rows: usize, row: impl Fn(usize) -> &'a [f32] + Sync) -> Result<()> {
    let is_odd = |at: &usize| !row(*at).iter().all(|x| x.is_finite());
    match (0..rows).into_par_iter().with_min_len(1024).find_first(is_odd) {
        Some(row) => Err(Error::InvalidInput(format!(
            "row {row} of the {name} holds NaN or infinity, which is like nothing: leave it out, or encode its text again"
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

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
            for mut rows in scan.fold(block, Vec::new, |rows: &mut Vec<usize>, row, _| rows.push(row), join) {
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
        let message = |a, b| Scan::new(a, b, SimilarityFunction::Cosine).err().unwrap().to_string();
        assert!(message(&a, &b).contains("row 3 of the corpus"), "{}", message(&a, &b));
        assert!(message(&b, &a).contains("row 3 of the queries"));
        assert!(message(&a, &Matrix::zeros(1, 3)).contains("dimensions"));
    }
}
