//! Late interaction: a vector for each token of a text, and documents ranked by what each token of a query finds in them.
//!
//! `cargo run --release --example multi_vector_encoder [MODEL]`

use lexel::{HierarchicalTokenPooling, MultiVectorEncoder};

fn main() -> lexel::Result<()> {
    env_logger::init();
    let model = std::env::args().nth(1).unwrap_or("lightonai/GTE-ModernColBERT-v1".into());
    let model = MultiVectorEncoder::load(model)?;
    let documents = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."];
    let embeddings = model.encode_document(&documents, &Default::default())?;
    let query = model.encode_query(&["How is the weather?"], &Default::default())?;
    println!("a query of {} vectors of {} dimensions", query[0].rows, query[0].cols);
    for hit in model.semantic_search(&query, &embeddings, documents.len())?.remove(0) {
        println!("{:.2}\t{}\t({} vectors)", hit.score, documents[hit.corpus_id], embeddings[hit.corpus_id].rows);
    }

    // An index of half the size.
    let pooled = HierarchicalTokenPooling::new(2.0).pool(&embeddings)?;
    let vectors = |texts: &[lexel::Matrix]| texts.iter().map(|text| text.rows).sum::<usize>();
    println!("{} vectors, pooled {}: {}", vectors(&embeddings), vectors(&pooled), model.similarity(&query, &pooled)?);
    Ok(())
}
