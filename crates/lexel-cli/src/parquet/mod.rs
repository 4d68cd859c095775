//! Parquet files in and out. A damaged file can make the reader panic, which is caught and reported.
//!
//! ```text
//!   rows    the texts of a file, or of some of its rows        write   batches to a file
//!   schema  one for several files
//! ```

mod rows;
mod schema;
mod write;

pub use rows::{Rows, batch, batches, strings};
pub use schema::{cast, common};
pub use write::{properties, write};

use crate::failure::{DATA, Failure};
use crate::job::hex;
use arrow_schema::{DataType, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sha2::{Digest, Sha256};
use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Once;

/// The most that a file may say of itself.
const FOOTER_BYTES: u64 = 1 << 30;

/// What a file says of its rows.
pub struct Shape {
    pub rows: u64,
    /// Of all texts, about.
    pub text_bytes: u64,
    /// The same with the kept columns.
    pub bytes: u64,
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
        let (mut rows, mut text_bytes, mut bytes) = (0, 0, 0);
        for group in builder.metadata().row_groups() {
            rows += group.num_rows().max(0) as u64;
            for column in group.columns() {
                let Some(name) = column.column_path().parts().first() else { continue };
                let size = column.uncompressed_size().max(0) as u64;
                let is_text = columns.contains(name);
                text_bytes += if is_text { size } else { 0 };
                bytes += if is_text || keep.contains(name) { size } else { 0 };
            }
        }
        Ok(Shape { rows, text_bytes, bytes, hash })
    })
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
    Ok(hex(&Sha256::digest(&bytes)))
}

thread_local! {
    /// A panic of this thread is caught and reported: it need not print itself.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs the reader, and makes a panic in it an error.
pub fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let default = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                default(info);
            }
        }));
    });
    let before = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(read));
    GUARDED.set(before);
    result.unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(bad(path, format!("the Parquet reader panicked: {}", what.unwrap_or("no message"))))
    })
}

/// Something is wrong with this file.
pub fn bad(path: &Path, what: impl std::fmt::Display) -> Failure {
    Failure::new(DATA, format!("{}: {what}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Records;
    use arrow_array::{ArrayRef, RecordBatch, StringArray};
    use std::sync::Arc;

    /// Reads all texts.
    fn read(path: &Path) -> Result<usize, Failure> {
        let columns = ["text".to_string()];
        shape(path, &columns, &[])?;
        let mut rows = Rows::open(path, &columns)?;
        let mut count = 0;
        while rows.next()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    #[test]
    fn a_file_that_makes_the_reader_panic_is_an_error_with_its_message() {
        let path = std::env::temp_dir().join(format!("lexel-{}.parquet", std::process::id()));
        let column: ArrayRef = Arc::new(StringArray::from(vec!["one", "two"]));
        let batch = RecordBatch::try_from_iter([("text", column)]).unwrap();
        write(&path, File::create(&path).unwrap(), &batch.schema(), std::iter::once(Ok(batch))).unwrap();
        assert_eq!(read(&path).unwrap(), 2);
        let good = std::fs::read(&path).unwrap();
        let footer = u32::from_le_bytes(good[good.len() - 8..][..4].try_into().unwrap()) as usize;
        let mut panics = 0;
        // The lowest bit of a number there is its sign: offsets and lengths below 0, among other damage.
        for at in good.len() - 8 - footer..good.len() - 8 {
            let mut damaged = good.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            if let Err(failure) = read(&path) {
                assert_eq!(failure.status, DATA, "{}", failure.message);
                assert!(failure.message.starts_with(&path.display().to_string()), "{}", failure.message);
                panics += usize::from(failure.message.contains("the Parquet reader panicked: "));
            }
        }
        std::fs::remove_file(&path).unwrap();
        // With parquet 60, column chunks of negative length.
        assert!(panics > 0);
        assert!(!GUARDED.get());
    }
}
