//! `lexel encode`: formats, options, windows, pipes.

use crate::support::*;
use lexel::EncodeOptions;

const TEXTS: [&str; 5] =
    ["The weather is lovely today.", "", "It's so sunny outside!", "  ", "He drove to the stadium."];

fn encode(args: &[&str]) -> Run {
    succeed(&[&["encode", "--device", "cpu"], args].concat())
}

#[test]
fn txt_to_npy_gives_the_librarys_embeddings() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let (input, output) = (folder.write("in.txt", TEXTS.join("\n")), folder.path("out.npy"));
    let run = encode(&["--model", &model, "--input", &input, "--output", &output]);
    assert!(run.stdout.is_empty());
    let lines: Vec<&str> = run.stderr.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("device: cpu"), "{run:?}");
    assert!(lines[1].starts_with("5 texts, ") && lines[1].ends_with(", f32"), "{run:?}");
    let (shape, found) = floats(&output);
    let expected = expected(&model, &TEXTS, &EncodeOptions::default());
    assert_eq!(shape, expected.shape());
    assert_close(&found, &expected.data);
    assert_eq!(folder.names(), ["in.txt", "out.npy"]);
}

#[test]
fn line_ends_and_byte_order_marks_are_no_part_of_a_text() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let plain = folder.write("plain.txt", "one\n\ntwo\n");
    let windows = folder.write("windows.txt", "\u{feff}one\r\n\r\ntwo");
    let jsonl = folder.write("in.jsonl", "{\"id\": 1, \"text\": \"one\"}\n\"\"\r\n{\"text\": \"two\"}");
    let other = folder.write("other.ndjson", "{\"body\": \"one\"}\n{\"body\": \"\"}\n{\"body\": \"two\"}\n");
    let outputs: Vec<_> = [(&plain, None), (&windows, None), (&jsonl, None), (&other, Some("body"))]
        .into_iter()
        .map(|(input, column)| {
            let output = format!("{input}.npy");
            let column = column.map(|column| vec!["--column", column]).unwrap_or_default();
            encode(&[&["-q", "--model", &model, "--input", input, "--output", &output][..], &column].concat());
            floats(&output)
        })
        .collect();
    assert_eq!(outputs[0].0[0], 3);
    assert!(outputs.iter().all(|output| *output == outputs[0]));
}

#[test]
fn tables_give_the_texts_of_a_column() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let texts = folder.write("in.txt", "one, \"two\"\n\nthree\n");
    let tsv = folder.write("in.tsv", "id\ttext\r\n1\tone, \"two\"\r\n2\t\r\n3\tthree");
    let bare = folder.write("bare.tsv", "one, \"two\"\n\nthree\n");
    let csv = folder.write("in.csv", "body,id\n\"one, \"\"two\"\"\",1\n\n\"\",2\nthree,3\n");
    let outputs: Vec<_> =
        [(&texts, &[][..]), (&tsv, &[]), (&bare, &["--no-header"]), (&csv, &["--column", "body", "--window", "2"])]
            .into_iter()
            .map(|(input, options)| {
                let output = format!("{input}.npy");
                encode(&[&["-q", "--model", &model, "--input", input, "--output", &output], options].concat());
                floats(&output)
            })
            .collect();
    assert_eq!(outputs[0].0[0], 3);
    for output in &outputs {
        assert_close(&output.1, &outputs[0].1);
    }
}

#[test]
fn jsonl_holds_the_same_numbers_to_the_last_bit() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let input = folder.write("in.txt", TEXTS.join("\n"));
    let (npy, jsonl) = (folder.path("out.npy"), folder.path("out.jsonl"));
    for output in [&npy, &jsonl] {
        encode(&["-q", "--model", &model, "--input", &input, "--output", output]);
    }
    let mut found = Vec::new();
    for (i, line) in std::fs::read_to_string(jsonl).unwrap().lines().enumerate() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["index"], i);
        found.extend(line["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32));
    }
    assert_eq!(found, floats(&npy).1);
}

#[test]
fn pipes_need_their_formats_and_carry_nothing_but_data() {
    let model = model("pool-mean");
    let texts = "one\ntwo\nthree";
    let common = ["encode", "--device", "cpu", "--model", &model, "-i", "-", "--input-format", "txt", "-o", "-"];
    let run = pipe(texts.as_bytes(), &[&common[..], &["--output-format", "jsonl", "--json"]].concat());
    assert_eq!((run.status, run.text().lines().count()), (0, 3), "{run:?}");
    let report: serde_json::Value = serde_json::from_str(run.stderr.lines().last().unwrap()).unwrap();
    assert_eq!((&report["texts"], &report["dtype"]), (&3.into(), &"f32".into()));
    let run = pipe(texts.as_bytes(), &[&common[..], &["--output-format", "npy", "-q"]].concat());
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    assert_eq!(npy(&run.stdout).1[0], 3);

    for (input, output) in [("-", "out.npy"), ("in.dat", "out.npy"), ("in.txt", "-"), ("in.txt", "out.dat")] {
        fail(2, "-format", &["encode", "--model", &model, "-i", input, "-o", output]);
    }
}

#[test]
fn windows_leave_no_seams() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let texts: Vec<String> = (0..50).map(|i| ["word"; 9][..i % 9].join(" ") + &format!(" {}", i % 30)).collect();
    let input = folder.write("in.txt", texts.join("\n") + "\n");
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let expected = expected(&model, &texts, &EncodeOptions::default());
    for window in ["1", "7", "50", "51"] {
        for name in ["out.npy", "out.jsonl"] {
            let output = folder.path(name);
            encode(&["-q", "--model", &model, "-i", &input, "-o", &output, "--window", window]);
        }
        assert_close(&floats(&folder.path("out.npy")).1, &expected.data);
        let lines = std::fs::read_to_string(folder.path("out.jsonl")).unwrap();
        assert_eq!(lines.lines().count(), 50);
        assert!(lines.lines().last().unwrap().starts_with("{\"index\": 49, "));
    }
}

#[test]
fn no_texts_give_no_rows_of_the_right_width() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let (input, output) = (folder.write("in.txt", ""), folder.path("out.npy"));
    let dim = expected(&model, &[], &EncodeOptions::default()).cols;
    for (options, descr, cols) in [
        (&[][..], "<f4", dim),
        (&["--truncate-dim", "5"], "<f4", 5),
        (&["--precision", "int8"], "|i1", dim),
        (&["--precision", "ubinary"], "|u1", dim / 8),
    ] {
        encode(&[&["-q", "--model", &model, "-i", &input, "-o", &output], options].concat());
        let (found, shape, data) = npy(&std::fs::read(&output).unwrap());
        assert_eq!((found.as_str(), shape, data.len()), (descr, [0, cols], 0));
    }
    let output = folder.path("out.jsonl");
    encode(&["-q", "--model", &model, "-i", &input, "-o", &output]);
    assert_eq!(std::fs::read(output).unwrap(), b"");
}

#[test]
fn options_reach_the_library() {
    let (folder, model) = (Folder::new(), model("prompts"));
    let input = folder.write("in.txt", TEXTS.join("\n"));
    let output = folder.path("out.npy");
    let run = |options: &[&str]| {
        encode(&[&["-q", "--model", &model, "-i", &input, "-o", &output], options].concat());
        floats(&output)
    };
    let options = |prompt: &str| EncodeOptions { prompt: Some(prompt.to_string()), ..EncodeOptions::default() };
    assert_close(&run(&["--prompt", "ask: "]).1, &expected(&model, &TEXTS, &options("ask: ")).data);
    let named = EncodeOptions { prompt_name: Some("query".into()), ..EncodeOptions::default() };
    assert_close(&run(&["--prompt-name", "query"]).1, &expected(&model, &TEXTS, &named).data);
    assert_eq!(run(&["--query"]), run(&["--prompt-name", "query"]));
    assert_ne!(run(&["--document"]), run(&["--query"]));

    let ([rows, cols], data) = run(&["--normalize", "--truncate-dim", "6", "--batch-tokens", "20"]);
    assert_eq!([rows, cols], [5, 6]);
    for row in data.chunks(6) {
        assert!((row.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
    }
    assert_ne!(run(&["--max-seq-length", "4"]), run(&[]));
    let adapter = crate::support::adapter(&folder);
    assert_ne!(run(&["--adapter", &adapter]), run(&[]));
    fail(66, "adapter 'nowhere'", &["encode", "--adapter", "nowhere", "--model", &model, "-i", &input, "-o", &output]);
}

#[test]
fn precisions_and_ranges() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let input = folder.write("in.txt", TEXTS.join("\n"));
    let output = folder.path("out.npy");
    let run = |options: &[&str]| {
        encode(&[&["-q", "--model", &model, "-i", &input, "-o", &output, "--window", "2"], options].concat());
        npy(&std::fs::read(&output).unwrap())
    };
    let embeddings = expected(&model, &TEXTS, &EncodeOptions::default());
    let (int8, uint8) = (run(&["--precision", "int8"]), run(&["--precision", "uint8"]));
    assert_eq!((int8.0.as_str(), uint8.0.as_str(), int8.1), ("|i1", "|u1", embeddings.shape()));
    assert!(int8.2.iter().zip(&uint8.2).all(|(a, b)| a ^ 0x80 == *b));
    // Ranges over all windows: each dimension has a smallest and a largest code.
    let codes: Vec<&[u8]> = uint8.2.chunks(embeddings.cols).collect();
    for j in 0..embeddings.cols {
        assert!(codes.iter().any(|row| row[j] == 0) && codes.iter().any(|row| row[j] >= 254), "dimension {j}");
    }
    let bits = run(&["--precision", "ubinary"]);
    assert_eq!((bits.0.as_str(), bits.1), ("|u1", [5, embeddings.cols.div_ceil(8)]));
    assert_eq!(bits.2[0] >> 7, u8::from(embeddings.data[0] > 0.0));

    // The ranges of the embeddings themselves, from a file, give the same codes.
    let lexel::Ranges(ranges) = lexel::Ranges::of(&embeddings).unwrap();
    let header =
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, COLS), }".replace("COLS", &ranges.cols.to_string());
    let write = |name: &str, data: &[f32]| {
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header.bytes());
        file.extend(data.iter().flat_map(|x| x.to_le_bytes()));
        folder.write(name, file)
    };
    let (data, cols) = (ranges.data, ranges.cols);
    let ranges = write("ranges.npy", &data);
    let ranged = run(&["--precision", "uint8", "--ranges", &ranges]);
    assert!(ranged.2.iter().zip(&uint8.2).all(|(a, b)| a.abs_diff(*b) <= 1));
    let common = ["encode", "--device", "cpu", "--model", &model, "-i", &input, "-o", &output, "--ranges"];
    fail(2, "--precision int8 or uint8", &[&common[..], &[&ranges]].concat());
    fail(65, "dimensions", &[&common[..], &[&ranges, "--precision", "int8", "--truncate-dim", "3"]].concat());
    fail(65, "is not a .npy file", &[&common[..], &[&input, "--precision", "int8"]].concat());
    fail(66, "nowhere.npy", &[&common[..], &["nowhere.npy", "--precision", "int8"]].concat());

    // Ranges that none can have: with the file, the dimension and its values.
    let swapped = write("swapped.npy", &[&data[cols..], &data[..cols]].concat());
    let refused = fail(65, "dimension 0 is from", &[&common[..], &[&swapped, "--precision", "int8"]].concat());
    assert!(
        refused.stderr.contains("swapped.npy: ") && refused.stderr.contains(&data[cols].to_string()),
        "{refused:?}"
    );
    let zeros = write("zeros.npy", &vec![0.0; 2 * cols]);
    fail(65, "zeros.npy: ", &[&common[..], &[&zeros, "--precision", "uint8"]].concat());
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for at in [1, cols + 1] {
            let mut data = data.clone();
            data[at] = bad;
            let bad = write("bad.npy", &data);
            fail(65, "bad.npy: ", &[&common[..], &[&bad, "--precision", "int8"]].concat());
        }
    }
    // A dimension may be constant.
    let mut constant = data;
    constant[cols] = constant[0];
    run(&["--precision", "int8", "--ranges", &write("constant.npy", &constant)]);
}

#[test]
#[cfg(unix)]
fn a_link_stays_a_link_and_a_longer_file_is_replaced() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let input = folder.write("in.txt", "one");
    let (target, link) = (folder.write("target.npy", vec![7; 100_000]), folder.path("link.npy"));
    std::os::unix::fs::symlink(&target, &link).unwrap();
    encode(&["-q", "--model", &model, "-i", &input, "-o", &link]);
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(floats(&target).0[0], 1);
    // A file that is not there yet, behind two links.
    std::fs::create_dir(folder.path("sub")).unwrap();
    let (first, second) = (folder.path("first.npy"), folder.path("sub/second.npy"));
    std::os::unix::fs::symlink("sub/second.npy", &first).unwrap();
    std::os::unix::fs::symlink("../new.npy", &second).unwrap();
    encode(&["-q", "--model", &model, "-i", &input, "-o", &first]);
    assert!([&first, &second].iter().all(|link| std::fs::symlink_metadata(link).unwrap().is_symlink()));
    assert_eq!(floats(&folder.path("new.npy")).0[0], 1);
    // And links that lead nowhere.
    std::fs::remove_file(folder.path("new.npy")).unwrap();
    std::os::unix::fs::symlink("first.npy", folder.path("new.npy")).unwrap();
    fail(74, "first.npy: Too many", &["encode", "--device", "cpu", "--model", &model, "-i", &input, "-o", &first]);
    // A pipe by its name: a link to no name.
    let run = encode(&["-q", "--model", &model, "-i", &input, "-o", "/dev/stdout", "--output-format", "npy"]);
    assert_eq!(npy(&run.stdout).1[0], 1);
}

#[test]
#[cfg(unix)]
fn a_file_that_is_replaced_keeps_its_mode() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let (input, output) = (folder.write("in.txt", "one"), folder.write("out.npy", ""));
    for mode in [0o600, 0o640, 0o400] {
        std::fs::set_permissions(&output, std::fs::Permissions::from_mode(mode)).unwrap();
        encode(&["-q", "--model", &model, "-i", &input, "-o", &output]);
        assert_eq!(std::fs::metadata(&output).unwrap().permissions().mode() & 0o777, mode);
    }
    assert_eq!(folder.names(), ["in.txt", "out.npy"]);
}

#[test]
fn more_dimensions_than_there_are_is_a_warning() {
    let (folder, model) = (Folder::new(), model("pool-mean"));
    let (input, dim) = (folder.write("in.txt", "one\ntwo"), expected(&model, &[], &EncodeOptions::default()).cols);
    let warning = format!(
        "lexel: warning: --truncate-dim 1000 truncates nothing: the model's embeddings have {dim} dimensions\n"
    );
    for output in [folder.path("out.npy"), folder.path("job/")] {
        let args = ["--model", &model, "-i", &input, "-o", &output, "--window", "1", "--truncate-dim"];
        let run = encode(&[&args[..], &["1000"]].concat());
        assert_eq!(run.stderr.matches(&warning).count(), 1, "{run:?}");
    }
    let output = folder.path("all.npy");
    let run = encode(&["--model", &model, "-i", &input, "-o", &output, "--truncate-dim", &dim.to_string()]);
    assert!(!run.stderr.contains("warning"), "{run:?}");
}
