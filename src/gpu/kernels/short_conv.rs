//! Gated short convolutions.

use crate::error::Result;
use crate::gpu::compile::{Context, Count, Grid, Launch, Slot};
use crate::gpu::kernel::{Binding, Kernel, stride4};
use crate::gpu::weights::{ROWS, VECTOR, WeightUse};
use crate::program::ShortConv;

static SHORT_CONV: Kernel = Kernel {
    name: "short_conv",
    source: include_str!("../../../shaders/short_conv.wgsl"),
    parts: &[],
    bindings: &[Binding::Read, Binding::Read, Binding::Read, Binding::Write],
};

/// The launches of a short convolution.
pub fn launches(op: &ShortConv, context: &Context) -> Result<Vec<Launch>> {
    let (weight, cols) = (context.weight(op.weight), context.out_shape().cols);
    let bias = op.bias.map(|bias| Slot::Weight(WeightUse::whole(bias, context.weight(bias), &VECTOR)));
    Ok(vec![Launch {
        kernel: &SHORT_CONV,
        prelude: context
            .prelude()
            .constant("COLS", cols)
            .constant("STRIDE", 4 * stride4(context.shape(op.bcx).cols))
            .constant("OUT_STRIDE", 4 * stride4(cols))
            .constant("TAPS", weight.rows)
            .constant("BIAS", op.bias.is_some()),
        items: Launch::ALWAYS,
        params: vec![],
        slots: vec![
            Slot::Value(op.bcx),
            Slot::Weight(WeightUse::whole(op.weight, weight, &ROWS)),
            bias.unwrap_or(Slot::Unused),
            Slot::Value(context.out),
        ],
        grid: Grid { count: Count::Tokens, per_group: 1, columns: 1 },
    }])
}
