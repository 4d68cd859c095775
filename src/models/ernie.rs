//! ERNIE (Sun et al. 2020): BERT whose tokens may know the task of a text, which is always the first here, as in transformers.
//! text2vec-base-multilingual.

use super::bert::BertConfig;
use crate::checkpoint::JsonFile;
use crate::error::Result;
use crate::program::{Builder, Value};

/// The backbone that `config.json` describes.
pub(super) fn backbone(b: &mut Builder, config: &JsonFile) -> Result<Value> {
    let tasks = match config.bool_or("use_task_id", false)? {
        true => match config.usize_or("task_type_vocab_size", 3)? {
            0 => return Err(config.invalid("task_type_vocab_size", "at least 1, with use_task_id")),
            tasks => tasks,
        },
        false => 0,
    };
    Ok(BertConfig { tasks, ..BertConfig::from_json(config)? }.build(b))
}
