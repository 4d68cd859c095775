//! Sparse embeddings: which tokens texts weigh, and which of them two texts share.
//!
//! `cargo run --release --example sparse_encoder [MODEL]`

use lexel::SparseEncoder;

fn main() -> lexel::Result<()> {
    env_logger::init();
    let model = std::env::args().nth(1).unwrap_or("naver/splade-cocondenser-ensembledistil".into());
    let model = SparseEncoder::load(model)?;
    let documents = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."];
    let embeddings = model.encode_document(&documents, &Default::default())?;
    println!("{:?}, {:.0} of them not zero on average", embeddings.shape(), embeddings.sparsity().active_dims);

    let query = model.encode_query(&["How is the weather?"], &Default::default())?;
    let hits = model.semantic_search(&query, &embeddings, documents.len())?.remove(0);
    let shared = model.decode(&query.intersection(0, &embeddings), Some(3));
    for hit in hits {
        let why: Vec<String> =
            shared[hit.corpus_id].iter().map(|(token, weight)| format!("{token} {weight:.2}")).collect();
        println!("{:.2}\t{}\t({})", hit.score, documents[hit.corpus_id], why.join(", "));
    }
    Ok(())
}
