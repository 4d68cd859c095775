//! Rows of tables, summed.

use super::simd::update;
use super::weights::Weights;
use crate::batch::Batch;
use crate::program::{Embed, Index};
use rten_simd::ops::NumOps;
use rten_simd::{Isa, SimdOp};

/// `out[t] = sum over lookups of table[index[t] + offset]`: `[tokens, cols]`.
pub fn embed(op: &Embed, batch: &Batch, weights: &Weights, cols: usize, out: &mut [f32]) {
    for (i, lookup) in op.lookups.iter().enumerate() {
        let index = match lookup.index {
            Index::Ids => &batch.ids,
            Index::Positions => &batch.positions,
            Index::Types => &batch.types,
        };
        let table = weights.rows(lookup.table);
        Gather { table, index, offset: lookup.offset, cols, add: i > 0, out }.dispatch();
    }
}

/// One lookup: written, or added to what `out` holds.
struct Gather<'a> {
    /// `[rows, cols]`
    table: &'a [f32],
    /// `[tokens]`
    index: &'a [u32],
    offset: u32,
    cols: usize,
    add: bool,
    /// `[tokens, cols]`
    out: &'a mut [f32],
}

impl SimdOp for Gather<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        for (out, &index) in self.out.chunks_exact_mut(self.cols).zip(self.index) {
            let row = (index + self.offset) as usize;
            let row = &self.table[row * self.cols..(row + 1) * self.cols];
            if self.add {
                update(
                    isa,
                    out,
                    [row],
                    #[inline(always)]
                    |y, [x]| ops.add(y, x),
                );
            } else {
                out.copy_from_slice(row);
            }
        }
    }
}
