//! The table's cases of what makes one row of a text's tokens, and of rows that get length 1.

use super::case::{Case, F16_STORAGE, input};
use super::compare::Tolerance;
use super::data::{Fill, TestWeights, batch_skipping, long_among_short, odd_batches};
use super::table::COLS;
use lexel::program::*;

const MODES: [PoolMode; 7] = [
    PoolMode::Cls,
    PoolMode::Max,
    PoolMode::Mean,
    PoolMode::Sum,
    PoolMode::MeanSqrtLenTokens,
    PoolMode::WeightedMean,
    PoolMode::LastToken,
];

pub fn pool() -> Vec<Case> {
    let build = |cols: usize| {
        let mut b = Builder::new();
        let x = input(&mut b, "x", cols);
        for mode in MODES.into_iter().filter(|_| cols == 36) {
            b.label(mode.name());
            b.pool(Pool::new(x, mode));
        }
        b.label("all modes");
        let y = b.pool(Pool { x, modes: MODES.into_iter().rev().collect(), normalize: false });
        pooling_case(format!("pool {cols}"), b.finish(y, x))
    };
    COLS.into_iter().map(build).collect()
}

pub fn pool_normalize() -> Vec<Case> {
    let build = |cols: usize| {
        let mut b = Builder::new();
        let x = input(&mut b, "x", cols);
        let mut y = x;
        for mode in MODES.into_iter().filter(|mode| cols == 36 || *mode == PoolMode::Mean) {
            b.label(mode.name());
            y = b.pool(Pool { normalize: true, ..Pool::new(x, mode) });
        }
        pooling_case(format!("pool and normalize {cols}"), b.finish(y, x))
    };
    [1, 5, 30, 36, 37, 384, 1030].into_iter().map(build).collect()
}

/// With empty sequences, long ones, and skipped tokens.
fn pooling_case(name: String, program: Program) -> Case {
    let mut batches = odd_batches();
    batches.push(long_among_short());
    // Some tokens skipped, all of them, more than there are.
    batches.push(batch_skipping(&[5, 5, 5, 5, 0, 0, 70, 600], &[0, 1, 5, 9, 0, 3, 65, 200]));
    let sums = Tolerance::new("sqrt(600) times the rounding of a mean, in f32 sums of 600 terms", 1e-5, 1e-5);
    // Below zero everywhere: a maximum that begins at zero would show.
    let weights = TestWeights::default().with("x", Fill::Random { mean: -1.5, deviation: 0.5 });
    Case::of(name, program).weights(weights).batches(batches).f32(sums).f16(F16_STORAGE)
}

pub fn normalize() -> Vec<Case> {
    let mut cases = Vec::new();
    for cols in COLS {
        let mut b = Builder::new();
        let x = input(&mut b, "x", cols);
        b.label("tokens");
        let y = b.normalize(x);
        let pooled = b.pool(Pool::new(x, PoolMode::Mean));
        b.label("sequences");
        let sentences = b.normalize(pooled);
        cases.push(Case::of(format!("normalize {cols}"), b.finish(sentences, y)));
    }
    // Rows of zeros stay zeros; rows shorter than 1e-12 are divided by that and no further.
    for (name, value) in [("zero rows", 0.0), ("tiny rows", 1e-20)] {
        let mut b = Builder::new();
        let x = input(&mut b, "x", 5);
        let y = b.normalize(x);
        cases.push(
            Case::new(format!("normalize {name}"), b, y)
                .weights(TestWeights::default().with("x", Fill::Constant(value))),
        );
    }
    cases
}
