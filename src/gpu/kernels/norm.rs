//! Normalisation of each row.

use super::team;
use crate::error::Result;
use crate::gpu::compile::{Context, Grid, Launch, Slot};
use crate::gpu::kernel::{Binding, Kernel, Prelude, stride4};
use crate::gpu::weights::{VECTOR, WeightUse};
use crate::program::{Norm, NormKind, RowNorm, Rows};

/// `shaders/common/norm.wgsl`, which also normalises inside of other kernels.
pub(super) const NORM_PART: &str = include_str!("../../../shaders/common/norm.wgsl");

static NORM: Kernel = Kernel {
    name: "norm",
    source: include_str!("../../../shaders/norm.wgsl"),
    parts: &[NORM_PART],
    bindings: &[Binding::Read, Binding::Read, Binding::Read, Binding::Write],
};

/// What [`NORM_PART`] needs: its constants, and its weights in one binding.
pub(super) fn affine(by: &RowNorm, cols: usize, prelude: Prelude, context: &Context) -> (Prelude, Slot) {
    let vector = |id| WeightUse::whole(id, context.weight(id), &VECTOR);
    let prelude = prelude
        .constant("COLS", cols)
        .constant("STRIDE4", stride4(cols))
        .constant("CENTRED", by.kind == NormKind::Layer)
        .constant("BIAS", by.bias.is_some())
        .constant("EPS", by.eps);
    (prelude, Slot::Weights(by.weights().map(vector).collect()))
}

/// The launches of a normalisation.
pub fn launches(op: &Norm, context: &Context) -> Result<Vec<Launch>> {
    let shape = context.out_shape();
    let (prelude, per_group) = team(&NORM, context.prelude(), context.target);
    let (prelude, affine) = affine(&op.norm, shape.cols, prelude, context);
    Ok(vec![Launch {
        kernel: &NORM,
        prelude: prelude
            .constant("ROWS_ARE_TOKENS", shape.rows == Rows::Tokens)
            .constant("RESIDUAL", op.residual.is_some()),
        items: Launch::ALWAYS,
        params: vec![],
        slots: vec![Slot::Value(op.x), affine, op.residual.map_or(Slot::Unused, Slot::Value), Slot::Value(context.out)],
        grid: Grid { count: shape.rows.into(), per_group, columns: 1 },
    }])
}
