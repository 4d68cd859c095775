//! What a transformer module's file says to the tokenizer, above what that says of itself.

use serde_json::{Map, Value};

use super::chat_template::TEMPLATE_FILE;
use super::config::JsonFile;
use crate::error::Result;

/// Keyword arguments of the tokenizer, as the versions call them.
pub(super) const PROCESSOR_ARGS: [&str; 3] = ["processor_kwargs", "tokenizer_kwargs", "tokenizer_args"];

/// Keyword arguments of the tokenizer that stand above its own configuration.
const TOKENIZER_ARGS: [&str; 4] = ["truncation_side", "do_lower_case", "strip_accents", "tokenize_chinese_chars"];

/// Those that change nothing here, or are looked at elsewhere.
const HARMLESS_TOKENIZER_ARGS: [&str; 4] = ["model_max_length", "padding_side", "use_fast", "trust_remote_code"];

/// The keyword arguments of the tokenizer that matter.
pub(super) fn tokenizer_arguments(module: &JsonFile) -> Result<JsonFile> {
    let mut all = JsonFile::from_object(module.path(), Map::new());
    for key in PROCESSOR_ARGS {
        let Some(arguments) = module.object_opt(key)? else { continue };
        for name in arguments.keys().filter(|name| !HARMLESS_TOKENIZER_ARGS.contains(name)) {
            if name == "chat_template" {
                return Err(arguments.unsupported(name, format!("absent, and the template in {TEMPLATE_FILE}")));
            }
            if !TOKENIZER_ARGS.contains(&name) {
                let supported = [&TOKENIZER_ARGS[..], &HARMLESS_TOKENIZER_ARGS].concat().join(", ");
                return Err(arguments.unsupported(name, format!("the keys {supported}")));
            }
            all.set(name, arguments.get(name).cloned().unwrap_or(Value::Null));
        }
    }
    Ok(all)
}
