//! Pairs of texts that say the same, among many.

use super::best::{Best, Scored};
use super::scan::Scan;
use crate::error::Result;
use crate::matrix::Matrix;
use crate::similarity::SimilarityFunction;
use std::collections::HashSet;

/// Options of [`paraphrase_mining_embeddings`]. The default is the reference's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MiningOptions {
    /// How alike two texts are. It must not depend on their order; none of these does.
    pub function: SimilarityFunction,
    /// For each text, only so many of the others, the most like it, are candidates.
    pub top_k: usize,
    /// The most pairs.
    pub max_pairs: usize,
}

impl Default for MiningOptions {
    fn default() -> MiningOptions {
        MiningOptions { function: SimilarityFunction::Cosine, top_k: 100, max_pairs: 500_000 }
    }
}

/// Two texts that are alike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ParaphrasePair {
    /// The higher the better.
    pub score: f32,
    /// The index of the text that comes first.
    pub first: usize,
    /// The index of the other.
    pub second: usize,
}

/// The pairs of rows that are most alike, best first, each pair once: the reference's `paraphrase_mining_embeddings`. Pairs with
/// equal scores are in the order of their rows.
///
/// # Errors
/// [`Error::InvalidInput`](crate::Error::InvalidInput) if a row holds NaN or infinity.
pub fn paraphrase_mining_embeddings(embeddings: &Matrix, options: &MiningOptions) -> Result<Vec<ParaphrasePair>> {
    let scan = Scan::new(embeddings, embeddings, options.function)?;
    let with_itself = options.top_k.saturating_add(1);
    // Both rows of a pair may propose it.
    let mut known = HashSet::new();
    let mut pairs = Best::new(options.max_pairs);
    for block in scan.blocks() {
        let best = scan.fold(block.clone(), || Best::new(with_itself), Best::offer, Best::merge)?;
        for (row, best) in block.zip(best) {
            let others = best.into_sorted().filter(|other| other.id != row).take(options.top_k);
            for Scored { score, id: other } in others {
                let pair = (row.min(other), row.max(other));
                if pairs.may_take(score)
                    && known.insert(pair)
                    && let Some(out) = pairs.take(Scored { score, id: pair })
                {
                    known.remove(&out);
                }
            }
        }
    }
    let pair = |Scored { score, id: (first, second) }| ParaphrasePair { score, first, second };
    Ok(pairs.into_sorted().map(pair).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::scan::tests::numbers;

    fn mined(embeddings: &Matrix, top_k: usize, max_pairs: usize) -> Vec<(usize, usize)> {
        let options = MiningOptions { top_k, max_pairs, ..MiningOptions::default() };
        let pairs = paraphrase_mining_embeddings(embeddings, &options).unwrap();
        assert!(pairs.is_sorted_by(|a, b| a.score >= b.score), "{pairs:?}");
        pairs.into_iter().map(|pair| (pair.first, pair.second)).collect()
    }

    #[test]
    fn every_pair_once_the_best_first() {
        let embeddings = numbers(3, 300, 8);
        let all = mined(&embeddings, 299, usize::MAX);
        let mut sorted = all.clone();
        sorted.sort();
        assert!(sorted.into_iter().eq((0..300).flat_map(|i| (i + 1..300).map(move |j| (i, j)))));
        assert_eq!(mined(&embeddings, 299, 1000), all[..1000]);
        let some = mined(&embeddings, 1, usize::MAX);
        assert_eq!(some[0], all[0]);
        assert!((150..300).contains(&some.len()), "each row proposes one, some of them the same: {}", some.len());
    }

    #[test]
    fn equal_rows_are_pairs_in_their_order() {
        let embeddings = Matrix::new(4, 2, [1.0, 0.0].repeat(4));
        assert_eq!(mined(&embeddings, 3, 4), [(0, 1), (0, 2), (0, 3), (1, 2)]);
        // A row is not its own paraphrase, even where it is not among its own best.
        assert_eq!(mined(&embeddings, 1, 9), [(0, 1), (0, 2), (0, 3)]);
        assert!(mined(&embeddings, 0, 9).is_empty() && mined(&embeddings, 9, 0).is_empty());
        assert!(mined(&Matrix::zeros(0, 2), 9, 9).is_empty());
    }
}
