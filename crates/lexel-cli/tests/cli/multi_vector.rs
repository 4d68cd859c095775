//! `lexel encode-multi-vector` and `lexel rank` by it: a vector for each token, in each format.

use crate::support::*;
use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float16Type, Float32Type};
use lexel::{Device, HierarchicalTokenPooling, Matrix, MultiVectorEncodeOptions, MultiVectorEncoder};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::fs::{self, File};

const TEXTS: [&str; 4] = ["Old cat (he), read.", "", "what is rain, and what is the sun?", "cat"];

/// Stanford's ColBERT, put together in a folder.
fn colbert(folder: &Folder) -> String {
    let model = folder.path("colbert");
    copy_folder(&golden("models/plain"), &model);
    for name in ["stanford-bare", "stanford"] {
        copy_folder(&golden(&format!("multi_vector_encoder/models/{name}")), &model);
    }
    model
}

fn library(model: &str) -> MultiVectorEncoder {
    MultiVectorEncoder::builder(model).device(Device::Cpu).load().unwrap()
}

#[test]
fn lines_hold_the_librarys_vectors() {
    let folder = Folder::new();
    let (model, input, output) = (colbert(&folder), folder.write("in.txt", TEXTS.join("\n")), folder.path("out.jsonl"));
    let (library, none) = (library(&model), MultiVectorEncodeOptions::default());
    let pooling = HierarchicalTokenPooling::new(2.0);
    let pooled = MultiVectorEncodeOptions { token_pooling: Some(pooling), ..none.clone() };
    let cases: [(&[&str], Vec<Matrix>); 4] = [
        (&[], library.encode(&TEXTS).unwrap()),
        (&["--query"], library.encode_query(&TEXTS, &none).unwrap()),
        (&["--document"], library.encode_document(&TEXTS, &none).unwrap()),
        (&["--document", "--pool-factor", "2"], library.encode_document(&TEXTS, &pooled).unwrap()),
    ];
    for (options, expected) in cases {
        let common =
            ["encode-multi-vector", "--device", "cpu", "--window", "3", "-m", &model, "-i", &input, "-o", &output];
        let run = succeed(&[&common[..], options].concat());
        let truncated =
            if options.contains(&"--query") { "4 texts, 2 of them truncated to 9 tokens" } else { "4 texts, " };
        assert!(run.stderr.contains(truncated), "{run:?}");
        assert_eq!(run.stderr.contains("neither --query nor --document"), options.is_empty(), "{run:?}");
        let text = fs::read_to_string(&output).unwrap();
        assert_eq!(text.lines().count(), TEXTS.len());
        for (i, (line, expected)) in text.lines().zip(&expected).enumerate() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["index"], i);
            let found: Vec<Vec<f32>> = serde_json::from_value(line["embedding"].clone()).unwrap();
            assert_eq!(found.len(), expected.rows, "{options:?}, text {i}");
            found.iter().zip(expected.iter()).for_each(|(found, expected)| assert_close(found, expected));
        }
    }
}

#[test]
fn parquet_holds_lists_of_vectors_in_either_precision() {
    let folder = Folder::new();
    let (model, input, output) =
        (colbert(&folder), folder.write("in.txt", TEXTS.join("\n")), folder.path("out.parquet"));
    let expected = library(&model).encode_document(&TEXTS, &Default::default()).unwrap();
    for precision in ["float32", "float16"] {
        let options = ["--document", "--precision", precision];
        let common = ["encode-multi-vector", "-q", "--device", "cpu", "-m", &model, "-i", &input, "-o", &output];
        succeed(&[&common[..], &options].concat());
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&output).unwrap()).unwrap().build().unwrap();
        let mut row = 0;
        for batch in reader.map(Result::unwrap) {
            let texts = batch.column_by_name("embedding").unwrap().as_list::<i32>().clone();
            for i in 0..batch.num_rows() {
                let vectors = texts.value(i);
                let vectors = vectors.as_fixed_size_list();
                assert_eq!((vectors.len(), vectors.value_length() as usize), (expected[row].rows, expected[row].cols));
                let numbers: Vec<f32> = match precision {
                    "float32" => vectors.values().as_primitive::<Float32Type>().values().to_vec(),
                    _ => vectors.values().as_primitive::<Float16Type>().values().iter().map(|x| x.to_f32()).collect(),
                };
                let tolerance = if precision == "float32" { 1e-5 } else { 1e-3 };
                assert!(numbers.iter().zip(&expected[row].data).all(|(a, b)| (a - b).abs() < tolerance));
                row += 1;
            }
        }
        assert_eq!(row, TEXTS.len());
    }
}

#[test]
fn a_job_has_the_lines_of_a_file_in_parts() {
    let folder = Folder::new();
    let model = colbert(&folder);
    let lines: String =
        TEXTS.iter().enumerate().map(|(i, text)| format!("{{\"id\": \"n{i}\", \"text\": \"{text}\"}}\n")).collect();
    let (input, job, single) = (folder.write("in.jsonl", lines), folder.path("job/"), folder.path("single.jsonl"));
    let common = ["encode-multi-vector", "-q", "--device", "cpu", "-m", &model, "-i", &input, "--document", "-o"];
    succeed(&[&common[..], &[&single]].concat());
    let run = [&common[..], &[&job, "--output-format", "jsonl", "--part-rows", "3", "--id-column", "id"]].concat();
    succeed(&run);
    // Done is done.
    succeed(&run);
    let merged = folder.path("merged.jsonl");
    succeed(&["merge", "-q", &job, "-o", &merged]);
    let (single, merged) = (fs::read_to_string(&single).unwrap(), fs::read_to_string(&merged).unwrap());
    assert_eq!(merged.lines().count(), TEXTS.len());
    for (i, (single, merged)) in single.lines().zip(merged.lines()).enumerate() {
        assert_eq!(merged, format!("{}, \"id\": \"n{i}\"}}", &single[..single.len() - 1]));
    }
    // Fewer vectors would be another job.
    fail(2, "pool_factor", &[&run[..], &["--pool-factor", "3"]].concat());
    fs::remove_dir_all(&job).unwrap();
    succeed(&[&common[..], &[&job]].concat());
    let merged = folder.path("merged.parquet");
    succeed(&["merge", "-q", &job, "-o", &merged]);
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&merged).unwrap()).unwrap().build().unwrap();
    assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), TEXTS.len());
}

#[test]
fn texts_are_ranked_by_their_vectors() {
    let folder = Folder::new();
    let (model, input) = (colbert(&folder), folder.write("in.txt", TEXTS.join("\n")));
    let rank = ["rank", "--device", "cpu", "-m", &model, "-i", &input, "--query", "the sun", "--top-k", "2", "--json"];
    let hits = succeed(&rank).json();
    let library = library(&model);
    let query = library.encode_query(&["the sun"], &Default::default()).unwrap();
    let documents = library.encode_document(&TEXTS, &Default::default()).unwrap();
    let expected = library.semantic_search(&query, &documents, 2).unwrap().remove(0);
    assert_eq!(hits.as_array().unwrap().len(), 2);
    for (hit, expected) in hits.as_array().unwrap().iter().zip(expected) {
        assert_eq!(hit["corpus_id"], expected.corpus_id);
        assert_eq!(hit["text"], TEXTS[expected.corpus_id]);
        assert_close(&[hit["score"].as_f64().unwrap() as f32], &[expected.score]);
    }
    fail(2, "--activation sigmoid is for cross-encoders", &[&rank[..], &["--activation", "sigmoid"]].concat());
}

#[test]
fn a_model_is_described() {
    let folder = Folder::new();
    let info = succeed(&["info", &colbert(&folder)]);
    for part in [
        "Transformer -> Dense (8 to 4, Identity) -> MultiVectorMask (without 32 tokens for document) -> Normalize",
        "similarity       maxsim",
        "query expansion  to 9 tokens by the tokenizer's mask token, or else that of the end, which attention does not look at",
        "document length  12",
        "document: \"[unused1] \"",
    ] {
        assert!(info.text().contains(part), "{part}: {info:?}");
    }
}

#[test]
fn what_cannot_be_encoded_or_written_is_refused() {
    let folder = Folder::new();
    let (colbert, input) = (colbert(&folder), folder.write("in.txt", "one\ntwo"));
    let before = folder.names();
    let fails = |status, expected: &str, model: &str, output: &str, options: &[&str]| {
        let output = folder.path(output);
        let common = ["encode-multi-vector", "--device", "cpu", "-m", model, "-i", &input, "-o", &output];
        fail(status, expected, &[&common[..], options].concat());
    };
    fails(2, "texts have different numbers of vectors: write .jsonl or .parquet", &colbert, "out.npy", &[]);
    fails(2, "texts have different numbers", &colbert, "job/", &["--output-format", "safetensors"]);
    fails(2, "--part-rows is for job folders", &colbert, "out.jsonl", &["--part-rows", "2"]);
    fails(2, "not a number of at least 1", &colbert, "out.jsonl", &["--pool-factor", "0.5"]);
    fails(2, "no prompt named 'x'", &colbert, "out.jsonl", &["--prompt-name", "x"]);
    fails(65, "a model of late interaction", &model("plain"), "out.jsonl", &[]);
    assert_eq!(folder.names(), before);
}
