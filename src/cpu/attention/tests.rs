//! Against plain f64, by each kernel.

use super::*;
use crate::cpu::tests::{assert_close, batch, numbers};
use crate::program::Builder;

/// Fewer than where matrices are faster, so that tests are.
const LEAST_KEYS: usize = 48;

const NO_BIAS: Bias<'static> = Bias { kind: None, table: &[] };

/// The formula, in f64.
fn expected(op: &Attention, qkv: &[f32], batch: &Batch) -> Vec<f64> {
    let cols = op.heads * op.head_dim;
    let at = |t: usize, c: usize| f64::from(qkv[t * 3 * cols + c]);
    let mut out = vec![0.0; batch.tokens() * cols];
    for s in 0..batch.sequences() {
        for head in (0..op.heads).map(|head| head * op.head_dim) {
            for q in batch.range(s) {
                let dot =
                    |k: usize| -> f64 { (0..op.head_dim).map(|d| at(q, head + d) * at(k, cols + head + d)).sum() };
                let scores: Vec<f64> = batch.range(s).map(|k| dot(k) * f64::from(op.scale)).collect();
                let max = scores.iter().copied().fold(f64::MIN, f64::max);
                let sum: f64 = scores.iter().map(|x| (x - max).exp()).sum();
                for d in 0..op.head_dim {
                    let keys = batch.range(s).zip(&scores);
                    let y: f64 = keys.map(|(k, x)| (x - max).exp() * at(k, 2 * cols + head + d)).sum();
                    out[q * cols + head + d] = y / sum;
                }
            }
        }
    }
    out
}

fn op(heads: usize, head_dim: usize) -> Attention {
    let mut b = Builder::new();
    let table = b.matrix("x", 1, 1);
    let qkv = b.embed(vec![crate::program::Lookup { table, index: crate::program::Index::Ids, offset: 0 }]);
    Attention::new(qkv, heads, head_dim)
}

/// A test of each kernel; with AVX-512's panels, of matrices, too, emulated if the CPU has none.
fn with_each(test: impl Fn(Kernel)) {
    test(Kernel::Vectors);
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if crate::cpu::instruction_set::lanes() == 16 {
        use crate::cpu::{amx, emulation};
        // Which asks Linux for them.
        let (is_emulated, before) = (!amx::exists(), emulation::products());
        emulation::with(|| {
            test(Kernel::Matrices(Products::F32));
            test(Kernel::Matrices(Products::Bf16));
        });
        assert_eq!(is_emulated, emulation::products() > before);
    }
}

/// How far a result may be off, of a kernel that multiplies as f32 does with `tolerance`.
fn allowed(kernel: Kernel, tolerance: f64) -> f64 {
    match kernel {
        // Queries, keys, values and weights are each rounded by 2^-9 at most.
        #[cfg(target_arch = "x86_64")]
        Kernel::Matrices(Products::Bf16) => 1.5e-2,
        _ => tolerance,
    }
}

#[test]
fn equals_the_formula_in_f64_at_awkward_sizes() {
    with_each(|kernel| {
        for (heads, head_dim) in [(1, 1), (3, 7), (2, 8), (2, 16), (1, 24), (2, 32), (1, 33), (1, 80)] {
            let op = op(heads, head_dim);
            for lengths in [&[1][..], &[0, 2, 0], &[5, 1, 6, 7, 8, 9], &[15, 16, 17], &[47, 48, 49], &[97, 1]] {
                let batch = batch(lengths);
                let qkv = numbers(1, batch.tokens() * 3 * heads * head_dim);
                let mut out = vec![f32::NAN; batch.tokens() * heads * head_dim];
                attention(kernel, LEAST_KEYS, &Team::ALONE, &op, &qkv, &NO_BIAS, &batch, &mut out);
                let name = format!("{heads} x {head_dim}, {lengths:?}, {kernel:?}");
                assert_close(&out, &expected(&op, &qkv, &batch), allowed(kernel, 1e-6), &name);
            }
        }
    });
}

#[test]
fn large_scores_do_not_overflow() {
    with_each(|kernel| {
        for (head_dim, lengths) in [(16, [20, 3]), (24, [50, 3])] {
            let (op, batch, cols) = (op(2, head_dim), batch(&lengths), 2 * head_dim);
            let qkv: Vec<f32> = numbers(1, batch.tokens() * 3 * cols).iter().map(|x| x * 30.0).collect();
            let mut out = vec![f32::NAN; batch.tokens() * cols];
            attention(kernel, LEAST_KEYS, &Team::ALONE, &op, &qkv, &NO_BIAS, &batch, &mut out);
            // Scores of several thousand: their rounding, 1e-4, becomes a relative error of the weights. In bf16, it is 10.
            match allowed(kernel, 0.0) {
                0.0 => assert_close(&out, &expected(&op, &qkv, &batch), 2e-2, &format!("large scores, {kernel:?}")),
                _ => assert!(out.iter().all(|x| x.abs() <= 52.0), "means of values of up to 52: {out:?}"),
            }
        }
    });
}

/// Of what is masked or added, matrices make what vectors do, which `tests/ops.rs` compares with formulas.
#[test]
fn matrices_and_vectors_make_the_same_of_masks_and_biases() {
    let plain = Attention { kv_heads: 1, ..op(2, 24) };
    let table = numbers(7, 2 * 9);
    let relative = Some(PositionBias::Relative { table: crate::program::WeightId(0) });
    let kinds = [
        ("all", plain.clone()),
        ("window", Attention { window: Some(20), ..plain.clone() }),
        ("window of 0", Attention { window: Some(0), ..plain.clone() }),
        ("causal", Attention { causal: true, ..plain.clone() }),
        ("causal window", Attention { causal: true, window: Some(33), ..plain.clone() }),
        ("softcap", Attention { softcap: Some(0.7), ..plain.clone() }),
        ("alibi", Attention { bias: Some(PositionBias::Alibi), ..plain.clone() }),
        ("relative", Attention { bias: relative, ..plain.clone() }),
    ];
    let mut batch = batch(&[81, 3, 64]);
    batch.push_expanded(&[7; 70], &[0; 70], 0, 55);
    let qkv = numbers(1, batch.tokens() * plain.qkv_cols());
    let by = |kernel, op: &Attention| {
        let bias = Bias { kind: op.bias, table: &table };
        let mut out = vec![f32::NAN; batch.tokens() * op.heads * op.head_dim];
        attention(kernel, LEAST_KEYS, &Team::ALONE, op, &qkv, &bias, &batch, &mut out);
        out
    };
    for (name, op) in kinds {
        let expected: Vec<f64> = by(Kernel::Vectors, &op).into_iter().map(f64::from).collect();
        with_each(|kernel| {
            assert_close(&by(kernel, &op), &expected, allowed(kernel, 1e-6), &format!("{name}, {kernel:?}"))
        });
    }
}

#[test]
fn what_is_not_finite_shows_in_its_sequence_alone() {
    with_each(|kernel| {
        let op = op(1, 32);
        let batch = batch(&[50, 49]);
        for odd in [f32::NAN, -f32::NAN, f32::from_bits(0x7fff_ffff), f32::INFINITY] {
            // Of a query, which is nobody else's, of a key, which if infinite may just weigh nothing, and of a value.
            for part in [0, 1, 2].into_iter().filter(|&part| part != 1 || odd.is_nan()) {
                let mut qkv = numbers(1, batch.tokens() * 96);
                qkv[20 * 96 + part * 32 + 5] = odd;
                let mut out = vec![0.0; batch.tokens() * 32];
                attention(kernel, LEAST_KEYS, &Team::ALONE, &op, &qkv, &NO_BIAS, &batch, &mut out);
                for (token, row) in out.chunks_exact(32).enumerate() {
                    let is_odd = if part == 0 { token == 20 } else { token < 50 };
                    let found = row.iter().any(|x| !x.is_finite());
                    assert_eq!(found, is_odd, "{odd} in part {part}, {kernel:?}: token {token}");
                }
            }
        }
    });
}

/// Their weights are kept for as many as a run has: the sums go on from the run before.
#[test]
fn many_keys_are_summed_in_runs() {
    with_each(|kernel| {
        let op = op(1, 40);
        let batch = batch(&[530]);
        let qkv = numbers(1, batch.tokens() * 120);
        // One block of queries is enough.
        let mut out = vec![f32::NAN; batch.tokens() * 40];
        attention(kernel, LEAST_KEYS, &Team::ALONE, &op, &qkv, &NO_BIAS, &batch, &mut out);
        assert_close(&out, &expected(&op, &qkv, &batch), allowed(kernel, 1e-6), &format!("{kernel:?}"));
    });
}
