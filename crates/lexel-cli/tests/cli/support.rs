//! Runs of the program, tiny models, and a reader for its output.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// One of the golden models: tiny, with random weights.
pub fn model(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/models").join(name);
    assert!(folder.is_dir(), "{} is missing", folder.display());
    folder.to_str().unwrap().to_string()
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

/// The program, in an environment that does not depend on the user's.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lexel"));
    for name in ["LEXEL_DEVICE", "RUST_LOG"] {
        command.env_remove(name);
    }
    // Mesa's Vulkan layer complains on stderr where there is no desktop session.
    command.env("NODEVICE_SELECT", "1");
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

/// Runs it with this on standard input.
pub fn pipe(input: &[u8], args: &[&str]) -> Run {
    let mut child =
        command().args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    Run::of(child.wait_with_output().unwrap())
}

/// A .npy file: its type, its shape and its bytes.
pub fn npy(bytes: &[u8]) -> (String, [usize; 2], Vec<u8>) {
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let length = u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    assert_eq!((10 + length) % 64, 0);
    let dict = std::str::from_utf8(&bytes[10..10 + length]).unwrap();
    assert!(dict.ends_with('\n') && dict.contains("'fortran_order': False"), "{dict}");
    let between = |start: &str, end: &str| dict.split_once(start).unwrap().1.split_once(end).unwrap().0;
    let shape: Vec<usize> = between("'shape': (", ")").split(',').map(|n| n.trim().parse().unwrap()).collect();
    (between("'descr': '", "'").to_string(), shape.try_into().unwrap(), bytes[10 + length..].to_vec())
}

/// A .npy file of float32.
pub fn floats(path: &str) -> ([usize; 2], Vec<f32>) {
    let (descr, shape, data) = npy(&std::fs::read(path).unwrap());
    assert_eq!((descr.as_str(), data.len()), ("<f4", shape[0] * shape[1] * 4));
    (shape, data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect())
}

/// The same texts through the library.
pub fn expected(model: &str, texts: &[&str], options: &lexel::EncodeOptions) -> lexel::Matrix {
    let model = lexel::SentenceTransformer::builder(model).device(lexel::Device::Cpu).load().unwrap();
    model.encode_with(texts, options).unwrap()
}

/// Batches are cut differently, which may change the last bits.
pub fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() < 1e-5, "number {i}: {a} and {b}");
    }
}
