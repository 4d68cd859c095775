//! The real all-MiniLM-L6-v2 on both executors, against what sentence-transformers computed on 200 lines of English.
//! `scripts/get-model` fetches the model; without it these tests print that they are skipped, and `REQUIRE_MODEL=1` makes
//! that a failure.

mod support;

use lexel::{Device, Matrix, SentenceTransformer};
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};

/// f32 against f32, absolute, in every component of a normalised embedding (design goal for real models).
const F32: f32 = 5e-5;

/// What the Python library prints.
const QUICKSTART: &str = "[[1.0000, 0.6660, 0.1046],\n [0.6660, 1.0000, 0.1411],\n [0.1046, 0.1411, 1.0000]]";

fn load(device: Device) -> Option<SentenceTransformer> {
    let cache = support::minilm::cache()?;
    let loader = SentenceTransformer::builder("all-MiniLM-L6-v2").cache_dir(cache).offline(true).device(device);
    Some(loader.load().unwrap())
}

fn minilm() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/minilm")
}

fn expected(name: &str) -> Matrix {
    let bytes = std::fs::read(minilm().join("expected.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor(name).unwrap();
    let data = tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    Matrix::new(tensor.shape()[0], tensor.shape()[1], data)
}

fn check(device: Device) {
    let Some(model) = load(device) else { return };
    let texts = std::fs::read_to_string(minilm().join("texts.txt")).unwrap();
    let texts: Vec<&str> = texts.lines().collect();
    let (found, expected) = (model.encode(&texts).unwrap(), expected("texts"));
    assert_eq!((found.shape(), texts.len()), (expected.shape(), 200));
    let worst = found.data.iter().zip(&expected.data).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    println!("{}: worst component error {worst:e}", model.device());
    assert!(worst <= F32, "worst component error {worst:e} on {}", model.device());

    let sentences = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."];
    let embeddings = model.encode(&sentences).unwrap();
    assert_eq!(embeddings.shape(), [3, 384]);
    assert_eq!(model.similarity(&embeddings, &embeddings).unwrap().to_string(), QUICKSTART);
}

#[test]
fn on_the_cpu() {
    check(Device::Cpu);
}

#[cfg(feature = "gpu")]
#[test]
fn on_a_gpu_adapter() {
    if let Some(device) = support::executors::device() {
        check(Device::Shared(device));
    }
}
