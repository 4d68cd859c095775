//! The program `lexel`: texts in, embeddings out; pairs of texts in, scores out.
//!
//! ```text
//!   args        what the user wrote (clap)
//!   config      what it means: models, options, files, checked
//!   commands    one file a subcommand
//!   input       texts or pairs from files, window by window, on a thread of its own
//!   output      embeddings or scores to a file, written aside and renamed
//!   parquet     Parquet files in and out
//!   job         job folders: parts, resumed
//!   work        a model's work on an input: progress, Ctrl-C, report   (model: what all kinds have in common)
//!   messages    everything on stderr: log, bars, reports          failure     exit statuses
//!   interrupt   Ctrl-C                                            process     memory and CPU time of this process
//! ```

mod args;
mod commands;
mod config;
mod failure;
mod input;
mod interrupt;
mod job;
mod messages;
mod model;
mod output;
mod parquet;
mod process;
mod work;

use args::{Cli, Command};
use clap::Parser;
use failure::Failure;
use std::process::ExitCode;

fn main() -> ExitCode {
    process::survive_file_size_limit();
    process::leave_out_mesas_device_selection();
    let result = match Cli::try_parse() {
        Ok(cli) => run(cli),
        Err(error) => usage(&error),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                messages::error(&failure.message);
            }
            ExitCode::from(failure.status)
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    messages::start(cli.quiet);
    interrupt::listen();
    let json = cli.json;
    match cli.command {
        Command::Encode(args) => commands::encode::run(*args, json),
        Command::EncodeMultiVector(args) => commands::encode_multi_vector::run(*args, json),
        Command::EncodeSparse(args) => commands::encode_sparse::run(*args, json),
        Command::Predict(args) => commands::predict::run(*args, json),
        Command::Merge(args) => commands::merge::run(&args, json),
        Command::Rank(args) => commands::rank::run(*args, json),
        Command::Similarity(args) => commands::similarity::run(args, json),
        Command::Devices(args) => commands::devices::run(&args, json),
        Command::Info(args) => commands::info::run(&args, json),
        Command::Download(args) => commands::download::run(&args, json),
        Command::Bench(args) => commands::bench::run(args, json),
    }
}

/// `--help` and `--version` go to stdout; everything else that clap has to say is an error in our form.
fn usage(error: &clap::Error) -> Result<(), Failure> {
    if !error.use_stderr() {
        return error.print().map_err(|error| Failure::writing_stdout(&error));
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    Err(Failure::usage(text.trim_end()))
}
