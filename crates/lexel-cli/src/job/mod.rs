//! Job folders: inputs larger than memory, for hours, on machines that get killed.
//!
//! ```text
//!   spool       standard input, kept                                  identity   what must be the same to continue
//!   plan        where each part's rows are in the input               source     reads a part
//!   parquet     a part of a Parquet file                              part       writes a part, in any format
//!   tally       bytes, lines and hash of what is read                 join       parts of jobs to one file
//!   report      progress and what was done
//! ```
//!
//! The library has the rest (`lexel::jobs`): who works on which part, the folder, its locks, and its sums.

mod identity;
mod join;
mod parquet;
mod part;
mod plan;
mod report;
mod source;
mod spool;
mod tally;

pub use identity::Identity;
pub use join::merge;
pub use tally::hex;

use crate::args::{JobArgs, OnInvalid, OutputFormat};
use crate::failure::{DATA, Failure, INCOMPLETE, INTERRUPTED, IO};
use crate::input::{Format, Input};
use crate::interrupt;
use crate::messages;
use crate::model::Model;
use crate::output::Rows;
use crate::process;
use arrow_array::ArrayRef;
use lexel::jobs::{self, Finished, JobFile, JobFolder, JobOptions, Results, Shard};
use lexel::{Error, OnProgress};
use plan::Plan;
use serde_json::Value;
use source::FileSource;
use std::fs;
use std::path::{Path, PathBuf};

/// What a job reads.
#[derive(Clone)]
pub struct JobInput<const N: usize> {
    /// The files, in the order of their rows.
    pub files: Vec<PathBuf>,
    /// How they are written.
    pub format: Format<N>,
    /// Columns that go to the output.
    pub keep: Vec<String>,
    /// Invalid UTF-8 is replaced.
    pub lossy: bool,
    /// A row that cannot be read ends the job.
    pub fail_on_reject: bool,
    /// Even if none of the first rows can be read, the others may.
    pub skip_all: bool,
    /// The most rows of a part, if the user says so.
    pub part_rows: Option<usize>,
}

/// The kept columns of a part, without the rows that are rejects.
pub enum Kept {
    /// From lines: the values of each column.
    Values(Vec<Vec<Value>>),
    /// From Parquet.
    Arrays(Vec<ArrayRef>),
}

/// Where a job's parts go.
pub struct JobOutput {
    folder: PathBuf,
    format: OutputFormat,
    shard: Option<Shard>,
}

impl JobOutput {
    /// The folder behind the arguments, with parts of this format.
    pub fn resolve(path: &Path, format: OutputFormat, args: &JobArgs) -> Result<JobOutput, Failure> {
        check_folder(path)?;
        let shard = args.shard.as_ref().map(|shard| shard.parse::<Shard>()).transpose()?;
        Ok(JobOutput { folder: path.to_path_buf(), format, shard })
    }
}

impl<const N: usize> JobInput<N> {
    /// The input behind the arguments. Standard input is read to its end here.
    pub fn resolve(input: Input<N>, output: &JobOutput, args: &JobArgs) -> Result<JobInput<N>, Failure> {
        let Input { mut files, format } = input;
        let mut keep: Vec<String> = args.id_column.iter().cloned().collect();
        for name in &args.keep_columns {
            if !keep.contains(name) {
                keep.push(name.clone());
            }
        }
        if let (Some(name), OutputFormat::Npy | OutputFormat::Safetensors) = (keep.first(), output.format) {
            let message =
                format!("column '{name}' cannot be kept in numbers alone: give --output-format parquet or jsonl");
            return Err(Failure::usage(message));
        }
        if let (Some(name), Format::Txt) = (keep.first(), &format) {
            return Err(Failure::usage(format!("column '{name}' cannot be kept: a .txt input has no columns")));
        }
        if let Some(name) = keep.iter().find(|name| part::RESERVED.contains(&name.as_str())) {
            return Err(Failure::usage(format!(
                "column '{name}' cannot be kept: the output has one of that name itself"
            )));
        }
        let on_invalid = args.on_invalid.unwrap_or(OnInvalid::Skip);
        let (lossy, fail_on_reject) = (on_invalid == OnInvalid::Replace, on_invalid == OnInvalid::Fail);
        let skip_all = args.on_invalid == Some(OnInvalid::Skip);
        let is_pipe = |path: &&PathBuf| fs::metadata(path).is_ok_and(|it| !it.is_file() && !it.is_dir());
        if let Some(pipe) = files.iter().find(is_pipe) {
            let how = "give a file, or - for standard input, of which the job keeps a copy";
            let message =
                format!("{} is a pipe or a device, and a job reads its input more than once: {how}", pipe.display());
            return Err(Failure::usage(message));
        }
        if let Some(path) = files.iter().find(|path| path.to_str().is_none()) {
            let what = "this name is not UTF-8, and a job writes down the names of its files: rename it";
            return Err(Failure::usage(format!("{}: {what}", path.display())));
        }
        if files.is_empty() {
            files.push(spool::stdin(&output.folder, format.ending())?);
        }
        Ok(JobInput { files, format, keep, lossy, fail_on_reject, skip_all, part_rows: args.part_rows })
    }
}

/// Whether an output is a job folder: by its name or because it is there.
pub fn is_folder(path: &Path) -> bool {
    path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

/// A job's folder is new, empty or a job's.
fn check_folder(path: &Path) -> Result<(), Failure> {
    let Ok(mut entries) = fs::read_dir(path) else { return Ok(()) };
    let foreign = |name: &str| !name.starts_with('_');
    let other = entries.find_map(|entry| entry.ok()?.file_name().into_string().ok().filter(|name| foreign(name)));
    match other {
        Some(name) if !path.join("_job.json").exists() => Err(Failure::usage(format!(
            "{} is a folder that holds other files ('{name}'): give a new folder, or a file, for --output",
            path.display()
        ))),
        _ => Ok(()),
    }
}

/// A single file takes none of the options of jobs.
pub fn refuse_options(args: &JobArgs) -> Result<(), Failure> {
    match args.given() {
        Some(option) => Err(Failure::usage(format!("{option} is for job folders: give --output FOLDER/"))),
        None => Ok(()),
    }
}

/// Runs a job, or continues it. `compute` is the model's work on rows, `rows` makes what is written of its results.
pub fn run<const N: usize, M: Model + Sync, O: Results>(
    input: JobInput<N>,
    output: &JobOutput,
    json: bool,
    dtype: &'static str,
    load: impl FnOnce() -> Result<(M, Identity), Failure>,
    compute: impl Fn(&M, &[[String; N]], OnProgress) -> lexel::Result<O> + Sync,
    rows: impl for<'a> Fn(&'a M, O) -> Result<Rows<'a>, Failure> + Sync,
) -> Result<(), Failure> {
    // What is wrong with the input comes to light before the model is loaded.
    let (plan, parts) = match JobFile::read(&output.folder)? {
        Some(job) => {
            let damaged = |error| {
                let how = "restore it, or remove the folder to begin again";
                let path = output.folder.join("_job.json");
                Failure::new(DATA, format!("{}: not as it was written ({error}): {how}", path.display()))
            };
            let plan: Plan = serde_json::from_value(job.plan.clone()).map_err(damaged)?;
            (plan.check(&input, &output.folder)?, job.parts)
        }
        None => Plan::make(&input)?,
    };
    let (model, identity) = load()?;
    let mut job = JobFile::new(identity.of(&model, &input, output.format)?, &parts);
    job.plan = serde_json::to_value(&plan).map_err(|error| Failure::new(DATA, error.to_string()))?;
    let extension = part::extension(output.format);
    let device = model.device();
    let folder = JobFolder::begin(&output.folder, &job, extension, &device).map_err(writing)?;
    if folder.parts() != parts {
        let what = format!("{} was begun by another process, with other parts: run again", output.folder.display());
        return Err(Failure::new(INCOMPLETE, what));
    }
    let source = FileSource { plan, parts, input };
    let keep = source.input.keep.clone();
    let sink = folder.sink(|file, path, finished: &Finished<FileSource<N>, O>| {
        let rows = rows(&model, finished.output.clone())?;
        part::write(output.format, file, path, finished, &rows, &keep)
    });
    let options = JobOptions {
        shard: output.shard,
        progress: Some(report::bar::<N>()),
        cancel: Some(interrupt::cancel_flag()),
        ..JobOptions::default()
    };
    let before = folder.done()?;
    let ran = jobs::run(&source, &sink, &|rows: &[[String; N]], progress| compute(&model, rows, progress), &options);
    messages::hide_bar();
    let ran = ran.map_err(|failure| stopped(failure, &folder))?;
    // The last shard in a folder that all share completes it.
    let shard = output.shard.filter(|_| folder.done().is_ok_and(|done| done.contains(&false)));
    let summary = match shard {
        Some(shard) => folder.check(Some(shard))?,
        None => folder.finish().map_err(writing)?,
    };
    let counts = |part: usize| shard.is_none_or(|shard| shard.has(part));
    let before = before.iter().enumerate().filter(|(part, done)| **done && counts(*part)).count();
    report::report::<N>(&summary, &ran, before, &folder, shard, &device, dtype, json)
}

/// A failure of the output.
fn writing(error: Error) -> Failure {
    match error {
        Error::Io { path, source } => Failure::writing(&path, &source),
        error => error.into(),
    }
}

/// The way out of a job whose input was corrected.
fn begin_again(folder: &Path) -> String {
    format!("to begin again with another, remove {} or give another folder", folder.display())
}

/// A job that ended early: what is there, and how to go on.
fn stopped(failure: Failure, folder: &JobFolder) -> Failure {
    let done = folder.done().map_or(0, |done| done.iter().filter(|done| **done).count());
    let (parts, path) = (folder.parts().len(), folder.path().display());
    let status = if interrupt::requested() { INTERRUPTED } else { failure.status };
    let saved = match folder.saved_rows() {
        0 => String::new(),
        rows => format!(", and {rows} rows of the next are saved"),
    };
    let how = match status {
        DATA => format!("the job goes on only with the input that it began with; {}", begin_again(folder.path())),
        _ => format!("run the same command again to continue:\n  {}", process::command_line()),
    };
    // Files that were not there any more are output: the folder was taken away.
    let status = if status == crate::failure::NO_INPUT { IO } else { status };
    Failure::new(status, format!("{}; {done} of {parts} parts are complete in {path}{saved}: {how}", failure.message))
}
