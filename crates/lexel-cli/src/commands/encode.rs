//! `lexel encode`: a file of texts to a file of embeddings.

use crate::args::EncodeCommand;
use crate::config::{self, EncodeConfig, ModelConfig};
use crate::failure::{DATA, Failure, INTERRUPTED};
use crate::input::{Input, Window};
use crate::messages::{self, EncodeBar};
use crate::output::{Output, OutputConfig, Rows};
use crate::{interrupt, npy};
use lexel::{Error, Matrix, Precision, Progress, Ranges, SentenceTransformer, quantize_embeddings};
use serde_json::json;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// What `encode` was asked to do.
struct Config {
    input: Input,
    output: OutputConfig,
    model: ModelConfig,
    encode: EncodeConfig,
    /// `None`: float32.
    precision: Option<Precision>,
    ranges: Option<Ranges>,
    window: usize,
}

/// What was done.
#[derive(Default)]
struct Totals {
    texts: usize,
    tokens: usize,
    truncated: usize,
    bytes: u64,
}

/// Runs the subcommand.
pub fn run(args: EncodeCommand, json: bool) -> Result<(), Failure> {
    let config = resolve(args)?;
    // Everything that can be refused without the model comes first: a model takes seconds.
    let windows = config.input.windows(config.window)?;
    let mut output = config.output.create(config.precision)?;
    let model = config.model.load()?;
    check_ranges(&config, &model)?;

    let encode = with_cancel(&config.encode);
    let begun = Instant::now();
    let bar = EncodeBar::new(windows.bytes);
    let mut totals = Totals::default();
    let mut all = config.needs_all_rows().then(Vec::new);
    let mut cols = None;
    while let Some(window) = windows.next()? {
        let matrix = encode_window(&encode, &model, &window, &mut totals, begun)?;
        cols = Some(matrix.cols);
        match &mut all {
            Some(all) => all.extend_from_slice(&matrix.data),
            None => append(&mut output, &config, matrix)?,
        }
    }
    if cols.is_none() {
        // No texts: still the dimensions.
        let empty = encode.encode::<&str>(&model, &[], Arc::new(|_| ()))?;
        cols = Some(empty.cols);
        append(&mut output, &config, empty)?;
    }
    if let (Some(data), Some(cols @ 1..)) = (all, cols) {
        append(&mut output, &config, Matrix::new(data.len() / cols, cols, data))?;
    }
    output.finish()?;
    drop(bar);
    report(&totals, begun.elapsed().as_secs_f64(), &model, &config, json)
}

fn resolve(args: EncodeCommand) -> Result<Config, Failure> {
    let input = config::input(&args.input.input, args.input.column.as_deref(), args.input.input_format)?;
    let output = OutputConfig::resolve(&args.output, args.output_format)?;
    let encode = EncodeConfig::resolve(&args.embedding, args.on.device.batch_tokens);
    let precision = match args.precision.as_str() {
        "float32" => None,
        name => Some(name.parse::<Precision>()?),
    };
    let ranges = match (&args.ranges, precision) {
        (None, _) => None,
        (Some(path), Some(Precision::Int8 | Precision::Uint8)) => Some(read_ranges(path)?),
        (Some(_), _) => return Err(Failure::usage("--ranges goes with --precision int8 or uint8 only")),
    };
    let model = ModelConfig::resolve(args.model, &args.on)?;
    Ok(Config { input, output, model, encode, precision, ranges, window: args.window })
}

fn read_ranges(path: &Path) -> Result<Ranges, Failure> {
    let matrix = npy::read(path)?;
    match matrix.rows {
        2 => Ok(Ranges(matrix)),
        rows => Err(Failure::new(
            DATA,
            format!(
                "{}: ranges have two rows (the smallest and the largest values of each dimension), this has {rows}",
                path.display()
            ),
        )),
    }
}

/// Ranges of other dimensions are refused before the work, not after it.
fn check_ranges(config: &Config, model: &SentenceTransformer) -> Result<(), Failure> {
    let dim = config.encode.options.truncate_dim.map_or(model.dim(), |dim| dim.min(model.program_dim()));
    match &config.ranges {
        Some(Ranges(ranges)) if ranges.cols != dim => {
            Err(Failure::new(DATA, format!("--ranges holds {} dimensions, the embeddings have {dim}", ranges.cols)))
        }
        _ => Ok(()),
    }
}

/// The width of the model's embeddings before any truncation.
trait ProgramDim {
    fn program_dim(&self) -> usize;
}

impl ProgramDim for SentenceTransformer {
    fn program_dim(&self) -> usize {
        self.program().shape(self.program().sentences).cols
    }
}

impl Config {
    /// int8 and uint8 without ranges take those of all embeddings.
    fn needs_all_rows(&self) -> bool {
        matches!(self.precision, Some(Precision::Int8 | Precision::Uint8)) && self.ranges.is_none()
    }
}

fn with_cancel(encode: &EncodeConfig) -> EncodeConfig {
    let mut encode = encode.clone();
    encode.options.cancel = Some(interrupt::cancel_flag());
    encode
}

/// Encodes a window, moves the bar and counts.
fn encode_window(
    encode: &EncodeConfig,
    model: &SentenceTransformer,
    window: &Window,
    totals: &mut Totals,
    begun: Instant,
) -> Result<Matrix, Failure> {
    let last = Arc::new(Mutex::new(Progress::default()));
    let progress = {
        let (last, before, read) = (last.clone(), totals.texts, totals.bytes);
        let shares = Shares::of(window);
        move |progress: &Progress| {
            *last.lock().unwrap_or_else(PoisonError::into_inner) = *progress;
            EncodeBar::set(
                read + shares.bytes_after(progress.texts),
                before + progress.texts,
                begun.elapsed().as_secs_f64(),
            );
        }
    };
    let matrix = encode.encode(model, &window.texts, Arc::new(progress)).map_err(|error| match error {
        Error::Cancelled { done, .. } => {
            let done = totals.texts + done;
            Failure::new(INTERRUPTED, format!("interrupted after {done} texts; the output is not complete"))
        }
        error => error.into(),
    })?;
    let last = *last.lock().unwrap_or_else(PoisonError::into_inner);
    totals.texts += window.texts.len();
    totals.tokens += last.tokens;
    totals.truncated += last.truncated;
    totals.bytes += window.bytes;
    Ok(matrix)
}

/// How much of a window's work is done after so many texts: the longest go first, so it is not in proportion to their
/// number.
struct Shares {
    /// Bytes of the longest texts, by how many.
    bytes: Vec<u64>,
    /// Bytes of the input that the whole window took.
    whole: u64,
}

impl Shares {
    fn of(window: &Window) -> Shares {
        let mut lengths: Vec<u64> = window.texts.iter().map(|text| text.len() as u64 + 1).collect();
        lengths.sort_unstable_by_key(|&length| std::cmp::Reverse(length));
        let bytes = std::iter::once(0).chain(lengths.into_iter().scan(0, |sum, length| {
            *sum += length;
            Some(*sum)
        }));
        Shares { bytes: bytes.collect(), whole: window.bytes }
    }

    fn bytes_after(&self, texts: usize) -> u64 {
        let all = self.bytes.last().copied().unwrap_or_default().max(1);
        let done = self.bytes.get(texts).copied().unwrap_or(all);
        (done as f64 / all as f64 * self.whole as f64) as u64
    }
}

fn append(output: &mut Output, config: &Config, matrix: Matrix) -> Result<(), Failure> {
    let rows = match config.precision {
        None => Rows::Float32(matrix),
        Some(precision) => Rows::Quantized(quantize_embeddings(&matrix, precision, config.ranges.as_ref())?),
    };
    output.append(&rows)
}

fn report(
    totals: &Totals,
    seconds: f64,
    model: &SentenceTransformer,
    config: &Config,
    json: bool,
) -> Result<(), Failure> {
    let rate = totals.texts as f64 / seconds.max(1e-9);
    let truncated = match (totals.truncated, model.max_seq_length()) {
        (0, _) | (_, None) => String::new(),
        (texts, Some(length)) => format!(", {texts} of them truncated to {length} tokens"),
    };
    let text = format!(
        "{} texts{truncated}, {} tokens, {seconds:.2} s, {rate:.0} texts/s, {}, {}",
        totals.texts,
        totals.tokens,
        model.device(),
        config.model.dtype().name(),
    );
    let fields = json!({
        "texts": totals.texts,
        "tokens": totals.tokens,
        "truncated": totals.truncated,
        "seconds": seconds,
        "texts_per_s": rate,
        "device": model.device(),
        "dtype": config.model.dtype().name(),
    });
    let serde_json::Value::Object(fields) = fields else { return Ok(()) };
    messages::report(&text, fields, json, config.output.is_stdout())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_counts_the_longest_texts_first() {
        let window = Window { texts: vec!["a".into(), "abcdefghijk".into(), "bcd".into()], bytes: 36 };
        let shares = Shares::of(&window);
        let done: Vec<u64> = (0..=4).map(|texts| shares.bytes_after(texts)).collect();
        assert_eq!(done, [0, 24, 32, 36, 36]);
    }
}
