//! Runs of the program, tiny models, and a reader for its output.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// One of the golden models: tiny, with random weights.
pub fn model(name: &str) -> String {
    golden(&format!("models/{name}"))
}

/// One of the golden cross-encoders that is stored whole, not as what differs from another.
pub fn cross_encoder(name: &str) -> String {
    golden(&format!("cross_encoder/models/{name}"))
}

/// One of the golden sparse encoders that is stored whole.
pub fn sparse_encoder(name: &str) -> String {
    golden(&format!("sparse_encoder/models/{name}"))
}

/// Something among the golden data.
pub fn golden(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(path);
    assert!(path.exists(), "{} is missing", path.display());
    path.to_str().unwrap().to_string()
}

/// The golden cases of cross-encoders.
pub fn cross_encoder_cases() -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(golden("cross_encoder/cases.json")).unwrap()).unwrap()
}

/// What the reference library made of some documents and a query.
pub struct Ranking {
    pub query: String,
    pub documents: Vec<String>,
    /// Indices of documents and their scores, best first.
    pub hits: Vec<(usize, f32)>,
}

/// The golden ranking of all documents by a model.
pub fn ranking(model: &str) -> Ranking {
    let cases = cross_encoder_cases();
    let name = format!("rank/{model}/all");
    let case = cases["rank"].as_array().unwrap().iter().find(|case| case["name"] == name.as_str()).unwrap();
    let text =
        |index: &serde_json::Value| cases["texts"][index.as_u64().unwrap() as usize].as_str().unwrap().to_string();
    let hit =
        |hit: &serde_json::Value| (hit["corpus_id"].as_u64().unwrap() as usize, hit["score"].as_f64().unwrap() as f32);
    Ranking {
        query: text(&case["query"]),
        documents: case["documents"].as_array().unwrap().iter().map(text).collect(),
        hits: case["expected"].as_array().unwrap().iter().map(hit).collect(),
    }
}

impl Ranking {
    /// The scores in the order of the documents.
    pub fn scores(&self) -> Vec<f32> {
        let mut scores = vec![0.0; self.documents.len()];
        self.hits.iter().for_each(|&(i, score)| scores[i] = score);
        scores
    }

    /// The documents as a .jsonl file of texts.
    pub fn jsonl(&self) -> String {
        self.documents.iter().map(|text| serde_json::json!({"text": text}).to_string() + "\n").collect()
    }

    /// The query with each document as a .jsonl file of pairs.
    pub fn pairs_jsonl(&self) -> String {
        let line = |text| serde_json::json!({"text_a": self.query, "text_b": text}).to_string() + "\n";
        self.documents.iter().map(line).collect()
    }
}

/// A folder of its own for a test, with what the test puts there.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    /// The path of a file in it.
    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_string()
    }

    /// Writes a file, and gives its path.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), contents).unwrap();
        self.path(name)
    }

    /// The names of all files, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// A LoRA adapter for golden models of 32 columns, in a folder of PEFT's form.
pub fn adapter(folder: &Folder) -> String {
    let (path, tensor) = (folder.path("adapter"), "base_model.model.encoder.layer.0.attention.self.query");
    std::fs::create_dir(&path).unwrap();
    let config = r#"{"peft_type": "LORA", "r": 1, "lora_alpha": 2, "bias": "none"}"#;
    std::fs::write(format!("{path}/adapter_config.json"), config).unwrap();
    let entry = |which, shape, first| {
        let offsets = [first, first + 128];
        format!(r#""{tensor}.lora_{which}.weight":{{"dtype":"F32","shape":{shape:?},"data_offsets":{offsets:?}}}"#)
    };
    let header = format!("{{{},{}}}", entry("A", [1, 32], 0), entry("B", [32, 1], 128));
    let numbers = (0..64u8).flat_map(|i| (f32::from(i) / 64.0).to_le_bytes());
    let bytes = (header.len() as u64).to_le_bytes().into_iter().chain(header.bytes()).chain(numbers);
    std::fs::write(format!("{path}/adapter_model.safetensors"), bytes.collect::<Vec<u8>>()).unwrap();
    path
}

/// Copies a folder, with those in it.
pub fn copy_folder(from: &str, to: &str) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let (from, to) = (format!("{from}/{name}"), format!("{to}/{name}"));
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&from, &to);
        } else {
            std::fs::copy(from, to).unwrap();
        }
    }
}

/// The program, in an environment that does not depend on the user's.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lexel"));
    for name in ["LEXEL_DEVICE", "RUST_LOG"] {
        command.env_remove(name);
    }
    // Mesa's Vulkan layer complains on stderr where there is no desktop session.
    command.env("NODEVICE_SELECT", "1");
    // Tests may run where Ctrl-C is ignored (in the background of a shell), which a process inherits.
    // SAFETY: signal may be called between fork and exec.
    #[cfg(unix)]
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(&mut command, || {
            libc::signal(libc::SIGINT, libc::SIG_DFL);
            Ok(())
        })
    };
    command.env("LEXEL_CACHE_DIR", PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cache"));
    // No test needs the hub, and none may find the user's models.
    command.env("HF_HUB_OFFLINE", "1").env("HF_HUB_CACHE", PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("hub"));
    command
}

/// How a run ended.
#[derive(Debug)]
pub struct Run {
    pub status: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Run {
    pub fn of(output: Output) -> Run {
        Run {
            status: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.text().lines().count(), 1, "{self:?}");
        serde_json::from_str(self.text()).unwrap()
    }
}

/// Runs the program.
pub fn lexel(args: &[&str]) -> Run {
    Run::of(command().args(args).stdin(Stdio::null()).output().unwrap())
}

/// Runs it and expects success.
pub fn succeed(args: &[&str]) -> Run {
    let run = lexel(args);
    assert_eq!(run.status, 0, "{args:?}: {run:?}");
    run
}

/// Runs it and expects this status, one message in our form, and this in the message.
pub fn fail(status: i32, expected: &str, args: &[&str]) -> Run {
    let run = lexel(args);
    assert_eq!(run.status, status, "{args:?}: {run:?}");
    assert!(run.stdout.is_empty(), "{args:?}: {run:?}");
    let message = run.stderr.lines().skip_while(|line| line.starts_with("device: ")).collect::<Vec<_>>().join("\n");
    assert!(message.starts_with("lexel: ") && message.contains(expected), "{args:?}: {run:?}");
    run
}

/// Waits until something that another process does is done.
pub fn wait_until(done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Runs it with this on standard input.
pub fn pipe(input: &[u8], args: &[&str]) -> Run {
    let mut child =
        command().args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    Run::of(child.wait_with_output().unwrap())
}

/// A .npy file of two dimensions: its type, its shape and its bytes.
pub fn npy(bytes: &[u8]) -> (String, [usize; 2], Vec<u8>) {
    let (descr, shape, data) = npy_of_any_shape(bytes);
    (descr, shape.try_into().unwrap(), data)
}

fn npy_of_any_shape(bytes: &[u8]) -> (String, Vec<usize>, Vec<u8>) {
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let length = u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    assert_eq!((10 + length) % 64, 0);
    let dict = std::str::from_utf8(&bytes[10..10 + length]).unwrap();
    assert!(dict.ends_with('\n') && dict.contains("'fortran_order': False"), "{dict}");
    let between = |start: &str, end: &str| dict.split_once(start).unwrap().1.split_once(end).unwrap().0;
    // `(3,)` or `(3, 2)`
    let shape = between("'shape': (", ")").split(',').map(str::trim).filter(|n| !n.is_empty());
    let shape = shape.map(|n| n.parse().unwrap()).collect();
    (between("'descr': '", "'").to_string(), shape, bytes[10 + length..].to_vec())
}

/// A .npy file of float32 in two dimensions.
pub fn floats(path: &str) -> ([usize; 2], Vec<f32>) {
    let (shape, data) = scores(path);
    (shape.try_into().unwrap(), data)
}

/// A .npy file of float32.
pub fn scores(path: &str) -> (Vec<usize>, Vec<f32>) {
    let (descr, shape, data) = npy_of_any_shape(&std::fs::read(path).unwrap());
    assert_eq!((descr.as_str(), data.len()), ("<f4", shape.iter().product::<usize>() * 4));
    (shape, data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect())
}

/// The same texts through the library.
pub fn expected(model: &str, texts: &[&str], options: &lexel::EncodeOptions) -> lexel::Matrix {
    let model = lexel::SentenceTransformer::builder(model).device(lexel::Device::Cpu).load().unwrap();
    model.encode_with(texts, options).unwrap()
}

/// The same pairs through the library.
pub fn expected_scores(model: &str, pairs: &[(&str, &str)], options: &lexel::PredictOptions) -> lexel::Matrix {
    let model = lexel::CrossEncoder::builder(model).device(lexel::Device::Cpu).load().unwrap();
    model.predict_with(pairs, options).unwrap()
}

/// Batches are cut differently, which may change the last bits.
pub fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() < 1e-5, "number {i}: {a} and {b}");
    }
}
