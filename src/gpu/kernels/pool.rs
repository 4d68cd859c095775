//! One row for each sequence from its tokens' rows: a launch for each mode, which writes its block of columns; or, with the
//! row's normalisation, a launch in all.

use crate::error::Result;
use crate::gpu::compile::{Context, Count, Grid, Launch, Slot};
use crate::gpu::kernel::{Binding, Kernel, Prelude, Target, stride4};
use crate::program::{Pool, PoolMode};

const POOL_PART: &str = include_str!("../../../shaders/common/pool.wgsl");

static POOL: Kernel = Kernel {
    name: "pool",
    source: include_str!("../../../shaders/pool.wgsl"),
    parts: &[POOL_PART],
    bindings: &[Binding::Read, Binding::Write],
};

static POOL_NORMALIZE: Kernel = Kernel {
    name: "pool_normalize",
    source: include_str!("../../../shaders/pool_normalize.wgsl"),
    parts: &[POOL_PART],
    bindings: &[Binding::Read, Binding::Write],
};

/// Threads of a workgroup along the columns (in `Elem4`) and along the tokens.
const COLUMNS: usize = 16;
const LANES: usize = 16;

/// The same where one workgroup makes a whole row: few texts must keep a device busy. Along the tokens, as many as make the
/// largest workgroup; all are powers of two.
const ROW_COLUMNS: usize = 32;

fn row_lanes(target: &Target) -> usize {
    let limits = &target.limits;
    let memory = limits.max_compute_workgroup_storage_size as usize;
    // An `vec4<f32>` and an `f32` a thread.
    let fits = |lanes: &usize| {
        let threads = ROW_COLUMNS * lanes;
        threads <= limits.max_compute_invocations_per_workgroup as usize && threads * 20 <= memory
    };
    // A software adapter's threads are vectors of a few lanes, and waiting for each other is what costs there.
    if target.software { 4 } else { [32, 16].into_iter().find(fits).unwrap_or(8) }
}

/// The number of a mode in pool.wgsl.
fn number(mode: PoolMode) -> u32 {
    match mode {
        PoolMode::Cls => 0,
        PoolMode::Max => 1,
        PoolMode::Mean => 2,
        PoolMode::MeanSqrtLenTokens => 3,
        PoolMode::WeightedMean => 4,
        PoolMode::LastToken => 5,
        PoolMode::Sum => 6,
    }
}

/// The launches of a pooling.
pub fn launches(op: &Pool, context: &Context) -> Result<Vec<Launch>> {
    let cols = context.shape(op.x).cols;
    let launch = |kernel, prelude: Prelude, mode, columns| Launch {
        kernel,
        prelude: prelude.constant("MODE", number(mode)).constant("COLS", cols).constant("STRIDE4", stride4(cols)),
        items: Launch::ALWAYS,
        params: vec![],
        slots: vec![Slot::Value(op.x), Slot::Value(context.out)],
        grid: Grid { count: Count::Sequences, per_group: 1, columns },
    };
    if op.normalize {
        let prelude = context
            .prelude()
            .constant("COLUMNS", ROW_COLUMNS)
            .constant("LANES", row_lanes(context.target))
            .constant("BLOCKS", stride4(cols).div_ceil(ROW_COLUMNS));
        return Ok(vec![launch(&POOL_NORMALIZE, prelude, op.modes[0], 1)]);
    }
    let launches = op.modes.iter().enumerate().map(|(block, &mode)| {
        let prelude = context
            .prelude()
            .constant("OUT_STRIDE", stride4(context.out_shape().cols) * 4)
            .constant("FIRST_COLUMN", block * cols)
            // The last block also writes the padding behind it.
            .constant("LAST", block + 1 == op.modes.len())
            .constant("COLUMNS", COLUMNS)
            .constant("LANES", LANES);
        launch(&POOL, prelude, mode, stride4(cols).div_ceil(COLUMNS) as u32)
    });
    Ok(launches.collect())
}
