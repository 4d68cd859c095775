//! The golden cases of sparse encoders: what sentence-transformers' `SparseEncoder` computed on tiny checkpoints
//! (`tests/golden/README.md`), against both executors.

mod support;

use lexel::{Device, Dtype, Error, Matrix, SimilarityFunction, SparseEncodeOptions, SparseEncoder, SparseMatrix};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, OnceLock};
use support::golden::Golden;

/// f32 against f32: weights of tokens are below 2.
const F32: f32 = 1e-5;

/// What lexel refuses, and what it says. (The reference's own code for it divides by a deviation that no norm has.)
const REFUSED: (&str, &str) = ("csr-normalized", "normalize = true is not supported");

fn golden() -> &'static Golden {
    static GOLDEN: OnceLock<Golden> = OnceLock::new();
    GOLDEN.get_or_init(|| Golden::read("sparse_encoder"))
}

/// A golden model on a device, loaded once for all tests.
fn model(name: &str, device: &Device, dtype: Dtype) -> SparseEncoder {
    static MODELS: Mutex<BTreeMap<String, SparseEncoder>> = Mutex::new(BTreeMap::new());
    let key = format!("{name} {} {}", matches!(device, Device::Cpu), dtype.name());
    let load = || load(name, device, dtype).unwrap_or_else(|error| panic!("{name}: {error}"));
    MODELS.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).entry(key).or_insert_with(load).clone()
}

fn load(name: &str, device: &Device, dtype: Dtype) -> lexel::Result<SparseEncoder> {
    SparseEncoder::builder(golden().folder(name)).device(device.clone()).dtype(dtype).load()
}

fn on_cpu(case: &Value) -> SparseEncoder {
    model(case["model"].as_str().unwrap(), &Device::Cpu, Dtype::F32)
}

fn options(case: &Value) -> SparseEncodeOptions {
    let options = &case["options"];
    let text = |key: &str| options[key].as_str().map(String::from);
    SparseEncodeOptions {
        prompt: text("prompt"),
        prompt_name: text("prompt_name"),
        task: text("task"),
        max_active_dims: options["max_active_dims"].as_u64().map(|dims| dims as usize),
        ..SparseEncodeOptions::default()
    }
}

fn encode(model: &SparseEncoder, case: &Value) -> lexel::Result<SparseMatrix> {
    let texts = golden().texts(case);
    match case["method"].as_str() {
        Some("encode_query") => model.encode_query(&texts, &options(case)),
        Some("encode_document") => model.encode_document(&texts, &options(case)),
        _ => model.encode_with(&texts, &options(case)),
    }
}

/// The same numbers; in f32 of the same dimensions, too.
fn check(name: &str, found: &SparseMatrix, expected: &Matrix, dtype: Dtype, tolerance: f32) -> f32 {
    assert_eq!(found.shape(), expected.shape(), "{name}");
    let (dense, mut worst) = (found.to_dense(), 0f32);
    for (r, (found, expected)) in dense.iter().zip(expected.iter()).enumerate() {
        for (c, (a, b)) in found.iter().zip(expected).enumerate() {
            let difference = (a - b).abs() / b.abs().max(1.0);
            assert!(difference <= tolerance, "{name}: dimension {c} of text {r} is {a}, expected {b}");
            assert!(dtype != Dtype::F32 || (*a == 0.0) == (*b == 0.0), "{name}: dimension {c} of text {r}: {a}, {b}");
            worst = worst.max(difference);
        }
    }
    worst
}

/// Runs every case.
fn check_all(device: &Device, dtype: Dtype, tolerance: f32) {
    let (mut run, mut worst) = (0, (0f32, ""));
    for case in golden().section("encode").iter().filter(|case| case["model"] != REFUSED.0) {
        let name = case["name"].as_str().unwrap();
        let model = model(case["model"].as_str().unwrap(), device, dtype);
        let found = encode(&model, case).unwrap_or_else(|error| panic!("{name}: {error}"));
        let difference = check(name, &found, &golden().matrix(&case["expected"]), dtype, tolerance);
        if difference > worst.0 {
            worst = (difference, name);
        }
        run += 1;
    }
    println!("{run} cases, worst difference {:e} in {}", worst.0, worst.1);
    assert!(run > 30, "only {run} cases were run");
}

#[test]
fn every_embedding_on_the_cpu() {
    check_all(&Device::Cpu, Dtype::F32, F32);
}

#[cfg(feature = "gpu")]
#[test]
fn every_embedding_on_a_gpu_adapter() {
    if let Some(device) = support::executors::device() {
        check_all(&Device::Shared(device), Dtype::F32, F32);
    }
}

/// f16 storage: through tiny models, logits of size 3 are known to 1e-2 (9e-3 found).
#[cfg(feature = "gpu")]
#[test]
fn every_embedding_in_f16_on_a_gpu_adapter() {
    let Some(device) = support::executors::device() else { return };
    if device.description().features.f16 {
        check_all(&Device::Shared(device), Dtype::F16, 1e-2);
    }
}

#[test]
fn every_model_says_what_the_reference_says() {
    for case in golden().section("models").iter().filter(|case| case["name"] != REFUSED.0) {
        let name = case["name"].as_str().unwrap();
        let model = model(name, &Device::Cpu, Dtype::F32);
        assert_eq!(model.dim() as u64, case["dimension"].as_u64().unwrap(), "{name}");
        assert_eq!(model.max_seq_length().map(|length| length as u64), case["max_seq_length"].as_u64(), "{name}");
        assert_eq!(Some(model.similarity_function().name()), case["similarity_fn_name"].as_str(), "{name}");
        assert_eq!(model.max_active_dims().map(|dims| dims as u64), case["max_active_dims"].as_u64(), "{name}");
        assert_eq!(model.default_prompt_name(), case["default_prompt_name"].as_str(), "{name}");
        let prompts: BTreeMap<String, String> = serde_json::from_value(case["prompts"].clone()).unwrap();
        assert_eq!(*model.prompts(), prompts, "{name}");
    }
}

#[test]
fn every_similarity() {
    for case in golden().section("similarity") {
        let (model, name) = (on_cpu(case), case["name"].as_str().unwrap());
        let texts = |key: &str| -> Vec<&str> {
            case[key].as_array().unwrap().iter().map(|index| golden().text(index)).collect()
        };
        let options = SparseEncodeOptions::default();
        let queries = model.encode_query(&texts("queries"), &options).unwrap();
        let documents = model.encode_document(&texts("documents"), &options).unwrap();
        let function: SimilarityFunction = case["function"].as_str().unwrap().parse().unwrap();
        let close = |found: &[f32], expected: &[f32]| {
            assert_eq!(found.len(), expected.len(), "{name}");
            for (a, b) in found.iter().zip(expected) {
                assert!((a - b).abs() <= F32 * b.abs().max(1.0), "{name}: {a}, expected {b}");
            }
        };
        close(&function.sparse_matrix(&queries, &documents).unwrap().data, &golden().matrix(&case["matrix"]).data);
        let pairs = function.sparse_pairwise(&queries, &documents).unwrap();
        close(&pairs, &golden().matrix(&case["pairwise"]).data);
        if function == model.similarity_function() {
            assert_eq!(model.similarity_pairwise(&queries, &documents).unwrap(), pairs);
        }
    }
}

#[test]
fn every_decoding() {
    for case in golden().section("decode") {
        let (model, name) = (on_cpu(case), case["name"].as_str().unwrap());
        let top_k = case["top_k"].as_u64().map(|k| k as usize);
        let found = model.decode(&encode(&model, case).unwrap(), top_k);
        let expected: Vec<Vec<(String, f32)>> = serde_json::from_value(case["expected"].clone()).unwrap();
        assert_eq!(found.len(), expected.len(), "{name}");
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found.len(), expected.len(), "{name}");
            for ((token, weight), (expected_token, expected)) in found.iter().zip(expected) {
                assert!(token == expected_token && (weight - expected).abs() <= F32, "{name}: {token} {weight}");
            }
        }
    }
}

#[test]
fn every_sparsity_and_intersection() {
    for case in golden().section("sparsity") {
        let found = encode(&on_cpu(case), case).unwrap().sparsity();
        let expected = |key: &str| case["expected"][key].as_f64().unwrap();
        assert!((found.active_dims - expected("active_dims")).abs() < 1e-5, "{case}: {found:?}");
        assert!((found.sparsity_ratio - expected("sparsity_ratio")).abs() < 1e-5, "{case}: {found:?}");
    }
    for case in golden().section("intersection") {
        let embeddings = encode(&on_cpu(case), case).unwrap();
        let shared = embeddings.intersection(0, &embeddings);
        check(case["name"].as_str().unwrap(), &shared, &golden().matrix(&case["expected"]), Dtype::F32, F32);
    }
}

#[test]
fn refusals_name_what_is_wrong() {
    let message = load(REFUSED.0, &Device::Cpu, Dtype::F32).unwrap_err().to_string();
    assert!(message.contains(REFUSED.1) && message.contains("2_SparseAutoEncoder"), "{message}");
    let bert = model("bert", &Device::Cpu, Dtype::F32);
    let zero = SparseEncodeOptions { max_active_dims: Some(0), ..Default::default() };
    assert!(matches!(bert.encode_with(&["a"], &zero), Err(Error::InvalidInput(_))));
    let unknown = SparseEncodeOptions { prompt_name: Some("none".into()), ..Default::default() };
    let message = bert.encode_with(&["a"], &unknown).unwrap_err().to_string();
    assert!(message.contains("no prompt named 'none'"), "{message}");
    let task = SparseEncodeOptions { task: Some("other".into()), ..Default::default() };
    let message = model("router", &Device::Cpu, Dtype::F32).encode_with(&["a"], &task).unwrap_err().to_string();
    assert!(message.contains("no route for the task \"other\""), "{message}");
    // A dense model is none, and the other way round.
    let dense = Golden::read("").folder("bert-head64");
    let message = SparseEncoder::builder(dense).device(Device::Cpu).load().unwrap_err().to_string();
    assert!(message.contains("ForMaskedLM"), "{message}");
    assert!(bert.encode::<&str>(&[]).unwrap().shape() == [0, 64]);
}

/// A folder of a model whose only module is a router with one route, of the modules of another model.
fn routed(name: &str, modules: &[(&str, &str, &str)]) -> tempfile::TempDir {
    let (from, folder) = (golden().folder(name), tempfile::tempdir().unwrap());
    let (mut types, mut ids) = (Vec::new(), Vec::new());
    for (i, (class, path, files)) in modules.iter().enumerate() {
        let id = format!("query_{i}_{class}");
        std::fs::create_dir(folder.path().join(&id)).unwrap();
        for file in files.split(' ') {
            std::fs::copy(Path::new(&from).join(path).join(file), folder.path().join(&id).join(file)).unwrap();
        }
        types.push(format!(r#""{id}": "x.{class}""#));
        ids.push(format!(r#""{id}""#));
    }
    let router = format!(r#"{{"types": {{{}}}, "structure": {{"query": [{}]}}}}"#, types.join(", "), ids.join(", "));
    let files = [
        ("router_config.json", router.as_str()),
        ("modules.json", r#"[{"idx": 0, "name": "0", "path": "", "type": "x.Router"}]"#),
        ("config_sentence_transformers.json", r#"{"model_type": "SparseEncoder"}"#),
    ];
    files.iter().for_each(|(name, text)| std::fs::write(folder.path().join(name), text).unwrap());
    folder
}

#[test]
fn a_route_keeps_as_many_numbers_as_its_auto_encoder_says() {
    let transformer = "config.json model.safetensors sentence_bert_config.json tokenizer.json tokenizer_config.json";
    let folder = routed(
        "csr",
        &[
            ("Transformer", "", transformer),
            ("Pooling", "1_Pooling", "config.json"),
            ("SparseAutoEncoder", "2_SparseAutoEncoder", "config.json model.safetensors"),
        ],
    );
    let model = SparseEncoder::builder(folder.path().to_str().unwrap()).device(Device::Cpu).load().unwrap();
    let texts = ["the sun is red", "a cat sings"];
    assert_eq!(model.max_active_dims(), Some(6));
    let expected = self::model("csr", &Device::Cpu, Dtype::F32).encode(&texts).unwrap();
    assert_eq!(model.encode(&texts).unwrap(), expected);
}

#[test]
fn weights_of_tokens_are_cut_and_lowercased_as_the_tokenizers_files_say() {
    let files = "config.json model.safetensors tokenizer.json tokenizer_config.json";
    let folder = routed("router", &[("SparseStaticEmbedding", "query_0_SparseStaticEmbedding", files)]);
    let path = folder.path().join("query_0_SparseStaticEmbedding/tokenizer_config.json");
    let tokens = |side: &str, lower: bool| -> BTreeSet<String> {
        let config = format!(
            r#"{{"tokenizer_class": "BertTokenizer", "do_lower_case": {lower}, "truncation_side": "{side}", "model_max_length": 3,
                "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}}"#
        );
        std::fs::write(&path, config).unwrap();
        let model = SparseEncoder::builder(folder.path().to_str().unwrap()).device(Device::Cpu).load().unwrap();
        assert_eq!(model.device(), "no device: weights of tokens");
        let embeddings = model.encode(&["The night is it, the a"]).unwrap();
        model.decode(&embeddings, None).remove(0).into_iter().map(|(token, _)| token).collect()
    };
    let set = |tokens: &[&str]| tokens.iter().map(|token| token.to_string()).collect::<BTreeSet<_>>();
    assert_eq!(tokens("right", true), set(&["the", "night", "is"]));
    assert_eq!(tokens("left", true), set(&[",", "the", "a"]));
    assert_eq!(tokens("right", false), set(&["[UNK]", "night", "is"]));
}

#[test]
fn a_call_can_be_awaited_and_cancelled() {
    let (bert, router) = (model("bert", &Device::Cpu, Dtype::F32), model("router", &Device::Cpu, Dtype::F32));
    let texts: Vec<&str> = golden().texts.iter().map(String::as_str).collect();
    let awaited = pollster::block_on(bert.encode_async(texts.clone(), Default::default())).unwrap();
    assert_eq!(awaited, bert.encode(&texts).unwrap());
    for model in [bert, router] {
        let cancel = lexel::Cancel::new();
        cancel.cancel();
        let options = SparseEncodeOptions { cancel: Some(cancel), ..Default::default() };
        assert!(matches!(model.encode_query(&texts, &options), Err(Error::Cancelled { done: 0, total: 10, .. })));
    }
}
