//! Attention: what it reads, which keys a query sees, and what its scores depend on besides q and k.

use super::{Value, WeightId};

/// `softmax(scale * q k^T + bias) v` for each sequence and head (Vaswani et al. 2017): `[tokens, heads * head_dim]`. A token
/// sees tokens of its own sequence only: all of them, unless `window` and `causal` say otherwise, or the batch, that some are not
/// looked at. A token that sees none gets 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Attention {
    /// `[tokens, (heads + 2 * kv_heads) * head_dim]`: the columns are all of q, then all of k, then all of v, each head by
    /// head.
    pub qkv: Value,
    /// Heads of q.
    pub heads: usize,
    /// Heads of k and of v, each for `heads / kv_heads` heads of q that follow each other (Ainslie et al. 2023).
    pub kv_heads: usize,
    /// Columns of one head.
    pub head_dim: usize,
    /// Multiplied into the scores before the bias.
    pub scale: f32,
    /// Then, scores are at most so large, `softcap * tanh(score / softcap)` (Gemma 2). Positive.
    pub softcap: Option<f32>,
    /// A query sees keys at most so many tokens away.
    pub window: Option<usize>,
    /// A query sees no key behind it.
    pub causal: bool,
    /// Added to the scores.
    pub bias: Option<PositionBias>,
}

/// What a head adds to the score of a query and a key by their distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PositionBias {
    /// `-slope * |query - key|` (Press et al. 2022, in both directions); see [`alibi_slope`].
    Alibi,
    /// `table[head, furthest + key - query]`, the distance clamped to `-furthest..=furthest`: T5's relative positions (Raffel et
    /// al. 2020), whose buckets a [`Bucketed`](super::Bucketed) table resolves.
    Relative {
        /// `[heads, 2 * furthest + 1]`
        table: WeightId,
    },
    /// `scale * (q . key_table[row] + k . query_table[row])` with the head's columns of the row of their distance: DeBERTa's
    /// disentangled attention (He et al. 2021); see [`Distances`].
    Disentangled {
        /// `[2 * rows, heads * head_dim]`: the table that q meets, then the one that k meets.
        table: WeightId,
        /// Which row a distance has.
        distances: Distances,
    },
}

/// The rows of distances in the tables of [`PositionBias::Disentangled`]: `2 * span` of them, the middle one for 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Distances {
    /// Rows in each direction.
    pub span: usize,
    /// From half the span on, distances share rows in growing powers, up to this one. `None`: each has its own.
    pub max_distance: Option<usize>,
}

impl Distances {
    /// The row of `distance = query - key`. In f32 as the reference, since it decides at edges.
    pub fn row(&self, distance: i64) -> usize {
        let span = self.span as i64;
        let middle = span / 2;
        let far = distance.abs();
        let place = match self.max_distance {
            Some(max_distance) if far > middle => {
                let powers = (far as f32 / middle as f32).ln() / ((max_distance - 1) as f32 / middle as f32).ln();
                let place = (powers * (middle - 1) as f32).ceil() as i64 + middle;
                place * distance.signum()
            }
            _ => distance,
        };
        (place + span).clamp(0, 2 * span - 1) as usize
    }
}

impl Attention {
    /// Plain attention: as many heads of k and v as of q, every key seen, scores over the root of the head's columns.
    pub fn new(qkv: Value, heads: usize, head_dim: usize) -> Attention {
        let scale = 1.0 / (head_dim as f32).sqrt();
        let (softcap, window, bias) = (None, None, None);
        Attention { qkv, heads, kv_heads: heads, head_dim, scale, softcap, window, causal: false, bias }
    }

    /// Columns of `qkv`.
    pub fn qkv_cols(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// The table of its bias.
    pub fn table(&self) -> Option<WeightId> {
        match self.bias {
            Some(PositionBias::Relative { table } | PositionBias::Disentangled { table, .. }) => Some(table),
            Some(PositionBias::Alibi) | None => None,
        }
    }

    /// The keys that some of the queries `first..end` of a sequence see, of which attention looks at the first `keys` tokens; each
    /// query sees a part of them.
    pub fn seen(&self, first: usize, end: usize, keys: usize) -> std::ops::Range<usize> {
        let begin = self.window.map_or(0, |window| first.saturating_sub(window));
        let behind = match (self.causal, self.window) {
            (true, _) => end,
            (false, Some(window)) => end.saturating_add(window),
            (false, None) => keys,
        };
        begin..behind.min(keys)
    }

    /// The queries of a sequence of `len` tokens that see a key, if attention looks at that.
    pub fn seen_by(&self, key: usize, len: usize) -> std::ops::Range<usize> {
        let window = self.window.unwrap_or(len);
        let first = if self.causal { key } else { key.saturating_sub(window) };
        first..key.saturating_add(window).saturating_add(1).min(len)
    }
}

/// The slope of a head: for a power of two of heads, 2^(-8 (head + 1) / heads); otherwise the heads beyond the next lower power
/// of two take every other slope of twice that power.
pub fn alibi_slope(head: usize, heads: usize) -> f32 {
    let power = if heads.is_power_of_two() { heads } else { heads.next_power_of_two() / 2 };
    let exponent = match head < power {
        true => -8.0 * (head + 1) as f64 / power as f64,
        false => -8.0 * (2 * (head - power) + 1) as f64 / (2 * power) as f64,
    };
    exponent.exp2() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_of_a_power_of_two_and_of_other_numbers_of_heads() {
        let slopes = |heads| (0..heads).map(|head| alibi_slope(head, heads)).collect::<Vec<_>>();
        assert_eq!(slopes(4), [0.25, 0.0625, 0.015625, 0.00390625]);
        assert_eq!(slopes(6), [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]);
    }

    #[test]
    fn distances_share_rows_from_half_the_span_on() {
        // transformers' build_relative_position with 8 buckets up to 32, clamped and shifted by the span.
        let row = |distance| Distances { span: 8, max_distance: Some(32) }.row(distance);
        assert_eq!([-1, 0, 1, 4, -4, 5, -5].map(row), [7, 8, 9, 12, 4, 13, 3]);
        assert_eq!([7, 8, 9, 15, 16, 31, 32, 500, -500].map(row), [13, 14, 14, 14, 15, 15, 15, 15, 0]);
        let plain = |distance| Distances { span: 3, max_distance: None }.row(distance);
        assert_eq!([-9, -3, -2, 0, 2, 3, 9].map(plain), [0, 0, 1, 3, 5, 5, 5]);
    }

    #[test]
    fn a_block_of_queries_sees_the_keys_around_it() {
        let mut b = super::super::Builder::new();
        let table = b.matrix("x", 1, 1);
        let qkv = b.embed(vec![super::super::Lookup { table, index: super::super::Index::Ids, offset: 0 }]);
        let plain = Attention::new(qkv, 1, 1);
        assert_eq!(plain.seen(3, 5, 10), 0..10);
        let local = Attention { window: Some(2), ..plain.clone() };
        assert_eq!((local.seen(3, 5, 10), local.seen(0, 2, 3)), (1..7, 0..3));
        let causal = Attention { causal: true, ..plain };
        assert_eq!(causal.seen(3, 5, 10), 0..5);
        assert_eq!(Attention { window: Some(2), ..causal }.seen(3, 5, 10), 1..5);
    }
}
