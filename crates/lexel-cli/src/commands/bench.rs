//! `lexel bench`: how fast this machine encodes, from strings to embeddings.

use super::lengths::Lengths;
use super::profile;
use crate::args::BenchCommand;
use crate::config::{self, EncodeConfig, ModelConfig};
use crate::failure::Failure;
use crate::{messages, process};
use lexel::SentenceTransformer;
use lexel::executor::Executor;
use lexel::models::Preset;
use lexel::program::{Output, RandomWeights};
use lexel::scheduler::{Scheduler, Sequence};
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Tokens of a run with a preset, where the number of texts is not given.
const PRESET_TOKENS: usize = 65_536;

/// Texts of the warm-up: pages are mapped, clocks are up, pipelines are compiled.
const WARM_UP: usize = 1024;

/// Runs for the latency of a single text.
const SINGLE_RUNS: usize = 100;

/// The single text.
const SINGLE_TEXT: &str = "The weather is lovely today.";

/// Its tokens, for a preset: as many as BERT's tokenizer makes of it.
const SINGLE_TOKENS: usize = 8;

/// Something that can be measured.
struct Job<'a> {
    /// What is measured, as `(name, value)`.
    what: Vec<(&'static str, String)>,
    device: String,
    dtype: &'static str,
    load_s: f64,
    texts: usize,
    unique_texts: usize,
    /// Encodes the first so many texts and returns how many tokens that were.
    all: Box<dyn Fn(usize) -> lexel::Result<usize> + 'a>,
    /// Encodes a single text.
    single: Box<dyn Fn() -> lexel::Result<()> + 'a>,
    /// How long the device has computed so far.
    busy: Box<dyn Fn() -> Duration + 'a>,
}

/// What was measured.
struct Measured {
    tokens: usize,
    /// Seconds of each repeat.
    repeats: Vec<f64>,
    /// CPU seconds of a repeat, on average.
    cpu_s: Option<f64>,
    /// The share of the repeats' time in which the device did not compute.
    idle: f64,
    /// Milliseconds of each single text, sorted.
    single_ms: Vec<f64>,
}

/// Runs the subcommand.
pub fn run(args: BenchCommand, json: bool) -> Result<(), Failure> {
    match &args.preset {
        Some(preset) => bench_preset(preset, &args, json),
        None => bench_model(&args, json),
    }
}

fn bench_model(args: &BenchCommand, json: bool) -> Result<(), Failure> {
    let (Some(model_id), Some(path)) = (&args.model, &args.input.input) else {
        return Err(Failure::usage("give --model and --input, or --preset"));
    };
    let input = config::texts(std::slice::from_ref(path), &args.input.column)?;
    let window = input.read(args.texts)?;
    let texts = window.texts();
    if texts.is_empty() {
        return Err(Failure::new(crate::failure::DATA, format!("{} holds no texts to measure with", input.name())));
    }
    let config = ModelConfig::resolve(model_id.clone(), &args.on)?;
    let encode = EncodeConfig::resolve(&args.prompt, &args.embedding, args.on.device.batch_tokens);
    let begun = Instant::now();
    let model: SentenceTransformer = config.load()?;
    let load_s = begun.elapsed().as_secs_f64();
    encode.warn(&model);
    if args.profile {
        let (sequences, batch_tokens) = (longest_first(&model, &texts)?, args.on.device.batch_tokens);
        let batch = profile::batch(model.executor(), model.program(), batch_tokens, &sequences);
        let profile = profile::run(model.executor(), model.program(), &batch, config.dtype(), json)?;
        return messages::stdout(&profile);
    }
    let job = Job {
        what: vec![("model", model_id.clone()), ("input", input.name())],
        device: model.device(),
        dtype: config.dtype().name(),
        load_s,
        texts: texts.len(),
        unique_texts: texts.iter().collect::<HashSet<_>>().len(),
        all: Box::new(|count| {
            let tokens = Arc::new(AtomicUsize::new(0));
            let last = tokens.clone();
            let progress = move |progress: &lexel::Progress| last.store(progress.tokens, Ordering::Relaxed);
            encode.encode(&model, &texts[..count], Arc::new(progress))?;
            Ok(tokens.load(Ordering::Relaxed))
        }),
        single: Box::new(|| encode.encode(&model, &[SINGLE_TEXT], Arc::new(|_| ())).map(|_| ())),
        busy: Box::new(|| model.executor().busy()),
    };
    measure_and_report(&job, args.repeats, json)
}

fn bench_preset(name: &str, args: &BenchCommand, json: bool) -> Result<(), Failure> {
    let preset = Preset::named(name)?;
    let lengths = Lengths::parse(&args.lengths)?;
    let (device, options) = config::device(&args.on.device)?;
    let longest = args.on.max_seq_length.unwrap_or(preset.max_seq_length).min(preset.max_seq_length);
    if let Lengths::Exactly(length) = lengths
        && length > longest
    {
        let how = if longest < preset.max_seq_length { "--max-seq-length allows" } else { "this model takes" };
        return Err(Failure::usage(format!("--lengths {length}: {how} at most {longest} tokens a text")));
    }
    let count = args.texts.unwrap_or((PRESET_TOKENS / lengths.mean().min(longest)).max(1));
    let sequences = lengths.sequences(count, longest, preset.vocabulary());
    let single = Lengths::Exactly(SINGLE_TOKENS).sequences(1, longest, preset.vocabulary());
    let begun = Instant::now();
    let program = Arc::new(preset.program(longest));
    let executor = device.load(program.clone(), &RandomWeights { seed: 1 }, &options)?;
    let load_s = begun.elapsed().as_secs_f64();
    messages::note(&format!("device: {}", executor.describe()));
    let executor: &dyn Executor = &*executor;
    if args.profile {
        let batch = profile::batch(executor, &program, args.on.device.batch_tokens, &sequences);
        return messages::stdout(&profile::run(executor, &program, &batch, options.dtype, json)?);
    }
    let (output, padding, batch_tokens) = (Output::Sentences, program.padding, args.on.device.batch_tokens);
    let scheduler = Scheduler { executor, output, padding, batch_tokens };
    let job = Job {
        what: vec![("preset", name.to_string()), ("lengths", args.lengths.clone())],
        device: executor.describe(),
        dtype: options.dtype.name(),
        load_s,
        texts: count,
        unique_texts: count,
        all: Box::new(|count| run_sequences(&scheduler, &sequences[..count])),
        single: Box::new(|| scheduler.run_few(single.clone(), |_| Ok(()))),
        busy: Box::new(|| executor.busy()),
    };
    measure_and_report(&job, args.repeats, json)
}

/// Texts as the first batch of `encode` has them.
fn longest_first(model: &SentenceTransformer, texts: &[&str]) -> lexel::Result<Vec<Sequence>> {
    let mut texts = texts.to_vec();
    texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
    let encodings = model.tokenizer().encode_batch(&texts)?.into_iter().enumerate();
    let sequence = |(key, encoding): (usize, lexel::checkpoint::Encoding)| Sequence {
        key,
        ids: encoding.ids,
        types: encoding.types,
        skip: 0,
        unseen: 0,
    };
    Ok(encodings.map(sequence).collect())
}

/// As `encode` hands its texts over, without the tokenizer.
fn run_sequences(scheduler: &Scheduler, sequences: &[Sequence]) -> lexel::Result<usize> {
    let mut tokens = 0;
    let chunks = sequences.chunks(256).map(|chunk| Ok(chunk.to_vec()));
    scheduler.run(chunks, |finished| {
        tokens += finished.batch.tokens();
        Ok(())
    })?;
    Ok(tokens)
}

fn measure_and_report(job: &Job, repeats: usize, json: bool) -> Result<(), Failure> {
    let measured = measure(job, repeats)?;
    let fields = fields(job, &measured);
    match json {
        true => messages::stdout(&format!("{}\n", Value::Object(fields))),
        false => messages::stdout(&table(&fields)),
    }
}

fn measure(job: &Job, repeats: usize) -> Result<Measured, Failure> {
    (job.all)(job.texts.min(WARM_UP))?;
    let mut measured = Measured { tokens: 0, repeats: Vec::new(), cpu_s: None, idle: 0.0, single_ms: Vec::new() };
    let (cpu, busy) = (process::cpu_seconds(), (job.busy)());
    for repeat in 1..=repeats {
        let begun = Instant::now();
        measured.tokens = (job.all)(job.texts)?;
        let seconds = begun.elapsed().as_secs_f64();
        measured.repeats.push(seconds);
        messages::note(&format!("repeat {repeat} of {repeats}: {seconds:.3} s"));
    }
    measured.cpu_s = process::cpu_seconds().zip(cpu).map(|(after, before)| (after - before) / repeats as f64);
    let busy = ((job.busy)() - busy).as_secs_f64();
    measured.idle = (1.0 - busy / measured.repeats.iter().sum::<f64>()).max(0.0);
    for _ in 0..3 {
        (job.single)()?;
    }
    for _ in 0..SINGLE_RUNS {
        let begun = Instant::now();
        (job.single)()?;
        measured.single_ms.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    measured.single_ms.sort_by(f64::total_cmp);
    Ok(measured)
}

fn fields(job: &Job, measured: &Measured) -> Map<String, Value> {
    let mut sorted = measured.repeats.clone();
    sorted.sort_by(f64::total_cmp);
    let median = (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0;
    let percentile = |share: f64| {
        let index = (share * (measured.single_ms.len() - 1) as f64).round() as usize;
        measured.single_ms.get(index).map(|&ms| rounded(ms))
    };
    let mut fields = Map::new();
    for (name, value) in &job.what {
        fields.insert(name.to_string(), value.as_str().into());
    }
    for (name, value) in [
        ("texts_per_s", json!(rounded(job.texts as f64 / median))),
        ("tokens_per_s", json!(rounded(measured.tokens as f64 / median))),
        ("p50_ms", json!(percentile(0.50))),
        ("p95_ms", json!(percentile(0.95))),
        ("load_s", json!(rounded(job.load_s))),
        ("peak_rss_mib", json!(process::peak_rss_mib().map(rounded))),
        ("cpu_s", json!(measured.cpu_s.map(rounded))),
        ("device_idle", json!(rounded(measured.idle))),
        ("device", json!(job.device)),
        ("dtype", json!(job.dtype)),
        ("texts", json!(job.texts)),
        ("unique_texts", json!(job.unique_texts)),
        ("tokens", json!(measured.tokens)),
        ("repeats", json!(measured.repeats.iter().copied().map(rounded).collect::<Vec<_>>())),
    ] {
        fields.insert(name.to_string(), value);
    }
    fields
}

/// The fields as lines.
fn table(fields: &Map<String, Value>) -> String {
    let mut out = String::new();
    for (name, value) in fields {
        let value = match value {
            Value::Null => "unknown".to_string(),
            Value::String(value) => value.clone(),
            Value::Array(values) => values.iter().map(Value::to_string).collect::<Vec<_>>().join(" "),
            value => value.to_string(),
        };
        let _ = writeln!(out, "{name:<14} {value}");
    }
    out
}

/// Five significant digits: nothing here is more exact.
fn rounded(number: f64) -> f64 {
    format!("{number:.4e}").parse().unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_percentiles_and_rates() {
        let job = Job {
            what: vec![("preset", "x".into())],
            device: "cpu".into(),
            dtype: "f32",
            load_s: 0.123456789,
            texts: 100,
            unique_texts: 90,
            all: Box::new(|_| Ok(0)),
            single: Box::new(|| Ok(())),
            busy: Box::new(|| Duration::ZERO),
        };
        let single_ms = (0..100).map(f64::from).collect();
        let measured = Measured { tokens: 1000, repeats: vec![4.0, 1.0, 2.0], cpu_s: None, idle: 0.25, single_ms };
        let fields = fields(&job, &measured);
        assert_eq!(fields["texts_per_s"], 50.0);
        assert_eq!(fields["tokens_per_s"], 500.0);
        assert_eq!((&fields["p50_ms"], &fields["p95_ms"]), (&json!(50.0), &json!(94.0)));
        assert_eq!(fields["load_s"], 0.12346);
        assert_eq!((&fields["cpu_s"], &fields["device_idle"]), (&Value::Null, &json!(0.25)));
        assert_eq!(fields["repeats"], json!([4.0, 1.0, 2.0]));
        assert!(table(&fields).contains("cpu_s          unknown\n"));
    }
}
