//! What an application with a window does: it builds an index in the background, answers a search that comes meanwhile, and its
//! own thread never waits: it draws a frame, polls what is under way, and goes on.
//!
//!     cargo run --release --example desktop -- TEXTS.txt "a query" [MODEL]

use futures::StreamExt;
use lexel::{EncodeOptions, Matrix, SentenceTransformer};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Time between two frames.
const FRAME: Duration = Duration::from_millis(16);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let mut args = std::env::args().skip(1);
    let (Some(file), Some(query)) = (args.next(), args.next()) else {
        return Err("usage: desktop TEXTS.txt QUERY [MODEL]".into());
    };
    let model = args.next().unwrap_or_else(|| "all-MiniLM-L6-v2".into());
    let texts: Vec<String> = std::fs::read_to_string(file)?.lines().map(Into::into).collect();

    // Loading takes a while, too. `interactive`: what lexel queues on the GPU leaves room for frames.
    let loading = SentenceTransformer::builder(model).interactive(true).load_async();
    let model = frames_until(loading)?;
    println!("{} texts on {}", texts.len(), model.device());

    let mut index = Matrix::zeros(0, model.dim());
    let mut embeddings = pin!(model.encode_stream(futures::stream::iter(texts.clone()), EncodeOptions::default()));
    let mut search = pin!(model.encode_query_async([query], EncodeOptions::default()));
    let (begun, mut context) = (Instant::now(), Context::from_waker(Waker::noop()));
    let mut found = None;
    let mut is_complete = false;
    while !is_complete || found.is_none() {
        std::thread::sleep(FRAME); // draws
        while let Poll::Ready(next) = embeddings.poll_next_unpin(&mut context) {
            let Some(embedding) = next else {
                is_complete = true;
                break;
            };
            index.push_row(&embedding?);
        }
        if found.is_none()
            && let Poll::Ready(result) = search.as_mut().poll(&mut context)
        {
            println!("the query's embedding after {:?}, with {} texts indexed", begun.elapsed(), index.rows);
            found = Some(result?);
        }
    }
    println!("all texts after {:?}", begun.elapsed());

    // Of some ten thousand texts, a search takes no longer than a frame; of many, it belongs on a thread of its own.
    let query = found.ok_or("the search was not answered")?;
    for hit in model.semantic_search(&query, &index, 3)?.remove(0) {
        println!("{:.3}\t{}", hit.score, texts[hit.corpus_id]);
    }
    Ok(())
}

/// Draws until a call is done.
fn frames_until<T>(call: impl Future<Output = lexel::Result<T>>) -> lexel::Result<T> {
    let (mut call, mut context) = (pin!(call), Context::from_waker(Waker::noop()));
    loop {
        if let Poll::Ready(result) = call.as_mut().poll(&mut context) {
            return result;
        }
        std::thread::sleep(FRAME); // draws
    }
}
