//! A part as a Parquet file, in the columns that `lexel encode` writes: `index`, the id, `embedding`.

use crate::dataset::DatasetSource;
use datafusion::arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, Int64Array, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::Compression;
use datafusion::parquet::file::properties::WriterProperties;
use lexel::jobs::Finished;
use lexel::{Error, Matrix, Result};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// The ending of parts.
pub const EXTENSION: &str = "parquet";

/// Names of columns that the output has by itself.
pub const RESERVED: [&str; 2] = ["index", "embedding"];

/// Fills a part's file.
pub fn write(file: &File, path: &Path, finished: &Finished<DatasetSource>, id_column: Option<&str>) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| Error::io(path)(std::io::Error::other(error.to_string()));
    let first = finished.part.first_row;
    let index = finished.input.numbers.iter().map(|number| (first + number) as i64);
    let mut fields = vec![Field::new("index", DataType::Int64, false)];
    let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from_iter_values(index))];
    if let (Some(name), Some(ids)) = (id_column, &finished.input.extra) {
        fields.push(Field::new(name, ids.data_type().clone(), true));
        columns.push(ids.clone());
    }
    let embeddings = lists(&finished.output).map_err(|error| failed(&error))?;
    fields.push(Field::new("embedding", embeddings.data_type().clone(), false));
    columns.push(embeddings);
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(schema.clone(), columns).map_err(|error| failed(&error))?;
    // Numbers of embeddings do not repeat: a dictionary of them costs time and gives nothing.
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).set_dictionary_enabled(false);
    let writer = ArrowWriter::try_new(file, schema, Some(properties.build()));
    writer.and_then(|mut writer| writer.write(&batch).and_then(|()| writer.close())).map_err(|error| failed(&error))?;
    Ok(())
}

fn lists(matrix: &Matrix) -> Result<ArrayRef, datafusion::arrow::error::ArrowError> {
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    let values = Arc::new(Float32Array::from(matrix.data.clone()));
    let lists = FixedSizeListArray::try_new_with_length(item, matrix.cols as i32, values, None, matrix.rows)?;
    Ok(Arc::new(lists))
}
