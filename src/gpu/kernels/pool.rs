//! One row for each sequence from its tokens' rows: a launch for each mode, which writes its block of columns.

use crate::error::Result;
use crate::gpu::compile::{Context, Count, Grid, Launch, Slot};
use crate::gpu::kernel::{Binding, Kernel, stride4};
use crate::program::{Pool, PoolMode};

static POOL: Kernel = Kernel {
    name: "pool",
    source: include_str!("../../../shaders/pool.wgsl"),
    parts: &[],
    bindings: &[Binding::Read, Binding::Write],
};

/// Threads of a workgroup along the columns (in `Elem4`) and along the tokens.
const COLUMNS: usize = 16;
const LANES: usize = 16;

/// The number of a mode in pool.wgsl.
fn number(mode: PoolMode) -> u32 {
    match mode {
        PoolMode::Cls => 0,
        PoolMode::Max => 1,
        PoolMode::Mean => 2,
        PoolMode::MeanSqrtLenTokens => 3,
        PoolMode::WeightedMean => 4,
        PoolMode::LastToken => 5,
    }
}

/// The launches of a pooling.
pub fn launches(op: &Pool, context: &Context) -> Result<Vec<Launch>> {
    let cols = context.shape(op.x).cols;
    let launches = op.modes.iter().enumerate().map(|(block, &mode)| Launch {
        kernel: &POOL,
        prelude: context
            .prelude()
            .constant("MODE", number(mode))
            .constant("COLS", cols)
            .constant("STRIDE4", stride4(cols))
            .constant("OUT_STRIDE", stride4(context.out_shape().cols) * 4)
            .constant("FIRST_COLUMN", block * cols)
            // The last block also writes the padding behind it.
            .constant("LAST", block + 1 == op.modes.len())
            .constant("COLUMNS", COLUMNS)
            .constant("LANES", LANES),
        items: Launch::ALWAYS,
        params: vec![],
        slots: vec![Slot::Value(op.x), Slot::Value(context.out)],
        grid: Grid { count: Count::Sequences, per_group: 1, columns: stride4(cols).div_ceil(COLUMNS) as u32 },
    });
    Ok(launches.collect())
}
