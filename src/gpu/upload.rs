//! A batch as the shaders see it: `shaders/common/batch.wgsl`.

use crate::batch::Batch;

/// What launches are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub tokens: u32,
    pub sequences: u32,
    pub query_tiles: u32,
    /// Tokens of the longest sequence.
    pub longest: u32,
}

/// What the buffers of `@group(0)` hold.
#[derive(Debug, PartialEq)]
pub(super) struct BatchData {
    pub sizes: Sizes,
    /// `[tokens]` id, position, type, sequence
    pub tokens: Vec<[u32; 4]>,
    /// `[sequences]` first token, token behind the last, leading tokens that pooling leaves out, 0
    pub sequences: Vec<[u32; 4]>,
    /// `[query_tiles]` first query, queries, first token of the sequence, token behind the last that attention looks at
    pub query_tiles: Vec<[u32; 4]>,
}

impl BatchData {
    /// Tiles of at most `queries(longest)` queries, those of the longest sequence first: they take longest, and what starts
    /// last should end soon.
    pub fn new(batch: &Batch, queries: impl Fn(u32) -> u32) -> BatchData {
        let (starts, sequences) = (&batch.starts, batch.sequences());
        let mut tokens = Vec::with_capacity(batch.tokens());
        for s in 0..sequences {
            tokens.extend(batch.range(s).map(|t| [batch.ids[t], batch.positions[t], batch.types[t], s as u32]));
        }
        let mut by_length: Vec<usize> = (0..sequences).collect();
        by_length.sort_by_key(|&s| std::cmp::Reverse(batch.range(s).len()));
        let longest = by_length.first().map_or(0, |&s| batch.range(s).len()) as u32;
        let query_tile = queries(longest);
        let mut query_tiles = Vec::new();
        for s in by_length {
            let (start, end) = (starts[s], starts[s + 1]);
            let firsts = (start..end).step_by(query_tile as usize);
            let seen = end - batch.unseen[s];
            query_tiles.extend(firsts.map(|first| [first, query_tile.min(end - first), start, seen]));
        }
        BatchData {
            sizes: Sizes {
                tokens: batch.tokens() as u32,
                sequences: sequences as u32,
                query_tiles: query_tiles.len() as u32,
                longest,
            },
            tokens,
            sequences: (0..sequences).map(|s| [starts[s], starts[s + 1], batch.skip[s], 0]).collect(),
            query_tiles,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_every_query_once_and_the_longest_sequence_comes_first() {
        let mut batch = Batch::new();
        for length in [3, 0, 9, 4] {
            batch.push(&vec![7; length], &vec![0; length], 1);
        }
        let data = BatchData::new(&batch, |longest| if longest > 8 { 4 } else { 16 });
        assert_eq!(data.sizes, Sizes { tokens: 16, sequences: 4, query_tiles: 5, longest: 9 });
        assert_eq!(data.query_tiles, [[3, 4, 3, 12], [7, 4, 3, 12], [11, 1, 3, 12], [12, 4, 12, 16], [0, 3, 0, 3]]);
        assert_eq!(data.sequences[2], [3, 12, 1, 0]);
        assert_eq!(data.tokens[4], [7, 1, 0, 2]);
    }
}
