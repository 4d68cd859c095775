//! How long an application waits for its own frames while lexel encodes on the wgpu device that both share: one long text with
//! the shape of modernbert-base, and 60 frames a second of almost no work. For each limit of what lexel may queue: the latency
//! of the frames, and the time of the text. `cargo bench --workspace --bench frames -- [TOKENS [ADAPTER NAME]]`, 8,192 tokens
//! at most; on lavapipe, 1,024 take some seconds.

use lexel::batch::Batch;
use lexel::executor::Executor;
use lexel::gpu::{AdapterSelector, GpuDevice, GpuExecutor, GpuOptions};
use lexel::models::Preset;
use lexel::program::{Output, RandomWeights};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Of frames.
const INTERVAL: Duration = Duration::from_micros(16_667);

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let tokens = arguments.next().map_or(1024, |tokens| tokens.parse().expect("a number of tokens"));
    let name = arguments.next();
    let device = GpuDevice::open(&name.map_or(AdapterSelector::Any, AdapterSelector::Name)).expect("an adapter");
    println!("{}", device.description());
    println!("{:<12} {:>9} {:>9} {:>9} {:>7} {:>9}", "limit", "median", "99 %", "worst", "frames", "text");
    for (label, limit) in [
        ("20 ms", GpuOptions::INTERACTIVE),
        ("100 ms", Duration::from_millis(100)),
        ("none", Duration::from_secs(86_400)),
    ] {
        let options = GpuOptions { queue_limit: Some(limit), ..GpuOptions::default() };
        let program = Arc::new(Preset::named("modernbert-base").expect("a preset").program(tokens));
        let executor = GpuExecutor::load(program, &RandomWeights { seed: 1 }, &device, &options).expect("a program");
        let encode = |tokens: usize| {
            let mut batch = Batch::new();
            batch.push(&vec![7; tokens], &vec![0; tokens], 0);
            executor.submit(batch, Output::Sentences).and_then(|pending| pending.wait()).expect("a vector");
        };
        // How fast the device is shows in the batches before.
        for warm_up in [128, 512, 512, tokens] {
            encode(warm_up);
        }
        let done = AtomicBool::new(false);
        let (mut latencies, text) = thread::scope(|scope| {
            let frames = scope.spawn(|| frames(&device, &done));
            let begun = Instant::now();
            encode(tokens);
            let text = begun.elapsed();
            done.store(true, Ordering::Relaxed);
            (frames.join().expect("no panic"), text)
        });
        latencies.sort_unstable();
        let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
        let [median, most, worst] = [0.5, 0.99, 1.0].map(|part| format!("{:.1} ms", at(part).as_secs_f64() * 1e3));
        let (frames, text) = (latencies.len(), format!("{:.0} ms", text.as_secs_f64() * 1e3));
        println!("{label:<12} {median:>9} {most:>9} {worst:>9} {frames:>7} {text:>9}");
    }
}

/// From the moment when each frame is due to its end on the device, until `done`.
fn frames(device: &GpuDevice, done: &AtomicBool) -> Vec<Duration> {
    let (device, queue) = (device.wgpu_device(), device.wgpu_queue());
    let canvas = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("canvas"),
        size: 1 << 16,
        usage: wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let mut latencies = Vec::new();
    while latencies.is_empty() || !done.load(Ordering::Relaxed) {
        let due = Instant::now();
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.clear_buffer(&canvas, 0, None);
        let frame = queue.submit([encoder.finish()]);
        let wait = wgpu::PollType::Wait { submission_index: Some(frame), timeout: None };
        device.poll(wait).expect("a device");
        latencies.push(due.elapsed());
        thread::sleep(INTERVAL.saturating_sub(due.elapsed()));
    }
    latencies
}
