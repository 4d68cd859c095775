//! Embeddings and scores into files: written aside and renamed when complete, so that a file of the wanted name is always
//! whole.
//!
//! ```text
//!   rows   what is written   npy, safetensors, arrow   how   aside   where, until it is complete
//!                            json   kept columns of Arrow
//! ```

pub mod arrow;
mod aside;
pub mod json;
pub mod npy;
mod rows;
pub mod safetensors;

pub use rows::Rows;

use crate::args::OutputFormat;
use crate::config::{ending, is_pipe};
use crate::failure::{Failure, INTERNAL};
use crate::interrupt;
use crate::parquet::properties;
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Where rows go and how they are written.
pub struct OutputConfig {
    /// `None`: standard output.
    path: Option<PathBuf>,
    format: OutputFormat,
}

/// An output that is being written. Dropped before [`finish`](Output::finish), it leaves nothing behind.
pub struct Output {
    place: Place,
    writer: BufWriter<Target>,
    format: OutputFormat,
    /// What the rows are: known from the first ones on.
    kind: Option<Kind>,
    rows: usize,
    /// For a header with the number of rows, into something that cannot be rewritten: all of it, until they are known.
    held: Option<Vec<u8>>,
    /// For .parquet. What it has written is taken out each time.
    parquet: Option<Box<ArrowWriter<Vec<u8>>>>,
}

/// The rows' type in .npy, their width, and what they are called.
type Kind = (&'static str, Option<usize>, &'static str);

/// Where the output ends up.
enum Place {
    Stdout,
    /// A pipe or device with a name: written directly.
    Special(PathBuf),
    File {
        temporary: PathBuf,
        path: PathBuf,
    },
}

enum Target {
    Stdout(io::Stdout),
    File(File),
}

impl OutputConfig {
    /// The output behind the arguments: its format from the option, else from the name's ending.
    pub fn resolve(path: &Path, format: Option<OutputFormat>) -> Result<OutputConfig, Failure> {
        let format = match (format, ending(path).as_deref()) {
            (Some(format), _) => format,
            (None, Some("npy")) => OutputFormat::Npy,
            (None, Some("jsonl" | "ndjson")) => OutputFormat::Jsonl,
            (None, Some("parquet")) => OutputFormat::Parquet,
            (None, Some("safetensors")) => OutputFormat::Safetensors,
            (None, _) if is_pipe(path) => {
                let message = "the format of standard output is unknown: give --output-format";
                return Err(Failure::usage(message));
            }
            (None, _) => {
                return Err(Failure::usage(format!(
                    "the format of {} is unknown (known endings: .npy, .jsonl, .parquet, .safetensors): give --output-format",
                    path.display()
                )));
            }
        };
        let path = (!is_pipe(path)).then(|| path.to_path_buf());
        if path.is_none() && format != OutputFormat::Jsonl && io::stdout().is_terminal() {
            let message = "the output is binary, and standard output is a terminal: give --output FILE";
            return Err(Failure::usage(message));
        }
        Ok(OutputConfig { path, format })
    }

    /// Whether data goes to standard output.
    pub fn is_stdout(&self) -> bool {
        self.path.is_none()
    }

    /// How rows are written.
    pub fn format(&self) -> OutputFormat {
        self.format
    }

    /// Whether the output is .jsonl.
    pub fn is_jsonl(&self) -> bool {
        self.format == OutputFormat::Jsonl
    }

    /// Opens the output, aside.
    pub fn create(&self) -> Result<Output, Failure> {
        let (place, target) = match &self.path {
            None => (Place::Stdout, Target::Stdout(io::stdout())),
            Some(path) => open(path)?,
        };
        let header = header_bytes(self.format);
        let rewritable = matches!(place, Place::File { .. });
        let mut output = Output {
            place,
            writer: BufWriter::with_capacity(1 << 18, target),
            format: self.format,
            kind: None,
            rows: 0,
            held: (header > 0 && !rewritable).then(Vec::new),
            parquet: None,
        };
        if rewritable {
            // Rewritten at the end, with the number of rows.
            output.put(&vec![0; header])?;
        }
        Ok(output)
    }
}

/// Bytes before the rows that hold their number.
fn header_bytes(format: OutputFormat) -> usize {
    match format {
        OutputFormat::Npy => npy::HEADER_BYTES,
        OutputFormat::Safetensors => safetensors::HEADER_BYTES,
        OutputFormat::Jsonl | OutputFormat::Parquet => 0,
    }
}

/// Has a file written aside, and gives it its name.
pub fn publish(path: &Path, write: impl FnOnce(&File, &Path) -> Result<(), Failure>) -> Result<(), Failure> {
    match open(path)? {
        (Place::File { temporary, path }, Target::File(file)) => {
            let written = write(&file, &temporary).and_then(|()| {
                aside::publish(&file, &temporary, &path).map_err(|error| Failure::writing(&path, &error))
            });
            if written.is_err() {
                let _ = fs::remove_file(&temporary);
            }
            interrupt::set_temporary(None);
            written
        }
        _ => Err(Failure::usage(format!("--output {} is no file", path.display()))),
    }
}

/// Whether a path names an open file of this process.
fn is_descriptor(path: &Path) -> bool {
    ["/dev/stderr", "/dev/fd", "/proc/self/fd"].iter().any(|folder| path.starts_with(folder))
}

fn open(path: &Path) -> Result<(Place, Target), Failure> {
    // It would be replaced, and whoever opened it would go on with what it was.
    if is_descriptor(path) && fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        let path = path.display();
        return Err(Failure::usage(format!(
            "--output {path} is a file that is open: give its name, or - and redirect that"
        )));
    }
    // Through a link: the file behind it is replaced, not the link.
    let path = match fs::metadata(path) {
        Ok(_) => fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => behind_links(path),
        Err(error) => return Err(Failure::writing(path, &error)),
    };
    let failed = |error| Failure::writing(&path, &error);
    match fs::metadata(&path) {
        Ok(metadata) if metadata.is_dir() => {
            return Err(Failure::usage(format!("{} is a folder: give a file for --output", path.display())));
        }
        Ok(metadata) if !metadata.is_file() => {
            let file = OpenOptions::new().write(true).open(&path).map_err(failed)?;
            return Ok((Place::Special(path), Target::File(file)));
        }
        _ => {}
    }
    if let Some(folder) = path.parent().filter(|folder| folder.join("_job.json").exists()) {
        let (path, folder) = (path.display(), folder.display());
        let how = "give a file outside of it, or that folder to continue the job";
        return Err(Failure::usage(format!("--output {path} is in {folder}, which holds a job: {how}")));
    }
    let Some(name) = path.file_name() else {
        return Err(Failure::usage(format!("--output {} names no file", path.display())));
    };
    let (temporary, file) = aside::create(&path, name)?;
    interrupt::set_temporary(Some(temporary.clone()));
    Ok((Place::File { temporary, path }, Target::File(file)))
}

/// Where links lead to a file that is not there yet.
fn behind_links(path: &Path) -> PathBuf {
    let mut path = path.to_path_buf();
    // As many as Linux follows.
    for _ in 0..40 {
        let Ok(target) = fs::read_link(&path) else { break };
        path.set_file_name(target);
    }
    path
}

impl Output {
    /// Appends rows.
    pub fn append(&mut self, rows: &Rows) -> Result<(), Failure> {
        self.kind = Some((rows.descr(), rows.cols(), rows.name()));
        match self.format {
            OutputFormat::Npy | OutputFormat::Safetensors => self.put(&rows.bytes())?,
            OutputFormat::Jsonl => {
                for row in 0..rows.count() {
                    self.put(&rows.line(row, self.rows + row)?)?;
                }
            }
            OutputFormat::Parquet => {
                let bytes = self.row_group(rows)?;
                self.put(&bytes)?;
            }
        }
        self.rows += rows.count();
        // A reader of the pipe sees each window as soon as it is there.
        if matches!(self.place, Place::Stdout | Place::Special(_)) {
            self.flush()?;
        }
        Ok(())
    }

    /// Completes the output and gives it its name. At least an empty [`Rows`] must have been appended: it carries their
    /// type and width.
    pub fn finish(mut self) -> Result<(), Failure> {
        if self.format == OutputFormat::Safetensors {
            (0..self.rows as i64).try_for_each(|row| self.put(&row.to_le_bytes()))?;
        }
        if let Some(writer) = self.parquet.take() {
            let bytes = writer.into_inner().map_err(unwritten)?;
            self.put(&bytes)?;
        }
        if header_bytes(self.format) > 0 {
            let header = self.header();
            match self.held.take() {
                Some(held) => {
                    self.put(&header)?;
                    self.put(&held)?;
                }
                None => {
                    self.flush()?;
                    let rewound = self.writer.get_mut().rewind();
                    rewound.map_err(|error| self.failed(&error))?;
                    self.put(&header)?;
                }
            }
        }
        self.flush()?;
        if let (Place::File { temporary, path }, Target::File(file)) = (&self.place, self.writer.get_ref()) {
            aside::publish(file, temporary, path).map_err(|error| self.failed(&error))?;
            interrupt::set_temporary(None);
            self.place = Place::Stdout;
        }
        Ok(())
    }

    fn header(&self) -> Vec<u8> {
        let (descr, cols, name) = self.kind.unwrap_or(("<f4", Some(0), "embeddings"));
        match self.format {
            OutputFormat::Npy => npy::header(descr, self.rows, cols).to_vec(),
            _ => safetensors::header(descr, name, self.rows as u64, cols).to_vec(),
        }
    }

    /// The bytes of rows in .parquet.
    fn row_group(&mut self, rows: &Rows) -> Result<Vec<u8>, Failure> {
        let index = (self.rows..self.rows + rows.count()).map(|row| row as i64).collect();
        let batch = arrow::batch(rows, index, None)?;
        let writer = match &mut self.parquet {
            Some(writer) => writer,
            none => {
                let writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties()));
                none.insert(Box::new(writer.map_err(unwritten)?))
            }
        };
        writer.write(&batch).and_then(|()| writer.flush()).map_err(unwritten)?;
        Ok(std::mem::take(writer.inner_mut()))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match &mut self.held {
            Some(held) => {
                held.extend_from_slice(bytes);
                Ok(())
            }
            None => self.writer.write_all(bytes).map_err(|error| self.failed(&error)),
        }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.writer.flush().map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &io::Error) -> Failure {
        match &self.place {
            Place::Stdout => Failure::writing_stdout(error),
            Place::Special(path) if error.kind() == io::ErrorKind::BrokenPipe => {
                log::debug!("{}: {error}", path.display());
                Failure::new(0, "")
            }
            Place::Special(path) | Place::File { path, .. } => Failure::writing(path, error),
        }
    }
}

/// Into memory, this fails only where it does not know a type.
fn unwritten(error: ParquetError) -> Failure {
    Failure::new(INTERNAL, format!("cannot make Parquet of the rows: {error}"))
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Place::File { temporary, .. } = &self.place {
            let _ = fs::remove_file(temporary);
            interrupt::set_temporary(None);
        }
    }
}

impl Target {
    fn rewind(&mut self) -> io::Result<()> {
        match self {
            Target::Stdout(_) => Err(io::ErrorKind::NotSeekable.into()),
            Target::File(file) => file.seek(SeekFrom::Start(0)).map(|_| ()),
        }
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Target::Stdout(stdout) => stdout.write(bytes),
            Target::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Target::Stdout(stdout) => stdout.flush(),
            Target::File(file) => file.flush(),
        }
    }
}
