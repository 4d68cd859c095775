//! Rows of tables, summed.

use super::instruction_set::dispatch;
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
        dispatch(Gather { table, index, offset: lookup.offset, cols, add: i > 0, out });
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
            let row = index.wrapping_add(self.offset) as usize;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::tests::batch;
    use crate::program::{Builder, Lookup, RandomWeights};

    #[test]
    fn sums_the_rows_of_all_tables() {
        for cols in [1, 7, 16, 33] {
            let mut b = Builder::new();
            let (ids, positions) = (b.matrix("ids", 50, cols), b.matrix("positions", 12, cols));
            let lookups = vec![
                Lookup { table: ids, index: Index::Ids, offset: 0 },
                Lookup { table: positions, index: Index::Positions, offset: 2 },
            ];
            let x = b.embed(lookups.clone());
            let weights = Weights::load(&b.finish(x, x), &RandomWeights { seed: 3 }, 1, crate::Dtype::F32).unwrap();
            let batch = batch(&[1, 0, 10, 3]);
            let mut out = vec![f32::NAN; batch.tokens() * cols];
            embed(&Embed { lookups }, &batch, &weights, cols, &mut out);
            for (t, row) in out.chunks(cols).enumerate() {
                let (id, position) = (batch.ids[t] as usize, batch.positions[t] as usize + 2);
                for (c, &y) in row.iter().enumerate() {
                    assert_eq!(y, weights.rows(ids)[id * cols + c] + weights.rows(positions)[position * cols + c]);
                }
            }
        }
    }
}
