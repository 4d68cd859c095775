//! Normalisation of groups of columns of q, of k and of v, each by itself.

use super::norm::norm;
use super::weights::Weights;
use crate::program::HeadNorm;

/// `qkv` and `out` are `[tokens, cols]`.
pub fn head_norm(op: &HeadNorm, qkv: &[f32], cols: usize, weights: &Weights, out: &mut [f32]) {
    let (weight, bias) = (weights.rows(op.weight), op.bias.map(|bias| weights.rows(bias)));
    for (x, out) in qkv.chunks_exact(cols).zip(out.chunks_exact_mut(cols)) {
        let mut first = 0;
        for (i, groups) in op.groups.into_iter().enumerate().filter(|(_, groups)| *groups > 0) {
            let (columns, part) = (first..first + groups * op.group, i * op.group..(i + 1) * op.group);
            let bias = bias.map(|bias| &bias[part.clone()]);
            norm(op.kind, &x[columns.clone()], &weight[part], bias, op.eps, &mut out[columns.clone()]);
            first = columns.end;
        }
        out[first..].copy_from_slice(&x[first..]);
    }
}
