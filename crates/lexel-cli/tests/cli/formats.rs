//! Inputs and outputs of a single file: several files at once, Parquet in every compression, every format out.

use crate::jobs::texts;
use crate::support::*;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int64Type};
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use lexel::EncodeOptions;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use parquet::file::properties::WriterProperties;
use std::fs::File;
use std::sync::Arc;

/// A file with the columns `text` and `number`, in row groups of seven.
pub fn write_parquet(path: &str, texts: &[String], compression: Compression) {
    let number = Int64Array::from_iter_values(0..texts.len() as i64);
    let columns = [("text", Arc::new(StringArray::from(texts.to_vec())) as ArrayRef), ("number", Arc::new(number))];
    let properties = WriterProperties::builder().set_compression(compression).set_max_row_group_row_count(Some(7));
    write_columns(path, columns, properties.build());
}

/// A file with these columns.
pub fn write_columns(
    path: &str,
    columns: impl IntoIterator<Item = (&'static str, ArrayRef)>,
    properties: WriterProperties,
) {
    let columns = columns.into_iter().map(|(name, column)| (name, column, true));
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let file = File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn encode(model: &str, inputs: &[&str], output: &str, options: &[&str]) -> Run {
    let inputs: Vec<&str> = inputs.iter().flat_map(|input| ["-i", input]).collect();
    succeed(&[&["encode", "--device", "cpu", "-q", "-m", model, "-o", output][..], &inputs, options].concat())
}

fn embeddings(model: &str, texts: &[String]) -> Vec<f32> {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    expected(model, &texts, &EncodeOptions::default()).data
}

#[test]
fn parquet_in_every_compression() {
    let (folder, model, texts) = (Folder::new(), model("pool-mean"), texts(50));
    let expected = embeddings(&model, &texts);
    for (name, compression) in [
        ("none", Compression::UNCOMPRESSED),
        ("snappy", Compression::SNAPPY),
        ("gzip", Compression::GZIP(GzipLevel::default())),
        ("brotli", Compression::BROTLI(BrotliLevel::default())),
        ("lz4", Compression::LZ4),
        ("lz4-raw", Compression::LZ4_RAW),
        ("zstd", Compression::ZSTD(ZstdLevel::default())),
    ] {
        let (input, output) = (folder.path(&format!("{name}.parquet")), folder.path("out.npy"));
        write_parquet(&input, &texts, compression);
        encode(&model, &[&input], &output, &["--window", "9"]);
        assert_close(&floats(&output).1, &expected);
    }
    let nulls = folder.path("nulls.parquet");
    let column: ArrayRef = Arc::new(StringArray::from(vec![Some("one"), None]));
    let batch = RecordBatch::try_from_iter([("text", column)]).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(&nulls).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let output = folder.path("nulls.npy");
    fail(
        65,
        "nulls.parquet: row 1: 'text' is null",
        &["encode", "--device", "cpu", "-m", &model, "-i", &nulls, "-o", &output],
    );
    let from_pipe = ["encode", "-m", &model, "-i", "-", "--input-format", "parquet", "-o", &output];
    fail(2, "give a file, not a pipe", &from_pipe);
}

#[test]
fn several_files_folders_and_patterns_into_one() {
    let (folder, model, texts) = (Folder::new(), model("pool-mean"), texts(60));
    std::fs::create_dir(folder.path("in")).unwrap();
    std::fs::create_dir(folder.path("tables")).unwrap();
    for (i, texts) in texts.chunks(20).enumerate() {
        folder.write(&format!("in/{i}.csv"), "id,text\n".to_string() + &texts.join("\n").replace("text", "1,text"));
        write_parquet(&folder.path(&format!("tables/{i}.parquet")), texts, Compression::SNAPPY);
    }
    folder.write("in/.hidden.csv", "no");
    let expected = embeddings(&model, &texts);
    let output = folder.path("out.npy");
    let [a, b, c] = [0, 1, 2].map(|i| folder.path(&format!("in/{i}.csv")));
    for inputs in
        [&[a.as_str(), &b, &c][..], &[&folder.path("in")], &[&folder.path("in/*.csv")], &[&folder.path("tables")]]
    {
        encode(&model, inputs, &output, &["--window", "7"]);
        assert_close(&floats(&output).1, &expected);
    }
    let common = ["encode", "--device", "cpu", "-m", &model, "-o", &output];
    let txt = folder.write("in.txt", "one");
    fail(2, "differ in their format", &[&common[..], &["-i", &a, "-i", &txt]].concat());
    fail(66, "no file matches", &[&common[..], &["-i", &folder.path("*.tsv")]].concat());
    let bad = folder.write("in/9.csv", "id,text\n1,\"open");
    fail(65, "9.csv, line 2: a quote is opened", &[&common[..], &["-i", &a, "-i", &bad]].concat());
}

#[test]
fn parquet_and_safetensors_hold_the_same_rows() {
    let (folder, model, texts) = (Folder::new(), model("pool-mean"), texts(50));
    let (input, expected) = (folder.write("in.txt", texts.join("\n")), embeddings(&model, &texts));
    let cols = expected.len() / 50;
    let args = ["encode", "--device", "cpu", "-q", "-m", &model, "-i", &input, "--window", "20", "-o"];
    let (parquet, safetensors) = (folder.path("out.parquet"), folder.path("out.safetensors"));
    succeed(&[&args[..], &[&parquet]].concat());
    let piped = succeed(&[&args[..], &["-", "--output-format", "parquet"]].concat()).stdout;
    for path in [&parquet, &folder.write("piped.parquet", piped)] {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
        assert_eq!(reader.metadata().num_row_groups(), 3);
        let (mut index, mut found) = (Vec::<i64>::new(), Vec::<f32>::new());
        for batch in reader.build().unwrap() {
            let batch = batch.unwrap();
            index.extend(batch["index"].as_primitive::<Int64Type>().values());
            let list = batch["embedding"].as_fixed_size_list();
            assert_eq!(list.value_length() as usize, cols);
            found.extend(list.values().as_primitive::<Float32Type>().values());
        }
        assert!(index.into_iter().eq(0..50));
        assert_close(&found, &expected);
    }
    succeed(&[&args[..], &[&safetensors]].concat());
    let bytes = std::fs::read(&safetensors).unwrap();
    let piped = succeed(&[&args[..], &["-", "--output-format", "safetensors"]].concat()).stdout;
    assert!(piped == bytes);
    let head = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let tensors: serde_json::Value = serde_json::from_slice(&bytes[8..head]).unwrap();
    assert_eq!(tensors["embeddings"]["shape"], serde_json::json!([50, cols]));
    let (numbers, index) = bytes[head..].split_at(50 * cols * 4);
    let found: Vec<f32> = numbers.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect();
    assert_close(&found, &expected);
    let index = index.chunks_exact(8).map(|x| i64::from_le_bytes(x.try_into().unwrap()));
    assert!(index.eq(0..50));

    // No texts: no rows, of the right width.
    let (none, output) = (folder.write("none.txt", ""), folder.path("none.parquet"));
    encode(&model, &[&none], &output, &[]);
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&output).unwrap()).unwrap();
    assert_eq!((reader.metadata().file_metadata().num_rows(), reader.schema().fields().len()), (0, 2));
}

#[test]
fn scores_go_into_parquet_and_safetensors_too() {
    let (folder, model) = (Folder::new(), cross_encoder("bert-3"));
    let input = folder.write("in.tsv", (0..30).map(|i| format!("query\ttext {i}\n")).collect::<String>());
    for ending in ["parquet", "safetensors", "npy"] {
        let output = folder.path(&format!("out.{ending}"));
        succeed(&["predict", "--device", "cpu", "-q", "-m", &model, "-i", &input, "--no-header", "-o", &output]);
    }
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(folder.path("out.parquet")).unwrap()).unwrap();
    let batch = reader.build().unwrap().next().unwrap().unwrap();
    let found = batch["score"].as_fixed_size_list().values().as_primitive::<Float32Type>().values().to_vec();
    assert_eq!(found, scores(&folder.path("out.npy")).1);
}
