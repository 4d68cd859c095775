//! `lexel rank`: the reference's order, both forms of output.

use crate::support::*;

#[test]
fn texts_come_in_the_references_order_with_their_scores() {
    let (folder, golden) = (Folder::new(), ranking("bert-1"));
    let (input, model) = (folder.write("in.jsonl", golden.jsonl()), cross_encoder("bert-1"));
    let common = ["rank", "--device", "cpu", "--model", &model, "--query", &golden.query, "--input", &input];
    let run = succeed(&common);
    let lines: Vec<&str> = run.text().split_terminator('\n').collect();
    assert_eq!(lines.len(), golden.hits.len());
    for (line, (i, score)) in lines.iter().zip(&golden.hits) {
        // A line is a text, whatever the text holds.
        let text: String = golden.documents[*i].chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        assert_eq!(*line, format!("{score:.4}\t{text}"));
    }
    let notes: Vec<&str> = run.stderr.lines().collect();
    assert!(notes.len() == 2 && notes[0].starts_with("device: cpu") && notes[1].starts_with("12 texts, "), "{run:?}");

    for (options, count) in [(&[][..], 12), (&["--top-k", "3"], 3), (&["--top-k", "99"], 12)] {
        let run = succeed(&[&common[..], &["--json", "-q"], options].concat());
        let hits = run.json();
        let hits = hits.as_array().unwrap();
        assert_eq!(hits.len(), count);
        for (hit, (i, score)) in hits.iter().zip(&golden.hits) {
            assert_eq!(hit["corpus_id"], *i);
            assert_eq!(hit["text"], golden.documents[*i].as_str());
            assert_close(&[hit["score"].as_f64().unwrap() as f32], &[*score]);
        }
    }
}

#[test]
fn every_format_and_option_is_read() {
    let (folder, model) = (Folder::new(), cross_encoder("bert-1"));
    let txt = folder.write("in.txt", "one\ntwo\nthree");
    let rank = |input: &str, options: &[&str]| {
        let common = ["rank", "-q", "--device", "cpu", "-m", &model, "--query", "two", "-i", input];
        succeed(&[&common[..], options].concat()).text().to_string()
    };
    let expected = rank(&txt, &[]);
    assert_eq!(expected.lines().count(), 3);
    assert_eq!(rank(&folder.write("in.tsv", "id\tbody\n1\tone\n2\ttwo\n3\tthree\n"), &["--column", "body"]), expected);
    assert_eq!(rank(&folder.write("in.csv", "one\ntwo\nthree\n"), &["--no-header"]), expected);
    let common = ["rank", "-q", "--device", "cpu", "-m", &model, "--query", "two", "-i", "-", "--input-format", "txt"];
    assert_eq!(pipe(b"one\ntwo\nthree", &common).text(), expected);

    // A control character is a space; logits are no probabilities.
    let jsonl = folder.write("in.jsonl", "\"a\\tb\\nc\"\n\"d\"\n");
    assert!(rank(&jsonl, &[]).lines().any(|line| line.ends_with("\ta b c")));
    let logits: Vec<f32> = rank(&txt, &["--activation", "identity"])
        .lines()
        .map(|line| line.split_once('\t').unwrap().0.parse().unwrap())
        .collect();
    assert!(logits.is_sorted_by(|a, b| a >= b) && logits[0] > 1.0, "{logits:?}");
    assert_ne!(rank(&txt, &["--prompt", "old dog "]), expected);
}

#[test]
fn what_cannot_be_ranked_is_refused() {
    let folder = Folder::new();
    let input = folder.write("in.txt", "one\ntwo");
    let fails = |status, expected: &str, model: &str, input: &str, options: &[&str]| {
        let common = ["rank", "--device", "cpu", "--query", "x", "-m", model, "-i", input];
        fail(status, expected, &[&common[..], options].concat());
    };
    let one = cross_encoder("bert-1");
    let labels = "ranking needs a model of one label; this one has 3: contradiction, entailment, neutral";
    fails(2, labels, &cross_encoder("bert-3"), &input, &[]);
    fails(65, "holds no texts to rank", &one, &folder.write("empty.txt", ""), &[]);
    fails(65, "in.tsv, line 1: there is no column 'text'", &one, &folder.write("in.tsv", "a\tb\n"), &[]);
    fails(65, "architectures", &model("plain"), &input, &[]);
    fails(66, "nowhere.txt", &one, "nowhere.txt", &[]);
    fails(2, "must be at least 1", &one, &input, &["--top-k", "0"]);
    fail(2, "--query", &["rank", "-m", &one, "-i", &input]);
}
