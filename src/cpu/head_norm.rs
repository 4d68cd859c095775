//! Normalisation of groups of columns of q and of k, each by itself.

use super::norm::norm;
use super::weights::Weights;
use crate::program::HeadNorm;

/// `qkv` and `out` are `[tokens, cols]`.
pub fn head_norm(op: &HeadNorm, qkv: &[f32], cols: usize, weights: &Weights, out: &mut [f32]) {
    let (of_q, of_k) = (op.groups[0] * op.group, op.groups[1] * op.group);
    let [q_weight, k_weight] = halves(weights.rows(op.weight), op.group);
    let [q_bias, k_bias] = op.bias.map_or([None, None], |bias| halves(weights.rows(bias), op.group).map(Some));
    for (x, out) in qkv.chunks_exact(cols).zip(out.chunks_exact_mut(cols)) {
        let (q, k) = (0..of_q, of_q..of_q + of_k);
        norm(op.kind, &x[q.clone()], q_weight, q_bias, op.eps, &mut out[q]);
        norm(op.kind, &x[k.clone()], k_weight, k_bias, op.eps, &mut out[k]);
        out[of_q + of_k..].copy_from_slice(&x[of_q + of_k..]);
    }
}

fn halves(values: &[f32], half: usize) -> [&[f32]; 2] {
    [&values[..half], &values[half..]]
}
