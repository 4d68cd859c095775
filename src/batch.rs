//! What an executor is given: token ids of several sequences, packed one behind the other without padding.

/// A batch of sequences. Sequence `s` is the tokens `starts[s]..starts[s + 1]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// `[tokens]` Token ids.
    pub ids: Vec<u32>,
    /// `[tokens]` Segment ids (token types).
    pub types: Vec<u32>,
    /// `[tokens]` Each token's place in its sequence, from 0; [`Batch::NO_POSITION`] for one that takes none.
    pub positions: Vec<u32>,
    /// `[sequences + 1]` Where each sequence begins; the last entry is the number of tokens.
    pub starts: Vec<u32>,
    /// `[sequences]` How many leading tokens pooling leaves out: those of a prompt that the model excludes.
    pub skip: Vec<u32>,
    /// `[sequences]` How many trailing tokens attention does not look at: they see the sequence's others, and nobody sees them.
    /// ColBERT expands its queries by such tokens.
    pub unseen: Vec<u32>,
    /// Tokens of this id take no position: see [`Program::padding`](crate::program::Program::padding).
    pub padding: Option<u32>,
}

impl Batch {
    /// One before the first position: with an offset, the row before it (additions wrap around).
    pub const NO_POSITION: u32 = u32::MAX;

    /// A batch without sequences, whose tokens all take a position.
    pub fn new() -> Batch {
        Batch::with_padding(None)
    }

    /// A batch without sequences, in which tokens of the id `padding` take no position.
    pub fn with_padding(padding: Option<u32>) -> Batch {
        let (ids, types, positions, skip, unseen) = Default::default();
        Batch { ids, types, positions, starts: vec![0], skip, unseen, padding }
    }

    /// Appends a sequence. `types` must be as long as `ids`; `skip` leading tokens stay out of pooling.
    pub fn push(&mut self, ids: &[u32], types: &[u32], skip: u32) {
        self.push_expanded(ids, types, skip, 0);
    }

    /// The same, with `unseen` trailing tokens that attention does not look at.
    pub fn push_expanded(&mut self, ids: &[u32], types: &[u32], skip: u32, unseen: u32) {
        assert_eq!(ids.len(), types.len());
        assert!(unseen as usize <= ids.len());
        self.ids.extend_from_slice(ids);
        self.types.extend_from_slice(types);
        let mut next = 0..;
        let position = |&id: &u32| if Some(id) == self.padding { None } else { next.next() };
        self.positions.extend(ids.iter().map(position).map(|position| position.unwrap_or(Batch::NO_POSITION)));
        self.starts.push(self.ids.len() as u32);
        self.skip.push(skip);
        self.unseen.push(unseen);
    }

    /// Appends a sequence of another batch.
    pub fn push_from(&mut self, other: &Batch, sequence: usize) {
        let range = other.range(sequence);
        let (ids, types) = (&other.ids[range.clone()], &other.types[range]);
        self.push_expanded(ids, types, other.skip[sequence], other.unseen[sequence]);
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

    /// Those of them that attention looks at.
    pub fn seen(&self, sequence: usize) -> std::ops::Range<usize> {
        let all = self.range(sequence);
        all.start..all.end - self.unseen[sequence] as usize
    }

    /// The two halves of a batch of at least two sequences, cut where their tokens are about equal.
    pub fn halves(&self) -> Option<(Batch, Batch)> {
        if self.sequences() < 2 {
            return None;
        }
        let half = (self.tokens() / 2) as u32;
        let cut = self.starts.partition_point(|&start| start < half).clamp(1, self.sequences() - 1);
        let part = |sequences: std::ops::Range<usize>| {
            let mut batch = Batch::with_padding(self.padding);
            sequences.for_each(|s| batch.push_from(self, s));
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
    fn padding_in_a_text_takes_no_position() {
        let mut batch = Batch::with_padding(Some(1));
        batch.push(&[0, 7, 1, 8], &[0; 4], 0);
        batch.push(&[1, 9], &[0; 2], 0);
        assert_eq!(batch.positions, [0, 1, Batch::NO_POSITION, 2, Batch::NO_POSITION, 0]);
        let (a, b) = batch.halves().unwrap();
        assert_eq!([a.positions, b.positions].concat(), batch.positions);
    }

    #[test]
    fn halves_keep_every_sequence_in_order() {
        for lengths in [vec![3, 1], vec![0, 0], vec![100, 1, 1, 1], vec![1, 1, 1, 100], vec![5; 9]] {
            let mut whole = Batch::new();
            for (s, &length) in lengths.iter().enumerate() {
                let unseen = usize::min(length, s) as u32;
                whole.push_expanded(&vec![s as u32; length], &vec![0; length], s as u32, unseen);
            }
            let (a, b) = whole.halves().unwrap();
            assert!(a.sequences() > 0 && b.sequences() > 0);
            assert_eq!([a.ids, b.ids].concat(), whole.ids);
            assert_eq!([a.positions, b.positions].concat(), whole.positions);
            assert_eq!([a.skip, b.skip].concat(), whole.skip);
            assert_eq!([a.unseen, b.unseen].concat(), whole.unseen);
        }
        let mut one = Batch::new();
        one.push(&[1, 2], &[0, 0], 0);
        assert_eq!(one.halves(), None);
    }
}
