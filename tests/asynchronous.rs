//! Calls that are awaited: the same results, no runtime, cancelled by dropping them.

use futures::channel::mpsc as stream_of;
use futures::future::join_all;
use futures::{Stream, StreamExt};
use lexel::{Call, Cancel, CrossEncoder, Device, EncodeOptions, Error, Precision, Progress, Ranges};
use lexel::{RankOptions, SentenceTransformer};
use pollster::block_on;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};

fn folder(name: &str) -> String {
    format!("{}/tests/golden/models/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn model() -> SentenceTransformer {
    block_on(SentenceTransformer::builder(folder("pool-mean")).device(Device::Cpu).load_async()).unwrap()
}

fn texts(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("the old school {}", "sea ".repeat(i % 9 + 1))).map(|text| text + "river").collect()
}

#[test]
fn results_are_those_of_the_blocking_calls() {
    let (model, texts, options) = (model(), texts(40), EncodeOptions { normalize: true, ..Default::default() });
    let expected = model.encode_with(&texts, &options).unwrap();
    // Several at once, of which none needs another to be polled.
    let calls: Vec<_> = (0..8).map(|_| model.encode_async(texts.clone(), options.clone())).collect();
    for found in block_on(join_all(calls)) {
        assert_eq!(found.unwrap().data, expected.data);
    }
    let query = block_on(model.encode_query_async(["the sea"], options.clone())).unwrap();
    assert_eq!(query.data, model.encode_query(&["the sea"], &options).unwrap().data);
    let document = block_on(model.encode_document_async(["the sea"], options.clone())).unwrap();
    assert_eq!(document.data, model.encode_document(&["the sea"], &options).unwrap().data);
    let tokens = block_on(model.encode_tokens_async(texts.clone(), options.clone())).unwrap();
    assert_eq!(tokens, model.encode_tokens(&texts, &options).unwrap());
    let ranges = Ranges::of(&expected).unwrap();
    let call = model.encode_quantized_async(texts.clone(), options.clone(), Precision::Int8, Some(ranges.clone()));
    let quantized = model.encode_quantized(&texts, &options, Precision::Int8, Some(&ranges));
    assert_eq!(block_on(call).unwrap(), quantized.unwrap());
}

#[test]
fn any_runtime_can_take_them_to_another_thread() {
    // And poll them where they are.
    fn check<T: Send + Unpin + 'static>(value: T) -> T {
        value
    }
    let call = check(model().encode_async(["a river"], Default::default()));
    let stream = check(model().encode_stream(futures::stream::iter(["a river"]), Default::default()));
    let both = std::thread::spawn(move || (block_on(call).unwrap(), rows(stream)));
    let (embeddings, rows) = both.join().unwrap();
    assert_eq!(rows.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [embeddings.row(0)]);
}

#[test]
fn a_cross_encoder_ranks_and_predicts() {
    let folder = folder("../cross_encoder/models/bert-1");
    let loading = CrossEncoder::builder(folder).device(Device::Cpu).load_async();
    let model = block_on(loading).unwrap();
    let documents = ["a river", "the red school", "the sea"];
    let hits = block_on(model.rank_async("the sea", documents, RankOptions::default())).unwrap();
    assert_eq!(hits, model.rank("the sea", &documents).unwrap());
    let pairs = documents.map(|document| ("the sea", document));
    let scores = block_on(model.predict_async(pairs, Default::default())).unwrap();
    assert_eq!(scores.data, model.predict(&pairs).unwrap().data);
}

#[test]
fn errors_are_those_of_the_blocking_calls() {
    let Err(error) = block_on(SentenceTransformer::builder(folder("no-such-model")).load_async()) else {
        panic!("loaded what is not there");
    };
    assert!(error.to_string().contains("no-such-model"), "{error}");
    let options = EncodeOptions { prompt_name: Some("no-such-prompt".into()), ..Default::default() };
    let error = block_on(model().encode_async(["a river"], options)).unwrap_err();
    assert!(matches!(&error, Error::InvalidInput(text) if text.contains("no-such-prompt")), "{error}");
}

/// Options whose progress callback says that a batch is done, and then waits for a word.
fn halting() -> (EncodeOptions, mpsc::Receiver<Progress>, mpsc::Sender<()>) {
    let (done, batches) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let (done, wait) = (Mutex::new(done), Mutex::new(wait));
    let progress = Arc::new(move |progress: &Progress| {
        done.lock().unwrap().send(*progress).unwrap();
        let _ = wait.lock().unwrap().recv();
    });
    let options = EncodeOptions { batch_tokens: Some(10), progress: Some(progress), ..Default::default() };
    (options, batches, go)
}

#[test]
fn a_call_that_is_dropped_ends_at_the_next_batch() {
    let (options, batches, go) = halting();
    let call = model().encode_async(texts(40), options);
    let first = batches.recv().unwrap();
    assert!(first.texts < first.total);
    drop(call);
    go.send(()).unwrap();
    assert!(batches.recv().is_err(), "a batch after the call was dropped");
}

#[test]
fn a_flag_of_the_callers_ends_a_call_and_no_other() {
    let (model, cancel) = (model(), Cancel::new());
    let (options, batches, go) = halting();
    let call = model.encode_async(texts(40), EncodeOptions { cancel: Some(cancel.clone()), ..options });
    let other = EncodeOptions { cancel: Some(Cancel::new()), ..Default::default() };
    batches.recv().unwrap();
    cancel.cancel();
    drop(go);
    assert!(matches!(block_on(call), Err(Error::Cancelled { done: 1.., total: 40, .. })));
    // A dropped call does not set it, either.
    let shared = EncodeOptions { cancel: Some(Cancel::new()), ..Default::default() };
    drop(model.encode_async(texts(2), shared.clone()));
    assert!(!shared.cancel.unwrap().is_cancelled());
    assert!(block_on(model.encode_async(texts(2), other)).is_ok());
}

#[test]
fn a_call_begins_at_once_and_can_be_polled_now_and_then() {
    let (options, batches, go) = halting();
    let mut call: Pin<Box<Call<_>>> = Box::pin(model().encode_async(["a river"], options));
    batches.recv().unwrap(); // nobody has polled yet
    let mut context = Context::from_waker(Waker::noop());
    assert!(call.as_mut().poll(&mut context).is_pending());
    drop(go);
    loop {
        if let Poll::Ready(result) = call.as_mut().poll(&mut context) {
            assert_eq!(result.unwrap().rows, 1);
            break;
        }
        std::thread::yield_now();
    }
}

fn rows(stream: impl Stream<Item = lexel::Result<Vec<f32>>>) -> Vec<lexel::Result<Vec<f32>>> {
    block_on(stream.collect())
}

#[test]
fn a_stream_has_an_embedding_for_each_text_in_order() {
    let (model, texts) = (model(), texts(1200));
    let expected = model.encode(&texts).unwrap();
    let found = rows(model.encode_stream(futures::stream::iter(texts), EncodeOptions::default()));
    assert_eq!(found.len(), expected.rows);
    for (i, row) in found.into_iter().enumerate() {
        let row = row.unwrap();
        assert!(row.iter().zip(expected.row(i)).all(|(a, b)| (a - b).abs() < 1e-6), "row {i}");
    }
    assert!(rows(model.encode_stream(futures::stream::empty::<String>(), EncodeOptions::default())).is_empty());
}

#[test]
fn a_text_of_a_stream_does_not_wait_for_the_next() {
    let (texts, source) = stream_of::unbounded();
    let mut stream = pin!(model().encode_stream(source, EncodeOptions::default()));
    for text in ["a river", "the sea"] {
        texts.unbounded_send(text).unwrap();
        assert!(block_on(stream.next()).unwrap().is_ok());
    }
    drop(texts);
    assert!(block_on(stream.next()).is_none());
}

#[test]
fn a_stream_ends_with_its_first_error() {
    let options = EncodeOptions { prompt_name: Some("no-such-prompt".into()), ..Default::default() };
    let found = rows(model().encode_stream(futures::stream::iter(texts(1200)), options));
    assert!(matches!(&found[..], [Err(Error::InvalidInput(_))]), "{} results", found.len());
}
