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
    let similarities = model.similarity(&model.encode_query(&[&query], &options)?, &corpus)?;
    let mut found: Vec<usize> = (0..passages.len()).collect();
    found.sort_by(|&a, &b| similarities.data[b].total_cmp(&similarities.data[a]));
    found.truncate(TOP);
    println!("the nearest of {} passages:", passages.len());
    for &i in found.iter().take(SHOWN) {
        println!("{:.4}\t{}", similarities.data[i], passages[i]);
    }

    // 2. Re-rank: the query and each of those passages, read together.
    let candidates: Vec<&str> = found.iter().map(|&i| passages[i]).collect();
    let ranks = CrossEncoder::load(cross_encoder)?.rank(&query, &candidates)?;
    println!("re-ranked, the best of {}:", candidates.len());
    for rank in ranks.iter().take(SHOWN) {
        println!("{:.4}\t{}", rank.score, candidates[rank.corpus_id]);
    }
    Ok(())
}
