//! Which tokens of a text count.

use crate::checkpoint::{MultiVectorMaskConfig, Tokenizer};
use std::collections::HashSet;

/// A module's answer, by ids.
#[derive(Debug, Clone)]
pub(super) struct Mask {
    skipped: HashSet<u32>,
    tasks: Vec<String>,
    keep_only: Option<HashSet<u32>>,
}

impl Mask {
    /// Words that are no tokens of the tokenizer are none of a text either.
    pub fn new(config: &MultiVectorMaskConfig, tokenizer: &Tokenizer) -> Mask {
        let (mut skipped, mut unknown) = (HashSet::new(), Vec::new());
        for word in &config.skiplist_words {
            match tokenizer.token_to_id(word) {
                Some(id) => drop(skipped.insert(id)),
                None => unknown.push(word.as_str()),
            }
        }
        if !unknown.is_empty() {
            log::warn!(
                "of the model's skiplist, these are no tokens of its tokenizer and skip nothing: {}",
                unknown.join(" ")
            );
        }
        let keep_only = config.keep_only.as_ref().map(|ids| ids.iter().copied().collect());
        Mask { skipped, tasks: config.skiplist_tasks.clone(), keep_only }
    }

    /// Whether a token counts in a text for this task.
    pub fn counts(&self, id: u32, task: Option<&str>) -> bool {
        let is_listed = self.tasks.iter().any(|known| known == task.unwrap_or("document"));
        let is_kept = match &self.keep_only {
            Some(ids) if task != Some("query") => ids.contains(&id),
            _ => true,
        };
        is_kept && !(is_listed && self.skipped.contains(&id))
    }
}
