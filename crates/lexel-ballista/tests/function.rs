//! `lexel_embed` in one process, on a golden model: tiny, with random weights.

use datafusion::arrow::array::{ArrayRef, AsArray, Int32Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{Float32Type, Int32Type, Int64Type, UInt64Type};
use datafusion::common::DataFusionError;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::prelude::SessionContext;
use lexel::SentenceTransformer;
use lexel::jobs::{JobFile, JobFolder, Summary};
use lexel_ballista::client::Client;
use lexel_ballista::dataset::{DatasetSource, Settings};
use lexel_ballista::function::lexel_embed;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// A data set of two files, 7 and 4 rows, of which row 5 has no text; and a folder for the job.
struct Fixture {
    folder: TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        let fixture = Fixture { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(fixture.path("data")).unwrap();
        fixture.write("data/a.parquet", 0..7);
        fixture.write("data/b.parquet", 7..11);
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, rows: std::ops::Range<i32>) {
        let texts = StringArray::from_iter(rows.clone().map(text));
        let ids = Int32Array::from_iter_values(rows.map(|row| row * 10));
        let columns: [(&str, ArrayRef); 2] = [("id", Arc::new(ids)), ("text", Arc::new(texts))];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut writer = ArrowWriter::try_new(File::create(self.path(name)).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    fn source(&self, settings: Settings) -> lexel::Result<DatasetSource> {
        DatasetSource::plan(&[self.path("data")], settings, 3)
    }

    fn begin(&self, settings: Settings) -> lexel::Result<Client> {
        let source = self.source(settings)?;
        Client::begin("df://localhost:1", &source, &self.path("job"), Duration::from_secs(1))
    }

    /// What the function returns for these parts.
    async fn embed(&self, parts: &str) -> Result<Vec<u64>, DataFusionError> {
        let context = SessionContext::new();
        context.register_udf(lexel_embed().as_ref().clone());
        let folder = fs::canonicalize(self.path("job")).unwrap_or(self.path("job"));
        let query = format!("SELECT lexel_embed('{}', column1) FROM (VALUES {parts})", folder.display());
        let batches = context.sql(&query).await?.collect().await?;
        Ok(batches.iter().flat_map(|batch| batch.column(0).as_primitive::<UInt64Type>().values().to_vec()).collect())
    }

    fn finish(&self) -> lexel::Result<Summary> {
        let job = JobFile::read(&self.path("job"))?.unwrap();
        JobFolder::existing(&self.path("job"), &job, "parquet").finish()
    }
}

fn text(row: i32) -> Option<String> {
    (row != 5).then(|| format!("text {row}{}", [" word"; 5][..row as usize % 5].concat()))
}

fn settings() -> Settings {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/models/pool-mean");
    Settings {
        model: model.display().to_string(),
        revision: None,
        text_column: "text".to_string(),
        id_column: Some("id".to_string()),
        normalize: true,
    }
}

/// The rows of a part: number, id, vector.
fn rows(path: &Path) -> Vec<(i64, i32, Vec<f32>)> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap();
    let mut rows = Vec::new();
    for batch in reader {
        let batch = batch.unwrap();
        let index = batch.column_by_name("index").unwrap().as_primitive::<Int64Type>();
        let ids = batch.column_by_name("id").unwrap().as_primitive::<Int32Type>();
        let vectors = batch.column_by_name("embedding").unwrap().as_fixed_size_list();
        for row in 0..batch.num_rows() {
            let vector = vectors.value(row).as_primitive::<Float32Type>().values().to_vec();
            rows.push((index.value(row), ids.value(row), vector));
        }
    }
    rows
}

#[test]
fn parts_end_with_their_files() {
    let source = Fixture::new().source(settings()).unwrap();
    let parts: Vec<_> = source.parts.iter().map(|part| (part.index, part.first_row, part.rows)).collect();
    assert_eq!(parts, [(0, 0, 3), (1, 3, 3), (2, 6, 1), (3, 7, 3), (4, 10, 1)]);
}

#[tokio::test]
async fn every_row_is_there_once_however_often_a_part_is_embedded() {
    let fixture = Fixture::new();
    fixture.begin(settings()).unwrap();
    assert_eq!(fixture.embed("(3), (0)").await.unwrap(), [3, 3]);
    let error = fixture.finish().unwrap_err().to_string();
    assert!(error.contains("part-00001.parquet"), "{error}");
    let file = fixture.path("job").join("part-00003.parquet");
    let written = fs::metadata(&file).unwrap().modified().unwrap();
    // Row 5 has no text.
    assert_eq!(fixture.embed("(0), (1), (2), (3), (4), (3)").await.unwrap(), [3, 2, 1, 3, 1, 3]);
    assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), written, "a part that is there is kept");

    let summary = fixture.finish().unwrap();
    assert_eq!((summary.rows_in, summary.rows, summary.parts), (11, 10, 5));
    let reject = &summary.rejects[0];
    assert_eq!((summary.rejects.len(), reject.row), (1, 5));
    assert!(reject.reason.ends_with("data/a.parquet, row 5: 'text' is null"), "{}", reject.reason);

    let found: Vec<_> =
        (0..5).flat_map(|part| rows(&fixture.path("job").join(format!("part-0000{part}.parquet")))).collect();
    let numbers: Vec<i32> = (0..11).filter(|row| *row != 5).collect();
    let texts: Vec<String> = numbers.iter().filter_map(|row| text(*row)).collect();
    let model = SentenceTransformer::load(settings().model).unwrap();
    let expected = model.encode_with(&texts, &settings().encode_options()).unwrap();
    assert_eq!(found.len(), numbers.len());
    for (i, (number, (index, id, vector))) in numbers.iter().zip(&found).enumerate() {
        assert_eq!((*index, *id), (i64::from(*number), number * 10));
        let worst = vector.iter().zip(expected.row(i)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-6, "row {number} differs by {worst}");
    }
}

#[tokio::test]
async fn a_job_is_continued_only_as_it_was_begun() {
    let fixture = Fixture::new();
    fixture.begin(settings()).unwrap();
    fixture.begin(settings()).unwrap();
    let other = Settings { normalize: false, ..settings() };
    let error = fixture.begin(other).err().unwrap().to_string();
    assert!(error.contains("normalize: true when the job began, false now"), "{error}");

    fixture.write("data/b.parquet", 6..10);
    let error = fixture.begin(settings()).err().unwrap().to_string();
    assert!(error.contains("input file"), "{error}");
    let error = fixture.embed("(4)").await.unwrap_err().to_string();
    assert!(error.contains("b.parquet: was changed since the job began"), "{error}");
    assert_eq!(fixture.embed("(0)").await.unwrap(), [3], "the other file is as it was");
}

#[tokio::test]
async fn a_machine_with_another_model_is_refused() {
    let fixture = Fixture::new();
    let model = fixture.path("model");
    copy(Path::new(&settings().model), &model);
    fixture.begin(Settings { model: model.display().to_string(), ..settings() }).unwrap();
    // As on a machine where the same name stands for other files.
    let path = model.join("config.json");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(&path, config + "\n").unwrap();
    let error = fixture.embed("(0)").await.unwrap_err().to_string();
    assert!(error.contains("model file config.json"), "{error}");
}

#[tokio::test]
async fn errors_name_what_is_wrong() {
    let fixture = Fixture::new();
    let error = fixture.embed("(0)").await.unwrap_err().to_string();
    assert!(error.contains("executors must see the job's folder"), "{error}");

    let column = Settings { text_column: "body".to_string(), ..settings() };
    let error = fixture.source(column).err().unwrap().to_string();
    assert!(error.ends_with("a.parquet: there is no column 'body'; the columns are 'id', 'text'"), "{error}");
    let column = Settings { text_column: "id".to_string(), ..settings() };
    let error = fixture.source(column).err().unwrap().to_string();
    assert!(error.ends_with("a.parquet: column 'id' holds Int32, not strings"), "{error}");

    fixture.begin(settings()).unwrap();
    let error = fixture.embed("(5)").await.unwrap_err().to_string();
    assert!(error.contains("part 5:") && error.ends_with("has 5"), "{error}");
    let error = fixture.embed("(-1)").await.unwrap_err().to_string();
    assert!(error.contains("a part from 0 on"), "{error}");

    fs::write(fixture.path("data/b.parquet"), "not Parquet").unwrap();
    let error = fixture.source(settings()).err().unwrap().to_string();
    assert!(error.contains("b.parquet: "), "{error}");
    fs::create_dir(fixture.path("photos")).unwrap();
    fs::write(fixture.path("photos/cat.png"), "").unwrap();
    let source = DatasetSource { parts: Vec::new(), ..Fixture::new().source(settings()).unwrap() };
    let error = Client::begin("df://localhost:1", &source, &fixture.path("photos"), Duration::ZERO).err().unwrap();
    assert!(error.to_string().contains("photos holds other files"), "{error}");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}
