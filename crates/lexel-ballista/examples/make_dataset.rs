//! Makes a Parquet data set of any size from a file of texts: `make_dataset TEXTS FOLDER ROWS FILES`. Each row is two of the
//! texts, and no two rows are the same two.

use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::parquet::arrow::ArrowWriter;
use std::error::Error;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [texts, folder, rows, files] = &args[..] else { return Err("give TEXTS FOLDER ROWS FILES".into()) };
    let (rows, files): (usize, usize) = (rows.parse()?, files.parse()?);
    let texts = fs::read_to_string(texts)?;
    let lines: Vec<&str> = texts.lines().collect();
    if rows > lines.len() * lines.len() {
        return Err(format!("{rows} rows are more than there are pairs of {} lines", lines.len()).into());
    }
    fs::create_dir_all(folder)?;
    for file in 0..files {
        let numbers = file * rows / files..(file + 1) * rows / files;
        let ids = StringArray::from_iter_values(numbers.clone().map(|row| format!("doc-{row:06}")));
        let pair = |row: usize| format!("{} {}", lines[row % lines.len()], lines[row / lines.len()]);
        let texts = StringArray::from_iter_values(numbers.map(pair));
        let columns: [(&str, ArrayRef); 2] = [("id", Arc::new(ids)), ("text", Arc::new(texts))];
        let batch = RecordBatch::try_from_iter(columns)?;
        let file = File::create(Path::new(folder).join(format!("{file:03}.parquet")))?;
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None)?;
        writer.write(&batch)?;
        writer.close()?;
    }
    Ok(())
}
