//! Which files of a repository a model needs, whether they come from the hub, a cache or a folder; and the one way to
//! join a path that a file or a server names.

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::adapter::{ADAPTER_CONFIG, ADAPTER_WEIGHTS};
use super::chat_template::TEMPLATE_FILE;
use super::config::{JsonFile, SETTINGS_FILE};
use super::late_interaction::STANFORD_FILE;
use super::modules::{MODULES_FILE, read_entries};
use super::router;
use super::transformer::OLD_CONFIG_NAMES;
use crate::error::{Error, Result};

pub(crate) const WEIGHTS_FILE: &str = "model.safetensors";
pub(crate) const WEIGHTS_INDEX: &str = "model.safetensors.index.json";
pub(crate) const TOKENIZER_FILE: &str = "tokenizer.json";
/// The weights of tokens, by token, of a sparse encoder's queries.
pub(crate) const TOKEN_WEIGHTS_FILE: &str = "idf.json";
/// PyTorch's pickled weights: running code to read numbers is no option.
pub(crate) const PICKLED_WEIGHTS: &str = "pytorch_model.bin";

/// How the text begins that a clone without git-lfs has in place of a large file.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Small files that are read where they exist, in the folder of any module.
#[cfg_attr(not(feature = "hub"), allow(dead_code))]
const OPTIONAL_FILES: [&str; 11] = [
    "config.json",
    ADAPTER_CONFIG,
    SETTINGS_FILE,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "router_config.json",
    TEMPLATE_FILE,
    TOKENIZER_FILE,
    TOKEN_WEIGHTS_FILE,
    STANFORD_FILE,
];

/// Refuses a file that holds a git-lfs pointer; `bytes` is what it begins with.
pub(crate) fn refuse_lfs_pointer(path: &Path, bytes: &[u8]) -> Result<()> {
    match bytes.starts_with(LFS_POINTER) {
        true => Err(Error::invalid_file(
            path,
            "a git-lfs pointer and not the file itself: run `git lfs pull` in the repository",
        )),
        false => Ok(()),
    }
}

/// Joins a path that a file or a server names to `folder`, if it stays inside; else says why not. Both kinds of slash are
/// looked at on every system, so that a repository is refused everywhere or nowhere.
pub(crate) fn join_inside(folder: &Path, relative: &str) -> Result<PathBuf, String> {
    if relative.contains('\\') || relative.contains('\0') {
        return Err("it contains a backslash or NUL".to_string());
    }
    let drive = relative.as_bytes().get(1) == Some(&b':');
    let plain = |component| matches!(component, Component::Normal(_) | Component::CurDir);
    if drive || relative.starts_with('/') || !Path::new(relative).components().all(plain) {
        return Err("it leads outside the model's folder".to_string());
    }
    Ok(folder.join(relative))
}

/// The files that the module folder `module` (empty for the root) needs of a repository with the files `all`, without
/// the shards that an index lists.
#[cfg_attr(not(feature = "hub"), allow(dead_code))]
pub(crate) fn needed_in_module(module: &str, all: &[&str]) -> Vec<String> {
    let exists = |name: &str| all.contains(&in_module(module, name).as_str());
    let mut names: Vec<&str> = OPTIONAL_FILES.to_vec();
    names.extend(OLD_CONFIG_NAMES);
    if !exists(TOKENIZER_FILE) {
        names.push("vocab.txt");
    }
    names.push(if exists(ADAPTER_CONFIG) {
        ADAPTER_WEIGHTS
    } else if exists(WEIGHTS_FILE) {
        WEIGHTS_FILE
    } else {
        WEIGHTS_INDEX
    });
    names.into_iter().filter(|name| exists(name)).map(|name| in_module(module, name)).collect()
}

/// The name in its repository of a file in a module's folder: with slashes on every system.
fn in_module(module: &str, name: &str) -> String {
    match module.trim_matches('/') {
        "" | "." => name.to_string(),
        folder => format!("{folder}/{name}"),
    }
}

/// The shard files that the index `path` lists, each once.
pub(crate) fn shards(path: &Path) -> Result<Vec<String>> {
    let index = JsonFile::read(path)?;
    let map = index.object_opt("weight_map")?.ok_or_else(|| index.invalid("weight_map", "an object"))?;
    let mut files = Vec::new();
    for tensor in map.keys() {
        let file = map.str(tensor)?;
        // The reference knows shards beside their index only.
        if file.is_empty() || file.starts_with('.') || file.contains(['/', '\\', ':', '\0']) {
            return Err(map.invalid(tensor, "the name of a file beside the index"));
        }
        files.push(file.to_string());
    }
    files.sort();
    files.dedup();
    match files.is_empty() {
        true => Err(index.invalid("weight_map", "at least one tensor")),
        false => Ok(files),
    }
}

/// Whether a module of this class has weights.
pub(crate) fn has_weights(class: &str) -> bool {
    const CLASSES: [&str; 8] = [
        "Transformer",
        "MLMTransformer",
        "StaticEmbedding",
        "SparseStaticEmbedding",
        "WeightedLayerPooling",
        "Dense",
        "LayerNorm",
        "SparseAutoEncoder",
    ];
    CLASSES.contains(&class)
}

/// The file with the weights of tokens in the folder `module` of a SparseStaticEmbedding, if its configuration names one: there,
/// or, if it is not there, in the folder `above`, with what lists the module. (The reference looks where it runs, or in a repository
/// of that name.) It may be in neither.
pub(crate) fn token_weights_file(module: &Path, above: &Path) -> Result<Option<PathBuf>> {
    let config = JsonFile::read_if_present(&module.join("config.json"))?;
    let path = config.as_ref().map_or(Ok(None), |config| config.str_opt("path"))?;
    // A name that ends otherwise is not looked at, as in the reference.
    if !path.is_some_and(|path| path.ends_with(".json")) {
        return Ok(None);
    }
    let [own, above] = [module, above].map(|folder| folder.join(TOKEN_WEIGHTS_FILE));
    Ok(Some(if above.is_file() && !own.is_file() { above } else { own }))
}

/// Adds the modules of routers to the classes and folders of a model's modules. The routers' own files must be there.
pub(crate) fn add_routed(folder: &Path, modules: &mut Vec<(String, String)>) -> Result<()> {
    for (class, module) in modules.clone() {
        if !matches!(class.as_str(), "Router" | "Asym") {
            continue;
        }
        let path = join_inside(folder, &module).map_err(|detail| Error::invalid_file(folder, detail))?;
        for (class, id) in router::folders(&path)? {
            join_inside(&path, &id)
                .map_err(|detail| Error::invalid_file(&path, format!("the folder {id:?} is refused: {detail}")))?;
            let inside = if module.is_empty() { id } else { format!("{}/{id}", module.trim_end_matches('/')) };
            modules.push((class, inside));
        }
    }
    Ok(())
}

/// The classes and folders of the modules that the model in `folder` lists.
pub(crate) fn listed(folder: &Path) -> Result<Vec<(String, String)>> {
    Ok(match read_entries(folder)? {
        Some(entries) => entries.into_iter().map(|entry| (entry.class, entry.path)).collect(),
        None => vec![("Transformer".to_string(), String::new())],
    })
}

/// The same, and those of its routers.
pub(crate) fn classes(folder: &Path) -> Result<Vec<(String, String)>> {
    let mut modules = listed(folder)?;
    add_routed(folder, &mut modules)?;
    Ok(modules)
}

/// The first file that the model in `folder` lacks, or `None` if it can be loaded. (Where an adapter is in the place of a
/// transformer, its base model is another's business.)
pub(crate) fn first_missing(folder: &Path) -> Result<Option<String>> {
    for (class, module) in classes(folder)? {
        let path =
            join_inside(folder, &module).map_err(|detail| Error::invalid_file(folder.join(MODULES_FILE), detail))?;
        let missing = |name: &str| (!path.join(name).is_file()).then(|| in_module(&module, name));
        if matches!(class.as_str(), "Transformer" | "MLMTransformer") && path.join(ADAPTER_CONFIG).is_file() {
            match missing(ADAPTER_WEIGHTS) {
                None => continue,
                missing => return Ok(missing),
            }
        }
        let mut found = match class.as_str() {
            "Transformer" | "Pooling" | "WeightedLayerPooling" | "Dense" | "LayerNorm" => missing("config.json"),
            "MLMTransformer" | "SpladePooling" | "SparseAutoEncoder" => missing("config.json"),
            "MultiVectorMask" | "HierarchicalTokenPooling" => missing("config.json"),
            "StaticEmbedding" => missing(TOKENIZER_FILE),
            _ => None,
        };
        let has_vocabulary = matches!(class.as_str(), "Transformer" | "MLMTransformer" | "SparseStaticEmbedding");
        if has_vocabulary && !path.join("vocab.txt").is_file() {
            found = found.or_else(|| missing(TOKENIZER_FILE));
        }
        // What lists the module, modules.json or a router, is in the folder above.
        let above = path.parent().filter(|_| !module.is_empty()).unwrap_or(folder);
        let in_json = if class == "SparseStaticEmbedding" { token_weights_file(&path, above)? } else { None };
        if let Some(file) = in_json {
            found = found.or_else(|| if file.is_file() { None } else { missing(TOKEN_WEIGHTS_FILE) });
        } else if has_weights(&class) {
            if path.join(WEIGHTS_INDEX).is_file() && !path.join(WEIGHTS_FILE).is_file() {
                let shards = shards(&path.join(WEIGHTS_INDEX))?;
                found = found.or_else(|| shards.iter().find_map(|shard| missing(shard)));
            } else if !path.join(PICKLED_WEIGHTS).is_file() {
                // With pickled weights only, opening them says how to convert.
                found = found.or_else(|| missing(WEIGHTS_FILE));
            }
        }
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The error for a model that is stored only as a pickle.
pub(crate) fn pickled_weights_error(place: impl std::fmt::Display) -> Error {
    Error::unsupported(
        place.to_string(),
        "weights",
        PICKLED_WEIGHTS,
        "model.safetensors; convert with Python: from sentence_transformers import SentenceTransformer; \
         SentenceTransformer(MODEL).save_pretrained(FOLDER) (or CrossEncoder, SparseEncoder, MultiVectorEncoder, whichever it \
         is), then load FOLDER, or look for a revision of the repository that has it",
    )
}

/// Whether a list of values holds anything: for keys that are empty in nearly every file.
pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(object) => object.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        let folder = Path::new("model");
        assert_eq!(join_inside(folder, "1_Pooling").unwrap(), Path::new("model/1_Pooling"));
        assert_eq!(join_inside(folder, "").unwrap(), Path::new("model/"));
        assert_eq!(join_inside(folder, "a/b.json").unwrap(), Path::new("model/a/b.json"));
        for evil in ["..", "../x", "a/../../x", "/etc", "\\etc", "..\\x", "C:/x", "C:x", "a\0b"] {
            assert!(join_inside(folder, evil).is_err(), "{evil:?}");
        }
    }

    #[test]
    fn only_what_is_read_is_needed() {
        let all = [
            "README.md",
            "config.json",
            "data_config.json",
            "model.safetensors",
            "modules.json",
            "onnx/model.onnx",
            "pytorch_model.bin",
            "sentence_bert_config.json",
            "tokenizer.json",
            "vocab.txt",
            "1_Pooling/config.json",
            "2_Dense/config.json",
            "2_Dense/model.safetensors",
            "2_Dense/pytorch_model.bin",
            "model.safetensors.index.json",
        ];
        let mut root = needed_in_module("", &all);
        root.sort();
        assert_eq!(root, ["config.json", "model.safetensors", "sentence_bert_config.json", "tokenizer.json"]);
        assert_eq!(needed_in_module("1_Pooling", &all), ["1_Pooling/config.json"]);
        assert_eq!(needed_in_module("2_Dense/", &all), ["2_Dense/config.json", "2_Dense/model.safetensors"]);
        assert!(needed_in_module("3_Normalize", &all).is_empty());
        assert_eq!(needed_in_module("", &["vocab.txt", WEIGHTS_INDEX]), ["vocab.txt", WEIGHTS_INDEX]);
    }

    #[test]
    fn what_a_sparse_encoder_lacks_is_named() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sparse_encoder/models/router");
        let (query, document) = ("query_0_SparseStaticEmbedding", "document_0_Transformer");
        let needed = [
            format!("{query}/model.safetensors"),
            format!("{query}/tokenizer.json"),
            format!("{document}/config.json"),
            format!("{document}/model.safetensors"),
            format!("{document}/tokenizer.json"),
            "document_1_SpladePooling/config.json".to_string(),
        ];
        for class in ["base.modules.transformer.Transformer", "sparse_encoder.models.MLMTransformer"] {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path();
            for module in [query, document, "document_1_SpladePooling"] {
                std::fs::create_dir(root.join(module)).unwrap();
            }
            let others = ["modules.json".to_string(), "router_config.json".to_string(), format!("{query}/config.json")];
            for name in needed.iter().chain(&others) {
                std::fs::copy(golden.join(name), root.join(name)).unwrap();
            }
            let router = std::fs::read_to_string(golden.join("router_config.json")).unwrap();
            let router = router.replace("base.modules.transformer.Transformer", class);
            std::fs::write(root.join("router_config.json"), router).unwrap();
            assert_eq!(first_missing(root).unwrap(), None);
            for name in &needed {
                std::fs::remove_file(root.join(name)).unwrap();
                assert_eq!(first_missing(root).unwrap().as_ref(), Some(name), "{class}");
                std::fs::copy(golden.join(name), root.join(name)).unwrap();
            }
            std::fs::write(root.join(&others[2]), r#"{"path": "some/idf.json"}"#).unwrap();
            assert_eq!(first_missing(root).unwrap(), Some(format!("{query}/idf.json")));
            std::fs::write(root.join("idf.json"), "{}").unwrap();
            assert_eq!(first_missing(root).unwrap(), None);
        }
    }

    #[test]
    fn shards_are_names_beside_the_index() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(WEIGHTS_INDEX);
        std::fs::write(
            &path,
            r#"{"weight_map": {"a": "m-2.safetensors", "b": "m-1.safetensors", "c": "m-1.safetensors"}}"#,
        )
        .unwrap();
        assert_eq!(shards(&path).unwrap(), ["m-1.safetensors", "m-2.safetensors"]);
        for evil in ["../m", "/m", "a\\\\b", "a/b", "..", ""] {
            std::fs::write(&path, format!(r#"{{"weight_map": {{"a": "{evil}"}}}}"#)).unwrap();
            let message = shards(&path).unwrap_err().to_string();
            assert!(message.contains("weight_map.a"), "{evil:?}: {message}");
        }
    }
}
