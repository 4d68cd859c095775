//! `lexel predict`: formats, options, windows, pipes.

use crate::support::*;
use lexel::{Activation, PredictOptions};

const PAIRS: [(&str, &str); 5] = [
    ("How do I reset my password?", "Open the window."),
    ("", "Who wrote this song?"),
    ("the old man and the sea", "He plays the guitar; his sister sings."),
    ("\"a\" cat", ""),
    ("How do I reset my password?", "Open the window."),
];

fn predict(args: &[&str]) -> Run {
    succeed(&[&["predict", "--device", "cpu"], args].concat())
}

/// A table of [`PAIRS`], separated by tabs, without a header.
fn tsv() -> String {
    PAIRS.iter().map(|(a, b)| format!("{a}\t{b}\n")).collect()
}

#[test]
fn jsonl_to_npy_gives_the_references_scores() {
    let (folder, golden) = (Folder::new(), ranking("bert-1"));
    let (input, output) = (folder.write("in.jsonl", golden.pairs_jsonl()), folder.path("out.npy"));
    let run = predict(&["--model", &cross_encoder("bert-1"), "--input", &input, "--output", &output]);
    assert!(run.stdout.is_empty());
    let lines: Vec<&str> = run.stderr.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("device: cpu"), "{run:?}");
    assert!(lines[1].starts_with("12 pairs, ") && lines[1].contains(" pairs/s, ") && lines[1].ends_with(", f32"));
    let (shape, found) = scores(&output);
    assert_eq!(shape, [golden.documents.len()]);
    assert_close(&found, &golden.scores());
    assert_eq!(folder.names(), ["in.jsonl", "out.npy"]);
}

#[test]
fn every_format_gives_the_same_scores() {
    let (folder, model) = (Folder::new(), cross_encoder("bert-3"));
    let jsonl = |a: &str, b: &str| -> String {
        PAIRS.iter().map(|(x, y)| serde_json::json!({"id": 7, b: y, a: x}).to_string() + "\n").collect()
    };
    let arrays: String = PAIRS.iter().map(|pair| serde_json::json!(pair).to_string() + "\n").collect();
    let csv: String = PAIRS.iter().map(|(a, b)| format!("{b},\"{}\"\r\n", a.replace('"', "\"\""))).collect();
    let swapped: String = PAIRS.iter().map(|(a, b)| format!("{b}\tx\t{a}\n")).collect();
    let inputs: [(&str, String, &[&str]); 8] = [
        ("default.jsonl", jsonl("text_a", "text_b"), &[]),
        ("named.jsonl", jsonl("query", "passage"), &["--columns", "query,passage"]),
        ("arrays.ndjson", arrays, &[]),
        ("default.tsv", format!("text_a\ttext_b\n{}", tsv()), &[]),
        ("bare.tsv", tsv(), &["--no-header"]),
        ("swapped.tsv", swapped, &["--no-header", "--columns", "3,1"]),
        ("named.csv", format!("\u{feff}passage,query\r\n{csv}"), &["--columns", "query,passage"]),
        ("bare.dat", csv, &["--no-header", "--columns", "2,1", "--input-format", "csv"]),
    ];
    let expected = expected_scores(&model, &PAIRS, &PredictOptions::default());
    for (name, contents, options) in inputs {
        let (input, output) = (folder.write(name, contents), folder.path("out.npy"));
        predict(&[&["-q", "--model", &model, "--input", &input, "--output", &output], options].concat());
        let (shape, found) = scores(&output);
        assert_eq!(shape, [5, 3], "{name}");
        assert_close(&found, &expected.data);
    }
}

#[test]
fn jsonl_holds_the_same_numbers_to_the_last_bit_under_their_labels() {
    let folder = Folder::new();
    let input = folder.write("in.tsv", tsv());
    for name in ["bert-1", "bert-3"] {
        let (npy, jsonl) = (folder.path("out.npy"), folder.path("out.jsonl"));
        for output in [&npy, &jsonl] {
            predict(&["-q", "--model", &cross_encoder(name), "-i", &input, "--no-header", "-o", output]);
        }
        let mut found = Vec::new();
        for (i, line) in std::fs::read_to_string(jsonl).unwrap().lines().enumerate() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["index"], i);
            let keys: &[&str] = if name == "bert-1" { &[] } else { &["contradiction", "entailment", "neutral"] };
            found.extend(keys.iter().map(|key| line["scores"][key].as_f64().unwrap() as f32));
            found.extend(line["score"].as_f64().map(|score| score as f32));
        }
        assert_eq!(found, scores(&npy).1);
    }
}

#[test]
fn pipes_need_their_formats_and_carry_nothing_but_data() {
    let model = cross_encoder("bert-1");
    let common = ["predict", "--device", "cpu", "--model", &model, "-i", "-", "--input-format", "tsv", "--no-header"];
    let run = pipe(tsv().as_bytes(), &[&common[..], &["-o", "-", "--output-format", "jsonl", "--json"]].concat());
    assert_eq!((run.status, run.text().lines().count()), (0, 5), "{run:?}");
    assert!(run.text().starts_with("{\"index\": 0, \"score\": 0."), "{run:?}");
    let report: serde_json::Value = serde_json::from_str(run.stderr.lines().last().unwrap()).unwrap();
    assert_eq!((&report["pairs"], &report["dtype"]), (&5.into(), &"f32".into()));
    assert!(report["pairs_per_s"].as_f64().unwrap() > 0.0);

    for (input, output) in [("-", "out.npy"), ("in.dat", "out.npy"), ("in.tsv", "-"), ("in.tsv", "out.dat")] {
        fail(2, "-format", &["predict", "--model", &model, "-i", input, "-o", output]);
    }
}

#[test]
fn windows_leave_no_seams() {
    let (folder, model) = (Folder::new(), cross_encoder("bert-1"));
    let pairs: Vec<(String, String)> =
        (0..50).map(|i| (format!("query {}", i % 7), ["word"; 9][..i % 9].join(" "))).collect();
    let input = folder.write("in.csv", pairs.iter().map(|(a, b)| format!("{a},{b}\n")).collect::<String>());
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let expected = expected_scores(&model, &pairs, &PredictOptions::default());
    for window in ["1", "7", "50", "51"] {
        let output = folder.path("out.npy");
        predict(&["-q", "--model", &model, "-i", &input, "--no-header", "-o", &output, "--window", window]);
        let (shape, found) = scores(&output);
        assert_eq!(shape, [50]);
        assert_close(&found, &expected.data);
    }
}

#[test]
fn no_pairs_give_no_rows_of_the_right_width() {
    let folder = Folder::new();
    let inputs: [(String, &[&str]); 3] = [
        (folder.write("in.jsonl", ""), &[]),
        (folder.write("in.tsv", "text_a\ttext_b\n"), &[]),
        (folder.write("in.csv", ""), &["--no-header"]),
    ];
    for (input, options) in inputs {
        for (model, expected) in [("bert-1", &[0][..]), ("bert-3", &[0, 3])] {
            let output = folder.path("out.npy");
            let model = cross_encoder(model);
            predict(&[&["-q", "--model", &model, "-i", &input, "-o", &output], options].concat());
            assert_eq!(scores(&output).0, expected);
        }
    }
}

#[test]
fn options_reach_the_library() {
    let (folder, model) = (Folder::new(), cross_encoder("bert-3"));
    let (input, output) = (folder.write("in.tsv", tsv()), folder.path("out.npy"));
    let run = |options: &[&str]| {
        predict(&[&["-q", "--model", &model, "-i", &input, "--no-header", "-o", &output], options].concat());
        scores(&output).1
    };
    let default = PredictOptions::default;
    let softmax = PredictOptions { softmax: true, ..default() };
    assert_close(&run(&["--softmax", "--batch-tokens", "20"]), &expected_scores(&model, &PAIRS, &softmax).data);
    let tanh = PredictOptions { activation: Some(Activation::Tanh), ..default() };
    assert_close(&run(&["--activation", "tanh"]), &expected_scores(&model, &PAIRS, &tanh).data);
    let prompt = PredictOptions { prompt: Some("old dog ".into()), ..default() };
    assert_close(&run(&["--prompt", "old dog "]), &expected_scores(&model, &PAIRS, &prompt).data);
    assert_ne!(run(&["--max-length", "6"]), run(&[]));
    assert_eq!(run(&["--max-length", "6"]), run(&["--max-seq-length", "6"]));

    let fails = |status, expected: &str, options: &[&str]| {
        let common = ["predict", "--device", "cpu", "--model", &model, "-i", &input, "--no-header", "-o", "no.npy"];
        fail(status, expected, &[&common[..], options].concat());
    };
    fails(2, "possible values: identity, gelu", &["--activation", "nope"]);
    fails(2, "no prompt named 'query'", &["--prompt-name", "query"]);
    fails(2, "cannot be used with", &["--prompt-name", "query", "--prompt", "x"]);
    fails(2, "max_seq_length = 1000", &["--max-length", "1000"]);
}
