//! What `encode` promises beside its numbers: order, equal texts once, progress, cancellation, threads, little memory.

mod support;

use lexel::{Cancel, Device, Dtype, EncodeOptions, Error, Matrix, Progress, SentenceTransformer};
use std::sync::{Arc, Mutex};

fn folder(name: &str) -> String {
    format!("{}/tests/golden/models/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn model() -> SentenceTransformer {
    SentenceTransformer::builder(folder("pool-mean")).device(Device::Cpu).load().unwrap()
}

/// So many different texts of one to eight words.
fn texts(count: usize) -> Vec<String> {
    let words = ["the", "old", "red", "school", "sea", "river", "and", "a"];
    (0..count).map(|i| format!("{i} {}", words[..i % 8].join(" "))).collect()
}

fn assert_rows_equal(found: &Matrix, row: usize, expected: &Matrix, expected_row: usize) {
    for (a, b) in found.row(row).iter().zip(expected.row(expected_row)) {
        assert!((a - b).abs() <= 1e-6, "row {row}: {a} for {b}");
    }
}

#[test]
fn results_come_in_the_order_of_the_texts_whatever_the_batch_size() {
    let (model, texts) = (model(), texts(700));
    let all = model.encode(&texts).unwrap();
    let reversed: Vec<&String> = texts.iter().rev().collect();
    for batch_tokens in [1, 100, 100_000] {
        let options = EncodeOptions { batch_tokens: Some(batch_tokens), ..EncodeOptions::default() };
        let found = model.encode_with(&reversed, &options).unwrap();
        (0..texts.len()).for_each(|i| assert_rows_equal(&found, texts.len() - 1 - i, &all, i));
    }
}

#[test]
fn equal_texts_are_computed_once_and_progress_counts_all() {
    let model = model();
    let seen: Arc<Mutex<Vec<Progress>>> = Arc::default();
    let calls = seen.clone();
    let options = EncodeOptions {
        progress: Some(Arc::new(move |progress: &Progress| calls.lock().unwrap().push(*progress))),
        batch_tokens: Some(20),
        ..EncodeOptions::default()
    };
    let long = "sea ".repeat(500);
    let texts = ["the sea", "a river", "the sea", "the sea", long.as_str(), long.as_str()];
    let embeddings = model.encode_with(&texts, &options).unwrap();
    for (row, first) in [(2, 0), (3, 0), (5, 4)] {
        assert_eq!(embeddings.row(row), embeddings.row(first));
    }
    let seen = seen.lock().unwrap();
    assert!(seen.len() > 1 && seen.windows(2).all(|pair| pair[0].texts < pair[1].texts), "{seen:?}");
    let last = seen.last().unwrap();
    assert_eq!((last.texts, last.total, last.truncated), (6, 6, 2));
    let tokens = |text: &str| model.tokenizer().encode(text).unwrap().ids.len();
    assert_eq!(last.tokens, tokens(texts[0]) + tokens(texts[1]) + tokens(&long));
}

#[test]
fn a_cancelled_call_ends_at_the_next_batch_and_says_how_far_it_was() {
    let (model, cancel) = (model(), Cancel::new());
    let from_callback = cancel.clone();
    let options = EncodeOptions {
        progress: Some(Arc::new(move |progress: &Progress| {
            if progress.texts >= 100 {
                from_callback.cancel();
            }
        })),
        cancel: Some(cancel),
        batch_tokens: Some(50),
        ..EncodeOptions::default()
    };
    match model.encode_with(&texts(5000), &options) {
        Err(Error::Cancelled { done, total, results }) => {
            assert!((100..1000).contains(&done) && total == 5000, "{done}");
            // What is computed is not lost.
            let (results, texts) = (results.unwrap(), texts(5000));
            assert_eq!((results.rows.len(), results.matrix.shape()), (done, [done, model.dim()]));
            let all: Vec<&str> = results.rows.iter().map(|&row| texts[row].as_str()).collect();
            let expected = model.encode(&all).unwrap();
            for (a, b) in results.matrix.data.iter().zip(&expected.data) {
                assert!((a - b).abs() < 1e-5, "{a} and {b}");
            }
        }
        other => panic!("{other:?}"),
    }
    // The flag stays set: later calls with it do nothing, calls without it work.
    assert!(matches!(model.encode_with(&["one"], &options), Err(Error::Cancelled { done: 0, total: 1, .. })));
    assert_eq!(model.encode(&["one"]).unwrap().shape(), [1, model.dim()]);
}

#[test]
fn many_threads_share_one_model() {
    let (model, texts) = (model(), texts(120));
    let expected = model.encode(&texts).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (model, texts, expected) = (model.clone(), &texts, &expected);
            scope.spawn(move || {
                for text in (thread..texts.len()).step_by(8) {
                    assert_rows_equal(&model.encode(&[&texts[text]]).unwrap(), 0, expected, text);
                }
                assert_eq!(model.encode(texts).unwrap().shape(), expected.shape());
            });
        }
    });
}

#[test]
fn no_texts_give_no_rows_of_the_right_width() {
    let model = model();
    assert_eq!(model.encode::<&str>(&[]).unwrap().shape(), [0, model.dim()]);
    let options = EncodeOptions { truncate_dim: Some(3), ..EncodeOptions::default() };
    assert_eq!(model.encode_with::<&str>(&[], &options).unwrap().shape(), [0, 3]);
    assert!(model.encode_tokens::<&str>(&[], &options).unwrap().is_empty());
}

#[test]
fn options_that_make_no_sense_are_refused_by_name() {
    let model = model();
    let refused = |options: EncodeOptions| model.encode_with(&["a text"], &options).unwrap_err().to_string();
    let name = EncodeOptions { prompt_name: Some("poem".into()), ..EncodeOptions::default() };
    let message = refused(name);
    assert!(message.contains("'poem'") && message.contains("document, query"), "{message}");
    assert!(refused(EncodeOptions { truncate_dim: Some(0), ..EncodeOptions::default() }).contains("truncate_dim"));
    let long = SentenceTransformer::builder(folder("pool-mean")).device(Device::Cpu).max_seq_length(100_000).load();
    assert!(long.unwrap_err().to_string().contains("max_seq_length = 100000"));
}

/// A GPU whose memory budget is far too small for the default batch: the scheduler halves until it fits.
#[cfg(feature = "gpu")]
#[test]
fn a_small_memory_budget_means_smaller_batches_and_the_same_vectors() {
    use lexel::checkpoint::{Checkpoint, SourceOptions};
    use lexel::gpu::{AdapterSelector, GpuDevice, GpuExecutor, GpuOptions};
    use lexel::program::Output;
    use lexel::scheduler::{Scheduler, Sequence};

    let device = match GpuDevice::open(&AdapterSelector::Any) {
        Ok(device) => device,
        Err(error) if std::env::var_os("REQUIRE_GPU").is_some() => panic!("REQUIRE_GPU is set: {error}"),
        Err(error) => return eprintln!("skipped: {error}"),
    };
    let checkpoint = Checkpoint::open(&folder("pool-mean"), &SourceOptions::default()).unwrap();
    let (model, texts) = (model(), texts(300));
    let options = GpuOptions { memory_budget: Some(200_000), ..GpuOptions::default() };
    let program = Arc::new(model.program().clone());
    let executor = GpuExecutor::load(program, &checkpoint.weights().unwrap(), &device, &options).unwrap();
    let sequence = |(key, text): (usize, &String)| {
        let encoding = model.tokenizer().encode(text).unwrap();
        Sequence { key, ids: encoding.ids, types: encoding.types, skip: 0, unseen: 0 }
    };
    let sequences: Vec<Sequence> = texts.iter().enumerate().map(sequence).collect();
    let expected = model.encode(&texts).unwrap();
    let (mut done, mut batches) = (0, 0);
    let scheduler = Scheduler { executor: &executor, output: Output::Sentences, padding: None, batch_tokens: None };
    let run = scheduler.run([Ok(sequences)].into_iter(), |finished| {
        for (s, &key) in finished.keys.iter().enumerate() {
            for (a, b) in finished.rows.row(s).iter().zip(expected.row(key)) {
                assert!((a - b).abs() <= 1e-5, "text {key}: {a} for {b}");
            }
        }
        done += finished.keys.len();
        batches += 1;
        Ok(())
    });
    run.unwrap();
    assert!(done == 300 && batches > 2, "{done} texts in {batches} batches");
}

/// The model is so narrow that its matrices do not become int8, and its checkpoint has no more than the f16 of their tables: all
/// samples give what f32 does.
#[test]
fn texts_of_ones_own_are_the_sample_for_int8() {
    let folder = support::golden::Golden::read("architectures").folder("albert");
    let builder = || SentenceTransformer::builder(&folder).device(Device::Cpu);
    let expected = builder().load().unwrap().encode(&texts(3)).unwrap();
    for sample in [&[][..], &["one"], &["", "a longer text", "one"]] {
        let model = builder().dtype(Dtype::Int8).sample(sample.iter().copied()).load().unwrap();
        assert_eq!(model.encode(&texts(3)).unwrap(), expected, "{sample:?}");
    }
}
