//! Golden cases of scores, run on a device.

use super::golden::Golden;
use lexel::{CrossEncoder, Device, Dtype, Matrix, PredictOptions, models};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// f32 against f32, behind the activation; logits are of size 1 to 10.
pub const F32: f32 = 1e-5;

/// A golden model on a device, loaded once for all tests.
pub fn model(golden: &Golden, name: &str, max_length: Option<u64>, device: &Device, dtype: Dtype) -> CrossEncoder {
    static MODELS: Mutex<BTreeMap<String, CrossEncoder>> = Mutex::new(BTreeMap::new());
    let key = format!("{name} {max_length:?} {} {}", matches!(device, Device::Cpu), dtype.name());
    let load = || load(golden, name, max_length, device, dtype).unwrap_or_else(|error| panic!("{name}: {error}"));
    MODELS.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).entry(key).or_insert_with(load).clone()
}

/// Loads a golden model.
pub fn load(
    golden: &Golden,
    name: &str,
    max_length: Option<u64>,
    device: &Device,
    dtype: Dtype,
) -> lexel::Result<CrossEncoder> {
    let mut loader = CrossEncoder::builder(golden.folder(name)).device(device.clone()).dtype(dtype);
    if let Some(length) = max_length {
        loader = loader.max_seq_length(length as usize);
    }
    loader.load()
}

pub fn options(case: &Value) -> PredictOptions {
    let options = &case["options"];
    let text = |key: &str| options[key].as_str().map(String::from);
    let activation = |class: &str| models::torch_activation(class).unwrap_or_else(|| panic!("{class}"));
    PredictOptions {
        prompt: text("prompt"),
        prompt_name: text("prompt_name"),
        activation: options["activation_fn"].as_str().map(activation),
        softmax: options["apply_softmax"].as_bool().unwrap_or(false),
        ..PredictOptions::default()
    }
}

pub fn predict(golden: &Golden, case: &Value, device: &Device, dtype: Dtype) -> Matrix {
    let model = model(golden, case["model"].as_str().unwrap(), case["options"]["max_length"].as_u64(), device, dtype);
    model.predict_with(&golden.pairs(case), &options(case)).unwrap_or_else(|error| panic!("{case}: {error}"))
}

/// Runs one case of the section `predict`; answers with the worst difference, relative to scores above 1.
pub fn check_predict(golden: &Golden, case: &Value, device: &Device, dtype: Dtype, tolerance: f32) -> f32 {
    let name = case["name"].as_str().unwrap();
    let (found, expected) = (predict(golden, case, device, dtype), golden.matrix(&case["expected"]));
    assert_eq!(found.data.len(), expected.data.len(), "{name}: scores");
    let mut worst = 0f32;
    for (i, (a, b)) in found.data.iter().zip(&expected.data).enumerate() {
        let difference = (a - b).abs() / b.abs().max(1.0);
        assert!(difference <= tolerance, "{name}: score {i} is {a}, expected {b}: off by {difference:e}");
        worst = worst.max(difference);
    }
    worst
}
