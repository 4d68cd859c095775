//! Normalisation of the heads of q, k and v.

use super::team_of;
use crate::error::Result;
use crate::gpu::compile::{Context, Count, Grid, Launch, Slot};
use crate::gpu::kernel::{Binding, Kernel, stride4};
use crate::gpu::weights::{VECTOR, WeightUse};
use crate::program::{HeadNorm, NormKind};

static HEAD_NORM: Kernel = Kernel {
    name: "head_norm",
    source: include_str!("../../../shaders/head_norm.wgsl"),
    parts: &[],
    bindings: &[Binding::Read, Binding::Read, Binding::Read, Binding::Write],
};

/// The launches of a normalisation of heads.
pub fn launches(op: &HeadNorm, context: &Context) -> Result<Vec<Launch>> {
    let vector = |id| Slot::Weight(WeightUse::whole(id, context.weight(id), &VECTOR));
    let groups: usize = op.groups.iter().sum();
    let is_whole = groups * op.group == 4 * stride4(context.out_shape().cols);
    // The groups, and what is in none.
    let parts = groups + usize::from(!is_whole);
    Ok(vec![Launch {
        kernel: &HEAD_NORM,
        prelude: team_of(parts as u32, &HEAD_NORM, context.prelude(), context.target)
            .constant("STRIDE", 4 * stride4(context.out_shape().cols))
            .constant("GROUPS", groups)
            .constant("FIRST_OF_K", op.groups[0])
            .constant("FIRST_OF_V", op.groups[0] + op.groups[1])
            .constant("GROUP", op.group)
            .constant("CENTRED", op.kind == NormKind::Layer)
            .constant("BIAS", op.bias.is_some())
            .constant("EPS", op.eps),
        items: Launch::ALWAYS,
        params: vec![],
        slots: vec![
            Slot::Value(op.qkv),
            vector(op.weight),
            op.bias.map_or(Slot::Unused, vector),
            Slot::Value(context.out),
        ],
        grid: Grid { count: Count::Tokens, per_group: 1, columns: 1 },
    }])
}
