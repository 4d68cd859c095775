//! Rows of tables, summed, and normalised if there is a norm.

use super::instruction_set::dispatch;
use super::norm;
use super::storage::Stored;
use super::table::{Table, add_row};
use super::weights::Weights;
use crate::batch::Batch;
use crate::program::{Embed, Index};
use rten_simd::{Isa, SimdOp};
use std::ops::Range;

/// Tokens whose sums are normalised at once: few enough to lie in a near cache, and enough that waiting for the rows of the next
/// ones, which come from far away, is rare.
const BLOCK: usize = 64;

/// `out[t] = norm(sum over lookups of table[index[t] + offset])`: `[tokens, cols]`. `sums` is room that a caller keeps.
pub fn embed(op: &Embed, batch: &Batch, weights: &Weights, cols: usize, sums: &mut Vec<f32>, out: &mut [f32]) {
    let Some(by) = &op.norm else {
        return dispatch(Gather { op, batch, weights, tokens: 0..batch.tokens(), cols, out });
    };
    sums.resize(BLOCK * cols, 0.0);
    for first in (0..batch.tokens()).step_by(BLOCK) {
        let tokens = first..(first + BLOCK).min(batch.tokens());
        let (sums, out) = (&mut sums[..tokens.len() * cols], &mut out[tokens.start * cols..tokens.end * cols]);
        dispatch(Gather { op, batch, weights, tokens, cols, out: sums });
        norm::rows(by, sums, weights, out);
    }
}

/// The sums of some tokens.
struct Gather<'a> {
    op: &'a Embed,
    batch: &'a Batch,
    weights: &'a Weights,
    tokens: Range<usize>,
    cols: usize,
    /// `[tokens, cols]`
    out: &'a mut [f32],
}

impl SimdOp for Gather<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        for (i, lookup) in self.op.lookups.iter().enumerate() {
            let index = match lookup.index {
                Index::Ids => &self.batch.ids,
                Index::Positions => &self.batch.positions,
                Index::Types => &self.batch.types,
            };
            let index = &index[self.tokens.clone()];
            match self.weights.table(lookup.table) {
                Table::F32(table) => add_rows(isa, table, index, lookup.offset, i > 0, self.out, self.cols),
                Table::F16(table) => add_rows(isa, table, index, lookup.offset, i > 0, self.out, self.cols),
                Table::Bf16(table) => add_rows(isa, table, index, lookup.offset, i > 0, self.out, self.cols),
            }
        }
    }
}

/// Writes the rows of a table, or adds them to those of others.
#[inline(always)]
fn add_rows<I: Isa, N: Stored>(
    isa: I,
    table: &[N],
    index: &[u32],
    offset: u32,
    is_more: bool,
    out: &mut [f32],
    cols: usize,
) {
    for (out, &index) in out.chunks_exact_mut(cols).zip(index) {
        let row = index.wrapping_add(offset) as usize;
        add_row(isa, &table[row * cols..(row + 1) * cols], is_more, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::tests::batch;
    use crate::executor::Dtype;
    use crate::program::{Builder, Lookup, NormKind, RandomWeights, RowNorm};

    #[test]
    fn sums_the_rows_of_all_tables_and_normalises_the_sum() {
        for (cols, dtype) in [1, 7, 16, 33, 70].into_iter().flat_map(|cols| [(cols, Dtype::F32), (cols, Dtype::F16)]) {
            let mut b = Builder::new();
            let (ids, positions) = (b.matrix("ids", 50, cols), b.matrix("positions", 12, cols));
            let lookups = vec![
                Lookup { table: ids, index: Index::Ids, offset: 0 },
                Lookup { table: positions, index: Index::Positions, offset: 2 },
            ];
            let by = RowNorm { kind: NormKind::Layer, weight: b.vector("weight", cols), bias: None, eps: 1e-5 };
            let x = b.embed_normed(lookups.clone(), by);
            let program = b.finish(x, x);
            let weights = Weights::load(&program, &RandomWeights { seed: 3 }, 1, dtype).unwrap();
            let number = |id, at: usize| match weights.table(id) {
                Table::F32(table) => table[at],
                Table::F16(table) => table[at].to_f32(),
                Table::Bf16(_) => panic!("random numbers need more bits"),
            };
            let batch = batch(&[1, 0, 10, 3]);
            let mut out = vec![f32::NAN; batch.tokens() * cols];
            let mut op = Embed { lookups, norm: None };
            embed(&op, &batch, &weights, cols, &mut Vec::new(), &mut out);
            for (t, row) in out.chunks(cols).enumerate() {
                let (id, position) = (batch.ids[t] as usize, batch.positions[t] as usize + 2);
                for (c, &y) in row.iter().enumerate() {
                    assert_eq!(y, number(ids, id * cols + c) + number(positions, position * cols + c));
                }
            }

            let mut normed = [(); 2].map(|()| vec![f32::NAN; out.len()]);
            norm::rows(&by, &out, &weights, &mut normed[0]);
            op.norm = Some(by);
            embed(&op, &batch, &weights, cols, &mut Vec::new(), &mut normed[1]);
            assert_eq!(normed[0], normed[1], "{cols} columns, normalised");
        }
    }
}
