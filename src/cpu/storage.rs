//! How weights lie in memory: in f32, or in 16 bits that become f32 whenever they are read. Where 16 bits hold all of a matrix's
//! numbers, because its checkpoint has no more, they are kept so whatever the dtype: results are the same to the last bit, in
//! half the memory.

use crate::executor::Dtype;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rten_simd::ops::{BitOps, Extend, IntOps, NumOps};
use rten_simd::{Isa, Simd};

/// A number as it lies in memory.
pub trait Stored: Copy + Default + Send + Sync + 'static {
    /// It is narrower than f32.
    const IS_NARROW: bool;

    /// bf16s that add up to it.
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused))]
    const PIECES: usize;

    /// Rounds `values` to it; ties go to even.
    fn store(values: &[f32], to: &mut [Self]);

    /// It is an f32, too.
    fn to_f32(self) -> f32;

    /// `V` vectors, an even number unless this is f32.
    ///
    /// # Safety
    /// `at` must be valid for as many numbers.
    unsafe fn vectors<I: Isa, const V: usize>(isa: I, at: *const Self) -> [I::F32; V];
}

impl Stored for f32 {
    const IS_NARROW: bool = false;
    const PIECES: usize = 3;

    fn store(values: &[f32], to: &mut [f32]) {
        to.copy_from_slice(values);
    }

    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    unsafe fn vectors<I: Isa, const V: usize>(isa: I, at: *const f32) -> [I::F32; V] {
        let ops = isa.f32();
        let mut vectors = [ops.zero(); V];
        for (v, vector) in vectors.iter_mut().enumerate() {
            // SAFETY: as the caller promises.
            *vector = unsafe { ops.load_ptr(at.add(v * ops.len())) };
        }
        vectors
    }
}

/// `$widen`: a vector of the numbers at `$at`, twice as many as f32s, as two vectors of f32.
macro_rules! stored_in_16_bits {
    ($number:ty, $pieces:literal, |$isa:ident, $at:ident| $widen:expr) => {
        impl Stored for $number {
            const IS_NARROW: bool = true;
            const PIECES: usize = $pieces;

            fn store(values: &[f32], to: &mut [$number]) {
                to.convert_from_f32_slice(values);
            }

            fn to_f32(self) -> f32 {
                <$number>::to_f32(self)
            }

            #[inline(always)]
            unsafe fn vectors<I: Isa, const V: usize>($isa: I, at: *const $number) -> [I::F32; V] {
                const { assert!(V.is_multiple_of(2)) };
                let ops = $isa.f32();
                let mut vectors = [ops.zero(); V];
                for pair in 0..V / 2 {
                    // SAFETY: as the caller promises.
                    let $at = unsafe { at.add(2 * pair * ops.len()) };
                    // SAFETY: as above; both types are 16 bits.
                    let (low, high) = unsafe { $widen };
                    vectors[2 * pair] = low;
                    vectors[2 * pair + 1] = high;
                }
                vectors
            }
        }
    };
}

stored_in_16_bits!(f16, 2, |isa, at| {
    // Elsewhere rten-simd calls a function for each number.
    if isa.f32().len() > 4 || cfg!(target_arch = "aarch64") {
        let both = isa.f16().load_ptr(at.cast());
        (isa.f16().extend_low(both), isa.f16().extend_high(both))
    } else {
        let both = isa.i16().load_ptr(at.cast());
        (finite(isa, isa.i16().extend_low(both)), finite(isa, isa.i16().extend_high(both)))
    }
});

/// f16s as f32s, unless they are infinite: their bits moved to those of an f32, whose exponent is then too small by 112.
#[inline(always)]
fn finite<I: Isa>(isa: I, bits: I::I32) -> I::F32 {
    let (ops, floats) = (isa.i32(), isa.f32());
    let sign = ops.and(bits, ops.splat(i32::MIN));
    let size: I::F32 = ops.and(ops.shift_left::<13>(bits), ops.splat(0x0fff_e000)).reinterpret_cast();
    let size: I::I32 = floats.mul(size, floats.splat(2f32.powi(112))).reinterpret_cast();
    ops.or(sign, size).reinterpret_cast()
}

// The upper half of an f32's bits.
stored_in_16_bits!(bf16, 1, |isa, at| {
    let both = isa.i16().load_ptr(at.cast());
    let (low, high) = (isa.i16().extend_low(both), isa.i16().extend_high(both));
    let ops = isa.i32();
    (ops.shift_left::<16>(low).reinterpret_cast(), ops.shift_left::<16>(high).reinterpret_cast())
});

/// What a matrix's numbers are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    F32,
    F16,
    Bf16,
}

impl Storage {
    /// That of all of `values`.
    pub fn of(values: &[f32], dtype: Dtype) -> Storage {
        let mut fit = Fit::new(dtype);
        fit.add(values);
        fit.storage()
    }
}

/// Which 16 bits will do for the numbers seen so far.
#[derive(Debug)]
pub struct Fit {
    /// Exactly.
    f16: bool,
    /// Exactly.
    bf16: bool,
    /// Rounded, as a dtype allows for all that it does not compute in int8.
    rounded: Option<Storage>,
}

impl Fit {
    /// None seen.
    pub fn new(dtype: Dtype) -> Fit {
        let rounded = match dtype {
            Dtype::F32 => None,
            Dtype::F16 | Dtype::Int8 => Some(Storage::F16),
            Dtype::Bf16 => Some(Storage::Bf16),
        };
        Fit { f16: true, bf16: true, rounded }
    }

    /// Sees more, unless nothing will do.
    pub fn add(&mut self, values: &[f32]) {
        const PIECE: usize = 1024;
        let (mut narrow, mut back) = ([f16::ZERO; PIECE], [0.0; PIECE]);
        for values in values.chunks(PIECE) {
            if self.is_none() {
                return;
            }
            if self.f16 || self.rounded == Some(Storage::F16) {
                let (narrow, back) = (&mut narrow[..values.len()], &mut back[..values.len()]);
                narrow.convert_from_f32_slice(values);
                narrow.convert_to_f32_slice(back);
                let is_finite = back.iter().all(|x| x.is_finite());
                self.f16 &= is_finite && values == back;
                self.rounded = self.rounded.filter(|&rounded| rounded != Storage::F16 || is_finite);
            }
            let is_finite = || values.iter().all(|x| bf16::from_f32(*x).is_finite());
            self.rounded = self.rounded.filter(|&rounded| rounded != Storage::Bf16 || is_finite());
            self.bf16 &= values.iter().all(|x| bf16::from_bits((x.to_bits() >> 16) as u16).to_f32() == *x);
        }
    }

    /// Whether nothing will do.
    pub fn is_none(&self) -> bool {
        !self.f16 && !self.bf16 && self.rounded.is_none()
    }

    /// The best that will do.
    pub fn storage(&self) -> Storage {
        match self {
            Fit { f16: true, .. } => Storage::F16,
            Fit { bf16: true, .. } => Storage::Bf16,
            Fit { rounded, .. } => rounded.unwrap_or(Storage::F32),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::instruction_set::dispatch;
    use crate::cpu::tests::numbers;
    use rten_simd::SimdOp;

    #[test]
    fn numbers_stay_in_16_bits_that_hold_them() {
        let x = numbers(1, 3000);
        let halves: Vec<f32> = x.iter().map(|x| f16::from_f32(*x).to_f32()).collect();
        let bfloats: Vec<f32> = x.iter().map(|x| bf16::from_f32(x * 1e9).to_f32()).collect();
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::Int8] {
            assert_eq!(Storage::of(&halves, dtype), Storage::F16);
            assert_eq!(Storage::of(&bfloats, dtype), Storage::Bf16);
        }
        // The last number alone decides.
        let with = |last: f32| [&halves[..2999], &[last]].concat();
        for (last, exact, rounded) in [
            (0.1, Storage::F32, Storage::F16),
            (65504.0, Storage::F16, Storage::F16),
            (65519.0, Storage::F32, Storage::F16),
            (65536.0, Storage::F32, Storage::F32),
            (f32::NAN, Storage::F32, Storage::F32),
            (f32::INFINITY, Storage::F32, Storage::F32),
            (6e-8, Storage::F32, Storage::F16),
            (-0.0, Storage::F16, Storage::F16),
        ] {
            assert_eq!(Storage::of(&with(last), Dtype::F32), exact, "{last}");
            assert_eq!(Storage::of(&with(last), Dtype::F16), rounded, "{last}");
            let in_bf16 = if exact == Storage::F32 && last.is_finite() { Storage::Bf16 } else { exact };
            assert_eq!(Storage::of(&with(last), Dtype::Bf16), in_bf16, "{last}");
        }
    }

    #[test]
    fn vectors_are_the_numbers_that_were_stored() {
        struct Load<'a, N>(&'a [N]);
        impl<N: Stored> SimdOp for Load<'_, N> {
            type Output = Vec<f32>;
            #[inline(always)]
            fn eval<I: Isa>(self, isa: I) -> Vec<f32> {
                assert!(self.0.len() >= 2 * isa.f32().len());
                // SAFETY: there are as many.
                let vectors = unsafe { N::vectors::<I, 2>(isa, self.0.as_ptr()) };
                vectors.iter().flat_map(|vector| vector.to_array().as_ref().to_vec()).collect()
            }
        }
        fn check<N: Stored>() {
            let mut x = numbers(2, 64);
            x[..10].copy_from_slice(&[0.0, -0.0, 1e-7, -1e-7, 6e4, -6e4, 1.0, -1.0, 3e-5, -65504.0]);
            let mut stored = vec![N::default(); x.len()];
            N::store(&x, &mut stored);
            for first in [0, 1, 7] {
                let found = dispatch(Load(&stored[first..]));
                let expected: Vec<f32> = stored[first..].iter().take(found.len()).map(|x| x.to_f32()).collect();
                assert_eq!(found, expected);
            }
        }
        check::<f32>();
        check::<f16>();
        check::<bf16>();
    }
}
