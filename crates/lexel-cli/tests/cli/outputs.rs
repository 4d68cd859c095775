//! Output files that somebody else needs: those that another process writes, and those that are the input.

use crate::support::*;
use std::fs;
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
