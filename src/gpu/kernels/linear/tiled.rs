//! Register tiles fed from workgroup memory, for any GPU.

use super::panels::{COLUMNS, PANELS, THREAD_ROWS, sums};
use super::{BINDINGS, Chosen, LINEAR_PART};
use crate::gpu::kernel::{Kernel, Prelude};
use std::fmt::Write as _;

static LINEAR: Kernel = Kernel {
    name: "linear",
    source: include_str!("../../../../shaders/linear.wgsl"),
    parts: &[LINEAR_PART],
    bindings: BINDINGS,
};

pub(super) fn choose(prelude: Prelude, rows: usize, panels: usize) -> Chosen {
    let prelude =
        prelude.constant("TILE_ROWS", rows).constant("PANELS", panels).part(unrolled(rows / THREAD_ROWS, panels));
    Chosen { kernel: &LINEAR, prelude, packing: &PANELS, tile: [rows, panels * COLUMNS] }
}

/// `multiply` of linear.wgsl, for the sums of `rows` rows in each panel; and those.
fn unrolled(rows: usize, panels: usize) -> String {
    let mut text = sums(rows, panels);
    text.push_str("fn multiply(sums: ptr<function, Sums>, x_at: u32, w_at: u32) {\n");
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
    text.push_str("}\n");
    text
}
