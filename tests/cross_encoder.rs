//! The golden cases of cross-encoders: what sentence-transformers' `CrossEncoder` computed on tiny checkpoints
//! (`tests/golden/README.md`), against both executors.

mod support;

use lexel::{Activation, CrossEncoder, Device, Dtype, Error, PredictOptions, RankOptions, models};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use support::golden::Golden;
use support::scoring::{self, F32, check_predict, options};

/// Its files name no limit: there the reference runs behind its position table, which is lexel's limit.
const BEYOND_THE_TABLE: &str = "length-none-xlm-roberta";

fn golden() -> &'static Golden {
    static GOLDEN: OnceLock<Golden> = OnceLock::new();
    GOLDEN.get_or_init(|| Golden::read("cross_encoder"))
}

/// A golden model on a device, loaded once for all tests.
fn model(name: &str, max_length: Option<u64>, device: &Device, dtype: Dtype) -> CrossEncoder {
    scoring::model(golden(), name, max_length, device, dtype)
}

fn load(name: &str, max_length: Option<u64>, device: &Device, dtype: Dtype) -> lexel::Result<CrossEncoder> {
    scoring::load(golden(), name, max_length, device, dtype)
}

/// Runs every case.
fn check_all_predictions(device: &Device, dtype: Dtype, tolerance: f32) {
    let (mut run, mut worst) = (0, (0f32, ""));
    for case in golden().section("predict") {
        let difference = check_predict(golden(), case, device, dtype, tolerance);
        if difference > worst.0 {
            worst = (difference, case["name"].as_str().unwrap());
        }
        run += 1;
    }
    println!("{run} cases, worst difference {:e} in {}", worst.0, worst.1);
    assert!(run > 100, "only {run} cases were run");
}

#[test]
fn every_prediction_on_the_cpu() {
    check_all_predictions(&Device::Cpu, Dtype::F32, F32);
}

#[cfg(feature = "gpu")]
#[test]
fn every_prediction_on_a_gpu_adapter() {
    if let Some(device) = support::executors::device() {
        check_all_predictions(&Device::Shared(device), Dtype::F32, F32);
    }
}

/// f16 storage: logits of size 10 are known to 1e-2, and their sigmoids to a quarter of that.
#[cfg(feature = "gpu")]
#[test]
fn every_prediction_in_f16_on_a_gpu_adapter() {
    let Some(device) = support::executors::device() else { return };
    if device.description().features.f16 {
        check_all_predictions(&Device::Shared(device), Dtype::F16, 1e-2);
    }
}

#[test]
fn every_rank() {
    for case in golden().section("rank") {
        let name = case["name"].as_str().unwrap();
        let model = model(case["model"].as_str().unwrap(), None, &Device::Cpu, Dtype::F32);
        let documents: Vec<&str> = case["documents"].as_array().unwrap().iter().map(|i| golden().text(i)).collect();
        let options = RankOptions {
            top_k: case["top_k"].as_u64().map(|k| k as usize),
            return_documents: case["return_documents"].as_bool().unwrap(),
            predict: options(case),
        };
        let hits = model.rank_with(golden().text(&case["query"]), &documents, &options).unwrap();
        let expected = case["expected"].as_array().unwrap();
        assert_eq!(hits.len(), expected.len(), "{name}");
        for (hit, expected) in hits.iter().zip(expected) {
            assert_eq!(Some(hit.corpus_id as u64), expected["corpus_id"].as_u64(), "{name}");
            assert!((f64::from(hit.score) - expected["score"].as_f64().unwrap()).abs() <= f64::from(F32), "{name}");
            assert_eq!(hit.text.as_deref(), expected["text"].as_str(), "{name}");
        }
    }
}

#[test]
fn every_token_id_and_segment() {
    let mut truncated = 0;
    for case in golden().section("tokens") {
        let name = case["name"].as_str().unwrap();
        let folder = case["model"].as_str().unwrap();
        let mut tokenizer = model(folder, None, &Device::Cpu, Dtype::F32).tokenizer().clone();
        let length = case["max_length"].as_u64().map(|length| length as usize);
        if tokenizer.set_max_seq_length(length).is_err() {
            // No room for a token of text: the reference gives special tokens alone, or fails.
            continue;
        }
        let prompt = case["prompt"].as_str().unwrap_or_default();
        let starts = golden().integers(&case["starts"]);
        let ids = golden().integers(&case["expected"]);
        // None where the model has no use for them.
        let types = (!case["types"].is_null()).then(|| golden().integers(&case["types"]));
        for (i, (a, b)) in golden().pairs(case).into_iter().enumerate() {
            let range = starts[i] as usize..starts[i + 1] as usize;
            let unsigned = |ids: &[i32]| ids.iter().map(|&id| id as u32).collect::<Vec<u32>>();
            match tokenizer.encode_pair(&format!("{prompt}{a}"), b) {
                Ok(found) => {
                    assert_eq!(found.ids, unsigned(&ids[range.clone()]), "{name}: pair {i}, {a:?}, {b:?}");
                    if let Some(types) = &types {
                        assert_eq!(found.types, unsigned(&types[range]), "{name}: segments of pair {i}, {a:?}, {b:?}");
                    }
                    truncated += usize::from(found.truncated);
                }
                Err(error) => assert!(matches!(error, Error::InvalidInput(_)), "{name}: pair {i}: {error}"),
            }
        }
    }
    assert!(truncated > 100, "only {truncated} pairs were truncated");
}

#[test]
fn what_a_model_says_of_itself() {
    let mut activations = BTreeSet::new();
    for case in golden().section("models") {
        let name = case["name"].as_str().unwrap();
        if case["loads"] == false {
            assert!(load(name, None, &Device::Cpu, Dtype::F32).is_err(), "{name} was loaded");
            continue;
        }
        let model = model(name, None, &Device::Cpu, Dtype::F32);
        let labels: Vec<String> = serde_json::from_value(case["labels"].clone()).unwrap();
        assert_eq!(model.labels(), labels, "{name}: labels");
        let length = model.max_seq_length().map(|length| length as u64);
        if name != BEYOND_THE_TABLE {
            assert_eq!(length, case["max_length"].as_u64(), "{name}: max_length");
        }
        let activation = models::torch_activation(case["activation"].as_str().unwrap());
        assert_eq!(Some(model.activation()), activation, "{name}: activation");
        let prompts: BTreeMap<String, String> = serde_json::from_value(case["prompts"].clone()).unwrap();
        assert_eq!(*model.prompts(), prompts, "{name}: prompts");
        assert_eq!(model.default_prompt_name(), case["default_prompt_name"].as_str(), "{name}: default prompt");
        activations.insert(model.activation().name());
    }
    assert!(activations.len() >= 3, "{activations:?}");
}

#[test]
fn what_the_reference_refuses_is_refused() {
    for case in golden().section("errors") {
        let name = case["name"].as_str().unwrap();
        let (folder, length) = (case["model"].as_str().unwrap(), case["load"]["max_length"].as_u64());
        if case["options"]["batch_size"].is_number() || folder == BEYOND_THE_TABLE {
            continue; // the budget counts tokens: any is at least one pair
        }
        let refused =
            load(folder, length, &Device::Cpu, Dtype::F32).and_then(|model| match case["method"].as_str().unwrap() {
                "predict" => model.predict_with(&golden().pairs(case), &options(case)).map(drop),
                "rank" => model
                    .rank_with("query", &["document"], &RankOptions { predict: options(case), ..Default::default() })
                    .map(drop),
                _ => Ok(()),
            });
        assert!(refused.is_err(), "{name}: {} was accepted", case["reason"]);
    }
}

#[test]
fn an_order_is_kept_whatever_the_batch_size() {
    let case = &golden().section("predict")[0];
    let model = model("bert-3", None, &Device::Cpu, Dtype::F32);
    let pairs: Vec<_> = golden().pairs(case).into_iter().cycle().take(100).collect();
    let expected = model.predict(&pairs).unwrap();
    assert_eq!(expected.shape(), [100, 3]);
    for batch_tokens in [1, 50, 100_000] {
        let options = PredictOptions { batch_tokens: Some(batch_tokens), ..PredictOptions::default() };
        let found = model.predict_with(&pairs, &options).unwrap();
        for (a, b) in found.data.iter().zip(&expected.data) {
            assert!((a - b).abs() <= 1e-6, "{batch_tokens} tokens a batch: {a} for {b}");
        }
    }
    assert_eq!(model.predict::<&str, &str>(&[]).unwrap().shape(), [0, 3]);
}

#[test]
fn a_model_that_is_no_cross_encoder_is_refused_with_its_architecture() {
    let folder = Golden::read("").folder("plain");
    let message = CrossEncoder::load(folder).unwrap_err().to_string();
    assert!(message.contains("architectures") && message.contains("BertModel"), "{message}");
}

#[test]
fn an_activation_that_makes_nan_of_a_logit_is_no_rank() {
    // Sigmoid, softplus and the like are defined everywhere, so a NaN takes an overflow: none of the known ones has it.
    let model = model("bert-1", None, &Device::Cpu, Dtype::F32);
    for activation in Activation::ALL {
        let predict = PredictOptions { activation: Some(activation), ..PredictOptions::default() };
        let hits = model.rank_with("a", &["b", "c"], &RankOptions { predict, ..RankOptions::default() }).unwrap();
        assert!(hits.iter().all(|hit| hit.score.is_finite()), "{}", activation.name());
    }
}

/// The model is so narrow that its matrices do not become int8, and its table is in f16 as it is: all samples give the same. A text
/// without a neighbour is its own.
#[test]
fn texts_of_ones_own_are_the_sample_for_int8() {
    let pairs = [("a river", "the sea"), ("the school", "old and red")];
    let builder = || CrossEncoder::builder(golden().folder("activation-config-identity")).device(Device::Cpu);
    let expected = builder().load().unwrap().predict(&pairs).unwrap();
    for sample in [&[][..], &["one"], &["", "a longer text", "one"]] {
        let model = builder().dtype(Dtype::Int8).sample(sample.iter().copied()).load().unwrap();
        assert_eq!(model.predict(&pairs).unwrap(), expected, "{sample:?}");
    }
}
