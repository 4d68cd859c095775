//! What an executor is given: token ids of several sequences, packed one behind the other without padding.

/// A batch of sequences. Sequence `s` is the tokens `starts[s]..starts[s + 1]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// `[tokens]` Token ids.
    pub ids: Vec<u32>,
    /// `[tokens]` Segment ids (token types).
    pub types: Vec<u32>,
    /// `[tokens]` Each token's place in its sequence, from 0.
    pub positions: Vec<u32>,
    /// `[sequences + 1]` Where each sequence begins; the last entry is the number of tokens.
    pub starts: Vec<u32>,
    /// `[sequences]` How many leading tokens pooling leaves out: those of a prompt that the model excludes.
    pub skip: Vec<u32>,
}

impl Batch {
    /// A batch without sequences.
    pub fn new() -> Batch {
        Batch { ids: Vec::new(), types: Vec::new(), positions: Vec::new(), starts: vec![0], skip: Vec::new() }
    }

    /// Appends a sequence. `types` must be as long as `ids`; `skip` leading tokens stay out of pooling.
    pub fn push(&mut self, ids: &[u32], types: &[u32], skip: u32) {
        assert_eq!(ids.len(), types.len());
        self.ids.extend_from_slice(ids);
        self.types.extend_from_slice(types);
        self.positions.extend(0..ids.len() as u32);
        self.starts.push(self.ids.len() as u32);
        self.skip.push(skip);
    }

    /// Tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Sequences.
    pub fn sequences(&self) -> usize {
        self.skip.len()
    }

    /// The tokens of one sequence: a range of `ids`.
    pub fn range(&self, sequence: usize) -> std::ops::Range<usize> {
        self.starts[sequence] as usize..self.starts[sequence + 1] as usize
    }

    /// The two halves of a batch of at least two sequences, cut where their tokens are about equal.
    pub fn halves(&self) -> Option<(Batch, Batch)> {
        if self.sequences() < 2 {
            return None;
        }
        let half = (self.tokens() / 2) as u32;
        let cut = self.starts.partition_point(|&start| start < half).clamp(1, self.sequences() - 1);
        let part = |sequences: std::ops::Range<usize>| {
            let mut batch = Batch::new();
            for s in sequences {
                batch.push(&self.ids[self.range(s)], &self.types[self.range(s)], self.skip[s]);
            }
            batch
        };
        Some((part(0..cut), part(cut..self.sequences())))
    }
}

impl Default for Batch {
    fn default() -> Batch {
        Batch::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_keep_every_sequence_in_order() {
        for lengths in [vec![3, 1], vec![0, 0], vec![100, 1, 1, 1], vec![1, 1, 1, 100], vec![5; 9]] {
            let mut whole = Batch::new();
            for (s, &length) in lengths.iter().enumerate() {
                whole.push(&vec![s as u32; length], &vec![0; length], s as u32);
            }
            let (a, b) = whole.halves().unwrap();
            assert!(a.sequences() > 0 && b.sequences() > 0);
            assert_eq!([a.ids, b.ids].concat(), whole.ids);
            assert_eq!([a.positions, b.positions].concat(), whole.positions);
            assert_eq!([a.skip, b.skip].concat(), whole.skip);
        }
        let mut one = Batch::new();
        one.push(&[1, 2], &[0, 0], 0);
        assert_eq!(one.halves(), None);
    }
}
