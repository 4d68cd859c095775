//! The CPU executor on all-MiniLM-L6-v2's shape with random weights: tokens/s, the share of each op, and how near the whole
//! comes to the GEMM's own peak on this machine. `cargo bench --bench cpu --no-default-features [-- seconds]`

use lexel::batch::Batch;
use lexel::cpu::{CpuExecutor, CpuOptions};
use lexel::executor::Executor;
use lexel::program::*;
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions};
use rten_tensor::NdTensorView;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

const LAYERS: usize = 6;
const HIDDEN: usize = 384;
const HEADS: usize = 12;
const INNER: usize = 1536;
const VOCABULARY: usize = 30_522;

/// all-MiniLM-L6-v2.
fn mini_lm() -> Program {
    let mut b = Builder::new();
    let tables = [("word", VOCABULARY, Index::Ids), ("position", 512, Index::Positions), ("type", 2, Index::Types)];
    let lookups = tables.map(|(name, rows, index)| Lookup { table: b.matrix(name, rows, HIDDEN), index, offset: 0 });
    let embedded = b.embed(lookups.to_vec());
    let norm = |b: &mut Builder, name: &str, x| {
        let (weight, bias) = (b.vector(format!("{name}.weight"), HIDDEN), b.vector(format!("{name}.bias"), HIDDEN));
        b.norm(Norm {
            x,
            norm: RowNorm { kind: NormKind::Layer, weight, bias: Some(bias), eps: 1e-12 },
            residual: None,
        })
    };
    let linear = |b: &mut Builder, name: String, x, [rows, cols]: [usize; 2], activation, residual| {
        let (weight, bias) = (b.matrix(format!("{name}.weight"), rows, cols), b.vector(format!("{name}.bias"), rows));
        b.linear(Linear { x, weight, bias: Some(bias), activation, residual })
    };
    let mut x = norm(&mut b, "norm", embedded);
    for i in 0..LAYERS {
        let identity = Activation::Identity;
        let qkv = linear(&mut b, format!("{i}.qkv"), x, [3 * HIDDEN, HIDDEN], identity, None);
        let attended = b.attention(Attention::new(qkv, HEADS, HIDDEN / HEADS));
        let y = linear(&mut b, format!("{i}.output"), attended, [HIDDEN, HIDDEN], identity, Some(x));
        let y = norm(&mut b, &format!("{i}.norm1"), y);
        let inner = linear(&mut b, format!("{i}.up"), y, [INNER, HIDDEN], Activation::Gelu, None);
        let z = linear(&mut b, format!("{i}.down"), inner, [HIDDEN, INNER], identity, Some(y));
        x = norm(&mut b, &format!("{i}.norm2"), z);
    }
    let pooled = b.pool(Pool::new(x, PoolMode::Mean));
    let sentences = b.normalize(pooled);
    b.finish(sentences, x)
}

/// A batch of about `tokens` tokens in texts of `length`.
fn batch(tokens: usize, length: usize) -> Batch {
    let mut batch = Batch::new();
    for s in 0..tokens.div_ceil(length) {
        let ids: Vec<u32> = (0..length).map(|i| ((s * 7919 + i * 104_729) % VOCABULARY) as u32).collect();
        batch.push(&ids, &vec![0; length], 0);
    }
    batch
}

/// Seconds for a layer's four products of `rows` rows by rten-gemm alone, and their FLOP: the best of many runs each.
fn gemm_layer(rows: usize, time: Duration) -> (f64, f64) {
    let shapes = [(3 * HIDDEN, HIDDEN), (HIDDEN, HIDDEN), (INNER, HIDDEN), (HIDDEN, INNER)];
    let run = || {
        let gemm = GemmExecutor::<f32>::new();
        let mut total = (0.0, 0.0);
        for (out, inner) in shapes {
            let weight = vec![0.01f32; out * inner];
            let weight = gemm.prepack_b(NdTensorView::from_data([out, inner], &weight[..]).transposed());
            let (x, mut y) = (vec![0.5f32; rows * inner], vec![0f32; rows * out]);
            let x = NdTensorView::from_data([rows, inner], &x[..]);
            let (a, b) = (GemmInputA::Unpacked(x), GemmInputB::Packed(&weight));
            let once = || gemm.gemm(&mut y, a, b, GemmOptions::default()).unwrap();
            total.0 += best(time / 4, once);
            total.1 += 2.0 * (rows * inner * out) as f64;
        }
        total
    };
    // rten-gemm spreads over the rayon pool that it is called in: one thread, as in the executor.
    rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(run)
}

/// The shortest of the runs that fit into `time`, in seconds.
fn best(time: Duration, mut run: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut best = f64::INFINITY;
    while start.elapsed() < time {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

/// The shortest time of each step over the runs that fit into `time`, in seconds.
fn best_steps(cpu: &CpuExecutor, batch: &Batch, time: Duration) -> Vec<f64> {
    let start = Instant::now();
    let mut best = Vec::new();
    while start.elapsed() < time {
        let times = cpu.profile(batch).unwrap();
        best.resize(times.len(), f64::INFINITY);
        for (best, time) in best.iter_mut().zip(times) {
            *best = best.min(time.as_secs_f64());
        }
    }
    best
}

/// Tokens a second of `executor` kept busy for about `time`.
fn throughput(executor: &CpuExecutor, batch: &Batch, time: Duration) -> f64 {
    let submit = || executor.submit(batch.clone(), Output::Sentences).unwrap();
    submit().wait().unwrap();
    let start = Instant::now();
    let mut pending: VecDeque<_> = (0..executor.in_flight()).map(|_| submit()).collect();
    let mut tokens = 0;
    while let Some(front) = pending.pop_front() {
        front.wait().unwrap();
        tokens += batch.tokens();
        if start.elapsed() < time {
            pending.push_back(submit());
        }
    }
    tokens as f64 / start.elapsed().as_secs_f64()
}

fn main() {
    let seconds = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(3.0);
    let time = Duration::from_secs_f64(seconds);
    let program = Arc::new(mini_lm());
    let weights = RandomWeights { seed: 1 };
    let start = Instant::now();
    let cpu = CpuExecutor::load(program.clone(), &weights, &CpuOptions::default()).unwrap();
    println!("{}, weights made and packed in {:.0} ms", cpu.describe(), start.elapsed().as_secs_f64() * 1e3);

    // Wall time says what a user gets now. The sum of the steps' best times says what one undisturbed core takes.
    println!(
        "length  batch  tokens/s | one core, best of each step: tokens/s  GFLOP/s  of the GEMM's  shares of the time"
    );
    for length in [28, 256] {
        for tokens in [128, 256, 512, 1024] {
            let batch = batch(tokens, length);
            let tokens_per_second = throughput(&cpu, &batch, time);
            let steps = best_steps(&cpu, &batch, time);
            let (gemm_seconds, gemm_flops) = gemm_layer(batch.tokens(), time);
            let gemm = gemm_flops / gemm_seconds;

            let mut shares: BTreeMap<&str, f64> = BTreeMap::new();
            for (step, time) in program.steps.iter().zip(&steps) {
                *shares.entry(step.op.name()).or_default() += time;
            }
            let total: f64 = steps.iter().sum();
            let flops: f64 = program.costs(&batch).iter().map(|cost| cost.flops).sum();
            let flops = flops / total;
            let shares: Vec<_> =
                shares.iter().map(|(name, time)| format!("{name} {:.1}%", 100.0 * time / total)).collect();
            println!(
                "{length:>6} {:>6} {tokens_per_second:>9.0} | {:>9.0} {:>8.1} {:>8.1} ({:>4.1}%)  {}",
                batch.tokens(),
                batch.tokens() as f64 / total,
                flops / 1e9,
                gemm / 1e9,
                100.0 * flops / gemm,
                shares.join(", ")
            );
        }
    }
}
