//! Reads a part of the input.

use super::plan::{self, Plan, RowRange};
use super::{JobInput, Kept, parquet};
use crate::failure::{DATA, Failure};
use crate::input::Format;
use lexel::jobs::{Part, PartRows, Reject, Source};
use serde_json::Value;

/// The rows of files, by a plan.
pub struct FileSource<const N: usize> {
    /// What to read.
    pub input: JobInput<N>,
    /// Where it is.
    pub plan: Plan,
    /// The same parts for the library.
    pub parts: Vec<Part>,
}

impl<const N: usize> Source for FileSource<N> {
    type Row = [String; N];
    type Extra = Kept;
    type Error = Failure;

    fn parts(&self) -> &[Part] {
        &self.parts
    }

    fn read(&self, part: &Part) -> Result<PartRows<[String; N], Kept>, Failure> {
        let ranges = &self.plan.ranges[part.index];
        let rows = match (&self.input.format, &ranges[..]) {
            (Format::Parquet(columns), [range]) => {
                let path = &self.plan.files[range.file].path;
                parquet::read(path, columns, &self.input.keep, range.start, part)?
            }
            _ => {
                let mut lines = Lines { columns: vec![Vec::new(); self.input.keep.len()], ..Lines::default() };
                for range in ranges {
                    self.read_lines(range, part, &mut lines)?;
                }
                let Lines { rows, numbers, rejects, columns } = lines;
                PartRows { rows, numbers, rejects, extra: Kept::Values(columns) }
            }
        };
        match rows.rejects.first() {
            Some(reject) if self.input.fail_on_reject => Err(Failure::new(DATA, reject.reason.clone())),
            // One bad row is an accident, all of the first ones are a wrong column; later ones may be a bad file among good ones.
            Some(reject) if rows.rows.is_empty() && part.rows > 1 && part.index == 0 && !self.input.skip_all => {
                let (count, reason) = (part.rows, &reject.reason);
                let how = "--on-invalid skip goes on all the same";
                Err(Failure::new(DATA, format!("none of {count} rows can be read; the first: {reason} ({how})")))
            }
            _ => Ok(rows),
        }
    }
}

/// What was read of a part of lines.
#[derive(Default)]
struct Lines<const N: usize> {
    rows: Vec<[String; N]>,
    /// The place of each in the part.
    numbers: Vec<u64>,
    rejects: Vec<Reject>,
    /// The kept columns.
    columns: Vec<Vec<Value>>,
}

impl<const N: usize> FileSource<N> {
    /// Adds the rows of a range to those before them in the part.
    fn read_lines(&self, range: &RowRange, part: &Part, into: &mut Lines<N>) -> Result<(), Failure> {
        let file = &self.plan.files[range.file];
        let first = (into.rows.len() + into.rejects.len()) as u64;
        let changed = || {
            let [from, to] = [first, first + range.rows - 1].map(|number| part.first_row + number);
            let what = format!("{}: rows {from} to {to} were changed since the job began", file.path.display());
            Failure::new(DATA, what)
        };
        let (mut records, ..) = plan::open(&self.input, &file.path)?;
        let tally = plan::seek(&mut *records, &file.path, range.start, range.end - range.start, range.line)?;
        for number in first..first + range.rows {
            match records.next() {
                Ok(Some((texts, _))) => {
                    into.rows.push(texts);
                    into.numbers.push(number);
                    for (column, value) in into.columns.iter_mut().zip(records.kept()) {
                        column.push(value);
                    }
                }
                Ok(None) => return Err(changed()),
                Err(failure) if failure.status == DATA => {
                    into.rejects.push(Reject { row: part.first_row + number, reason: failure.message });
                }
                Err(failure) => return Err(failure),
            }
        }
        // What follows the last record: empty lines of .csv.
        let more = records.skip()?;
        match !more && tally.hash() == range.hash {
            true => Ok(()),
            false => Err(changed()),
        }
    }
}
