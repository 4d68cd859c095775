//! `lexel encode`: a file of texts to a file of embeddings.

use crate::args::{EncodeCommand, OutputFormat};
use crate::config::{self, EncodeConfig, ModelConfig};
use crate::failure::{DATA, Failure};
use crate::input::Input;
use crate::interrupt;
use crate::job::{self, JobInput, JobOutput};
use crate::output::{Output, OutputConfig, Rows, npy};
use crate::work::Work;
use lexel::{Matrix, Precision, Ranges, SentenceTransformer, quantize_embeddings};
use std::path::Path;
use std::sync::Arc;

/// The numbers of the output.
#[derive(Clone, Copy)]
enum OutputPrecision {
    Float32,
    Float16,
    Quantized(Precision),
}

/// What `encode` was asked to do.
struct Config {
    input: Input<1>,
    output: OutputConfig,
    model: ModelConfig,
    encode: EncodeConfig,
    precision: OutputPrecision,
    ranges: Option<Ranges>,
    window: usize,
}

/// Runs the subcommand.
pub fn run(args: EncodeCommand, json: bool) -> Result<(), Failure> {
    if job::is_folder(&args.output) {
        return run_job(&args, json);
    }
    let config = resolve(args)?;
    // Everything that can be refused without the model comes first: a model takes seconds.
    let mut windows = config.input.windows(config.window)?;
    let mut output = config.output.create()?;
    let model: SentenceTransformer = config.model.load()?;
    check_ranges(config.ranges.as_ref(), &config.encode, &model)?;
    config.encode.warn(&model);

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

/// Into a folder of parts.
fn run_job(args: &EncodeCommand, json: bool) -> Result<(), Failure> {
    let output = JobOutput::resolve(&args.output, args.output_format.unwrap_or(OutputFormat::Npy), &args.job)?;
    let input = config::texts(&args.input.input, &args.input.column)?;
    let precision = precision(&args.precision)?;
    let ranges = ranges(args.ranges.as_deref(), precision)?;
    if ranges.is_none() && matches!(precision, OutputPrecision::Quantized(Precision::Int8 | Precision::Uint8)) {
        return Err(Failure::usage("int8 and uint8 need --ranges in a job: its parts are written one by one"));
    }
    let encode = EncodeConfig::resolve(&args.prompt, &args.embedding, args.on.device.batch_tokens);
    let config = ModelConfig::resolve(args.model.clone(), &args.on)?;
    let input = JobInput::resolve(input, &output, &args.job)?;
    let load = || {
        let model: SentenceTransformer = config.load()?;
        check_ranges(ranges.as_ref(), &encode, &model)?;
        encode.warn(&model);
        // What makes no sense for the model is refused before there is a folder.
        let none = encode.encode::<&str>(&model, &[], Arc::new(|_| ()))?;
        let options = &encode.options;
        let identity = config
            .identity()
            .with("task", format!("encode {:?}", encode.task).to_lowercase())
            .with("prompt", options.prompt.clone())
            .with("prompt_name", options.prompt_name.clone().or(model.default_prompt_name().map(str::to_string)))
            .with("normalize", options.normalize)
            .with("dimensions", none.cols)
            .with("precision", args.precision.as_str())
            .with("ranges", ranges.as_ref().map(|ranges| format!("{:?}", ranges.0.data)));
        Ok((model, identity))
    };
    let encode_and_cancel = with_cancel(&encode);
    job::run(
        input,
        &output,
        json,
        config.dtype().name(),
        load,
        |model: &SentenceTransformer, rows: &[[String; 1]], progress| {
            let texts: Vec<&str> = rows.iter().map(|[text]| text.as_str()).collect();
            encode_and_cancel.encode(model, &texts, progress)
        },
        |_, matrix| rows(matrix, precision, ranges.as_ref()),
    )
}

fn resolve(args: EncodeCommand) -> Result<Config, Failure> {
    job::refuse_options(&args.job)?;
    let input = config::texts(&args.input.input, &args.input.column)?;
    let output = OutputConfig::resolve(&args.output, args.output_format)?;
    config::refuse_overwriting(&args.output, &input.files)?;
    if let Some(ranges) = &args.ranges {
        config::refuse_overwriting(&args.output, std::slice::from_ref(ranges))?;
    }
    let encode = EncodeConfig::resolve(&args.prompt, &args.embedding, args.on.device.batch_tokens);
    let precision = precision(&args.precision)?;
    let ranges = ranges(args.ranges.as_deref(), precision)?;
    let model = ModelConfig::resolve(args.model, &args.on)?;
    Ok(Config { input, output, model, encode, precision, ranges, window: args.window })
}

/// What the option says.
fn precision(name: &str) -> Result<OutputPrecision, Failure> {
    Ok(match name {
        "float32" => OutputPrecision::Float32,
        "float16" => OutputPrecision::Float16,
        name => OutputPrecision::Quantized(name.parse()?),
    })
}

fn ranges(path: Option<&Path>, precision: OutputPrecision) -> Result<Option<Ranges>, Failure> {
    match (path, precision) {
        (None, _) => Ok(None),
        (Some(path), OutputPrecision::Quantized(Precision::Int8 | Precision::Uint8)) => read_ranges(path).map(Some),
        (Some(_), _) => Err(Failure::usage("--ranges goes with --precision int8 or uint8 only")),
    }
}

fn read_ranges(path: &Path) -> Result<Ranges, Failure> {
    let matrix = npy::read(path)?;
    match matrix.rows {
        2 => {
            let ranges = Ranges(matrix);
            let wrong = |error| Failure::new(DATA, format!("{}: {error}", path.display()));
            ranges.check().map_err(wrong).map(|()| ranges)
        }
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
fn check_ranges(ranges: Option<&Ranges>, encode: &EncodeConfig, model: &SentenceTransformer) -> Result<(), Failure> {
    let dim = encode.options.truncate_dim.map_or(model.dim(), |dim| dim.min(config::full_dim(model)));
    match ranges {
        Some(Ranges(ranges)) if ranges.cols != dim => {
            Err(Failure::new(DATA, format!("--ranges holds {} dimensions, the embeddings have {dim}", ranges.cols)))
        }
        _ => Ok(()),
    }
}

impl Config {
    /// int8 and uint8 without ranges take those of all embeddings.
    fn needs_all_rows(&self) -> bool {
        matches!(self.precision, OutputPrecision::Quantized(Precision::Int8 | Precision::Uint8))
            && self.ranges.is_none()
    }
}

fn with_cancel(encode: &EncodeConfig) -> EncodeConfig {
    let mut encode = encode.clone();
    encode.options.cancel = Some(interrupt::cancel_flag());
    encode
}

fn append(output: &mut Output, config: &Config, matrix: Matrix) -> Result<(), Failure> {
    output.append(&rows(matrix, config.precision, config.ranges.as_ref())?)
}

fn rows(matrix: Matrix, precision: OutputPrecision, ranges: Option<&Ranges>) -> Result<Rows<'static>, Failure> {
    Ok(match precision {
        OutputPrecision::Float32 => Rows::Float32(matrix),
        OutputPrecision::Float16 => Rows::half(&matrix),
        OutputPrecision::Quantized(precision) => Rows::Quantized(quantize_embeddings(&matrix, precision, ranges)?),
    })
}
