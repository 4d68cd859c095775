//! The golden cases of every architecture (`tests/golden/make_architectures.py`), against both executors.

mod support;

use half::f16;
use lexel::{Device, Dtype, EncodeOptions, Error, SentenceTransformer, models};
use safetensors::SafeTensors;
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
    check_all_of(section, |_| true, check);
}

/// The same for some of the cases.
fn check_all_of(section: &str, which: impl Fn(&Value) -> bool, check: impl Fn(&Value) -> f32) {
    let mut worst: BTreeMap<&str, (f32, &str)> = BTreeMap::new();
    let mut failures = Vec::new();
    for case in golden().section(section) {
        if REFUSED.iter().any(|(model, ..)| case["model"] == *model) || !which(case) {
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
        println!("{family:21} {difference:.1e} in {name}");
    }
    assert!(failures.is_empty(), "{} of {section} failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn weights_by_a_formula_are_those_of_python() {
    let file = support::formula::expand(br#"{"x": [[1, 5], 101007, 1.0, 0.25]}"#);
    let file = SafeTensors::deserialize(&file).unwrap();
    let tensor = file.tensor("x").unwrap();
    assert_eq!(tensor.shape(), [1, 5]);
    let numbers = tensor.data().chunks_exact(2).map(|bytes| f16::from_le_bytes([bytes[0], bytes[1]]).to_f32());
    // `formula.numbers((1, 5), 101007, 1.0, 0.25)` of tests/golden/formula.py
    assert_eq!(numbers.collect::<Vec<_>>(), [1.153_320_3, 0.895_507_8, 0.931_152_34, 1.091_796_9, 0.889_160_16]);
}

fn check_encodings(device: &Device) {
    check_all("encode", |case| encoding::check_encode(golden(), case, device, Dtype::F32));
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

#[test]
fn adapters_that_are_not_there_or_of_another_model() {
    let refused = |model: &str, adapter: &str| {
        let loader = encoding::loader(golden(), model, Some(adapter)).device(Device::Cpu);
        loader.load().err().unwrap_or_else(|| panic!("{model} took {adapter}")).to_string()
    };
    let message = refused("flash-tasks", "retrieval");
    assert!(message.contains("adapter 'retrieval' not found") && message.contains("retrieval.passage"), "{message}");
    let message = refused("modernbert-mean", &format!("{}/adapter", golden().folder("lora")));
    assert!(message.contains("found an adapter that belongs to another"), "{message}");
    assert!(refused("jina-v3", "../lora").contains("adapter '../lora' not found"));

    // Nothing is computed with other weights than were asked for.
    let options = |task: &str| EncodeOptions { task: Some(task.into()), ..EncodeOptions::default() };
    let load = |adapter| encoding::loader(golden(), "flash-tasks", adapter).device(Device::Cpu).load().unwrap();
    let query = load(Some("retrieval.query"));
    assert!(query.encode_with(&["a"], &options("retrieval.query")).is_ok());
    for model in [query, load(None)] {
        let message = model.encode_with(&["a"], &options("separation")).unwrap_err().to_string();
        assert!(message.contains("\"separation\" has an adapter of its own"), "{message}");
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
fn what_a_cross_encoder_says_of_itself() {
    let is_reranker = |case: &&Value| case["cross_encoder"] == true && case["loads"] != false;
    for case in golden().section("models").iter().filter(is_reranker) {
        let name = name_of(case);
        let model = scoring::model(golden(), name, None, &Device::Cpu, Dtype::F32);
        assert_eq!(model.labels().len() as u64, case["num_labels"].as_u64().unwrap(), "{name}: labels");
        assert_eq!(model.max_seq_length().map(|n| n as u64), case["max_length"].as_u64(), "{name}: max_length");
        let activation = models::torch_activation(case["activation"].as_str().unwrap());
        assert_eq!(Some(model.activation()), activation, "{name}: activation");
        let prompts: BTreeMap<String, String> = serde_json::from_value(case["prompts"].clone()).unwrap();
        assert_eq!(*model.prompts(), prompts, "{name}: prompts");
        assert_eq!(model.default_prompt_name(), case["default_prompt_name"].as_str(), "{name}: default prompt");
    }
}

#[test]
fn what_the_reference_refuses_is_refused() {
    for case in golden().section("errors") {
        let model = case["model"].as_str().unwrap();
        let embedding = || encoding::model(golden(), model, &Device::Cpu, Dtype::F32);
        let refused = match case["method"].as_str().unwrap() {
            "predict" => {
                let model = scoring::model(golden(), model, None, &Device::Cpu, Dtype::F32);
                model.predict_with(&golden().pairs(case), &scoring::options(case))
            }
            "encode" => embedding().encode_with(&golden().texts(case), &encoding::options(case)),
            "encode_document" => embedding().encode_document(&golden().texts(case), &encoding::options(case)),
            method => panic!("unknown method {method}"),
        };
        let error = refused.err().unwrap_or_else(|| panic!("{}: {} was accepted", name_of(case), case["reason"]));
        assert!(matches!(error, Error::InvalidInput(_)), "{error}");
    }
}

#[test]
fn every_token_id() {
    check_all("tokens", check_tokens);
}

#[test]
fn every_encoding_on_the_cpu() {
    check_encodings(&Device::Cpu);
}

/// Models whose Dense modules, or adapters, make matrices of more than f16; their tables have no more.
const MATRICES_IN_F32: [&str; 3] = ["asym", "lora-alone", "router-mapped"];

/// Models whose tables have more than f16.
const TABLES_IN_F32: [&str; 19] = [
    "gemma3-uncausal",
    "gemma",
    "gemma-gelu",
    "gemma2",
    "gemma2-bidirectional",
    "embedding-gemma2",
    "embedding-gemma2-half",
    "embedding-gemma2-whole",
    "ernie",
    "gemma3",
    "gemma3-old",
    "gemma3-causal",
    "static",
    "static-truncated",
    "model2vec",
    "model2vec-mapped",
    "model2vec-weighted",
    "router",
    "stored-f32",
];

/// Whether a case's tables are what f16 holds: not where an adapter is added to them.
fn has_tables_in_f16(case: &Value) -> bool {
    encoding::adapter(case).is_none() && !TABLES_IN_F32.contains(&case["model"].as_str().unwrap())
}

/// A sample of texts goes through every architecture while it loads. The models are so narrow that their matrices do not become
/// int8, so that it changes nothing; their tables are in f16, which most checkpoints have no more than.
#[test]
fn every_encoding_on_the_cpu_after_a_sample() {
    check_all("encode", |case| {
        if has_tables_in_f16(case) {
            return encoding::check_encode(golden(), case, &Device::Cpu, Dtype::Int8);
        }
        let loader = encoding::loader(golden(), case["model"].as_str().unwrap(), encoding::adapter(case));
        let loader = loader.device(Device::Cpu).dtype(Dtype::Int8);
        let without = encoding::encode_by(&loader.sample([""; 0]).load().unwrap(), golden(), case);
        let with = encoding::encode_by(&encoding::model_of(golden(), case, &Device::Cpu, Dtype::Int8), golden(), case);
        assert_eq!(with, without, "{}", name_of(case));
        encoding::check_encode_in_f16(golden(), case, &Device::Cpu, Dtype::Int8)
    });
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

/// The CPU stores no more than weights in f16, and most of these checkpoints have no more.
#[test]
fn every_encoding_in_f16_on_the_cpu() {
    check_all("encode", |case| {
        let has_matrices_in_f16 = !MATRICES_IN_F32.contains(&case["model"].as_str().unwrap());
        match has_matrices_in_f16 && has_tables_in_f16(case) {
            true => encoding::check_encode(golden(), case, &Device::Cpu, Dtype::F16),
            false => encoding::check_encode_in_f16(golden(), case, &Device::Cpu, Dtype::F16),
        }
    });
}

/// With AMX, too: these models are too narrow for it.
#[test]
fn every_encoding_in_bf16_on_the_cpu() {
    check_all("encode", |case| {
        let has_matrices_in_f16 = !MATRICES_IN_F32.contains(&case["model"].as_str().unwrap());
        match has_matrices_in_f16 && has_tables_in_f16(case) {
            true => encoding::check_encode(golden(), case, &Device::Cpu, Dtype::Bf16),
            false => encoding::check_cosine(golden(), case, &Device::Cpu, Dtype::Bf16, encoding::BF16_COSINE),
        }
    });
}

/// Families whose real models leave the range of f16: refused in it on a GPU, which stores their hidden states in it.
#[cfg(feature = "gpu")]
const WIDE: [&str; 5] = ["embedding_gemma2_text", "gemma", "gemma2", "gemma3_text", "t5"];

#[cfg(feature = "gpu")]
#[test]
fn what_leaves_the_range_of_f16_is_refused_in_it_on_a_gpu() {
    let Some(device) = support::executors::device() else { return };
    for name in ["embedding-gemma2", "gemma", "gemma2", "gemma3", "t5-relu", "t5-gated"] {
        let device = Device::Shared(device.clone());
        let loader = SentenceTransformer::builder(golden().folder(name)).device(device).dtype(Dtype::F16);
        let message = loader.load().unwrap_err().to_string();
        assert!(message.contains("f16, whose range they leave") && message.contains("f32"), "{message}");
    }
}

/// Runs a section's cases on an adapter that computes in f16, but for those that leave its range.
#[cfg(feature = "gpu")]
fn check_all_in_f16(section: &str, check: impl Fn(&Value, &Device) -> f32) {
    let Some(device) = support::executors::device() else { return };
    if device.description().features.f16 {
        let device = Device::Shared(device);
        check_all_of(section, |case| !WIDE.contains(&family(case)), |case| check(case, &device));
    }
}

/// f16 storage: cosine to the reference at least 0.9999 (design goal).
#[cfg(feature = "gpu")]
#[test]
fn every_encoding_in_f16_on_a_gpu_adapter() {
    check_all_in_f16("encode", |case, device| encoding::check_encode_in_f16(golden(), case, device, Dtype::F16));
}

/// f16 storage: logits of a few units to 2 %. The worst measured is 1.2 % (modernbert-reranker: 1.3828 for 1.3658), of a random
/// checkpoint that amplifies rounding: PyTorch's own half computes 1.3945 there.
#[cfg(feature = "gpu")]
const F16_SCORES: f32 = 2e-2;

#[cfg(feature = "gpu")]
#[test]
fn every_prediction_in_f16_on_a_gpu_adapter() {
    let check = |case: &Value, device: &Device| scoring::check_predict(golden(), case, device, Dtype::F16, F16_SCORES);
    check_all_in_f16("predict", check);
}
