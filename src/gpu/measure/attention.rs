//! The kernels of attention.

use super::{Bench, Fault, Measured, Measurement, VOCABULARY, batch, choose, run, stored};
use crate::gpu::GpuExecutor;
use crate::gpu::kernels::attention::{Variant, candidates};
use crate::gpu::options::Dtype;
use crate::gpu::target;
use crate::gpu::tuning::{AttentionClass, LengthClass, Tuning, WIDE_HEAD};
use crate::matrix::Matrix;
use crate::program::{Attention, Builder, Index, Lookup, Op, Output, Pool, PoolMode, Program, Sum, WeightId};
use rayon::prelude::*;
use std::sync::Arc;

/// Attentions of a measured program; the fastest counts.
const REPEATS: usize = 3;
/// Heads, as small models have.
const HEADS: usize = 12;

pub(super) fn measure(bench: &mut Bench, measurement: &mut Measurement) {
    let target = target(bench.device, bench.dtype, bench.features, false, Tuning::default());
    for wide in [false, true] {
        if bench.is_over() {
            return;
        }
        let head_dim = if wide { 2 * WIDE_HEAD } else { WIDE_HEAD };
        let heads = Heads::new(head_dim, 1.0);
        // Scores so far apart that the sums of cooperative kernels are corrected on the way.
        let peaked = Heads::new(head_dim, 4.0);
        let load = |class, variant| {
            if matches!(variant, Variant::Cooperative { .. }) {
                peaked.load(bench, class, variant)?;
            }
            heads.load(bench, class, variant)
        };
        // The longest sequences first: theirs is the most work, if not all can be measured.
        let variants: Vec<(AttentionClass, Variant)> = LengthClass::ALL
            .into_iter()
            .rev()
            .flat_map(|length| candidates(&target, heads.head_dim, length).into_iter().map(move |v| (length, v)))
            .map(|(length, variant)| (AttentionClass { length, wide }, variant))
            .collect();
        // Compiling takes longest, and can be done side by side.
        let mut loaded: Vec<(AttentionClass, Variant, Result<GpuExecutor, Fault>)> =
            variants.into_par_iter().map(|(class, variant)| (class, variant, load(class, variant))).collect();
        if let Some(executor) = loaded.iter().find_map(|(.., executor)| executor.as_ref().ok()) {
            // An error here is one of what follows, too.
            let _ = bench.warm_up(executor, &batch(&[48; 64]));
        }
        for class in loaded.chunk_by_mut(|a, b| a.0 == b.0) {
            let name = class[0].0;
            let candidates: Vec<Variant> = class.iter().map(|(_, variant, _)| *variant).collect();
            let right: Vec<Variant> = class.iter().filter(|it| it.2.is_ok()).map(|(_, variant, _)| *variant).collect();
            let faults: Vec<Fault> =
                class.iter().filter_map(|(_, _, executor)| executor.as_ref().err().cloned()).collect();
            let mut rated = Vec::new();
            for (_, variant, executor) in class {
                if bench.is_over() {
                    break;
                }
                // It ends here, and with it the memory that it grew to.
                let executor = std::mem::replace(executor, Err(Fault::Failed("rated".into())));
                let flops = executor.and_then(|executor| heads.flops(bench, &executor, name.length));
                match &flops {
                    Ok(flops) => rated.push((*flops, *variant)),
                    Err(fault) => bench.warn(*variant, fault),
                }
                measurement.attention.push(Measured { class: name, variant: *variant, flops });
            }
            if let Some(variant) = choose(&candidates, &rated, &right) {
                measurement.tuning.set_attention(name, variant);
            }
            measurement.refuse(&right, faults.into_iter(), format!("attention of {name}"));
        }
    }
}

/// The attention that is measured: a few of the same input, added up.
struct Heads {
    program: Arc<Program>,
    head_dim: usize,
    scale: f64,
    qkv: WeightId,
}

impl Heads {
    /// With scores that many times as large.
    fn new(head_dim: usize, factor: f32) -> Heads {
        let mut b = Builder::new();
        let table = b.matrix("qkv", VOCABULARY, 3 * HEADS * head_dim);
        let qkv = b.embed(vec![Lookup { table, index: Index::Ids, offset: 0 }]);
        // Weights are small; scores are to be of size 1 and differ.
        let scale = factor * (3 * HEADS) as f32 * (head_dim as f32).sqrt();
        let op = Attention { scale, ..Attention::new(qkv, HEADS, head_dim) };
        let mut y = b.attention(op.clone());
        for _ in 1..REPEATS {
            let other = b.attention(op.clone());
            y = b.sum(Sum { x: y, x_factor: 1.0, other, factor: 1.0 });
        }
        let pooled = b.pool(Pool::new(y, PoolMode::Cls));
        Heads { program: Arc::new(b.finish(pooled, y)), head_dim, scale: f64::from(scale), qkv: table }
    }

    /// The program with one variant, whose results are right.
    fn load(&self, bench: &Bench, class: AttentionClass, variant: Variant) -> Result<GpuExecutor, Fault> {
        let mut tuning = Tuning::default();
        tuning.set_attention(class, variant);
        let executor = bench.load(&self.program, tuning)?;
        // Around the edges of tiles; the longest decides the class.
        let lengths = match class.length {
            LengthClass::Tiny => [16, 1, 7],
            LengthClass::Short => [31, 5, 18],
            LengthClass::Medium => [61, 33, 2],
            LengthClass::Long => [131, 65, 3],
        };
        self.check(&run(&executor, batch(&lengths), Output::Tokens)?, &lengths, bench.dtype)?;
        Ok(executor)
    }

    /// Compares with the same in f64: every query, with a head each in turn.
    fn check(&self, y: &Matrix, lengths: &[usize], dtype: Dtype) -> Result<(), Fault> {
        let (qkv, width) = (stored(&self.program, self.qkv, dtype)?, HEADS * self.head_dim);
        let head = |token: usize, part: usize, head: usize| {
            &qkv[token % VOCABULARY * 3 * width + part * width + head * self.head_dim..][..self.head_dim]
        };
        // Numbers are of size 0.1. In f16 each attention rounds its weights and each sum is rounded.
        let tolerance = if dtype == Dtype::F32 { 3e-6 } else { 6e-4 };
        let mut first = 0;
        for &length in lengths {
            let keys = first..first + length;
            for query in keys.clone() {
                let h = query % HEADS;
                let scores: Vec<f64> = keys
                    .clone()
                    .map(|key| {
                        self.scale * head(query, 0, h).iter().zip(head(key, 1, h)).map(|(q, k)| q * k).sum::<f64>()
                    })
                    .collect();
                let most = scores.iter().copied().fold(f64::MIN, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
                let total: f64 = weights.iter().sum();
                for column in 0..self.head_dim {
                    let sum: f64 =
                        keys.clone().zip(&weights).map(|(key, weight)| weight * head(key, 2, h)[column]).sum();
                    let (want, got) =
                        (REPEATS as f64 * sum / total, f64::from(y.row(query)[h * self.head_dim + column]));
                    if (got - want).abs() > tolerance || got.is_nan() {
                        let place = format!("lengths {lengths:?}: token {query}, head {h}, column {column}");
                        return Err(Fault::Wrong(format!("{place} is {got:.6} instead of {want:.6}")));
                    }
                }
            }
            first += length;
        }
        Ok(())
    }

    /// Operations a second, of the fastest attention.
    fn flops(&self, bench: &mut Bench, executor: &GpuExecutor, length: LengthClass) -> Result<f64, Fault> {
        // Between the ends of the class.
        let length = match length {
            LengthClass::Tiny => 12,
            LengthClass::Short => 26,
            LengthClass::Medium => 48,
            LengthClass::Long => 256,
        };
        // Enough to compare on a software adapter, and not to wait for.
        let tokens = if bench.device.description().is_software() { 256 } else { 4096 };
        let lengths = vec![length; tokens / length];
        let flop = 4.0 * (lengths.len() * length * length * HEADS * self.head_dim) as f64;
        bench.flops(executor, &batch(&lengths), |op| matches!(op, Op::Attention(_)), flop)
    }
}
