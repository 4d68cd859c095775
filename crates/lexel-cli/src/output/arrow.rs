//! Rows as Arrow has them, for Parquet.

use super::Rows;
use crate::failure::{DATA, Failure};
use arrow_array::types::{Float16Type, Int8Type, UInt8Type};
use arrow_array::{
    Array, ArrayRef, FixedSizeListArray, Float32Array, Int64Array, ListArray, PrimitiveArray, RecordBatch, StructArray,
    UInt32Array,
};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{DataType, Field, Schema};
use lexel::SparseMatrix;
use std::sync::Arc;

/// The number of each row, other columns, the results.
pub fn batch<'a>(
    rows: &Rows,
    index: Vec<i64>,
    others: impl IntoIterator<Item = (&'a String, ArrayRef)>,
) -> Result<RecordBatch, Failure> {
    let mut fields = vec![Field::new("index", DataType::Int64, false)];
    let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(index))];
    for (name, column) in others {
        fields.push(Field::new(name, column.data_type().clone(), true));
        columns.push(column);
    }
    let result = results(rows)?;
    fields.push(Field::new(rows.name().trim_end_matches('s'), result.data_type().clone(), false));
    columns.push(result);
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|error| Failure::new(DATA, error.to_string()))
}

fn results(rows: &Rows) -> Result<ArrayRef, Failure> {
    use lexel::quantization::{Quantized, QuantizedData};
    let values: ArrayRef = match rows {
        Rows::Sparse(matrix) => return sparse(matrix),
        Rows::Vectors(counts, matrix) => {
            return vectors(counts, matrix.cols, Arc::new(Float32Array::from(matrix.data.clone())));
        }
        Rows::HalfVectors(counts, cols, data) => {
            let data = PrimitiveArray::<Float16Type>::from_iter_values(data.iter().copied());
            return vectors(counts, *cols, Arc::new(data));
        }
        Rows::Tokens(_) => unreachable!("`encode-sparse` refuses the format"),
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

/// A list of vectors, each a list of fixed size.
fn vectors(counts: &[usize], cols: usize, numbers: ArrayRef) -> Result<ArrayRef, Failure> {
    let failed = |error: arrow_schema::ArrowError| Failure::new(DATA, error.to_string());
    let number = Arc::new(Field::new("item", numbers.data_type().clone(), false));
    let total = counts.iter().sum();
    let vectors = FixedSizeListArray::try_new_with_length(number, cols as i32, numbers, None, total).map_err(failed)?;
    let vector = Arc::new(Field::new("item", vectors.data_type().clone(), false));
    let offsets = OffsetBuffer::<i32>::from_lengths(counts.iter().copied());
    Ok(Arc::new(ListArray::try_new(vector, offsets, Arc::new(vectors), None).map_err(failed)?))
}

/// A struct of two lists: `indices` and `values`.
fn sparse(matrix: &SparseMatrix) -> Result<ArrayRef, Failure> {
    let lengths = matrix.starts().windows(2).map(|row| row[1] - row[0]);
    let offsets = OffsetBuffer::<i32>::from_lengths(lengths);
    let list = |numbers: ArrayRef| {
        let item = Arc::new(Field::new("item", numbers.data_type().clone(), false));
        ListArray::try_new(item, offsets.clone(), numbers, None)
    };
    let lists = [
        ("indices", list(Arc::new(UInt32Array::from(matrix.indices().to_vec())))),
        ("values", list(Arc::new(Float32Array::from(matrix.values().to_vec())))),
    ];
    let failed = |error: arrow_schema::ArrowError| Failure::new(DATA, error.to_string());
    let mut columns = Vec::new();
    for (name, list) in lists {
        let list = list.map_err(failed)?;
        columns.push((Arc::new(Field::new(name, list.data_type().clone(), false)), Arc::new(list) as ArrayRef));
    }
    Ok(Arc::new(StructArray::from(columns)))
}
