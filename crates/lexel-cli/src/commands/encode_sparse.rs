//! `lexel encode-sparse`: a file of texts to a file of sparse embeddings.

use crate::args::{EncodeSparseCommand, OutputFormat};
use crate::config::{self, ModelConfig, Task};
use crate::failure::Failure;
use crate::output::{OutputConfig, Rows};
use crate::work::Work;
use crate::{interrupt, job};
use lexel::{OnProgress, SparseEncodeOptions, SparseEncoder, SparseMatrix};
use std::sync::Arc;

/// Runs the subcommand.
pub fn run(args: EncodeSparseCommand, json: bool) -> Result<(), Failure> {
    if job::is_folder(&args.output) {
        let path = args.output.display();
        return Err(Failure::usage(format!("--output {path} is a folder: sparse embeddings go to a file")));
    }
    let input = config::texts(&args.input.input, &args.input.column)?;
    let output = OutputConfig::resolve(&args.output, args.output_format)?;
    match (output.format(), args.tokens) {
        (OutputFormat::Npy | OutputFormat::Safetensors, _) => {
            return Err(Failure::usage("sparse embeddings are no array: write .jsonl or .parquet"));
        }
        (OutputFormat::Parquet, true) => return Err(Failure::usage("--tokens is for .jsonl")),
        _ => {}
    }
    config::refuse_overwriting(&args.output, &input.files)?;
    let options = SparseEncodeOptions {
        prompt: args.prompt.prompt.clone(),
        prompt_name: args.prompt.prompt_name.clone(),
        max_active_dims: args.max_active_dims,
        batch_tokens: args.on.device.batch_tokens,
        cancel: Some(interrupt::cancel_flag()),
        ..SparseEncodeOptions::default()
    };
    let task = Task::of(&args.prompt);
    let config = ModelConfig::resolve(args.model, &args.on)?;

    // Everything that can be refused without the model comes first: a model takes seconds.
    let mut windows = input.windows(args.window)?;
    let mut file = output.create()?;
    let model: SparseEncoder = config.load()?;
    let encode = |texts: &[&str], progress: OnProgress| {
        let options = SparseEncodeOptions { progress: Some(progress), ..options.clone() };
        match task {
            Task::Any => model.encode_with(texts, &options),
            Task::Query => model.encode_query(texts, &options),
            Task::Document => model.encode_document(texts, &options),
        }
    };
    let rows = |embeddings: SparseMatrix| match args.tokens {
        true => Rows::Tokens(model.decode(&embeddings, None)),
        false => Rows::Sparse(embeddings),
    };
    // Options that the model does not know are refused even if there are no texts.
    file.append(&rows(encode(&[], Arc::new(|_| ()))?))?;
    let mut work = Work::begin(windows.bytes);
    while let Some(window) = windows.next()? {
        let embeddings = work.window(&window, |progress| encode(&window.texts(), progress))?;
        file.append(&rows(embeddings))?;
    }
    file.finish()?;
    work.report(&model, config.dtype(), json, output.is_stdout())
}
