//! Work of the vector units, which AMX does not wait for: scores become weights, split for the product with values.

use crate::cpu::amx::ROWS;
use crate::cpu::gemm::VECTORS;
use crate::cpu::split::tile::{PANEL, Sums};
use crate::cpu::split::{Matrix, PAIRS, PIECES, pieces};
use rten_simd::Isa;
use rten_simd::isa::Avx512Isa;
use rten_simd::ops::{BitOps, NumOps};
use std::arch::x86_64::{
    __m512, __m512i, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEG_INF, _mm512_fmadd_ps, _mm512_reduce_ps, _mm512_scalef_ps,
    _mm512_set1_ps,
};

/// Pairs of keys that take each step together.
pub const AT_ONCE: usize = 2;

/// A row of scores.
pub type Vectors = [<Avx512Isa as Isa>::F32; VECTORS];

/// The weights of a tile of scores, which become a step of a panel. They are computed a few at a time, between AMX's stages: a core
/// looks some hundred operations ahead, and AMX's must be among them.
pub struct Beside {
    isa: Avx512Isa,
    count: usize,
    most: Vectors,
    /// Of all weights so far.
    pub totals: Vectors,
    scores: *const Sums,
    to: *mut Matrix,
    /// The first pair of keys that is not done.
    pair: usize,
}

impl Beside {
    /// Of scores of at most `most`; as many pieces as `count` says.
    pub fn new(isa: Avx512Isa, count: usize, most: Vectors) -> Beside {
        let (totals, scores, to) = ([isa.f32().zero(); VECTORS], std::ptr::null(), std::ptr::null_mut());
        Beside { isa, count, most, totals, scores, to, pair: PAIRS }
    }

    /// A tile is next.
    ///
    /// # Safety
    /// It must be there until it is done, and so must the room for its matrices.
    #[inline(always)]
    pub unsafe fn begin(&mut self, scores: *const Sums, to: *mut Matrix) {
        (self.scores, self.to, self.pair) = (scores, to, 0);
    }

    /// Computes up to `count` more pairs.
    ///
    /// # Safety
    /// There must be AVX-512.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,f16c")]
    #[inline(never)]
    pub unsafe fn compute(&mut self, count: usize) {
        // SAFETY: as the caller promises.
        unsafe {
            match self.count {
                1 => self.compute_in::<1>(count),
                _ => self.compute_in::<PIECES>(count),
            }
        }
    }

    /// # Safety
    /// As [`Beside::compute`].
    #[inline(always)]
    unsafe fn compute_in<const P: usize>(&mut self, count: usize) {
        let ops = self.isa.f32();
        let pairs = self.pair..PAIRS.min(self.pair + count);
        self.pair = pairs.end;
        let mut totals = self.totals;
        for first in pairs.step_by(AT_ONCE) {
            // Two keys' rows each.
            let mut x = [[ops.zero().0; 2 * VECTORS]; AT_ONCE];
            // SAFETY: as the one promised who began the tile.
            unsafe {
                for (pair, x) in x.iter_mut().enumerate() {
                    for (i, x) in x.iter_mut().enumerate() {
                        let (key, v) = (first + pair + i / VECTORS * PAIRS, i % VECTORS);
                        let score = ops.load_ptr(self.scores.cast::<f32>().add(key * PANEL + v * ROWS));
                        *x = ops.sub(score, self.most[v]).0;
                    }
                }
            }
            let weights = match P {
                1 => exp2(x, ROUGH),
                _ => exp2(x, FINE),
            };
            for (pair, weights) in weights.into_iter().enumerate() {
                for (v, total) in totals.iter_mut().enumerate() {
                    let (a, b) = (weights[v], weights[VECTORS + v]);
                    *total = ops.add(*total, ops.add(a.into(), b.into()));
                    // SAFETY: as above.
                    unsafe {
                        let to = self.to.cast::<__m512i>().add(v * ROWS + first + pair);
                        for (p, piece) in pieces::<P>(a, b).into_iter().enumerate() {
                            to.add(p * VECTORS * ROWS).write(piece);
                        }
                    }
                }
            }
        }
        self.totals = totals;
    }
}

/// Polynomials for 2^x, the highest power first: those whose largest relative error for x from 0 to 1 is the least where the last
/// coefficient is 1. This one's is 2e-9, and with f32's rounding 7e-8;
const FINE: [f32; 7] = [2.161_291_6e-4, 1.246_784_6e-3, 9.675_452e-3, 5.548_528e-2, 0.240_229_3, 0.693_147_06, 1.0];

/// this one's 8.6e-5, a twentieth of what rounding to bf16 may change.
const ROUGH: [f32; 4] = [0.077_067_055, 0.227_644_98, 0.695_116_8, 1.0];

/// 2^x for each x up to 0; NaN stays NaN. All numbers take each step together: what waits for a result fills the room from which a
/// core looks ahead.
#[inline(always)]
fn exp2<const N: usize, const V: usize>(x: [[__m512; V]; AT_ONCE], coefficients: [f32; N]) -> [[__m512; V]; AT_ONCE] {
    // SAFETY: there is an `Avx512Isa` where this is called.
    unsafe {
        let (mut fractions, mut powers) = (x, [[_mm512_set1_ps(coefficients[0]); V]; AT_ONCE]);
        for fraction in fractions.as_flattened_mut() {
            *fraction = _mm512_reduce_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(*fraction);
        }
        for coefficient in &coefficients[1..] {
            for (power, fraction) in powers.as_flattened_mut().iter_mut().zip(fractions.as_flattened()) {
                *power = _mm512_fmadd_ps(*power, *fraction, _mm512_set1_ps(*coefficient));
            }
        }
        // Times two to what is below x.
        for (power, x) in powers.as_flattened_mut().iter_mut().zip(x.as_flattened()) {
            *power = _mm512_scalef_ps(*power, *x);
        }
        powers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBERS: usize = AT_ONCE * 2 * VECTORS * ROWS;
    type AtOnce = [[__m512; 2 * VECTORS]; AT_ONCE];

    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,f16c")]
    fn powers<const N: usize>(xs: [f32; NUMBERS], coefficients: [f32; N]) -> [f32; NUMBERS] {
        // SAFETY: vectors are nothing but their numbers.
        unsafe {
            let xs = std::mem::transmute::<[f32; NUMBERS], AtOnce>(xs);
            std::mem::transmute::<AtOnce, [f32; NUMBERS]>(exp2(xs, coefficients))
        }
    }

    #[test]
    fn powers_of_two_are_those_in_f64() {
        if Avx512Isa::new().is_none() {
            return;
        }
        let check = |xs: [f32; NUMBERS]| {
            // SAFETY: there is AVX-512.
            let (fine, rough) = unsafe { (powers(xs, FINE), powers(xs, ROUGH)) };
            for (i, x) in xs.into_iter().enumerate() {
                let expected = f64::from(x).exp2();
                let error = |power: f32| (f64::from(power) / expected - 1.0).abs();
                assert!(error(fine[i]) < 1.2e-7 && error(rough[i]) < 9e-5, "2^{x}: {} and {}", fine[i], rough[i]);
            }
        };
        (0..1000).for_each(|i| {
            check(std::array::from_fn(|j| -((i * NUMBERS + j) as f32) * 126.0 / (1000 * NUMBERS) as f32))
        });
        let ends = [0.0, -1000.0, f32::MIN, f32::NEG_INFINITY, f32::NAN];
        // SAFETY: as above.
        let found = unsafe { powers(std::array::from_fn(|i| ends[i % 5]), FINE) };
        assert!(found[..4] == [1.0, 0.0, 0.0, 0.0] && found[4].is_nan(), "{:?}", &found[..5]);
    }
}
