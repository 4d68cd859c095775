//! `lexel encode-sparse`: a file of texts to a file of sparse embeddings.

use super::encoding::{self, Arguments, Encoding};
use crate::args::{EncodeSparseCommand, OutputFormat};
use crate::config::Task;
use crate::failure::Failure;
use crate::interrupt;
use crate::job::Identity;
use crate::output::Rows;
use lexel::{OnProgress, SparseEncodeOptions, SparseEncoder, SparseMatrix};

/// How texts are encoded, and rows written.
struct Config {
    task: Task,
    options: SparseEncodeOptions,
    /// By token.
    tokens: bool,
}

/// Runs the subcommand.
pub fn run(args: EncodeSparseCommand, json: bool) -> Result<(), Failure> {
    let arguments = Arguments {
        model: &args.model,
        input: &args.input,
        output: &args.output,
        output_format: args.output_format,
        on: &args.on,
        job: &args.job,
        window: args.window,
    };
    encoding::run(&arguments, OutputFormat::Jsonl, |format| Config::resolve(&args, format), json)
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
}

impl Encoding for Config {
    type Model = SparseEncoder;
    type Embeddings = SparseMatrix;

    fn encode(&self, model: &SparseEncoder, texts: &[&str], progress: OnProgress) -> lexel::Result<SparseMatrix> {
        let options = SparseEncodeOptions { progress: Some(progress), ..self.options.clone() };
        match self.task {
            Task::Any => model.encode_with(texts, &options),
            Task::Query => model.encode_query(texts, &options),
            Task::Document => model.encode_document(texts, &options),
        }
    }

    fn rows(&self, model: &SparseEncoder, embeddings: SparseMatrix) -> Rows<'static> {
        match self.tokens {
            true => Rows::Tokens(model.decode(&embeddings, None)),
            false => Rows::Sparse(embeddings),
        }
    }

    fn identity(&self, model: &SparseEncoder, on: Identity) -> Identity {
        let options = &self.options;
        on.with("task", format!("encode-sparse {:?}", self.task).to_lowercase())
            .with("prompt", options.prompt.clone())
            .with("prompt_name", options.prompt_name.clone().or(model.default_prompt_name().map(str::to_string)))
            .with("max_active_dims", options.max_active_dims.or(model.max_active_dims()))
            .with("tokens", self.tokens)
    }
}
