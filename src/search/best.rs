//! The best of many scores.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Something with a score. The greater is the better: of equal scores, what comes first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scored<T> {
    pub score: f32,
    pub id: T,
}

impl<T: Ord> Eq for Scored<T> {}

impl<T: Ord> Ord for Scored<T> {
    fn cmp(&self, other: &Scored<T>) -> Ordering {
        // No score is NaN; not `total_cmp`, for which -0 is below 0.
        let by_score = self.score.partial_cmp(&other.score).unwrap_or(Ordering::Equal);
        by_score.then_with(|| other.id.cmp(&self.id))
    }
}

impl<T: Ord> PartialOrd for Scored<T> {
    fn partial_cmp(&self, other: &Scored<T>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The best, so many at most.
#[derive(Debug, Clone)]
pub(crate) struct Best<T> {
    most: usize,
    /// The worst of them on top.
    heap: BinaryHeap<Reverse<Scored<T>>>,
    /// The score that another needs at least.
    least: f32,
}

impl<T: Ord + Copy> Best<T> {
    /// None yet, `most` at most.
    pub fn new(most: usize) -> Best<T> {
        Best { most, heap: BinaryHeap::new(), least: if most == 0 { f32::INFINITY } else { f32::NEG_INFINITY } }
    }

    /// Whether a score may be among the best.
    #[inline]
    pub fn may_take(&self, score: f32) -> bool {
        score >= self.least
    }

    /// Takes one in that is among the best.
    #[inline]
    pub fn offer(&mut self, id: T, score: f32) {
        if self.may_take(score) {
            self.take(Scored { score, id });
        }
    }

    /// Takes one in that is among the best. Gives back which is out for it: another, or itself.
    pub fn take(&mut self, scored: Scored<T>) -> Option<T> {
        if self.heap.len() < self.most {
            self.heap.push(Reverse(scored));
            if self.heap.len() == self.most {
                self.set_least();
            }
            return None;
        }
        let out = match self.heap.peek_mut() {
            Some(mut worst) if scored > worst.0 => std::mem::replace(&mut *worst, Reverse(scored)).0.id,
            _ => return Some(scored.id),
        };
        self.set_least();
        Some(out)
    }

    fn set_least(&mut self) {
        self.least = self.heap.peek().map_or(self.least, |worst| worst.0.score);
    }

    /// The best of both.
    pub fn merge(mut self, other: Best<T>) -> Best<T> {
        for Reverse(scored) in other.heap {
            self.take(scored);
        }
        self
    }

    /// Them, the best first.
    pub fn into_sorted(self) -> impl Iterator<Item = Scored<T>> {
        self.heap.into_sorted_vec().into_iter().map(|Reverse(scored)| scored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_is_told() {
        let mut best = Best::new(2);
        let mut take = |id, score| best.take(Scored { score, id });
        assert_eq!(
            [take(3, 1.0), take(1, 1.0), take(2, 1.0), take(5, 0.5), take(9, 2.0)],
            [None, None, Some(3), Some(5), Some(2)]
        );
        assert!(!best.may_take(0.9) && best.may_take(1.0));
        assert_eq!(best.into_sorted().map(|scored| scored.id).collect::<Vec<_>>(), [9, 1]);
        assert_eq!(Best::new(0).take(Scored { score: f32::INFINITY, id: 4 }), Some(4));
    }

    #[test]
    fn zeros_of_either_sign_are_equal() {
        let mut best = Best::new(3);
        for (id, score) in [(0, -0.0), (1, 0.0), (2, -0.0), (3, 0.0)] {
            best.offer(id, score);
        }
        assert_eq!(best.into_sorted().map(|scored| scored.id).collect::<Vec<_>>(), [0, 1, 2]);
    }
}
