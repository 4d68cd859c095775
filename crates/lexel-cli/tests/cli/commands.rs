//! The other subcommands.

use crate::support::*;

#[test]
fn help_names_every_subcommand_and_every_status() {
    let help = succeed(&["--help"]);
    let names = [
        "encode",
        "encode-sparse",
        "encode-multi-vector",
        "predict",
        "rank",
        "similarity",
        "devices",
        "info",
        "download",
        "bench",
    ];
    for name in names.iter().chain(&["66 ", "130 ", "LEXEL_DEVICE"]) {
        assert!(help.text().contains(name), "{name}");
    }
    for name in names {
        assert!(succeed(&[name, "--help"]).text().contains("Usage: lexel"));
    }
    for name in ["encode", "encode-sparse", "encode-multi-vector", "predict", "rank", "similarity", "bench"] {
        assert!(succeed(&[name, "--help"]).text().contains("--interactive"), "{name}");
    }
    assert!(succeed(&["encode", "--help"]).text().contains("an existing file of that name is replaced"));
    assert!(succeed(&["--version"]).text().starts_with("lexel "));
}

#[test]
fn similarity_prints_the_models_own_function_as_a_table_or_json() {
    let (folder, model) = (Folder::new(), model("similarity-euclidean"));
    let input = folder.write("in.jsonl", "{\"text\": \"two\"}\n");
    let common = ["similarity", "-q", "--device", "cpu", "--model", &model, "one", "one", "--input", &input];
    let run = succeed(&common);
    let lines: Vec<&str> = run.text().lines().collect();
    assert_eq!(lines.len(), 4);
    assert!(lines[1].ends_with("  one") && lines[3].ends_with("  two"), "{run:?}");
    assert!(lines[1].contains("0.0000"), "{run:?}");

    let json = succeed(&[&common[..], &["--json"]].concat()).json();
    assert_eq!((&json["similarity"], &json["texts"][2]), (&"euclidean".into(), &"two".into()));
    let score = |i: usize, j: usize| json["scores"][i][j].as_f64().unwrap();
    assert!(score(0, 1) == 0.0 && score(0, 2) < 0.0 && (score(0, 2) - score(2, 0)).abs() < 1e-6);
    fail(2, "required arguments", &["similarity", "--model", &model]);
}

#[test]
fn info_tells_what_the_files_say() {
    let model = model("prompts");
    let run = succeed(&["info", &model]);
    for expected in ["architecture", "bert", "Transformer -> Pooling (mean", "prompts", "F32", "model.safetensors: "] {
        assert!(run.text().contains(expected), "{expected}: {run:?}");
    }
    let json = succeed(&["info", &model, "--json"]).json();
    assert_eq!((&json["similarity"], &json["architecture"]), (&"cosine".into(), &"bert".into()));
    assert!(json["parameters"].as_u64().unwrap() > 1000 && json["prompts"]["query"].is_string());
    let program = succeed(&["info", &model, "--program"]);
    assert!(program.text().starts_with("%0 [tokens, ") && program.text().contains("output: sentences %"));
}

/// Its own reading of the files, without the weights, must be the library's.
#[test]
fn info_on_a_cross_encoder_tells_its_labels_and_activation() {
    let run = succeed(&["info", &cross_encoder("bert-3")]);
    assert!(run.stderr.is_empty(), "{run:?}");
    for expected in
        ["activation       identity", "labels           contradiction, entailment, neutral", "Transformer\n"]
    {
        assert!(run.text().contains(expected), "{expected}: {run:?}");
    }
    assert!(succeed(&["info", &cross_encoder("bert-1"), "--program"]).text().contains("classifier"));

    let mut activations = std::collections::BTreeSet::new();
    for case in cross_encoder_cases()["models"].as_array().unwrap() {
        let (name, folder) = (case["name"].as_str().unwrap(), Folder::new());
        // Stored as a bi-encoder: a cross-encoder only where it is used as one.
        if name.ends_with("-other-type") {
            continue;
        }
        let path = folder.path("model");
        std::fs::create_dir(&path).unwrap();
        // Some are stored as what differs from a base.
        for stored in [case["base"].as_str().unwrap_or(name), name] {
            for file in std::fs::read_dir(cross_encoder(stored)).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), format!("{path}/{}", file.file_name().to_str().unwrap())).unwrap();
            }
        }
        let run = lexel(&["info", &path, "--json"]);
        match lexel::CrossEncoder::builder(&path).device(lexel::Device::Cpu).load() {
            Ok(model) => {
                let json = run.json();
                assert_eq!(json["activation"], model.activation().name(), "{name}");
                assert_eq!(json["labels"], serde_json::json!(model.labels()), "{name}");
                assert_eq!(json["prompts"], serde_json::json!(model.prompts()), "{name}");
                assert_eq!(json["max_seq_length"], serde_json::json!(model.max_seq_length()), "{name}");
                activations.insert(model.activation().name());
            }
            Err(error) if error.to_string().contains("activation_fn") => assert_eq!(run.status, 65, "{name}: {run:?}"),
            // A default prompt that is not there, for one.
            Err(_) => {}
        }
    }
    assert!(activations.len() > 2, "{activations:?}");
}

#[test]
fn download_of_a_folder_is_the_folder() {
    let model = model("pool-mean");
    assert_eq!(succeed(&["download", &model]).text(), format!("{model}\n"));
    assert_eq!(succeed(&["download", &model, "--json"]).json()["folder"], model.as_str());
}

#[test]
fn devices_end_with_the_cpu_and_say_what_auto_takes() {
    let run = succeed(&["devices"]);
    assert!(run.text().contains("\ncpu\n") || run.text().starts_with("cpu\n"), "{run:?}");
    assert!(run.text().lines().last().unwrap().starts_with("auto: "), "{run:?}");
    let json = succeed(&["devices", "--json"]).json();
    assert_eq!(json["devices"].as_array().unwrap().last().unwrap()["device"], "cpu");
    let named = Run::of(command().args(["devices", "--json"]).env("LEXEL_DEVICE", "cpu").output().unwrap());
    assert_eq!(named.json()["auto"], "cpu");
}

#[test]
fn devices_are_values_in_json() {
    let json = succeed(&["devices", "--json"]).json();
    let devices = json["devices"].as_array().unwrap();
    for device in devices {
        assert!(device["name"].is_string() && device["device"].is_string(), "{device}");
        assert!(device["dtypes"].as_array().unwrap().contains(&"f32".into()), "{device}");
        if device["device"] == "cpu" {
            assert!(device["threads"].as_u64().unwrap() > 0, "{device}");
            continue;
        }
        let features = &device["features"];
        assert!(device["software"].is_boolean() && features["f16"].is_boolean(), "{device}");
        assert!(features["subgroup_size"].is_u64() || features["subgroup_size"].is_null(), "{device}");
        for limit in
            ["largest_buffer_bytes", "largest_binding_bytes", "workgroup_memory_bytes", "workgroup_invocations"]
        {
            assert!(device[limit].as_u64().unwrap() > 0, "{limit}: {device}");
        }
        // What --device takes.
        let run = ["similarity", "--device", device["device"].as_str().unwrap(), "-m", &model("pool-mean"), "one"];
        succeed(&run);
    }
}

#[test]
fn bench_gives_the_named_numbers() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let input = folder.write("in.txt", "one\ntwo\none\n");
    let run = succeed(&["bench", "--device", "cpu", "-m", &model, "-i", &input, "--repeats", "2", "--json", "-q"]);
    let json = run.json();
    for name in ["texts_per_s", "tokens_per_s", "p50_ms", "p95_ms", "load_s", "device_idle"] {
        assert!(json[name].as_f64().unwrap() >= 0.0, "{name}: {json}");
    }
    // Which elsewhere are null.
    for name in ["peak_rss_mib", "cpu_s"] {
        assert!(json[name].as_f64().is_some_and(|x| x >= 0.0) || cfg!(not(unix)), "{name}: {json}");
    }
    assert_eq!((&json["texts"], &json["unique_texts"], &json["dtype"]), (&3.into(), &2.into(), &"f32".into()));
    assert!(json["tokens"].as_u64().unwrap() > 2 && json["repeats"].as_array().unwrap().len() == 2);
    assert!(json["device"].as_str().unwrap().starts_with("cpu"));
    let table = succeed(&["bench", "--device", "cpu", "-m", &model, "-i", &input, "--texts", "1", "-q"]);
    assert!(table.text().contains("texts_per_s") && table.text().contains("\ntexts          1\n"), "{table:?}");

    fail(2, "known: all-MiniLM-L6-v2", &["bench", "--preset", "x"]);
    fail(2, "--lengths tiny", &["bench", "--preset", "bert-base", "--lengths", "tiny"]);
    fail(2, "cannot be used with '--lengths", &["bench", "-m", &model, "-i", &input, "--lengths", "long"]);
    for option in [&["--normalize"][..], &["--truncate-dim", "8"], &["--prompt", "x"], &["--query"], &["--offline"]] {
        fail(2, "cannot be used with", &[&["bench", "--preset", "bert-base"][..], option].concat());
    }
    fail(2, "--preset", &["bench"]);
    fail(65, "no texts", &["bench", "-m", &model, "-i", &folder.write("empty.txt", "")]);
}

/// The smallest preset is a real model's shape: a single short text, once.
#[test]
fn bench_runs_a_preset_without_files() {
    let preset = ["bench", "--preset", "all-MiniLM-L6-v2", "--device", "cpu", "--lengths", "8", "--json", "-q"];
    let json = succeed(&[&preset[..], &["--texts", "2", "--repeats", "1"]].concat()).json();
    assert_eq!((&json["texts"], &json["tokens"], &json["lengths"]), (&2.into(), &16.into(), &"8".into()));
    let profile = succeed(&[&preset[..], &["--texts", "2", "--profile"]].concat()).json();
    assert_eq!(profile["tokens"], 16);
    let smaller = ["--texts", "2", "--profile", "--batch-tokens", "8"];
    assert_eq!(succeed(&[&preset[..], &smaller].concat()).json()["tokens"], 8);
    assert!(profile["ops"].as_array().unwrap().iter().any(|row| row["op"] == "linear"));
    for name in ["gflops", "gb_per_s"] {
        assert!(profile["ceilings"][name].as_f64().unwrap() > 0.1, "{profile}");
    }
    // What would change nothing is refused.
    fail(2, "at most 256 tokens a text", &["bench", "--preset", "all-MiniLM-L6-v2", "--lengths", "257"]);
    for options in [&["--repeats", "2"][..], &["--normalize"], &["--prompt", "x"]] {
        let profile = ["bench", "-m", "model", "-i", "in.txt", "--profile"];
        fail(2, "cannot be used with", &[&profile[..], options].concat());
    }
}
