//! `lexel encode-multi-vector`: a file of texts to a file with a vector for each of their tokens.

use super::encoding::{self, Arguments, Encoding};
use crate::args::{EncodeMultiVectorCommand, OutputFormat};
use crate::config::Task;
use crate::failure::Failure;
use crate::interrupt;
use crate::job::{self, Identity};
use crate::output::Rows;
use half::f16;
use lexel::{HierarchicalTokenPooling, Matrix, MultiVectorEncodeOptions, MultiVectorEncoder, OnProgress};

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
    }
    let arguments = Arguments {
        model: &args.model,
        input: &args.input,
        output: &args.output,
        output_format: args.output_format,
        on: &args.on,
        job: &args.job,
        window: args.window,
    };
    encoding::run(&arguments, OutputFormat::Parquet, |format| Config::resolve(&args, format), json)
}

impl Config {
    /// The configuration behind the arguments, for an output of this format.
    fn resolve(args: &EncodeMultiVectorCommand, format: OutputFormat) -> Result<Config, Failure> {
        if matches!(format, OutputFormat::Npy | OutputFormat::Safetensors) {
            return Err(Failure::usage("texts have different numbers of vectors: write .jsonl or .parquet"));
        }
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
        Ok(Config { task: Task::of(&args.prompt), options, half: args.precision == "float16" })
    }
}

impl Encoding for Config {
    type Model = MultiVectorEncoder;
    type Embeddings = Vec<Matrix>;

    fn encode(&self, model: &MultiVectorEncoder, texts: &[&str], progress: OnProgress) -> lexel::Result<Vec<Matrix>> {
        let options = MultiVectorEncodeOptions { progress: Some(progress), ..self.options.clone() };
        match self.task {
            Task::Any => model.encode_with(texts, &options),
            Task::Query => model.encode_query(texts, &options),
            Task::Document => model.encode_document(texts, &options),
        }
    }

    fn rows(&self, model: &MultiVectorEncoder, embeddings: Vec<Matrix>) -> Rows<'static> {
        let counts = embeddings.iter().map(|text| text.rows).collect();
        let vectors: Vec<f32> = embeddings.into_iter().flat_map(|text| text.data).collect();
        let vectors = Matrix::new(vectors.len() / model.dim().max(1), model.dim(), vectors);
        match self.half {
            true => Rows::HalfVectors(counts, vectors.cols, vectors.data.iter().map(|&x| f16::from_f32(x)).collect()),
            false => Rows::Vectors(counts, vectors),
        }
    }

    fn identity(&self, model: &MultiVectorEncoder, on: Identity) -> Identity {
        let options = &self.options;
        on.with("task", format!("encode-multi-vector {:?}", self.task).to_lowercase())
            .with("length", self.length(model))
            .with("prompt", options.prompt.clone())
            .with("prompt_name", options.prompt_name.clone().or(model.default_prompt_name().map(str::to_string)))
            .with("normalize", options.normalize)
            .with("pool_factor", options.token_pooling.as_ref().map(|pooling| pooling.pool_factor))
            .with("precision", if self.half { "float16" } else { "float32" })
    }

    fn length(&self, model: &MultiVectorEncoder) -> Option<usize> {
        match self.task {
            Task::Any => model.max_seq_length(),
            Task::Query => model.query_length(),
            Task::Document => model.document_length(),
        }
    }

    fn warn(&self) {
        if self.task == Task::Any {
            log::warn!("neither --query nor --document is given: texts get neither's prompt, length nor expansion");
        }
    }
}
