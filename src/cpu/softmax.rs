//! Softmax of a row of scores.

use super::simd::fold;
use rten_simd::ops::{BitOps, FloatOps, IntOps, NumOps};
use rten_simd::{Isa, Simd};

/// `scores = exp(scores - max) / sum(exp(scores - max))`, in place.
#[inline(always)]
pub fn softmax<I: Isa>(isa: I, scores: &mut [f32]) {
    let ops = isa.f32();
    let lanes = ops.len();
    let whole = scores.len() / lanes * lanes;
    let rest = ops.first_n_mask(scores.len() - whole);
    let at = scores.as_mut_ptr();
    // SAFETY: whole vectors end at `whole`, and the mask selects what is behind it.
    let last = unsafe { ops.load_ptr_mask(at.wrapping_add(whole), rest) };
    let lowest = ops.splat(f32::MIN);
    let mut max = ops.select(last, lowest, rest);
    for i in (0..whole).step_by(lanes) {
        // SAFETY: as above.
        max = ops.max(max, unsafe { ops.load_ptr(at.add(i)) });
    }
    let max = ops.splat(fold(max, f32::max));
    let last = ops.select(exp(isa, ops.sub(last, max)), ops.zero(), rest);
    let mut sum = last;
    for i in (0..whole).step_by(lanes) {
        // SAFETY: as above.
        unsafe {
            let y = exp(isa, ops.sub(ops.load_ptr(at.add(i)), max));
            ops.store_ptr(y, at.add(i));
            sum = ops.add(sum, y);
        }
    }
    let scale = ops.splat(1.0 / fold(sum, |a, b| a + b));
    for i in (0..whole).step_by(lanes) {
        // SAFETY: as above.
        unsafe { ops.store_ptr(ops.mul(ops.load_ptr(at.add(i)), scale), at.add(i)) };
    }
    // SAFETY: as above.
    unsafe { ops.store_ptr_mask(ops.mul(last, scale), at.wrapping_add(whole), rest) };
}

/// `e^x` for `x <= 0`, to 1 unit in the last place; e^-87 and less are e^-87. `x = k ln 2 + r`, so `e^x = 2^k e^r`: the method
/// and the polynomial are Norbert Juffa's, as in rten-vecmath, whose own function for `x <= 0` is not public.
#[inline(always)]
fn exp<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    /// Added and subtracted, it leaves a number rounded to an integer.
    const ROUND: f32 = 12_582_912.0;
    /// -ln 2 in two parts, of which the first has few digits: `k` times it is exact.
    const LN_2: [f32; 2] = [-6.931_457_5e-1, -1.428_606_8e-6];
    const POLYNOMIAL: [f32; 7] =
        [1.378_059_4e-3, 8.373_124_5e-3, 4.166_953_6e-2, 1.666_647_2e-1, 4.999_998_5e-1, 1.0, 1.0];
    let (ops, integers) = (isa.f32(), isa.i32());
    let lowest = ops.splat(-87.0);
    let x = ops.select(lowest, x, ops.lt(x, lowest)); // a NaN stays one, which not every `max` promises
    let round = ops.splat(ROUND);
    let k = ops.sub(ops.mul_add(x, ops.splat(std::f32::consts::LOG2_E), round), round);
    let r = ops.mul_add(k, ops.splat(LN_2[1]), ops.mul_add(k, ops.splat(LN_2[0]), x));
    let mut y = ops.splat(POLYNOMIAL[0]);
    for coefficient in &POLYNOMIAL[1..] {
        y = ops.mul_add(y, r, ops.splat(*coefficient));
    }
    let exponent = integers.add(ops.to_int_trunc(k), integers.splat(127));
    ops.mul(y, integers.shift_left::<23>(exponent).reinterpret_cast::<I::F32>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::instruction_set::dispatch;
    use crate::cpu::tests::{assert_close, numbers};
    use rten_simd::SimdOp;

    struct Row<'a>(&'a mut [f32]);

    impl SimdOp for Row<'_> {
        type Output = ();

        #[inline(always)]
        fn eval<I: Isa>(self, isa: I) {
            softmax(isa, self.0);
        }
    }

    #[test]
    fn equals_the_formula_in_f64() {
        for len in [1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 100, 1000] {
            for factor in [0.0, 1.0, 30.0, 1000.0] {
                let mut scores: Vec<f32> = numbers(len as u64, len).iter().map(|x| x * factor).collect();
                let max = scores.iter().copied().fold(f32::MIN, f32::max);
                let exps: Vec<f64> = scores.iter().map(|x| f64::from(x - max).exp()).collect();
                let sum: f64 = exps.iter().sum();
                let expected: Vec<f64> = exps.iter().map(|x| x / sum).collect();
                dispatch(Row(&mut scores));
                assert_close(&scores, &expected, 3e-7, &format!("{len} numbers up to {factor}"));
            }
        }
    }

    #[test]
    fn a_nan_shows() {
        for at in [0, 16, 20] {
            let mut scores = [1.0; 21];
            scores[at] = f32::NAN;
            dispatch(Row(&mut scores));
            assert!(scores.iter().all(|x| x.is_nan()), "{scores:?}");
        }
    }
}
