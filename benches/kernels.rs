//! The two hot kernels on an adapter: milliseconds, and GFLOP per CPU-second (the measure for software adapters, which is
//! also fair on a busy machine). `cargo bench --bench kernels -- [ADAPTER NAME]`; without a name, any adapter.

use lexel::batch::Batch;
use lexel::executor::Executor;
use lexel::gpu::{AdapterSelector, Dtype, Features, GpuDevice, GpuExecutor, GpuOptions};
use lexel::program::{
    Activation, Attention, Builder, Index, Linear, Lookup, Output, Pool, PoolMode, Program, RandomWeights, Value,
};
use std::sync::Arc;
use std::time::Instant;

/// Linears of one program, besides one more that belongs to what is subtracted.
const REPEATS: usize = 4;
/// Tokens of a batch.
const TOKENS: usize = 1024;
/// Rows of the table that makes the input.
const VOCABULARY: usize = 512;

fn main() {
    let name = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let device = GpuDevice::open(&name.map_or(AdapterSelector::Any, AdapterSelector::Name)).expect("an adapter");
    println!("{}", device.description());
    let all = Features::all();
    let masks = [
        ("f32", Dtype::F32, all),
        ("f32, no int64", Dtype::F32, Features { int64: false, ..all }),
        ("f32, no features", Dtype::F32, Features::none()),
        ("f16", Dtype::F16, all),
    ];
    for (label, dtype, features) in masks {
        let options = GpuOptions { dtype, features, ..GpuOptions::default() };
        let time = |program, batch: &Batch| time(program, &device, &options, batch);
        use Activation::{Gelu, Identity};
        for (rows, out, cols, activation) in [
            (512, 384, 384, Identity),
            (1024, 384, 384, Identity),
            (1024, 1152, 384, Identity),
            (1024, 1536, 384, Gelu),
            (1024, 384, 1536, Identity),
        ] {
            let flop = (2 * rows * out * cols * REPEATS) as f64;
            let what = format!("linear {rows} x {out} x {cols} {}", activation.name());
            let [with, without] = [REPEATS + 1, 1].map(|n| time(linears(out, cols, activation, n), &batch(rows, 128)));
            report(&what, label, flop, with, without);
        }
        for (length, heads, head_dim) in [(32, 12, 32), (128, 12, 32), (512, 12, 32), (128, 12, 64)] {
            let flop = (4 * TOKENS * length * heads * head_dim) as f64;
            let what = format!("attention {TOKENS} of {length}, {heads} x {head_dim}");
            let [with, without] =
                [true, false].map(|with| time(attention(heads, head_dim, with), &batch(TOKENS, length)));
            report(&what, label, flop, with, without);
        }
    }
}

/// Seconds of one run: on the clock, and of the CPU.
struct Time {
    load: f64,
    wall: f64,
    cpu: Option<f64>,
}

fn time(program: Program, device: &Arc<GpuDevice>, options: &GpuOptions, batch: &Batch) -> Result<Time, lexel::Error> {
    let start = Instant::now();
    let executor = GpuExecutor::load(Arc::new(program), &RandomWeights { seed: 1 }, device, options)?;
    let run =
        || executor.submit(batch.clone(), Output::Sentences).and_then(|pending| pending.wait()).expect("a result");
    run(); // some drivers compile only now
    let load = start.elapsed().as_secs_f64();
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let mut runs = 0;
    while runs < 2 || start.elapsed().as_secs_f64() < 1.0 {
        run();
        runs += 1;
    }
    let wall = start.elapsed().as_secs_f64() / f64::from(runs);
    let cpu = cpu.zip(cpu_seconds()).map(|(before, after)| (after - before) / f64::from(runs));
    Ok(Time { load, wall, cpu })
}

fn report(what: &str, label: &str, flop: f64, with: Result<Time, lexel::Error>, without: Result<Time, lexel::Error>) {
    match (with, without) {
        (Ok(with), Ok(without)) => {
            let wall = with.wall - without.wall;
            let cpu = with.cpu.zip(without.cpu).map_or(f64::NAN, |(with, without)| flop / (with - without) / 1e9);
            let (ms, rate, load) = (wall * 1e3, flop / wall / 1e9, with.load);
            println!("{what:36} {label:17} {ms:9.2} ms {rate:8.2} GFLOP/s {cpu:7.2} GFLOP/CPU-s  load {load:.2} s");
        }
        (Err(error), _) | (_, Err(error)) => println!("{what:36} {label:17} {error}"),
    }
}

/// The CPU time of this process, where the system tells (Linux, in steps of 10 ms).
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
    let ticks: f64 = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
    Some(ticks / 100.0)
}

fn batch(tokens: usize, length: usize) -> Batch {
    let mut batch = Batch::new();
    for first in (0..tokens).step_by(length) {
        let ids: Vec<u32> = (first..(first + length).min(tokens)).map(|i| (i * 31 % VOCABULARY) as u32).collect();
        batch.push(&ids, &vec![0; ids.len()], 0);
    }
    batch
}

fn embed(builder: &mut Builder, cols: usize) -> Value {
    let table = builder.matrix("table", VOCABULARY, cols);
    builder.embed(vec![Lookup { table, index: Index::Ids, offset: 0 }])
}

/// Each adds the one before as its residual, so that all are needed.
fn linears(out: usize, cols: usize, activation: Activation, repeats: usize) -> Program {
    let mut builder = Builder::new();
    let x = embed(&mut builder, cols);
    let weight = builder.matrix("weight", out, cols);
    let bias = Some(builder.vector("bias", out));
    let mut y = builder.linear(Linear { x, weight, bias, activation, residual: None });
    for _ in 1..repeats {
        y = builder.linear(Linear { x, weight, bias, activation, residual: Some(y) });
    }
    finish(builder, y)
}

fn attention(heads: usize, head_dim: usize, with: bool) -> Program {
    let mut builder = Builder::new();
    let qkv = embed(&mut builder, 3 * heads * head_dim);
    let y = if with { builder.attention(Attention::new(qkv, heads, head_dim)) } else { qkv };
    finish(builder, y)
}

fn finish(mut builder: Builder, y: Value) -> Program {
    let pooled = builder.pool(Pool::new(y, PoolMode::Cls));
    builder.finish(pooled, y)
}
