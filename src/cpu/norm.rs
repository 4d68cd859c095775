//! Normalisation of each row.

use super::instruction_set::dispatch;
use super::simd::update;
use super::weights::Weights;
use crate::program::{NormKind, RowNorm};
use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};
use rten_vecmath::{Sum, SumSquareSub};

/// A program's norm of each row: `x` and `out` are `[rows, cols]`.
pub fn rows(by: &RowNorm, x: &[f32], weights: &Weights, out: &mut [f32]) {
    let bias = by.bias.map(|bias| weights.rows(bias));
    norm(by.kind, x, weights.rows(by.weight), bias, by.eps, out);
}

/// `out = normalised(x) * weight + bias` for each row. `x` and `out` are `[rows, cols]`, `weight` and `bias` are `[cols]`. The
/// mean first and then the variance: one pass would cancel where the mean is large.
pub fn norm(kind: NormKind, x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    dispatch(Norm { kind, x, weight, bias, eps, out });
}

struct Norm<'a> {
    kind: NormKind,
    x: &'a [f32],
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    eps: f32,
    out: &'a mut [f32],
}

impl SimdOp for Norm<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        let cols = self.weight.len();
        for (x, out) in self.x.chunks_exact(cols).zip(self.out.chunks_exact_mut(cols)) {
            let mean = match self.kind {
                NormKind::Layer => Sum::new(x).eval(isa) / cols as f32,
                NormKind::Rms => 0.0,
            };
            let variance = SumSquareSub::new(x, mean).eval(isa) / cols as f32;
            let (mean, scale) = (ops.splat(mean), ops.splat(1.0 / (variance + self.eps).sqrt()));
            match self.bias {
                Some(bias) => update(
                    isa,
                    out,
                    [x, self.weight, bias],
                    #[inline(always)]
                    |_, [x, weight, bias]| ops.mul_add(ops.mul(ops.sub(x, mean), scale), weight, bias),
                ),
                None => update(
                    isa,
                    out,
                    [x, self.weight],
                    #[inline(always)]
                    |_, [x, weight]| ops.mul(ops.mul(ops.sub(x, mean), scale), weight),
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::tests::{assert_close, numbers};

    #[test]
    fn equals_the_formula_in_f64() {
        for cols in [1, 2, 7, 8, 9, 31, 33, 384, 1023] {
            for (rows, offset) in [(1, 0.0), (3, 100.0)] {
                let x: Vec<f32> = numbers(1, rows * cols).iter().map(|x| x + offset).collect();
                let (weight, bias) = (numbers(2, cols), numbers(3, cols));
                let kinds = [NormKind::Layer, NormKind::Rms].map(|kind| [(kind, None), (kind, Some(&bias[..]))]);
                for (kind, bias) in kinds.into_iter().flatten() {
                    let mut out = vec![f32::NAN; rows * cols];
                    norm(kind, &x, &weight, bias, 1e-5, &mut out);
                    let expected: Vec<f64> = x
                        .chunks(cols)
                        .flat_map(|x| {
                            let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / cols as f64;
                            let mean = if kind == NormKind::Rms { 0.0 } else { mean };
                            let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / cols as f64;
                            let scale = 1.0 / (variance + f64::from(1e-5f32)).sqrt();
                            let y = |(i, &x): (usize, &f32)| {
                                (f64::from(x) - mean) * scale * f64::from(weight[i])
                                    + bias.map_or(0.0, |bias| f64::from(bias[i]))
                            };
                            x.iter().enumerate().map(y).collect::<Vec<_>>()
                        })
                        .collect();
                    // With a mean of 100 the inputs themselves are rounded to 4e-6 of the deviation.
                    let tolerance = if offset == 0.0 { 2e-6 } else { 3e-5 };
                    assert_close(&out, &expected, tolerance, &format!("{rows} x {cols}"));
                }
            }
        }
    }
}
