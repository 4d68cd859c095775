//! The device's matrix units, through cooperative matrices.
//!
//! Both operands come straight from storage: the rows of x as they lie, and the weight in tiles that lie as a matrix unit
//! reads them, one output column behind the other. So a load is a few whole lines of the cache, without workgroup memory and
//! without barriers; only the results pass through it, because the elements of a cooperative matrix cannot be named.
//! `staged.rs` has both pass through workgroup memory.

use super::{BINDINGS, Chosen, LINEAR_PART};
use crate::gpu::kernel::{Kernel, Prelude, Target};
use crate::gpu::kernels::matrices::{self, matrix};
use crate::gpu::weights::{Packing, push_row};
use std::fmt::Write as _;

static LINEAR_COOPERATIVE: Kernel = Kernel {
    name: "linear_cooperative",
    source: include_str!("../../../../shaders/linear_cooperative.wgsl"),
    parts: &[LINEAR_PART, BLOCKS_PART],
    bindings: BINDINGS,
};

pub(super) const BLOCKS_PART: &str = include_str!("../../../../shaders/common/linear_blocks.wgsl");

/// Parts of a workgroup's tile in each direction. A subgroup computes a part; where there are fewer, each computes several.
pub(super) const PARTS_A_SIDE: usize = 2;
/// All of them.
pub(super) const PARTS: usize = PARTS_A_SIDE * PARTS_A_SIDE;

/// Tiles of 8 columns by 8 inner columns: `[ceil(out / 8), in / 8, 8, 8]` of `Elem`.
static TILES_8: Packing = Packing {
    name: "linear tiles of 8",
    panel_rows: 8,
    panel_bytes: |cols, dtype| 8 * cols * dtype.size(),
    pack_panel: |values, cols, dtype, out| pack::<8>(values, cols, |tile| push_row(tile, tile.len(), dtype, out)),
};

/// Tiles of 16 columns by 16 inner columns: `[ceil(out / 16), in / 16, 16, 16]` of `Elem`.
static TILES_16: Packing = Packing {
    name: "linear tiles of 16",
    panel_rows: 16,
    panel_bytes: |cols, dtype| 16 * cols * dtype.size(),
    pack_panel: |values, cols, dtype, out| pack::<16>(values, cols, |tile| push_row(tile, tile.len(), dtype, out)),
};

pub(super) fn packing(size: usize) -> &'static Packing {
    if size == 8 { &TILES_8 } else { &TILES_16 }
}

/// The tiles of a panel: `SIZE` rows of the weight, fewer at its end, of a multiple of `SIZE` columns.
fn pack<const SIZE: usize>(values: &[f32], cols: usize, mut push: impl FnMut(&[f32])) {
    for first in (0..cols).step_by(SIZE) {
        let mut tile = [[0.0; SIZE]; SIZE];
        for (to, row) in tile.iter_mut().zip(values.chunks(cols)) {
            to.copy_from_slice(&row[first..first + SIZE]);
        }
        push(tile.as_flattened());
    }
}

/// The blocks of a workgroup's tile, and how their sums are read from the matrices.
#[derive(Clone, Copy)]
pub(super) struct Blocks {
    /// Rows and columns of a block.
    pub size: usize,
    /// Blocks of a part, down.
    pub rows: usize,
    /// Blocks of a part, across.
    pub columns: usize,
    /// Blocks across whose sums pass through workgroup memory at a time: a divisor of `columns`.
    pub scratch: usize,
}

impl Blocks {
    /// Rows and columns of a workgroup.
    pub fn tile(self) -> [usize; 2] {
        [self.rows, self.columns].map(|blocks| PARTS_A_SIDE * blocks * self.size)
    }

    /// The prelude of a kernel whose `part` is `part`.
    pub fn prelude(self, prelude: Prelude, target: &Target, part: String) -> Prelude {
        matrices::prelude(prelude, target, PARTS, self.size)
            .constant("BLOCKS_DOWN", self.rows)
            .constant("BLOCKS_ACROSS", self.columns)
            .constant("SCRATCH_BLOCKS", self.scratch)
            .constant("PARTS_A_SIDE", PARTS_A_SIDE)
            .part(part)
    }

    /// A line for each block, because cooperative matrices belong into variables of their own and not into an array.
    pub fn declare_sums(self, text: &mut String) {
        for (row, column) in self.each() {
            let _ = writeln!(text, "    var c{row}_{column}: {};", matrix(self.size, 'C'));
        }
    }

    /// c += a * b, of the matrices of one step.
    pub fn multiply(self, text: &mut String) {
        for (row, column) in self.each() {
            let _ = writeln!(text, "        c{row}_{column} = coopMultiplyAdd(a{row}, b{column}, c{row}_{column});");
        }
    }

    /// The sums, through `scratch`.
    pub fn finish_sums(self, text: &mut String) {
        for (row, first) in
            (0..self.rows).flat_map(|row| (0..self.columns).step_by(self.scratch).map(move |c| (row, c)))
        {
            for at in 0..self.scratch {
                let (column, at) = (first + at, at * self.size);
                let to = format!("&scratch[scratch_at(run) + {at}u]");
                let _ = writeln!(text, "    coopStoreT(c{row}_{column}, {to}, SCRATCH_STRIDE);");
            }
            // A part is its subgroup's alone.
            let _ = writeln!(text, "    subgroupBarrier();\n    finish_blocks(run, vec2<u32>({row}u, {first}u));");
            let _ = writeln!(text, "    subgroupBarrier();");
        }
    }

    fn each(self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.rows).flat_map(move |row| (0..self.columns).map(move |column| (row, column)))
    }
}

pub(super) fn choose(prelude: Prelude, target: &Target, size: usize, rows: usize, columns: usize) -> Chosen {
    let blocks = Blocks { size, rows, columns, scratch: columns };
    let prelude = blocks.prelude(prelude, target, part(blocks));
    Chosen { kernel: &LINEAR_COOPERATIVE, prelude, packing: packing(size), tile: blocks.tile() }
}

/// `part` of linear_cooperative.wgsl.
fn part(blocks: Blocks) -> String {
    let mut text = String::from("fn part(run: Run) {\n");
    blocks.declare_sums(&mut text);
    for row in 0..blocks.rows {
        let _ = writeln!(text, "    let x{row} = x_at(run, {row}u);");
    }
    for column in 0..blocks.columns {
        let _ = writeln!(text, "    let w{column} = w_at(run, {column}u);");
    }
    text.push_str("    for (var k = 0u; k < INNER; k += SIZE) {\n");
    let [a, b] = ['A', 'B'].map(|role| matrix(blocks.size, role));
    for row in 0..blocks.rows {
        let _ = writeln!(text, "        let a{row} = coopLoadT<{a}>(&x[x{row} + k], INNER);");
    }
    for column in 0..blocks.columns {
        let _ = writeln!(text, "        let b{column} = coopLoad<{b}>(&weight[w{column} + k * SIZE], SIZE);");
    }
    blocks.multiply(&mut text);
    text.push_str("    }\n");
    blocks.finish_sums(&mut text);
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::options::Dtype;

    #[test]
    fn tiles_lie_one_output_column_behind_the_other() {
        let (rows, cols) = (3, 16);
        let values: Vec<f32> = (0..rows * cols).map(|i| i as f32).collect();
        let mut out = Vec::new();
        (TILES_8.pack_panel)(&values, cols, Dtype::F32, &mut out);
        assert_eq!(out.len(), (TILES_8.panel_bytes)(cols, Dtype::F32));
        let at = |i: usize| f32::from_le_bytes(out[4 * i..4 * i + 4].try_into().unwrap());
        for (row, col) in (0..8).flat_map(|row| (0..cols).map(move |col| (row, col))) {
            let want = if row < rows { (row * cols + col) as f32 } else { 0.0 };
            assert_eq!(at(col / 8 * 64 + row * 8 + col % 8), want, "weight [{row}, {col}]");
        }
    }
}
