//! Rotary positions.

use crate::error::Result;
use crate::gpu::compile::{Context, Count, Grid, Launch, Slot};
use crate::gpu::kernel::{Binding, Kernel, stride4};
use crate::gpu::weights::{ROWS_F32, WeightUse};
use crate::program::Rotary;

static ROTARY: Kernel = Kernel {
    name: "rotary",
    source: include_str!("../../../shaders/rotary.wgsl"),
    parts: &[],
    bindings: &[Binding::Read, Binding::Read, Binding::Write],
};

/// The launches of rotary positions.
pub fn launches(op: &Rotary, context: &Context) -> Result<Vec<Launch>> {
    let table = WeightUse::whole(op.table, context.weight(op.table), &ROWS_F32);
    Ok(vec![Launch {
        kernel: &ROTARY,
        prelude: context
            .prelude()
            .constant("STRIDE", 4 * stride4(context.out_shape().cols))
            .constant("TABLE_STRIDE", 4 * stride4(op.head_dim))
            .constant("HEADS", op.heads)
            .constant("HEAD_DIM", op.head_dim),
        items: Launch::ALWAYS,
        params: vec![],
        slots: vec![Slot::Value(op.qkv), Slot::Weight(table), Slot::Value(context.out)],
        grid: Grid { count: Count::Tokens, per_group: 1, columns: 1 },
    }])
}
