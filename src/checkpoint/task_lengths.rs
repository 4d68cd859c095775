//! What texts are cut to, and queries expanded to, by what they are encoded for: late-interaction models read short queries and
//! longer documents, and many have their queries padded with mask tokens that take part in the score (Khattab, Zaharia 2020).

use super::config::JsonFile;
use super::tokenizer::{Encoding, Tokenizer};
use super::tokenizer_files::SpecialTokens;
use crate::error::{Error, Result};

/// Tokens that no query comes near.
const MOST: usize = 1 << 20;

/// The lengths of queries and documents, as a transformer module stores them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskLengths {
    /// Queries are truncated to so many tokens, special tokens included; `None`: to the module's `max_seq_length`.
    pub query: Option<usize>,
    /// The same for documents.
    pub document: Option<usize>,
    /// What short queries are filled up with.
    pub expansion: Option<QueryExpansion>,
}

/// How a query gets more tokens than its text has: behind all others, up to a length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryExpansion {
    /// Tokens of an expanded query.
    pub length: usize,
    /// Longer queries are cut to that length (the strategy `fixed`), or stay as long as they are (`min`).
    pub is_fixed: bool,
    /// Whether attention looks at the new tokens.
    pub attend: bool,
    /// The token; `None`: the tokenizer's mask token, else the one that ends a sequence.
    pub token: Option<String>,
}

impl TaskLengths {
    /// Of a transformer module's own file.
    pub(super) fn read(module: &JsonFile) -> Result<TaskLengths> {
        let at_least_1 = |key: &str| match module.usize_opt(key)? {
            Some(0) => Err(module.invalid(key, "at least 1")),
            length => Ok(length),
        };
        let lengths = TaskLengths {
            query: at_least_1("query_length")?,
            document: at_least_1("document_length")?,
            expansion: QueryExpansion::read(module)?,
        };
        match (&lengths.expansion, lengths.query) {
            (Some(expansion), Some(query)) if query < expansion.length => {
                let expected = format!("at least the length of query_expansion, {}", expansion.length);
                Err(module.invalid("query_length", &expected))
            }
            _ => Ok(lengths),
        }
    }

    /// Cuts queries and documents to `tokens`, but for queries of a fixed length.
    pub(super) fn set_max(&mut self, tokens: usize) {
        (self.query, self.document) = (Some(tokens), Some(tokens));
    }
}

impl QueryExpansion {
    /// Of a transformer module's own file, or where else PyLate has it.
    pub(super) fn read(module: &JsonFile) -> Result<Option<QueryExpansion>> {
        const KEY: &str = "query_expansion";
        // A file that says `false` means none, too.
        if module.get(KEY).is_none_or(|value| *value == serde_json::Value::Bool(false)) {
            return Ok(None);
        }
        let Some(stored) = module.object_opt(KEY)? else { return Ok(None) };
        const KEYS: [&str; 4] = ["strategy", "attend", "token", "length"];
        if let Some(key) = stored.keys().find(|key| !KEYS.contains(key)) {
            return Err(stored.unsupported(key, KEYS.join(", ")));
        }
        let is_fixed = match stored.str("strategy")? {
            "fixed" => true,
            "min" => false,
            _ => return Err(stored.unsupported("strategy", "fixed, min")),
        };
        let length = stored.usize("length")?;
        if !(1..=MOST).contains(&length) {
            return Err(stored.invalid("length", &format!("a whole number from 1 to {MOST}")));
        }
        let (attend, token) = (stored.bool_or("attend", false)?, stored.str_opt("token")?.map(String::from));
        Ok(Some(QueryExpansion { length, is_fixed, attend, token }))
    }
}

impl Tokenizer {
    /// The same tokenizer with lengths by task.
    ///
    /// # Errors
    /// [`Error::Unsupported`] or [`Error::InvalidFile`] if queries cannot be expanded as they say, [`Error::InvalidInput`] for lengths
    /// that leave no room for text.
    pub(crate) fn with_lengths(mut self, lengths: &TaskLengths) -> Result<Tokenizer> {
        [lengths.query, lengths.document].into_iter().try_for_each(|length| self.check_length(length))?;
        if let Some(expansion) = &lengths.expansion {
            self.expansion_id = self.expansion_id(expansion)?;
        }
        self.lengths = lengths.clone();
        Ok(self)
    }

    /// Cuts no text for a task to more tokens than a model has positions for.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if queries are expanded beyond them.
    pub(crate) fn limit_tasks(&mut self, positions: Option<usize>) -> Result<()> {
        let Some(positions) = positions else { return Ok(()) };
        if let Some(QueryExpansion { length, .. }) =
            self.lengths.expansion.as_ref().filter(|own| own.length > positions)
        {
            let supported = format!("at most the model's {positions} positions");
            return Err(self.unsupported("query_expansion.length", &length.to_string(), &supported));
        }
        for length in [&mut self.lengths.query, &mut self.lengths.document] {
            *length = length.map(|length| length.min(positions));
        }
        Ok(())
    }

    /// The token that queries are expanded by.
    fn expansion_id(&self, expansion: &QueryExpansion) -> Result<u32> {
        if self.chat.is_some() {
            let supported = "null for a model that takes messages: its chat template expands the query itself";
            return Err(self.unsupported("query_expansion", "an object", supported));
        }
        let special = SpecialTokens::read(self.folder())?;
        if special.pads_left {
            let supported = "\"right\", or another query_expansion: new tokens go behind the others";
            return Err(self.unsupported("padding_side of the tokenizer", "left", supported));
        }
        let known = |token: &str| self.token_to_id(token);
        match &expansion.token {
            Some(token) => known(token).ok_or_else(|| {
                let supported = "a token of the model's tokenizer";
                self.unsupported("query_expansion.token", token, supported)
            }),
            None => special.mask(known).or_else(|| special.end.as_deref().and_then(known)).ok_or_else(|| {
                let supported = "a token, because the tokenizer has neither mask_token nor eos_token";
                self.unsupported("query_expansion.token", "null", supported)
            }),
        }
    }

    /// The most tokens of a text for this task.
    pub(crate) fn length_for(&self, task: Option<&str>) -> Option<usize> {
        let TaskLengths { query, document, expansion } = &self.lengths;
        match (task, expansion) {
            (Some("query"), Some(QueryExpansion { length, is_fixed: true, .. })) => Some(*length),
            // As many are there anyway.
            (Some("query"), Some(QueryExpansion { length, .. })) => query.map(|query| query.max(*length)),
            (Some("query"), None) => *query,
            (Some("document"), _) => *document,
            _ => None,
        }
        .or(self.max_seq_length())
    }

    /// Appends what expands a query.
    pub(super) fn expand(&self, task: Option<&str>, encoding: &mut Encoding) {
        let Some(QueryExpansion { length, attend, .. }) =
            self.lengths.expansion.as_ref().filter(|_| task == Some("query"))
        else {
            return;
        };
        let more = length.saturating_sub(encoding.ids.len());
        encoding.ids.resize(encoding.ids.len() + more, self.expansion_id);
        encoding.types.resize(encoding.ids.len(), 0);
        encoding.unseen = if *attend { 0 } else { more as u32 };
    }

    fn unsupported(&self, key: &str, value: &str, supported: &str) -> Error {
        let file = self.folder().join("sentence_bert_config.json");
        Error::unsupported(file.display().to_string(), key, value, supported)
    }
}
