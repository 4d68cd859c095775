//! Token ids of all-MiniLM-L6-v2 beside those of Python's tokenizers (tests/golden/make_tokens.py).

#[path = "support/minilm.rs"]
mod minilm;

use std::time::{Duration, Instant};

use lexel::checkpoint::{Checkpoint, SourceOptions, Tokenizer};
use serde_json::Value;

fn tokenizer(max_seq_length: usize) -> Option<Tokenizer> {
    let options = SourceOptions { cache_dir: Some(minilm::cache()?), offline: true, ..SourceOptions::default() };
    let folder = Checkpoint::open("all-MiniLM-L6-v2", &options).unwrap().folder().to_path_buf();
    Some(Tokenizer::load(&folder, Some(max_seq_length), false).unwrap())
}

fn golden() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/minilm_tokens.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn ids_are_those_of_python() {
    let golden = golden();
    let Some(mut tokenizer) = tokenizer(golden["max_length"].as_u64().unwrap() as usize) else { return };
    let cases = golden["texts"].as_array().unwrap();
    let texts: Vec<&str> = cases.iter().map(|case| case["text"].as_str().unwrap()).collect();
    let start = Instant::now();
    let encodings = tokenizer.encode_batch(&texts).unwrap();
    eprintln!("{} texts in {:?}", texts.len(), start.elapsed());
    for (case, encoding) in cases.iter().zip(encodings) {
        assert_eq!(encoding.ids, ids(&case["ids"]), "{:?}", case["text"]);
        assert!(encoding.types.iter().all(|&segment| segment == 0));
    }
    let pair_texts: Vec<&str> = golden["pair_texts"].as_array().unwrap().iter().flat_map(Value::as_str).collect();
    for case in golden["pairs"].as_array().unwrap() {
        let number = |i: usize| case[i].as_u64().unwrap() as usize;
        tokenizer.set_max_seq_length(Some(number(0))).unwrap();
        let encoding = tokenizer.encode_pair(pair_texts[number(1)], pair_texts[number(2)]).unwrap();
        assert_eq!(encoding.ids, ids(&case[3]), "{case}");
        // The second segment is one run at the end.
        let first_segment = encoding.ids.len() - number(4);
        let types: Vec<u32> = (0..encoding.ids.len()).map(|i| u32::from(i >= first_segment)).collect();
        assert_eq!(encoding.types, types, "{case}");
    }
}

#[test]
fn a_megabyte_is_bounded_work() {
    let Some(tokenizer) = tokenizer(256) else { return };
    let words = "the quick brown fox ".repeat(50_000);
    let texts = [
        "x".repeat(1_000_000),
        words.clone(),
        "\u{1f600}".repeat(250_000),
        "[SEP]".repeat(200_000),
        "\0".repeat(1_000_000),
    ];
    for text in &texts {
        let start = Instant::now();
        let encoding = tokenizer.encode(text).unwrap();
        let elapsed = start.elapsed();
        eprintln!("{} bytes of {:?}: {} ids in {elapsed:?}", text.len(), text.chars().next(), encoding.ids.len());
        assert!(encoding.ids.len() <= 256 && elapsed < Duration::from_secs(20));
    }
    // The crate's own truncation would combine 800 leftovers of one text with 800 of the other.
    let start = Instant::now();
    assert_eq!(tokenizer.encode_pair(&words, &words).unwrap().ids.len(), 256);
    eprintln!("a pair of a megabyte each in {:?}", start.elapsed());
}
