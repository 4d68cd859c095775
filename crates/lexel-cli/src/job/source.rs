//! Reads a part of the input.

use super::plan::{self, Plan, RowRange};
use super::{JobInput, Kept, parquet};
use crate::failure::{DATA, Failure};
use crate::input::Format;
use lexel::jobs::{Part, PartRows, Reject, Source};

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
        let range = &self.plan.ranges[part.index];
        let rows = match &self.input.format {
            _ if part.rows == 0 => Ok(self.nothing()),
            Format::Parquet(columns) => {
                let path = &self.plan.files[range.file].path;
                parquet::read(path, columns, &self.input.keep, range.start, part)
            }
            _ => self.lines(range, part),
        }?;
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

impl<const N: usize> FileSource<N> {
    fn nothing(&self) -> PartRows<[String; N], Kept> {
        let extra = Kept::Values(vec![Vec::new(); self.input.keep.len()]);
        PartRows { rows: Vec::new(), numbers: Vec::new(), rejects: Vec::new(), extra }
    }

    fn lines(&self, range: &RowRange, part: &Part) -> Result<PartRows<[String; N], Kept>, Failure> {
        let file = &self.plan.files[range.file];
        let changed = || {
            let last = part.first_row + part.rows - 1;
            let what =
                format!("{}: rows {} to {last} were changed since the job began", file.path.display(), part.first_row);
            Failure::new(DATA, what)
        };
        let (mut records, ..) = plan::open(&self.input, &file.path)?;
        let tally = plan::seek(&mut *records, &file.path, range.start, range.end - range.start, range.line)?;
        let (mut rows, mut numbers, mut rejects) = (Vec::new(), Vec::new(), Vec::new());
        let mut columns = vec![Vec::new(); self.input.keep.len()];
        for number in 0..part.rows {
            match records.next() {
                Ok(Some((texts, _))) => {
                    rows.push(texts);
                    numbers.push(number);
                    for (column, value) in columns.iter_mut().zip(records.kept()) {
                        column.push(value);
                    }
                }
                Ok(None) => return Err(changed()),
                Err(failure) if failure.status == DATA => {
                    rejects.push(Reject { row: part.first_row + number, reason: failure.message });
                }
                Err(failure) => return Err(failure),
            }
        }
        // What follows the last record: empty lines of .csv.
        let more = records.skip()?;
        match !more && tally.hash() == range.hash {
            true => Ok(PartRows { rows, numbers, rejects, extra: Kept::Values(columns) }),
            false => Err(changed()),
        }
    }
}
