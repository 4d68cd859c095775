//! Texts to token ids, as the reference's tokenizers do it, without padding.
//!
//! Everything is driven by `tokenizer.json`. Padding and truncation that are stored there are dropped: a batch has no
//! padding, and truncation is done here. The crate's own truncation keeps what it cuts off as further encodings, for a
//! pair of long texts as many as the product of their pieces.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokenizers::{AddedToken, PostProcessor, TruncationDirection};

use super::chat_template::{ChatTemplate, Content, Frame};
use super::config::JsonFile;
use super::files::TOKENIZER_FILE;
use super::leading;
use super::task_lengths::TaskLengths;
use super::tokenizer_class::{Class, add_named};
use super::tokenizer_files::{from_file, from_vocabulary, makes_segments, prepend_lowercase};
use crate::error::{Error, Result};

/// What to do about a vocabulary that does not fit.
const OF_ANOTHER: &str = "is it another model's? If so, put this model's own files in its place";

/// The token ids of one text or pair.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Encoding {
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// Segment ids: 0, or 1 for the second text of a pair where the model makes that difference.
    pub types: Vec<u32>,
    /// How many of the last tokens expand the text, and are not looked at by attention: see
    /// [`Batch::unseen`](crate::batch::Batch::unseen).
    pub unseen: u32,
    /// Whether something was cut off.
    pub truncated: bool,
}

/// A tokenizer with a maximum length. Cheap to share between threads, not to clone.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    max_seq_length: Option<usize>,
    /// Other lengths for queries and documents.
    pub(super) lengths: TaskLengths,
    /// The token that expands queries, where these are.
    pub(super) expansion_id: u32,
    truncation: TruncationDirection,
    /// Whether encodings get special tokens.
    pub(super) special: bool,
    /// Texts become messages of a chat, where the model takes chats.
    pub(super) chat: Option<Arc<ChatTemplate>>,
    /// Whether a pair's second text has segment 1: otherwise all tokens have 0.
    segments: bool,
    /// Whether a text's first words have the same tokens without the rest.
    pub(super) has_words: bool,
    /// Rows of the model's table of word embeddings, once it is known: no id is beyond them.
    rows: Option<usize>,
    path: PathBuf,
}

/// A text's tokens, without special ones.
struct Tokens {
    encoding: tokenizers::Encoding,
    /// They are the first ones of more.
    is_part: bool,
}

impl Tokens {
    fn len(&self) -> usize {
        self.encoding.len()
    }
}

impl Tokenizer {
    /// Reads the tokenizer in `folder`. Texts are cut to `max_seq_length` tokens, special tokens included. With
    /// `do_lower_case`, texts are lowercased first, unless the tokenizer has a normaliser for that.
    pub fn load(folder: &Path, max_seq_length: Option<usize>, do_lower_case: bool) -> Result<Tokenizer> {
        let arguments = JsonFile::from_object(folder, Default::default());
        Tokenizer::load_with(folder, max_seq_length, do_lower_case, &arguments)
    }

    /// The same, where `arguments` stand above what `tokenizer_config.json` says.
    pub(super) fn load_with(
        folder: &Path,
        max_seq_length: Option<usize>,
        do_lower_case: bool,
        arguments: &JsonFile,
    ) -> Result<Tokenizer> {
        let config_path = folder.join("tokenizer_config.json");
        let mut config = JsonFile::read_if_present(&config_path)?
            .unwrap_or_else(|| JsonFile::from_object(config_path, Default::default()));
        arguments.keys().for_each(|key| config.set(key, arguments.get(key).cloned().unwrap_or_default()));
        let path = folder.join(TOKENIZER_FILE);
        let mut inner = match path.is_file() {
            true => from_file(&path)?,
            false => from_vocabulary(folder, &config)?,
        };
        let class = Class::of(folder, &config, &inner)?;
        if let Some(class) = class {
            class.build(&mut inner, &config).map_err(|error| Error::invalid_file(&path, error))?;
        } else if let Some(key) = arguments.keys().find(|key| *key != "truncation_side") {
            return Err(arguments.unsupported(key, format!("absent, and what it means in {}", path.display())));
        }
        add_named(&mut inner, &config, class)?;
        let stored = inner.get_truncation().map(|truncation| truncation.direction);
        inner.with_padding(None);
        // Without parameters there is nothing that could be refused.
        let _ = inner.with_truncation(None);
        if do_lower_case {
            prepend_lowercase(&mut inner).map_err(|error| Error::invalid_file(&path, error))?;
        }
        let truncation = match config.str_opt("truncation_side")? {
            None => stored.unwrap_or(TruncationDirection::Right),
            Some("right") => TruncationDirection::Right,
            Some("left") => TruncationDirection::Left,
            _ => return Err(config.unsupported("truncation_side", "right, left")),
        };
        let has_words = leading::has_words(&inner);
        let mut tokenizer = Tokenizer {
            inner,
            max_seq_length,
            lengths: TaskLengths::default(),
            expansion_id: 0,
            truncation,
            special: true,
            chat: None,
            segments: makes_segments(folder, &config)?,
            has_words,
            rows: None,
            path,
        };
        tokenizer.set_max_seq_length(max_seq_length)?;
        Ok(tokenizer)
    }

    /// Reads the tokenizer in `folder` as [`load`](Self::load) does, but it adds no special tokens: what weights of tokens take.
    pub(crate) fn load_plain(folder: &Path, max_seq_length: Option<usize>) -> Result<Tokenizer> {
        let mut tokenizer = Tokenizer::load(folder, None, false)?;
        (tokenizer.special, tokenizer.segments) = (false, false);
        tokenizer.set_max_seq_length(max_seq_length)?;
        Ok(tokenizer)
    }

    /// Reads the tokenizer in `folder`, which adds no special tokens and cuts to the length that its own file stores: what a
    /// table of token vectors takes.
    pub fn without_special_tokens(folder: &Path) -> Result<Tokenizer> {
        let path = folder.join(TOKENIZER_FILE);
        let mut inner = from_file(&path)?;
        let stored = inner.get_truncation().map(|truncation| (truncation.max_length, truncation.direction));
        let (max_seq_length, truncation) = stored.unzip();
        inner.with_padding(None);
        // Without parameters there is nothing that could be refused.
        let _ = inner.with_truncation(None);
        let truncation = truncation.unwrap_or(TruncationDirection::Right);
        let has_words = leading::has_words(&inner);
        let (special, chat, segments, rows) = (false, None, false, None);
        let (lengths, expansion_id) = Default::default();
        Ok(Tokenizer {
            inner,
            max_seq_length,
            lengths,
            expansion_id,
            truncation,
            special,
            chat,
            segments,
            has_words,
            rows,
            path,
        })
    }

    /// The most tokens that an encoding has, special tokens included, unless it is made for a task with a length of its own.
    pub fn max_seq_length(&self) -> Option<usize> {
        self.max_seq_length
    }

    /// Sets the most tokens that an encoding has, special tokens included.
    pub fn set_max_seq_length(&mut self, length: Option<usize>) -> Result<()> {
        self.check_length(length)?;
        self.max_seq_length = length;
        Ok(())
    }

    /// Refuses a maximum length that special tokens fill.
    pub(super) fn check_length(&self, length: Option<usize>) -> Result<()> {
        let added = self.added_tokens(false);
        match length.filter(|&length| length <= added) {
            None => Ok(()),
            Some(length) => Err(Error::InvalidInput(format!(
                "a maximum length of {length} leaves no room for text: the tokenizer adds {added} special tokens"
            ))),
        }
    }

    /// Says that the model's table of word embeddings has so many rows: ids beyond them are errors from now on, and a
    /// vocabulary of quite another size is a warning. Some models have a few tokens or rows too many.
    pub(crate) fn set_rows(&mut self, rows: usize) {
        self.rows = Some(rows);
        let tokens = self.inner.get_vocab_size(true);
        if tokens > rows + rows / 64 || tokens < rows - rows / 4 {
            let path = self.path.display();
            log::warn!("{path}: {tokens} tokens, and the model has embeddings of {rows}: {OF_ANOTHER}");
        }
    }

    /// Makes single tokens of prompts, or of their first words, that the vocabulary has and this tokenizer would take apart: models
    /// were trained with these in front of every text (sentence-transformers' `_register_prefix_tokens`).
    pub(crate) fn keep_whole(&mut self, prompts: &[String]) -> Result<()> {
        let mut whole = Vec::new();
        for prompt in prompts {
            let first = prompt.split_whitespace().next();
            let candidates = first.map(|first| [prompt.as_str(), first]).into_iter().flatten();
            let Some(known) = candidates.into_iter().find(|prefix| self.token_to_id(prefix).is_some()) else {
                continue;
            };
            // Of an added token that is normalised, this is the normalised text. (`encode_fast` has no texts of tokens.)
            let encoding = self.inner.encode(known, false).map_err(|error| self.failed(error))?;
            if encoding.get_tokens() != [known] {
                whole.push(AddedToken::from(known, true).normalized(false));
            }
        }
        self.inner.add_special_tokens(whole).map_err(|error| self.failed(error)).map(drop)
    }

    /// How many different ids there can be: the largest id plus one.
    pub fn vocab_size(&self) -> usize {
        // Ids of added tokens need not follow the vocabulary without gaps.
        let largest = self.inner.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1);
        largest.max(self.inner.get_vocab_size(true))
    }

    /// The id of a token, e.g. `[PAD]`.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of an id.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Encodes one text.
    pub fn encode(&self, text: &str) -> Result<Encoding> {
        self.encode_in(Frame::default(), Content::Text(text))
    }

    pub(super) fn encode_plain(&self, text: &str, length: Option<usize>) -> Result<Encoding> {
        let Some(length) = length else {
            return self.finish(self.content(text)?, None, false);
        };
        let budget = length.saturating_sub(self.added_tokens(false));
        let mut encoding = self.leading(text, budget)?.encoding;
        let truncated = self.cut(&mut encoding, budget);
        self.finish(encoding, None, truncated)
    }

    /// Encodes many texts on all cores; results are in the order of the texts.
    pub fn encode_batch<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Vec<Encoding>> {
        self.encode_batch_in(Frame::default(), texts)
    }

    /// Encodes a pair. The longer text is cut first, as the reference's `longest_first` does.
    pub fn encode_pair(&self, first: &str, second: &str) -> Result<Encoding> {
        self.encode_in(Frame::default(), Content::Pair(first, second))
    }

    pub(super) fn encode_plain_pair(&self, first: &str, second: &str) -> Result<Encoding> {
        let Some(length) = self.max_seq_length else {
            return self.finish(self.content(first)?, Some(self.content(second)?), false);
        };
        let added = self.added_tokens(true);
        let budget = length.checked_sub(added).ok_or_else(|| {
            Error::InvalidInput(format!("a maximum length of {length} has no room for the {added} tokens of a pair"))
        })?;
        let (mut first_tokens, mut second_tokens) = (self.leading(first, budget)?, self.leading(second, budget)?);
        if !is_order_known(&first_tokens, &second_tokens, budget) {
            (first_tokens, second_tokens) = (self.whole(first)?, self.whole(second)?);
        }
        let (first_length, second_length) = longest_first(first_tokens.len(), second_tokens.len(), budget);
        let (mut first, mut second) = (first_tokens.encoding, second_tokens.encoding);
        let truncated = self.cut(&mut first, first_length) | self.cut(&mut second, second_length);
        self.finish(first, Some(second), truncated)
    }

    /// Encodes many pairs on all cores; results are in the order of the pairs.
    pub fn encode_pairs<A, B>(&self, pairs: &[(A, B)]) -> Result<Vec<Encoding>>
    where
        A: AsRef<str> + Sync,
        B: AsRef<str> + Sync,
    {
        self.encode_pairs_in(Frame::default(), pairs)
    }

    /// How many leading tokens of a text with this prompt belong to the prompt: its tokens alone, without a special token
    /// at their end. A special token at their beginning counts. The prompt of a chat is a message, and part of the text.
    pub fn prompt_tokens(&self, prompt: &str) -> Result<usize> {
        if self.chat.is_some() {
            return Ok(0);
        }
        let encoding = self.encode(prompt)?;
        let special = self.inner.get_added_tokens_decoder();
        let is_special = |id: &u32| {
            special.get(id).is_some_and(|token| token.special)
                || self.id_to_token(*id).is_some_and(|token| self.is_template_token(&token))
        };
        Ok(encoding.ids.len() - usize::from(encoding.ids.last().is_some_and(is_special)))
    }

    /// Whether the post-processor adds this token: some vocabularies do not mark such tokens as special.
    fn is_template_token(&self, token: &str) -> bool {
        let Ok(empty) = self.inner.encode_fast("", true) else { return false };
        empty.get_tokens().iter().any(|added| added == token)
    }

    /// The tokens of a text without special ones, however long.
    pub(super) fn content(&self, text: &str) -> Result<tokenizers::Encoding> {
        self.inner.encode_fast(text, false).map_err(|error| self.failed(error))
    }

    /// The tokens of a text without special ones, or its first: more than `length`, where it has as many.
    fn leading(&self, text: &str, length: usize) -> Result<Tokens> {
        if self.has_words && self.truncation == TruncationDirection::Right {
            for beginning in leading::beginnings(text, length) {
                let encoding = self.content(beginning)?;
                if leading::is_enough(encoding.len(), length) {
                    return Ok(Tokens { encoding, is_part: true });
                }
            }
        }
        self.whole(text)
    }

    fn whole(&self, text: &str) -> Result<Tokens> {
        Ok(Tokens { encoding: self.content(text)?, is_part: false })
    }

    fn added_tokens(&self, is_pair: bool) -> usize {
        self.inner.get_post_processor().filter(|_| self.special).map_or(0, |processor| processor.added_tokens(is_pair))
    }

    /// Cuts to `length` tokens; says whether something was cut off.
    fn cut(&self, encoding: &mut tokenizers::Encoding, length: usize) -> bool {
        let is_longer = encoding.len() > length;
        if is_longer {
            encoding.truncate(length, 0, self.truncation);
            encoding.take_overflowing();
        }
        is_longer
    }

    fn finish(
        &self,
        first: tokenizers::Encoding,
        second: Option<tokenizers::Encoding>,
        truncated: bool,
    ) -> Result<Encoding> {
        let encoding = self.inner.post_process(first, second, self.special).map_err(|error| self.failed(error))?;
        let beyond = encoding.get_ids().iter().find(|&&id| self.rows.is_some_and(|rows| id as usize >= rows));
        if let (Some(&id), Some(rows)) = (beyond, self.rows) {
            let token = self.id_to_token(id).unwrap_or_default();
            return Err(self.wrong(format!(
                "a text has the token '{token}', whose id is {id}, and the model's table of word embeddings has {rows} rows: \
                 {OF_ANOTHER}"
            )));
        }
        let types = if self.segments { encoding.get_type_ids().to_vec() } else { vec![0; encoding.len()] };
        Ok(Encoding { ids: encoding.get_ids().to_vec(), types, unseen: 0, truncated })
    }

    /// The folder with its files.
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    fn failed(&self, error: tokenizers::Error) -> Error {
        self.wrong(format!("the tokenizer failed: {error}"))
    }

    fn wrong(&self, detail: String) -> Error {
        Error::invalid_file(&self.path, detail)
    }
}

/// Whether what is known of a pair's texts is enough for [`longest_first`]: of two texts that are both cut, it asks which is
/// longer, for the odd token of the budget.
fn is_order_known(first: &Tokens, second: &Tokens, budget: usize) -> bool {
    match (first.is_part, second.is_part) {
        (false, false) => true,
        (true, false) => second.len() < first.len(),
        (false, true) => first.len() < second.len(),
        (true, true) => budget.is_multiple_of(2),
    }
}

/// The lengths of a pair's texts within `budget` tokens: the rule of the reference's fast tokenizers. The shorter text is
/// cut only if it exceeds half the budget.
fn longest_first(first: usize, second: usize, budget: usize) -> (usize, usize) {
    if first + second <= budget {
        return (first, second);
    }
    let is_swapped = first > second;
    let mut short = first.min(second);
    let mut long = if short > budget { short } else { short.max(budget - short) };
    if short + long > budget {
        short = budget / 2;
        long = short + budget % 2;
    }
    if is_swapped { (long, short) } else { (short, long) }
}

#[cfg(test)]
mod tests;
