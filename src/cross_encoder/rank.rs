//! `rank`: documents by how well they answer a query.

use super::{CrossEncoder, RankOptions};
use crate::error::{Error, Result};

/// A document in the order of its score.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// Its index among the documents of the call.
    pub corpus_id: usize,
    /// The higher the better.
    pub score: f32,
    /// Its text, if the call asked for texts.
    pub text: Option<String>,
}

impl CrossEncoder {
    /// The documents by their score for the query, best first. Equal scores keep the documents' order.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for a model of several labels; as [`predict_with`](Self::predict_with).
    pub fn rank<S: AsRef<str> + Sync>(&self, query: &str, documents: &[S]) -> Result<Vec<Hit>> {
        self.rank_with(query, documents, &RankOptions::default())
    }

    /// [`rank`](Self::rank) with options.
    ///
    /// # Errors
    /// As [`rank`](Self::rank).
    pub fn rank_with<S>(&self, query: &str, documents: &[S], options: &RankOptions) -> Result<Vec<Hit>>
    where
        S: AsRef<str> + Sync,
    {
        let labels = self.labels();
        if labels.len() != 1 {
            return Err(Error::InvalidInput(format!(
                "ranking needs a model of one label; this one has {}: {}. predict gives a score for each",
                labels.len(),
                labels.join(", ")
            )));
        }
        let pairs: Vec<(&str, &str)> = documents.iter().map(|document| (query, document.as_ref())).collect();
        // Executors refuse logits that are not finite, but an activation may still make a NaN of one.
        let scores = self.predict_with(&pairs, &options.predict)?.data;
        if let Some(corpus_id) = scores.iter().position(|score| score.is_nan()) {
            return Err(Error::InvalidInput(format!(
                "the score of document {corpus_id} is not a number: the activation is not defined for its logit"
            )));
        }
        let text = |corpus_id: usize| options.return_documents.then(|| documents[corpus_id].as_ref().to_string());
        Ok(order(&scores, options.top_k)
            .into_iter()
            .map(|corpus_id| Hit { corpus_id, score: scores[corpus_id], text: text(corpus_id) })
            .collect())
    }
}

/// The indices of the `top_k` highest scores, highest first, equal ones in their order.
fn order(scores: &[f32], top_k: Option<usize>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    // Not `total_cmp`, for which -0 is below 0. No score is NaN.
    order.sort_by(|&a, &b| scores[b].partial_cmp(&scores[a]).unwrap_or(std::cmp::Ordering::Equal));
    order.truncate(top_k.unwrap_or(usize::MAX));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_keep_the_order_of_the_documents() {
        let scores = [0.5, 0.0, 2.0, -0.0, 0.5, f32::INFINITY];
        assert_eq!(order(&scores, None), [5, 2, 0, 4, 1, 3]);
        assert_eq!(order(&scores, Some(3)), [5, 2, 0]);
        assert_eq!(order(&scores, Some(99)).len(), 6);
        assert!(order(&[], Some(1)).is_empty() && order(&scores, Some(0)).is_empty());
    }
}
