//! DeBERTa's disentangled attention: what q and k of a head make of the distance between them. Products with the rows of a table
//! are small matrix products again; the scores then pick from them.

use super::attention::grow;
use super::instruction_set::dispatch;
use super::matmul::{Matmul, Panels, Strided, StridedMut, panel_width};
use super::transpose::transpose;
use crate::program::{Attention, Distances};
use rten_simd::Isa;
use std::f32::consts::LOG2_E;
use std::ops::Range;

/// For one head of one sequence.
#[derive(Default)]
pub struct Disentangled {
    /// For the distances `1 - tokens..tokens` of a query to a key, the row of the table, less the first that occurs.
    rows: Vec<usize>,
    /// Of which distances and tokens those are.
    rows_are_of: Option<(Distances, usize)>,
    /// The rows that occur, rounded up to panels.
    width: usize,
    tokens: usize,
    /// `[head_dim, width]` in panels: the table that q meets.
    packed: Vec<f32>,
    /// `[tokens, width]`: k times the table that it meets.
    of_keys: Vec<f32>,
    /// `[queries, width]`: q times its table.
    of_queries: Vec<f32>,
}

impl Disentangled {
    /// Prepares head `head`, whose keys are `k`. `table` is `[2 * rows, heads * head_dim]`.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    pub fn begin<I: Isa>(
        &mut self,
        isa: I,
        op: &Attention,
        distances: &Distances,
        table: &[f32],
        head: usize,
        k: Strided<'_>,
        tokens: usize,
    ) {
        let (cols, head_dim, panel) = (op.heads * op.head_dim, op.head_dim, panel_width(isa));
        let first = distances.row(1 - tokens as i64);
        let count = distances.row(tokens as i64 - 1) + 1 - first;
        if self.rows_are_of != Some((*distances, tokens)) {
            self.rows.clear();
            self.rows.extend((1 - tokens as i64..tokens as i64).map(|distance| distances.row(distance) - first));
            self.rows_are_of = Some((*distances, tokens));
        }
        self.tokens = tokens;
        self.width = count.next_multiple_of(panel);
        grow(&mut self.packed, self.width * head_dim);
        grow(&mut self.of_keys, tokens * self.width);
        let half = 2 * distances.span * cols;
        for (offset, is_last) in [(half, false), (0, true)] {
            let table = &table[offset + first * cols + head * head_dim..];
            transpose(isa, table, cols, count, head_dim, op.scale * LOG2_E, panel, &mut self.packed);
            if !is_last {
                let to = StridedMut::new(&mut self.of_keys, self.width, self.width);
                let table = panels(&self.packed, panel, head_dim);
                dispatch(Matmul {
                    a: Strided { ..k },
                    b: table,
                    out: to,
                    rows: tokens,
                    depth: head_dim,
                    cols: self.width,
                });
            }
        }
    }

    /// Adds to the scores `[keys seen, panel]` of the queries from `block` on.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    pub fn add<I: Isa>(
        &mut self,
        isa: I,
        q: Strided<'_>,
        block: usize,
        queries: usize,
        head_dim: usize,
        seen: Range<usize>,
        scores: &mut [f32],
        panel: usize,
    ) {
        grow(&mut self.of_queries, queries * self.width);
        let to = StridedMut::new(&mut self.of_queries, self.width, self.width);
        let table = panels(&self.packed, panel_width(isa), head_dim);
        dispatch(Matmul { a: q, b: table, out: to, rows: queries, depth: head_dim, cols: self.width });
        for (key, scores) in seen.zip(scores.chunks_exact_mut(panel)) {
            let of_key = &self.of_keys[key * self.width..][..self.width];
            let rows = &self.rows[self.tokens - 1 - key + block..][..queries];
            for (i, (score, &row)) in scores.iter_mut().zip(rows).enumerate() {
                *score += self.of_queries[i * self.width + row] + of_key[row];
            }
        }
    }
}

fn panels(data: &[f32], panel: usize, head_dim: usize) -> Panels<'_> {
    Panels { data, panel_stride: panel * head_dim, row_stride: panel }
}
