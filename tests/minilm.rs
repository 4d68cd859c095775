//! The real all-MiniLM-L6-v2 on both executors, against what sentence-transformers computed on 200 lines of English.
//! `scripts/get-model` fetches the model; without it these tests print that they are skipped, and `REQUIRE_MODEL=1` makes
//! that a failure.

mod support;

use lexel::{Device, Dtype, Matrix, SentenceTransformer};
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};

/// f32 against f32, absolute, in every component of a normalised embedding (design goal for real models).
const F32: f32 = 5e-5;

/// What the Python library prints.
const QUICKSTART: &str = "[[1.0000, 0.6660, 0.1046],\n [0.6660, 1.0000, 0.1411],\n [0.1046, 0.1411, 1.0000]]";

/// int8 against f32: the least cosine of a text's two embeddings, and the share of a text's ten nearest that stay the same, on
/// average. Measured: 0.9992 and 0.992 with VNNI, 0.9989 and 0.9915 without; 0.9988 and 0.992 by rten-gemm
/// (`LEXEL_INSTRUCTIONS=portable`), whose weights have seven bits.
const INT8: (f32, f64) = (0.998, 0.985);

fn load(device: Device, dtype: Dtype) -> Option<SentenceTransformer> {
    let cache = support::minilm::cache()?;
    let loader =
        SentenceTransformer::builder("all-MiniLM-L6-v2").cache_dir(cache).offline(true).device(device).dtype(dtype);
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
    let Some(model) = load(device, Dtype::F32) else { return };
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

/// For each row, the ten rows that are most like it, itself left out.
fn nearest(vectors: &Matrix) -> Vec<Vec<usize>> {
    let rows = vectors.shape()[0];
    let dot = |a: usize, b: usize| vectors.row(a).iter().zip(vectors.row(b)).map(|(a, b)| a * b).sum::<f32>();
    let of_row = |row: usize| {
        let mut others: Vec<usize> = (0..rows).filter(|&other| other != row).collect();
        others.sort_by(|&a, &b| dot(row, b).total_cmp(&dot(row, a)));
        others.truncate(10);
        others
    };
    (0..rows).map(of_row).collect()
}

/// f16 on the CPU, whose weights alone it rounds: as int8's. Measured: 0.999_999_2 and 1.
const F16: (f32, f64) = (0.999_998, 0.999);

#[test]
fn in_f16_on_the_cpu() {
    check_nearest(Dtype::F16, F16);
}

/// bf16 on the CPU. Measured: 0.999_945 at worst and 0.998 with AMX, where values are rounded, too; without, 0.999_966 and 0.997.
const BF16: (f32, f64) = (0.9999, 0.995);

#[test]
fn in_bf16_on_the_cpu() {
    check_nearest(Dtype::Bf16, BF16);
}

#[test]
fn in_int8_on_the_cpu() {
    check_nearest(Dtype::Int8, INT8);
}

fn check_nearest(dtype: Dtype, (cosine, share): (f32, f64)) {
    // Not what an earlier run has kept.
    let kept = (dtype == Dtype::Int8).then(|| tempfile::tempdir().unwrap());
    kept.iter().for_each(|folder| lexel::set_cache_folder(folder.path()));
    let Some(model) = load(Device::Cpu, dtype) else { return };
    let texts = std::fs::read_to_string(minilm().join("texts.txt")).unwrap();
    let (found, expected) = (model.encode(&texts.lines().collect::<Vec<_>>()).unwrap(), expected("texts"));
    // Both are unit vectors.
    let cosine_of = |row: usize| found.row(row).iter().zip(expected.row(row)).map(|(a, b)| a * b).sum::<f32>();
    let cosines: Vec<f32> = (0..200).map(cosine_of).collect();
    let worst = cosines.iter().copied().fold(1f32, f32::min);
    let (of_found, of_expected) = (nearest(&found), nearest(&expected));
    let kept = |(a, b): (&Vec<usize>, &Vec<usize>)| a.iter().filter(|row| b.contains(row)).count();
    let kept: usize = of_found.iter().zip(&of_expected).map(kept).sum();
    let recall = kept as f64 / (10 * of_found.len()) as f64;
    let mean = cosines.iter().sum::<f32>() / cosines.len() as f32;
    println!("{}: cosine {mean} on average, {worst} at worst; recall@10 {recall}", model.device());
    assert!(worst >= cosine, "worst cosine {worst}");
    assert!(recall >= share, "recall@10 {recall}");
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
