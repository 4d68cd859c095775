//! Multi-head self-attention within each sequence.

use crate::error::Result;
use crate::gpu::compile::{Context, Count, Grid, Launch, Slot};
use crate::gpu::kernel::{Binding, Kernel, Target, stride4};
use crate::program::Attention;

static ATTENTION: Kernel = Kernel {
    name: "attention",
    source: include_str!("../../../shaders/attention.wgsl"),
    parts: &[],
    bindings: &[Binding::Read, Binding::Write],
};

/// Queries of one tile: the host cuts sequences into tiles of at most so many.
pub fn query_tile(_target: &Target) -> u32 {
    64
}

/// The launches of attention.
pub fn launches(op: &Attention, context: &Context) -> Result<Vec<Launch>> {
    let prelude = context
        .prelude()
        .constant("HEADS", op.heads)
        .constant("HEAD_DIM", op.head_dim)
        .constant("SCALE", op.scale)
        .constant("QKV_STRIDE", stride4(context.shape(op.qkv).cols) * 4)
        .constant("OUT_STRIDE", stride4(context.out_shape().cols) * 4)
        .constant("QUERY_TILE", query_tile(context.target));
    Ok(vec![Launch {
        kernel: &ATTENTION,
        prelude,
        params: vec![],
        slots: vec![Slot::Value(op.qkv), Slot::Value(context.out)],
        grid: Grid { count: Count::QueryTiles, per_group: 1, columns: op.heads as u32 },
    }])
}
