//! Each row divided by its L2 norm.

use super::team;
use crate::error::Result;
use crate::gpu::compile::{Context, Grid, Launch, Slot};
use crate::gpu::kernel::{Binding, Kernel, stride4};
use crate::program::{Normalize, Rows};

static NORMALIZE: Kernel = Kernel {
    name: "normalize",
    source: include_str!("../../../shaders/normalize.wgsl"),
    parts: &[],
    bindings: &[Binding::Read, Binding::Write],
};

/// The launches of a normalisation to length one.
pub fn launches(op: &Normalize, context: &Context) -> Result<Vec<Launch>> {
    let shape = context.out_shape();
    let (prelude, per_group) = team(&NORMALIZE, context.prelude(), context.target);
    Ok(vec![Launch {
        kernel: &NORMALIZE,
        prelude: prelude
            .constant("COLS", shape.cols)
            .constant("STRIDE4", stride4(shape.cols))
            .constant("ROWS_ARE_TOKENS", shape.rows == Rows::Tokens),
        items: Launch::ALWAYS,
        params: vec![],
        slots: vec![Slot::Value(op.x), Slot::Value(context.out)],
        grid: Grid { count: shape.rows.into(), per_group, columns: 1 },
    }])
}
