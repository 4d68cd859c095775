//! What `encode-sparse` and `encode-multi-vector` do alike: texts window by window into a file, or part by part into a job's folder.

use crate::args::{InputsArgs, JobArgs, ModelArgs, OutputFormat};
use crate::config::{self, ModelConfig};
use crate::failure::Failure;
use crate::job::{self, Identity, JobInput, JobOutput};
use crate::model::Model;
use crate::output::{OutputConfig, Rows};
use crate::work::Work;
use lexel::OnProgress;
use lexel::jobs::Results;
use std::path::Path;
use std::sync::Arc;

/// How texts are encoded, and rows written.
pub trait Encoding: Sync {
    /// What encodes them.
    type Model: Model + Sync;
    /// What comes of them.
    type Embeddings: Results;

    /// Encodes texts; `progress` is called after each batch.
    fn encode(&self, model: &Self::Model, texts: &[&str], progress: OnProgress) -> lexel::Result<Self::Embeddings>;

    /// What is written of embeddings.
    fn rows(&self, model: &Self::Model, embeddings: Self::Embeddings) -> Rows<'static>;

    /// What embeddings depend on, with what they do `on` which model.
    fn identity(&self, model: &Self::Model, on: Identity) -> Identity;

    /// Longer texts are truncated to this many tokens.
    fn length(&self, model: &Self::Model) -> Option<usize> {
        model.max_seq_length()
    }

    /// Tells of what may have been forgotten.
    fn warn(&self) {}
}

/// The arguments that decide what is read, by which model, and where its results go.
pub struct Arguments<'a> {
    pub model: &'a str,
    pub input: &'a InputsArgs,
    pub output: &'a Path,
    pub output_format: Option<OutputFormat>,
    pub on: &'a ModelArgs,
    pub job: &'a JobArgs,
    pub window: usize,
}

/// Runs a subcommand. `resolve` makes its configuration for an output of some format; that of a job's parts is `parts` unless the
/// arguments say otherwise.
pub fn run<E: Encoding>(
    args: &Arguments,
    parts: OutputFormat,
    resolve: impl FnOnce(OutputFormat) -> Result<E, Failure>,
    json: bool,
) -> Result<(), Failure> {
    match job::is_folder(args.output) {
        true => run_job(args, args.output_format.unwrap_or(parts), resolve, json),
        false => run_file(args, resolve, json),
    }
}

fn run_file<E: Encoding>(
    args: &Arguments,
    resolve: impl FnOnce(OutputFormat) -> Result<E, Failure>,
    json: bool,
) -> Result<(), Failure> {
    job::refuse_options(args.job)?;
    let input = config::texts(&args.input.input, &args.input.column)?;
    let output = OutputConfig::resolve(args.output, args.output_format)?;
    let config = resolve(output.format())?;
    config::refuse_overwriting(args.output, &input.files)?;
    let on = ModelConfig::resolve(args.model.to_string(), args.on)?;

    // Everything that can be refused without the model comes first: a model takes seconds.
    let mut windows = input.windows(args.window)?;
    let mut file = output.create()?;
    let model: E::Model = on.load()?;
    config.warn();
    // Options that the model does not know are refused even if there are no texts.
    file.append(&config.rows(&model, config.encode(&model, &[], Arc::new(|_| ()))?))?;
    let mut work = Work::begin(windows.bytes).truncating_to(config.length(&model));
    while let Some(window) = windows.next()? {
        let embeddings = work.window(&window, |progress| config.encode(&model, &window.texts(), progress))?;
        file.append(&config.rows(&model, embeddings))?;
    }
    file.finish()?;
    work.report(&model, on.dtype(), json, output.is_stdout())
}

/// Into a folder of parts.
fn run_job<E: Encoding>(
    args: &Arguments,
    format: OutputFormat,
    resolve: impl FnOnce(OutputFormat) -> Result<E, Failure>,
    json: bool,
) -> Result<(), Failure> {
    let output = JobOutput::resolve(args.output, format, args.job)?;
    let config = resolve(format)?;
    let input = config::texts(&args.input.input, &args.input.column)?;
    let on = ModelConfig::resolve(args.model.to_string(), args.on)?;
    let input = JobInput::resolve(input, &output, args.job)?;
    let load = || {
        let model: E::Model = on.load()?;
        config.warn();
        // What makes no sense for the model is refused before there is a folder.
        config.encode(&model, &[], Arc::new(|_| ()))?;
        let identity = config.identity(&model, on.identity());
        Ok((model, identity))
    };
    job::run(
        input,
        &output,
        json,
        on.dtype().name(),
        load,
        |model: &E::Model, rows: &[[String; 1]], progress| {
            let texts: Vec<&str> = rows.iter().map(|[text]| text.as_str()).collect();
            config.encode(model, &texts, progress)
        },
        |model, embeddings| Ok(config.rows(model, embeddings)),
    )
}
