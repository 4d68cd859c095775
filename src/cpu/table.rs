//! Tables of embeddings, of which rows are looked up: nine tenths of a small multilingual model.

use super::storage::{Fit, Storage, Stored};
use crate::error::Result;
use crate::executor::Dtype;
use crate::program::{Part, WeightSource, WeightSpec};
use half::{bf16, f16};
use rten_simd::Isa;
use rten_simd::ops::{BitOps, NumOps};

/// `[rows, cols]`, row-major.
pub enum Table {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

/// Numbers that are read at a time.
pub const PIECE: usize = 1 << 20;

impl Table {
    /// Reads a table, and keeps it in what holds it exactly, or else suits the dtype. Beside it, memory holds one piece of what can
    /// be read row by row.
    pub fn load(spec: &WeightSpec, source: &dyn WeightSource, dtype: Dtype) -> Result<Table> {
        let mut fit = Fit::new(dtype);
        pieces(spec, source, |values| {
            fit.add(values);
            !fit.is_none()
        })?;
        Ok(match fit.storage() {
            Storage::F32 => Table::F32(stored(spec, source)?),
            Storage::F16 => Table::F16(stored(spec, source)?),
            Storage::Bf16 => Table::Bf16(stored(spec, source)?),
        })
    }
}

/// Calls `each` with pieces of a weight, in order, until it returns false: with all of it, if its rows are not read one by one.
fn pieces(spec: &WeightSpec, source: &dyn WeightSource, mut each: impl FnMut(&[f32]) -> bool) -> Result<()> {
    let by_rows = spec.parts.iter().all(Part::is_read_by_rows);
    let rows = if by_rows { (PIECE / spec.cols.max(1)).max(1) } else { spec.rows.max(1) };
    for first in (0..spec.rows).step_by(rows) {
        if !each(&spec.read(source, first..spec.rows.min(first + rows))?) {
            break;
        }
    }
    Ok(())
}

fn stored<N: Stored>(spec: &WeightSpec, source: &dyn WeightSource) -> Result<Vec<N>> {
    let mut table = Vec::with_capacity(spec.rows * spec.cols);
    pieces(spec, source, |values| {
        let first = table.len();
        table.resize(first + values.len(), N::default());
        N::store(values, &mut table[first..]);
        true
    })?;
    Ok(table)
}

/// `out = row`, or `out + row` if it `is_more`.
#[inline(always)]
pub fn add_row<I: Isa, N: Stored>(isa: I, row: &[N], is_more: bool, out: &mut [f32]) {
    let (ops, lanes) = (isa.f32(), isa.f32().len());
    assert!(row.len() == out.len());
    let whole = row.len() / (2 * lanes) * 2 * lanes;
    let (vectors, rest) = row.split_at(whole);
    let (to, to_rest) = out.split_at_mut(whole);
    for (from, to) in vectors.chunks_exact(2 * lanes).zip(to.chunks_exact_mut(2 * lanes)) {
        // SAFETY: the chunks are as long as the vectors.
        let [mut a, mut b] = unsafe { N::vectors::<I, 2>(isa, from.as_ptr()) };
        if is_more {
            (a, b) = (ops.add(ops.load(to), a), ops.add(ops.load(&to[lanes..]), b));
        }
        ops.store(a, to);
        ops.store(b, &mut to[lanes..]);
    }
    for (from, to) in rest.iter().zip(to_rest) {
        *to = if is_more { *to + from.to_f32() } else { from.to_f32() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::{Builder, Index, Lookup, TensorSpec};
    use std::ops::Range;

    #[test]
    fn a_table_of_several_pieces_is_stored_whole() {
        /// The number of its place, to the precision of `bits` bits.
        struct Places {
            bits: u32,
        }
        impl WeightSource for Places {
            fn read(&self, tensor: &TensorSpec, rows: Range<usize>) -> Result<Vec<f32>> {
                let cols = tensor.cols();
                Ok((rows.start * cols..rows.end * cols).map(|i| (i % (1 << self.bits)) as f32).collect())
            }
        }
        let mut b = Builder::new();
        let (rows, cols) = (3 * PIECE / 1000 + 1, 1000);
        let id = b.matrix("table", rows, cols);
        let x = b.embed(vec![Lookup { table: id, index: Index::Ids, offset: 0 }]);
        let program = b.finish(x, x);
        let spec = program.weight(id);
        for (bits, dtype, expected) in [
            (11, Dtype::F32, "f16"),
            (8, Dtype::F32, "f16"),
            (20, Dtype::F32, "f32"),
            (20, Dtype::F16, "f32"),
            (12, Dtype::F16, "f16"),
        ] {
            let source = Places { bits };
            let (name, found): (_, Vec<f32>) = match Table::load(spec, &source, dtype).unwrap() {
                Table::F32(table) => ("f32", table),
                Table::F16(table) => ("f16", table.iter().map(|x| x.to_f32()).collect()),
                Table::Bf16(table) => ("bf16", table.iter().map(|x| x.to_f32()).collect()),
            };
            assert_eq!(name, expected, "{bits} bits for {dtype:?}");
            let exact = spec.read_all(&source).unwrap();
            let rounded = |x: &f32| if name == "f16" { f16::from_f32(*x).to_f32() } else { *x };
            assert!(found.iter().copied().eq(exact.iter().map(rounded)));
        }
    }
}
