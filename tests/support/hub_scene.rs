//! A hub with one repository, and a cache for what is downloaded from it.

use crate::support::{Fault, Server};
use lexel::checkpoint::{SourceOptions, download};
use std::path::{Path, PathBuf};

pub const REPO: &str = "sentence-transformers/tiny";

/// A model whose weights are long enough to arrive in several pieces.
pub fn weights() -> Vec<u8> {
    let header = r#"{"embeddings.word_embeddings.weight":{"dtype":"F32","shape":[1000,64],"data_offsets":[0,256000]}}"#;
    let data = (0..64_000).flat_map(|x| (x as f32).to_le_bytes());
    (header.len() as u64).to_le_bytes().into_iter().chain(header.bytes()).chain(data).collect()
}

pub const MODULES: &[u8] =
    br#"[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}]"#;
pub const CONFIG: &[u8] = br#"{"model_type": "bert", "hidden_size": 64, "max_position_embeddings": 32}"#;
pub const POOLING: &[u8] = br#"{"word_embedding_dimension": 64, "pooling_mode_cls_token": true}"#;

/// Everything that is needed, and things that are not.
pub fn repository(weights: &[u8]) -> Vec<(&str, &[u8])> {
    vec![
        ("modules.json", MODULES),
        ("config.json", CONFIG),
        ("config_sentence_transformers.json", b"{}"),
        ("tokenizer.json", b"{}"),
        ("1_Pooling/config.json", POOLING),
        ("model.safetensors", weights),
        ("README.md", b"# hello"),
        ("pytorch_model.bin", b"pickle"),
        ("onnx/model.onnx", b"onnx"),
        ("data_config.json", b"{}"),
    ]
}

pub const NEEDED: [&str; 6] = [
    "1_Pooling/config.json",
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "modules.json",
    "tokenizer.json",
];

/// A server, and a cache folder inside another folder that must stay empty else.
pub struct Scene {
    pub server: Server,
    pub outside: tempfile::TempDir,
    pub options: SourceOptions,
}

impl Scene {
    pub fn new() -> Scene {
        let server = Server::start(REPO, &repository(&weights()));
        let outside = tempfile::tempdir().unwrap();
        let options = SourceOptions {
            endpoint: Some(server.url.clone()),
            cache_dir: Some(outside.path().join("a/b/cache")),
            token: Some("hf_test".to_string()),
            ..SourceOptions::default()
        };
        Scene { server, outside, options }
    }

    pub fn repo_folder(&self) -> PathBuf {
        self.outside.path().join("a/b/cache/models--sentence-transformers--tiny")
    }

    /// Every file below the folder that holds the cache, by path inside it.
    pub fn all_files(&self) -> Vec<String> {
        files_below(self.outside.path())
    }

    pub fn with_fault(fault: Fault) -> Scene {
        let scene = Scene::new();
        scene.server.set_fault(fault);
        scene
    }

    /// Loads, expecting an error; checks that nothing wrong is left and that the next load succeeds once the server is
    /// honest.
    pub fn refusal(&self) -> String {
        let message = download("tiny", &self.options).expect_err("the load must fail").to_string();
        assert!(message.contains(REPO), "{message}");
        for file in self.all_files() {
            assert!(file.starts_with("a/b/cache/"), "{file} lies outside the cache");
            assert!(!file.contains("/refs/"), "a failed download is what main stands for");
            assert!(!file.ends_with("model.safetensors"), "{file} is kept");
        }
        self.server.set_fault(Fault::None);
        let folder = download("tiny", &self.options).unwrap();
        assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), weights());
        message
    }
}

pub fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut stack = vec![folder.to_path_buf()];
    while let Some(next) = stack.pop() {
        for entry in std::fs::read_dir(next).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => stack.push(entry.path()),
                false => found.push(entry.path().strip_prefix(folder).unwrap().to_str().unwrap().to_string()),
            }
        }
    }
    found.sort();
    found
}
