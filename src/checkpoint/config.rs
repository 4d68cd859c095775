//! JSON configuration files, read so that every complaint names the file, the key and the value.
//!
//! [`JsonFile`] is what a file says (parsed, not interpreted); the model builders read their sizes from it.
//! [`Settings`] is `config_sentence_transformers.json`: prompts, similarity function, and what kind of model it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::ModelType;
use super::files::refuse_lfs_pointer;
use crate::error::{Error, Result};

/// No configuration or index of a real model comes near this; a larger file is refused before it is read.
const MAX_JSON_BYTES: u64 = 256 << 20;

/// The object in a JSON file. A key whose value is `null` counts as absent, as Python's defaults treat it.
#[derive(Debug, Clone)]
pub struct JsonFile {
    path: PathBuf,
    /// Where in the file this object stands: empty for the root, `text_config.` for a nested object.
    prefix: String,
    object: Map<String, Value>,
}

impl JsonFile {
    /// Reads the object in `path`.
    pub fn read(path: &Path) -> Result<JsonFile> {
        match read_json(path)? {
            Value::Object(object) => Ok(JsonFile { path: path.to_path_buf(), prefix: String::new(), object }),
            other => Err(Error::invalid_file(path, format!("expected a JSON object, found {}", brief(&other)))),
        }
    }

    /// Reads the object in `path`, or `None` if there is no such file.
    pub fn read_if_present(path: &Path) -> Result<Option<JsonFile>> {
        if path.is_file() { JsonFile::read(path).map(Some) } else { Ok(None) }
    }

    /// An object that stands in for the file `path`: for presets and tests.
    pub fn from_object(path: impl Into<PathBuf>, object: Map<String, Value>) -> JsonFile {
        JsonFile { path: path.into(), prefix: String::new(), object }
    }

    /// The file this was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The value of `key`; `None` when it is absent or `null`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    /// Whether `key` is there, be it with the value `null`.
    pub fn contains(&self, key: &str) -> bool {
        self.object.contains_key(key)
    }

    /// Every key with a value, in alphabetical order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.object.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| key.as_str())
    }

    /// Replaces the value of `key`: how stored overrides (`config_args`) reach the configuration.
    pub fn set(&mut self, key: &str, value: Value) {
        self.object.insert(key.to_string(), value);
    }

    /// A required whole number.
    pub fn usize(&self, key: &str) -> Result<usize> {
        self.usize_opt(key)?.ok_or_else(|| self.missing(key))
    }

    /// A whole number, if the key is there.
    pub fn usize_opt(&self, key: &str) -> Result<Option<usize>> {
        // No size of a model comes near this, and products of two of them are numbers still.
        const MOST: u64 = 1 << 31;
        self.typed(key, "a whole number, zero or more, below 2^31", |value| {
            // Some exporters write sizes as 512.0.
            let whole = value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..=9e15).contains(number));
            let number = value.as_u64().or(whole.map(|number| number as u64)).filter(|&number| number < MOST);
            number.and_then(|number| usize::try_from(number).ok())
        })
    }

    /// A whole number, or `default`.
    pub fn usize_or(&self, key: &str, default: usize) -> Result<usize> {
        Ok(self.usize_opt(key)?.unwrap_or(default))
    }

    /// A required number.
    pub fn f32(&self, key: &str) -> Result<f32> {
        self.f32_opt(key)?.ok_or_else(|| self.missing(key))
    }

    /// A number, if the key is there.
    pub fn f32_opt(&self, key: &str) -> Result<Option<f32>> {
        self.typed(key, "a number", |value| value.as_f64().map(|number| number as f32))
    }

    /// A number, or `default`.
    pub fn f32_or(&self, key: &str, default: f32) -> Result<f32> {
        Ok(self.f32_opt(key)?.unwrap_or(default))
    }

    /// A boolean, if the key is there.
    pub fn bool_opt(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// A boolean, or `default`.
    pub fn bool_or(&self, key: &str, default: bool) -> Result<bool> {
        Ok(self.bool_opt(key)?.unwrap_or(default))
    }

    /// A required string.
    pub fn str(&self, key: &str) -> Result<&str> {
        self.str_opt(key)?.ok_or_else(|| self.missing(key))
    }

    /// A string, if the key is there.
    pub fn str_opt(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", Value::as_str)
    }

    /// A string, or `default`.
    pub fn str_or<'a>(&'a self, key: &str, default: &'a str) -> Result<&'a str> {
        Ok(self.str_opt(key)?.unwrap_or(default))
    }

    /// A list of strings, if the key is there.
    pub fn strings_opt(&self, key: &str) -> Result<Option<Vec<&str>>> {
        self.typed(key, "a list of strings", |value| value.as_array()?.iter().map(Value::as_str).collect())
    }

    /// A nested object, if the key is there.
    pub fn object_opt(&self, key: &str) -> Result<Option<JsonFile>> {
        self.typed(key, "an object", |value| {
            let object = value.as_object()?.clone();
            Some(JsonFile { path: self.path.clone(), prefix: format!("{}{key}.", self.prefix), object })
        })
    }

    /// The error for a `key` whose value (or absence) lexel does not implement.
    pub fn unsupported(&self, key: &str, supported: impl Into<String>) -> Error {
        let value = self.get(key).map_or_else(|| "absent".to_string(), brief);
        Error::unsupported(self.path.display().to_string(), self.full_key(key), value, supported)
    }

    /// The error for a `value`, of `key` or of a key like it, that lexel does not implement.
    pub fn unsupported_value(&self, key: &str, value: &str, supported: impl Into<String>) -> Error {
        Error::unsupported(self.path.display().to_string(), self.full_key(key), value, supported)
    }

    /// The error for a `key` whose value contradicts the format.
    pub fn invalid(&self, key: &str, expected: &str) -> Error {
        let found = self.get(key).map_or_else(|| "nothing".to_string(), brief);
        Error::invalid_file(&self.path, format!("{}: expected {expected}, found {found}", self.full_key(key)))
    }

    fn missing(&self, key: &str) -> Error {
        Error::invalid_file(&self.path, format!("the key {} is missing", self.full_key(key)))
    }

    fn full_key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => convert(value).map(Some).ok_or_else(|| self.invalid(key, expected)),
        }
    }
}

/// Reads any JSON value from `path`.
pub(crate) fn read_json(path: &Path) -> Result<Value> {
    let text = read_text(path)?;
    serde_json::from_slice(&text).map_err(|error| Error::invalid_file(path, format!("not valid JSON: {error}")))
}

/// Reads a JSON file of a bearable size.
pub(crate) fn read_text(path: &Path) -> Result<Vec<u8>> {
    let size = std::fs::metadata(path).map_err(Error::io(path))?.len();
    if size > MAX_JSON_BYTES {
        return Err(Error::invalid_file(path, format!("{size} bytes of JSON; at most {MAX_JSON_BYTES} are read")));
    }
    let text = std::fs::read(path).map_err(Error::io(path))?;
    refuse_lfs_pointer(path, &text)?;
    Ok(text)
}

/// A value as an error shows it: short, on one line.
pub(crate) fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// What `config_sentence_transformers.json` says. Every field has the reference's default where the file or key is
/// absent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings {
    /// The class that saved the model, e.g. `SentenceTransformer`; `None` (older models) means that one.
    pub model_type: Option<String>,
    /// Prompts by name, as stored.
    pub prompts: BTreeMap<String, String>,
    /// The prompt that is used when the caller names none.
    pub default_prompt_name: Option<String>,
    /// `cosine`, `dot`, `euclidean` or `manhattan`, or for late interaction `maxsim` or `meanmaxsim`, as stored.
    pub similarity_fn_name: Option<String>,
    /// How many leading components of an embedding are kept.
    pub truncate_dim: Option<usize>,
    /// A cross-encoder's activation, as a class path.
    pub activation_fn: Option<String>,
    /// How many components of a sparse embedding are kept: the largest.
    pub max_active_dims: Option<usize>,
}

/// The file that [`Settings`] come from.
pub(crate) const SETTINGS_FILE: &str = "config_sentence_transformers.json";

impl Settings {
    /// Reads the settings of the model in `folder`; without the file, the defaults.
    pub fn read(folder: &Path) -> Result<Settings> {
        let Some(file) = JsonFile::read_if_present(&folder.join(SETTINGS_FILE))? else {
            return Ok(Settings::default());
        };
        let text = |key| -> Result<Option<String>> { Ok(file.str_opt(key)?.map(str::to_string)) };
        let mut prompts = BTreeMap::new();
        if let Some(stored) = file.object_opt("prompts")? {
            for name in stored.keys() {
                prompts.insert(name.to_string(), stored.str(name)?.to_string());
            }
        }
        Ok(Settings {
            model_type: text("model_type")?,
            prompts,
            default_prompt_name: text("default_prompt_name")?,
            similarity_fn_name: text("similarity_fn_name")?,
            truncate_dim: file.usize_opt("truncate_dim")?,
            activation_fn: text("activation_fn")?,
            max_active_dims: match file.usize_opt("max_active_dims")? {
                Some(0) => return Err(file.invalid("max_active_dims", "at least 1")),
                dims => dims,
            },
        })
    }

    /// What the model was saved as. Older models do not say so: bi-encoders.
    pub fn stored_type(&self) -> ModelType {
        match self.model_type.as_deref() {
            Some("CrossEncoder") => ModelType::CrossEncoder,
            Some("SparseEncoder") => ModelType::SparseEncoder,
            // PyLate's name for them.
            Some("MultiVectorEncoder" | "ColBERT") => ModelType::MultiVectorEncoder,
            _ => ModelType::SentenceTransformer,
        }
    }

    /// The prompts of a bi-encoder: `query` and `document` always exist, empty where the model stores none. A model that
    /// stores only `passage` therefore gets no prompt from `encode_document`, as in the reference.
    pub fn bi_encoder_prompts(&self) -> BTreeMap<String, String> {
        let mut prompts = self.prompts.clone();
        for name in ["query", "document"] {
            prompts.entry(name.to_string()).or_default();
        }
        prompts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> JsonFile {
        let Ok(Value::Object(object)) = serde_json::from_str(text) else { panic!("the test's JSON is an object") };
        JsonFile::from_object("some/config.json", object)
    }

    #[test]
    fn typed_values() {
        let file = json(
            r#"{"size": 384, "float": 12.0, "eps": 1e-12, "flag": true, "name": "bert", "none": null, "list": ["a", "b"]}"#,
        );
        assert_eq!(file.usize("size").unwrap(), 384);
        assert_eq!(file.usize("float").unwrap(), 12);
        assert_eq!(file.usize_or("none", 7).unwrap(), 7);
        assert_eq!(file.f32("eps").unwrap(), 1e-12);
        assert!(file.bool_or("flag", false).unwrap());
        assert_eq!(file.str("name").unwrap(), "bert");
        assert_eq!(file.strings_opt("list").unwrap().unwrap(), ["a", "b"]);
        assert_eq!(file.str_opt("absent").unwrap(), None);
    }

    #[test]
    fn errors_name_file_key_and_value() {
        let file = json(r#"{"hidden_size": "big", "negative": -1, "half": 0.5, "text_config": {"layers": []}}"#);
        let message = file.usize("hidden_size").unwrap_err().to_string();
        assert_eq!(
            message,
            r#"some/config.json: hidden_size: expected a whole number, zero or more, below 2^31, found "big""#
        );
        assert!(file.usize("negative").is_err() && file.usize("half").is_err());
        assert_eq!(
            file.usize("vocab_size").unwrap_err().to_string(),
            "some/config.json: the key vocab_size is missing"
        );
        let nested = file.object_opt("text_config").unwrap().unwrap();
        assert!(nested.usize("layers").unwrap_err().to_string().contains("text_config.layers"));
        let message = file.unsupported("hidden_size", "384").to_string();
        assert_eq!(message, r#"some/config.json: hidden_size = "big" is not supported; supported: 384"#);
    }

    #[test]
    fn a_broken_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
        for (text, complaint) in [
            ("{", "not valid JSON"),
            ("[1]", "expected a JSON object, found [1]"),
            (pointer, "a git-lfs pointer and not the file itself"),
        ] {
            std::fs::write(&path, text).unwrap();
            let message = JsonFile::read(&path).unwrap_err().to_string();
            assert!(message.contains("config.json") && message.contains(complaint), "{message}");
        }
    }

    #[test]
    fn settings_and_their_defaults() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Settings::read(folder.path()).unwrap(), Settings::default());

        let text = r#"{"__version__": {}, "prompts": {"passage": "passage: ", "query": "query: "},
                       "default_prompt_name": null, "similarity_fn_name": "dot", "truncate_dim": 64}"#;
        std::fs::write(folder.path().join(SETTINGS_FILE), text).unwrap();
        let settings = Settings::read(folder.path()).unwrap();
        assert_eq!(settings.similarity_fn_name.as_deref(), Some("dot"));
        assert_eq!(settings.truncate_dim, Some(64));
        assert_eq!(settings.default_prompt_name, None);
        let prompts = settings.bi_encoder_prompts();
        assert_eq!(prompts["query"], "query: ");
        assert_eq!(prompts["document"], "");
        assert_eq!(prompts["passage"], "passage: ");
    }
}
