//! The rotation of rows before they become bytes. A row's step is as coarse as its largest number asks for, so a few large
//! numbers cost all others their precision. Rotated, every number is a mixture of many, and none is much larger than the
//! rest; products do not change, because both sides are rotated alike (QuaRot, <https://arxiv.org/abs/2404.00456>).
//!
//! A block of 128 elements, seen as `[8, 16]`, is multiplied by the Hadamard matrices of 8 and of 16, scaled to length 1:
//! together the Hadamard matrix of 128, which is its own inverse. What remains of a row is a block of 64, of 32 and of 16
//! elements, and up to 15 elements that stay as they are. The signs that others give columns at random before it are in the
//! factors of a [rounding](super::rounding).

use super::instruction_set::dispatch;
use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, Simd, SimdOp};

/// Elements of the second factor: those of the widest vector.
const WIDTH: usize = 16;

/// Rotates a row whose numbers are multiplied by `factors` before.
pub fn rotated(x: &[f32], factors: &[f32]) -> Vec<f32> {
    struct Rotate<'a>(&'a [f32], &'a [f32], &'a mut [f32]);

    impl SimdOp for Rotate<'_> {
        type Output = ();

        #[inline(always)]
        fn eval<I: Isa>(self, isa: I) {
            rotate(isa, self.0, self.1, self.2);
        }
    }

    let mut out = vec![0.0; x.len()];
    dispatch(Rotate(x, factors, &mut out));
    out
}

/// As [`rotated`], within vectorised code.
#[inline(always)]
pub fn rotate<I: Isa>(isa: I, x: &[f32], factors: &[f32], out: &mut [f32]) {
    assert!(x.len() == out.len() && factors.len() == out.len());
    let mut done = blocks::<I, 8>(isa, x, factors, out);
    done += blocks::<I, 4>(isa, &x[done..], &factors[done..], &mut out[done..]);
    done += blocks::<I, 2>(isa, &x[done..], &factors[done..], &mut out[done..]);
    done += blocks::<I, 1>(isa, &x[done..], &factors[done..], &mut out[done..]);
    for ((out, x), factor) in out[done..].iter_mut().zip(&x[done..]).zip(&factors[done..]) {
        *out = x * factor;
    }
}

/// Rotates as many blocks of `HEIGHT` times 16 elements as there are; returns their elements.
#[inline(always)]
fn blocks<I: Isa, const HEIGHT: usize>(isa: I, x: &[f32], factors: &[f32], out: &mut [f32]) -> usize {
    let ops = isa.f32();
    let (size, lanes) = (HEIGHT * WIDTH, ops.len());
    let scale = ops.splat(1.0 / (size as f32).sqrt());
    let whole = x.len() / size * size;
    // Plain indices: nested iterators become calls here, 3 % of int8's time.
    for first in (0..whole).step_by(size) {
        let block = first..first + size;
        let (x, factors, out) = (&x[block.clone()], &factors[block.clone()], &mut out[block]);
        // Where vectors are narrower than 16, each makes its part of all rows.
        for part in 0..WIDTH / lanes {
            let mut rows = [ops.zero(); HEIGHT];
            for (r, row) in rows.iter_mut().enumerate() {
                *row = product(isa, x, factors, r * WIDTH);
                for i in 1..WIDTH / lanes {
                    let x = product(isa, x, factors, r * WIDTH + i * lanes);
                    *row = if (part & i).count_ones() % 2 == 0 { ops.add(*row, x) } else { ops.sub(*row, x) };
                }
                *row = ops.mul(mix_lanes(isa, *row), scale);
            }
            let mut half = 1;
            while half < HEIGHT {
                for row in 0..HEIGHT {
                    if row & half == 0 {
                        let (a, b) = (rows[row], rows[row | half]);
                        (rows[row], rows[row | half]) = (ops.add(a, b), ops.sub(a, b));
                    }
                }
                half *= 2;
            }
            for (row, out) in rows.into_iter().zip(out.chunks_exact_mut(WIDTH)) {
                ops.store(row, &mut out[part * lanes..]);
            }
        }
    }
    whole
}

/// A vector of products, from number `at` on.
#[inline(always)]
fn product<I: Isa>(isa: I, x: &[f32], factors: &[f32], at: usize) -> I::F32 {
    let ops = isa.f32();
    ops.mul(ops.load(&x[at..]), ops.load(&factors[at..]))
}

/// Multiplies the lanes of a vector by their Hadamard matrix.
#[inline(always)]
fn mix_lanes<I: Isa>(isa: I, mut x: I::F32) -> I::F32 {
    let ops = isa.f32();
    let mut half = 1;
    while half < ops.len() {
        let lanes = x.to_array();
        // The lane at the other end of the butterfly: the compiler makes a shuffle of it.
        let mut others = lanes;
        let mut signs = [1.0; WIDTH];
        for i in 0..ops.len() {
            others[i] = lanes[i ^ half];
            signs[i] = if i & half == 0 { 1.0 } else { -1.0 };
        }
        x = ops.mul_add(x, ops.load(&signs), ops.load(others.as_ref()));
        half *= 2;
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::tests::{assert_close, numbers};

    #[test]
    fn equals_hadamard_matrices() {
        for len in [0, 1, 15, 16, 17, 48, 100, 128, 300, 384, 511] {
            let (x, factors) = (numbers(1, len), numbers(2, len));
            let mut expected = Vec::new();
            while expected.len() < len {
                let rest: Vec<f32> =
                    x.iter().zip(&factors).skip(expected.len()).map(|(x, factor)| x * factor).collect();
                let size = [128, 64, 32, 16].into_iter().find(|size| *size <= rest.len()).unwrap_or(1);
                expected.extend((0..size).map(|row: usize| {
                    let sign = |col: usize| if (row & col).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
                    (0..size).map(|col| sign(col) * f64::from(rest[col])).sum::<f64>() / (size as f64).sqrt()
                }));
            }
            assert_close(&rotated(&x, &factors), &expected, 1e-6, &format!("{len} elements"));
        }
    }

    #[test]
    fn is_its_own_inverse() {
        let (x, ones) = (numbers(2, 1000), [1.0; 1000]);
        let expected: Vec<_> = x.iter().copied().map(f64::from).collect();
        assert_close(&rotated(&rotated(&x, &ones), &ones), &expected, 1e-6, "twice");
    }
}
