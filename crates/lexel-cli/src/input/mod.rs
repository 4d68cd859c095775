//! Texts or pairs of texts from files, window by window: a thread reads the next window while the current one is computed,
//! so that memory stays flat however long the file is.
//!
//! ```text
//!   files     files, folders and patterns to a list of files   chain     the records of one file behind the other
//!   lines     .txt, .jsonl and .tsv: a line is a record        csv       .csv: a record may have several lines
//!   columns   which columns of a .tsv or .csv file hold the texts
//! ```

mod chain;
mod columns;
mod csv;
mod files;
mod lines;
mod pipe;

pub use columns::Columns;
pub use files::{expand, same_format};
pub use lines::Lines;
pub use pipe::Pipe;

use crate::failure::{DATA, Failure};
use crate::interrupt;
use chain::Chain;
use serde_json::Value;
use std::io::BufRead;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// Records in a window: enough that batches of equal lengths are dense.
pub const WINDOW_RECORDS: usize = 16_384;

/// Bytes of texts after which a window ends early: texts may be as long as books.
const WINDOW_BYTES: usize = 64 << 20;

/// A longer record is no text but a file of another kind.
const RECORD_BYTES: usize = 256 << 20;

/// What to read: `N` texts a record, 1 for texts and 2 for pairs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input<const N: usize> {
    /// In the order of their records; none: standard input.
    pub files: Vec<PathBuf>,
    /// How bytes become records.
    pub format: Format<N>,
}

/// How bytes become records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format<const N: usize> {
    /// A line is a text. There are no pairs.
    Txt,
    /// A line is a JSON object whose values at these keys are the texts, or the bare texts: a string, or an array of two.
    Jsonl([String; N]),
    /// A line is a record, tabs separate its columns, and nothing is quoted.
    Tsv(Columns<N>),
    /// As RFC 4180 has it.
    Csv(Columns<N>),
    /// Columns of strings.
    Parquet([String; N]),
}

/// Some records that follow each other in the input.
#[derive(Debug, Default)]
pub struct Window<const N: usize> {
    /// The texts of each.
    pub records: Vec<[String; N]>,
    /// Bytes of the input that they took.
    pub bytes: u64,
}

/// How long a file has to show what is wrong with its beginning.
const FIRST_LOOK: Duration = Duration::from_millis(200);

/// Reads an input on a thread of its own, at most one window ahead.
pub struct Windows<const N: usize> {
    receiver: Receiver<Result<Window<N>, Failure>>,
    /// The first window, if it was there at once.
    first: Option<Window<N>>,
    /// The size of the input in bytes, where it is known.
    pub bytes: Option<u64>,
}

/// What is in an input of `N` texts a record, for messages.
pub const fn noun<const N: usize>() -> &'static str {
    if N == 1 { "texts" } else { "pairs" }
}

/// What to do where a column is not there.
const fn choose<const N: usize>() -> &'static str {
    if N == 1 { "choose one by --column NAME" } else { "choose two by --columns A,B" }
}

impl<const N: usize> Input<N> {
    /// The input's name in messages.
    pub fn name(&self) -> String {
        match &self.files[..] {
            [] => "standard input".to_string(),
            [path] => path.display().to_string(),
            [first, rest @ ..] => format!("{} and {} more", first.display(), rest.len()),
        }
    }

    /// Opens it and begins to read. What is wrong at the beginning of a file (a column that is not there) comes to light
    /// here, before the caller spends time on a model.
    pub fn windows(&self, records: usize) -> Result<Windows<N>, Failure> {
        let bytes = chain::bytes(self)?;
        let mut reader = Chain::open(self)?;
        let (sender, receiver) = mpsc::sync_channel(1);
        // Not joined: it may wait for a terminal or pipe when the program wants to end.
        thread::spawn(move || {
            loop {
                let window = window(&mut reader, records);
                let last = window.as_ref().map_or(true, |window| window.records.is_empty());
                if sender.send(window).is_err() || last {
                    return;
                }
            }
        });
        let first = match self.files.is_empty() {
            false => receiver.recv_timeout(FIRST_LOOK).ok().transpose()?,
            true => None,
        };
        Ok(Windows { receiver, first, bytes })
    }

    /// All records at once, or the first `limit` of them.
    pub fn read(&self, limit: Option<usize>) -> Result<Window<N>, Failure> {
        let limit = limit.unwrap_or(usize::MAX);
        let mut all = Window { records: Vec::new(), bytes: 0 };
        let mut windows = self.windows(WINDOW_RECORDS.min(limit))?;
        while all.records.len() < limit
            && let Some(mut window) = windows.next()?
        {
            all.records.append(&mut window.records);
            all.bytes += window.bytes;
        }
        all.records.truncate(limit);
        Ok(all)
    }
}

impl<const N: usize> Format<N> {
    /// The ending of such a file.
    pub fn ending(&self) -> &'static str {
        match self {
            Format::Txt => "txt",
            Format::Jsonl(_) => "jsonl",
            Format::Tsv(_) => "tsv",
            Format::Csv(_) => "csv",
            Format::Parquet(_) => "parquet",
        }
    }

    /// The records of `reader`, which is called `name` in messages.
    ///
    /// # Errors
    /// A Parquet file cannot be read from its beginning to its end.
    fn records(&self, reader: Box<dyn BufRead + Send>, name: String) -> Result<Box<dyn Records<N>>, Failure> {
        Ok(self.line_records(reader, name, &[], false)?)
    }

    /// The same as lines, with columns that are kept beside the texts; `lossy` replaces invalid UTF-8.
    ///
    /// # Errors
    /// A Parquet file has no lines.
    pub fn line_records(
        &self,
        reader: Box<dyn BufRead + Send>,
        name: String,
        keep: &[String],
        lossy: bool,
    ) -> Result<Box<dyn LineRecords<N>>, Failure> {
        let mut lines = lines::Lines::new(reader, name);
        lines.lossy = lossy;
        Ok(match self {
            Format::Txt => Box::new(lines::Txt(lines)),
            Format::Jsonl(keys) => Box::new(lines::Jsonl::new(lines, keys.clone(), keep)),
            Format::Tsv(columns) => Box::new(lines::Tsv::new(lines, columns.clone(), keep)),
            Format::Csv(columns) => Box::new(csv::Csv::new(lines, columns.clone(), keep)),
            Format::Parquet(_) => {
                return Err(Failure::usage("a Parquet file is read from its end: give a file, not a pipe"));
            }
        })
    }
}

impl<const N: usize> Window<N> {
    /// The first text of each record: all there is of texts.
    pub fn texts(&self) -> Vec<&str> {
        self.records.iter().map(|record| record[0].as_str()).collect()
    }
}

impl Window<2> {
    /// The pairs.
    pub fn pairs(&self) -> Vec<(&str, &str)> {
        self.records.iter().map(|[a, b]| (a.as_str(), b.as_str())).collect()
    }
}

impl<const N: usize> Windows<N> {
    /// The next records; `None` at the end. Waits for the input, but not longer than until Ctrl-C.
    pub fn next(&mut self) -> Result<Option<Window<N>>, Failure> {
        let some = |window: Window<N>| (!window.records.is_empty()).then_some(window);
        if let Some(first) = self.first.take() {
            return Ok(some(first));
        }
        loop {
            if interrupt::requested() {
                return Err(Failure::interrupted());
            }
            let window = match self.receiver.recv_timeout(Duration::from_millis(100)) {
                Ok(window) => some(window?),
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => None,
            };
            // The end may be Ctrl-C's, which ends the writer of a pipe as well.
            return match window {
                None if interrupt::requested() => Err(Failure::interrupted()),
                window => Ok(window),
            };
        }
    }
}

/// The reading thread's side of an input.
pub trait Records<const N: usize>: Send {
    /// The next record, and how many bytes of the input have been read up to its end; `None` at the end. After bad data
    /// comes the record behind it.
    fn next(&mut self) -> Result<Option<([String; N], u64)>, Failure>;
}

/// Records whose places in a file can be found again.
pub trait LineRecords<const N: usize>: Records<N> {
    /// Passes over a record: `false` at the end.
    fn skip(&mut self) -> Result<bool, Failure>;

    /// Reads the first record of a file for what it says of all others: `true` if it is no data itself.
    fn first(&mut self) -> Result<bool, Failure> {
        Ok(false)
    }

    /// Bytes of the current line that are behind the last record, and more than an end: where a carriage return alone ends one.
    fn unparsed(&self) -> u64 {
        0
    }

    /// What is kept of the last record.
    fn kept(&mut self) -> Vec<Value> {
        Vec::new()
    }

    /// Where the bytes come from.
    fn lines(&mut self) -> &mut Lines;
}

/// Up to so many records; none at the end.
fn window<const N: usize>(reader: &mut dyn Records<N>, records: usize) -> Result<Window<N>, Failure> {
    let mut window = Window { records: Vec::new(), bytes: 0 };
    let mut bytes = 0;
    while window.records.len() < records && bytes < WINDOW_BYTES {
        let Some((record, read)) = reader.next()? else { break };
        window.bytes += read;
        bytes += record.iter().map(String::len).sum::<usize>();
        window.records.push(record);
    }
    Ok(window)
}

/// Something is wrong with this line of the input.
fn bad(name: &str, line: u64, what: &str) -> Failure {
    Failure::new(DATA, format!("{name}, line {line}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// All windows of an input.
    pub fn read<const N: usize>(
        bytes: &[u8],
        format: &Format<N>,
        records: usize,
    ) -> Result<Vec<Vec<[String; N]>>, Failure> {
        let mut reader = format.records(Box::new(Cursor::new(bytes.to_vec())), "file".into())?;
        let (mut windows, mut read) = (Vec::new(), 0);
        loop {
            let window = window(&mut *reader, records)?;
            read += window.bytes;
            if window.records.is_empty() {
                // The progress bar counts bytes; lines that are no records may be missing.
                assert!(read <= bytes.len() as u64, "{read} of {} bytes", bytes.len());
                return Ok(windows);
            }
            windows.push(window.records);
        }
    }

    /// All records in one window.
    pub fn records<const N: usize>(bytes: &[u8], format: &Format<N>) -> Vec<[String; N]> {
        read(bytes, format, usize::MAX).unwrap().into_iter().flatten().collect()
    }

    /// Each input must fail with this in its message, and the status of bad data.
    pub fn fails<const N: usize>(cases: &[(&[u8], &Format<N>, &str)]) {
        for (bytes, format, expected) in cases {
            let failure = read(bytes, format, 9).unwrap_err();
            assert_eq!(failure.status, DATA);
            assert!(failure.message.contains(expected), "{}", failure.message);
        }
    }

    #[test]
    fn windows_split_between_records() {
        let windows = read(b"1\n2\n3\n4\n5", &Format::Txt, 2).unwrap();
        assert_eq!(windows, [vec![["1"], ["2"]], vec![["3"], ["4"]], vec![["5"]]]);
        let columns = Columns::Numbered([1, 0]);
        let windows = read(b"1\t2\n3\t4\n5\t6\n", &Format::Tsv(columns.clone()), 2).unwrap();
        assert_eq!(windows, [vec![["2", "1"], ["4", "3"]], vec![["6", "5"]]]);
        assert_eq!(read(b"1,2\n3,4\n5,6", &Format::Csv(columns), 2).unwrap(), windows);
    }
}
