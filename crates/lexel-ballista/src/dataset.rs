//! A data set of Parquet files: which rows are a part, and what they say.

use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch, UInt64Array};
use datafusion::arrow::compute::{cast, concat_batches, take};
use datafusion::arrow::datatypes::DataType;
use datafusion::parquet::arrow::ProjectionMask;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use lexel::jobs::{Part, PartRows, Reject, Source};
use lexel::{EncodeOptions, Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// What is embedded, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The model's id, or its folder.
    pub model: String,
    /// A branch, tag or commit of the hub's repository.
    pub revision: Option<String>,
    /// The column of texts.
    pub text_column: String,
    /// A column that goes to the output.
    pub id_column: Option<String>,
    /// Divide each embedding by its L2 norm.
    pub normalize: bool,
}

/// Where the rows of each part are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dataset {
    /// What is done with them.
    pub settings: Settings,
    files: Vec<InputFile>,
    /// Of each part: its file, and its first row there.
    starts: Vec<(usize, u64)>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct InputFile {
    path: PathBuf,
    /// SHA-256 of the footer, which has the place and size of every page.
    footer: String,
}

/// A [`Dataset`] and its parts, for the library.
pub struct DatasetSource {
    /// Where the rows are.
    pub dataset: Dataset,
    /// Which rows belong together.
    pub parts: Vec<Part>,
}

impl Settings {
    /// For the library.
    pub fn encode_options(&self) -> EncodeOptions {
        EncodeOptions { normalize: self.normalize, ..EncodeOptions::default() }
    }
}

impl DatasetSource {
    /// Plans the rows of `inputs`, files or folders of `.parquet` files, in parts of at most `part_rows`.
    ///
    /// # Errors
    /// If there are no files, or one of them is not Parquet or lacks a column.
    pub fn plan(inputs: &[PathBuf], settings: Settings, part_rows: u64) -> Result<DatasetSource> {
        let mut dataset = Dataset { settings, files: Vec::new(), starts: Vec::new() };
        let mut parts: Vec<Part> = Vec::new();
        let mut first_row = 0;
        for path in expand(inputs)? {
            let reader = dataset.open(&path)?;
            let rows = reader.metadata().file_metadata().num_rows().max(0) as u64;
            for start in (0..rows).step_by(part_rows.max(1) as usize) {
                let rows = part_rows.max(1).min(rows - start);
                parts.push(Part { index: parts.len(), first_row: first_row + start, rows, weight: rows });
                dataset.starts.push((dataset.files.len(), start));
            }
            first_row += rows;
            dataset.files.push(InputFile { footer: footer_hash(&path)?, path });
        }
        Ok(DatasetSource { dataset, parts })
    }
}

impl Dataset {
    /// What must be the same to continue a job, but for the model's files.
    pub fn identity(&self) -> Vec<(String, Value)> {
        let Settings { text_column, id_column, normalize, .. } = &self.settings;
        let options = [
            ("text_column".to_string(), json!(text_column)),
            ("id_column".to_string(), json!(id_column)),
            ("normalize".to_string(), json!(normalize)),
            // `lexel merge` looks at this.
            ("output_format".to_string(), json!("parquet")),
        ];
        let files = self.files.iter().map(|file| (format!("input file {}", file.path.display()), json!(file.footer)));
        options.into_iter().chain(files).collect()
    }

    /// Reads a footer, and checks the columns.
    fn open(&self, path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>> {
        let file = File::open(path).map_err(Error::io(path))?;
        let reader =
            ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| Error::invalid_file(path, error))?;
        let (schema, settings) = (reader.schema(), &self.settings);
        for name in std::iter::once(&settings.text_column).chain(&settings.id_column) {
            let Ok(field) = schema.field_with_name(name) else {
                let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                let detail = format!("there is no column '{name}'; the columns are '{}'", names.join("', '"));
                return Err(Error::invalid_file(path, detail));
            };
            let kind = field.data_type();
            if *name == settings.text_column && !kind.is_string() {
                return Err(Error::invalid_file(path, format!("column '{name}' holds {kind}, not strings")));
            }
        }
        Ok(reader)
    }

    /// The columns of some rows of a file.
    fn columns(&self, path: &Path, start: u64, rows: u64) -> Result<RecordBatch> {
        let reader = self.open(path)?;
        let settings = &self.settings;
        let names = std::iter::once(&settings.text_column).chain(&settings.id_column).map(String::as_str);
        let mask = ProjectionMask::columns(reader.parquet_schema(), names);
        let invalid = |error: &dyn std::fmt::Display| Error::invalid_file(path, error);
        let reader = reader.with_projection(mask).with_offset(start as usize).with_limit(rows as usize);
        let reader = reader.build().map_err(|error| invalid(&error))?;
        let schema = datafusion::arrow::array::RecordBatchReader::schema(&reader);
        let batches = reader.collect::<Result<Vec<RecordBatch>, _>>().map_err(|error| invalid(&error))?;
        concat_batches(&schema, &batches).map_err(|error| invalid(&error))
    }
}

impl Source for DatasetSource {
    type Row = String;
    /// The ids of the rows.
    type Extra = Option<ArrayRef>;
    type Error = Error;

    fn parts(&self) -> &[Part] {
        &self.parts
    }

    fn read(&self, part: &Part) -> Result<PartRows<String, Option<ArrayRef>>> {
        let (file, start) = self.dataset.starts[part.index];
        let InputFile { path, footer } = &self.dataset.files[file];
        let invalid = |detail: &dyn std::fmt::Display| Error::invalid_file(path, detail);
        if footer_hash(path)? != *footer {
            return Err(invalid(&"was changed since the job began: give it back, or begin a job in another folder"));
        }
        let batch = self.dataset.columns(path, start, part.rows)?;
        if batch.num_rows() as u64 != part.rows {
            return Err(invalid(&format!(
                "{} rows from row {start} on, where {} should be",
                batch.num_rows(),
                part.rows
            )));
        }
        let column = |name: &String| {
            batch.column_by_name(name).cloned().ok_or_else(|| invalid(&format!("there is no column '{name}'")))
        };
        let name = &self.dataset.settings.text_column;
        let texts = cast(&column(name)?, &DataType::LargeUtf8).map_err(|error| invalid(&error))?;
        let (mut rows, mut numbers, mut rejects) = (Vec::new(), Vec::new(), Vec::new());
        for (number, text) in (0..).zip(texts.as_string::<i64>()) {
            match text {
                Some(text) => {
                    rows.push(text.to_string());
                    numbers.push(number);
                }
                None => {
                    let reason = format!("{}, row {}: '{name}' is null", path.display(), start + number);
                    rejects.push(Reject { row: part.first_row + number, reason });
                }
            }
        }
        let indices = UInt64Array::from(numbers.clone());
        let kept = |name| take(&column(name)?, &indices, None).map_err(|error| invalid(&error));
        let ids = self.dataset.settings.id_column.as_ref().map(kept).transpose()?;
        Ok(PartRows { rows, numbers, rejects, extra: ids })
    }
}

/// Files as they are; of folders, the `.parquet` files in them by name. All with their whole paths, which executors see too.
fn expand(inputs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for input in inputs {
        let input = fs::canonicalize(input).map_err(Error::io(input))?;
        if !input.is_dir() {
            files.push(input);
            continue;
        }
        let entries = fs::read_dir(&input).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
        let mut entries: Vec<PathBuf> = entries.map_err(Error::io(&input))?;
        entries.retain(|path| path.extension().is_some_and(|ending| ending == "parquet"));
        if entries.is_empty() {
            return Err(Error::InvalidInput(format!("{} has no files ending in .parquet", input.display())));
        }
        entries.sort();
        files.append(&mut entries);
    }
    Ok(files)
}

fn footer_hash(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let length = file.metadata().map_err(Error::io(path))?.len();
    let mut tail = [0; 8];
    let at = length.checked_sub(8).ok_or_else(|| Error::invalid_file(path, "too short for a Parquet file"))?;
    file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut tail)).map_err(Error::io(path))?;
    let footer = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
    let start = at.checked_sub(footer).ok_or_else(|| Error::invalid_file(path, "cut short, or not a Parquet file"))?;
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(start)).and_then(|_| file.read_to_end(&mut bytes)).map_err(Error::io(path))?;
    Ok(Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}
