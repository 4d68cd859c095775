//! The golden cases: what sentence-transformers itself computed on tiny checkpoints (`tests/golden/README.md`), against
//! both executors.

mod support;

use lexel::{Device, Dtype, Matrix, Precision, Ranges, SentenceTransformer, SimilarityFunction, quantize_embeddings};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use support::encoding::{self, F32, assert_close, assert_codes, check_encode, options};
use support::golden::Golden;

/// Cases that differ on purpose, each with its reason.
const EXCEPTIONS: &[(&str, &str)] =
    &[("dense-foreign", "an activation class outside torch is refused; the reference warns and takes Tanh")];

/// In f16 only: cases whose own mathematics makes a rounding of 1e-3 visible.
#[cfg(feature = "gpu")]
const F16_EXCEPTIONS: &[(&str, &str)] =
    &[("dense-chain-2", "Hardshrink jumps at 0.5: rounding before it turns single components on or off")];

fn golden() -> &'static Golden {
    static GOLDEN: OnceLock<Golden> = OnceLock::new();
    GOLDEN.get_or_init(|| Golden::read(""))
}

fn is_exception(exceptions: &[(&str, &str)], case: &str) -> bool {
    exceptions.iter().any(|(part, _)| case.contains(part))
}

/// A golden model on a device, loaded once for all tests.
fn model(name: &str, device: &Device, dtype: Dtype) -> SentenceTransformer {
    encoding::model(golden(), name, device, dtype)
}

fn check_all_encodings(device: &Device) {
    let golden = golden();
    let (mut run, mut worst) = (0, (0.0, ""));
    for case in golden.section("encode") {
        let name = case["name"].as_str().unwrap();
        if is_exception(EXCEPTIONS, name) {
            continue;
        }
        run += 1;
        let difference = check_encode(golden, case, device, Dtype::F32);
        if difference > worst.0 {
            worst = (difference, name);
        }
    }
    println!("{run} cases, worst difference {:e} in {}", worst.0, worst.1);
    assert!(run > 105, "only {run} cases were run");
}

#[test]
fn every_encoding_on_the_cpu() {
    check_all_encodings(&Device::Cpu);
}

#[cfg(feature = "gpu")]
#[test]
fn every_encoding_on_a_gpu_adapter() {
    if let Some(device) = support::executors::device() {
        check_all_encodings(&Device::Shared(device));
    }
}

/// f16 storage: cosine to the reference at least 0.9999 (design goal).
#[cfg(feature = "gpu")]
#[test]
fn every_encoding_in_f16_on_a_gpu_adapter() {
    let Some(device) = support::executors::device() else { return };
    if !device.description().features.f16 {
        return skip("the adapter has no f16");
    }
    let device = Device::Shared(device);
    let mut worst = (0f32, "");
    for case in golden().section("encode") {
        let name = case["name"].as_str().unwrap();
        if is_exception(EXCEPTIONS, name) || is_exception(F16_EXCEPTIONS, name) {
            continue;
        }
        let lacking = encoding::check_encode_in_f16(golden(), case, &device, Dtype::F16);
        if lacking > worst.0 {
            worst = (lacking, name);
        }
    }
    println!("worst cosine {} in {}", 1.0 - worst.0, worst.1);
}

#[test]
fn every_token_id() {
    let golden = golden();
    for case in golden.section("tokens") {
        let name = case["name"].as_str().unwrap();
        let folder = case["model"].as_str().unwrap();
        if is_exception(EXCEPTIONS, folder) {
            continue;
        }
        let model = model(folder, &Device::Cpu, Dtype::F32);
        let prompt = case["prompt"].as_str().unwrap_or_default();
        let (expected, starts) = (golden.integers(&case["expected"]), golden.integers(&case["starts"]));
        for (i, text) in golden.texts(case).into_iter().enumerate() {
            let found = model.tokenizer().encode(&format!("{prompt}{text}")).unwrap().ids;
            let range = starts[i] as usize..starts[i + 1] as usize;
            let expected: Vec<u32> = expected[range].iter().map(|id| *id as u32).collect();
            assert_eq!(found, expected, "{name}: text {i}, {text:?}");
        }
    }
}

#[test]
fn what_a_model_says_of_itself() {
    for case in golden().section("models") {
        let name = case["name"].as_str().unwrap();
        if is_exception(EXCEPTIONS, name) {
            continue;
        }
        let model = model(name, &Device::Cpu, Dtype::F32);
        assert_eq!(Some(model.dim() as u64), case["dimension"].as_u64(), "{name}: dimension");
        let length = model.max_seq_length().map(|length| length as u64);
        assert_eq!(length, case["max_seq_length"].as_u64(), "{name}: max_seq_length");
        let prompts: BTreeMap<String, String> = serde_json::from_value(case["prompts"].clone()).unwrap();
        assert_eq!(*model.prompts(), prompts, "{name}: prompts");
        assert_eq!(model.default_prompt_name(), case["default_prompt_name"].as_str(), "{name}: default prompt");
        assert_eq!(Some(model.similarity_function().name()), case["similarity_fn_name"].as_str(), "{name}: similarity");
    }
}

#[test]
fn what_the_reference_refuses_is_refused() {
    for case in golden().section("errors") {
        let name = case["name"].as_str().unwrap();
        if case["options"]["batch_size"].is_number() {
            continue; // the budget counts tokens: any is at least one sequence
        }
        let model = model(case["model"].as_str().unwrap(), &Device::Cpu, Dtype::F32);
        let texts = ["one text"];
        let result = match case["method"].as_str().unwrap() {
            "encode_query" => model.encode_query(&texts, &options(case)),
            "encode_document" => model.encode_document(&texts, &options(case)),
            _ => model.encode_with(&texts, &options(case)),
        };
        let refused = result.and_then(|embeddings| match case["options"]["precision"].as_str() {
            Some(precision) => quantize_embeddings(&embeddings, precision.parse()?, None).map(|_| ()),
            None => Ok(()),
        });
        assert!(refused.is_err(), "{name}: {} was accepted", case["reason"]);
    }
}

#[test]
fn every_similarity() {
    let golden = golden();
    for case in golden.section("similarity") {
        let name = case["name"].as_str().unwrap();
        let function: SimilarityFunction = case["function"].as_str().unwrap().parse().unwrap();
        let (a, b, a_pairs, b_pairs) = match case["model"].as_str() {
            None => {
                let (a, b) = (golden.matrix(&case["a"]), golden.matrix(&case["b"]));
                let head = |m: &Matrix, rows: usize| Matrix::new(rows, m.cols, m.data[..rows * m.cols].to_vec());
                let rows = a.rows.min(b.rows);
                let (a_pairs, b_pairs) = (head(&a, rows), head(&b, rows));
                (a, b, a_pairs, b_pairs)
            }
            Some(folder) => {
                let model = model(folder, &Device::Cpu, Dtype::F32);
                assert_eq!(model.similarity_function(), function, "{name}");
                let m = model.encode(&golden.texts(case)).unwrap();
                let reversed = (0..m.rows).rev().flat_map(|r| m.row(r).to_vec()).collect();
                let reversed = Matrix::new(m.rows, m.cols, reversed);
                (m.clone(), m.clone(), m, reversed)
            }
        };
        // Torch computes distances through a matrix product, which cancels near zero.
        let tolerance = if function == SimilarityFunction::Euclidean { 1e-3 } else { F32 };
        assert_close(name, &function.matrix(&a, &b).unwrap(), &golden.matrix(&case["matrix"]), tolerance);
        let pairs = function.pairwise(&a_pairs, &b_pairs).unwrap();
        assert_close(name, &Matrix::new(1, pairs.len(), pairs), &golden.matrix(&case["pairwise"]), tolerance);
    }
}

#[test]
fn every_quantisation() {
    let golden = golden();
    for case in golden.section("quantize") {
        let name = case["name"].as_str().unwrap();
        if case["precision"] == "float32" {
            continue; // a copy
        }
        let precision: Precision = case["precision"].as_str().unwrap().parse().unwrap();
        let data = golden.matrix(&case["data"]);
        let rows = case["rows"].as_u64().map_or(data.rows, |rows| rows as usize);
        let data = Matrix::new(rows, data.cols, data.data[..rows * data.cols].to_vec());
        let ranges = match (&case["ranges"], &case["calibration"]) {
            (Value::String(_), _) => Some(Ranges(golden.matrix(&case["ranges"]))),
            (_, Value::String(_)) => Some(Ranges::of(&golden.matrix(&case["calibration"])).unwrap()),
            _ => None,
        };
        let found = quantize_embeddings(&data, precision, ranges.as_ref());
        if case["error"].is_string() {
            assert!(found.is_err(), "{name}");
        } else {
            assert_codes(name, precision, &found.unwrap().data, &golden.tensor(&case["expected"]).1);
        }
    }
}

/// Past the capture of the test harness: a skip must be seen.
#[cfg(feature = "gpu")]
fn skip(reason: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}
