//! A small model on a device, beside the CPU executor: a driver that computes wrongly is found out at its first use, whatever
//! kernel it may be.

use super::{Fault, VOCABULARY, WEIGHTS, batch, failed, run};
use crate::cpu::{CpuExecutor, CpuOptions};
use crate::gpu::{Dtype, Features, GpuDevice, GpuExecutor, GpuOptions, Tuning, TuningChoice};
use crate::program::{
    Activation, Attention, Builder, Index, Linear, Lookup, Norm, NormKind, Output, Pool, PoolMode, Program, RowNorm,
    Value,
};
use std::sync::Arc;

/// Columns of its rows: whatever a subgroup's size, they take it more than one round, and the last is not full.
const HIDDEN: usize = 520;
const HEADS: usize = 13;
/// Columns inside of its layer.
const INTERMEDIATE: usize = 640;

/// Sequences of its batches: long ones and short ones, which get other kernels.
const BATCHES: [&[usize]; 2] = [&[131, 65, 3], &[12, 1]];

/// Runs the small model with these kernels; or what is wrong.
pub fn trial(device: &Arc<GpuDevice>, dtype: Dtype, features: Features, tuning: &Tuning) -> Result<(), Fault> {
    let program = Arc::new(program());
    let options = GpuOptions { dtype, features, tuning: TuningChoice::Given(tuning.clone()), ..GpuOptions::default() };
    let gpu = GpuExecutor::load(program.clone(), &WEIGHTS, device, &options).map_err(failed)?;
    let options = CpuOptions { threads: Some(1), ..CpuOptions::default() };
    let cpu = CpuExecutor::load(program, &WEIGHTS, &options).map_err(failed)?;
    // A wrong kernel is far below, the rounding of a right one far above.
    let least = match dtype {
        Dtype::F32 => 0.99999,
        Dtype::F16 => 0.999,
        Dtype::Int8 => 0.99,
    };
    for lengths in BATCHES {
        let found = run(&gpu, batch(lengths), Output::Sentences)?;
        let expected = run(&cpu, batch(lengths), Output::Sentences)?;
        for (row, length) in lengths.iter().enumerate() {
            let cosine: f32 = found.row(row).iter().zip(expected.row(row)).map(|(a, b)| a * b).sum();
            if !(least..1.01).contains(&cosine) {
                return Err(Fault::Wrong(format!(
                    "of a small model with random weights, the embedding of {length} tokens has a cosine of {cosine:.6} to \
                     the CPU's"
                )));
            }
        }
    }
    Ok(())
}

/// A BERT of one layer, with a table of positions that outlasts the longest sequence.
fn program() -> Program {
    let mut b = Builder::new();
    let longest = BATCHES.iter().flat_map(|lengths| lengths.iter().copied()).max().unwrap_or(0);
    let lookups = vec![
        Lookup { table: b.matrix("words", VOCABULARY, HIDDEN), index: Index::Ids, offset: 0 },
        Lookup { table: b.matrix("positions", longest, HIDDEN), index: Index::Positions, offset: 0 },
    ];
    let norm = row_norm(&mut b, "embeddings.norm");
    let x = b.embed_normed(lookups, norm);
    let qkv = linear(&mut b, "qkv", x, 3 * HIDDEN, Activation::Identity, None);
    let context = b.attention(Attention::new(qkv, HEADS, HIDDEN / HEADS));
    let h = linear(&mut b, "out", context, HIDDEN, Activation::Identity, Some(x));
    let norm = row_norm(&mut b, "out.norm");
    let h = b.norm(Norm { x: h, norm, residual: None });
    let up = linear(&mut b, "up", h, INTERMEDIATE, Activation::Gelu, None);
    let y = linear(&mut b, "down", up, HIDDEN, Activation::Identity, Some(h));
    let norm = row_norm(&mut b, "down.norm");
    let y = b.norm(Norm { x: y, norm, residual: None });
    let sentences = b.pool(Pool { normalize: true, ..Pool::new(y, PoolMode::Mean) });
    b.finish(sentences, y)
}

fn linear(b: &mut Builder, name: &str, x: Value, out: usize, activation: Activation, residual: Option<Value>) -> Value {
    let weight = b.matrix(format!("{name}.weight"), out, b.shape(x).cols);
    let bias = Some(b.vector(format!("{name}.bias"), out));
    b.linear(Linear { x, weight, bias, activation, residual })
}

fn row_norm(b: &mut Builder, name: &str) -> RowNorm {
    let weight = b.vector(format!("{name}.weight"), HIDDEN);
    let bias = Some(b.vector(format!("{name}.bias"), HIDDEN));
    RowNorm { kind: NormKind::Layer, weight, bias, eps: 1e-12 }
}
