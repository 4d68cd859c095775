//! Golden data: what the reference library computed, as the scripts in `tests/golden/` wrote it.

use super::formula;
use lexel::matrix::Matrix;
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// A folder of golden data: cases.json, expected.safetensors, models, and the texts that cases name by index.
pub struct Golden {
    pub cases: Value,
    pub texts: Vec<String>,
    folder: PathBuf,
    tensors: Vec<u8>,
    /// The folders of models as they are put together from what is stored.
    overlaid: Mutex<BTreeMap<String, PathBuf>>,
}

impl Golden {
    /// Those in `tests/golden/` or in a folder inside it.
    pub fn read(folder: &str) -> Golden {
        // Another test may have been first.
        let _ = log::set_logger(&AllLayersUsed).map(|()| log::set_max_level(log::LevelFilter::Warn));
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(folder);
        let read = |name: &str| std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let cases: Value = serde_json::from_slice(&read("cases.json")).unwrap();
        let texts = match &cases["texts"] {
            Value::Null => serde_json::from_slice(&read("texts.json")).unwrap(),
            texts => serde_json::from_value(texts.clone()).unwrap(),
        };
        Golden { cases, texts, tensors: read("expected.safetensors"), overlaid: Mutex::default(), folder }
    }

    /// The folder of a model. One with a `base` is the base's files and its own over them. An adapter's base model has its folder's
    /// path in the place of its name.
    pub fn folder(&self, model: &str) -> String {
        let stored = self.folder.join("models").join(model);
        let is_model = |case: &&Value| case["name"] == model;
        let case = self.cases["models"].as_array().and_then(|models| models.iter().find(is_model));
        let base = case.and_then(|case| case["base"].as_str()).map(|base| self.folder(base));
        let folders: Vec<_> = base.iter().map(Path::new).chain([stored.as_path()]).collect();
        let mut overlaid = self.overlaid.lock().unwrap();
        let folder = overlaid.entry(model.to_string()).or_insert_with(|| put_together(&folders)).clone();
        drop(overlaid);
        let config = folder.join("adapter_config.json");
        let text = std::fs::read_to_string(&config).unwrap_or_default();
        if let Some((before, after)) = text.split_once("golden:") {
            let (base, after) = after.split_once('"').unwrap();
            let base = self.folder(base).replace('\\', "/");
            // Whole at once, and the same whoever does it.
            let new = tempfile::NamedTempFile::new_in(&folder).unwrap();
            std::fs::write(&new, format!("{before}{base}\"{after}")).unwrap();
            new.persist(config).unwrap();
        }
        folder.display().to_string()
    }

    pub fn section(&self, name: &str) -> &[Value] {
        self.cases[name].as_array().unwrap_or_else(|| panic!("no section {name}"))
    }

    /// A text by its index, as cases name it.
    pub fn text(&self, index: &Value) -> &str {
        &self.texts[index.as_u64().unwrap() as usize]
    }

    /// The texts of a case: those named by index, else all.
    pub fn texts(&self, case: &Value) -> Vec<&str> {
        match &case["texts"] {
            Value::Array(indices) => indices.iter().map(|index| self.text(index)).collect(),
            _ => self.texts.iter().map(String::as_str).collect(),
        }
    }

    /// The pairs of a case.
    pub fn pairs(&self, case: &Value) -> Vec<(&str, &str)> {
        let pairs = case["pairs"].as_array().unwrap();
        pairs.iter().map(|pair| (self.text(&pair[0]), self.text(&pair[1]))).collect()
    }

    pub fn tensor(&self, name: &Value) -> (Vec<usize>, Vec<u8>) {
        let tensors = SafeTensors::deserialize(&self.tensors).unwrap();
        let tensor = tensors.tensor(name.as_str().unwrap()).unwrap();
        (tensor.shape().to_vec(), tensor.data().to_vec())
    }

    pub fn matrix(&self, name: &Value) -> Matrix {
        let (shape, bytes) = self.tensor(name);
        let data: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        match shape[..] {
            [rows, cols] => Matrix::new(rows, cols, data),
            [n] => Matrix::new(1, n, data),
            _ => panic!("{name} has shape {shape:?}"),
        }
    }

    pub fn integers(&self, name: &Value) -> Vec<i32> {
        let (_, bytes) = self.tensor(name);
        bytes.chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect()
    }
}

/// Golden models have no layers that their configuration has not: whoever is warned of some is warned wrongly.
struct AllLayersUsed;

impl log::Log for AllLayersUsed {
    fn enabled(&self, _: &log::Metadata) -> bool {
        true
    }

    fn log(&self, record: &log::Record) {
        let message = record.args().to_string();
        assert!(!message.contains(" are not used: "), "{message}");
    }

    fn flush(&self) {}
}

/// A folder with the files of all folders, of each name the last, and weights in place of formulas. It stays, under a name that says what is in it, and the next
/// tests take it.
pub fn put_together(folders: &[&Path]) -> PathBuf {
    let mut files = BTreeMap::new();
    for folder in folders {
        read(folder, Path::new(""), &mut files);
    }
    let mut hasher = DefaultHasher::new();
    files.hash(&mut hasher);
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("overlaid");
    let folder = all.join(format!("{:016x}", hasher.finish()));
    if !folder.exists() {
        std::fs::create_dir_all(&all).unwrap();
        let new = tempfile::tempdir_in(&all).unwrap();
        for (name, bytes) in files {
            let file = new.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, bytes).unwrap();
        }
        // Whole at once: another process may be doing the same, and either's will do.
        let renamed = std::fs::rename(new.path(), &folder);
        assert!(folder.exists(), "{}: {renamed:?}", folder.display());
    }
    folder
}

/// The files below a folder, by their path from there.
fn read(folder: &Path, below: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    let path = folder.join(below);
    for entry in std::fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())) {
        let entry = entry.unwrap();
        let name = below.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            read(folder, &name, files);
            continue;
        }
        let bytes = std::fs::read(entry.path()).unwrap();
        match name.to_str().and_then(|name| name.strip_suffix(formula::SUFFIX)) {
            Some(weights) => files.insert(format!("{weights}.safetensors").into(), formula::expand(&bytes)),
            None => files.insert(name, bytes),
        };
    }
}
