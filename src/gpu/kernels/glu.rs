//! Gated linear units.

use crate::error::Result;
use crate::gpu::compile::{Context, Grid, Launch, Slot};
use crate::gpu::kernel::{Binding, Kernel, stride4};
use crate::program::{Glu, Half, Rows};

static GLU: Kernel = Kernel {
    name: "glu",
    source: include_str!("../../../shaders/glu.wgsl"),
    parts: &[],
    bindings: &[Binding::Read, Binding::Write],
};

/// The launches of a gated linear unit.
pub fn launches(op: &Glu, context: &Context) -> Result<Vec<Launch>> {
    let shape = context.out_shape();
    let (activated, multiplied) = match op.activated {
        Half::First => (0, shape.cols),
        Half::Second => (shape.cols, 0),
    };
    Ok(vec![Launch {
        kernel: &GLU,
        prelude: context
            .prelude()
            .activation(op.activation)
            .constant("X_STRIDE", 4 * stride4(context.shape(op.x).cols))
            .constant("COLS", shape.cols)
            .constant("STRIDE4", stride4(shape.cols))
            .constant("ACTIVATED", activated)
            .constant("MULTIPLIED", multiplied)
            .constant("ROWS_ARE_TOKENS", shape.rows == Rows::Tokens),
        items: Launch::ALWAYS,
        params: vec![],
        slots: vec![Slot::Value(op.x), Slot::Value(context.out)],
        grid: Grid { count: shape.rows.into(), per_group: 1, columns: 1 },
    }])
}
