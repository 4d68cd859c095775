//! The quickstart of sentence-transformers, line for line: `cargo run --release --example quickstart`.

use lexel::SentenceTransformer;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // `RUST_LOG=lexel=info` shows which device computes, and why.
    env_logger::init();

    // 1. Load a pretrained model
    let model = SentenceTransformer::load("all-MiniLM-L6-v2")?;

    // The sentences to encode
    let sentences = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."];

    // 2. Calculate embeddings
    let embeddings = model.encode(&sentences)?;
    println!("{:?}", embeddings.shape());

    // 3. Calculate the embedding similarities
    let similarities = model.similarity(&embeddings, &embeddings)?;
    println!("{similarities}");
    Ok(())
}
