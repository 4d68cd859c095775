//! Searches, paraphrases and communities beside those of the reference (tests/golden/make_search.py).

use super::scan::tests::numbers;
use super::{CommunityOptions, MiningOptions, community_detection, paraphrase_mining_embeddings, semantic_search};
use crate::matrix::Matrix;
use crate::similarity::SimilarityFunction;
use serde_json::Value;
use std::collections::HashMap;

/// As in make_search.py.
const ROWS: usize = 240;
const COLS: usize = 16;
const CENTRES: usize = 12;
const QUERIES: usize = 7;
const NOISE: f32 = 0.75;

/// Scores are rounded to six digits there, and sums rounded elsewhere.
const TOLERANCE: f32 = 5e-6;

fn corpus() -> Matrix {
    let (centres, mut rows) = (numbers(1, CENTRES, COLS), numbers(2, ROWS, COLS));
    for i in 0..ROWS {
        rows.row_mut(i).iter_mut().zip(centres.row(i % CENTRES)).for_each(|(x, centre)| *x = centre + NOISE * *x);
    }
    rows
}

fn golden(section: &str) -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/search.json");
    serde_json::from_slice::<Value>(&std::fs::read(path).unwrap()).unwrap()[section].take()
}

fn integer(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

fn float(value: &Value) -> f32 {
    value.as_f64().unwrap() as f32
}

fn array(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

#[test]
fn hits_are_those_of_the_reference() {
    let (queries, corpus, golden) = (numbers(3, QUERIES, COLS), corpus(), golden("search"));
    for function in SimilarityFunction::ALL {
        let found = semantic_search(&queries, &corpus, 12, function).unwrap();
        let expected = array(&golden[function.name()]);
        assert_eq!(found.len(), expected.len());
        for (hits, expected) in found.iter().zip(expected) {
            assert_eq!(hits.len(), 12);
            for (hit, expected) in hits.iter().zip(array(expected)) {
                assert_eq!(hit.corpus_id, integer(&expected[0]), "{function}: {hits:?}");
                assert!((hit.score - float(&expected[1])).abs() < TOLERANCE, "{function}: {hit:?}, {expected}");
            }
        }
    }
}

#[test]
fn pairs_are_those_of_the_reference() {
    let corpus = corpus();
    for case in array(&golden("mining")) {
        let (top_k, max_pairs) = (integer(&case["top_k"]), integer(&case["max_pairs"]));
        let options = MiningOptions { top_k, max_pairs, ..MiningOptions::default() };
        let pairs = paraphrase_mining_embeddings(&corpus, &options).unwrap();
        assert_eq!(pairs.len(), integer(&case["count"]), "{options:?}");
        assert!(pairs.is_sorted_by(|a, b| a.score >= b.score));
        // The reference's next pair may be mine, where two scores are almost equal.
        let places: HashMap<_, _> = pairs.iter().enumerate().map(|(i, pair)| ((pair.first, pair.second), i)).collect();
        for (i, expected) in array(&case["first"]).iter().enumerate() {
            let place = places[&(integer(&expected[0]), integer(&expected[1]))];
            assert!(place.abs_diff(i) <= 1, "{options:?}: {expected} is at {place} for {i}");
            assert!((pairs[place].score - float(&expected[2])).abs() < TOLERANCE, "{:?}, {expected}", pairs[place]);
        }
    }
}

#[test]
fn communities_are_those_of_the_reference() {
    let corpus = corpus();
    for case in array(&golden("communities")) {
        let (threshold, min_community_size) = (float(&case["threshold"]), integer(&case["min_community_size"]));
        let options = CommunityOptions { threshold, min_community_size };
        let communities = community_detection(&corpus, &options).unwrap();
        let expected: Vec<Vec<usize>> =
            array(&case["communities"]).iter().map(|rows| array(rows).iter().map(integer).collect()).collect();
        assert_eq!(communities, expected, "{options:?}");
    }
}
