//! Writes a part.

use super::Kept;
use super::source::FileSource;
use crate::args::OutputFormat;
use crate::failure::Failure;
use crate::output::{Rows, arrow, json, npy, safetensors};
use arrow_array::{ArrayRef, StringArray};
use lexel::jobs::Finished;
use serde_json::Value;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

/// Names of columns that the output has by itself.
pub const RESERVED: [&str; 5] = ["index", "embedding", "embeddings", "score", "scores"];

/// The ending of a part.
pub fn extension(format: OutputFormat) -> &'static str {
    match format {
        OutputFormat::Npy => "npy",
        OutputFormat::Jsonl => "jsonl",
        OutputFormat::Parquet => "parquet",
        OutputFormat::Safetensors => "safetensors",
    }
}

/// Fills a part's file; `keep` are the names of the kept columns.
pub fn write<const N: usize, O>(
    format: OutputFormat,
    file: &File,
    path: &Path,
    finished: &Finished<FileSource<N>, O>,
    rows: &Rows,
    keep: &[String],
) -> Result<(), Failure> {
    let first = finished.part.first_row;
    let index: Vec<i64> = finished.input.numbers.iter().map(|number| (first + number) as i64).collect();
    let mut out = BufWriter::with_capacity(1 << 18, file);
    let failed = |error| Failure::writing(path, &error);
    match format {
        OutputFormat::Npy => {
            out.write_all(&npy::header(rows.descr(), rows.count(), rows.cols())).map_err(failed)?;
            out.write_all(&rows.bytes()).map_err(failed)?;
        }
        OutputFormat::Jsonl => {
            let columns: Vec<Vec<Value>> = match &finished.input.extra {
                Kept::Values(columns) => columns.clone(),
                Kept::Arrays(arrays) => {
                    arrays.iter().map(|array| json::values(path, array)).collect::<Result<_, _>>()?
                }
            };
            for (row, &index) in index.iter().enumerate() {
                let mut line = rows.line(row, index as usize)?;
                line.truncate(line.len() - 2);
                for (name, column) in keep.iter().zip(&columns) {
                    line.extend_from_slice(format!(", {}: {}", Value::from(name.as_str()), column[row]).as_bytes());
                }
                line.extend_from_slice(b"}\n");
                out.write_all(&line).map_err(failed)?;
            }
        }
        OutputFormat::Safetensors => {
            let header = safetensors::header(rows.descr(), rows.name(), rows.count() as u64, rows.cols());
            out.write_all(&header).map_err(failed)?;
            out.write_all(&rows.bytes()).map_err(failed)?;
            out.write_all(&index.iter().flat_map(|i| i.to_le_bytes()).collect::<Vec<_>>()).map_err(failed)?;
        }
        OutputFormat::Parquet => {
            let columns: Vec<ArrayRef> = match &finished.input.extra {
                Kept::Arrays(arrays) => arrays.clone(),
                Kept::Values(values) => values.iter().map(|column| strings(column)).collect(),
            };
            let batch = arrow::batch(rows, index, keep.iter().zip(columns))?;
            return crate::parquet::write(path, out, &batch.schema(), std::iter::once(Ok(batch)));
        }
    }
    out.flush().map_err(failed)
}

/// Strings as they are, other values as JSON.
fn strings(column: &[Value]) -> ArrayRef {
    let text = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        value => Some(value.to_string()),
    };
    Arc::new(StringArray::from_iter(column.iter().map(text)))
}
