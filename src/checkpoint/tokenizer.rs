//! Texts to token ids, as the reference's tokenizers do it, without padding.
//!
//! Everything is driven by `tokenizer.json`. Padding and truncation that are stored there are dropped: a batch has no
//! padding, and truncation is done here. The crate's own truncation keeps what it cuts off as further encodings, for a
//! pair of long texts as many as the product of their pieces.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokenizers::{PostProcessor, TruncationDirection};

use super::chat_template::{ChatTemplate, Content, Frame};
use super::config::JsonFile;
use super::files::TOKENIZER_FILE;
use super::tokenizer_files::{bert_pipeline, from_file, from_vocabulary, is_bert, makes_segments, prepend_lowercase};
use crate::error::{Error, Result};

/// The token ids of one text or pair.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Encoding {
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// Segment ids: 0, or 1 for the second text of a pair where the model makes that difference.
    pub types: Vec<u32>,
    /// Whether something was cut off.
    pub truncated: bool,
}

/// A tokenizer with a maximum length. Cheap to share between threads, not to clone.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    max_seq_length: Option<usize>,
    truncation: TruncationDirection,
    /// Whether encodings get special tokens.
    pub(super) special: bool,
    /// Texts become messages of a chat, where the model takes chats.
    pub(super) chat: Option<Arc<ChatTemplate>>,
    /// Whether a pair's second text has segment 1: otherwise all tokens have 0.
    segments: bool,
    path: PathBuf,
}

impl Tokenizer {
    /// Reads the tokenizer in `folder`. Texts are cut to `max_seq_length` tokens, special tokens included. With
    /// `do_lower_case`, texts are lowercased first, unless the tokenizer has a normaliser for that.
    pub fn load(folder: &Path, max_seq_length: Option<usize>, do_lower_case: bool) -> Result<Tokenizer> {
        let config_path = folder.join("tokenizer_config.json");
        let config = JsonFile::read_if_present(&config_path)?
            .unwrap_or_else(|| JsonFile::from_object(config_path, Default::default()));
        let path = folder.join(TOKENIZER_FILE);
        let mut inner = match path.is_file() {
            true => from_file(&path)?,
            false => from_vocabulary(folder, &config)?,
        };
        if is_bert(folder, &config, &inner)? {
            bert_pipeline(&mut inner, &config).map_err(|error| Error::invalid_file(&path, error))?;
        }
        inner.with_padding(None);
        // Without parameters there is nothing that could be refused.
        let _ = inner.with_truncation(None);
        if do_lower_case {
            prepend_lowercase(&mut inner).map_err(|error| Error::invalid_file(&path, error))?;
        }
        let truncation = match config.str_or("truncation_side", "right")? {
            "right" => TruncationDirection::Right,
            "left" => TruncationDirection::Left,
            _ => return Err(config.unsupported("truncation_side", "right, left")),
        };
        let mut tokenizer = Tokenizer {
            inner,
            max_seq_length,
            truncation,
            special: true,
            chat: None,
            segments: makes_segments(folder, &config)?,
            path,
        };
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
        Ok(Tokenizer { inner, max_seq_length, truncation, special: false, chat: None, segments: false, path })
    }

    /// The most tokens that an encoding has, special tokens included.
    pub fn max_seq_length(&self) -> Option<usize> {
        self.max_seq_length
    }

    /// Sets the most tokens that an encoding has, special tokens included.
    pub fn set_max_seq_length(&mut self, length: Option<usize>) -> Result<()> {
        let added = self.added_tokens(false);
        if length.is_some_and(|length| length <= added) {
            let length = length.unwrap_or_default();
            return Err(Error::InvalidInput(format!(
                "a maximum length of {length} leaves no room for text: the tokenizer adds {added} special tokens"
            )));
        }
        self.max_seq_length = length;
        Ok(())
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

    pub(super) fn encode_plain(&self, text: &str) -> Result<Encoding> {
        let mut encoding = self.content(text)?;
        let mut truncated = false;
        if let Some(length) = self.max_seq_length {
            truncated = self.cut(&mut encoding, length.saturating_sub(self.added_tokens(false)));
        }
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
        let (mut first, mut second) = (self.content(first)?, self.content(second)?);
        let mut truncated = false;
        if let Some(length) = self.max_seq_length {
            let budget = length.checked_sub(self.added_tokens(true)).ok_or_else(|| {
                let added = self.added_tokens(true);
                Error::InvalidInput(format!(
                    "a maximum length of {length} has no room for the {added} tokens of a pair"
                ))
            })?;
            let (first_length, second_length) = longest_first(first.len(), second.len(), budget);
            truncated = self.cut(&mut first, first_length) | self.cut(&mut second, second_length);
        }
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
        let types = if self.segments { encoding.get_type_ids().to_vec() } else { vec![0; encoding.len()] };
        Ok(Encoding { ids: encoding.get_ids().to_vec(), types, truncated })
    }

    fn failed(&self, error: tokenizers::Error) -> Error {
        Error::invalid_file(&self.path, format!("the tokenizer failed: {error}"))
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
mod tests {
    use super::*;

    const VOCABULARY: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\nworld\n##s\n,\na\nb\nc\nd\ne\n";

    fn tokenizer(max_seq_length: Option<usize>) -> Tokenizer {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("vocab.txt"), VOCABULARY).unwrap();
        Tokenizer::load(folder.path(), max_seq_length, false).unwrap()
    }

    #[test]
    fn a_vocabulary_alone_makes_a_bert_tokenizer() {
        let tokenizer = tokenizer(None);
        assert_eq!(tokenizer.vocab_size(), 14);
        assert_eq!(tokenizer.encode("Hello, WORLDs xyz").unwrap().ids, [2, 5, 8, 6, 7, 1, 3]);
        assert_eq!(tokenizer.encode("").unwrap().ids, [2, 3]);
        assert_eq!(tokenizer.encode("a [SEP] b").unwrap().ids, [2, 9, 3, 10, 3]);
        let pair = tokenizer.encode_pair("a b", "c").unwrap();
        assert_eq!((pair.ids, pair.types), (vec![2, 9, 10, 3, 11, 3], vec![0, 0, 0, 0, 1, 1]));
        assert_eq!(tokenizer.prompt_tokens("hello , ").unwrap(), 3);
        assert_eq!(tokenizer.prompt_tokens("").unwrap(), 1);
    }

    #[test]
    fn truncation_counts_special_tokens() {
        let tokenizer = tokenizer(Some(5));
        let encoding = tokenizer.encode("a b c d").unwrap();
        assert_eq!((encoding.ids, encoding.truncated), (vec![2, 9, 10, 11, 3], true));
        assert!(!tokenizer.encode("a b c").unwrap().truncated);
        let pair = tokenizer.encode_pair("a b c d", "e").unwrap();
        assert_eq!((pair.ids, pair.truncated), (vec![2, 9, 3, 13, 3], true));
        let texts = ["a b c d", "", "e"];
        let batch = tokenizer.encode_batch(&texts).unwrap();
        assert_eq!(batch.iter().map(|encoding| encoding.ids.len()).collect::<Vec<_>>(), [5, 2, 3]);
        let mut short = tokenizer;
        assert!(short.set_max_seq_length(Some(2)).is_err());
        assert_eq!(short.max_seq_length(), Some(5));
    }

    #[test]
    fn the_longer_text_is_cut_first() {
        // Lengths, budget and result, as Python's tokenizers 0.23.3 cuts them.
        for (first, second, budget, expected) in [
            (3, 4, 7, (3, 4)),
            (9, 2, 8, (6, 2)),
            (2, 9, 8, (2, 6)),
            (9, 9, 8, (4, 4)),
            (9, 8, 7, (4, 3)),
            (8, 9, 7, (3, 4)),
            (9, 9, 7, (3, 4)),
            (5, 4, 1, (1, 0)),
            (4, 5, 1, (0, 1)),
            (9, 0, 4, (4, 0)),
            (5, 5, 0, (0, 0)),
        ] {
            assert_eq!(longest_first(first, second, budget), expected, "{first} and {second} within {budget}");
        }
    }

    #[test]
    fn what_tokenizer_json_stores_about_lengths_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let mut stored = tokenizer(None).inner;
        stored.with_truncation(Some(tokenizers::TruncationParams { max_length: 4, ..Default::default() })).unwrap();
        let strategy = tokenizers::PaddingStrategy::Fixed(12);
        stored.with_padding(Some(tokenizers::PaddingParams { strategy, ..Default::default() }));
        stored.with_normalizer(None::<tokenizers::NormalizerWrapper>).unwrap();
        stored.save(folder.path().join(TOKENIZER_FILE), false).unwrap();
        let plain = Tokenizer::load(folder.path(), None, false).unwrap();
        assert_eq!(plain.encode("a b c d Hello").unwrap().ids, [2, 9, 10, 11, 12, 1, 3]);
        let lower = Tokenizer::load(folder.path(), None, true).unwrap();
        assert_eq!(lower.encode("a b c d Hello").unwrap().ids, [2, 9, 10, 11, 12, 5, 3]);

        std::fs::write(folder.path().join("tokenizer_config.json"), r#"{"truncation_side": "left"}"#).unwrap();
        let left = Tokenizer::load(folder.path(), Some(4), false).unwrap();
        assert_eq!(left.encode("a b c d").unwrap().ids, [2, 11, 12, 3]);
    }

    #[test]
    fn what_cannot_be_built_says_how_to_convert() {
        let folder = tempfile::tempdir().unwrap();
        let message = Tokenizer::load(folder.path(), None, false).unwrap_err().to_string();
        assert!(message.contains("tokenizer.json") && message.contains("save_pretrained"), "{message}");
        for (text, complaint) in
            [("{}", "not a tokenizer"), ("version https://git-lfs.github.com/spec/v1\n", "run `git lfs pull`")]
        {
            std::fs::write(folder.path().join(TOKENIZER_FILE), text).unwrap();
            let message = Tokenizer::load(folder.path(), None, false).unwrap_err().to_string();
            assert!(message.contains("tokenizer.json") && message.contains(complaint), "{message}");
        }
    }
}
