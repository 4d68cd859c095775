//! `lexel encode-sparse`: a file of texts to a file of sparse embeddings.

use crate::args::{EncodeSparseCommand, OutputFormat};
use crate::config::{self, ModelConfig, Task};
use crate::failure::Failure;
use crate::interrupt;
use crate::job::{self, Identity, JobInput, JobOutput};
use crate::output::{OutputConfig, Rows};
use crate::work::Work;
use lexel::{OnProgress, SparseEncodeOptions, SparseEncoder, SparseMatrix};
use std::sync::Arc;

/// How texts are encoded, and rows written.
struct Config {
    task: Task,
    options: SparseEncodeOptions,
    /// By token.
    tokens: bool,
}

/// Runs the subcommand.
pub fn run(args: EncodeSparseCommand, json: bool) -> Result<(), Failure> {
    if job::is_folder(&args.output) {
        return run_job(&args, json);
    }
    job::refuse_options(&args.job)?;
    let input = config::texts(&args.input.input, &args.input.column)?;
    let output = OutputConfig::resolve(&args.output, args.output_format)?;
    let config = Config::resolve(&args, output.format())?;
    config::refuse_overwriting(&args.output, &input.files)?;
    let model = ModelConfig::resolve(args.model, &args.on)?;

    // Everything that can be refused without the model comes first: a model takes seconds.
    let mut windows = input.windows(args.window)?;
    let mut file = output.create()?;
    let dtype = model.dtype();
    let model: SparseEncoder = model.load()?;
    // Options that the model does not know are refused even if there are no texts.
    file.append(&config.rows(&model, config.encode(&model, &[], Arc::new(|_| ()))?))?;
    let mut work = Work::begin(windows.bytes);
    while let Some(window) = windows.next()? {
        let embeddings = work.window(&window, |progress| config.encode(&model, &window.texts(), progress))?;
        file.append(&config.rows(&model, embeddings))?;
    }
    file.finish()?;
    work.report(&model, dtype, json, output.is_stdout())
}

/// Into a folder of parts.
fn run_job(args: &EncodeSparseCommand, json: bool) -> Result<(), Failure> {
    let format = args.output_format.unwrap_or(OutputFormat::Jsonl);
    let output = JobOutput::resolve(&args.output, format, &args.job)?;
    let config = Config::resolve(args, format)?;
    let input = config::texts(&args.input.input, &args.input.column)?;
    let on = ModelConfig::resolve(args.model.clone(), &args.on)?;
    let input = JobInput::resolve(input, &output, &args.job)?;
    let load = || {
        let model: SparseEncoder = on.load()?;
        // What makes no sense for the model is refused before there is a folder.
        config.encode(&model, &[], Arc::new(|_| ()))?;
        let options = &config.options;
        let identity = Identity::default()
            .with("task", format!("encode-sparse {:?}", config.task).to_lowercase())
            .with("prompt", options.prompt.clone())
            .with("prompt_name", options.prompt_name.clone().or(model.default_prompt_name().map(str::to_string)))
            .with("max_active_dims", options.max_active_dims.or(model.max_active_dims()))
            .with("dtype", on.dtype().name())
            .with("tokens", config.tokens);
        Ok((model, identity))
    };
    job::run(
        input,
        &output,
        json,
        on.dtype().name(),
        load,
        |model: &SparseEncoder, rows: &[[String; 1]], progress| {
            let texts: Vec<&str> = rows.iter().map(|[text]| text.as_str()).collect();
            config.encode(model, &texts, progress)
        },
        |model, embeddings| Ok(config.rows(model, embeddings)),
    )
}

impl Config {
    /// The configuration behind the arguments, for an output of this format.
    fn resolve(args: &EncodeSparseCommand, format: OutputFormat) -> Result<Config, Failure> {
        match (format, args.tokens) {
            (OutputFormat::Npy | OutputFormat::Safetensors, _) => {
                return Err(Failure::usage("sparse embeddings are no array: write .jsonl or .parquet"));
            }
            (OutputFormat::Parquet, true) => return Err(Failure::usage("--tokens is for .jsonl")),
            _ => {}
        }
        let options = SparseEncodeOptions {
            prompt: args.prompt.prompt.clone(),
            prompt_name: args.prompt.prompt_name.clone(),
            max_active_dims: args.max_active_dims,
            batch_tokens: args.on.device.batch_tokens,
            cancel: Some(interrupt::cancel_flag()),
            ..SparseEncodeOptions::default()
        };
        Ok(Config { task: Task::of(&args.prompt), options, tokens: args.tokens })
    }

    /// Encodes texts; `progress` is called after each batch.
    fn encode(&self, model: &SparseEncoder, texts: &[&str], progress: OnProgress) -> lexel::Result<SparseMatrix> {
        let options = SparseEncodeOptions { progress: Some(progress), ..self.options.clone() };
        match self.task {
            Task::Any => model.encode_with(texts, &options),
            Task::Query => model.encode_query(texts, &options),
            Task::Document => model.encode_document(texts, &options),
        }
    }

    /// What is written of embeddings.
    fn rows(&self, model: &SparseEncoder, embeddings: SparseMatrix) -> Rows<'static> {
        match self.tokens {
            true => Rows::Tokens(model.decode(&embeddings, None)),
            false => Rows::Sparse(embeddings),
        }
    }
}
