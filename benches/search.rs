//! How fast searches are: `semantic_search` in a corpus of 100,000 embeddings of 384 dimensions, and one by MaxSim in 10,000 texts of
//! 100 vectors of 128 dimensions: `cargo bench --bench search`.

use lexel::{LateInteraction, Matrix, SimilarityFunction, semantic_search};
use std::time::{Duration, Instant};

const CORPUS: usize = 100_000;
const DIM: usize = 384;
const ROUNDS: usize = 5;

/// Of late interaction: texts, vectors of each, dimensions, vectors of a query.
const TEXTS: usize = 10_000;
const VECTORS: usize = 100;
const VECTOR_DIM: usize = 128;
const QUERY_VECTORS: usize = 32;

fn main() {
    let corpus = numbers(1, CORPUS, DIM);
    for queries in [1, 10, 100, 1000] {
        let asked = numbers(2, queries, DIM);
        report(&format!("{queries} queries"), queries * CORPUS * DIM, || {
            let hits = semantic_search(&asked, &corpus, 10, SimilarityFunction::Cosine).expect("the columns agree");
            assert_eq!(hits.len(), queries);
        });
    }
    let texts: Vec<Matrix> = (0..TEXTS).map(|text| numbers(text as u32, VECTORS, VECTOR_DIM)).collect();
    for queries in [1, 10, 50] {
        let asked: Vec<Matrix> = (0..queries).map(|query| numbers(query as u32, QUERY_VECTORS, VECTOR_DIM)).collect();
        let products = queries * QUERY_VECTORS * TEXTS * VECTORS * VECTOR_DIM;
        report(&format!("{queries} queries of {QUERY_VECTORS} vectors, by MaxSim"), products, || {
            let hits = LateInteraction::MaxSim.search(&asked, &texts, 10).expect("the columns agree");
            assert_eq!(hits.len(), queries);
        });
    }
}

/// The median of some rounds, which multiply so many numbers.
fn report(name: &str, products: usize, search: impl Fn()) {
    let round = |_| {
        let begun = Instant::now();
        search();
        begun.elapsed()
    };
    let mut times: Vec<Duration> = (0..ROUNDS).map(round).collect();
    times.sort();
    let median = times[ROUNDS / 2].as_secs_f64();
    println!("{name}: {:.1} ms, {:.1} GFLOP/s", 1e3 * median, 2.0 * products as f64 / median / 1e9);
}

/// `rows` rows of numbers between -1 and 1 that a seed decides.
fn numbers(seed: u32, rows: usize, cols: usize) -> Matrix {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    Matrix::new(rows, cols, (0..rows * cols).map(next).collect())
}
