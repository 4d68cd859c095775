//! Golden cases of embeddings, run on a device.

use super::golden::Golden;
use lexel::{
    Device, Dtype, EncodeOptions, Loader, Matrix, Precision, QuantizedData, SentenceTransformer, SimilarityFunction,
    quantize_embeddings,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// f32 against f32, absolute for normalised embeddings and relative to the largest component for others (design goal for
/// small models).
pub const F32: f32 = 1e-5;

/// The least cosine of an embedding in f16 to the reference's (design goal).
pub const F16_COSINE: f32 = 0.9999;

/// The same in bf16, whose numbers have three bits less: eight times f16's error is a cosine of 0.9936.
pub const BF16_COSINE: f32 = 0.997;

/// Codes of a byte are the floor of a float, so the last bit of the float decides some of them.
const CODE_STEP: i32 = 1;

/// A golden model on a device, loaded once for all tests.
pub fn model(golden: &Golden, name: &str, device: &Device, dtype: Dtype) -> SentenceTransformer {
    model_with(golden, name, None, device, dtype)
}

/// What loads a golden model, with an adapter or none.
pub fn loader(golden: &Golden, name: &str, adapter: Option<&str>) -> Loader<SentenceTransformer> {
    let loader = SentenceTransformer::builder(golden.folder(name));
    match adapter {
        Some(adapter) => loader.adapter(adapter),
        None => loader,
    }
}

/// The adapter that a case names.
pub fn adapter(case: &Value) -> Option<&str> {
    case["options"]["adapter"].as_str()
}

/// The model of a case on a device, loaded once for all tests.
pub fn model_of(golden: &Golden, case: &Value, device: &Device, dtype: Dtype) -> SentenceTransformer {
    model_with(golden, case["model"].as_str().unwrap(), adapter(case), device, dtype)
}

fn model_with(
    golden: &Golden,
    name: &str,
    adapter: Option<&str>,
    device: &Device,
    dtype: Dtype,
) -> SentenceTransformer {
    static MODELS: Mutex<BTreeMap<String, SentenceTransformer>> = Mutex::new(BTreeMap::new());
    let key = format!("{name} {adapter:?} {} {}", matches!(device, Device::Cpu), dtype.name());
    let load = || {
        let loader = loader(golden, name, adapter).device(device.clone()).dtype(dtype);
        loader.load().unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    MODELS.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).entry(key).or_insert_with(load).clone()
}

pub fn options(case: &Value) -> EncodeOptions {
    let options = &case["options"];
    let text = |key: &str| options[key].as_str().map(String::from);
    EncodeOptions {
        prompt: text("prompt"),
        prompt_name: text("prompt_name"),
        task: text("task"),
        normalize: options["normalize"].as_bool().unwrap_or(false),
        truncate_dim: options["truncate_dim"].as_u64().map(|dim| dim as usize),
        ..EncodeOptions::default()
    }
}

/// The worst difference, relative to the largest expected number of its row where that is above 1.
fn worst(found: &Matrix, expected: &Matrix) -> (f32, usize, usize) {
    let mut worst = (0.0, 0, 0);
    for r in 0..expected.rows {
        let scale = expected.row(r).iter().fold(1f32, |scale, x| scale.max(x.abs()));
        for (c, (a, b)) in found.row(r).iter().zip(expected.row(r)).enumerate() {
            let difference = (a - b).abs() / scale;
            if difference.is_nan() || difference > worst.0 {
                worst = (difference, r, c);
            }
        }
    }
    worst
}

pub fn assert_close(name: &str, found: &Matrix, expected: &Matrix, tolerance: f32) -> f32 {
    assert_eq!(found.shape(), expected.shape(), "{name}: shape");
    let (difference, r, c) = worst(found, expected);
    assert!(
        difference <= tolerance,
        "{name}: off by {difference:e} (tolerance {tolerance:e}) at row {r}, column {c}: {} for {}",
        found.row(r)[c],
        expected.row(r)[c]
    );
    difference
}

/// Runs one case of the section `encode`; answers with the worst difference.
pub fn check_encode(golden: &Golden, case: &Value, device: &Device, dtype: Dtype) -> f32 {
    let name = case["name"].as_str().unwrap();
    let found = encode(golden, case, device, dtype);
    if let Some(precision) = precision(case) {
        let found = quantize_embeddings(&found, precision, None).unwrap();
        let (_, expected) = golden.tensor(&case["expected"]);
        assert_codes(name, precision, &found.data, &expected);
        return 0.0;
    }
    if found.rows == 0 {
        return 0.0; // the reference forgets the dimension and gives shape [0]
    }
    assert_close(name, &found, &expected(golden, case), F32)
}

/// The same in f16, or with tables in f16: see [`check_cosine`].
pub fn check_encode_in_f16(golden: &Golden, case: &Value, device: &Device, dtype: Dtype) -> f32 {
    check_cosine(golden, case, device, dtype, F16_COSINE)
}

/// The same by the cosine of each embedding to the reference's; answers with what the least lacks to 1.
pub fn check_cosine(golden: &Golden, case: &Value, device: &Device, dtype: Dtype, at_least: f32) -> f32 {
    let found = encode(golden, case, device, dtype);
    if precision(case).is_some() || found.rows == 0 {
        return 0.0; // codes have no angle, and no embeddings have none
    }
    let expected = expected(golden, case);
    let cosines = SimilarityFunction::Cosine.pairwise(&found, &expected).unwrap();
    // A text without tokens has a vector of zeros, and so no angle to itself.
    let is_zero = |row: &[f32]| row.iter().all(|&x| x == 0.0);
    let of_row = |r: usize| if is_zero(expected.row(r)) && is_zero(found.row(r)) { 1.0 } else { cosines[r] };
    let least = (0..expected.rows).map(of_row).fold(1f32, f32::min);
    assert!(least >= at_least, "{}: cosine {least}", case["name"]);
    1.0 - least
}

/// The embeddings of a case's texts, or of all their tokens, as its model gives them.
fn encode(golden: &Golden, case: &Value, device: &Device, dtype: Dtype) -> Matrix {
    encode_by(&model_of(golden, case, device, dtype), golden, case)
}

/// The same, as this model gives them.
pub fn encode_by(model: &SentenceTransformer, golden: &Golden, case: &Value) -> Matrix {
    let name = case["name"].as_str().unwrap();
    let (texts, options) = (golden.texts(case), options(case));
    if case["options"]["output_value"] == "token_embeddings" {
        let found = model.encode_tokens(&texts, &options).unwrap();
        let starts = golden.integers(&case["starts"]);
        let lengths: Vec<i32> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(found.iter().map(|m| m.rows as i32).collect::<Vec<_>>(), lengths, "{name}: tokens a text");
        let (rows, cols) = (found.iter().map(|m| m.rows).sum(), found[0].cols);
        return Matrix::new(rows, cols, found.into_iter().flat_map(|m| m.data).collect());
    }
    let found = match case["method"].as_str().unwrap() {
        "encode" => model.encode_with(&texts, &options),
        "encode_query" => model.encode_query(&texts, &options),
        "encode_document" => model.encode_document(&texts, &options),
        method => panic!("{name}: unknown method {method}"),
    };
    let found = found.unwrap();
    assert!(!texts.is_empty() || found.shape() == [0, model.dim()], "{name}");
    found
}

/// What the embeddings of a case are turned into: `None` for numbers.
fn precision(case: &Value) -> Option<Precision> {
    let precision = case["options"]["precision"].as_str().filter(|precision| *precision != "float32");
    precision.map(|precision| precision.parse().unwrap())
}

/// What the reference gave.
fn expected(golden: &Golden, case: &Value) -> Matrix {
    let mut expected = golden.matrix(&case["expected"]);
    // Max pooling where the prompt leaves no token: the reference gives minus infinity, which no index can take; lexel gives
    // zeros, as both do for the other modes.
    expected.data.iter_mut().filter(|x| **x == f32::NEG_INFINITY).for_each(|x| *x = 0.0);
    expected
}

pub fn assert_codes(name: &str, precision: Precision, found: &QuantizedData, expected: &[u8]) {
    let found: Vec<i32> = match found {
        QuantizedData::I8(codes) => codes.iter().map(|code| i32::from(*code)).collect(),
        QuantizedData::U8(codes) => codes.iter().map(|code| i32::from(*code)).collect(),
    };
    let signed = matches!(precision, Precision::Int8 | Precision::Binary);
    let expected: Vec<i32> =
        expected.iter().map(|byte| if signed { i32::from(*byte as i8) } else { i32::from(*byte) }).collect();
    assert_eq!(found.len(), expected.len(), "{name}: codes");
    let allowed = if matches!(precision, Precision::Int8 | Precision::Uint8) { CODE_STEP } else { 0 };
    // The largest number of a dimension is 255 steps from the least, give or take its last bit: that alone says if its code is the
    // last or the last but one.
    let last = if signed { 127 } else { 255 };
    let is_largest = |a: i32, b: i32| allowed > 0 && a.max(b) == last;
    let differing = found.iter().zip(&expected).filter(|&(&a, &b)| a != b && !is_largest(a, b)).count();
    for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
        assert!((a - b).abs() <= allowed, "{name}: code {i} is {a}, expected {b}");
    }
    assert!(differing * 100 <= found.len(), "{name}: {differing} of {} codes differ", found.len());
}
