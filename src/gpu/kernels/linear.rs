//! The matrix product with its epilogue: bias, activation, residual.

use crate::error::Result;
use crate::gpu::compile::{Context, Grid, Launch, Slot};
use crate::gpu::kernel::{Binding, Kernel, stride4};
use crate::gpu::weights::{Packing, VECTOR, WeightUse, push_row};
use crate::program::Linear;

static LINEAR: Kernel = Kernel {
    name: "linear",
    source: include_str!("../../../shaders/linear.wgsl"),
    parts: &[],
    bindings: &[Binding::Read, Binding::Read, Binding::Read, Binding::Read, Binding::Write],
};

/// Panels of four output columns: `[ceil(out / 4), 4, stride4(in)]` of `Elem4`.
static PANELS: Packing = Packing {
    name: "linear panels of 4",
    panel_rows: 4,
    panel_bytes: |cols, dtype| 4 * stride4(cols) * 4 * dtype.size(),
    pack_panel: |values, cols, dtype, out| {
        for row in 0..4 {
            push_row(values.get(row * cols..(row + 1) * cols).unwrap_or(&[]), stride4(cols) * 4, dtype, out);
        }
    },
};

/// The launches of a matrix product.
pub fn launches(op: &Linear, context: &Context) -> Result<Vec<Launch>> {
    let (x, out) = (context.shape(op.x), context.out_shape());
    let prelude = context
        .prelude()
        .activation(op.activation)
        .constant("IN4", stride4(x.cols))
        .constant("OUT4", stride4(out.cols))
        .constant("ROWS_ARE_TOKENS", x.rows == crate::program::Rows::Tokens)
        .constant("BIAS", op.bias.is_some())
        .constant("RESIDUAL", op.residual.is_some());
    Ok(vec![Launch {
        kernel: &LINEAR,
        prelude,
        params: vec![],
        slots: vec![
            Slot::Value(op.x),
            Slot::Weight(WeightUse::whole(op.weight, context.weight(op.weight), &PANELS)),
            op.bias.map_or(Slot::Unused, |bias| Slot::Weight(WeightUse::whole(bias, context.weight(bias), &VECTOR))),
            op.residual.map_or(Slot::Unused, Slot::Value),
            Slot::Value(context.out),
        ],
        grid: Grid { count: x.rows.into(), per_group: 32, columns: stride4(out.cols).div_ceil(8) as u32 },
    }])
}
