//! The softmax of attention, down the columns of its scores: a column is a query, a row a key, so that a vector works for as many
//! queries as it has lanes, and no lane ever meets another.

use super::simd::at_least;
use rten_simd::ops::{BitOps, FloatOps, IntOps, NumOps};
use rten_simd::{Isa, Simd};
use std::f32::consts::LN_2;

/// The score of a key that a query does not see.
pub const UNSEEN: f32 = f32::MIN;

/// What scores are at least relative to: far above [`UNSEEN`], and below every other.
pub const LEAST: f32 = f32::MIN / 2.0;

/// The largest score of each column of `[rows, V vectors]`, [`LEAST`] if its query sees no key.
#[inline(always)]
pub fn largest<I: Isa, const V: usize>(isa: I, scores: &[f32]) -> [I::F32; V] {
    let ops = isa.f32();
    let mut largest = [ops.splat(LEAST); V];
    for row in scores.chunks_exact(V * ops.len()) {
        for (largest, score) in largest.iter_mut().zip(ops.load_many::<V>(row)) {
            *largest = ops.max(*largest, score);
        }
    }
    largest
}

/// Turns scores, which are powers of two, into weights: those of a column add up to the inverse of what comes back for it, which is
/// 0 for a query that sees no key.
#[inline(always)]
pub fn weigh<I: Isa, const V: usize>(isa: I, scores: &mut [f32], largest: [I::F32; V]) -> [I::F32; V] {
    let ops = isa.f32();
    let mut totals = [ops.zero(); V];
    for row in scores.chunks_exact_mut(V * ops.len()) {
        for (v, row) in row.chunks_exact_mut(ops.len()).enumerate() {
            let weight = exp2(isa, ops.sub(ops.load(row), largest[v]));
            totals[v] = ops.add(totals[v], weight);
            ops.store(weight, row);
        }
    }
    inverse(isa, totals)
}

/// What weights that add up to `totals` are multiplied by.
#[inline(always)]
pub fn inverse<I: Isa, const V: usize>(isa: I, totals: [I::F32; V]) -> [I::F32; V] {
    let ops = isa.f32();
    // The largest score has the weight 1. Not the other way round: NaN stays NaN.
    totals.map(|total| ops.select(ops.zero(), ops.div(ops.one(), total), ops.lt(total, ops.splat(0.5))))
}

/// 2^x for x from -126 to 0, with a relative error of 1.2e-7; from -127 down, 0, and between, less than 2^-126. NaN stays NaN.
///
/// What a query does not see must weigh 0: the products with 2^-126 would be subnormal, which CPUs take a hundred cycles for (with
/// AVX-512, windows took four times as long).
#[inline(always)]
fn exp2<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let (ops, integers) = (isa.f32(), isa.i32());
    // Added to a number of this size, a fraction is rounded away, and the integer stands in the lowest bits.
    let magic = ops.splat(12_582_912.0); // 3 * 2^22
    let x = at_least(isa, x, -127.0);
    let shifted = ops.add(x, magic);
    let fraction = ops.sub(x, ops.sub(shifted, magic));
    // 2^fraction for fractions up to a half: the polynomial whose largest relative error, 2e-9, is the least.
    let mut power = ops.splat(1.535_336_2e-4);
    for coefficient in [1.339_887_5e-3, 9.618_437e-3, 5.550_332_4e-2, 0.240_226_48, LN_2, 1.0] {
        power = ops.mul_add(power, fraction, ops.splat(coefficient));
    }
    // The integer goes to the exponent.
    let integer: I::I32 = shifted.reinterpret_cast();
    let power: I::I32 = power.reinterpret_cast();
    integers.add(power, integers.shift_left::<23>(integer)).reinterpret_cast()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::instruction_set::dispatch;
    use rten_simd::SimdOp;

    /// 2^x of each.
    struct Powers<'a>(&'a mut [f32]);

    impl SimdOp for Powers<'_> {
        type Output = ();

        #[inline(always)]
        fn eval<I: Isa>(self, isa: I) {
            for x in self.0 {
                *x = exp2(isa, isa.f32().splat(*x)).to_array()[0];
            }
        }
    }

    #[test]
    fn powers_of_two_are_those_in_f64() {
        let xs: Vec<f32> = (0..200_000).map(|i| -(i as f32) * 126.0 / 200_000.0).collect();
        let mut powers = xs.clone();
        dispatch(Powers(&mut powers));
        for (x, power) in xs.into_iter().zip(powers) {
            let expected = f64::from(x).exp2();
            assert!((f64::from(power) / expected - 1.0).abs() < 1.2e-7, "2^{x} is {expected}, not {power}");
        }
        let mut ends = [0.0, -126.0, -127.0, f32::MIN, f32::NEG_INFINITY, f32::NAN, -126.2, -126.7];
        dispatch(Powers(&mut ends));
        assert_eq!(ends[..5], [1.0, f32::MIN_POSITIVE, 0.0, 0.0, 0.0]);
        assert!(ends[5].is_nan() && ends[6..].iter().all(|power| (0.0..=f32::MIN_POSITIVE).contains(power)));
    }
}
