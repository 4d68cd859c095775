//! Downloads, from a hub on this machine that keeps to the protocol or breaks it.
#![cfg(feature = "hub")]

#[path = "support/hub_scene.rs"]
mod scene;
#[path = "support/hub.rs"]
mod support;

use std::path::Path;
use std::sync::{Arc, Mutex};

use lexel::Error;
use lexel::checkpoint::{Checkpoint, ModelType, SourceOptions, download};
use lexel::program::{TensorSpec, WeightSource};
use scene::{CONFIG, MODULES, NEEDED, POOLING, REPO, Scene, files_below, repository, weights};
use support::{Fault, git_sha1, sha256};

#[test]
fn only_what_is_needed_and_only_once() {
    let mut scene = Scene::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    scene.options.progress = Some(Arc::new(move |progress| log.lock().unwrap().push(progress.clone())));
    let checkpoint = Checkpoint::open("tiny", &scene.options).unwrap();
    assert_eq!(checkpoint.name(), REPO);
    assert_eq!(checkpoint.modules().len(), 3);
    assert_eq!(checkpoint.transformer().unwrap().1.max_seq_length, Some(32));
    assert_eq!(files_below(checkpoint.folder()), NEEDED);

    // Python's layout: a ref, snapshots that link to blobs named by their hash, markers for what does not exist.
    let commit = checkpoint.commit().unwrap();
    let repo = scene.repo_folder();
    assert_eq!(std::fs::read_to_string(repo.join("refs/main")).unwrap(), commit);
    assert_eq!(checkpoint.folder(), repo.join("snapshots").join(commit));
    let link = std::fs::read_link(checkpoint.folder().join("1_Pooling/config.json")).unwrap();
    assert_eq!(link, Path::new("../../../blobs").join(git_sha1(POOLING)));
    assert_eq!(std::fs::read(repo.join("blobs").join(sha256(&weights()))).unwrap(), weights());
    assert!(repo.join(".no_exist").join(commit).join("sentence_bert_config.json").is_file());

    let requests = scene.server.take_requests();
    assert!(requests.iter().all(|request| request.authorization.as_deref() == Some("Bearer hf_test")));
    assert!(!requests.iter().any(|request| request.path.contains("pytorch") || request.path.contains("README")));
    let seen = seen.lock().unwrap();
    let last = seen.last().unwrap();
    assert_eq!((last.file.as_str(), last.file_done, last.done), ("model.safetensors", 256_105, last.total), "{last:?}");
    assert!(seen.windows(2).all(|pair| pair[0].done <= pair[1].done));

    // Again: one question for the branch's commit, none for a commit that is there.
    download("tiny", &scene.options).unwrap();
    assert_eq!(scene.server.take_requests().len(), 1);
    scene.options.revision = Some(commit.to_string());
    download("tiny", &scene.options).unwrap();
    scene.options.offline = true;
    scene.options.revision = None;
    assert_eq!(download("tiny", &scene.options).unwrap(), checkpoint.folder());
    assert_eq!(scene.server.take_requests(), []);
}

#[test]
fn revisions() {
    let mut scene = Scene::new();
    let weights = weights();
    let mut other = repository(&weights);
    other[4].1 = br#"{"word_embedding_dimension": 64, "pooling_mode_max_tokens": true}"#;
    let commit = scene.server.add_revision("refs/pr/7", &other);
    for revision in ["refs/pr/7", commit.as_str()] {
        scene.options.revision = Some(revision.to_string());
        let checkpoint = Checkpoint::open(REPO, &scene.options).unwrap();
        assert_eq!(checkpoint.commit(), Some(commit.as_str()));
    }
    let pr = std::fs::read_to_string(scene.repo_folder().join("refs/refs/pr/7")).unwrap();
    assert_eq!(pr, commit);
    // The weights are the same blob: `main` needs only the other pooling.
    scene.options.revision = None;
    scene.server.take_requests();
    download("tiny", &scene.options).unwrap();
    assert!(!scene.server.take_requests().iter().any(|request| request.path.contains("safetensors")));
    // A branch that moves on.
    let moved = scene.server.add_revision("main", &other[..8]);
    assert_eq!(Checkpoint::open("tiny", &scene.options).unwrap().commit(), Some(moved.as_str()));

    scene.options.revision = Some("nowhere".to_string());
    let error = download("tiny", &scene.options).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }) && error.to_string().contains("nowhere"), "{error}");
    scene.options.revision = Some("../../x".to_string());
    assert!(matches!(download("tiny", &scene.options), Err(Error::InvalidInput(_))));
    let nowhere = SourceOptions { endpoint: Some("example".to_string()), revision: None, ..scene.options.clone() };
    let error = download("lexel/tiny", &nowhere).unwrap_err().to_string();
    assert!(error.contains("the hub's address 'example'") && error.contains("https://huggingface.co"), "{error}");
}

#[test]
fn a_body_that_is_cut_short_goes_on_later() {
    let scene = Scene::with_fault(Fault::ShortBody);
    let message = scene.refusal();
    assert!(message.contains("128052 of 256105 bytes are kept"), "{message}");
    let ranges: Vec<_> = scene.server.take_requests().into_iter().filter_map(|request| request.range).collect();
    assert!(ranges.contains(&"bytes=128052-256104".to_string()), "{ranges:?}");
}

#[test]
fn a_size_that_lies() {
    let message = Scene::with_fault(Fault::LyingSize).refusal();
    assert!(message.contains("expected 1000000 bytes, got 256105"), "{message}");
    let message = Scene::with_fault(Fault::LongBody).refusal();
    assert!(message.contains("expected 256105 bytes, the server sends more"), "{message}");
}

#[test]
fn contents_that_are_not_what_their_hash_says() {
    let message = Scene::with_fault(Fault::WrongContents).refusal();
    assert!(message.contains("model.safetensors: expected contents with the checksum"), "{message}");
}

#[test]
fn names_that_lead_out_of_the_cache() {
    for evil in ["../../../../evil", "/tmp/evil", "a/b", "..", "", "a\\b", ".hidden"] {
        let message = Scene::with_fault(Fault::EvilEtag(evil)).refusal();
        assert!(message.contains("hash (ETag) of config.json"), "{message}");
        let message = Scene::with_fault(Fault::EvilCommit(evil)).refusal();
        assert!(message.contains("as the commit of revision main"), "{message}");
    }
    for evil in ["../evil", "/tmp/evil", "a/../../evil", "a\\b", "C:/evil"] {
        let message = Scene::with_fault(Fault::EvilFile(evil)).refusal();
        assert!(message.contains("the server lists a file"), "{message}");
    }
}

#[test]
fn a_commit_that_is_another() {
    let mut scene = Scene::with_fault(Fault::EvilCommit("0123456789012345678901234567890123456789"));
    scene.options.revision = Some(scene.server.add_revision("v1", &repository(&weights())));
    assert!(download("tiny", &scene.options).unwrap_err().to_string().contains("refused"));
}

#[test]
fn statuses_say_what_to_do() {
    for (status, advice) in
        [(401, "HF_TOKEN"), (403, "accept the model's conditions"), (404, "check its name"), (500, "500")]
    {
        let message = Scene::with_fault(Fault::Status(status)).refusal();
        assert!(message.contains(advice), "{status}: {message}");
    }
}

#[test]
fn a_server_that_is_down() {
    let mut scene = Scene::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let there = scene.options.endpoint.replace(nowhere.clone());
    let message = download("tiny", &scene.options).unwrap_err().to_string();
    assert!(message.contains(&nowhere) && message.contains("refused"), "{message}");
    scene.options.endpoint = there;
    let folder = download("tiny", &scene.options).unwrap();
    scene.options.endpoint = Some(nowhere);
    assert_eq!(download("tiny", &scene.options).unwrap(), folder);
    scene.options.endpoint = Some(scene.server.url.clone());
    scene.server.set_fault(Fault::Status(503));
    assert_eq!(download("tiny", &scene.options).unwrap(), folder);
}

#[test]
fn many_at_once_download_once() {
    let scene = Scene::with_fault(Fault::Slow);
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|_| scope.spawn(|| Checkpoint::open("tiny", &scene.options).unwrap())).collect();
        for checkpoint in all {
            assert_eq!(files_below(checkpoint.join().unwrap().folder()), NEEDED);
        }
    });
    let requests = scene.server.take_requests();
    let bodies = requests.iter().filter(|r| r.method == "GET" && r.path.starts_with("/cdn/")).count();
    assert_eq!(bodies, 1);
}

#[test]
fn a_mirror_without_trees() {
    let scene = Scene::with_fault(Fault::NoTree);
    let checkpoint = Checkpoint::open("tiny", &scene.options).unwrap();
    assert_eq!(files_below(checkpoint.folder()), NEEDED);
}

#[test]
fn xet_writes_nothing_outside() {
    Scene::with_fault(Fault::Xet).refusal();
}

#[test]
fn a_snapshot_that_another_program_began_is_completed() {
    let scene = Scene::new();
    let folder = download("tiny", &scene.options).unwrap();
    // What the transformers library alone would have fetched: without modules.json this would be another model.
    std::fs::remove_file(folder.join("modules.json")).unwrap();
    std::fs::remove_dir_all(folder.join("1_Pooling")).unwrap();
    assert_eq!(Checkpoint::open("tiny", &scene.options).unwrap().modules().len(), 3);
    assert_eq!(files_below(&folder), NEEDED);
}

#[test]
fn models_that_cannot_be_loaded_are_refused_before_their_weights() {
    let scene = Scene::new();
    let custom = br#"[{"idx": 0, "name": "0", "path": "", "type": "custom_st.MyModule"}]"#;
    let weights = weights();
    let mut files = repository(&weights);
    files[0].1 = custom;
    scene.server.add_revision("main", &files);
    let message = download("tiny", &scene.options).unwrap_err().to_string();
    assert!(message.contains("custom_st.MyModule"), "{message}");
    let pickled: Vec<_> = repository(&weights).into_iter().filter(|(name, _)| *name != "model.safetensors").collect();
    scene.server.add_revision("main", &pickled);
    let message = download("tiny", &scene.options).unwrap_err().to_string();
    assert!(message.contains("pytorch_model.bin") && message.contains("convert"), "{message}");
    assert!(!scene.server.take_requests().iter().any(|request| request.path.starts_with("/cdn/")));
}

#[test]
fn an_adapter_comes_without_a_model_and_names_its_base() {
    let scene = Scene::new();
    let base = scene.outside.path().join("base");
    std::fs::create_dir(&base).unwrap();
    std::fs::write(base.join("config.json"), CONFIG).unwrap();
    let config = serde_json::json!({"peft_type": "LORA", "base_model_name_or_path": base}).to_string();
    let files: [(&str, &[u8]); 6] = [
        ("modules.json", MODULES),
        ("adapter_config.json", config.as_bytes()),
        ("adapter_model.safetensors", b"weights"),
        ("tokenizer.json", b"{}"),
        ("1_Pooling/config.json", POOLING),
        ("optimizer.safetensors", b"more"),
    ];
    scene.server.add_revision("main", &files);
    let checkpoint = Checkpoint::open(REPO, &scene.options).unwrap();
    assert_eq!(checkpoint.transformer().unwrap().1.backbone, base);
    for (name, _) in &files[..5] {
        assert!(checkpoint.folder().join(name).is_file(), "{name}");
    }
    assert!(!checkpoint.folder().join("optimizer.safetensors").exists());
    // And from the cache alone, which is known to be whole.
    scene.server.take_requests();
    let offline = SourceOptions { offline: true, ..scene.options.clone() };
    assert_eq!(Checkpoint::open(REPO, &offline).unwrap().transformer().unwrap().1.backbone, base);
    assert!(scene.server.take_requests().is_empty());

    // A base model that is nowhere is an error that names it.
    let config = serde_json::json!({"base_model_name_or_path": "./nowhere"}).to_string();
    let files = [("adapter_config.json", config.as_bytes()), ("adapter_model.safetensors", b"weights")];
    scene.server.add_revision("main", &files);
    let message = Checkpoint::open(REPO, &scene.options).unwrap_err().to_string();
    assert!(message.contains("./nowhere"), "{message}");
}

#[test]
fn an_adapter_is_added_to_another_model() {
    let scene = Scene::new();
    let base = scene.outside.path().join("base");
    std::fs::create_dir(&base).unwrap();
    std::fs::write(base.join("config.json"), CONFIG).unwrap();
    std::fs::write(base.join("model.safetensors"), weights()).unwrap();
    // The table gets 2 * [0, 1, 2, ...]^T * [1, 1, ...].
    let name = "base_model.model.embeddings.word_embeddings.lora_embedding";
    let header = format!(
        r#"{{"{name}_A":{{"dtype":"F32","shape":[1,1000],"data_offsets":[0,4000]}},
            "{name}_B":{{"dtype":"F32","shape":[64,1],"data_offsets":[4000,4256]}}}}"#
    );
    let numbers = (0..1000).map(|x| x as f32).chain([1.0; 64]).flat_map(f32::to_le_bytes);
    let length = (header.len() as u64).to_le_bytes();
    let adapter: Vec<u8> = length.into_iter().chain(header.bytes()).chain(numbers).collect();
    let config = br#"{"peft_type": "LORA", "r": 1, "lora_alpha": 2, "base_model_name_or_path": "another/one"}"#;
    let files = [("adapter_config.json", &config[..]), ("adapter_model.safetensors", &adapter)];
    scene.server.add_revision("main", &files);
    let mut checkpoint = Checkpoint::open(base.to_str().unwrap(), &scene.options).unwrap();
    let table = TensorSpec { module: 0, name: "embeddings.word_embeddings.weight".into(), shape: vec![1000, 64] };
    let row = |checkpoint: &Checkpoint| checkpoint.weights().unwrap().read(&table, 7..8).unwrap()[..2].to_vec();
    assert_eq!(row(&checkpoint), [448.0, 449.0]);
    checkpoint.set_adapter(REPO, &scene.options).unwrap();
    assert_eq!(row(&checkpoint), [462.0, 463.0]);
    let message = checkpoint.set_adapter("nobody/nothing", &scene.options).unwrap_err().to_string();
    assert!(message.contains("nobody/nothing"), "{message}");
}

#[test]
fn a_colbert_comes_with_its_settings() {
    let scene = Scene::new();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/multi_vector_encoder/models");
    let read = |name: &str| std::fs::read(golden.join(name)).unwrap();
    let [config, tokenizer] = ["stanford-bare/config.json", "stanford-bare/tokenizer.json"].map(read);
    let [weights, metadata] = ["stanford-bare/model.safetensors", "stanford/artifact.metadata"].map(read);
    let files: [(&str, &[u8]); 6] = [
        ("config.json", &config),
        ("tokenizer.json", &tokenizer),
        ("model.safetensors", &weights),
        ("pytorch_model.bin", b"pickle"),
        ("artifact.metadata", &metadata),
        ("vocab.txt", b""),
    ];
    scene.server.add_revision("main", &files);
    assert_eq!(Checkpoint::type_of("tiny", &scene.options).unwrap(), ModelType::MultiVectorEncoder);
    let checkpoint = Checkpoint::open_as(ModelType::MultiVectorEncoder, "tiny", &scene.options).unwrap();
    let names = ["artifact.metadata", "config.json", "model.safetensors", "tokenizer.json"];
    assert_eq!(files_below(checkpoint.folder()), names);
    let lengths = &checkpoint.transformer().unwrap().1.lengths;
    assert_eq!((lengths.document, lengths.expansion.as_ref().map(|expansion| expansion.length)), (Some(12), Some(9)));
    assert_eq!(checkpoint.settings().prompts["query"], "[unused0] ");
}

#[test]
fn shards() {
    let scene = Scene::new();
    let weights = weights();
    let index = br#"{"weight_map": {"embeddings.word_embeddings.weight": "model-00001-of-00001.safetensors"}}"#;
    let mut files = repository(&weights);
    files[5].0 = "model-00001-of-00001.safetensors";
    files.push(("model.safetensors.index.json", index));
    scene.server.add_revision("main", &files);
    let checkpoint = Checkpoint::open("tiny", &scene.options).unwrap();
    assert!(checkpoint.weights().unwrap().contains(0, "embeddings.word_embeddings.weight"));
    files.last_mut().unwrap().1 = br#"{"weight_map": {"a": "../../evil.safetensors"}}"#;
    scene.server.add_revision("main", &files);
    assert!(download("tiny", &scene.options).unwrap_err().to_string().contains("evil.safetensors"));
}

/// Environment variables belong to a process: each case is this test binary again, as a child.
#[test]
fn the_environment() {
    let scene = Scene::new();
    let cache = scene.options.cache_dir.clone().unwrap();
    let child = |variables: &[(&str, &str)]| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["child", "--exact", "--ignored", "--nocapture"]);
        for name in
            ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "HF_TOKEN_PATH", "SENTENCE_TRANSFORMERS_HOME"]
        {
            command.env_remove(name);
        }
        command.env("HF_ENDPOINT", &scene.server.url).env("HF_HUB_CACHE", &cache).env("HF_HOME", scene.outside.path());
        command.envs(variables.iter().copied());
        command.output().unwrap().status.success()
    };
    assert!(!child(&[("HF_HUB_OFFLINE", "1")]), "nothing is cached yet");
    assert_eq!(scene.server.take_requests(), []);
    assert!(child(&[("HF_TOKEN", "hf_env")]));
    let requests = scene.server.take_requests();
    assert!(requests.len() > 5 && requests.iter().all(|r| r.authorization.as_deref() == Some("Bearer hf_env")));
    for offline in ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] {
        assert!(child(&[(offline, "true")]));
        assert_eq!(scene.server.take_requests(), []);
    }
    let token_file = scene.outside.path().join("my-token");
    std::fs::write(&token_file, "hf_file\n").unwrap();
    assert!(child(&[("HF_TOKEN_PATH", token_file.to_str().unwrap()), ("HF_HUB_OFFLINE", "0")]));
    assert_eq!(scene.server.take_requests()[0].authorization.as_deref(), Some("Bearer hf_file"));
}

#[test]
#[ignore = "the child process of the_environment"]
fn child() {
    download("tiny", &SourceOptions::default()).unwrap();
}
