//! Ctrl-C: what is computed is kept, and the way to go on is said.

use crate::jobs::{check_rows, job, parts, texts};
use crate::support::*;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

fn interrupt(child: &Child) {
    // SAFETY: a signal to a child that was not waited for yet.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
}

fn start(args: &[&str]) -> Child {
    command().args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until there is a file.
fn wait_for(path: &str) {
    wait_until(|| std::path::Path::new(path).exists());
}

/// The number before this word.
fn number_before(text: &str, word: &str) -> u64 {
    let before = text.split(word).next().unwrap();
    before.split(|c: char| !c.is_ascii_digit()).rfind(|digits| !digits.is_empty()).unwrap().parse().unwrap()
}

#[test]
fn a_job_saves_the_rows_it_has_and_says_how_to_continue() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    // All different, so that rows and tokens can be counted.
    let texts = texts(30_000);
    let input = folder.write("in put.txt", texts.join("\n"));
    let whole = folder.path("whole/");
    let options = ["--part-rows", "12000", "--batch-tokens", "100", "--json"];
    let expected = succeed(&job(&model, &input, &whole, &options)).json();

    let output = folder.path("job/");
    let (mut before, mut interrupted, mut last) = (0, 0, None);
    for _ in 0..50 {
        let child = start(&job(&model, &input, &output, &options));
        wait_for(&folder.path(if before == 0 { "job/_work/part-00000.lock" } else { "job/_job.lock" }));
        std::thread::sleep(Duration::from_millis(60));
        interrupt(&child);
        let run = Run::of(child.wait_with_output().unwrap());
        if run.status == 0 {
            last = Some(run.json());
            break;
        }
        assert_eq!(run.status, 130, "{run:?}");
        // Before the work began, it ends at once.
        if !run.stderr.contains("parts are complete in") {
            continue;
        }
        let complete = number_before(&run.stderr, " of 3 parts are complete");
        assert_eq!(complete as usize, parts(&output).len());
        let saved = match run.stderr.contains(" rows of the next are saved") {
            true => number_before(&run.stderr, " rows of the next are saved"),
            false => 0,
        };
        let there = saved + (complete * 12_000).min(30_000);
        // Nothing that was there is lost.
        assert!(there >= before, "{before} rows before: {run:?}");
        interrupted += u32::from(there > before);
        before = there;
        if interrupted == 3 {
            // The command that it says, by a shell.
            let line = run.stderr.lines().last().unwrap().trim();
            assert!(line.contains("'") && line.contains("--part-rows 12000"), "{line}");
            let mut shell = Command::new("sh");
            shell.args(["-c", line]).env("NODEVICE_SELECT", "1").env("HF_HUB_OFFLINE", "1");
            let run = Run::of(shell.output().unwrap());
            assert_eq!(run.status, 0, "{run:?}");
            last = Some(run.json());
            break;
        }
    }
    let last = last.unwrap();
    assert!(interrupted > 0 && before > 0);
    // What was saved is not computed again: the last run had the rest to do, and all runs together what one does.
    assert_eq!(last["rows_here"], 30_000 - before, "{last}");
    assert_eq!((&last["texts"], &last["rejects"]), (&30_000.into(), &0.into()));
    assert_eq!((&last["tokens"], &last["truncated"]), (&expected["tokens"], &expected["truncated"]));
    assert!(last["tokens_here"].as_u64() < last["tokens"].as_u64());
    check_rows(&output, &texts, &model);
    assert!(!std::path::Path::new(&folder.path("job/_work")).exists());
}

#[test]
fn the_second_time_a_job_ends_at_once() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let texts = texts(60_000);
    let (input, output) = (folder.write("in.txt", texts.join("\n")), folder.path("job/"));
    // A batch takes long.
    let args = job(&model, &input, &output, &["--batch-tokens", "10000000", "--part-rows", "60000"]);
    let at_once = (0..20).any(|_| {
        let child = start(&args);
        wait_for(&folder.path("job/_work/part-00000.lock"));
        // Until it computes; before that, it ends by itself.
        std::thread::sleep(Duration::from_millis(200));
        interrupt(&child);
        std::thread::sleep(Duration::from_millis(20));
        interrupt(&child);
        let run = Run::of(child.wait_with_output().unwrap());
        assert!(run.status == 130 && parts(&output).is_empty(), "{run:?}");
        run.stderr == "lexel: interrupted\n"
    });
    assert!(at_once);
    succeed(&args);
    check_rows(&output, &texts, &model);
}

#[test]
fn a_single_file_starts_over_and_leaves_nothing() {
    waiting_for_input(&["encode", "--model", &model("pool-mean"), "--input-format", "txt"]);
    waiting_for_input(&["predict", "--model", &cross_encoder("bert-1"), "--input-format", "tsv", "--no-header"]);

    let (folder, model) = (Folder::new(), model("pool-mean"));
    let (input, output) = (folder.write("in.txt", texts(60_000).join("\n")), folder.path("out.npy"));
    let child =
        start(&["encode", "--device", "cpu", "-m", &model, "-i", &input, "-o", &output, "--batch-tokens", "100"]);
    wait_for(&folder.path(".out.npy.lexel-tmp"));
    std::thread::sleep(Duration::from_millis(200));
    interrupt(&child);
    let run = Run::of(child.wait_with_output().unwrap());
    assert_eq!(run.status, 130, "{run:?}");
    assert!(run.stderr.contains("interrupted: finishing the batch in flight"), "{run:?}");
    let how = "a single file keeps none of them and starts over; --output FOLDER/ would continue";
    assert!(run.stderr.contains(how), "{run:?}");
    assert_eq!(folder.names(), ["in.txt"]);
}

#[test]
fn signals_that_were_ignored_stay_ignored() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let output = folder.path("out.npy");
    let program = command().get_program().to_str().unwrap().to_string();
    let args = ["encode", "--device", "cpu", "-m", &model, "-i", "-", "--input-format", "txt", "-o", &output];
    // As `nohup lexel ... &` does.
    let mut child = Command::new("sh")
        .args(["-c", &format!("trap '' INT HUP; exec {program} {}", args.join(" "))])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut messages = String::new();
    stderr.read_line(&mut messages).unwrap();
    assert!(messages.starts_with("device: "), "{messages}");
    for signal in [libc::SIGINT, libc::SIGHUP, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: a signal to a child that was not waited for yet.
        unsafe { libc::kill(child.id() as i32, signal) };
        std::thread::sleep(Duration::from_millis(50));
    }
    child.stdin.take().unwrap().write_all(b"one\ntwo").unwrap();
    stderr.read_to_string(&mut messages).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{messages}");
    assert!(!messages.contains("interrupted"), "{messages}");
    assert_eq!(floats(&output).0[0], 2);
}

/// Ctrl-C while the program waits for more of its input: alone, or just after whoever writes it has ended.
fn waiting_for_input(args: &[&str]) {
    waiting_for_input_that(None, args);
    // At any moment of its own waiting, which it does 100 ms at a time.
    for pause in [0, 40, 80, 120, 160] {
        waiting_for_input_that(Some(Duration::from_millis(pause)), args);
    }
}

/// `ends`: the input does, so long after the program has begun to wait.
fn waiting_for_input_that(ends: Option<Duration>, args: &[&str]) {
    let folder = Folder::new();
    let mut child = command()
        .args(args)
        .args(["--device", "cpu", "-i", "-"])
        .args(["-o", &folder.path("out.npy"), "--window", "1"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take();
    stdin.as_mut().unwrap().write_all(b"one\ttwo\nthree\tfour\n").unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut messages = String::new();
    stderr.read_line(&mut messages).unwrap();
    assert!(messages.starts_with("device: "), "{messages}");
    assert_eq!(folder.names(), [".out.npy.lexel-tmp"]);
    if let Some(pause) = ends {
        std::thread::sleep(Duration::from_millis(100) + pause);
        stdin = None;
    }
    interrupt(&child);
    stderr.read_to_string(&mut messages).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{messages}");
    assert!(messages.contains("lexel: interrupted"), "{messages}");
    assert!(folder.names().is_empty(), "{:?}", folder.names());
    drop(stdin);
}

/// What had come until then is not taken for the whole input when the job is continued.
#[test]
fn a_job_whose_writer_is_interrupted_as_well_keeps_none_of_its_input() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let output = folder.path("job/");
    let args = [&job(&model, "-", &output, &[])[..], &["--input-format", "txt"]].concat();
    let mut child = command().args(&args).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"one\ntwo\n").unwrap();
    let file = folder.path("job/_input/stdin.txt.tmp");
    wait_until(|| std::fs::metadata(&file).is_ok_and(|file| file.len() == 8));
    drop(stdin);
    interrupt(&child);
    let run = Run::of(child.wait_with_output().unwrap());
    assert_eq!(run.status, 130, "{run:?}");
    assert_eq!(std::fs::read_dir(folder.path("job/_input")).unwrap().count(), 0);
}
