//! The texts of a file, or of some of its rows.

use super::{bad, check, guarded};
use crate::failure::Failure;
use crate::input::Records;
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Rows decoded at once.
const BATCH_ROWS: usize = 4096;

/// Opens a file for these columns, whose types are checked, and for so many rows from `start` on, or all of them.
fn open<const N: usize>(
    path: &Path,
    columns: &[String; N],
    keep: &[String],
    range: Option<(u64, u64)>,
) -> Result<(Arc<Schema>, ParquetRecordBatchReader), Failure> {
    let file = File::open(path).map_err(|error| Failure::reading(&path.display().to_string(), &error))?;
    let mut builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| bad(path, error))?;
    check(path, builder.schema(), columns, keep)?;
    let schema = builder.schema().clone();
    let wanted: Vec<usize> = (0..schema.fields().len())
        .filter(|&i| columns.contains(schema.field(i).name()) || keep.contains(schema.field(i).name()))
        .collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted.iter().copied());
    let projected = Arc::new(schema.project(&wanted).map_err(|error| bad(path, error))?);
    if let Some((start, rows)) = range {
        // The row groups that have some of the rows, and the rows of the first of them that come before those.
        let (mut groups, mut offset, mut first) = (Vec::new(), 0, 0);
        for (i, group) in builder.metadata().row_groups().iter().enumerate() {
            let behind = first + group.num_rows().max(0) as u64;
            if first < start + rows && behind > start {
                if groups.is_empty() {
                    offset = start - first;
                }
                groups.push(i);
            }
            first = behind;
        }
        builder = builder.with_row_groups(groups).with_offset(offset as usize).with_limit(rows as usize);
    }
    let reader = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build().map_err(|error| bad(path, error))?;
    Ok((projected, reader))
}

/// So many rows from `start` on.
pub fn batch<const N: usize>(
    path: &Path,
    columns: &[String; N],
    keep: &[String],
    start: u64,
    rows: u64,
) -> Result<RecordBatch, Failure> {
    let (schema, reader) = open(path, columns, keep, Some((start, rows)))?;
    let batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>().map_err(|error| bad(path, error))?;
    match batches.first() {
        Some(batch) => {
            arrow_select::concat::concat_batches(&batch.schema(), &batches).map_err(|error| bad(path, error))
        }
        None => Ok(RecordBatch::new_empty(schema)),
    }
}

/// A column of strings, of whichever kind.
pub fn strings(path: &Path, batch: &RecordBatch, name: &str) -> Result<ArrayRef, Failure> {
    let column = batch.column_by_name(name).ok_or_else(|| bad(path, format!("no column '{name}'")))?;
    arrow_cast::cast(column, &DataType::LargeUtf8).map_err(|error| bad(path, error))
}

/// Reads the texts of a file, row by row.
pub struct Rows<const N: usize> {
    path: PathBuf,
    columns: [String; N],
    reader: ParquetRecordBatchReader,
    /// The columns of the current batch.
    texts: Vec<ArrayRef>,
    /// The next row of the batch.
    next: usize,
    /// Its number in the file.
    row: u64,
}

impl<const N: usize> Rows<N> {
    /// Opens the file.
    pub fn open(path: &Path, columns: &[String; N]) -> Result<Rows<N>, Failure> {
        let (_, reader) = guarded(path, || open(path, columns, &[], None))?;
        Ok(Rows { path: path.to_path_buf(), columns: columns.clone(), reader, texts: Vec::new(), next: 0, row: 0 })
    }

    /// Decodes the next batch; `false` at the end.
    fn advance(&mut self) -> Result<bool, Failure> {
        let (path, columns, reader) = (&self.path, &self.columns, &mut self.reader);
        let texts = guarded(path, || match reader.next() {
            None => Ok(None),
            Some(batch) => {
                let batch = batch.map_err(|error| bad(path, error))?;
                columns.iter().map(|name| strings(path, &batch, name)).collect::<Result<Vec<_>, _>>().map(Some)
            }
        })?;
        self.next = 0;
        self.texts = texts.unwrap_or_default();
        Ok(!self.texts.is_empty())
    }
}

impl<const N: usize> Records<N> for Rows<N> {
    fn next(&mut self) -> Result<Option<([String; N], u64)>, Failure> {
        while self.texts.first().is_none_or(|column| self.next == column.len()) {
            if !self.advance()? {
                return Ok(None);
            }
        }
        let (i, row) = (self.next, self.row);
        self.next += 1;
        self.row += 1;
        if let Some(n) = self.texts.iter().position(|column| column.is_null(i)) {
            return Err(bad(&self.path, format!("row {row}: '{}' is null", self.columns[n])));
        }
        let texts: [String; N] = std::array::from_fn(|n| self.texts[n].as_string::<i64>().value(i).to_string());
        let bytes = texts.iter().map(String::len).sum::<usize>() as u64;
        Ok(Some((texts, bytes)))
    }
}

/// All batches of a file, with all columns.
pub fn batches(
    path: &Path,
) -> Result<(Arc<Schema>, impl Iterator<Item = Result<RecordBatch, Failure>> + use<'_>), Failure> {
    let file = File::open(path).map_err(|error| Failure::reading(&path.display().to_string(), &error))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| bad(path, error))?;
    let schema = builder.schema().clone();
    let reader = builder.with_batch_size(BATCH_ROWS).build().map_err(|error| bad(path, error))?;
    Ok((schema, reader.map(move |batch| batch.map_err(|error| bad(path, error)))))
}
