//! `lexel encode-multi-vector`: a file of texts to a file with a vector for each of their tokens.

use crate::args::{EncodeMultiVectorCommand, OutputFormat};
use crate::config::{self, ModelConfig, Task};
use crate::failure::Failure;
use crate::interrupt;
use crate::job::{self, Identity, JobInput, JobOutput};
use crate::output::{OutputConfig, Rows};
use crate::work::Work;
use half::f16;
use lexel::{HierarchicalTokenPooling, Matrix, MultiVectorEncodeOptions, MultiVectorEncoder, OnProgress};
use std::sync::Arc;

/// Rows of a part, unless the user says otherwise: a text takes as much room as some hundred dense embeddings.
const PART_ROWS: usize = 1024;

/// How texts are encoded, and rows written.
struct Config {
    task: Task,
    options: MultiVectorEncodeOptions,
    /// In f16.
    half: bool,
}

/// Runs the subcommand.
pub fn run(mut args: EncodeMultiVectorCommand, json: bool) -> Result<(), Failure> {
    if job::is_folder(&args.output) {
        args.job.part_rows.get_or_insert(PART_ROWS);
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
    let model: MultiVectorEncoder = model.load()?;
    config.warn();
    // Options that the model does not know are refused even if there are no texts.
    file.append(&config.rows(&model, config.encode(&model, &[], Arc::new(|_| ()))?))?;
    let mut work = Work::begin(windows.bytes).truncating_to(config.length(&model));
    while let Some(window) = windows.next()? {
        let embeddings = work.window(&window, |progress| config.encode(&model, &window.texts(), progress))?;
        file.append(&config.rows(&model, embeddings))?;
    }
    file.finish()?;
    work.report(&model, dtype, json, output.is_stdout())
}

/// Into a folder of parts.
fn run_job(args: &EncodeMultiVectorCommand, json: bool) -> Result<(), Failure> {
    let format = args.output_format.unwrap_or(OutputFormat::Parquet);
    let output = JobOutput::resolve(&args.output, format, &args.job)?;
    let config = Config::resolve(args, format)?;
    let input = config::texts(&args.input.input, &args.input.column)?;
    let on = ModelConfig::resolve(args.model.clone(), &args.on)?;
    let input = JobInput::resolve(input, &output, &args.job)?;
    let load = || {
        let model: MultiVectorEncoder = on.load()?;
        config.warn();
        // What makes no sense for the model is refused before there is a folder.
        config.encode(&model, &[], Arc::new(|_| ()))?;
        let options = &config.options;
        let identity = Identity::default()
            .with("task", format!("encode-multi-vector {:?}", config.task).to_lowercase())
            .with("length", config.length(&model))
            .with("prompt", options.prompt.clone())
            .with("prompt_name", options.prompt_name.clone().or(model.default_prompt_name().map(str::to_string)))
            .with("normalize", options.normalize)
            .with("pool_factor", options.token_pooling.as_ref().map(|pooling| pooling.pool_factor))
            .with("dtype", on.dtype().name())
            .with("precision", if config.half { "float16" } else { "float32" });
        Ok((model, identity))
    };
    job::run(
        input,
        &output,
        json,
        on.dtype().name(),
        load,
        |model: &MultiVectorEncoder, rows: &[[String; 1]], progress| {
            let texts: Vec<&str> = rows.iter().map(|[text]| text.as_str()).collect();
            config.encode(model, &texts, progress)
        },
        |model, embeddings| Ok(config.rows(model, embeddings)),
    )
}

impl Config {
    /// The configuration behind the arguments, for an output of this format.
    fn resolve(args: &EncodeMultiVectorCommand, format: OutputFormat) -> Result<Config, Failure> {
        if matches!(format, OutputFormat::Npy | OutputFormat::Safetensors) {
            return Err(Failure::usage("texts have different numbers of vectors: write .jsonl or .parquet"));
        }
        let task = Task::of(&args.prompt);
        // Asked for, it is for any text.
        let token_pooling = args.pool_factor.map(|factor| HierarchicalTokenPooling {
            tasks: vec!["document".into(), "query".into()],
            ..HierarchicalTokenPooling::new(factor)
        });
        let options = MultiVectorEncodeOptions {
            prompt: args.prompt.prompt.clone(),
            prompt_name: args.prompt.prompt_name.clone(),
            normalize: args.normalize,
            token_pooling,
            batch_tokens: args.on.device.batch_tokens,
            cancel: Some(interrupt::cancel_flag()),
            ..MultiVectorEncodeOptions::default()
        };
        Ok(Config { task, options, half: args.precision == "float16" })
    }

    /// Tells of what was not said, and may have been forgotten.
    fn warn(&self) {
        if self.task == Task::Any {
            log::warn!("neither --query nor --document is given: texts get neither's prompt, length nor expansion");
        }
    }

    /// Encodes texts; `progress` is called after each batch.
    fn encode(&self, model: &MultiVectorEncoder, texts: &[&str], progress: OnProgress) -> lexel::Result<Vec<Matrix>> {
        let options = MultiVectorEncodeOptions { progress: Some(progress), ..self.options.clone() };
        match self.task {
            Task::Any => model.encode_with(texts, &options),
            Task::Query => model.encode_query(texts, &options),
            Task::Document => model.encode_document(texts, &options),
        }
    }

    /// Longer texts are truncated to this many tokens.
    fn length(&self, model: &MultiVectorEncoder) -> Option<usize> {
        match self.task {
            Task::Any => model.max_seq_length(),
            Task::Query => model.query_length(),
            Task::Document => model.document_length(),
        }
    }

    /// What is written of embeddings.
    fn rows(&self, model: &MultiVectorEncoder, embeddings: Vec<Matrix>) -> Rows<'static> {
        let counts = embeddings.iter().map(|text| text.rows).collect();
        let vectors: Vec<f32> = embeddings.into_iter().flat_map(|text| text.data).collect();
        let vectors = Matrix::new(vectors.len() / model.dim().max(1), model.dim(), vectors);
        match self.half {
            true => Rows::HalfVectors(counts, vectors.cols, vectors.data.iter().map(|&x| f16::from_f32(x)).collect()),
            false => Rows::Vectors(counts, vectors),
        }
    }
}
