//! Normalisation of each row.

use super::team;
use crate::error::Result;
use crate::gpu::compile::{Context, Grid, Launch, Slot};
use crate::gpu::kernel::{Binding, Kernel, stride4};
use crate::gpu::weights::{VECTOR, WeightUse};
use crate::program::{Norm, NormKind, Rows};

static NORM: Kernel = Kernel {
    name: "norm",
    source: include_str!("../../../shaders/norm.wgsl"),
    parts: &[],
    bindings: &[Binding::Read, Binding::Read, Binding::Read, Binding::Read, Binding::Write],
};

/// The launches of a normalisation.
pub fn launches(op: &Norm, context: &Context) -> Result<Vec<Launch>> {
    let shape = context.out_shape();
    let vector = |id| Slot::Weight(WeightUse::whole(id, context.weight(id), &VECTOR));
    let (prelude, per_group) = team(context.prelude(), context.target);
    Ok(vec![Launch {
        kernel: &NORM,
        prelude: prelude
            .constant("COLS", shape.cols)
            .constant("STRIDE4", stride4(shape.cols))
            .constant("ROWS_ARE_TOKENS", shape.rows == Rows::Tokens)
            .constant("CENTRED", op.kind == NormKind::Layer)
            .constant("BIAS", op.bias.is_some())
            .constant("RESIDUAL", op.residual.is_some())
            .constant("EPS", op.eps),
        items: Launch::ALWAYS,
        params: vec![],
        slots: vec![
            Slot::Value(op.x),
            vector(op.weight),
            op.bias.map_or(Slot::Unused, vector),
            op.residual.map_or(Slot::Unused, Slot::Value),
            Slot::Value(context.out),
        ],
        grid: Grid { count: shape.rows.into(), per_group, columns: 1 },
    }])
}
