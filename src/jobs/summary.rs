//! What each part says of itself, and what they come to: rows in = rows out + rejects, or the job is not complete.

use super::files::{publish_bytes, sync_folder};
use super::{Finished, JobFolder, Reject, Source};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// What is known of a stored part.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Receipt {
    rows: u64,
    rejects: Vec<Reject>,
    tokens: u64,
    truncated: u64,
    seconds: f64,
    /// Of the part's file.
    bytes: u64,
    device: String,
}

/// A complete job, or a complete shard of one.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Parts.
    pub parts: usize,
    /// Rows read.
    pub rows_in: u64,
    /// Rows with a result.
    pub rows: u64,
    /// Rows without: `_rejects.jsonl` says why.
    pub rejected: u64,
    /// Tokens computed.
    pub tokens: u64,
    /// Rows that were longer than the model's maximum and lost their end.
    pub truncated: u64,
    /// Seconds of work, of all processes together.
    pub work_seconds: f64,
    /// What computed.
    pub devices: BTreeSet<String>,
    /// All of them, in order.
    #[serde(skip)]
    pub rejects: Vec<Reject>,
}

impl Receipt {
    pub fn of<S: Source, O>(finished: &Finished<S, O>, bytes: u64, device: &str) -> Receipt {
        Receipt {
            rows: finished.input.rows.len() as u64,
            rejects: finished.input.rejects.clone(),
            tokens: finished.tokens,
            truncated: finished.truncated,
            seconds: finished.seconds,
            bytes,
            device: device.to_string(),
        }
    }

    pub fn write(&self, temporary: &Path, path: &Path) -> Result<()> {
        let bytes = serde_json::to_vec(self).map_err(|error| Error::invalid_file(path, error))?;
        publish_bytes(temporary, path, &bytes)?;
        path.parent().map_or(Ok(()), sync_folder)
    }

    /// What `path` says of the part in the file `part`.
    fn read(path: &Path, part: &Path) -> Result<Receipt> {
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| damaged(path, error, part)),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(damaged(path, "not there, but its part is", part)),
            Err(error) => Err(Error::io(path)(error)),
        }
    }
}

/// The error for a file of a part that is not as it was written: running again does not help until the part is removed.
fn damaged(path: &Path, what: impl std::fmt::Display, part: &Path) -> Error {
    let part = if path == part { "it".to_string() } else { part.display().to_string() };
    Error::invalid_file(path, format!("{what}: remove {part} and run the job again"))
}

impl Summary {
    /// Adds up these parts, and checks that they are there, whole, and have every row.
    pub(super) fn of(folder: &JobFolder, counts: impl Fn(usize) -> bool) -> Result<Summary> {
        let mut summary = Summary {
            parts: 0,
            rows_in: 0,
            rows: 0,
            rejected: 0,
            tokens: 0,
            truncated: 0,
            work_seconds: 0.0,
            devices: BTreeSet::new(),
            rejects: Vec::new(),
        };
        for part in folder.parts().iter().filter(|part| counts(part.index)) {
            let path = folder.part_path(part.index);
            let missing = |error| Error::Incomplete(format!("{}: {error}", path.display()));
            let bytes = fs::metadata(&path).map_err(missing)?.len();
            let receipt = Receipt::read(&folder.receipt_path(part.index), &path)?;
            if bytes != receipt.bytes {
                return Err(damaged(&path, format!("{bytes} bytes, where {} were written", receipt.bytes), &path));
            }
            let rejected = receipt.rejects.len() as u64;
            if receipt.rows + rejected != part.rows {
                let (rows, planned) = (receipt.rows, part.rows);
                return Err(damaged(&path, format!("{rows} rows and {rejected} rejects of {planned}"), &path));
            }
            summary.parts += 1;
            summary.rows_in += part.rows;
            summary.rows += receipt.rows;
            summary.rejected += rejected;
            summary.tokens += receipt.tokens;
            summary.truncated += receipt.truncated;
            summary.work_seconds += receipt.seconds;
            summary.devices.insert(receipt.device);
            summary.rejects.extend(receipt.rejects);
        }
        Ok(summary)
    }

    /// Adds other parts of the same job.
    pub fn add(&mut self, other: &Summary) {
        self.parts += other.parts;
        self.rows_in += other.rows_in;
        self.rows += other.rows;
        self.rejected += other.rejected;
        self.tokens += other.tokens;
        self.truncated += other.truncated;
        self.work_seconds += other.work_seconds;
        self.devices.extend(other.devices.iter().cloned());
        self.rejects.extend(other.rejects.iter().cloned());
    }

    /// Writes what the user looks at when the job is complete.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let rejects = folder.join("_rejects.jsonl");
        match self.rejects.is_empty() {
            true => drop(fs::remove_file(rejects)),
            false => publish_bytes(&folder.join("_rejects.jsonl.tmp"), &rejects, self.reject_lines().as_bytes())?,
        }
        let (report, temporary) = (folder.join("_report.json"), folder.join("_report.json.tmp"));
        let bytes = serde_json::to_vec_pretty(self).map_err(|error| Error::invalid_file(&report, error))?;
        publish_bytes(&temporary, &report, &bytes)?;
        sync_folder(folder)
    }

    /// The rejects, a JSON object a line.
    pub fn reject_lines(&self) -> String {
        let line = |reject| serde_json::to_string(reject).expect("a struct of numbers and strings has a JSON") + "\n";
        self.rejects.iter().map(line).collect()
    }
}
