//! The cases of attention: every shape of head, mask and bias.

use super::case::{Case, input};
use super::compare::Tolerance;
use super::data::{EDGES, Fill, TestWeights, batch, batch_expanded, long_among_short, odd_batches, single};
use lexel::batch::Batch;
use lexel::program::*;

/// Batches for attention: its kernel is chosen by the longest sequence.
fn lengths() -> Vec<Batch> {
    [&[1, 17, 33, 64, 129][..], &[0, 3, 0, 200, 0, 49], &[33, 1, 64], &[17, 32, 2, 0], &[0, 3, 0, 0, 16, 1, 0]]
        .map(batch)
        .to_vec()
}

/// The same with tokens that attention does not look at.
fn expanded() -> Vec<Batch> {
    [&[1, 17, 33, 70][..], &[0, 3, 0, 135, 0, 49], &[2, 0, 16]].map(|lengths| batch_expanded(lengths, 9)).to_vec()
}

/// Every mask and bias, alone and together.
pub(super) fn variants() -> Vec<Case> {
    let mut cases = Vec::new();
    for (heads, kv_heads, head_dim) in [(4, 2, 8), (3, 3, 6), (6, 1, 64)] {
        let mut b = Builder::new();
        let qkv = input(&mut b, "x", (heads + 2 * kv_heads) * head_dim);
        let table = b.matrix("x.table", heads, 2 * 20 + 1);
        let plain = Attention { kv_heads, ..Attention::new(qkv, heads, head_dim) };
        let relative = Some(PositionBias::Relative { table });
        let mut y = qkv;
        for (label, op) in [
            ("shared keys", plain.clone()),
            ("window", Attention { window: Some(5), ..plain.clone() }),
            ("window of 0", Attention { window: Some(0), ..plain.clone() }),
            ("causal", Attention { causal: true, ..plain.clone() }),
            ("causal window", Attention { causal: true, window: Some(40), ..plain.clone() }),
            ("alibi", Attention { bias: Some(PositionBias::Alibi), ..plain.clone() }),
            ("relative", Attention { bias: relative, ..plain.clone() }),
            ("capped", Attention { softcap: Some(1.5), ..plain.clone() }),
            ("all", Attention { bias: relative, causal: true, window: Some(70), softcap: Some(2.0), ..plain }),
        ] {
            b.label(label);
            y = b.attention(op);
        }
        cases.push(
            Case::new(format!("attention over {kv_heads} of {heads} heads of {head_dim}"), b, y).batches(lengths()),
        );
    }
    cases
}

/// Sequences that were expanded, under every mask: some tokens see none.
pub(super) fn of_expanded() -> Vec<Case> {
    let build = |(heads, kv_heads, head_dim): (usize, usize, usize)| {
        let mut b = Builder::new();
        let qkv = input(&mut b, "x", (heads + 2 * kv_heads) * head_dim);
        let plain = Attention { kv_heads, ..Attention::new(qkv, heads, head_dim) };
        let mut y = qkv;
        for (label, op) in [
            ("all", plain.clone()),
            ("window", Attention { window: Some(5), ..plain.clone() }),
            ("window of 0", Attention { window: Some(0), ..plain.clone() }),
            ("causal", Attention { causal: true, ..plain.clone() }),
            ("causal window", Attention { causal: true, window: Some(3), ..plain.clone() }),
            ("alibi", Attention { bias: Some(PositionBias::Alibi), ..plain }),
        ] {
            b.label(label);
            y = b.attention(op);
        }
        Case::new(format!("attention of expanded sequences, {kv_heads} of {heads} heads of {head_dim}"), b, y)
            .batches(expanded())
    };
    [(4, 2, 8), (3, 3, 6), (6, 1, 64)].into_iter().map(build).collect()
}

pub(super) fn disentangled() -> Vec<Case> {
    let build = |(heads, head_dim, span, max_distance): (usize, usize, usize, Option<usize>)| {
        let mut b = Builder::new();
        let qkv = input(&mut b, "x", 3 * heads * head_dim);
        let table = b.matrix("x.table", 4 * span, heads * head_dim);
        let bias = Some(PositionBias::Disentangled { table, distances: Distances { span, max_distance } });
        let plain = Attention { bias, ..Attention::new(qkv, heads, head_dim) };
        b.label("disentangled, causal window");
        b.attention(Attention { causal: true, window: Some(40), ..plain.clone() });
        b.label("disentangled");
        let y = b.attention(plain);
        let batches = [lengths(), expanded()].concat();
        Case::new(format!("disentangled attention, {heads} heads of {head_dim}"), b, y).batches(batches)
    };
    // In f32 the GPU's tiles are of 32 x 32, none (a head is no whole vectors), 32 x 16 and 16 x 16.
    let shapes = [(3, 8, 8, Some(40)), (2, 6, 5, None), (1, 64, 256, Some(512)), (2, 128, 8, Some(30))];
    shapes.into_iter().map(build).collect()
}

pub(super) fn attention() -> Vec<Case> {
    let build = |heads: usize, head_dim: usize| {
        let mut b = Builder::new();
        let qkv = input(&mut b, "x", 3 * heads * head_dim);
        b.label("attention");
        let y = b.attention(Attention::new(qkv, heads, head_dim));
        (b, y)
    };
    let mut cases = Vec::new();
    for (heads, head_dim) in [(1, 4), (3, 5), (3, 8), (1, 12), (12, 32), (3, 64), (1, 80), (3, 128)] {
        let (b, y) = build(heads, head_dim);
        let mut batches = [lengths(), expanded()].concat();
        if head_dim == 8 {
            batches = [single(&EDGES), odd_batches(), vec![long_among_short()]].concat();
        }
        cases.push(Case::new(format!("attention {heads} heads of {head_dim}"), b, y).batches(batches));
    }
    // Scores of several hundred: the softmax is all on one key, exp would overflow without the maximum taken away.
    for (heads, head_dim) in [(3, 8), (1, 32)] {
        let (b, y) = build(heads, head_dim);
        let weights = TestWeights::default().with("x", Fill::Random { mean: 0.0, deviation: 10.0 });
        let large = Tolerance::new("scores of 1000 are rounded to 6e-5, and exp makes that relative", 5e-3, 3e-4);
        let large_f16 = Tolerance::new("as in f32, and stored in f16", 5e-3, 8e-4);
        cases.push(
            Case::new(format!("attention of large scores, {heads} heads of {head_dim}"), b, y)
                .weights(weights)
                .batches(vec![batch(&[1, 17, 64, 129])])
                .f32(large)
                .f16(large_f16),
        );
    }
    cases
}
