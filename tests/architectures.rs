//! The golden cases of every architecture (`tests/golden/make_architectures.py`), against both executors.

mod support;

use lexel::{Device, Dtype, SentenceTransformer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use support::golden::Golden;
use support::{encoding, scoring};

/// Models that are refused, each with the key that the error must name and the reason.
const REFUSED: &[(&str, &str, &str)] = &[
    ("deberta-v2-conv", "conv_kernel_size", "a convolution beside the first layer: DeBERTa v2 xlarge alone has it"),
    ("nomic-scaled", "rotary_scaling_factor", "beyond the trained positions each text has rotary angles of its own"),
];

fn golden() -> &'static Golden {
    static GOLDEN: OnceLock<Golden> = OnceLock::new();
    GOLDEN.get_or_init(|| Golden::read("architectures"))
}

fn name_of(case: &Value) -> &str {
    case["name"].as_str().unwrap()
}

/// The family of a case's model.
fn family(case: &Value) -> &str {
    let model = golden().section("models").iter().find(|model| model["name"] == case["model"]);
    model.and_then(|model| model["family"].as_str()).unwrap_or_else(|| panic!("{}: no such model", name_of(case)))
}

/// Runs every case of a section and prints the worst difference of each family. All failures are collected: one family's must
/// not hide another's.
fn check_all(section: &str, check: impl Fn(&Value) -> f32) {
    let mut worst: BTreeMap<&str, (f32, &str)> = BTreeMap::new();
    let mut failures = Vec::new();
    for case in golden().section(section) {
        if REFUSED.iter().any(|(model, ..)| case["model"] == *model) {
            continue;
        }
        match catch_unwind(AssertUnwindSafe(|| check(case))) {
            Ok(difference) => {
                let of_family = worst.entry(family(case)).or_default();
                if difference >= of_family.0 {
                    *of_family = (difference, name_of(case));
                }
            }
            Err(panic) => {
                let message = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                failures.push(format!("{}: {message}", name_of(case)));
            }
        }
    }
    for (family, (difference, name)) in worst {
        println!("{family:12} {difference:.1e} in {name}");
    }
    assert!(failures.is_empty(), "{} of {section} failed:\n{}", failures.len(), failures.join("\n"));
}

fn check_encodings(device: &Device) {
    check_all("encode", |case| encoding::check_encode(golden(), case, device));
}

fn check_predictions(device: &Device) {
    check_all("predict", |case| scoring::check_predict(golden(), case, device, Dtype::F32, scoring::F32));
}

#[test]
fn what_is_refused_is_named() {
    for (model, key, _) in REFUSED {
        let error = SentenceTransformer::builder(golden().folder(model)).device(Device::Cpu).load().err();
        let message = error.unwrap_or_else(|| panic!("{model} was loaded")).to_string();
        assert!(message.contains(key) && message.contains("config.json"), "{message}");
    }
}

/// Ids and segments of texts or pairs, as the model gets them. A model that gets no segments has zeros.
fn check_tokens(case: &Value) -> f32 {
    let name = case["model"].as_str().unwrap();
    let encodings = match case["pairs"].is_array() {
        true => {
            let model = scoring::model(golden(), name, None, &Device::Cpu, Dtype::F32);
            model.tokenizer().encode_pairs(&golden().pairs(case))
        }
        false => {
            let model = encoding::model(golden(), name, &Device::Cpu, Dtype::F32);
            model.tokenizer().encode_batch(&golden().texts(case))
        }
    };
    let encodings = encodings.unwrap_or_else(|error| panic!("{error}"));
    let (ids, starts) = (golden().integers(&case["expected"]), golden().integers(&case["starts"]));
    let types = match case["types"].is_null() {
        true => vec![0; ids.len()],
        false => golden().integers(&case["types"]),
    };
    assert_eq!(encodings.len() + 1, starts.len(), "{name}: texts");
    for (i, encoding) in encodings.iter().enumerate() {
        let range = starts[i] as usize..starts[i + 1] as usize;
        let as_stored = |numbers: &[u32]| numbers.iter().map(|&number| number as i32).collect::<Vec<_>>();
        assert_eq!(as_stored(&encoding.ids), ids[range.clone()], "{name}: ids of text or pair {i}");
        assert_eq!(as_stored(&encoding.types), types[range], "{name}: segments of text or pair {i}");
    }
    0.0
}

#[test]
fn every_token_id() {
    check_all("tokens", check_tokens);
}

#[test]
fn every_encoding_on_the_cpu() {
    check_encodings(&Device::Cpu);
}

#[test]
fn every_prediction_on_the_cpu() {
    check_predictions(&Device::Cpu);
}

#[cfg(feature = "gpu")]
#[test]
fn every_encoding_on_a_gpu_adapter() {
    if let Some(device) = support::executors::device() {
        check_encodings(&Device::Shared(device));
    }
}

#[cfg(feature = "gpu")]
#[test]
fn every_prediction_on_a_gpu_adapter() {
    if let Some(device) = support::executors::device() {
        check_predictions(&Device::Shared(device));
    }
}
