//! Large jobs: millions of rows in, parts of results out, by any number of processes that may be killed at any moment.
//!
//! A job is a plan of parts. Each [`Part`] is read, computed and stored alone, so any process can compute any of them, in
//! any order, more than once: what counts is the part that its sink has kept. [`run`] works on the parts that nobody else
//! works on, and waits for those of others; it ends when the sink has all of them.
//!
//! A program that embeds from a store of its own writes a [`Source`] that reads a part of its texts and a [`Sink`] that
//! keeps a part of vectors, or takes the sink that is here: [`JobFolder`], a folder of files.
//!
//! ```
//! # fn main() -> lexel::Result<()> {
//! use lexel::jobs::{self, Finished, JobFile, JobFolder, JobOptions, Part, PartRows, Source};
//! use std::io::Write;
//!
//! struct Numbers(Vec<Part>);
//!
//! impl Source for Numbers {
//!     type Row = String;
//!     type Extra = ();
//!     type Error = lexel::Error;
//!
//!     fn parts(&self) -> &[Part] {
//!         &self.0
//!     }
//!
//!     fn read(&self, part: &Part) -> lexel::Result<PartRows<String, ()>> {
//!         let rows = (part.first_row..part.first_row + part.rows).map(|row| row.to_string()).collect();
//!         Ok(PartRows { rows, numbers: (0..part.rows).collect(), rejects: Vec::new(), extra: () })
//!     }
//! }
//!
//! let source = Numbers(jobs::equal_parts(1_000, 300));
//! let path = std::env::temp_dir().join(format!("lexel-doc-{}", std::process::id()));
//! let job = JobFile::new([("model".to_string(), "lengths".into())], source.parts());
//! let folder = JobFolder::begin(&path, &job, "f32", "any device")?;
//! let sink = folder.sink(|file, path, part: &Finished<Numbers>| {
//!     let bytes: Vec<u8> = part.output.data.iter().flat_map(|x| x.to_le_bytes()).collect();
//!     (&*file).write_all(&bytes).map_err(lexel::Error::io(path))
//! });
//! // model.encode_with(rows, &EncodeOptions { progress: Some(progress), ..options.clone() })
//! let compute = |rows: &[String], _progress| {
//!     Ok(lexel::Matrix::new(rows.len(), 1, rows.iter().map(|row| row.len() as f32).collect()))
//! };
//! jobs::run(&source, &sink, &compute, &JobOptions::default())?;
//! assert_eq!(folder.finish()?.rows, 1_000);
//! # std::fs::remove_dir_all(path).unwrap();
//! # Ok(())
//! # }
//! ```

mod files;
mod fingerprint;
mod folder;
mod meter;
mod run;
mod summary;
mod unfinished;

pub use fingerprint::model_files;
pub use folder::{FolderSink, JobFile, JobFolder, PartLock};
pub use meter::{JobProgress, OnJobProgress};
pub use run::{Compute, JobOptions, RunReport, Shard, run};
pub use summary::Summary;
pub use unfinished::Unfinished;

use crate::error::{Error, Result};
use crate::matrix::{Matrix, SomeRows};
use crate::sparse_matrix::SparseMatrix;
use serde::{Deserialize, Serialize};

/// A part of a job's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its place in the job, from 0.
    pub index: usize,
    /// The number of its first row in the whole job, from 0.
    pub first_row: u64,
    /// How many rows it has.
    pub rows: u64,
    /// How much work it is, in any unit that is the same for all parts (bytes of text): for progress alone.
    pub weight: u64,
}

/// Where a job's rows come from. A part that is read again must be the same, in every process.
pub trait Source: Sync {
    /// What the model takes: a text, a pair.
    type Row: Send + Sync;
    /// What comes with a part's rows and goes to the sink untouched: ids, columns.
    type Extra: Send + Sync;
    /// What reading fails with.
    type Error: From<Error> + Send;

    /// The plan: all parts, in the order of the rows.
    fn parts(&self) -> &[Part];

    /// Reads a part.
    ///
    /// # Errors
    /// Whatever keeps the part from being read. A single bad row should be a [`Reject`] instead.
    fn read(&self, part: &Part) -> Result<PartRows<Self::Row, Self::Extra>, Self::Error>;
}

/// The rows of a part.
pub struct PartRows<R, X> {
    /// Those that can be computed.
    pub rows: Vec<R>,
    /// The place of each in the part, ascending; those that are missing are in `rejects`.
    pub numbers: Vec<u64>,
    /// Those that cannot.
    pub rejects: Vec<Reject>,
    /// What goes to the sink.
    pub extra: X,
}

/// A row that has no result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reject {
    /// Its number in the whole job, from 0.
    pub row: u64,
    /// What is wrong with it, and where it stands.
    pub reason: String,
}

/// What a model makes of rows.
pub trait Results: Clone + Send + Sync {
    /// Whether a cancelled call tells what it has computed, as rows of a matrix, so that they can be saved. Otherwise its part
    /// starts over: nothing is `saved` then, and all rows are `missing`.
    const ARE_SAVED: bool;

    /// Results of all rows: those that a cancelled process has `saved`, and those of the rows that were `missing`.
    fn complete(saved: SomeRows, missing: Vec<usize>, computed: Self) -> Self;
}

impl Results for Matrix {
    const ARE_SAVED: bool = true;

    fn complete(mut saved: SomeRows, missing: Vec<usize>, computed: Matrix) -> Matrix {
        saved.append(missing, computed);
        saved.complete()
    }
}

impl Results for Vec<Matrix> {
    const ARE_SAVED: bool = false;

    fn complete(_: SomeRows, _: Vec<usize>, computed: Vec<Matrix>) -> Vec<Matrix> {
        computed
    }
}

impl Results for SparseMatrix {
    const ARE_SAVED: bool = false;

    fn complete(_: SomeRows, _: Vec<usize>, computed: SparseMatrix) -> SparseMatrix {
        computed
    }
}

/// A computed part.
pub struct Finished<S: Source, O = Matrix> {
    /// Which.
    pub part: Part,
    /// What was read.
    pub input: PartRows<S::Row, S::Extra>,
    /// `[input.rows, cols]`
    pub output: O,
    /// Tokens computed.
    pub tokens: u64,
    /// Rows that were longer than the model's maximum and lost their end.
    pub truncated: u64,
    /// Seconds from the first byte read to the last row computed.
    pub seconds: f64,
}

/// What became of a claim.
pub enum Claim<L> {
    /// The caller's, until it drops this.
    Mine(L),
    /// Somebody else works on it.
    Taken,
    /// It is stored.
    Done,
}

/// Where finished parts go.
pub trait Sink<S: Source, O = Matrix>: Sync {
    /// What holds a claim.
    type Lock: Send;

    /// For each part of the plan, whether it is stored.
    ///
    /// # Errors
    /// Whatever keeps the sink from knowing.
    fn done(&self) -> Result<Vec<bool>, S::Error>;

    /// Takes a part, so that nobody else computes it. When the process dies, the claim ends.
    ///
    /// # Errors
    /// Whatever keeps the sink from knowing.
    fn claim(&self, part: &Part) -> Result<Claim<Self::Lock>, S::Error>;

    /// Keeps a part: completely, or not at all.
    ///
    /// # Errors
    /// Whatever keeps the part from being stored.
    fn store(&self, lock: Self::Lock, finished: &Finished<S, O>) -> Result<(), S::Error>;

    /// Keeps what is computed of a part when the job is cancelled, for whoever claims it next. A sink that does not loses no
    /// more than time.
    ///
    /// # Errors
    /// Whatever keeps it from being saved.
    fn save(&self, _lock: &Self::Lock, _part: &Part, _unfinished: &Unfinished) -> Result<(), S::Error> {
        Ok(())
    }

    /// What was saved of a part.
    ///
    /// # Errors
    /// Whatever keeps it from being read.
    fn saved(&self, _lock: &Self::Lock, _part: &Part) -> Result<Option<Unfinished>, S::Error> {
        Ok(None)
    }
}

/// The plan of `rows` rows in parts of `part_rows`, at least one part.
pub fn equal_parts(rows: u64, part_rows: u64) -> Vec<Part> {
    let part_rows = part_rows.max(1);
    let part = |index: u64| {
        let first_row = index * part_rows;
        let rows = part_rows.min(rows - first_row);
        Part { index: index as usize, first_row, rows, weight: rows }
    };
    (0..rows.div_ceil(part_rows).max(1)).map(part).collect()
}
