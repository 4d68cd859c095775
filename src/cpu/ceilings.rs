//! The most that one core does a second: a product that stays in its cache, and a copy that does not.

use super::{CpuExecutor, CpuOptions};
use crate::batch::Batch;
use crate::error::{Result, RunError};
use crate::executor::{Ceilings, Dtype, Executor};
use crate::program::{Activation, Builder, Index, Linear, Lookup, Pool, PoolMode, Program, RandomWeights};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A product of `[TOKENS, COLS]` and `[COLS, COLS]`.
const TOKENS: usize = 256;
const COLS: usize = 768;

/// Numbers of a copy: 64 MiB, beyond a core's share of any cache.
const COPIED: usize = 16 << 20;

/// Each is tried for this long, and the best counts.
const TIME: Duration = Duration::from_millis(50);

/// Measures both, on one thread as a profile does.
pub fn measure(dtype: Dtype) -> Result<Ceilings, RunError> {
    Ok(Ceilings { gflops: gemm(dtype)? / 1e9, gb_per_s: copy() / 1e9 })
}

/// FLOPs a second of the executor's own product.
fn gemm(dtype: Dtype) -> Result<f64, RunError> {
    let program = Arc::new(product());
    let (options, weights) = (CpuOptions { threads: Some(1), dtype, sample: None }, RandomWeights { seed: 1 });
    let executor = CpuExecutor::load(program.clone(), &weights, &options);
    let executor = executor.map_err(|error| RunError::DeviceLost(error.to_string()))?;
    let mut batch = Batch::new();
    batch.push(&[0; TOKENS], &[0; TOKENS], 0);
    let costs = program.costs(&batch);
    let linear = program.steps.iter().position(|step| step.op.name() == "linear").unwrap_or_default();
    let best = best(|| Ok(executor.profile(&batch)?[linear]))?;
    Ok(costs[linear].flops / best)
}

fn product() -> Program {
    let mut b = Builder::new();
    let table = b.matrix("table", 1, COLS);
    let x = b.embed(vec![Lookup { table, index: Index::Ids, offset: 0 }]);
    let weight = b.matrix("weight", COLS, COLS);
    let y = b.linear(Linear { x, weight, bias: None, activation: Activation::Identity, residual: None });
    let pooled = b.pool(Pool::new(y, PoolMode::Mean));
    b.finish(pooled, y)
}

/// Bytes a second, read and written.
fn copy() -> f64 {
    let source = vec![1.0f32; COPIED];
    let mut destination = vec![0.0f32; COPIED];
    let mut run = || {
        let begun = Instant::now();
        destination.copy_from_slice(std::hint::black_box(&source));
        std::hint::black_box(&mut destination);
        begun.elapsed()
    };
    run(); // the first touches the memory
    let best = best(|| Ok::<_, RunError>(run()));
    (2 * size_of::<f32>() * COPIED) as f64 / best.unwrap_or(f64::INFINITY)
}

/// The shortest of several runs, in seconds.
fn best<E>(mut run: impl FnMut() -> Result<Duration, E>) -> Result<f64, E> {
    let begun = Instant::now();
    let mut best = run()?;
    while begun.elapsed() < TIME {
        best = best.min(run()?);
    }
    Ok(best.as_secs_f64().max(1e-9))
}
