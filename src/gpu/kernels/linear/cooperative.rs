//! The device's matrix units, through cooperative matrices.
//!
//! Both operands come straight from storage: the rows of x as they lie, and the weight in tiles that lie as a matrix unit
//! reads them, one output column behind the other. So a load is a few whole lines of the cache, without workgroup memory and
//! without barriers; only the results pass through it, because the elements of a cooperative matrix cannot be named.

use super::{BINDINGS, Chosen, LINEAR_PART};
use crate::gpu::kernel::{Kernel, Prelude, Target};
use crate::gpu::weights::{Packing, push_row};
use std::fmt::Write as _;

static LINEAR_COOPERATIVE: Kernel = Kernel {
    name: "linear_cooperative",
    source: include_str!("../../../../shaders/linear_cooperative.wgsl"),
    parts: &[LINEAR_PART],
    bindings: BINDINGS,
};

/// Parts of a workgroup's tile in each direction. A subgroup computes a part; where there are fewer, each computes several.
pub(super) const PARTS_A_SIDE: usize = 2;

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

pub(super) fn choose(prelude: Prelude, target: &Target, size: usize, rows: usize, columns: usize) -> Chosen {
    // A subgroup a part; where their size varies, it is 32 or 64, and there are 4 or 2.
    let lanes = target.features.subgroup_size.unwrap_or(32) as usize;
    let prelude = prelude
        .cooperative()
        .constant("THREADS", PARTS_A_SIDE * PARTS_A_SIDE * lanes)
        .constant("SIZE", size)
        .constant("BLOCKS_DOWN", rows)
        .constant("BLOCKS_ACROSS", columns)
        .constant("PARTS_A_SIDE", PARTS_A_SIDE)
        .part(unrolled(size, rows, columns));
    let tile = [rows, columns].map(|blocks| PARTS_A_SIDE * blocks * size);
    Chosen { kernel: &LINEAR_COOPERATIVE, prelude, packing: packing(size), tile }
}

/// `part` of linear_cooperative.wgsl: a line for each block, because cooperative matrices belong into variables of their
/// own and not into an array.
fn unrolled(size: usize, rows: usize, columns: usize) -> String {
    let blocks = || (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    let matrix = |role: char| format!("coop_mat{size}x{size}<{}, {role}>", if role == 'C' { "f32" } else { "Elem" });
    let mut text = String::new();
    let _ = writeln!(text, "fn part(row: u32, tile: u32, run: Run) {{");
    for (row, column) in blocks() {
        let _ = writeln!(text, "    var c{row}_{column}: {};", matrix('C'));
    }
    for row in 0..rows {
        let _ = writeln!(text, "    let x{row} = x_at(row, {row}u, run.rows);");
    }
    for column in 0..columns {
        let _ = writeln!(text, "    let w{column} = w_at(tile, {column}u);");
    }
    let _ = writeln!(text, "    for (var k = 0u; k < INNER; k += SIZE) {{");
    for row in 0..rows {
        let _ = writeln!(text, "        let a{row} = coopLoadT<{}>(&x[x{row} + k], INNER);", matrix('A'));
    }
    for column in 0..columns {
        let _ =
            writeln!(text, "        let b{column} = coopLoad<{}>(&weight[w{column} + k * SIZE], SIZE);", matrix('B'));
    }
    for (row, column) in blocks() {
        let _ = writeln!(text, "        c{row}_{column} = coopMultiplyAdd(a{row}, b{column}, c{row}_{column});");
    }
    text.push_str("    }\n");
    for row in 0..rows {
        for column in 0..columns {
            let _ = writeln!(
                text,
                "    coopStoreT(c{row}_{column}, &scratch[run.scratch + {}u], SCRATCH_STRIDE);",
                column * size
            );
        }
        let _ = writeln!(text, "    workgroupBarrier();\n    finish_blocks(row + {row}u * SIZE, tile, run);");
        let _ = writeln!(text, "    workgroupBarrier();");
    }
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
