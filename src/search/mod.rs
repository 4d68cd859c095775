//! What embeddings are for: the rows of a corpus that are most like a query ([`semantic_search`]), the pairs of texts that say
//! the same ([`paraphrase_mining_embeddings`]), and groups of texts that are close to one of them ([`community_detection`]). The
//! rules and the defaults are those of sentence-transformers (`util/retrieval.py`); where its order among equal scores is
//! unspecified, here the first come first.
//!
//! Everything is exact: every row is compared with every other, on all cores. That suits corpora of up to some million rows.

mod best;
mod communities;
#[cfg(test)]
mod golden;
mod mining;
mod scan;

pub use communities::{CommunityOptions, community_detection};
pub use mining::{MiningOptions, ParaphrasePair, paraphrase_mining_embeddings};

use crate::error::Result;
use crate::matrix::Matrix;
use crate::similarity::SimilarityFunction;
pub(crate) use best::Best;
use scan::Scan;
#[cfg(test)]
pub(crate) use scan::tests::numbers;

/// A row of a corpus that is like a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SearchHit {
    /// Its index in the corpus.
    pub corpus_id: usize,
    /// The higher the better.
    pub score: f32,
}

/// For each row of `queries`, the `top_k` rows of `corpus` that are most like it, best first; all, if there are fewer. Of rows
/// with equal scores, the first.
///
/// ```
/// use lexel::{Matrix, SimilarityFunction, semantic_search};
/// # fn main() -> lexel::Result<()> {
/// let corpus = Matrix::new(3, 2, vec![1.0, 0.0, 0.0, 1.0, 0.7, 0.7]);
/// let query = Matrix::new(1, 2, vec![0.1, 1.0]);
/// let hits = semantic_search(&query, &corpus, 2, SimilarityFunction::Cosine)?;
/// assert_eq!(hits[0].iter().map(|hit| hit.corpus_id).collect::<Vec<_>>(), [1, 2]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::InvalidInput`](crate::Error::InvalidInput) if the two differ in their columns, or a row holds NaN or infinity.
pub fn semantic_search(
    queries: &Matrix,
    corpus: &Matrix,
    top_k: usize,
    function: SimilarityFunction,
) -> Result<Vec<Vec<SearchHit>>> {
    let scan = Scan::new(queries, corpus, function)?;
    let mut found = Vec::with_capacity(queries.rows);
    for block in scan.blocks() {
        found.extend(scan.fold(block, || Best::new(top_k), Best::offer, Best::merge)?.into_iter().map(hits));
    }
    Ok(found)
}

/// The best of a query's scores.
pub(crate) fn best_of(scores: impl Iterator<Item = f32>, top_k: usize) -> Vec<SearchHit> {
    let mut best = Best::new(top_k);
    scores.enumerate().for_each(|(row, score)| best.offer(row, score));
    hits(best)
}

pub(crate) fn hits(best: Best<usize>) -> Vec<SearchHit> {
    best.into_sorted().map(|row| SearchHit { corpus_id: row.id, score: row.score }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::scan::tests::numbers;

    #[test]
    fn the_best_rows_are_those_of_the_whole_matrix_of_scores() {
        for (queries, corpus, cols, top_k) in [(1, 1, 1, 1), (3, 700, 37, 10), (300, 90, 16, 200), (2, 1300, 5, 1)] {
            let (queries, corpus) = (numbers(1, queries, cols), numbers(2, corpus, cols));
            for function in SimilarityFunction::ALL {
                let hits = semantic_search(&queries, &corpus, top_k, function).unwrap();
                let scores = function.matrix(&queries, &corpus).unwrap();
                assert_eq!(hits.len(), queries.rows);
                for (query, hits) in hits.iter().enumerate() {
                    let mut expected = scores.row(query).to_vec();
                    expected.sort_by(|a, b| b.total_cmp(a));
                    expected.truncate(top_k);
                    assert_eq!(hits.len(), expected.len(), "{function}");
                    for (hit, expected) in hits.iter().zip(expected) {
                        let own = scores.row(query)[hit.corpus_id];
                        let scale = own.abs().max(1.0);
                        assert!((hit.score - own).abs() < 1e-5 * scale, "{function}: {} and {own}", hit.score);
                        assert!(
                            (hit.score - expected).abs() < 1e-5 * scale,
                            "{function}: {} and {expected}",
                            hit.score
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_first_of_equal_rows_come_first() {
        let corpus = Matrix::new(1200, 2, [1.0, 2.0, 2.0, 4.0, 0.0, 0.0].repeat(400));
        let hits = semantic_search(&corpus, &corpus, 5, SimilarityFunction::Dot).unwrap();
        for (query, hits) in hits.iter().enumerate() {
            let ids: Vec<usize> = hits.iter().map(|hit| hit.corpus_id).collect();
            assert_eq!(ids, if query % 3 == 2 { [0, 1, 2, 3, 4] } else { [1, 4, 7, 10, 13] });
        }
    }

    #[test]
    fn nothing_to_find_and_nothing_to_ask() {
        let (none, some) = (Matrix::zeros(0, 3), Matrix::zeros(2, 3));
        let search = |queries, corpus, top_k| semantic_search(queries, corpus, top_k, SimilarityFunction::Cosine);
        assert!(search(&none, &some, 3).unwrap().is_empty());
        assert_eq!(search(&some, &none, 3).unwrap(), [vec![], vec![]]);
        assert_eq!(search(&some, &some, 0).unwrap(), [vec![], vec![]]);
        assert_eq!(search(&some, &some, usize::MAX).unwrap()[1].len(), 2);
        let flat = Matrix::zeros(2, 0);
        assert_eq!(search(&flat, &flat, 1).unwrap()[1], [SearchHit { corpus_id: 0, score: 0.0 }]);
    }
}
