//! The plan of a job: where each part's rows are in the input, and what they looked like, so that any process can read any
//! part and notices when the input has changed.

use super::tally::{Tally, TallyReader};
use super::{JobInput, begin_again};
use crate::failure::{DATA, Failure};
use crate::input::{Format, LineRecords, WINDOW_RECORDS};
use crate::parquet;
use lexel::jobs::Part;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// Bytes of input after which a part ends early: texts may be as long as books.
const PART_BYTES: u64 = 64 << 20;

/// Where everything is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The most rows of a part.
    part_rows: usize,
    /// The files, in the order of their rows.
    pub files: Vec<InputFile>,
    /// For each part its rows: some of a file, or those of several small ones.
    pub ranges: Vec<Vec<RowRange>>,
}

/// An input file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Nanoseconds since 1970, as text: JSON has no such numbers.
    modified: String,
    /// SHA-256 of what stands before the rows, and for Parquet of what describes them.
    head: String,
}

/// Rows of a part: lines and records that begin at `start` and end before `end`; in Parquet, rows with these numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowRange {
    /// Which file.
    pub file: usize,
    /// How many there are.
    pub rows: u64,
    /// From 0.
    pub start: u64,
    /// Behind the last.
    pub end: u64,
    /// Lines of the file before `start`.
    pub line: u64,
    /// SHA-256 of the bytes; empty for Parquet.
    pub hash: String,
}

impl Plan {
    /// Reads through the input.
    pub fn make<const N: usize>(input: &JobInput<N>) -> Result<(Plan, Vec<Part>), Failure> {
        let part_rows = input.part_rows.unwrap_or(WINDOW_RECORDS);
        let mut plan = Plan { part_rows, files: Vec::new(), ranges: Vec::new() };
        let mut parts = Parts { part_rows: part_rows as u64, ..Parts::default() };
        for path in &input.files {
            let (bytes, modified) = stat(path)?;
            let file = plan.files.len();
            let head = match &input.format {
                Format::Parquet(columns) => parquet_file(input, columns, path, file, &mut parts)?,
                _ => lines_file(input, path, file, &mut parts)?,
            };
            plan.files.push(InputFile { path: path.clone(), bytes, modified, head });
        }
        parts.end_part();
        if parts.parts.is_empty() {
            // No rows still make a file of none.
            parts.push(Vec::new(), 0, 0);
        }
        plan.ranges = parts.ranges;
        Ok((plan, parts.parts))
    }

    /// Checks that this plan, which was made when the job in `folder` began, still describes the input, wherever that lies by
    /// now: files may have moved, and be called by another path.
    pub fn check<const N: usize>(mut self, input: &JobInput<N>, folder: &Path) -> Result<Plan, Failure> {
        if let Some(rows) = input.part_rows.filter(|rows| *rows != self.part_rows) {
            let (folder, before) = (folder.display(), self.part_rows);
            let how = "leave it out to continue the job, or give another folder";
            return Err(Failure::usage(format!(
                "--part-rows {rows}: {folder} holds a job that began with {before}: {how}"
            )));
        }
        let names =
            |paths: &[PathBuf]| paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        let before: Vec<PathBuf> = self.files.iter().map(|file| file.path.clone()).collect();
        let changed = |what: String| {
            let how = format!("restore it to continue; {}", begin_again(folder));
            Failure::new(DATA, format!("the input is not that of this job: {what}: {how}"))
        };
        let others = || changed(format!("{} when the job began, {} now", names(&before), names(&input.files)));
        if before.len() != input.files.len() {
            return Err(others());
        }
        let mut touched = false;
        for (file, path) in self.files.iter().zip(&input.files) {
            let (bytes, modified) = stat(path)?;
            let moved = !is_same(&file.path, path);
            match (bytes == file.bytes, moved) {
                (true, _) => touched |= moved || modified != file.modified,
                (false, true) => return Err(others()),
                (false, false) => {
                    let (path, before) = (path.display(), file.bytes);
                    return Err(changed(format!("{path} had {before} bytes when the job began, and has {bytes}")));
                }
            }
        }
        if touched {
            let (now, _) = Plan::make(&JobInput { part_rows: Some(self.part_rows), ..input.clone() })?;
            let differs = |(i, file): (usize, &InputFile)| {
                let ranges = |plan: &Plan| {
                    plan.ranges.iter().flatten().filter(|range| range.file == i).cloned().collect::<Vec<_>>()
                };
                file.head != now.files[i].head || ranges(&self) != ranges(&now)
            };
            if let Some((i, file)) = self.files.iter().enumerate().find(|&pair| differs(pair)) {
                let (before, now) = (file.path.display(), input.files[i].display());
                return Err(changed(match file.path == input.files[i] {
                    true => format!("{now} was changed since the job began"),
                    false => format!("{now} is not what {before} was when the job began"),
                }));
            }
        }
        for (file, path) in self.files.iter_mut().zip(&input.files) {
            file.path.clone_from(path);
        }
        Ok(self)
    }
}

/// The parts so far.
#[derive(Default)]
struct Parts {
    /// The most rows of a part.
    part_rows: u64,
    parts: Vec<Part>,
    /// Of each.
    ranges: Vec<Vec<RowRange>>,
    /// Of the next one, which may have room for more: of a file that is smaller than a part.
    next: Vec<RowRange>,
    next_rows: u64,
    next_bytes: u64,
}

impl Parts {
    fn push(&mut self, ranges: Vec<RowRange>, rows: u64, weight: u64) {
        let first_row = self.parts.last().map_or(0, |part| part.first_row + part.rows);
        self.parts.push(Part { index: self.parts.len(), first_row, rows, weight });
        self.ranges.push(ranges);
    }

    /// Whether the next part has room for more behind so many rows of so many bytes.
    fn has_room(&self, rows: u64, bytes: u64) -> bool {
        self.next_rows + rows < self.part_rows && self.next_bytes + bytes < PART_BYTES
    }

    /// Adds rows to the next part, which ends with them unless there is room.
    fn add(&mut self, range: RowRange) {
        self.next_rows += range.rows;
        self.next_bytes += range.end - range.start;
        self.next.push(range);
        if !self.has_room(0, 0) {
            self.end_part();
        }
    }

    fn end_part(&mut self) {
        let (ranges, rows) = (std::mem::take(&mut self.next), std::mem::take(&mut self.next_rows));
        let bytes = std::mem::take(&mut self.next_bytes);
        if rows > 0 {
            self.push(ranges, rows, bytes);
        }
    }
}

/// Whether two paths are of one file, as far as can be told.
fn is_same(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Size and time of the last change.
fn stat(path: &Path) -> Result<(u64, String), Failure> {
    let failed = |error| Failure::reading(&path.display().to_string(), &error);
    let metadata = fs::metadata(path).map_err(failed)?;
    let modified = metadata.modified().map_err(failed)?;
    let modified = modified.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    Ok((metadata.len(), modified.to_string()))
}

/// A file of lines whose first record has been read; where its rows begin, with the lines before them; and the head's hash.
pub fn open<const N: usize>(
    input: &JobInput<N>,
    path: &Path,
) -> Result<(Box<dyn LineRecords<N>>, u64, u64, String), Failure> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|error| Failure::reading(&name, &error))?;
    let tally = Arc::new(Tally::default());
    let reader = TallyReader::new(BufReader::new(file), tally.clone());
    let mut records = input.format.line_records(Box::new(reader), name, &input.keep, input.lossy)?;
    let header = records.first()?;
    // Before `lines`, which ends what is being parsed.
    let unparsed = records.unparsed();
    let lines = records.lines().line;
    Ok(match header {
        true => (records, tally.bytes() - unparsed, lines, tally.hash()),
        false => (records, 0, 0, String::new()),
    })
}

/// Makes `records` go on at this place of its file, for so many bytes; answers with the tally of what is read from there.
pub fn seek<const N: usize>(
    records: &mut dyn LineRecords<N>,
    path: &Path,
    start: u64,
    bytes: u64,
    line: u64,
) -> Result<Arc<Tally>, Failure> {
    let failed = |error| Failure::reading(&path.display().to_string(), &error);
    let mut file = File::open(path).map_err(failed)?;
    file.seek(SeekFrom::Start(start)).map_err(failed)?;
    let tally = Arc::new(Tally::default());
    let reader = TallyReader::new(BufReader::with_capacity(1 << 18, file.take(bytes)), tally.clone());
    records.lines().restart(Box::new(reader), line);
    Ok(tally)
}

fn lines_file<const N: usize>(
    input: &JobInput<N>,
    path: &Path,
    file: usize,
    parts: &mut Parts,
) -> Result<String, Failure> {
    let (mut records, mut start, mut line, head) = open(input, path)?;
    let origin = start;
    let tally = seek(&mut *records, path, start, u64::MAX, line)?;
    loop {
        let mut rows = 0;
        // A part ends where a line does.
        while (parts.has_room(rows, origin + tally.bytes() - start) || records.unparsed() > 0) && records.skip()? {
            rows += 1;
        }
        if rows == 0 {
            return Ok(head);
        }
        let end = origin + tally.bytes();
        // Not through `lines`, which would end what is being parsed.
        let lines = tally.lines();
        parts.add(RowRange { file, rows, start, end, line, hash: tally.hash() });
        (start, line) = (end, line + lines);
    }
}

fn parquet_file<const N: usize>(
    input: &JobInput<N>,
    columns: &[String; N],
    path: &Path,
    file: usize,
    parts: &mut Parts,
) -> Result<String, Failure> {
    let shape = parquet::shape(path, columns, &input.keep)?;
    let mut start = 0;
    while start < shape.rows {
        let (mean, text) = ((shape.bytes / shape.rows).max(1), (shape.text_bytes / shape.rows).max(1));
        let rows = (shape.rows - start).min(parts.part_rows).min((PART_BYTES / mean).max(1));
        // Of one file: the columns that are kept may be of another type in the next.
        let range = RowRange { file, rows, start, end: start + rows, line: 0, hash: String::new() };
        parts.push(vec![range], rows, rows * text);
        start += rows;
    }
    Ok(shape.hash)
}
