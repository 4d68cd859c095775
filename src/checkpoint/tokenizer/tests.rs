use super::*;
use crate::checkpoint::{QueryExpansion, TaskLengths};

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

#[test]
fn a_token_that_the_model_has_no_embedding_of_names_the_file() {
    let mut tokenizer = tokenizer(None);
    tokenizer.set_rows(8);
    assert_eq!(tokenizer.encode("hello world").unwrap().ids, [2, 5, 6, 3]);
    let message = tokenizer.encode("hello, world").unwrap_err().to_string();
    for part in ["tokenizer.json", "','", "id is 8", "8 rows", "another model's"] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn prompts_that_the_tokenizer_takes_apart_become_tokens() {
    let prompts = ["hello ", "[MASK]", "##s ", "no token", ""].map(String::from);
    let mut plain = tokenizer(None);
    let texts = ["##s hello", "ahello", "a [MASK] b", "no token"];
    assert_eq!(plain.encode("##s hello").unwrap().ids, [2, 1, 1, 1, 5, 3]);
    let before: Vec<Encoding> = texts.iter().map(|text| plain.encode(text).unwrap()).collect();
    plain.keep_whole(&prompts).unwrap();
    assert_eq!(plain.encode("##s hello").unwrap().ids, [2, 7, 5, 3]);
    // What it has whole stays as it was: not found inside of words.
    for (text, before) in texts.iter().zip(before).skip(1) {
        assert_eq!(plain.encode(text).unwrap(), before, "{text}");
    }
}

#[test]
fn queries_and_documents_have_lengths_of_their_own() {
    let expansion = |is_fixed, attend| Some(QueryExpansion { length: 5, is_fixed, attend, token: None });
    let with = |lengths: TaskLengths| tokenizer(Some(7)).with_lengths(&lengths);
    let encode = |tokenizer: &Tokenizer, task, text| {
        let encoding = tokenizer.encode_batch_in(Frame { prompt: "", task }, &[text]).unwrap().remove(0);
        (encoding.ids, encoding.unseen, encoding.truncated)
    };
    let (short, long) = ("a", "a b c d e a b c");
    let lengths = TaskLengths { query: Some(6), document: Some(4), expansion: None };
    let plain = with(lengths.clone()).unwrap();
    assert_eq!(encode(&plain, None, long), (vec![2, 9, 10, 11, 12, 13, 3], 0, true));
    assert_eq!(encode(&plain, Some("query"), long), (vec![2, 9, 10, 11, 12, 3], 0, true));
    assert_eq!(encode(&plain, Some("document"), long), (vec![2, 9, 10, 3], 0, true));
    assert_eq!(encode(&plain, Some("query"), short), (vec![2, 9, 3], 0, false));
    for (is_fixed, attend) in [(true, false), (false, true)] {
        let expanded = with(TaskLengths { expansion: expansion(is_fixed, attend), ..lengths.clone() }).unwrap();
        let unseen = if attend { 0 } else { 2 };
        assert_eq!(encode(&expanded, Some("query"), short), (vec![2, 9, 3, 4, 4], unseen, false));
        assert_eq!(encode(&expanded, Some("document"), short), (vec![2, 9, 3], 0, false));
        let cut = encode(&expanded, Some("query"), long).0.len();
        assert_eq!(cut, if is_fixed { 5 } else { 6 });
    }
    let message = with(TaskLengths { document: Some(2), ..lengths }).unwrap_err().to_string();
    assert!(message.contains("a maximum length of 2 leaves no room for text"), "{message}");
}

#[test]
fn queries_are_expanded_by_the_mask_or_by_the_end() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("vocab.txt"), VOCABULARY).unwrap();
    let expansion = Some(QueryExpansion { length: 4, is_fixed: true, attend: true, token: None });
    let lengths = TaskLengths { query: None, document: None, expansion };
    for (config, id) in [
        (r#"{"eos_token": "[SEP]"}"#, 4),
        (r#"{"mask_token": null, "eos_token": "[SEP]"}"#, 3),
        (r#"{"mask_token": "a", "eos_token": "[SEP]"}"#, 9),
    ] {
        std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
        let tokenizer = Tokenizer::load(folder.path(), None, false).unwrap().with_lengths(&lengths).unwrap();
        let frame = Frame { prompt: "", task: Some("query") };
        assert_eq!(tokenizer.encode_batch_in(frame, &["a"]).unwrap()[0].ids, [2, 9, 3, id], "{config}");
    }
}
