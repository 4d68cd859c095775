//! How fast `semantic_search` is, for a corpus of 100,000 embeddings of 384 dimensions: `cargo bench --bench search`.

use lexel::{Matrix, SimilarityFunction, semantic_search};
use std::time::{Duration, Instant};

const CORPUS: usize = 100_000;
const DIM: usize = 384;
const ROUNDS: usize = 5;

fn main() {
    let corpus = numbers(1, CORPUS);
    for queries in [1, 10, 100, 1000] {
        let asked = numbers(2, queries);
        let round = |_| {
            let begun = Instant::now();
            let hits = semantic_search(&asked, &corpus, 10, SimilarityFunction::Cosine).expect("the columns agree");
            assert_eq!(hits.len(), queries);
            begun.elapsed()
        };
        let mut times: Vec<Duration> = (0..ROUNDS).map(round).collect();
        times.sort();
        let median = times[ROUNDS / 2].as_secs_f64();
        let gflops = 2.0 * (queries * CORPUS * DIM) as f64 / median / 1e9;
        println!("{queries} queries: {:.1} ms, {gflops:.1} GFLOP/s", 1e3 * median);
    }
}

/// `rows` embeddings of numbers between -1 and 1 that a seed decides.
fn numbers(seed: u32, rows: usize) -> Matrix {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    Matrix::new(rows, DIM, (0..rows * DIM).map(next).collect())
}
