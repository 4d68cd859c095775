//! `lexel merge` of folders that it must not join.

use crate::jobs::{job, texts};
use crate::support::*;
use std::fs;

#[test]
fn a_part_that_comes_twice_is_refused() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let input = folder.write("in.txt", texts(20).join("\n"));
    let [one, two, whole] = ["one", "two", "whole"].map(|name| folder.path(name) + "/");
    let output = folder.path("all.npy");
    for (path, shard) in [(&one, "1/2"), (&two, "2/2"), (&whole, "1/1")] {
        succeed(&job(&model, &input, path, &["--part-rows", "5", "--shard", shard]));
    }
    let merge = ["merge", "-q", "-o", &output];
    let refused = |what: &str, folders: &[&str]| fail(2, what, &[&merge[..], folders].concat());
    let named = one.trim_end_matches('/');
    for folders in [[&one[..], &one, &two], [&one, &two, named], [named, &one, &two]] {
        let run = refused("are the same folder", &folders);
        assert_eq!(run.stderr.matches(named).count(), 2, "{run:?}");
    }
    let link = folder.path("link");
    std::os::unix::fs::symlink(&one, &link).unwrap();
    refused("are the same folder", &[&one, &link, &two]);
    let run = refused("part 1 comes twice", &[&two, &whole]);
    assert!(run.stderr.contains("two/part-00001.npy") && run.stderr.contains("whole/part-00001.npy"), "{run:?}");
    assert!(!fs::exists(&output).unwrap());
    succeed(&[&merge[..], &[&two, &one]].concat());
    assert_eq!(floats(&output).0[0], 20);
}

#[test]
fn an_output_in_a_merged_job_is_refused() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let input = folder.write("in.txt", texts(20).join("\n"));
    let path = folder.path("job");
    succeed(&job(&model, &input, &(path.clone() + "/"), &["--part-rows", "5"]));
    let part = format!("{path}/part-00000.npy");
    let before = fs::read(&part).unwrap();
    let link = folder.path("link.npy");
    std::os::unix::fs::symlink(&part, &link).unwrap();
    for output in [&part, &format!("{path}/new.npy"), &format!("{path}/../job/_parts/new.npy"), &link] {
        fail(2, "is in ", &["merge", "-q", &path, "-o", output]);
    }
    assert_eq!(fs::read(&part).unwrap(), before);
    succeed(&["merge", "-q", &path, "-o", &folder.path("job.npy")]);
}

/// What the user lets nobody read is not listed for all, and a list is that of its file.
#[test]
fn a_list_of_rejects_is_replaced_with_its_file() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let mode = |path: &str| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let (good, bad) = (folder.path("good") + "/", folder.path("bad") + "/");
    succeed(&job(&model, &folder.write("good.jsonl", "\"a\"\n"), &good, &[]));
    let broken = folder.write("bad.jsonl", "\"a\"\n{\n");
    succeed(&job(&model, &broken, &bad, &["--on-invalid", "skip"]));
    let output = folder.path("all.npy");
    let list = output.clone() + ".rejects.jsonl";
    succeed(&["merge", "-q", &bad, "-o", &output]);
    fs::set_permissions(&list, fs::Permissions::from_mode(0o600)).unwrap();
    succeed(&["merge", "-q", &bad, "-o", &output]);
    assert_eq!((mode(&list), fs::read_to_string(&list).unwrap().lines().count()), (0o600, 1));
    succeed(&["merge", "-q", &good, "-o", &output]);
    assert!(!fs::exists(&list).unwrap());
}

/// A column that one file has as int32 and the next as int64 is int64 in one file; bool and int32 are nothing in common.
#[test]
fn columns_of_several_types_become_the_wider_one() {
    use arrow_array::{ArrayRef, BooleanArray, Int32Array, Int64Array, NullArray, StringArray, cast::AsArray};
    use std::sync::Arc;
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let write = |name: &str, ids: ArrayRef| {
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["a text"; ids.len()]));
        crate::formats::write_columns(&folder.path(name), [("text", texts), ("n", ids)], Default::default());
    };
    write("0.parquet", Arc::new(Int32Array::from(vec![Some(7), None])));
    write("1.parquet", Arc::new(Int64Array::from(vec![1 << 40])));
    write("2.parquet", Arc::new(NullArray::new(1)));
    let (parts, output) = (folder.path("parts/"), folder.path("all.parquet"));
    let inputs = [0, 1, 2].map(|i| folder.path(&format!("{i}.parquet")));
    let encode = |inputs: &[String], parts: &str| {
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let options = ["-o", parts, "--output-format", "parquet", "--keep-columns", "n", "-q"];
        succeed(&[&["encode", "-m", &model, "--device", "cpu", "-i"], &inputs[..], &options].concat());
    };
    encode(&inputs, &parts);
    succeed(&["merge", "-q", &parts, "-o", &output]);
    let file = fs::File::open(&output).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let found: Vec<Option<i64>> = reader
        .flat_map(|batch| {
            let column = batch.unwrap().column_by_name("n").unwrap().clone();
            column.as_primitive::<arrow_array::types::Int64Type>().iter().collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(found, [Some(7), None, Some(1 << 40), None]);

    write("3.parquet", Arc::new(BooleanArray::from(vec![true])));
    let parts = folder.path("others/");
    encode(&[inputs[0].clone(), folder.path("3.parquet")], &parts);
    let run = fail(65, "column 'n' is Int32 in ", &["merge", "-q", &parts, "-o", &output]);
    assert!(run.stderr.contains("part-00000.parquet and Boolean in"), "{run:?}");
}
