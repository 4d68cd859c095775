//! Texts of 8,192 tokens, through each family that takes them, on both executors: the same numbers, and memory that grows with
//! the tokens and not with their square.

mod support;

use lexel::{Device, EncodeOptions, Matrix, SentenceTransformer};
use support::golden::Golden;

const TOKENS: usize = 8192;

/// With windows, and with keys that are shared and seen by later tokens only; then two with plain attention, of which a GPU
/// adapter in software takes the first.
const MODELS: [&str; 4] = ["modernbert-mean", "qwen3", "nomic-v1.5", "gte-new"];

/// Scores of one head in f32 would take 256 MiB; everything that is kept for 8,192 tokens of these tiny models takes 20.
const MEMORY: u64 = 160 << 20;

/// The most memory that this process has had, in bytes. `None` where the system does not say.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
}

/// Embeddings of a text beyond the limit, and of a short one.
fn encode(golden: &Golden, name: &str, device: Device) -> Matrix {
    let words = ["the", "river", "old", "music", "reads", "a", "letter", "to", "every", "town"];
    let text = |words_in_it: usize| {
        // A sequence that does not repeat with the words: position matters.
        let word = |i: usize| words[(i * i / 7 + i / 3) % words.len()];
        (0..words_in_it).map(word).collect::<Vec<_>>().join(" ")
    };
    let loader = SentenceTransformer::builder(golden.folder(name)).device(device).max_seq_length(TOKENS);
    let model = loader.load().unwrap_or_else(|error| panic!("{name}: {error}"));
    let texts = [text(TOKENS + 100), text(5)];
    let longest = model.tokenizer().encode(&texts[0]).unwrap();
    assert_eq!((longest.ids.len(), longest.truncated), (TOKENS, true), "{name}");
    model.encode_with(&texts, &EncodeOptions::default()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Runs `computation` and holds its memory against the limit.
fn in_little_memory(computation: impl FnOnce()) {
    let before = peak_memory();
    computation();
    if let (Some(before), Some(after)) = (before, peak_memory()) {
        println!("{} MiB for {TOKENS} tokens", (after - before) >> 20);
        assert!(after - before < MEMORY, "{} MiB for {TOKENS} tokens", (after - before) >> 20);
    }
}

#[test]
fn memory_is_linear_in_the_tokens() {
    let golden = Golden::read("architectures");
    let mut expected = Vec::new();
    in_little_memory(|| expected.extend(MODELS.map(|name| encode(&golden, name, Device::Cpu))));
    for (name, embeddings) in MODELS.iter().zip(&expected) {
        assert!(embeddings.row(0).iter().zip(embeddings.row(1)).any(|(a, b)| (a - b).abs() > 1e-4), "{name}");
    }
    #[cfg(feature = "gpu")]
    if let Some(device) = support::executors::device() {
        in_little_memory(|| {
            for (name, expected) in MODELS.iter().zip(&expected).take(3) {
                let found = encode(&golden, name, Device::Shared(device.clone()));
                for (a, b) in found.data.iter().zip(&expected.data) {
                    // Sums of 8,192 terms, in another order.
                    assert!((a - b).abs() <= 2e-5 * b.abs().max(1.0), "{name}: {a} for {b}");
                }
            }
        });
    }
}
