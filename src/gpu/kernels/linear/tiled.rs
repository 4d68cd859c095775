//! Register tiles fed from workgroup memory, for any GPU.

use super::panels::{COLUMNS, PANELS};
use super::{BINDINGS, Chosen, LINEAR_PART};
use crate::gpu::kernel::{Kernel, Prelude};
use std::fmt::Write as _;

static LINEAR: Kernel = Kernel {
    name: "linear",
    source: include_str!("../../../../shaders/linear.wgsl"),
    parts: &[LINEAR_PART],
    bindings: BINDINGS,
};

/// Rows of threads of a workgroup.
const THREAD_ROWS: usize = 16;

pub(super) fn choose(prelude: Prelude, rows: usize, panels: usize) -> Chosen {
    let prelude =
        prelude.constant("TILE_ROWS", rows).constant("PANELS", panels).part(unrolled(rows / THREAD_ROWS, panels));
    Chosen { kernel: &LINEAR, prelude, packing: &PANELS, tile: [rows, panels * COLUMNS] }
}

/// `Sums`, `multiply` and `finish_sums` of linear.wgsl: a thread's sums, `rows` of each panel, as named fields. An array that loops
/// index stays in memory where nobody unrolls them: naga writes loops that FXC and DXC leave as they are.
fn unrolled(rows: usize, panels: usize) -> String {
    let sums = || (0..panels).flat_map(|panel| (0..rows).map(move |row| (panel, row)));
    let mut text = String::from("struct Sums {\n");
    for (panel, row) in sums() {
        let _ = writeln!(text, "    s{panel}_{row}: vec4<f32>,");
    }
    text.push_str("}\nfn multiply(sums: ptr<function, Sums>, x_at: u32, w_at: u32) {\n");
    for (panel, k) in (0..panels).flat_map(|panel| (0..4).map(move |k| (panel, k))) {
        let _ = writeln!(text, "    let w{panel}_{k} = w_tile[w_at + {panel}u * PANEL4 + {k}u * COLUMNS4];");
    }
    for row in 0..rows {
        let _ = writeln!(text, "    let a{row} = x_tile[x_at + {row}u * X_STRIDE];");
        for panel in 0..panels {
            let sum = format!("(*sums).s{panel}_{row}");
            let product = ["x", "y", "z", "w"]
                .iter()
                .enumerate()
                .fold(sum.clone(), |sum, (k, part)| format!("fma(vec4<f32>(a{row}.{part}), w{panel}_{k}, {sum})"));
            let _ = writeln!(text, "    {sum} = {product};");
        }
    }
    text.push_str("}\nfn finish_sums(sums: Sums, first: u32, rows: u32, column: u32) {\n");
    for (panel, row) in sums() {
        let _ = writeln!(text, "    finish(sums.s{panel}_{row}, first + {row}u, rows, column + {panel}u * PANEL4);");
    }
    text.push_str("}\n");
    text
}
