//! Retrieve and re-rank: a bi-encoder finds the passages that come near a query, a cross-encoder orders those few by
//! reading each together with the query.
//!
//! `cargo run --release --example retrieve_rerank -- CORPUS.txt QUERY [BI_ENCODER] [CROSS_ENCODER]`, a passage a line.

use lexel::{CrossEncoder, EncodeOptions, SentenceTransformer};

/// Passages that the cross-encoder reads.
const TOP: usize = 32;

/// Passages that are printed.
const SHOWN: usize = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(query)) = (arguments.next(), arguments.next()) else {
        return Err("usage: retrieve_rerank CORPUS.txt QUERY [BI_ENCODER] [CROSS_ENCODER]".into());
    };
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let passages: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let bi_encoder = arguments.next().unwrap_or("all-MiniLM-L6-v2".into());
    let cross_encoder = arguments.next().unwrap_or("cross-encoder/ms-marco-MiniLM-L6-v2".into());

    // 1. Retrieve: every passage's embedding against the query's.
    let model = SentenceTransformer::load(bi_encoder)?;
    let options = EncodeOptions::default();
    let corpus = model.encode_document(&passages, &options)?;
    let found = model.semantic_search(&model.encode_query(&[&query], &options)?, &corpus, TOP)?.remove(0);
    println!("the nearest of {} passages:", passages.len());
    for hit in found.iter().take(SHOWN) {
        println!("{:.4}\t{}", hit.score, passages[hit.corpus_id]);
    }

    // 2. Re-rank: the query and each of those passages, read together.
    let candidates: Vec<&str> = found.iter().map(|hit| passages[hit.corpus_id]).collect();
    let ranks = CrossEncoder::load(cross_encoder)?.rank(&query, &candidates)?;
    println!("re-ranked, the best of {}:", candidates.len());
    for rank in ranks.iter().take(SHOWN) {
        println!("{:.4}\t{}", rank.score, candidates[rank.corpus_id]);
    }
    Ok(())
}
