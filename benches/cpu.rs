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
        b.norm(Norm { x, weight, bias: Some(bias), eps: 1e-12 })
    };
    let linear = |b: &mut Builder, name: String, x, [rows, cols]: [usize; 2], activation, residual| {
        let (weight, bias) = (b.matrix(format!("{name}.weight"), rows, cols), b.vector(format!("{name}.bias"), rows));
        b.linear(Linear { x, weight, bias: Some(bias), activation, residual })
    };
    let mut x = norm(&mut b, "norm", embedded);
    for i in 0..LAYERS {
        let identity = Activation::Identity;
        let qkv = linear(&mut b, format!("{i}.qkv"), x, [3 * HIDDEN, HIDDEN], identity, None);
        let head_dim = HIDDEN / HEADS;
        let scale = 1.0 / (head_dim as f32).sqrt();
        let attended = b.attention(Attention { qkv, heads: HEADS, head_dim, scale });
        let y = linear(&mut b, format!("{i}.output"), attended, [HIDDEN, HIDDEN], identity, Some(x));
        let y = norm(&mut b, &format!("{i}.norm1"), y);
        let inner = linear(&mut b, format!("{i}.up"), y, [INNER, HIDDEN], Activation::Gelu, None);
        let z = linear(&mut b, format!("{i}.down"), inner, [HIDDEN, INNER], identity, Some(y));
        x = norm(&mut b, &format!("{i}.norm2"), z);
    }
    let pooled = b.pool(Pool { x, modes: vec![PoolMode::Mean] });
    let sentences = b.normalize(pooled);
    b.finish(sentences, x)
}

/// Multiplications and additions of the linear and attention steps.
fn flops(program: &Program, batch: &Batch) -> f64 {
    let squares: f64 = (0..batch.sequences()).map(|s| (batch.range(s).len() as f64).powi(2)).sum();
    let of_step = |step: &Step| match &step.op {
        Op::Linear(op) => {
            2.0 * step.shape.rows_in(batch.tokens(), batch.sequences()) as f64
                * (step.shape.cols * program.weight(op.weight).cols) as f64
        }
        Op::Attention(_) => 4.0 * squares * step.shape.cols as f64,
        _ => 0.0,
    };
    program.steps.iter().map(of_step).sum()
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

/// Seconds that all threads of this process have computed, so that other load on the machine matters less than it does to
/// wall time. In steps of 10 ms; wall time where there is no /proc.
fn cpu_seconds(start: Instant) -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> = stat.rsplit(')').next().unwrap_or("").split(' ').filter_map(|x| x.parse().ok()).collect();
    // utime and stime are fields 14 and 15; the name, field 2, and the state, field 3, are no numbers.
    if fields.len() > 11 { (fields[10] + fields[11]) / 100.0 } else { start.elapsed().as_secs_f64() }
}

/// FLOP a CPU-second of rten-gemm on each linear op's shape of a layer, all threads at it, weighted as in the model.
fn gemm_peak(threads: usize, rows: usize, time: Duration) -> f64 {
    let shapes = [(3 * HIDDEN, HIDDEN), (HIDDEN, HIDDEN), (INNER, HIDDEN), (HIDDEN, INNER)];
    let run = || {
        let gemm = GemmExecutor::<f32>::new();
        let mut layer: Vec<_> = shapes
            .iter()
            .map(|&(out, inner)| {
                let weight = vec![0.01f32; out * inner];
                let packed = gemm.prepack_b(NdTensorView::from_data([out, inner], &weight[..]).transposed());
                (packed, vec![0.5f32; rows * inner], vec![0f32; rows * out])
            })
            .collect();
        let start = Instant::now();
        let mut done = 0.0;
        while start.elapsed() < time {
            for (weight, x, out) in &mut layer {
                let x = NdTensorView::from_data([rows, weight.rows()], &x[..]);
                gemm.gemm(out, GemmInputA::Unpacked(x), GemmInputB::Packed(weight), GemmOptions::default()).unwrap();
                done += 2.0 * (rows * weight.rows() * weight.cols()) as f64;
            }
        }
        done
    };
    let in_pool = || rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(run);
    let start = Instant::now();
    let before = cpu_seconds(start);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(in_pool)).collect();
        let done: f64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        done / (cpu_seconds(start) - before)
    })
}

/// Batches, seconds and CPU-seconds of `executor` kept busy for about `time`.
fn throughput(executor: &CpuExecutor, batch: &Batch, time: Duration) -> (usize, f64, f64) {
    let submit = || executor.submit(batch.clone(), Output::Sentences).unwrap();
    submit().wait().unwrap();
    let start = Instant::now();
    let before = cpu_seconds(start);
    let mut pending: VecDeque<_> = (0..executor.in_flight()).map(|_| submit()).collect();
    let mut done = 0;
    while let Some(front) = pending.pop_front() {
        front.wait().unwrap();
        done += 1;
        if start.elapsed() < time {
            pending.push_back(submit());
        }
    }
    (done, start.elapsed().as_secs_f64(), cpu_seconds(start) - before)
}

fn main() {
    let seconds = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(3.0);
    let time = Duration::from_secs_f64(seconds);
    let program = Arc::new(mini_lm());
    let threads = std::env::var("LEXEL_BENCH_THREADS").ok().and_then(|threads| threads.parse().ok());
    let weights = RandomWeights { seed: 1 };
    let start = Instant::now();
    let cpu = CpuExecutor::load(program.clone(), &weights, &CpuOptions { threads }).unwrap();
    println!("{}, weights made and packed in {:.0} ms", cpu.describe(), start.elapsed().as_secs_f64() * 1e3);
    let threads = cpu.in_flight() - 1;

    println!("length  batch  tokens/s  GFLOP a CPU-second  of the GEMM's  shares of the time");
    for length in [28, 256] {
        for tokens in [256, 512, 1024] {
            let batch = batch(tokens, length);
            let peak = gemm_peak(threads, batch.tokens(), time / 4);
            let (done, seconds, cpu_seconds) = throughput(&cpu, &batch, time);
            let peak = (peak + gemm_peak(threads, batch.tokens(), time / 4)) / 2.0;
            let tokens_per_second = (done * batch.tokens()) as f64 / seconds;
            let flops_per_second = flops(&program, &batch) * done as f64 / cpu_seconds;

            let mut shares: BTreeMap<String, f64> = BTreeMap::new();
            for _ in 0..10 {
                for (step, time) in program.steps.iter().zip(cpu.profile(&batch).unwrap()) {
                    *shares.entry(step.op.name().to_string()).or_default() += time.as_secs_f64();
                }
            }
            let total: f64 = shares.values().sum();
            let shares: Vec<_> =
                shares.iter().map(|(name, time)| format!("{name} {:.1}%", 100.0 * time / total)).collect();
            println!(
                "{length:>6} {:>6} {tokens_per_second:>9.0} {:>8.1} {:>6.1} ({:>4.1}%)  {}",
                batch.tokens(),
                flops_per_second / 1e9,
                peak / 1e9,
                100.0 * flops_per_second / peak,
                shares.join(", ")
            );
        }
    }
}
