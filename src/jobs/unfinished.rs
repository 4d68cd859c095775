//! What is computed of a part whose work was cancelled.

use super::files::publish_bytes;
use crate::error::{Error, Result};
use crate::matrix::{Matrix, SomeRows};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::Path;

/// The rows of a part that have results, and what they took.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Unfinished {
    /// Results, by their places among the rows of [`PartRows`](super::PartRows).
    pub results: SomeRows,
    /// Tokens computed.
    pub tokens: u64,
    /// Rows that were longer than the model's maximum and lost their end.
    pub truncated: u64,
    /// Seconds of work.
    pub seconds: f64,
    /// The share of the part's work that this is, from 0 to 1.
    pub share: f64,
}

/// The first line of the file, in JSON. Behind it are the results, as little-endian f32.
#[derive(Serialize, Deserialize)]
struct Head {
    rows: Vec<usize>,
    cols: usize,
    tokens: u64,
    truncated: u64,
    seconds: f64,
    share: f64,
}

impl Unfinished {
    /// Whether it can be of a part with so many rows.
    pub(super) fn is_of(&self, rows: usize) -> bool {
        self.results.rows.iter().all(|&row| row < rows)
            && self.results.rows.len() + self.results.missing(rows).len() == rows
    }

    pub(super) fn write(&self, temporary: &Path, path: &Path) -> Result<()> {
        let SomeRows { rows, matrix } = &self.results;
        let (rows, cols) = (rows.clone(), matrix.cols);
        let Unfinished { tokens, truncated, seconds, share, .. } = *self;
        let head = Head { rows, cols, tokens, truncated, seconds, share };
        let mut bytes = serde_json::to_vec(&head).map_err(|error| Error::invalid_file(path, error))?;
        bytes.push(b'\n');
        bytes.extend(matrix.data.iter().flat_map(|x| x.to_le_bytes()));
        publish_bytes(temporary, path, &bytes)
    }

    /// `None`: there is no such file, or it is none that was written here; then its rows are computed again.
    pub(super) fn read(path: &Path) -> Result<Option<Unfinished>> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(path)(error)),
        };
        let unfinished = Unfinished::parse(&bytes);
        if unfinished.is_none() {
            log::warn!("{} is damaged: its rows are computed again", path.display());
        }
        Ok(unfinished)
    }

    fn parse(bytes: &[u8]) -> Option<Unfinished> {
        let end = bytes.iter().position(|&byte| byte == b'\n')?;
        let Head { rows, cols, tokens, truncated, seconds, share } = serde_json::from_slice(&bytes[..end]).ok()?;
        let (numbers, rest) = bytes[end + 1..].as_chunks::<4>();
        if !rest.is_empty() || rows.len().checked_mul(cols) != Some(numbers.len()) {
            return None;
        }
        let matrix = Matrix::new(rows.len(), cols, numbers.iter().map(|&x| f32::from_le_bytes(x)).collect());
        Some(Unfinished { results: SomeRows { rows, matrix }, tokens, truncated, seconds, share })
    }

    /// How many rows such a file has.
    pub(super) fn count(path: &Path) -> usize {
        let mut line = String::new();
        let read = File::open(path).and_then(|file| BufReader::new(file).read_line(&mut line));
        let head = read.ok().and_then(|_| serde_json::from_str::<Head>(&line).ok());
        head.map_or(0, |head| head.rows.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read_and_damage_is_nothing() {
        let results = SomeRows { rows: vec![7, 2], matrix: Matrix::new(2, 1, vec![0.5, -1.0]) };
        let unfinished = Unfinished { results, tokens: 9, truncated: 1, seconds: 0.1, share: 0.25 };
        let folder = std::env::temp_dir().join(format!("lexel-unfinished-{}", std::process::id()));
        let (path, temporary) = (folder.join("a"), folder.join("b"));
        assert_eq!(Unfinished::read(&path).unwrap(), None);
        unfinished.write(&temporary, &path).unwrap();
        assert_eq!(Unfinished::read(&path).unwrap(), Some(unfinished.clone()));
        assert_eq!(Unfinished::count(&path), 2);
        let bytes = fs::read(&path).unwrap();
        fs::remove_dir_all(folder).unwrap();
        assert_eq!(Unfinished::parse(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Unfinished::parse(&bytes[..bytes.len() - 4]), None);
        assert_eq!(Unfinished::parse(b""), None);
        assert!(unfinished.is_of(8) && !unfinished.is_of(7));
    }
}
