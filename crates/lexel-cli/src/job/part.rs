//! Writes a part.

use super::source::FileSource;
use super::{Kept, parquet};
use crate::args::OutputFormat;
use crate::failure::{DATA, Failure};
use crate::output::{Rows, npy};
use arrow_array::types::{Float16Type, Int8Type, UInt8Type};
use arrow_array::{
    Array, ArrayRef, FixedSizeListArray, Float32Array, Int64Array, PrimitiveArray, RecordBatch, StringArray,
};
use arrow_schema::{Field, Schema};
use lexel::jobs::Finished;
use serde_json::{Value, json};
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
pub fn write<const N: usize>(
    format: OutputFormat,
    file: &File,
    path: &Path,
    finished: &Finished<FileSource<N>>,
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
                    arrays.iter().map(|array| parquet::values(path, array)).collect::<Result<_, _>>()?
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
            out.write_all(&safetensors_header(rows.descr(), rows.name(), rows.count() as u64, rows.cols()))
                .map_err(failed)?;
            out.write_all(&rows.bytes()).map_err(failed)?;
            out.write_all(&index.iter().flat_map(|i| i.to_le_bytes()).collect::<Vec<_>>()).map_err(failed)?;
        }
        OutputFormat::Parquet => {
            let batch = batch(rows, index, &finished.input.extra, keep)?;
            parquet::write(path, out, &batch.schema(), std::iter::once(Ok(batch)))?;
            return Ok(());
        }
    }
    out.flush().map_err(failed)
}

/// The head of a .safetensors file: the rows, and behind them their numbers.
pub fn safetensors_header(descr: &str, name: &str, rows: u64, cols: Option<usize>) -> Vec<u8> {
    let (dtype, size) = match descr {
        "<f2" => ("F16", 2),
        "|i1" => ("I8", 1),
        "|u1" => ("U8", 1),
        _ => ("F32", 4),
    };
    let shape: Vec<u64> = std::iter::once(rows).chain(cols.map(|cols| cols as u64)).collect();
    let bytes = shape.iter().product::<u64>() * size;
    let header = json!({
        name: {"dtype": dtype, "shape": shape, "data_offsets": [0, bytes]},
        "index": {"dtype": "I64", "shape": [rows], "data_offsets": [bytes, bytes + 8 * rows]},
    });
    let mut header = header.to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.append(&mut header);
    out
}

/// The number of each row, the kept columns, the results.
fn batch(rows: &Rows, index: Vec<i64>, kept: &Kept, keep: &[String]) -> Result<RecordBatch, Failure> {
    let mut fields = vec![Field::new("index", arrow_schema::DataType::Int64, false)];
    let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(index))];
    let kept: Vec<ArrayRef> = match kept {
        Kept::Arrays(arrays) => arrays.clone(),
        Kept::Values(values) => values.iter().map(|column| strings(column)).collect(),
    };
    for (name, column) in keep.iter().zip(kept) {
        fields.push(Field::new(name, column.data_type().clone(), true));
        columns.push(column);
    }
    let result = results(rows)?;
    fields.push(Field::new(rows.name().trim_end_matches('s'), result.data_type().clone(), false));
    columns.push(result);
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|error| Failure::new(DATA, error.to_string()))
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

fn results(rows: &Rows) -> Result<ArrayRef, Failure> {
    use lexel::quantization::{Quantized, QuantizedData};
    let values: ArrayRef = match rows {
        Rows::Float32(matrix) | Rows::Scores(matrix, _) => Arc::new(Float32Array::from(matrix.data.clone())),
        Rows::Float16(_, data) => Arc::new(PrimitiveArray::<Float16Type>::from_iter_values(data.iter().copied())),
        Rows::Quantized(Quantized { data: QuantizedData::I8(codes), .. }) => {
            Arc::new(PrimitiveArray::<Int8Type>::from_iter_values(codes.iter().copied()))
        }
        Rows::Quantized(Quantized { data: QuantizedData::U8(codes), .. }) => {
            Arc::new(PrimitiveArray::<UInt8Type>::from_iter_values(codes.iter().copied()))
        }
    };
    let Some(cols) = rows.cols() else { return Ok(values) };
    debug_assert!(matches!(rows, Rows::Scores(..)) || values.len() == rows.count() * cols);
    let item = Arc::new(Field::new("item", values.data_type().clone(), false));
    let list = FixedSizeListArray::try_new_with_length(item, cols as i32, values, None, rows.count());
    Ok(Arc::new(list.map_err(|error| Failure::new(DATA, error.to_string()))?))
}
