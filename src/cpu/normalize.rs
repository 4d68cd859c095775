//! Each row divided by its L2 norm.

use super::instruction_set::dispatch;
use super::simd::update;
use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};
use rten_vecmath::SumSquare;

/// `out = x / max(|x|, 1e-12)` for each row; both are `[rows, cols]`.
pub fn normalize(x: &[f32], cols: usize, out: &mut [f32]) {
    dispatch(Normalize { x, cols, out });
}

/// What a row is multiplied by: `1 / max(|x|, 1e-12)`.
#[inline(always)]
pub fn inverse_length<I: Isa>(isa: I, x: &[f32]) -> f32 {
    1.0 / SumSquare::new(x).eval(isa).sqrt().max(1e-12)
}

struct Normalize<'a> {
    x: &'a [f32],
    cols: usize,
    out: &'a mut [f32],
}

impl SimdOp for Normalize<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        for (x, out) in self.x.chunks_exact(self.cols).zip(self.out.chunks_exact_mut(self.cols)) {
            let scale = ops.splat(inverse_length(isa, x));
            update(
                isa,
                out,
                [x],
                #[inline(always)]
                |_, [x]| ops.mul(x, scale),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::tests::{assert_close, numbers};

    #[test]
    fn rows_have_length_one_and_zeros_stay_zeros() {
        for cols in [1, 5, 8, 17, 384] {
            let mut x = numbers(1, 3 * cols);
            x[cols..2 * cols].fill(0.0);
            let mut out = vec![f32::NAN; 3 * cols];
            normalize(&x, cols, &mut out);
            let expected: Vec<f64> = x
                .chunks(cols)
                .flat_map(|x| {
                    let length = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt().max(1e-12);
                    x.iter().map(move |&x| f64::from(x) / length)
                })
                .collect();
            assert_close(&out, &expected, 1e-6, &format!("{cols} columns"));
        }
        normalize(&[], 4, &mut []);
    }
}
