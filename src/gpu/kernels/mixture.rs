//! The experts of a mixture, weighted.

use crate::error::Result;
use crate::gpu::compile::{Context, Grid, Launch, Slot};
use crate::gpu::kernel::{Binding, Kernel, stride4};
use crate::program::{Experts, Rows};

static EXPERTS: Kernel = Kernel {
    name: "experts",
    source: include_str!("../../../shaders/experts.wgsl"),
    parts: &[],
    bindings: &[Binding::Read, Binding::Read, Binding::Write],
};

/// The launches of experts.
pub fn launches(op: &Experts, context: &Context) -> Result<Vec<Launch>> {
    let (shape, experts) = (context.out_shape(), context.shape(op.logits).cols);
    Ok(vec![Launch {
        kernel: &EXPERTS,
        prelude: context
            .prelude()
            .constant("EXPERTS", experts)
            .constant("WIDTH", shape.cols / experts)
            .constant("TOP", op.top)
            .constant("STRIDE", 4 * stride4(shape.cols))
            .constant("LOGITS_STRIDE", 4 * stride4(experts))
            .constant("ROWS_ARE_TOKENS", shape.rows == Rows::Tokens),
        items: Launch::ALWAYS,
        params: vec![],
        slots: vec![Slot::Value(op.x), Slot::Value(op.logits), Slot::Value(context.out)],
        grid: Grid { count: shape.rows.into(), per_group: 1, columns: 1 },
    }])
}
