//! The prompts of a model: which one goes before a text.

use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// The prompt that goes before every text of a call; empty if none does. An explicit `prompt` wins, an empty one too; else
/// the one of this `name` among `stored`.
///
/// # Errors
/// [`Error::InvalidInput`] for an unknown name, with the known ones.
pub(crate) fn resolve<'a>(
    stored: &'a BTreeMap<String, String>,
    prompt: Option<&'a str>,
    name: Option<&str>,
) -> Result<&'a str> {
    match (prompt, name) {
        (Some(prompt), _) => Ok(prompt),
        (None, None) => Ok(""),
        (None, Some(name)) => stored.get(name).map(String::as_str).ok_or_else(|| {
            let known: Vec<_> = stored.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_string() } else { known.join(", ") };
            Error::InvalidInput(format!("the model has no prompt named '{name}'; it has: {known}"))
        }),
    }
}

/// Refuses a default that names no stored prompt.
pub(crate) fn check_default(stored: &BTreeMap<String, String>, default: Option<&str>) -> Result<()> {
    match default {
        Some(name) if !stored.contains_key(name) => {
            let known = stored.keys().cloned().collect::<Vec<_>>().join(", ");
            let file = "config_sentence_transformers.json";
            Err(Error::unsupported(file, "default_prompt_name", name, format!("the stored prompts: {known}")))
        }
        _ => Ok(()),
    }
}
