//! What goes wrong: the exit status, the message, and that nothing is left behind.

use crate::support::*;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

/// `encode` with this input and a file for the output, which must not be there afterwards.
fn encode_fails(status: i32, expected: &str, name: &str, contents: &[u8], options: &[&str]) {
    let folder = Folder::new();
    let (input, output) = (folder.write(name, contents), folder.path("out.npy"));
    let model = model("pool-mean");
    let device: &[&str] = if options.contains(&"--device") { &[] } else { &["--device", "cpu"] };
    fail(status, expected, &[&["encode", "--model", &model, "-i", &input, "-o", &output], device, options].concat());
    assert_eq!(folder.names(), [name], "{expected}");
}

#[test]
fn bad_data_is_named_with_its_line() {
    encode_fails(65, "in.txt, line 2: not valid UTF-8: byte 0xff at column 3", "in.txt", b"one\ntw\xffo\n", &[]);
    encode_fails(65, "in.jsonl, line 2: not valid JSON", "in.jsonl", b"\"one\"\n{\"text\": tru\n", &[]);
    encode_fails(
        65,
        "line 1: there is no key 'text'; the keys are 'id', 'body'",
        "in.jsonl",
        b"{\"id\": 1, \"body\": \"\"}",
        &[],
    );
    encode_fails(
        65,
        "line 3: 'text' is null",
        "in.jsonl",
        b"\"a\"\n\"b\"\n{\"text\": null}\n\"c\"",
        &["--window", "1"],
    );
}

/// `predict` with this input and a file for the output, which must not be there afterwards.
fn predict_fails(status: i32, expected: &str, name: &str, contents: &[u8], options: &[&str]) {
    let folder = Folder::new();
    let (input, output) = (folder.write(name, contents), folder.path("out.npy"));
    let model = cross_encoder("bert-1");
    let common = ["predict", "--device", "cpu", "--model", &model, "-i", &input, "-o", &output];
    fail(status, expected, &[&common[..], options].concat());
    assert_eq!(folder.names(), [name], "{expected}");
}

#[test]
fn bad_pairs_are_named_with_their_line() {
    let bare = &["--no-header"][..];
    predict_fails(65, "p.tsv, line 2: 1 column, where the first line has 2", "p.tsv", b"a\tb\nc d\n", bare);
    predict_fails(65, "p.tsv, line 1: 1 column: there is no column 2", "p.tsv", b"one\ntwo\n", bare);
    predict_fails(65, "p.tsv, line 3: an empty line", "p.tsv", b"a\tb\nc\td\n\n", &["--no-header", "--window", "1"]);
    predict_fails(65, "p.tsv, line 2: not valid UTF-8: byte 0xff at column 3", "p.tsv", b"a\tb\nc\t\xff\n", bare);
    predict_fails(65, "p.csv, line 2: not valid UTF-8: byte 0xff in column 2", "p.csv", b"a,b\nc,\xff\n", bare);
    predict_fails(65, "p.csv, line 2: a quote is opened", "p.csv", b"a,b\nc,\"d\ne,f\n", bare);
    predict_fails(65, "p.csv, line 1: the file is empty", "p.csv", b"", &[]);
    let missing = "p.tsv, line 1: there is no column 'text_a'; the columns are 'query', 'passage': choose two by \
                   --columns A,B, or --no-header if this line is data";
    predict_fails(65, missing, "p.tsv", b"query\tpassage\na\tb\n", &[]);
    predict_fails(65, "no column 'b'; the columns are 'a', 'c'", "p.csv", b"a,c\n", &["--columns", "a,b"]);
    predict_fails(65, "line 1: there is no key 'text_b'; the keys are 'text_a'", "p.jsonl", b"{\"text_a\": \"\"}", &[]);
}

#[test]
fn pairs_need_two_columns() {
    predict_fails(2, "give two columns", "p.tsv", b"a\tb\n", &["--columns", "a"]);
    predict_fails(2, "with --no-header, columns are numbers", "p.tsv", b"", &["--no-header", "--columns", "a,b"]);
    predict_fails(2, "--no-header is for .tsv and .csv", "p.jsonl", b"", &["--no-header"]);
    predict_fails(2, "a .txt input has a text a line, no pairs", "p.txt", b"a\n", &[]);
    predict_fails(2, "unexpected argument '--column'", "p.tsv", b"", &["--column", "a"]);
}

#[test]
fn what_is_not_there_is_no_input() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let (input, output) = (folder.write("in.txt", "one"), folder.path("out.npy"));
    fail(66, "nowhere.txt", &["encode", "--model", &model, "-i", "nowhere.txt", "-o", &output]);
    std::fs::create_dir(folder.path("sub.txt")).unwrap();
    fail(
        66,
        "sub.txt has no files ending in .txt",
        &["encode", "--model", &model, "-i", &folder.path("sub.txt"), "-o", &output],
    );
    for id in ["nobody/nothing", "./nowhere", "nothing"] {
        fail(66, "not found", &["encode", "--model", id, "-i", &input, "-o", &output]);
        fail(66, "not found", &["info", id]);
        fail(66, "not found", &["download", id]);
    }
    assert_eq!(folder.names(), ["in.txt", "sub.txt"]);
}

#[test]
fn options_that_make_no_sense_are_usage() {
    encode_fails(2, "unexpected argument '--frobnicate'", "in.txt", b"one", &["--frobnicate"]);
    encode_fails(2, "must be at least 1", "in.txt", b"one", &["--truncate-dim", "0"]);
    encode_fails(2, "possible values: f32, f16, bf16, int8", "in.txt", b"one", &["--dtype", "f64"]);
    encode_fails(2, "no prompt named 'nope'; it has: document, query", "in.txt", b"one", &["--prompt-name", "nope"]);
    encode_fails(2, "cannot be used with", "in.txt", b"one", &["--query", "--document"]);
    encode_fails(2, "has no columns", "in.txt", b"one", &["--column", "text"]);
    encode_fails(2, "max_seq_length = 100000", "in.txt", b"one", &["--max-seq-length", "100000"]);
    encode_fails(2, "need the range of each dimension", "in.txt", b"one", &["--precision", "int8"]);
    fail(2, "required arguments", &["encode", "--model", "x"]);
    fail(2, "Usage: lexel", &[]);
}

#[test]
fn devices_that_are_not_there() {
    let expected = if cfg!(feature = "gpu") { "no-such-adapter" } else { "no GPU support" };
    encode_fails(69, expected, "in.txt", b"one", &["--device", "no-such-adapter"]);
    let status = if cfg!(feature = "gpu") { 69 } else { 2 };
    fail(status, expected, &["devices", "--tune", "no-such-adapter"]);
    if cfg!(feature = "gpu") {
        let known = "no adapter named 'cuda' (known: cpu, gpu, gpu0, gpu1, ... and parts of adapters' names";
        encode_fails(69, known, "in.txt", b"one", &["--device", "cuda"]);
    }
}

#[test]
fn devices_have_their_names_in_any_case() {
    let model = model("pool-mean");
    let args = ["similarity", "--model", &model, "one"];
    succeed(&[&args[..], &["--device", "CPU"]].concat());
    let run = succeed(&[&args[..], &["--device", "cpu", "--dtype", "f16"]].concat());
    assert!(run.stderr.contains("weights in f16"), "{run:?}");
    // `auto` is not asked for again.
    for (device, expected) in [("Auto", "device: "), (" auto", "device: "), ("Cpu", "device: cpu")] {
        let run = Run::of(command().args(args).env("LEXEL_DEVICE", device).output().unwrap());
        assert!(run.status == 0 && run.stderr.contains(expected), "{run:?}");
    }
    let run =
        Run::of(command().args(args).args(["--device", "cpu"]).env("LEXEL_INSTRUCTIONS", "foo").output().unwrap());
    assert!(run.status == 2 && run.stderr.contains("LEXEL_INSTRUCTIONS=foo: this CPU has "), "{run:?}");
}

#[test]
fn checkpoints_that_cannot_be_run() {
    let folder = Folder::new();
    let copy = |name: &str| {
        let target = folder.path(name);
        copy_folder(&model("pool-mean"), &target);
        target
    };
    let similarity = |status, expected: &str, model: &str| {
        fail(status, expected, &["similarity", "--device", "cpu", "--model", model, "one", "two"]);
    };
    let cut = copy("cut");
    let weights = format!("{cut}/model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() - 5]).unwrap();
    similarity(65, "model.safetensors", &cut);
    std::fs::remove_file(&weights).unwrap();
    similarity(66, "not found", &cut);
    let unknown = copy("unknown");
    let config = std::fs::read_to_string(format!("{unknown}/config.json")).unwrap();
    std::fs::write(format!("{unknown}/config.json"), config.replace("\"bert\"", "\"mamba\"")).unwrap();
    similarity(65, "mamba", &unknown);
    let pointer = copy("pointer");
    for name in ["tokenizer.json", "model.safetensors", "config.json"] {
        let file = Path::new(&pointer).join(name).display().to_string();
        std::fs::write(&file, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n").unwrap();
        similarity(65, &format!("{file}: a git-lfs pointer and not the file itself: run `git lfs pull`"), &pointer);
    }
    // More layers than there are, and fewer.
    let layers = folder.path("layers");
    copy_folder(&model("prompts"), &layers);
    let config = std::fs::read_to_string(format!("{layers}/config.json")).unwrap();
    let set = |count: u32| {
        let text = config.replace("\"num_hidden_layers\":2", &format!("\"num_hidden_layers\":{count}"));
        std::fs::write(format!("{layers}/config.json"), text).unwrap();
    };
    set(3);
    let weights = Path::new(&layers).join("model.safetensors").display().to_string();
    similarity(65, &format!("no such tensor in {weights}"), &layers);
    set(1);
    let run = succeed(&["similarity", "--device", "cpu", "--model", &layers, "one", "two"]);
    let warning = format!("lexel: warning: {weights}: ");
    assert!(run.stderr.starts_with(&warning) && run.stderr.matches("warning").count() == 1, "{run:?}");
    assert!(
        run.stderr.contains(" tensors of encoder.layer.1 are not used: by its configuration the model has 1 layers"),
        "{run:?}"
    );
}

#[test]
#[cfg(unix)]
fn outputs_that_cannot_be_written() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let input = folder.write("in.txt", "word\n".repeat(300));
    let encode = ["encode", "--device", "cpu", "-q", "--model", &model, "-i", &input, "-o"];
    for format in ["npy", "jsonl", "parquet", "safetensors"] {
        fail(74, "/dev/full: No space left", &[&encode[..], &["/dev/full", "--output-format", format]].concat());
    }
    fail(74, "nowhere/out.npy", &[&encode[..], &[&folder.path("nowhere/out.npy")]].concat());
    fail(2, "is a folder", &[&encode[..], &[&folder.path(""), "--output-format", "npy"]].concat());

    // A file-size limit, which kills a process that does not expect it.
    let program = command();
    let script = format!(
        "ulimit -f 4; exec {} {} {}",
        program.get_program().to_str().unwrap(),
        encode.join(" "),
        folder.path("out.npy")
    );
    let run = Run::of(std::process::Command::new("sh").args(["-c", &script]).output().unwrap());
    assert!(run.status == 74 && run.stderr.contains("out.npy: File too large"), "{run:?}");
    assert_eq!(folder.names(), ["in.txt"]);
}

#[test]
fn a_reader_that_goes_away_ends_the_program_quietly() {
    let (folder, model, scorer) = (Folder::new(), model("pool-mean"), cross_encoder("bert-1"));
    let texts: String = (0..3000).map(|i| format!("text {i}\n")).collect();
    let pairs: String = (0..3000).map(|i| format!("query\ttext {i}\n")).collect();
    let (texts, pairs) = (folder.write("in.txt", texts), folder.write("in.tsv", pairs));
    let encode = ["encode", "--model", &model, "-i", &texts];
    let predict = ["predict", "--model", &scorer, "-i", &pairs, "--no-header"];
    for (command_line, format) in [
        (&encode[..], "jsonl"),
        (&encode, "npy"),
        (&encode, "parquet"),
        (&encode, "safetensors"),
        (&predict, "jsonl"),
        (&predict, "npy"),
    ] {
        let mut child = command()
            .args(command_line)
            .args(["--device", "cpu", "-q", "-o", "-", "--output-format", format, "--window", "100"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::with_capacity(16, child.stdout.take().unwrap());
        let mut first = Vec::new();
        if format == "jsonl" {
            stdout.read_until(b'\n', &mut first).unwrap();
            assert!(first.starts_with(b"{\"index\": 0, "));
        }
        drop(stdout);
        let run = Run::of(child.wait_with_output().unwrap());
        assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{command_line:?} {format}");
    }
}

#[test]
fn what_only_a_job_folder_can_do_is_refused_for_a_file() {
    for option in [
        &["--shard", "1/2"][..],
        &["--part-rows", "10"],
        &["--keep-columns", "id"],
        &["--id-column", "id"],
        &["--on-invalid", "skip"],
    ] {
        let expected = format!("{} is for job folders: give --output FOLDER/", option[0]);
        encode_fails(2, &expected, "in.jsonl", b"\"one\"\n", option);
        predict_fails(2, &expected, "p.tsv", b"text_a\ttext_b\na\tb\n", option);
    }
}
