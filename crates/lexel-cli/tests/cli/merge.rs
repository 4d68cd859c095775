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
