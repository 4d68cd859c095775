//! A small model on a device, beside the CPU executor: a driver that computes wrongly is found out at its first use, whatever
//! kernel it may be.

use super::{Fault, VOCABULARY, WEIGHTS, batch, failed, run};
use crate::cpu::{CpuExecutor, CpuOptions};
use crate::gpu::{Dtype, Features, GpuDevice, GpuExecutor, GpuOptions, Tuning, TuningChoice};
use crate::program::{
    Activation, Attention, Builder, Glu, Half, HeadNorm, Index, Linear, Lookup, Mixture, Norm, NormKind, Output, Pool,
    PoolMode, Program, Rotary, RotaryTable, RowNorm, Value,
};
use std::sync::Arc;

/// Columns of its rows: whatever a subgroup's size, they take it more than one round, and the last is not full.
const HIDDEN: usize = 520;
const HEADS: usize = 13;
const HEAD_DIM: usize = HIDDEN / HEADS;
/// Columns inside of its layers.
const INTERMEDIATE: usize = 640;
/// Tokens to either side that attention sees: fewer than its long sequences have.
const WINDOW: usize = 40;
/// Of a mixture.
const EXPERTS: usize = 4;

/// Sequences of its batches: long ones and short ones, which get other kernels.
const BATCHES: [&[usize]; 2] = [&[131, 65, 3], &[12, 1]];

/// Means hide what is wrong with some tokens.
const OUTPUTS: [Output; 2] = [Output::Sentences, Output::Tokens];

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
        Dtype::Bf16 => unreachable!("refused at load"),
    };
    for (lengths, output) in BATCHES.into_iter().flat_map(|lengths| OUTPUTS.map(|output| (lengths, output))) {
        let found = run(&gpu, batch(lengths), output)?;
        let expected = run(&cpu, batch(lengths), output)?;
        for row in 0..expected.rows {
            let cosine = cosine(found.row(row), expected.row(row));
            if !(least..1.01).contains(&cosine) {
                let what = match (output, lengths.get(row)) {
                    (Output::Sentences, Some(length)) => format!("the embedding of {length} tokens"),
                    _ => format!("token {row} of {}", expected.rows),
                };
                return Err(Fault::Wrong(format!(
                    "of a small model with random weights, {what} has a cosine of {cosine:.6} to the CPU's"
                )));
            }
        }
    }
    Ok(())
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let lengths = (product(a, a) * product(b, b)).sqrt();
    // Of zeros, which a device that computes nothing gives: 0.
    if lengths == 0.0 { lengths } else { product(a, b) / lengths }
}

/// A layer of a BERT and one of a language model, whose kernels differ, with tables of positions that outlast the longest sequence.
fn program() -> Program {
    let mut b = Builder::new();
    let longest = BATCHES.iter().flat_map(|lengths| lengths.iter().copied()).max().unwrap_or(0);
    let lookups = vec![
        Lookup { table: b.matrix("words", VOCABULARY, HIDDEN), index: Index::Ids, offset: 0 },
        Lookup { table: b.matrix("positions", longest, HIDDEN), index: Index::Positions, offset: 0 },
    ];
    let norm = row_norm(&mut b, "embeddings.norm", NormKind::Layer, HIDDEN);
    let x = b.embed_normed(lookups, norm);
    let x = layer_of_bert(&mut b, x);
    let y = layer_of_language_model(&mut b, x, longest);
    let sentences = b.pool(Pool { normalize: true, ..Pool::new(y, PoolMode::Mean) });
    b.finish(sentences, y)
}

/// Its norms come after what they are for.
fn layer_of_bert(b: &mut Builder, x: Value) -> Value {
    let qkv = linear(b, "qkv", x, 3 * HIDDEN, Activation::Identity, None);
    let context = b.attention(Attention::new(qkv, HEADS, HEAD_DIM));
    let h = linear(b, "out", context, HIDDEN, Activation::Identity, Some(x));
    let h = norm(b, "out.norm", NormKind::Layer, h);
    let up = linear(b, "up", h, INTERMEDIATE, Activation::Gelu, None);
    let y = linear(b, "down", up, HIDDEN, Activation::Identity, Some(h));
    norm(b, "down.norm", NormKind::Layer, y)
}

/// With rotary positions, one head of keys and values for all of queries, a window, gated units and a mixture of experts.
fn layer_of_language_model(b: &mut Builder, x: Value, longest: usize) -> Value {
    let h = norm(b, "2.norm", NormKind::Rms, x);
    let qkv = linear(b, "2.qkv", h, (HEADS + 2) * HEAD_DIM, Activation::Identity, None);
    let RowNorm { kind, weight, bias, eps } = row_norm(b, "2.heads.norm", NormKind::Rms, 2 * HEAD_DIM);
    let qkv = b.head_norm(HeadNorm { qkv, kind, groups: [HEADS, 1, 0], group: HEAD_DIM, weight, bias, eps });
    let table = b.rotary_table(RotaryTable::new(10_000.0, HEAD_DIM, longest));
    let qkv = b.rotary(Rotary { qkv, heads: HEADS + 1, head_dim: HEAD_DIM, table });
    let context = b.attention(Attention {
        kv_heads: 1,
        causal: true,
        window: Some(WINDOW),
        ..Attention::new(qkv, HEADS, HEAD_DIM)
    });
    let x = linear(b, "2.out", context, HIDDEN, Activation::Identity, Some(x));
    let h = norm(b, "2.out.norm", NormKind::Rms, x);
    let up = linear(b, "2.up", h, 2 * INTERMEDIATE, Activation::Identity, None);
    let gated = b.glu(Glu { x: up, activation: Activation::Silu, activated: Half::First });
    let x = linear(b, "2.down", gated, HIDDEN, Activation::Identity, Some(x));
    let h = norm(b, "2.down.norm", NormKind::Rms, x);
    let logits = linear(b, "2.experts", h, EXPERTS, Activation::Identity, None);
    let (up, down) = (b.matrix("2.experts.up", INTERMEDIATE, HIDDEN), b.matrix("2.experts.down", HIDDEN, INTERMEDIATE));
    let (activation, bias) = (Activation::Relu, Some(b.vector("2.experts.bias", HIDDEN)));
    // All of them: which are the first few is a matter of rounding.
    b.mixture(Mixture { x: h, logits, top: EXPERTS, up, activation, down, bias, residual: Some(x) })
}

fn norm(b: &mut Builder, name: &str, kind: NormKind, x: Value) -> Value {
    let norm = row_norm(b, name, kind, HIDDEN);
    b.norm(Norm { x, norm, residual: None })
}

fn linear(b: &mut Builder, name: &str, x: Value, out: usize, activation: Activation, residual: Option<Value>) -> Value {
    let weight = b.matrix(format!("{name}.weight"), out, b.shape(x).cols);
    let bias = Some(b.vector(format!("{name}.bias"), out));
    b.linear(Linear { x, weight, bias, activation, residual })
}

fn row_norm(b: &mut Builder, name: &str, kind: NormKind, cols: usize) -> RowNorm {
    let weight = b.vector(format!("{name}.weight"), cols);
    let bias = (kind == NormKind::Layer).then(|| b.vector(format!("{name}.bias"), cols));
    RowNorm { kind, weight, bias, eps: 1e-12 }
}
