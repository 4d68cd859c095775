//! How the kernels that compute with vectors want the weight to lie.

use crate::gpu::kernel::stride4;
use crate::gpu::weights::{Packing, push_row};

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
