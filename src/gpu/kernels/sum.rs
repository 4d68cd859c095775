//! Weighted sums of two values.

use crate::error::Result;
use crate::gpu::compile::{Context, Grid, Launch, Slot};
use crate::gpu::kernel::{Binding, Kernel, stride4};
use crate::program::{Rows, Sum};

static SUM: Kernel = Kernel {
    name: "sum",
    source: include_str!("../../../shaders/sum.wgsl"),
    parts: &[],
    bindings: &[Binding::Read, Binding::Read, Binding::Write],
};

/// The launches of a sum.
pub fn launches(op: &Sum, context: &Context) -> Result<Vec<Launch>> {
    let shape = context.out_shape();
    Ok(vec![Launch {
        kernel: &SUM,
        prelude: context
            .prelude()
            .constant("STRIDE4", stride4(shape.cols))
            .constant("X_FACTOR", op.x_factor)
            .constant("FACTOR", op.factor)
            .constant("ROWS_ARE_TOKENS", shape.rows == Rows::Tokens),
        items: Launch::ALWAYS,
        params: vec![],
        slots: vec![Slot::Value(op.x), Slot::Value(op.other), Slot::Value(context.out)],
        grid: Grid { count: shape.rows.into(), per_group: 1, columns: 1 },
    }])
}
