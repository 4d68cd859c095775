//! Parquet files in and out. A damaged file can make the reader panic, which is caught and reported.

use super::{Kept, tally};
use crate::failure::{DATA, Failure};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{DataType, Schema};
use lexel::jobs::{Part, PartRows, Reject};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

/// Rows decoded at once.
const BATCH_ROWS: usize = 4096;

/// The most that a file may say of itself.
const FOOTER_BYTES: u64 = 1 << 30;

/// What a file says of its rows.
pub struct Shape {
    pub rows: u64,
    /// Of all texts, about.
    pub text_bytes: u64,
    /// SHA-256 of the footer, which has the place and size of every page.
    pub hash: String,
}

/// Reads the footer, and checks the columns.
pub fn shape<const N: usize>(path: &Path, columns: &[String; N], keep: &[String]) -> Result<Shape, Failure> {
    guarded(path, || {
        let file = File::open(path).map_err(|error| Failure::reading(&path.display().to_string(), &error))?;
        let hash = footer_hash(path, &file)?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| bad(path, error))?;
        check(path, builder.schema(), columns, keep)?;
        let leaf = |column: &parquet::file::metadata::ColumnChunkMetaData| {
            let name = column.column_path().parts().first();
            name.is_some_and(|name| columns.contains(name))
        };
        let (mut rows, mut text_bytes) = (0, 0);
        for group in builder.metadata().row_groups() {
            rows += group.num_rows().max(0) as u64;
            let sizes = group.columns().iter().filter(|column| leaf(column)).map(|column| column.uncompressed_size());
            text_bytes += sizes.sum::<i64>().max(0) as u64;
        }
        Ok(Shape { rows, text_bytes, hash })
    })
}

/// Reads a part, whose rows begin at `start` in this file.
pub fn read<const N: usize>(
    path: &Path,
    columns: &[String; N],
    keep: &[String],
    start: u64,
    part: &Part,
) -> Result<PartRows<[String; N], Kept>, Failure> {
    guarded(path, || {
        let batch = batch(path, columns, keep, start, part.rows)?;
        if batch.num_rows() as u64 != part.rows {
            return Err(bad(path, format!("{} rows where {} were announced", batch.num_rows(), part.rows)));
        }
        let texts: Vec<ArrayRef> = columns.iter().map(|name| strings(path, &batch, name)).collect::<Result<_, _>>()?;
        let (mut rows, mut numbers, mut rejects) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..batch.num_rows() {
            match texts.iter().position(|column| column.is_null(i)) {
                None => {
                    rows.push(std::array::from_fn(|n| texts[n].as_string::<i64>().value(i).to_string()));
                    numbers.push(i as u64);
                }
                Some(n) => {
                    let (row, column) = (start + i as u64, &columns[n]);
                    let reason = format!("{}, row {row}: '{column}' is null", path.display());
                    rejects.push(Reject { row: part.first_row + i as u64, reason });
                }
            }
        }
        let indices = UInt32Array::from_iter_values(numbers.iter().map(|&i| i as u32));
        let kept = |name: &String| {
            let column = batch.column_by_name(name).ok_or_else(|| bad(path, format!("no column '{name}'")))?;
            arrow_select::take::take(column, &indices, None).map_err(|error| bad(path, error))
        };
        let extra = Kept::Arrays(keep.iter().map(kept).collect::<Result<_, _>>()?);
        Ok(PartRows { rows, numbers, rejects, extra })
    })
}

fn batch<const N: usize>(
    path: &Path,
    columns: &[String; N],
    keep: &[String],
    start: u64,
    rows: u64,
) -> Result<RecordBatch, Failure> {
    let file = File::open(path).map_err(|error| Failure::reading(&path.display().to_string(), &error))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| bad(path, error))?;
    check(path, builder.schema(), columns, keep)?;
    // The row groups that have rows of the part, and the rows of the first of them that come before it.
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
    let schema = builder.schema().clone();
    let wanted: Vec<usize> = (0..schema.fields().len())
        .filter(|&i| columns.contains(schema.field(i).name()) || keep.contains(schema.field(i).name()))
        .collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted.iter().copied());
    let projected = Arc::new(schema.project(&wanted).map_err(|error| bad(path, error))?);
    let reader = builder
        .with_projection(mask)
        .with_row_groups(groups)
        .with_batch_size(BATCH_ROWS)
        .with_offset(offset as usize)
        .with_limit(rows as usize)
        .build()
        .map_err(|error| bad(path, error))?;
    let batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>().map_err(|error| bad(path, error))?;
    match batches.first() {
        Some(batch) => {
            arrow_select::concat::concat_batches(&batch.schema(), &batches).map_err(|error| bad(path, error))
        }
        None => Ok(RecordBatch::new_empty(projected)),
    }
}

/// The columns must be there, and the texts be strings.
fn check<const N: usize>(path: &Path, schema: &Schema, columns: &[String; N], keep: &[String]) -> Result<(), Failure> {
    for name in columns.iter().chain(keep) {
        let Ok(field) = schema.field_with_name(name) else {
            let names: Vec<_> = schema.fields().iter().map(|field| format!("'{}'", field.name())).collect();
            return Err(bad(path, format!("there is no column '{name}'; the columns are {}", names.join(", "))));
        };
        let string = |kind: &DataType| matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        let is_text = match field.data_type() {
            DataType::Dictionary(_, value) => string(value),
            kind => string(kind),
        };
        if columns.contains(name) && !is_text {
            return Err(bad(path, format!("column '{name}' holds {}, not strings", field.data_type())));
        }
    }
    Ok(())
}

fn strings(path: &Path, batch: &RecordBatch, name: &str) -> Result<ArrayRef, Failure> {
    let column = batch.column_by_name(name).ok_or_else(|| bad(path, format!("no column '{name}'")))?;
    arrow_cast::cast(column, &DataType::LargeUtf8).map_err(|error| bad(path, error))
}

fn footer_hash(path: &Path, mut file: &File) -> Result<String, Failure> {
    let failed = |error| Failure::reading(&path.display().to_string(), &error);
    let length = file.metadata().map_err(failed)?.len();
    if length < 12 {
        return Err(bad(path, "not a Parquet file: it is too short"));
    }
    let mut tail = [0; 8];
    file.seek(SeekFrom::End(-8)).and_then(|_| file.read_exact(&mut tail)).map_err(failed)?;
    let footer = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
    if &tail[4..] != b"PAR1" || footer + 12 > length || footer > FOOTER_BYTES {
        return Err(bad(path, "not a Parquet file, or cut short: it does not end as one"));
    }
    let mut bytes = vec![0; footer as usize];
    file.seek(SeekFrom::Start(length - 8 - footer)).and_then(|_| file.read_exact(&mut bytes)).map_err(failed)?;
    Ok(tally::hex(&Sha256::digest(&bytes)))
}

/// Runs the reader, and makes a panic in it an error.
fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(bad(path, format!("the Parquet reader panicked: {}", what.unwrap_or("no message"))))
    })
}

fn bad(path: &Path, what: impl std::fmt::Display) -> Failure {
    Failure::new(DATA, format!("{}: {what}", path.display()))
}

/// The values of a column, for JSON.
pub fn values(path: &Path, array: &ArrayRef) -> Result<Vec<Value>, Failure> {
    let numbers = array.data_type().is_numeric();
    let bools = array.data_type() == &DataType::Boolean;
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(array.as_ref(), &options).map_err(|error| bad(path, error))?;
    let value = |i| {
        if array.is_null(i) {
            return Ok(Value::Null);
        }
        let text = formatter.value(i).try_to_string().map_err(|error| bad(path, error))?;
        Ok(match numbers || bools {
            // A number that JSON does not have (NaN) stays a text.
            true => serde_json::from_str(&text).unwrap_or(Value::String(text)),
            false => Value::String(text),
        })
    };
    (0..array.len()).map(value).collect()
}

/// Writes batches to a file.
pub fn write(
    path: &Path,
    out: impl Write + Send,
    schema: &Arc<Schema>,
    batches: impl Iterator<Item = Result<RecordBatch, Failure>>,
) -> Result<(), Failure> {
    let failed = |error: ParquetError| match error {
        ParquetError::External(error) if error.is::<io::Error>() => match error.downcast::<io::Error>() {
            Ok(error) => Failure::writing(path, &error),
            Err(error) => bad(path, error),
        },
        error => bad(path, error),
    };
    // Numbers of embeddings do not repeat: a dictionary of them costs time and gives nothing.
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).set_dictionary_enabled(false);
    let mut writer = ArrowWriter::try_new(out, schema.clone(), Some(properties.build())).map_err(failed)?;
    for batch in batches {
        writer.write(&batch?).map_err(failed)?;
    }
    let mut out = writer.into_inner().map_err(failed)?;
    out.flush().map_err(|error| Failure::writing(path, &error))
}

/// All batches of a file.
pub fn batches(
    path: &Path,
) -> Result<(Arc<Schema>, impl Iterator<Item = Result<RecordBatch, Failure>> + use<'_>), Failure> {
    let file = File::open(path).map_err(|error| Failure::reading(&path.display().to_string(), &error))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| bad(path, error))?;
    let schema = builder.schema().clone();
    let reader = builder.with_batch_size(BATCH_ROWS).build().map_err(|error| bad(path, error))?;
    Ok((schema, reader.map(move |batch| batch.map_err(|error| bad(path, error)))))
}
