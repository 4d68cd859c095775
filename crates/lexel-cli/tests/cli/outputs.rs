//! Output files that somebody else needs: those that another process writes, and those that are the input.

use crate::support::*;
use std::fs;
#[cfg(unix)]
use std::fs::File;
use std::io::Write;
use std::process::Stdio;

#[test]
fn two_processes_do_not_write_one_file_and_what_a_killed_one_left_is_overwritten() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let (input, output) = (folder.write("in.txt", "one\ntwo\nthree"), folder.path("out.npy"));
    let temporary = folder.write(".out.npy.lexel-tmp", vec![7; 100_000]);
    let args = ["encode", "--device", "cpu", "-q", "-m", &model, "-o", &output, "-i"];
    let mut child = command()
        .args(args)
        .args(["-", "--input-format", "txt"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Until it has the file.
    wait_until(|| fs::metadata(&temporary).is_ok_and(|file| file.len() < 100_000));
    let run = fail(74, "another lexel is writing ", &[&args[..], &[&input]].concat());
    assert!(run.stderr.contains("out.npy"), "{run:?}");
    assert_eq!(folder.names(), [".out.npy.lexel-tmp", "in.txt"]);
    child.stdin.take().unwrap().write_all(b"one").unwrap();
    let run = Run::of(child.wait_with_output().unwrap());
    assert_eq!(run.status, 0, "{run:?}");
    assert_eq!(floats(&output).0[0], 1);
    succeed(&[&args[..], &[&input]].concat());
    assert_eq!(floats(&output).0[0], 3);
    assert_eq!(folder.names(), ["in.txt", "out.npy"]);
}

#[test]
#[cfg(unix)]
fn an_output_in_the_folder_of_a_job_is_refused() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let (input, pairs) = (folder.write("in.txt", "one\ntwo"), folder.write("in.tsv", "text_a\ttext_b\na\tb\n"));
    let encode = ["encode", "--device", "cpu", "-q", "-m", &model, "-i", &input, "-o"];
    succeed(&[&encode[..], &[&folder.path("job/")]].concat());
    let part = folder.path("job/part-00000.npy");
    let before = fs::read(&part).unwrap();
    let link = folder.path("link.npy");
    std::os::unix::fs::symlink(&part, &link).unwrap();
    for output in [&part, &link, &folder.path("job/new.npy")] {
        let run = fail(2, "/job, which holds a job: give a file outside of it", &[&encode[..], &[output]].concat());
        assert!(run.stderr.contains("--output "), "{run:?}");
        fail(2, "holds a job", &["predict", "-m", &cross_encoder("bert-1"), "-i", &pairs, "-o", output]);
    }
    assert_eq!(fs::read(&part).unwrap(), before);
    assert!(!fs::exists(folder.path("job/new.npy")).unwrap());
}

#[test]
#[cfg(unix)]
fn an_output_that_is_the_input_is_refused() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let texts = "{\"text\": \"one\"}\n{\"text\": \"two\"}\n";
    let (input, other) = (folder.write("same.jsonl", texts), folder.write("other.jsonl", texts));
    let link = folder.path("link.jsonl");
    std::os::unix::fs::symlink(&input, &link).unwrap();
    let encode = ["encode", "--device", "cpu", "-q", "-m", &model, "-o"];
    for args in [
        &[&input, "-i", &input][..],
        &[&link, "-i", &input],
        &[&input, "-i", &link],
        &[&input, "-i", &other, "-i", &input],
        &[&folder.path("./same.jsonl"), "-i", &folder.path("")],
    ] {
        fail(2, "would replace it", &[&encode[..], args].concat());
    }
    let npy = folder.write("ranges.npy", "");
    let ranges = [&npy, "-i", &input, "--precision", "int8", "--ranges", &npy];
    fail(2, "would replace it", &[&encode[..], &ranges].concat());
    let pairs = folder.write("pairs.jsonl", "{\"text_a\": \"one\", \"text_b\": \"two\"}\n");
    fail(2, "would replace it", &["predict", "-q", "-m", &cross_encoder("bert-1"), "-i", &pairs, "-o", &pairs]);
    // Standard input can be that file too.
    let mut stdin = command();
    stdin.args(encode).args([&input, "-i", "-", "--input-format", "jsonl"]);
    let run = Run::of(stdin.stdin(File::open(&input).unwrap()).output().unwrap());
    assert!(run.status == 2 && run.stderr.contains("the file that is read as /dev/stdin"), "{run:?}");
    assert_eq!(fs::read_to_string(&input).unwrap(), texts);
    // What is no file can be both.
    succeed(
        &[&encode[..], &["/dev/null", "-i", "/dev/null", "--input-format", "txt", "--output-format", "npy"]].concat(),
    );
}
