//! The device's matrix units, fed from workgroup memory.
//!
//! In the instructions that Mesa's compiler makes for NVIDIA's Ada, a matrix that comes from storage is four loads, each of eight
//! rows, and with 128 rows and columns 32 of 327 instructions of the loop multiply; from workgroup memory it is one, and 64 of 189
//! do. A step is read while the one before is multiplied: otherwise every step waits for the cache.

use super::cooperative::{BLOCKS_PART, Blocks, PARTS, packing};
use super::{BINDINGS, Chosen, LINEAR_PART};
use crate::gpu::kernel::{Kernel, Prelude, Target};
use crate::gpu::kernels::matrices::{lanes, matrix};
use std::fmt::Write as _;

static LINEAR_COOPERATIVE_STAGED: Kernel = Kernel {
    name: "linear_cooperative_staged",
    source: include_str!("../../../../shaders/linear_cooperative_staged.wgsl"),
    parts: &[LINEAR_PART, BLOCKS_PART],
    bindings: BINDINGS,
};

/// Inner columns of a step. 64 need too much workgroup memory for 128 rows and columns.
pub(super) const STEP: usize = 32;
/// Columns that a thread moves at once.
const PIECE: usize = 8;
/// Blocks across whose sums pass through workgroup memory at a time: with 128 rows and columns of two bytes, 28 KiB in all.
const SCRATCH: usize = 2;

fn blocks(size: usize, rows: usize, columns: usize) -> Blocks {
    Blocks { size, rows, columns, scratch: if columns.is_multiple_of(SCRATCH) { SCRATCH } else { 1 } }
}

/// Whether a device has the workgroup memory and the threads for a tile, and `cols` inner columns are whole steps.
pub(super) fn fits(target: &Target, size: usize, rows: usize, columns: usize, cols: usize) -> bool {
    let blocks = blocks(size, rows, columns);
    let tile: usize = blocks.tile().iter().sum();
    let scratch = PARTS * size * blocks.scratch * size * size_of::<f32>();
    let bytes = tile * (STEP + 8) * target.dtype.size() + scratch;
    let threads = PARTS * lanes(target);
    let whole = blocks.tile().iter().all(|rows| (rows * STEP / PIECE).is_multiple_of(threads));
    cols.is_multiple_of(STEP) && whole && bytes <= target.limits.max_compute_workgroup_storage_size as usize
}

pub(super) fn choose(prelude: Prelude, target: &Target, size: usize, rows: usize, columns: usize) -> Chosen {
    let blocks = blocks(size, rows, columns);
    let prelude = blocks.prelude(prelude, target, part(blocks, PARTS * lanes(target))).constant("STEP4", STEP / 4);
    Chosen { kernel: &LINEAR_COOPERATIVE_STAGED, prelude, packing: packing(size), tile: blocks.tile() }
}

/// `part` of linear_cooperative_staged.wgsl, by so many threads.
fn part(blocks: Blocks, threads: usize) -> String {
    let [xs, ws] = blocks.tile().map(|rows| rows * STEP / PIECE / threads);
    // Each piece of a thread: of x or of the weight, and the pieces before it.
    let pieces = || {
        let numbered = |of, count: usize| (0..count).map(move |i| (of, i, i * threads));
        numbered('x', xs).chain(numbered('w', ws))
    };
    let from = |of| if of == 'x' { "x" } else { "weight" };
    let mut text = String::from("fn part(run: Run, first_row: u32, first_tile: u32, thread: u32) {\n");
    blocks.declare_sums(&mut text);
    text.push_str("    let x_first = x_to(thread);\n    let w_first = w_to(thread);\n");
    text.push_str("    let x_part = x_at(run.part);\n    let w_part = w_at(run.part);\n");
    for (of, i, others) in pieces() {
        let place = if of == 'x' { "first_row, run.rows" } else { "first_tile, run.matrix" };
        let _ = writeln!(text, "    let {of}_from{i} = {of}_from({place}, thread, {others}u);");
        let _ = writeln!(text, "    var {of}{i} = {}[{of}_from{i}];", from(of));
    }
    text.push_str("    for (var step = 1u + unknown_zero(); step <= STEPS; step++) {\n");
    for (of, i, others) in pieces() {
        let to = format!("{of}_tile[{of}_first + {of}_to({others}u)");
        let _ = writeln!(text, "        {to}] = {of}{i}.a;\n        {to} + 1u] = {of}{i}.b;");
    }
    // Behind the last step is the last again.
    text.push_str("        workgroupBarrier();\n        let next = min(step, STEPS - 1u);\n");
    for (of, i, _) in pieces() {
        let step = if of == 'x' { "X_PIECES" } else { "W_PIECES" };
        let _ = writeln!(text, "        {of}{i} = {}[{of}_from{i} + next * {step}];", from(of));
    }
    let [a, b] = ['A', 'B'].map(|role| matrix(blocks.size, role));
    for step in 0..STEP / blocks.size {
        text.push_str("        {\n");
        let at = |block: usize| format!("{}u * STRIDE4 + {step}u * SIZE4", block * blocks.size);
        for row in 0..blocks.rows {
            let _ = writeln!(text, "        let a{row} = coopLoadT<{a}>(&x_tile[x_part + {}], STRIDE4);", at(row));
        }
        for column in 0..blocks.columns {
            let _ = writeln!(text, "        let b{column} = coopLoad<{b}>(&w_tile[w_part + {}], STRIDE4);", at(column));
        }
        blocks.multiply(&mut text);
        text.push_str("        }\n");
    }
    text.push_str("        workgroupBarrier();\n    }\n");
    blocks.finish_sums(&mut text);
    text.push_str("}\n");
    text
}
