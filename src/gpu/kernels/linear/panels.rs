//! How the kernels that compute with vectors want the weight to lie, and the sums of those that have register tiles.

use crate::gpu::kernel::stride4;
use crate::gpu::weights::{Packing, push_row};
use std::fmt::Write as _;

/// Output columns of a panel of packed weights.
pub const COLUMNS: usize = 64;

/// Panels of 64 output columns, each by input columns: `[ceil(out / 64), 4 * stride4(in), 64]` of `Elem`. The zeros behind
/// the last input column cancel whatever the padding of x holds.
pub static PANELS: Packing = Packing {
    name: "linear panels of 64",
    panel_rows: COLUMNS,
    panel_bytes: |cols, dtype| stride4(cols) * 4 * COLUMNS * dtype.size(),
    pack_panel: |values, cols, dtype, out| {
        let mut column = [0.0; COLUMNS];
        for k in 0..cols {
            for (to, row) in column.iter_mut().zip(values.chunks(cols)) {
                *to = row[k];
            }
            push_row(&column, COLUMNS, dtype, out);
        }
        push_row(&[], (stride4(cols) * 4 - cols) * COLUMNS, dtype, out);
    },
};

/// Rows of threads of a workgroup that has a register tile a thread.
pub const THREAD_ROWS: usize = 16;

/// `Sums`: a thread's, of `rows` rows in each panel, as named fields `s{panel}_{row}`; and `finish_sums`. An array that loops index
/// stays in memory where nobody unrolls them: naga writes loops that FXC and DXC leave as they are.
pub fn sums(rows: usize, panels: usize) -> String {
    let sums = || (0..panels).flat_map(|panel| (0..rows).map(move |row| (panel, row)));
    let mut text = String::from("struct Sums {\n");
    for (panel, row) in sums() {
        let _ = writeln!(text, "    s{panel}_{row}: vec4<f32>,");
    }
    text.push_str("}\nfn finish_sums(sums: Sums, first: u32, rows: u32, column: u32) {\n");
    for (panel, row) in sums() {
        let panel4 = panel * COLUMNS / 4;
        let _ = writeln!(text, "    finish(sums.s{panel}_{row}, first + {row}u, rows, column + {panel4}u);");
    }
    text.push_str("}\n");
    text
}
