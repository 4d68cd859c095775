//! The quickstart of sentence-transformers for cross-encoders, line for line:
//! `cargo run --release --example cross_encoder [MODEL]`.

use lexel::CrossEncoder;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // `RUST_LOG=lexel=info` shows which device computes, and why.
    env_logger::init();

    // 1. Load a pretrained CrossEncoder model
    let id = std::env::args().nth(1).unwrap_or("cross-encoder/stsb-distilroberta-base".into());
    let model = CrossEncoder::load(id)?;

    // We want to compute the similarity between the query sentence...
    let query = "A man is eating pasta.";

    // ... and all sentences in the corpus
    let corpus = [
        "A man is eating food.",
        "A man is eating a piece of bread.",
        "The girl is carrying a baby.",
        "A man is riding a horse.",
        "A woman is playing violin.",
        "Two men pushed carts through the woods.",
        "A man is riding a white horse on an enclosed ground.",
        "A monkey is playing drums.",
        "A cheetah is running behind its prey.",
    ];

    // 2. We rank all sentences in the corpus for the query
    let ranks = model.rank(query, &corpus)?;

    // Print the scores
    println!("Query:  {query}");
    for rank in &ranks {
        println!("{:.2}\t{}", rank.score, corpus[rank.corpus_id]);
    }

    // 3. Alternatively, you can also manually compute the score between two sentences
    let pairs: Vec<(&str, &str)> = corpus.iter().map(|sentence| (query, *sentence)).collect();
    let scores = model.predict(&pairs)?.data;

    // Sort the scores in decreasing order to get the corpus indices
    let mut indices: Vec<usize> = (0..corpus.len()).collect();
    indices.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let indices: Vec<String> = indices.iter().map(usize::to_string).collect();
    println!("Scores: {scores:?}");
    println!("Indices: [{}]", indices.join(" "));
    Ok(())
}
