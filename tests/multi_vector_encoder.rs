//! The golden cases of late interaction: what sentence-transformers' `MultiVectorEncoder` computed on tiny checkpoints
//! (`tests/golden/README.md`), against both executors.

mod support;

use lexel::checkpoint::{Checkpoint, ModelType, SourceOptions};
use lexel::{
    Device, Dtype, Error, HierarchicalTokenPooling, LateInteraction, Matrix, MultiVectorEncodeOptions,
    MultiVectorEncoder,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, OnceLock};
use support::golden::{Golden, put_together};

/// f32 against f32: vectors of length 1 through tiny models.
const F32: f32 = 1e-5;

fn golden() -> &'static Golden {
    static GOLDEN: OnceLock<Golden> = OnceLock::new();
    GOLDEN.get_or_init(|| Golden::read("multi_vector_encoder"))
}

/// A golden model on a device, loaded once for all tests.
fn model(name: &str, device: &Device, dtype: Dtype) -> MultiVectorEncoder {
    static MODELS: Mutex<BTreeMap<String, MultiVectorEncoder>> = Mutex::new(BTreeMap::new());
    let key = format!("{name} {} {}", matches!(device, Device::Cpu), dtype.name());
    let load = || load(&golden().folder(name), device, dtype).unwrap_or_else(|error| panic!("{name}: {error}"));
    MODELS.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).entry(key).or_insert_with(load).clone()
}

fn load(folder: &str, device: &Device, dtype: Dtype) -> lexel::Result<MultiVectorEncoder> {
    MultiVectorEncoder::builder(folder).device(device.clone()).dtype(dtype).load()
}

fn on_cpu(case: &Value) -> MultiVectorEncoder {
    model(case["model"].as_str().unwrap(), &Device::Cpu, Dtype::F32)
}

fn pooling(case: &Value) -> HierarchicalTokenPooling {
    HierarchicalTokenPooling {
        num_protected_tokens: case["num_protected_tokens"].as_u64().unwrap_or(1) as usize,
        normalize_embeddings: case["normalize_embeddings"].as_bool().unwrap_or(true),
        ..HierarchicalTokenPooling::new(case["pool_factor"].as_f64().unwrap())
    }
}

fn encode(model: &MultiVectorEncoder, case: &Value, texts: &[&str]) -> lexel::Result<Vec<Matrix>> {
    let options = &case["options"];
    let text = |key: &str| options[key].as_str().map(String::from);
    let options = MultiVectorEncodeOptions {
        prompt: text("prompt"),
        prompt_name: text("prompt_name"),
        normalize: options["normalize_embeddings"].as_bool().unwrap_or(false),
        token_pooling: options["token_pooling"].is_object().then(|| pooling(&options["token_pooling"])),
        ..MultiVectorEncodeOptions::default()
    };
    match case["method"].as_str() {
        Some("encode_query") => model.encode_query(texts, &options),
        Some("encode_document") => model.encode_document(texts, &options),
        _ => model.encode_with(texts, &options),
    }
}

/// As many vectors for each text, and the same numbers. The largest difference.
fn check(case: &Value, found: &[Matrix], tolerance: f32) -> f32 {
    let name = case["name"].as_str().unwrap();
    let counts: Vec<usize> = serde_json::from_value(case["counts"].clone()).unwrap();
    assert_eq!(found.iter().map(|text| text.rows).collect::<Vec<_>>(), counts, "{name}");
    let expected = if case["expected"].is_null() { &case["name"] } else { &case["expected"] };
    let (expected, mut worst) = (golden().matrix(expected), 0f32);
    for (i, (row, expected)) in found.iter().flat_map(Matrix::iter).zip(expected.iter()).enumerate() {
        assert_eq!(row.len(), expected.len(), "{name}");
        for (a, b) in row.iter().zip(expected) {
            let difference = (a - b).abs() / b.abs().max(1.0);
            assert!(difference <= tolerance, "{name}: vector {i} has {a}, expected {b}");
            worst = worst.max(difference);
        }
    }
    worst
}

/// Runs every case, of some dtype with no clusters to be found: near ties would decide.
fn check_all(device: &Device, dtype: Dtype, tolerance: f32) {
    let (mut run, mut worst) = (0, (0f32, ""));
    let is_pooled =
        |case: &&Value| case["options"]["token_pooling"].is_object() || case["model"].to_string().contains("pooled");
    for case in golden().section("encode").iter().filter(|case| dtype == Dtype::F32 || !is_pooled(case)) {
        let name = case["name"].as_str().unwrap();
        let model = model(case["model"].as_str().unwrap(), device, dtype);
        let found = encode(&model, case, &golden().texts(case)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let difference = check(case, &found, tolerance);
        if difference > worst.0 {
            worst = (difference, name);
        }
        run += 1;
    }
    println!("{run} cases, worst difference {:e} in {}", worst.0, worst.1);
    assert!(run > 25, "only {run} cases were run");
}

#[test]
fn every_vector_on_the_cpu() {
    check_all(&Device::Cpu, Dtype::F32, F32);
}

#[cfg(feature = "gpu")]
#[test]
fn every_vector_on_a_gpu_adapter() {
    if let Some(device) = support::executors::device() {
        check_all(&Device::Shared(device), Dtype::F32, F32);
    }
}

/// f16 storage: components of vectors of length 1 are known to 1e-2.
#[cfg(feature = "gpu")]
#[test]
fn every_vector_in_f16_on_a_gpu_adapter() {
    let Some(device) = support::executors::device() else { return };
    if device.description().features.f16 {
        check_all(&Device::Shared(device), Dtype::F16, 1e-2);
    }
}

/// A text's vectors depend on nothing else in the call.
#[test]
fn texts_may_be_encoded_together() {
    let texts: Vec<&str> = golden().texts.iter().map(String::as_str).collect();
    for name in ["bert", "bert-min", "modernbert"] {
        let model = model(name, &Device::Cpu, Dtype::F32);
        let together = model.encode_query(&texts, &Default::default()).unwrap();
        for (text, together) in texts.iter().zip(together) {
            let alone = model.encode_query(&[text], &Default::default()).unwrap().remove(0);
            assert_eq!(alone.shape(), together.shape(), "{name}: {text}");
            let worst = alone.data.iter().zip(&together.data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < F32, "{name}: {text}: {worst}");
        }
    }
}

/// What a model says of itself, and what its entry leaves out as its base's entry has it.
fn facts(name: &str) -> serde_json::Map<String, Value> {
    let entry = golden().section("models").iter().find(|case| case["name"] == name).unwrap();
    let base = entry["base"].as_str().filter(|base| !base.starts_with(".."));
    let mut all = base.map_or_else(Default::default, facts);
    all.extend(entry.as_object().unwrap().clone());
    all
}

#[test]
fn every_model_says_what_the_reference_says() {
    for case in golden().section("models") {
        let name = case["name"].as_str().unwrap();
        let (model, facts) = (model(name, &Device::Cpu, Dtype::F32), facts(name));
        let number = |key: &str| facts[key].as_u64().map(|number| number as usize);
        assert_eq!(Some(model.dim()), number("dimension"), "{name}");
        assert_eq!(model.max_seq_length(), number("max_seq_length"), "{name}");
        assert_eq!(Some(model.similarity_function().name()), facts["similarity_fn_name"].as_str(), "{name}");
        assert_eq!(model.default_prompt_name(), facts["default_prompt_name"].as_str(), "{name}");
        let prompts: BTreeMap<String, Option<String>> = serde_json::from_value(facts["prompts"].clone()).unwrap();
        let prompts: BTreeMap<_, _> =
            prompts.into_iter().map(|(name, text)| (name, text.unwrap_or_default())).collect();
        assert_eq!(*model.prompts(), prompts, "{name}");
        let document = number("document_length").or(number("max_seq_length"));
        assert_eq!(model.document_length(), document, "{name}");
        let expansion = &facts["query_expansion"];
        let fixed = (expansion["strategy"] == "fixed").then(|| expansion["length"].as_u64().unwrap() as usize);
        assert_eq!(model.query_length(), fixed.or(number("query_length")).or(number("max_seq_length")), "{name}");
    }
}

/// Where a repository's type is not stored, its files show it; but for a dense one, which only its user can mean so.
#[test]
fn every_model_is_known_as_what_it_is() {
    for case in golden().section("models") {
        let name = case["name"].as_str().unwrap();
        let found = Checkpoint::type_of(&golden().folder(name), &SourceOptions::default()).unwrap();
        let dense = name == "converted";
        let expected = if dense { ModelType::SentenceTransformer } else { ModelType::MultiVectorEncoder };
        assert_eq!(found, expected, "{name}");
    }
}

fn close(name: &str, found: &[f32], expected: &Value) {
    let rows = expected.as_array().unwrap().iter();
    let expected: Vec<f64> = rows
        .flat_map(|row| row.as_array().map_or(vec![row], |row| row.iter().collect()))
        .map(|x| x.as_f64().unwrap())
        .collect();
    assert_eq!(found.len(), expected.len(), "{name}");
    for (a, b) in found.iter().zip(expected) {
        assert!((f64::from(*a) - b).abs() <= f64::from(F32) * b.abs().max(1.0), "{name}: {a}, expected {b}");
    }
}

#[test]
fn every_similarity() {
    for case in golden().section("similarity") {
        let (model, name) = (on_cpu(case), case["name"].as_str().unwrap());
        let texts = |key: &str| -> Vec<&str> {
            case[key].as_array().unwrap().iter().map(|index| golden().text(index)).collect()
        };
        let queries = model.encode_query(&texts("queries"), &Default::default()).unwrap();
        let documents = model.encode_document(&texts("documents"), &Default::default()).unwrap();
        let function: LateInteraction = case["function"].as_str().unwrap().parse().unwrap();
        let scores = function.matrix(&queries, &documents).unwrap();
        close(name, &scores.data, &case["matrix"]);
        let pairs = function.pairwise(&queries, &documents[..queries.len()]).unwrap();
        close(name, &pairs, &case["pairwise"]);
        if function == model.similarity_function() {
            assert_eq!(model.similarity(&queries, &documents).unwrap(), scores, "{name}");
            assert_eq!(model.similarity_pairwise(&queries, &documents[..queries.len()]).unwrap(), pairs, "{name}");
            for (hits, scores) in model.semantic_search(&queries, &documents, 2).unwrap().iter().zip(scores.iter()) {
                assert!(
                    hits[0].score == scores[hits[0].corpus_id] && scores.iter().all(|&other| other <= hits[0].score)
                );
            }
        }
    }
    for case in golden().section("empty") {
        let name = case["name"].as_str().unwrap();
        let texts = |key: &str| -> Vec<Matrix> {
            let texts: Vec<Vec<Vec<f32>>> = serde_json::from_value(case[key].clone()).unwrap();
            texts.iter().map(|rows| Matrix::new(rows.len(), rows.first().map_or(0, Vec::len), rows.concat())).collect()
        };
        let (queries, documents) = (texts("queries"), texts("documents"));
        let function: LateInteraction = case["function"].as_str().unwrap().parse().unwrap();
        close(name, &function.matrix(&queries, &documents).unwrap().data, &case["matrix"]);
        close(name, &function.pairwise(&queries[..2], &documents[..2]).unwrap(), &case["pairwise"]);
    }
}

#[test]
fn every_pooling() {
    for case in golden().section("pooling") {
        let documents = on_cpu(case).encode_document(&golden().texts(case), &Default::default()).unwrap();
        check(case, &pooling(case).pool(&documents).unwrap(), F32);
    }
}

/// What the reference refuses.
#[test]
fn every_error() {
    for case in golden().section("errors") {
        let (name, over) = (case["name"].as_str().unwrap(), tempfile::tempdir().unwrap());
        if case["sentence_bert_config"].is_object() {
            let file = over.path().join("sentence_bert_config.json");
            std::fs::write(file, case["sentence_bert_config"].to_string()).unwrap();
        }
        let model = golden().folder(case["model"].as_str().unwrap());
        let folder = put_together(&[Path::new(&model), over.path()]);
        let loaded = load(folder.to_str().unwrap(), &Device::Cpu, Dtype::F32);
        let texts = if case["texts"].is_array() { golden().texts(case) } else { vec![] };
        let error = match (case["method"].as_str().unwrap(), loaded) {
            ("load", loaded) => loaded.err(),
            (_, loaded) => encode(&loaded.unwrap_or_else(|error| panic!("{name}: {error}")), case, &texts).err(),
        };
        let error = error.unwrap_or_else(|| panic!("{name}: {} was accepted", case["reason"]));
        println!("{name}: {error}");
    }
}

#[test]
fn what_is_no_such_model_is_refused_by_name() {
    let dense = Golden::read("").folder("plain");
    let message = load(&dense, &Device::Cpu, Dtype::F32).unwrap_err().to_string();
    assert!(message.contains("projection") && message.contains("Dense"), "{message}");
    let bert = golden().folder("bert");
    let message = lexel::SparseEncoder::load(&bert).unwrap_err().to_string();
    assert!(message.contains("ForMaskedLM"), "{message}");
    let bert = model("bert", &Device::Cpu, Dtype::F32);
    let unknown = MultiVectorEncodeOptions { prompt_name: Some("none".into()), ..Default::default() };
    let message = bert.encode_with(&["a"], &unknown).unwrap_err().to_string();
    assert!(message.contains("no prompt named 'none'"), "{message}");
    assert!(bert.encode::<&str>(&[]).unwrap().is_empty());
}

#[test]
fn a_call_can_be_awaited_and_cancelled() {
    let bert = model("bert", &Device::Cpu, Dtype::F32);
    let texts: Vec<&str> = golden().texts.iter().map(String::as_str).collect();
    let awaited = pollster::block_on(bert.encode_query_async(texts.clone(), Default::default())).unwrap();
    assert_eq!(awaited, bert.encode_query(&texts, &Default::default()).unwrap());
    let cancel = lexel::Cancel::new();
    cancel.cancel();
    let options = MultiVectorEncodeOptions { cancel: Some(cancel), ..Default::default() };
    assert!(matches!(bert.encode_query(&texts, &options), Err(Error::Cancelled { done: 0, total: 8, .. })));
}
