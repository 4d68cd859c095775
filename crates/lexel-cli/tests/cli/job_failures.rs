//! What goes wrong in a job: the exit status, the message, that complete parts are kept, and that the same command, once the
//! cause is gone, makes every row once.

use crate::jobs::{Random, check_rows, job, parts, rows, texts};
use crate::support::*;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// The program and its arguments for a shell.
fn shell_words(args: &[&str]) -> String {
    format!("{} {}", command().get_program().to_str().unwrap(), args.join(" "))
}

#[test]
fn a_full_disk_and_a_read_only_one_end_the_job_and_the_next_run_continues() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let texts = texts(6000);
    let input = folder.write("in.txt", texts.join("\n"));
    let (disk, kept) = (folder.path("disk"), folder.path("kept"));
    std::fs::create_dir(&disk).unwrap();
    std::fs::create_dir(&kept).unwrap();
    let output = format!("{disk}/job/");
    let run = shell_words(&job(&model, &input, &output, &["--part-rows", "500"]));
    // A file system of its own, which nobody else sees; 384 kB do not fit.
    let script = format!(
        "mount -t tmpfs -o size=256k none {disk} || exit 99
         step() {{ {run} 2> {kept}/$1.txt; echo $? >> {kept}/statuses; ls -i {disk}/job | grep part- > {kept}/$1.parts; }}
         step full
         mount -o remount,ro {disk}
         step readonly
         mount -o remount,rw,size=8m {disk}
         step room
         cp -r {disk}/job {kept}/job"
    );
    let mut shell = Command::new("unshare");
    let ran =
        shell.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]).env("HF_HUB_OFFLINE", "1").output();
    let read = |name: &str| std::fs::read_to_string(format!("{kept}/{name}")).unwrap_or_default();
    if !ran.as_ref().is_ok_and(|ran| ran.status.success()) {
        eprintln!("skipped: no file system can be mounted here, so that no disk can be full: {ran:?}");
        return;
    }
    assert_eq!(read("statuses"), "74\n74\n0\n", "{ran:?} {} {}", read("full.txt"), read("readonly.txt"));
    assert!(read("full.txt").contains("No space left on device"), "{}", read("full.txt"));
    assert!(read("readonly.txt").contains("Read-only file system"), "{}", read("readonly.txt"));
    // Parts that were complete are the same files at the end.
    let (full, room) = (read("full.parts"), read("room.parts"));
    assert!((1..12).contains(&full.lines().count()) && room.lines().count() == 12, "{full}");
    assert!(full.lines().all(|line| room.contains(line)), "{full} {room}");
    assert_eq!(read("readonly.parts"), full);
    check_rows(&format!("{kept}/job"), &texts, &model);
}

#[test]
#[cfg(unix)]
fn a_file_size_limit_ends_the_job_and_the_next_run_continues() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let texts = texts(2200);
    let (input, output) = (folder.write("in.txt", texts.join("\n")), folder.path("job/"));
    let args = job(&model, &input, &output, &["--part-rows", "2000"]);
    // 20 kB: the last part fits, the first does not. The signal kills a process that does not expect it.
    let script = format!("ulimit -f 40; exec {}", shell_words(&args));
    let run = Run::of(Command::new("sh").args(["-c", &script]).output().unwrap());
    assert!(run.status == 74 && run.stderr.contains("File too large"), "{run:?}");
    assert!(run.stderr.contains(" of 2 parts are complete"), "{run:?}");
    assert!(run.stderr.contains("run the same command again to continue:\n  "), "{run:?}");
    assert_eq!(parts(&output), ["part-00001.npy"]);
    let json = succeed(&[&args[..], &["--json"]].concat()).json();
    assert_eq!((&json["parts_before"], &json["rows_here"]), (&1.into(), &2000.into()));
    check_rows(&output, &texts, &model);
}

#[test]
#[cfg(unix)]
fn a_folder_that_cannot_be_written() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let input = folder.write("in.txt", "one\ntwo");
    fail(74, "cannot write /proc/job", &job(&model, &input, "/proc/job/", &[]));
    fail(74, "Not a directory", &job(&model, &input, "/dev/full/", &[]));
    fail(2, "is a folder that holds other files", &job(&model, &input, &folder.path(""), &[]));
}

#[test]
fn a_report_that_cannot_be_written_costs_no_rows() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let texts = texts(50);
    let input = folder.write("in.txt", texts.join("\n"));
    let output = folder.path("job/");
    let args = job(&model, &input, &output, &["--json"]);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let run = Run::of(command().args(&args).stdout(full).stderr(Stdio::piped()).output().unwrap());
    assert!(run.status == 74 && run.stderr.contains("cannot write to standard output"), "{run:?}");
    let mut child = command().args(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let run = Run::of(child.wait_with_output().unwrap());
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    assert_eq!(succeed(&args).json()["parts_before"], 1);
    check_rows(&output, &texts, &model);
}

#[test]
fn an_input_that_changes_in_the_middle_is_refused_until_it_is_as_it_was() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let texts = texts(40);
    let whole = texts.join("\n");
    let (input, output) = (folder.write("in.txt", &whole), folder.path("job/"));
    let args = job(&model, &input, &output, &["--part-rows", "10"]);
    succeed(&[&args[..], &["--shard", "1/2"]].concat());
    for changed in [whole.replace("text 35", "next 35"), whole.clone() + "\nmore", whole[..whole.len() - 1].to_string()]
    {
        std::fs::write(&input, changed).unwrap();
        fail(65, "the input is not that of this job", &args);
    }
    std::fs::remove_file(&input).unwrap();
    fail(66, "in.txt", &args);
    assert_eq!(parts(&output), ["part-00000.npy", "part-00002.npy"]);
    std::fs::write(&input, &whole).unwrap();
    assert_eq!(succeed(&[&args[..], &["--json"]].concat()).json()["rows_here"], 20);
    check_rows(&output, &texts, &model);
}

#[test]
fn rows_of_every_kind_that_cannot_be_read() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let lines = [
        &b"{\"text\": \"one\"}\n"[..],
        b"{\"text\": 7}\n",
        b"\n",
        b"{\"body\": \"x\"}\n",
        b"{\"text\": \"b\xffd\"}\n",
        b"{\"text\": \n",
        b"{\"text\": null}\n",
        b"\"two\"",
    ];
    let (input, output) = (folder.write("in.jsonl", lines.concat()), folder.path("job/"));
    let json = succeed(&job(&model, &input, &output, &["--json"])).json();
    assert_eq!((&json["rows_in"], &json["texts"], &json["rejects"]), (&7.into(), &2.into(), &5.into()));
    let rejects = std::fs::read_to_string(folder.path("job/_rejects.jsonl")).unwrap();
    let expected = ["'text' is a number", "no key 'text'", "not valid UTF-8", "not valid JSON", "null"];
    assert_eq!(rejects.lines().count(), expected.len());
    for (i, (reject, expected)) in rejects.lines().zip(expected).enumerate() {
        let row = format!("{{\"row\":{},\"reason\":\"", i + 1);
        assert!(reject.starts_with(&row) && reject.contains(expected), "{reject}");
        // The third line is empty, and no row.
        assert!(reject.contains(&format!("in.jsonl, line {}: ", [2, 4, 5, 6, 7][i])), "{reject}");
    }
    assert_close(&rows(&output), &expected_rows(&model, &["one", "two"]));
    // Corrected, it is another input.
    std::fs::write(&input, b"\"one\"\n\"two\"\n").unwrap();
    fail(65, "the input is not that of this job", &job(&model, &input, &output, &[]));
}

/// With --on-invalid fail, a job cannot go on with its input, and goes on with no other: the messages name the way out.
#[test]
fn a_corrected_input_begins_again_once_the_folder_is_removed() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let (good, output) = (b"one\ntwo\n", folder.path("job/"));
    let input = folder.write("in.txt", b"one\ntw\xffo\n");
    let how = format!("to begin again with another, remove {output} or give another folder");
    let file = job(&model, &input, &output, &["--on-invalid", "fail"]);
    let stdin = job(&model, "-", &output, &["--on-invalid", "fail", "--input-format", "txt"]);
    let run = |args: &[&str], stdin: &[u8]| pipe(stdin, args);
    for args in [&file, &stdin] {
        std::fs::write(&input, b"one\ntw\xffo\n").unwrap();
        let bad = run(args, b"one\ntw\xffo\n");
        assert!(bad.status == 65 && bad.stderr.contains("not valid UTF-8") && bad.stderr.contains(&how), "{bad:?}");
        std::fs::write(&input, good).unwrap();
        let other = run(args, good);
        assert!(
            other.status == 65 && other.stderr.contains(" that of this job") && other.stderr.contains(&how),
            "{other:?}"
        );
        std::fs::remove_dir_all(&output).unwrap();
        assert_eq!(run(args, good).status, 0);
        std::fs::remove_dir_all(&output).unwrap();
    }
}

#[test]
fn damaged_files_of_a_job_are_named_with_what_to_do() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let texts = texts(20);
    let (input, output) = (folder.write("in.txt", texts.join("\n")), folder.path("job/"));
    let args = job(&model, &input, &output, &["--part-rows", "10", "--json"]);
    succeed(&args);
    let receipt = Path::new(&output).join("_parts").join("part-00001.json").display().to_string();
    let part = folder.path("job/part-00001.npy");
    let merge = ["merge", "-q", &output, "-o", &folder.path("all.npy")];
    for damage in [Some("{"), Some("{}"), Some(""), None] {
        match damage {
            Some(text) => std::fs::write(&receipt, text).unwrap(),
            None => std::fs::remove_file(&receipt).unwrap(),
        }
        for args in [&args[..], &merge] {
            let run = fail(65, &receipt, args);
            assert!(run.stderr.contains(&format!("remove {part} and run the job again")), "{run:?}");
        }
        std::fs::remove_file(&part).unwrap();
        assert_eq!(succeed(&args).json()["parts_here"], 1);
    }
    succeed(&merge);
    check_rows(&output, &texts, &model);
    std::fs::write(folder.path("job/_job.json"), "{").unwrap();
    for args in [&args[..], &merge] {
        let run = fail(65, "job/_job.json: not as it was written (EOF", args);
        assert!(run.stderr.contains("restore it, or remove the folder to begin again"), "{run:?}");
    }
}

fn expected_rows(model: &str, texts: &[&str]) -> Vec<f32> {
    expected(model, texts, &lexel::EncodeOptions::default()).data
}

#[test]
fn a_damaged_parquet_file_is_an_error_or_a_result_and_never_a_crash() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let input = folder.write("in.txt", texts(15).join("\n"));
    let good = folder.path("good.parquet");
    crate::formats::write_parquet(&good, &texts(15), parquet::basic::Compression::SNAPPY);
    let bytes = std::fs::read(&good).unwrap();
    let half = &bytes[..bytes.len() / 2];
    for (name, bytes) in [("cut.parquet", half), ("short.parquet", b"PAR1"), ("none.parquet", b"")] {
        let input = folder.write(name, bytes);
        for output in [folder.path("cut/"), folder.path("cut.npy")] {
            fail(65, "not a Parquet file", &job(&model, &input, &output, &[]));
        }
    }
    for output in [folder.path("type/"), folder.path("type.npy")] {
        let run = |options| job(&model, &good, &output, options);
        fail(65, "column 'number' holds Int64, not strings", &run(&["--column", "number"]));
        fail(65, "there is no column 'body'; the columns are 'text', 'number'", &run(&["--column", "body"]));
    }
    let mut random = Random(7);
    for i in 0..40 {
        let input = folder.write("damaged.parquet", random.damage(&bytes));
        let output = if i % 2 == 0 { folder.path(&format!("damaged-{i}/")) } else { folder.path("damaged.npy") };
        let run = lexel(&job(&model, &input, &output, &[]));
        assert!([0, 65, 74].contains(&run.status), "{run:?}");
    }
    // The good one still goes.
    succeed(&job(&model, &good, &folder.path("good/"), &[]));
    succeed(&job(&model, &input, &folder.path("text/"), &[]));
    assert_close(&rows(&folder.path("good/")), &rows(&folder.path("text/")));
}

#[test]
fn standard_input_is_kept_and_must_stay_the_same() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let texts = texts(100);
    let (whole, output) = (texts.join("\n"), folder.path("job/"));
    let args = job(&model, "-", &output, &["--input-format", "txt", "--part-rows", "30", "--json"]);
    let run = pipe(whole.as_bytes(), &[&args[..], &["--shard", "1/2"]].concat());
    assert_eq!((run.status, &run.json()["rows_here"]), (0, &60.into()), "{run:?}");
    for other in [whole[..whole.len() - 1].to_string(), whole.clone() + "x", whole.replace("text 50", "next 50")] {
        let run = pipe(other.as_bytes(), &args);
        assert!(run.status == 65 && run.stderr.contains("standard input differs"), "{run:?}");
    }
    // Nothing continues with what was read, and so does the same again.
    assert_eq!(succeed(&args).json()["rows_here"], 40);
    assert_eq!(pipe(whole.as_bytes(), &args).json()["rows_here"], 0);
    check_rows(&output, &texts, &model);
    let both = [&args[..], &["-i", "in.txt"]].concat();
    fail(2, "standard input goes alone", &both);
}

#[test]
fn standard_input_that_never_came_to_its_end_is_not_continued_with_nothing() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let texts = texts(100);
    let (whole, output) = (texts.join("\n"), folder.path("job/"));
    let args = job(&model, "-", &output, &["--input-format", "txt", "--json"]);
    let mut child = command().args(&args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&whole.as_bytes()[..500]).unwrap();
    let arriving = folder.path("job/_input/stdin.txt.tmp");
    wait_until(|| std::fs::metadata(&arriving).is_ok_and(|file| file.len() == 500));
    child.kill().unwrap();
    child.wait().unwrap();
    for _ in 0..2 {
        fail(65, "standard input is empty", &args);
        assert_eq!((parts(&output), std::fs::exists(&arriving).unwrap()), (vec![], false));
    }
    assert_eq!(pipe(whole.as_bytes(), &args).json()["texts"], 100);
    check_rows(&output, &texts, &model);
    // From now on, nothing continues it.
    assert_eq!(succeed(&args).json()["parts_before"], 1);
    // An input that is empty from the beginning is complete.
    let empty = folder.path("empty/");
    assert_eq!(succeed(&job(&model, "-", &empty, &["--input-format", "txt", "--json"])).json()["texts"], 0);
}

/// csv-core ends a record there, too.
#[test]
fn carriage_returns_alone_end_records_of_csv() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    for (i, (input, texts)) in [
        (&b"id,text\r1,aaa\r2,bbb\r3,ccc\r"[..], vec!["aaa", "bbb", "ccc"]),
        (b"id,text\r1,aaa\n2,bbb\n3,ccc", vec!["aaa", "bbb", "ccc"]),
        (b"id,text\n1,aaa\n2,b\r3,ccc\n4,ddd\r\n5,eee\r\n", vec!["aaa", "b", "ccc", "ddd", "eee"]),
        (b"id,text\r1,aaa\r2,bbb", vec!["aaa", "bbb"]),
    ]
    .into_iter()
    .enumerate()
    {
        let (input, output) = (folder.write(&format!("{i}.csv"), input), folder.path(&format!("job-{i}/")));
        let options = ["--column", "text", "--part-rows", "2", "--json"];
        let json = succeed(&job(&model, &input, &output, &options)).json();
        assert_eq!((&json["texts"], &json["rejects"]), (&texts.len().into(), &0.into()), "{i}");
        assert_close(&rows(&output), &expected_rows(&model, &texts));
        // Again, nothing is left to do.
        assert_eq!(succeed(&job(&model, &input, &output, &options)).json()["rows_here"], 0);
    }
}

#[test]
fn a_part_without_a_row_does_not_end_a_job() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let (good, bad) = ("{\"text\": \"a\"}\n".repeat(2), "{\"text\": null}\n".repeat(2));
    let input = folder.write("in.jsonl", format!("{good}{bad}{good}"));
    let json = succeed(&job(&model, &input, &folder.path("job/"), &["--part-rows", "2", "--json"])).json();
    assert_eq!((&json["texts"], &json["rejects"]), (&4.into(), &2.into()));
    let input = folder.write("first.jsonl", format!("{bad}{good}"));
    let output = folder.path("first/");
    fail(65, "--on-invalid skip goes on all the same", &job(&model, &input, &output, &["--part-rows", "2"]));
    let options = ["--part-rows", "2", "--on-invalid", "skip", "--json"];
    let json = succeed(&job(&model, &input, &folder.path("skipped/"), &options)).json();
    assert_eq!((&json["texts"], &json["rejects"]), (&2.into(), &2.into()));
}

#[test]
fn a_column_that_no_row_has_is_not_kept_in_vain() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let input = folder.write("in.jsonl", "{\"text\": \"a\", \"id\": 1}\n{\"text\": \"b\", \"note\": \"x\"}\n");
    let with = |name: &'static str| ["--output-format", "jsonl", "--keep-columns", name];
    let run = |output: &str, name| {
        job(&model, &input, output, &with(name)).iter().map(|arg| arg.to_string()).collect::<Vec<_>>()
    };
    let wrong: Vec<String> = run(&folder.path("wrong/"), "id,nope");
    let expected = "no record has the key 'nope', which is to be kept; the keys are 'id', 'note', 'text'";
    fail(65, expected, &wrong.iter().map(String::as_str).collect::<Vec<_>>());
    // One that some rows have, and one that is named twice.
    let right: Vec<String> = run(&folder.path("right/"), "note,id,note");
    succeed(&right.iter().map(String::as_str).collect::<Vec<_>>());
    let part = std::fs::read_to_string(folder.path("right/part-00000.jsonl")).unwrap();
    assert!(part.lines().all(|line| line.matches("\"note\"").count() == 1 && line.contains("\"id\"")), "{part}");
}

#[cfg(unix)]
#[test]
fn a_folder_with_a_link_to_itself_is_read_once() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    std::fs::create_dir_all(folder.path("in/sub")).unwrap();
    folder.write("in/a.txt", "one\n");
    folder.write("in/sub/b.txt", "two\n");
    for name in ["in/self", "in/sub/up"] {
        std::os::unix::fs::symlink(folder.path("in"), folder.path(name)).unwrap();
    }
    // Folders that match a pattern are read, too: of the second, what lies above it.
    for input in [folder.path("in"), folder.path("in/su?")] {
        let json = succeed(&job(&model, &input, &folder.path("job/"), &["--json"])).json();
        assert_eq!(json["rows_in"], 2, "{input}");
        std::fs::remove_dir_all(folder.path("job")).unwrap();
    }
    // A job's own folder is not read by the next.
    for _ in 0..2 {
        succeed(&job(&model, &folder.path("in"), &folder.path("in/vectors/"), &["--output-format", "jsonl"]));
    }
}

/// What cannot be read again, or found again, is no input of a job.
#[cfg(unix)]
#[test]
fn a_pipe_and_a_name_that_is_no_text_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    let (folder, model) = (Folder::new(), model("pool-mean"));
    std::fs::create_dir(folder.path("in")).unwrap();
    let name = std::ffi::OsStr::from_bytes(b"in/\xff.txt");
    std::fs::write(std::path::Path::new(&folder.path("")).join(name), "text").unwrap();
    fail(2, "this name is not UTF-8", &job(&model, &folder.path("in"), &folder.path("job/"), &[]));
    let pipe = folder.path("pipe.txt");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fail(2, "pipe.txt is a pipe or a device", &job(&model, &pipe, &folder.path("job/"), &[]));
}
