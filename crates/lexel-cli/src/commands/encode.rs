//! `lexel encode`: a file of texts to a file of embeddings.

use crate::args::EncodeCommand;
use crate::config::{self, EncodeConfig, ModelConfig};
use crate::failure::{DATA, Failure};
use crate::input::Input;
use crate::interrupt;
use crate::output::{Output, OutputConfig, Rows, npy};
use crate::work::Work;
use lexel::{Matrix, Precision, Ranges, SentenceTransformer, quantize_embeddings};
use std::path::Path;
use std::sync::Arc;

/// What `encode` was asked to do.
struct Config {
    input: Input<1>,
    output: OutputConfig,
    model: ModelConfig,
    encode: EncodeConfig,
    /// `None`: float32.
    precision: Option<Precision>,
    ranges: Option<Ranges>,
    window: usize,
}

/// Runs the subcommand.
pub fn run(args: EncodeCommand, json: bool) -> Result<(), Failure> {
    let config = resolve(args)?;
    // Everything that can be refused without the model comes first: a model takes seconds.
    let mut windows = config.input.windows(config.window)?;
    let mut output = config.output.create()?;
    let model: SentenceTransformer = config.model.load()?;
    check_ranges(&config, &model)?;

    let encode = with_cancel(&config.encode);
    let mut work = Work::begin(windows.bytes);
    let mut all = config.needs_all_rows().then(Vec::new);
    let mut cols = None;
    while let Some(window) = windows.next()? {
        let matrix = work.window(&window, |progress| encode.encode(&model, &window.texts(), progress))?;
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
    work.report(&model, config.model.dtype(), json, config.output.is_stdout())
}

fn resolve(args: EncodeCommand) -> Result<Config, Failure> {
    let input = config::texts(&args.input.input, &args.input.column)?;
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

fn append(output: &mut Output, config: &Config, matrix: Matrix) -> Result<(), Failure> {
    let rows = match config.precision {
        None => Rows::Float32(matrix),
        Some(precision) => Rows::Quantized(quantize_embeddings(&matrix, precision, config.ranges.as_ref())?),
    };
    output.append(&rows)
}
