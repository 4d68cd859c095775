//! A mixture of experts. All of them are computed for every row, as two products with their matrices together, and between the two
//! weighted.

use super::linear::Product;
use crate::error::Result;
use crate::gpu::compile::{Context, Grid, Launch, Slot};
use crate::gpu::kernel::{Binding, Kernel, stride4};
use crate::program::{Activation, Mixture, Rows};

static MIXTURE: Kernel = Kernel {
    name: "mixture",
    source: include_str!("../../../shaders/mixture.wgsl"),
    parts: &[],
    bindings: &[Binding::Read, Binding::Write],
};

/// The launches of a mixture.
pub fn launches(op: &Mixture, context: &Context) -> Result<Vec<Launch>> {
    let (rows, experts) = (context.out_shape().rows, context.shape(op.logits).cols);
    let cols = context.weight(op.up).rows;
    let inner = Slot::Between { cols };
    let up = Product {
        rows,
        x: Slot::Value(op.x),
        weight: op.up,
        bias: None,
        activation: op.activation,
        residual: None,
        out: inner.clone(),
    };
    let weigh = Launch {
        kernel: &MIXTURE,
        prelude: context
            .prelude()
            .constant("EXPERTS", experts)
            .constant("WIDTH", cols / experts)
            .constant("TOP", op.top)
            .constant("STRIDE", 4 * stride4(cols))
            .constant("LOGITS_STRIDE", 4 * stride4(experts))
            .constant("ROWS_ARE_TOKENS", rows == Rows::Tokens),
        items: Launch::ALWAYS,
        params: vec![],
        slots: vec![Slot::Value(op.logits), inner.clone()],
        grid: Grid { count: rows.into(), per_group: 1, columns: 1 },
    };
    let down = Product {
        rows,
        x: inner,
        weight: op.down,
        bias: op.bias,
        activation: Activation::Identity,
        residual: op.residual,
        out: Slot::Value(context.out),
    };
    Ok([up.launches(context), vec![weigh], down.launches(context)].concat())
}
