//! The experts of a mixture, weighted.

/// `out = g * x` by blocks of columns, an expert each. `x` and `out` are `[rows, cols]`, `logits` is `[rows, experts]`; `g` is
/// their softmax where they are among the `top` largest of their row, else 0.
pub fn experts(x: &[f32], cols: usize, logits: &[f32], experts: usize, top: usize, out: &mut [f32]) {
    let width = cols / experts;
    let rows = x.chunks_exact(cols).zip(logits.chunks_exact(experts)).zip(out.chunks_exact_mut(cols));
    for ((x, logits), out) in rows {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f32 = logits.iter().map(|logit| (logit - largest).exp()).sum();
        let blocks = x.chunks_exact(width).zip(out.chunks_exact_mut(width));
        for (expert, (x, out)) in blocks.enumerate() {
            let logit = logits[expert];
            // Of equal logits the first counts.
            let before =
                logits.iter().enumerate().filter(|(i, l)| **l > logit || (**l == logit && *i < expert)).count();
            let gate = if before < top { (logit - largest).exp() / total } else { 0.0 };
            for (out, x) in out.iter_mut().zip(x) {
                *out = gate * x;
            }
        }
    }
}
