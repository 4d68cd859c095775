//! What the host does for a GPU that takes no time: texts a second through wgpu's `noop` backend, which checks every call and
//! computes nothing. Tokenising, cutting batches, recording and reading back; the most that any GPU can reach on these cores.
//! `HF_HUB_CACHE=... cargo bench --workspace --bench host -- MODEL TEXTS`, a file with a text a line.

use lexel::gpu::{AdapterSelector, GpuDevice};
use lexel::{Device, SentenceTransformer};
use std::time::Instant;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let [model, texts] = &arguments[..] else { panic!("usage: host MODEL TEXTS") };
    let texts = std::fs::read_to_string(texts).expect("a file of texts");
    let texts: Vec<&str> = texts.lines().collect();
    let device = GpuDevice::open(&AdapterSelector::Noop).expect("the noop backend");
    let model = SentenceTransformer::builder(model).device(Device::Shared(device)).load().expect("a model");
    for _ in 0..4 {
        let begun = Instant::now();
        model.encode(&texts).expect("embeddings");
        println!("{:.0} texts/s", texts.len() as f64 / begun.elapsed().as_secs_f64());
    }
}
