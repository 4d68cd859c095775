//! The first tokens of a long text, without the work on the rest of it: what is cut off need not be tokenised.
//!
//! This changes no token. It is done only for tokenizers that part a text at its spaces, whose words are then tokenised one
//! by one; and a text is parted only at a space between letters or digits, over which nothing is normalised or joined.

use tokenizers::{NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

/// Bytes of text that a token has at most, as a rule: English has 4 to 5. Where that is too few, more are taken.
const TOKEN_BYTES: usize = 8;

/// Tokens beside those that are asked for: an added token with a space in it, parted by the end of the piece, is not among the
/// first.
const MARGIN: usize = 16;

/// Words for the question whether a tokenizer parts texts at spaces.
const WORDS: &str = "ab cd ef";

/// Whether a tokenizer makes words of a text before it makes tokens of them, and each space ends a word.
pub(super) fn has_words(tokenizer: &tokenizers::Tokenizer) -> bool {
    let mut text = NormalizedString::from(WORDS);
    if tokenizer.get_normalizer().is_some_and(|normalizer| normalizer.normalize(&mut text).is_err()) {
        return false;
    }
    let mut pieces = PreTokenizedString::from(text);
    let Some(pre_tokenizer) = tokenizer.get_pre_tokenizer() else { return false };
    if pre_tokenizer.pre_tokenize(&mut pieces).is_err() {
        return false;
    }
    let pieces = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
    let crosses = |(_, (start, end), _): &(&str, (usize, usize), _)| {
        WORDS.match_indices(' ').any(|(space, _)| *start < space && space + 1 < *end)
    };
    !pieces.is_empty() && !pieces.iter().any(crosses)
}

/// Ever longer beginnings of a text, the first of which should have `tokens` tokens and a few more. None where the whole text
/// is not much longer.
pub(super) fn beginnings(text: &str, tokens: usize) -> impl Iterator<Item = &str> {
    let first = tokens.saturating_add(MARGIN).saturating_mul(TOKEN_BYTES);
    let lengths = std::iter::successors(Some(first), |length| length.checked_mul(4));
    lengths.take_while(|&length| length <= text.len() / 2).filter_map(|length| up_to_a_space(text, length))
}

/// Whether so many tokens of a beginning tell the text's first `wanted`, and that there are more.
pub(super) fn is_enough(tokens: usize, wanted: usize) -> bool {
    tokens >= wanted.saturating_add(MARGIN)
}

/// The part of a text before the last fitting space in its first `length` bytes.
fn up_to_a_space(text: &str, length: usize) -> Option<&str> {
    let mut end = length.min(text.len());
    loop {
        end = text.as_bytes()[..end].iter().rposition(|&byte| byte == b' ')?;
        let (before, after) = (text[..end].chars().next_back(), text[end + 1..].chars().next());
        if before.is_some_and(char::is_alphanumeric) && after.is_some_and(char::is_alphanumeric) {
            return Some(&text[..end]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Tokenizer;
    use crate::checkpoint::files::TOKENIZER_FILE;
    use std::path::{Path, PathBuf};

    #[test]
    fn a_text_is_parted_between_words_only() {
        assert_eq!(up_to_a_space("one two three", 9), Some("one two"));
        assert_eq!(up_to_a_space("one two three", 7), Some("one"));
        assert_eq!(up_to_a_space("one two  - three", 16), Some("one"));
        assert_eq!(up_to_a_space("één twee", 8), Some("één"));
        assert_eq!(up_to_a_space("one\ntwo\tthree", 13), None);
        assert_eq!(up_to_a_space("e \u{301} e", 5), None);
    }

    /// The folders below `folder` that have a tokenizer.json.
    fn with_tokenizer(folder: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let below = entries.filter(|path| path.is_dir()).flat_map(|path| with_tokenizer(&path));
        let here = folder.join(TOKENIZER_FILE).is_file().then(|| folder.to_path_buf());
        here.into_iter().chain(below).collect()
    }

    #[test]
    fn the_first_tokens_are_those_of_the_whole_text() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let lines = std::fs::read_to_string(golden.join("minilm/texts.txt")).unwrap();
        let odd = "Ünïcode  über\u{301} [MASK] <s>x y</s> \u{4f60}\u{597d} ab\u{200d}c 3,141.59 \u{1f600}\u{fe0f}\t\nRe-tried ";
        let some: String = lines.lines().step_by(9).take(20).collect::<Vec<_>>().join(" ");
        let text = format!("{odd}{some}");
        let other = text.split_at(text.len() / 2 + text[text.len() / 2..].find(' ').unwrap()).1;
        let mut with_words = 0;
        let folders = with_tokenizer(&golden);
        for folder in &folders {
            let Ok(mut tokenizer) = Tokenizer::load(folder, None, false) else { continue };
            with_words += usize::from(tokenizer.has_words);
            for length in [13, 64, 65] {
                tokenizer.set_max_seq_length(Some(length)).unwrap();
                let mut whole = tokenizer.clone();
                whole.has_words = false;
                let encoding = tokenizer.encode(&text).unwrap();
                assert!(encoding.truncated && encoding.ids.len() == length, "{}", folder.display());
                assert_eq!(encoding, whole.encode(&text).unwrap(), "{} at {length}", folder.display());
                for (a, b) in [(&*text, "a short one"), ("a short one", &text), (&text, other), (other, &text)] {
                    let pair = tokenizer.encode_pair(a, b).unwrap();
                    assert_eq!(pair, whole.encode_pair(a, b).unwrap(), "{} at {length}", folder.display());
                }
            }
        }
        eprintln!("{with_words} of {} tokenizers part texts at spaces", folders.len());
        assert!(with_words >= 10);
    }

    #[test]
    fn beginnings_grow_until_the_rest_is_not_worth_it() {
        let text = "word ".repeat(1000);
        let lengths: Vec<usize> = beginnings(&text, 4).map(str::len).collect();
        assert_eq!(lengths, [159, 639]);
        assert_eq!(beginnings(&text, 1000).count(), 0);
        assert_eq!(beginnings(&text, usize::MAX).count(), 0);
    }
}
