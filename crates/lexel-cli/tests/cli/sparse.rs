//! `lexel encode-sparse`: sparse embeddings in each format.

use crate::support::*;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, UInt32Type};
use lexel::{Device, SparseEncodeOptions, SparseEncoder, SparseMatrix};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::fs::{self, File};

const TEXTS: [&str; 4] = ["the sun is red", "", "a cat sings a song, a cat sings", "the sun is red"];

/// What the library makes of the texts.
fn expected(model: &str, options: &SparseEncodeOptions) -> (SparseEncoder, SparseMatrix) {
    let model = SparseEncoder::builder(model).device(Device::Cpu).load().unwrap();
    let embeddings = model.encode_with(&TEXTS, options).unwrap();
    (model, embeddings)
}

#[test]
fn lines_hold_the_librarys_embeddings() {
    let (folder, model) = (Folder::new(), sparse_encoder("bert-bare"));
    let (input, output) = (folder.write("in.txt", TEXTS.join("\n")), folder.path("out.jsonl"));
    let encode = |options: &[&str]| {
        let common =
            ["encode-sparse", "--device", "cpu", "-q", "--window", "3", "-m", &model, "-i", &input, "-o", &output];
        succeed(&[&common[..], options].concat());
        let text = fs::read_to_string(&output).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<serde_json::Value>>()
    };
    for (options, dims, prompt) in
        [(&[][..], None, None), (&["--max-active-dims", "5", "--prompt", "red "], Some(5), Some("red "))]
    {
        let library = SparseEncodeOptions {
            max_active_dims: dims,
            prompt: prompt.map(str::to_string),
            ..SparseEncodeOptions::default()
        };
        let (sparse, embeddings) = expected(&model, &library);
        let lines = encode(options);
        assert_eq!(lines.len(), TEXTS.len());
        for (i, (line, (indices, values))) in lines.iter().zip(embeddings.iter()).enumerate() {
            assert_eq!(line["index"], i);
            let found: Vec<u32> = serde_json::from_value(line["embedding"]["indices"].clone()).unwrap();
            let weights: Vec<f32> = serde_json::from_value(line["embedding"]["values"].clone()).unwrap();
            assert_eq!(found, indices);
            assert_close(&weights, values);
        }
        let lines = encode(&[options, &["--tokens"]].concat());
        for (line, tokens) in lines.iter().zip(sparse.decode(&embeddings, None)) {
            assert_eq!(line["embedding"].as_object().unwrap().len(), tokens.len());
            for (token, weight) in tokens {
                assert_close(&[line["embedding"][&token].as_f64().unwrap() as f32], &[weight]);
            }
        }
    }
}

#[test]
fn parquet_holds_two_lists() {
    let (folder, model) = (Folder::new(), sparse_encoder("bert-bare"));
    let (input, output) = (folder.write("in.txt", TEXTS.join("\n")), folder.path("out.parquet"));
    let run =
        succeed(&["encode-sparse", "--device", "cpu", "--window", "3", "-m", &model, "-i", &input, "-o", &output]);
    assert!(run.stderr.contains("4 texts, "), "{run:?}");
    let (_, embeddings) = expected(&model, &SparseEncodeOptions::default());
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&output).unwrap()).unwrap().build().unwrap();
    let mut row = 0;
    for batch in reader.map(Result::unwrap) {
        let embedding = batch.column_by_name("embedding").unwrap().as_struct();
        let list = |name: &str| embedding.column_by_name(name).unwrap().as_list::<i32>().clone();
        for i in 0..batch.num_rows() {
            let (indices, values) = embeddings.row(row);
            assert_eq!(list("indices").value(i).as_primitive::<UInt32Type>().values(), indices);
            assert_close(list("values").value(i).as_primitive::<Float32Type>().values(), values);
            row += 1;
        }
    }
    assert_eq!(row, TEXTS.len());
}

#[test]
fn a_job_has_the_lines_of_a_file_in_parts() {
    let (folder, model) = (Folder::new(), sparse_encoder("bert-bare"));
    let lines: String =
        TEXTS.iter().enumerate().map(|(i, text)| format!("{{\"id\": \"n{i}\", \"text\": \"{text}\"}}\n")).collect();
    let (input, job) = (folder.write("in.jsonl", lines), folder.path("job/"));
    let common = ["encode-sparse", "-q", "--device", "cpu", "-m", &model, "-i", &input, "--max-active-dims", "4", "-o"];
    for options in [&["--output-format", "jsonl"][..], &["--output-format", "jsonl", "--tokens"]] {
        let single = folder.path("single.jsonl");
        succeed(&[&common[..], &[&single], options].concat());
        let rest = [&[&job, "--part-rows", "3", "--id-column", "id"], options].concat();
        let run = [&common[..], &rest].concat();
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
        // Another limit would give other numbers.
        let other = ["encode-sparse", "-q", "--device", "cpu", "-m", &model, "-i", &input, "-o"];
        fail(2, "max_active_dims", &[&other[..], &rest].concat());
        fs::remove_dir_all(&job).unwrap();
    }
    succeed(&[&common[..], &[&job, "--output-format", "parquet", "--part-rows", "3"]].concat());
    let merged = folder.path("merged.parquet");
    succeed(&["merge", "-q", &job, "-o", &merged]);
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&merged).unwrap()).unwrap().build().unwrap();
    assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), TEXTS.len());
}

#[test]
fn a_router_takes_queries_and_documents_another_way() {
    let (folder, model) = (Folder::new(), sparse_encoder("router"));
    let input = folder.write("in.txt", "the sun is red");
    let common =
        ["encode-sparse", "--device", "cpu", "-m", &model, "-i", &input, "-o", "-", "--output-format", "jsonl"];
    let [query, document] =
        ["--query", "--document"].map(|option| succeed(&[&common[..], &["--tokens", option]].concat()).json());
    assert!(query["embedding"]["the"].as_f64().unwrap() > 0.0 && query["embedding"]["[SEP]"].is_null(), "{query}");
    assert_ne!(query, document);
    let info = succeed(&["info", &model]);
    assert!(
        info.text().contains("Transformer -> SpladePooling (max)") && info.text().contains("route query"),
        "{info:?}"
    );
    assert!(succeed(&["info", &model, "--program"]).text().contains("route query:\nno program"));
}

#[test]
fn what_cannot_be_encoded_or_written_is_refused() {
    let (folder, sparse) = (Folder::new(), sparse_encoder("bert-bare"));
    let input = folder.write("in.txt", "one\ntwo");
    let fails = |status, expected: &str, model: &str, output: &str, options: &[&str]| {
        let output = folder.path(output);
        let common = ["encode-sparse", "--device", "cpu", "-m", model, "-i", &input, "-o", &output];
        fail(status, expected, &[&common[..], options].concat());
    };
    fails(2, "sparse embeddings are no array: write .jsonl or .parquet", &sparse, "out.npy", &[]);
    fails(2, "sparse embeddings are no array", &sparse, "job/", &["--output-format", "npy"]);
    fails(2, "--part-rows is for job folders", &sparse, "out.jsonl", &["--part-rows", "2"]);
    fails(2, "--tokens is for .jsonl", &sparse, "out.parquet", &["--tokens"]);
    fails(2, "no prompt named 'x'", &sparse, "out.jsonl", &["--prompt-name", "x"]);
    fails(65, "ForMaskedLM", &model("bert-head64"), "out.jsonl", &[]);
    assert_eq!(folder.names(), ["in.txt"]);
    // As dense embeddings, with a word about it.
    let stored = folder.path("model");
    copy_folder(&sparse, &stored);
    folder.write("model/config_sentence_transformers.json", r#"{"model_type": "SparseEncoder"}"#);
    let modules = r#"[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.sparse_encoder.models.MLMTransformer"}]"#;
    folder.write("model/modules.json", modules);
    let output = folder.path("out.npy");
    let run = succeed(&["encode", "--device", "cpu", "-m", &stored, "-i", &input, "-o", &output]);
    assert!(
        run.stderr.contains("saved as a SparseEncoder, and gives its own results only as a SparseEncoder"),
        "{run:?}"
    );
    fails(65, "a Transformer and a SpladePooling", &stored, "out.jsonl", &[]);
}
