//! The modules of late interaction: what their files say.

use std::path::Path;

use serde_json::Value;

use super::config::JsonFile;
use super::modules::read_config;
use crate::error::Result;
use crate::token_pooling::HierarchicalTokenPooling;

/// Which tokens of a text count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultiVectorMaskConfig {
    /// Tokens that do not.
    pub skiplist_words: Vec<String>,
    /// The tasks for which that is so: `document` stands for a text for no task, too.
    pub skiplist_tasks: Vec<String>,
    /// Of a text for another task than `query`, only tokens of these ids count. `None`: all.
    pub keep_only: Option<Vec<u32>>,
}

impl MultiVectorMaskConfig {
    pub(super) fn read(module: &Path) -> Result<MultiVectorMaskConfig> {
        let config = read_config(module)?;
        let keep_only = match config.get("keep_only_token_ids") {
            Some(Value::Array(ids)) if !ids.is_empty() => {
                let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
                let ids: Option<Vec<u32>> = ids.iter().map(id).collect();
                Some(ids.ok_or_else(|| config.invalid("keep_only_token_ids", "a list of token ids"))?)
            }
            Some(Value::Array(_)) | None => None,
            Some(_) => return Err(config.invalid("keep_only_token_ids", "a list of token ids")),
        };
        let skiplist_words = words(&config)?.unwrap_or_default();
        let skiplist_tasks = tasks(&config, "skiplist_tasks")?;
        Ok(MultiVectorMaskConfig { skiplist_tasks, skiplist_words, keep_only })
    }

    /// For documents, without these words.
    pub(super) fn skipping(skiplist_words: Vec<String>) -> MultiVectorMaskConfig {
        MultiVectorMaskConfig { skiplist_words, skiplist_tasks: document(), keep_only: None }
    }
}

impl HierarchicalTokenPooling {
    pub(super) fn read(module: &Path) -> Result<HierarchicalTokenPooling> {
        let config = read_config(module)?;
        let pool_factor = config.get("pool_factor").map_or(Some(1.0), Value::as_f64).filter(|&factor| factor >= 1.0);
        Ok(HierarchicalTokenPooling {
            pool_factor: pool_factor.ok_or_else(|| config.invalid("pool_factor", "a number, 1 or more"))?,
            num_protected_tokens: config.usize_or("num_protected_tokens", 1)?,
            normalize_embeddings: config.bool_or("normalize_embeddings", false)?,
            tasks: tasks(&config, "tasks")?,
        })
    }
}

fn document() -> Vec<String> {
    vec!["document".into()]
}

/// The words of a skiplist. Of a string, its characters, as Python's `list` has it.
pub(super) fn words(config: &JsonFile) -> Result<Option<Vec<String>>> {
    const KEY: &str = "skiplist_words";
    match config.get(KEY) {
        Some(Value::String(words)) => Ok(Some(words.chars().map(String::from).collect())),
        _ => Ok(config.strings_opt(KEY)?.map(|words| words.into_iter().map(String::from).collect())),
    }
}

/// The names of tasks, or one name.
fn tasks(config: &JsonFile, key: &str) -> Result<Vec<String>> {
    match config.get(key) {
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        _ => {
            let names = config.strings_opt(key)?;
            Ok(names.map_or_else(document, |names| names.into_iter().map(String::from).collect()))
        }
    }
}
