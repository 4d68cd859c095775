//! Job folders: inputs larger than memory, for hours, on machines that get killed.
//!
//! ```text
//!   inputs      files, folders and patterns to a list of files        identity   what must be the same to continue
//!   plan        where each part's rows are in the input               source     reads a part
//!   parquet     Parquet in                                            part       writes a part, in any format
//!   tally       bytes, lines and hash of what is read                 join       parts of jobs to one file
//!   report      progress and what was done
//! ```
//!
//! The library has the rest (`lexel::jobs`): who works on which part, the folder, its locks, and its sums.

mod identity;
mod inputs;
mod join;
mod parquet;
mod part;
mod plan;
mod report;
mod source;
mod tally;

pub use identity::Identity;
pub use inputs::{expand, is_folder};
pub use join::merge;

use crate::args::{FormatArgs, JobArgs, OnInvalid, OutputFormat};
use crate::failure::{DATA, Failure, INCOMPLETE, INTERRUPTED, IO};
use crate::input::Format;
use crate::interrupt;
use crate::messages;
use crate::model::Model;
use crate::output::Rows;
use arrow_array::ArrayRef;
use lexel::jobs::{self, Finished, JobFile, JobFolder, JobOptions, Shard};
use lexel::{Error, Matrix, OnProgress};
use plan::Plan;
use serde_json::Value;
use source::FileSource;
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
    /// The most rows of a part.
    pub part_rows: usize,
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
    /// The folder behind the arguments. The format of parts is .npy unless an option says otherwise.
    pub fn resolve(path: &Path, format: Option<OutputFormat>, args: &JobArgs) -> Result<JobOutput, Failure> {
        inputs::check_folder(path)?;
        let shard = args.shard.as_ref().map(|shard| shard.parse::<Shard>()).transpose()?;
        Ok(JobOutput { folder: path.to_path_buf(), format: format.unwrap_or(OutputFormat::Npy), shard })
    }
}

impl JobOutput {
    /// The format of its parts.
    pub fn format(&self) -> OutputFormat {
        self.format
    }
}

impl<const N: usize> JobInput<N> {
    /// The input behind the arguments; `format` is that of all `files`.
    pub fn resolve(
        files: Vec<PathBuf>,
        format: Format<N>,
        output: OutputFormat,
        args: &JobArgs,
    ) -> Result<JobInput<N>, Failure> {
        let mut keep: Vec<String> = args.id_column.iter().cloned().collect();
        keep.extend(args.keep_columns.iter().filter(|name| Some(*name) != args.id_column.as_ref()).cloned());
        if let (Some(name), OutputFormat::Npy | OutputFormat::Safetensors) = (keep.first(), output) {
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
        let part_rows = args.part_rows.unwrap_or(crate::input::WINDOW_RECORDS);
        Ok(JobInput { files, format, keep, lossy, fail_on_reject, part_rows })
    }
}

/// The one input of an output that is a single file: several inputs, and the options of jobs, need a folder.
pub fn single<'a>(inputs: &'a [PathBuf], args: &JobArgs) -> Result<&'a Path, Failure> {
    match (inputs, args.given()) {
        (_, Some(option)) => Err(Failure::usage(format!("{option} is for job folders: give --output FOLDER/"))),
        ([path], None) => Ok(path),
        _ => Err(Failure::usage("several inputs go into a job folder: give --output FOLDER/")),
    }
}

/// The format that all files have: that of the option, else of their names.
pub fn format_of<'a>(files: &'a [PathBuf], args: &FormatArgs) -> Result<&'a Path, Failure> {
    let Some(first) = files.first() else { return Err(Failure::usage("no input")) };
    let ending = |path: &Path| crate::config::ending(path);
    match files.iter().find(|path| args.input_format.is_none() && ending(path) != ending(first)) {
        Some(other) => Err(Failure::usage(format!(
            "{} and {} differ in their format: give files of one format, or --input-format",
            first.display(),
            other.display()
        ))),
        None => Ok(first),
    }
}

/// Runs a job, or continues it. `compute` is the model's work on rows, `rows` makes what is written of its results.
pub fn run<const N: usize, M: Model + Sync>(
    input: JobInput<N>,
    output: &JobOutput,
    json: bool,
    dtype: &'static str,
    load: impl FnOnce() -> Result<(M, Identity), Failure>,
    compute: impl Fn(&M, &[[String; N]], OnProgress) -> lexel::Result<Matrix> + Sync,
    rows: impl for<'a> Fn(&'a M, Matrix) -> Result<Rows<'a>, Failure> + Sync,
) -> Result<(), Failure> {
    // What is wrong with the input comes to light before the model is loaded.
    let (plan, parts) = match JobFile::read(&output.folder)? {
        Some(job) => {
            let plan: Plan = serde_json::from_value(job.plan.clone())
                .map_err(|error| Failure::new(DATA, format!("{}/_job.json: {error}", output.folder.display())))?;
            plan.check(&input)?;
            (plan, job.parts)
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
    let sink = folder.sink(|file, path, finished: &Finished<FileSource<N>>| {
        let rows = rows(&model, finished.output.clone())?;
        part::write(output.format, file, path, finished, &rows, &keep)
    });
    let options = JobOptions {
        shard: output.shard,
        progress: Some(report::bar::<N>()),
        cancel: Some(interrupt::cancel_flag()),
        ..JobOptions::default()
    };
    let before = folder.done()?.iter().filter(|done| **done).count();
    let ran = jobs::run(&source, &sink, &|rows: &[[String; N]], progress| compute(&model, rows, progress), &options);
    messages::hide_bar();
    let ran = ran.map_err(|failure| stopped(failure, &folder))?;
    let summary = match output.shard {
        // The last shard in a folder that all share completes it.
        Some(shard) if folder.done()?.contains(&false) => folder.check(Some(shard))?,
        _ => folder.finish()?,
    };
    report::report::<N>(&summary, &ran, before, &folder, output.shard, &device, dtype, json)
}

/// A failure of the output.
fn writing(error: Error) -> Failure {
    match error {
        Error::Io { path, source } => Failure::writing(&path, &source),
        error => error.into(),
    }
}

/// A job that ended early: what is there, and how to go on.
fn stopped(failure: Failure, folder: &JobFolder) -> Failure {
    let done = folder.done().map_or(0, |done| done.iter().filter(|done| **done).count());
    let (parts, path) = (folder.parts().len(), folder.path().display());
    let status = if interrupt::requested() { INTERRUPTED } else { failure.status };
    let how = match status {
        DATA => "correct the input, or run again with it as it was",
        _ => "run the same command again to continue",
    };
    // Files that were not there any more are output: the folder was taken away.
    let status = if status == crate::failure::NO_INPUT { IO } else { status };
    Failure::new(status, format!("{}; {done} of {parts} parts are complete in {path}: {how}", failure.message))
}
