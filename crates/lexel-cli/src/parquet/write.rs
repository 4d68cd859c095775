//! Batches to a file.

use super::bad;
use crate::failure::Failure;
use crate::input::WINDOW_RECORDS;
use arrow_array::RecordBatch;
use arrow_schema::Schema;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

/// How all files are written.
pub fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        // Numbers of embeddings do not repeat: a dictionary of them costs time and gives nothing.
        .set_dictionary_enabled(false)
        // A row group is held in memory until it is written.
        .set_max_row_group_row_count(Some(WINDOW_RECORDS))
        .build()
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
    let mut writer = ArrowWriter::try_new(out, schema.clone(), Some(properties())).map_err(failed)?;
    for batch in batches {
        writer.write(&batch?).map_err(failed)?;
    }
    let mut out = writer.into_inner().map_err(failed)?;
    out.flush().map_err(|error| Failure::writing(path, &error))
}
