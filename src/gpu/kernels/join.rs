//! Values side by side.

use crate::error::Result;
use crate::gpu::compile::{Context, Grid, Launch, Slot};
use crate::gpu::kernel::{Binding, Kernel, stride4};
use crate::program::{Join, Rows};

static JOIN: Kernel = Kernel {
    name: "join",
    source: include_str!("../../../shaders/join.wgsl"),
    parts: &[],
    bindings: &[Binding::Params, Binding::Read, Binding::Write],
};

/// The launches of a join: one a part, whose columns begin at whole `Elem4`.
pub fn launches(op: &Join, context: &Context) -> Result<Vec<Launch>> {
    let (shape, mut first) = (context.out_shape(), 0);
    let launch = |&part| {
        let stride = stride4(context.shape(part).cols);
        let prelude = context
            .prelude()
            .constant("STRIDE4", stride)
            .constant("OUT_STRIDE4", stride4(shape.cols))
            .constant("ROWS_ARE_TOKENS", shape.rows == Rows::Tokens);
        // As `Params` in join.wgsl: what differs from part to part is no constant, for which each would have a pipeline.
        let params = [first as u32, 0, 0, 0];
        first += stride;
        Launch {
            kernel: &JOIN,
            prelude,
            items: Launch::ALWAYS,
            params: bytemuck::cast_slice(&params).to_vec(),
            slots: vec![Slot::Value(part), Slot::Value(context.out)],
            grid: Grid { count: shape.rows.into(), per_group: 1, columns: 1 },
        }
    };
    Ok(op.parts.iter().map(launch).collect())
}
