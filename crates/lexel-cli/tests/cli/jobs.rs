//! Job folders: parts, resumed, whatever kills the program.

use crate::support::*;
use lexel::EncodeOptions;
use std::process::Stdio;
use std::time::Duration;

/// `encode` into a job folder.
pub fn job<'a>(model: &'a str, input: &'a str, output: &'a str, options: &[&'a str]) -> Vec<&'a str> {
    [&["encode", "--device", "cpu", "-q", "-m", model, "-i", input, "-o", output][..], options].concat()
}

pub fn texts(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("text {i}{}", [" word"; 7][..i % 7].concat())).collect()
}

/// The names of parts.
pub fn parts(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.filter(|name| name.starts_with("part-")).collect();
    names.sort();
    names
}

/// All rows of .npy parts.
pub fn rows(folder: &str) -> Vec<f32> {
    parts(folder).iter().flat_map(|name| floats(&format!("{folder}/{name}")).1).collect()
}

/// Everything in a folder but the parts.
fn rest(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.filter(|name| !name.starts_with("part-")).collect();
    names.sort();
    names
}

/// A generator of numbers that do not matter.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % end
    }

    /// The same bytes but for some.
    pub fn damage(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut damaged = bytes.to_vec();
        for _ in 0..20 {
            let at = self.below(bytes.len() as u64) as usize;
            damaged[at] = self.below(256) as u8;
        }
        damaged
    }
}

#[test]
fn parts_are_the_rows_in_order_and_join_to_one_file() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let texts = texts(100);
    let input = folder.write("in.txt", texts.join("\n"));
    let expected = expected(&model, &texts.iter().map(String::as_str).collect::<Vec<_>>(), &EncodeOptions::default());
    for (format, shards) in [("npy", 1), ("jsonl", 2), ("parquet", 3), ("safetensors", 1)] {
        let mut folders = Vec::new();
        for shard in 1..=shards {
            let output = folder.path(&format!("job-{format}-{shard}/"));
            let shard = format!("{shard}/{shards}");
            let options = ["--output-format", format, "--part-rows", "7", "--shard", &shard, "--json"];
            let json = succeed(&job(&model, &input, &output, &options)).json();
            assert!(json["rejects"] == 0 && json["tokens"].as_u64().unwrap() > 200, "{json}");
            folders.push(output);
        }
        let single = folder.path(&format!("all.{format}"));
        let folders: Vec<&str> = folders.iter().map(String::as_str).collect();
        let merge = [&["merge", "-q", "-o", &single], &folders[..]].concat();
        if shards == 2 {
            fail(75, "of 15 parts are missing", &merge[..merge.len() - 1]);
        }
        assert_eq!(succeed(&[&merge[..], &["--json"]].concat()).json()["rows"], 100);
        match format {
            "npy" => {
                assert_close(&rows(folders[0]), &expected.data);
                assert_close(&floats(&single).1, &expected.data);
                assert_eq!(rest(folders[0]), ["_job.json", "_parts", "_report.json"]);
            }
            "jsonl" => {
                let lines = std::fs::read_to_string(&single).unwrap();
                let indices = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
                assert!(indices.map(|line| line["index"].as_u64().unwrap()).eq(0..100));
            }
            _ => assert!(std::fs::metadata(&single).unwrap().len() > 100 * 4 * expected.cols as u64),
        }
    }
}

#[test]
fn rows_that_cannot_be_read_are_rejects() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let input = folder.write("in.txt", b"one\ntw\xffo\n\nthree\n".repeat(10));
    let output = folder.path("job/");
    let options = ["--part-rows", "7", "--json"];
    let run = succeed(&job(&model, &input, &output, &options));
    let json = run.json();
    assert_eq!((&json["rows_in"], &json["texts"], &json["rejects"]), (&40.into(), &30.into(), &10.into()));
    // Whatever is quiet.
    assert_eq!(run.stderr, format!("lexel: warning: 10 rows without a result: see {output}_rejects.jsonl\n"));
    let run = succeed(&["merge", "-q", &output, "-o", &folder.path("all.npy")]);
    let list = folder.path("all.npy.rejects.jsonl");
    assert_eq!(run.stderr, format!("lexel: warning: 10 rows without a result: see {list}\n"));
    let run = succeed(&job(&model, &input, &folder.path("shard/"), &["--part-rows", "7", "--shard", "1/2"]));
    assert!(run.stderr.contains(" rows without a result: the complete job, or `lexel merge`, lists them"), "{run:?}");
    let rejects = std::fs::read_to_string(folder.path("job/_rejects.jsonl")).unwrap();
    assert!(rejects.lines().nth(1).unwrap().starts_with("{\"row\":5,"), "{rejects}");
    assert!(rejects.contains("in.txt, line 6: not valid UTF-8: byte 0xff at column 3"), "{rejects}");
    assert_eq!(rows(&output).len() % 30, 0);
    let json = succeed(&job(&model, &input, &folder.path("lossy/"), &["--on-invalid", "replace", "--json"])).json();
    assert_eq!((&json["texts"], &json["rejects"]), (&40.into(), &0.into()));
    fail(65, "line 2: not valid UTF-8", &job(&model, &input, &folder.path("strict/"), &["--on-invalid", "fail"]));

    let wrong = folder.write("in.jsonl", "{\"body\": \"one\"}\n".repeat(20));
    fail(65, "none of 20 rows can be read; the first: ", &job(&model, &wrong, &folder.path("wrong/"), &[]));
    let wrong = folder.write("in.csv", "body\none\n");
    fail(65, "there is no column 'text'", &job(&model, &wrong, &folder.path("column/"), &[]));
    assert!(!std::path::Path::new(&folder.path("column")).exists());
}

#[test]
fn several_files_folders_and_patterns_and_kept_columns() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    std::fs::create_dir(folder.path("in")).unwrap();
    let csv = |from: usize| {
        (from..from + 5)
            .fold("id,text,x\n".to_string(), |csv, i| csv + &format!("{i},\"two\nlines, {i}\",x{i}\r\n\r\n"))
    };
    for i in 0..3 {
        folder.write(&format!("in/{i}.csv"), csv(5 * i));
    }
    let (pattern, all) = (folder.path("in/*.csv"), folder.path("in"));
    let kept = ["--id-column", "id", "--keep-columns", "x", "--output-format", "jsonl", "--part-rows", "2"];
    for (name, input) in [("pattern/", &pattern), ("folder/", &all)] {
        let output = folder.path(name);
        succeed(&job(&model, input, &output, &kept));
        assert_eq!(parts(&output).len(), 8, "15 rows, whichever file they are of");
        let merged = folder.path("all.jsonl");
        succeed(&["merge", "-q", &output, "-o", &merged]);
        for (i, line) in std::fs::read_to_string(merged).unwrap().lines().enumerate() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(
                (&line["index"], &line["id"], &line["x"]),
                (&i.into(), &i.to_string().into(), &format!("x{i}").into())
            );
        }
    }
    // Parquet out, Parquet in.
    let output = folder.path("parquet/");
    let kept = ["--id-column", "id", "--keep-columns", "text", "--output-format", "parquet", "--part-rows", "4"];
    succeed(&job(&model, &all, &output, &kept));
    let again = folder.path("again/");
    let kept = ["--keep-columns", "id", "--output-format", "jsonl", "--part-rows", "3"];
    let from_parquet = folder.path("all.parquet");
    succeed(&["merge", "-q", &output, "-o", &from_parquet]);
    succeed(&job(&model, &from_parquet, &again, &kept));
    let merged = folder.path("again.jsonl");
    succeed(&["merge", "-q", &again, "-o", &merged]);
    let (a, b) = (std::fs::read_to_string(folder.path("all.jsonl")).unwrap(), std::fs::read_to_string(merged).unwrap());
    for (a, b) in a.lines().zip(b.lines()) {
        let [a, b]: [serde_json::Value; 2] = [a, b].map(|line| serde_json::from_str(line).unwrap());
        let numbers = |line: &serde_json::Value| -> Vec<f32> {
            line["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
        };
        assert_eq!((&a["index"], &a["id"]), (&b["index"], &b["id"]));
        assert_close(&numbers(&a), &numbers(&b));
    }
    let bytes = std::fs::read(&from_parquet).unwrap();
    for (name, bytes) in [("cut.parquet", &bytes[..bytes.len() / 2]), ("short.parquet", b"PAR1")] {
        let input = folder.write(name, bytes);
        fail(65, "not a Parquet file", &job(&model, &input, &folder.path("cut/"), &[]));
    }
    fail(65, "column 'index' holds Int64", &job(&model, &from_parquet, &folder.path("cut/"), &["--column", "index"]));
    // Damage anywhere: an error or a result, never a crash.
    let mut random = Random(7);
    for i in 0..40 {
        let input = folder.write("damaged.parquet", random.damage(&bytes));
        let run = lexel(&job(&model, &input, &folder.path(&format!("damaged-{i}/")), &[]));
        assert!([0, 65, 74].contains(&run.status), "{run:?}");
    }
}

/// A model that is an adapter consists of its base model's files, too.
#[test]
fn a_job_of_an_adapter_continues_only_with_its_base() {
    let folder = Folder::new();
    let (input, base) = (folder.write("in.txt", texts(3).join("\n")), folder.path("base"));
    copy_folder(&model("prompts"), &base);
    let adapter = crate::support::adapter(&folder);
    let config = std::fs::read_to_string(format!("{adapter}/adapter_config.json")).unwrap();
    let with_base = format!("{{\"base_model_name_or_path\": {base:?}, {}", &config[1..]);
    std::fs::write(format!("{adapter}/adapter_config.json"), with_base).unwrap();
    let output = folder.path("job/");
    succeed(&job(&adapter, &input, &output, &[]));
    succeed(&job(&adapter, &input, &output, &[]));
    let weights = format!("{base}/model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(weights, bytes).unwrap();
    let run = lexel(&job(&adapter, &input, &output, &[]));
    assert!(run.status == 2 && run.stderr.contains("model file of folder 2: model.safetensors"), "{run:?}");
}

#[test]
fn a_job_continues_only_as_it_began() {
    let (folder, model) = (Folder::new(), model("prompts"));
    let input = folder.write("in.txt", texts(30).join("\n"));
    let output = folder.path("job/");
    let run = |options: &[&str]| lexel(&job(&model, &input, &output, options));
    assert_eq!(run(&["--part-rows", "10"]).status, 0);
    for (options, what) in [
        (&["--prompt", "x"][..], "prompt: null when the job began, \"x\" now"),
        (&["--precision", "float16"], "precision"),
        (&["--truncate-dim", "4"], "dimensions"),
        (&["--normalize"], "normalize"),
        (&["--max-seq-length", "9"], "max_seq_length"),
        (&["--output-format", "jsonl"], "output_format"),
        (&["--part-rows", "7"], "--part-rows 7: "),
        (&["--part-rows", "7"], "holds a job that began with 10: leave it out"),
    ] {
        let run = run(options);
        assert!(run.status == 2 && run.stderr.contains(what), "{run:?}");
    }
    let adapted = run(&["--adapter", &crate::support::adapter(&folder)]);
    assert!(adapted.status == 2 && adapted.stderr.contains("adapter: nothing when the job began"), "{adapted:?}");
    assert!(adapted.stderr.contains("model file of folder 2: adapter_model.safetensors"), "{adapted:?}");
    let other = crate::support::model("pool-mean");
    let run = lexel(&job(&other, &input, &output, &[]));
    assert!(run.status == 2 && run.stderr.contains("model file model.safetensors"), "{run:?}");

    // Touched is not changed; complete is complete.
    std::fs::write(&input, texts(30).join("\n")).unwrap();
    let json = succeed(&job(&model, &input, &output, &["--part-rows", "10", "--json"])).json();
    assert_eq!((&json["parts_here"], &json["parts_before"]), (&0.into(), &3.into()));
    std::fs::write(&input, texts(30).join("\n").replace("text 25", "next 25")).unwrap();
    fail(65, "in.txt was changed since the job began", &job(&model, &input, &output, &["--part-rows", "10"]));
    std::fs::write(&input, texts(31).join("\n")).unwrap();
    fail(65, "bytes when the job began", &job(&model, &input, &output, &[]));
    // A part that was cut afterwards is noticed, and made again once removed.
    std::fs::write(&input, texts(30).join("\n")).unwrap();
    std::fs::write(folder.path("job/part-00001.npy"), "x").unwrap();
    fail(65, "part-00001.npy: 1 bytes", &job(&model, &input, &output, &[]));
    std::fs::remove_file(folder.path("job/part-00001.npy")).unwrap();
    assert_eq!(succeed(&job(&model, &input, &output, &["--json"])).json()["parts_here"], 1);
}

/// Rows that cannot be read are told of by the line of their own file, and counted over all; a file that was changed is named.
#[test]
fn small_files_share_a_part() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    std::fs::create_dir(folder.path("in")).unwrap();
    let all: Vec<String> = (0..40).map(|i| format!("small text {i}")).collect();
    for (i, text) in all.iter().enumerate() {
        let lines = if i == 20 { format!("{{\n\"{text}\"\n") } else { format!("\"{text}\"\n") };
        folder.write(&format!("in/{i:02}.jsonl"), lines);
    }
    let (input, output) = (folder.path("in"), folder.path("out/"));
    succeed(&job(&model, &input, &output, &["--part-rows", "30"]));
    assert_eq!(parts(&output).len(), 2);
    let rejects = std::fs::read_to_string(folder.path("out/_rejects.jsonl")).unwrap();
    assert!(rejects.contains("\"row\":20,") && rejects.contains("20.jsonl, line 1: "), "{rejects}");
    assert_eq!(rejects.lines().count(), 1);
    let merged = folder.path("all.npy");
    succeed(&["merge", "-q", &output, "-o", &merged]);
    let texts: Vec<&str> = all.iter().map(String::as_str).collect();
    // A batch of another size may be another way of rounding.
    assert_close(&floats(&merged).1, &expected(&model, &texts, &EncodeOptions::default()).data);

    folder.write("in/35.jsonl", "\"other text 35\"\n");
    std::fs::remove_file(folder.path("out/part-00001.npy")).unwrap();
    fail(65, "35.jsonl was changed since the job began", &job(&model, &input, &output, &[]));
}

/// Neither the input nor the job is tied to its place; what stands at another place must be the same.
#[test]
fn a_job_goes_on_where_it_was_moved() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let input = folder.write("in.txt", texts(20).join("\n"));
    let whole = folder.path("whole/");
    succeed(&job(&model, &input, &whole, &["--part-rows", "5"]));
    let first = folder.path("first/");
    succeed(&job(&model, &input, &first, &["--part-rows", "5", "--shard", "1/2"]));
    let [moved, second] = [folder.path("moved.txt"), folder.path("second/")];
    std::fs::rename(&first, &second).unwrap();
    std::fs::rename(&input, &moved).unwrap();
    let other = folder.write("other.txt", texts(20).join("\n").replace("text 11", "next 11"));
    fail(65, "other.txt is not what ", &job(&model, &other, &second, &[]));
    let longer = folder.write("longer.txt", texts(21).join("\n"));
    fail(65, "longer.txt now", &job(&model, &longer, &second, &[]));
    let json = succeed(&job(&model, &moved, &second, &["--json"])).json();
    assert_eq!((&json["parts_here"], &json["parts_before"]), (&2.into(), &2.into()));
    for part in 0..4 {
        let name = format!("part-{part:05}.npy");
        let read = |folder: &str| std::fs::read(folder.to_string() + &name).unwrap();
        assert!(read(&whole) == read(&second), "{name}");
    }
}

/// `kill -9` at any moment, with one to three processes on the folder.
fn kill_loop(kills: usize) {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let texts = texts(6000);
    let input = folder.write("in.txt", texts.join("\n"));
    let (output, mut random) = (folder.path("job/"), Random(std::process::id().into()));
    let args = job(&model, &input, &output, &["--part-rows", "4"]);
    let start = || command().args(&args).stderr(Stdio::null()).spawn().unwrap();
    let (mut killed, mut rounds) = (0, 0);
    while killed < kills {
        let mut children: Vec<_> = (0..1 + random.below(3)).map(|_| start()).collect();
        for child in &mut children {
            std::thread::sleep(Duration::from_millis(random.below(120)));
            if child.try_wait().unwrap().is_none() {
                child.kill().unwrap();
                killed += 1;
            }
            child.wait().unwrap();
        }
        if std::path::Path::new(&folder.path("job/_report.json")).exists() {
            check_rows(&output, &texts, &model);
            std::fs::remove_dir_all(&output).unwrap();
            rounds += 1;
        }
    }
    let json = succeed(&[&args[..], &["--json"]].concat()).json();
    eprintln!("{} parts of {} were there before the last run", json["parts_before"], json["parts"]);
    assert_eq!((&json["texts"], &json["rejects"]), (&6000.into(), &0.into()));
    check_rows(&output, &texts, &model);
    assert_eq!(rest(&output), ["_job.json", "_parts", "_report.json"]);
    eprintln!("{killed} kills, {rounds} jobs complete before the last, {} rows checked", texts.len() * (rounds + 1));
}

pub fn check_rows(output: &str, texts: &[String], model: &str) {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    assert_close(&rows(output), &expected(model, &texts, &EncodeOptions::default()).data);
}

#[test]
fn killed_at_any_moment_nothing_is_lost_or_double() {
    let kills = std::env::var("LEXEL_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(200);
    kill_loop(kills);
}

#[test]
fn several_processes_share_a_folder() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let texts = texts(3000);
    let input = folder.write("in.txt", texts.join("\n"));
    for processes in [2, 4] {
        let output = folder.path(&format!("job-{processes}/"));
        let args = job(&model, &input, &output, &["--part-rows", "20", "--json"]);
        let start = |_| command().args(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let children: Vec<_> = (0..processes).map(start).collect();
        let runs: Vec<Run> = children.into_iter().map(|child| Run::of(child.wait_with_output().unwrap())).collect();
        assert!(runs.iter().all(|run| run.status == 0 && run.json()["texts"] == 3000), "{runs:?}");
        let here: u64 = runs.iter().map(|run| run.json()["rows_here"].as_u64().unwrap()).sum();
        assert_eq!(here, 3000, "{runs:?}");
        check_rows(&output, &texts, &model);
    }
}

#[test]
fn a_shard_counts_its_own_parts_until_the_job_is_complete() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let (input, output) = (folder.write("in.txt", texts(40).join("\n")), folder.path("job/"));
    for (shard, parts, before) in [("1/4", 1, 0), ("2/4", 1, 0), ("1/2", 2, 1), ("2/2", 4, 3), ("2/4", 4, 4)] {
        let json = succeed(&job(&model, &input, &output, &["--part-rows", "10", "--shard", shard, "--json"])).json();
        assert_eq!((&json["parts"], &json["parts_before"]), (&parts.into(), &before.into()), "{shard}: {json}");
    }
}

#[test]
fn predict_makes_jobs_too() {
    let (folder, model) = (Folder::new(), cross_encoder("bert-3"));
    let pairs: Vec<(String, String)> = (0..50).map(|i| (format!("query {}", i % 7), format!("text {i}"))).collect();
    let input = folder.write("in.tsv", pairs.iter().map(|(a, b)| format!("{a}\t{b}\n")).collect::<String>());
    let (output, single) = (folder.path("job/"), folder.path("all.npy"));
    let common = ["predict", "--device", "cpu", "-q", "-m", &model, "-i", &input, "--no-header"];
    succeed(&[&common[..], &["-o", &output, "--part-rows", "9"]].concat());
    succeed(&["merge", "-q", &output, "-o", &single]);
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let (shape, found) = scores(&single);
    assert_eq!(shape, [50, 3]);
    assert_close(&found, &expected_scores(&model, &pairs, &lexel::PredictOptions::default()).data);
    let parquet = folder.path("parquet/");
    succeed(&[&common[..], &["-o", &parquet, "--output-format", "parquet"]].concat());
    let run = lexel(&[&common[..], &["-o", &output, "--softmax"]].concat());
    assert!(run.status == 2 && run.stderr.contains("softmax: false when the job began, true now"), "{run:?}");
}

#[test]
fn no_rows_make_a_part_of_none() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    for (name, contents) in [("in.txt", ""), ("in.tsv", "text\n")] {
        for format in ["npy", "parquet", "safetensors", "jsonl"] {
            let output = folder.path(&format!("{name}-{format}/"));
            let input = folder.write(name, contents);
            succeed(&job(&model, &input, &output, &["--output-format", format]));
            assert_eq!(parts(&output), [format!("part-00000.{format}")]);
        }
    }
}
