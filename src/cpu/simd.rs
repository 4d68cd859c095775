//! The one vectorised loop that the element-wise ops share. The instruction set is chosen at run time by rten-simd.

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, Simd};

/// `out[i] = f(out[i], [inputs[0][i], inputs[1][i], ...])`, a vector at a time; lanes beyond the end hold zeros.
///
/// `f` must be `#[inline(always)]`, else its vector instructions become calls.
///
/// # Panics
/// If an input is not as long as `out`.
#[inline(always)]
pub fn update<I: Isa, const N: usize>(
    isa: I,
    out: &mut [f32],
    inputs: [&[f32]; N],
    f: impl Fn(I::F32, [I::F32; N]) -> I::F32,
) {
    let ops = isa.f32();
    let (len, lanes) = (out.len(), ops.len());
    for input in inputs {
        assert_eq!(input.len(), len);
    }
    let mut xs = [ops.zero(); N];
    let mut i = 0;
    while i + lanes <= len {
        // SAFETY: `i + lanes` is at most the length of `out`, which all inputs share.
        unsafe {
            for (x, input) in xs.iter_mut().zip(&inputs) {
                *x = ops.load_ptr(input.as_ptr().add(i));
            }
            let y = f(ops.load_ptr(out.as_ptr().add(i)), xs);
            ops.store_ptr(y, out.as_mut_ptr().add(i));
        }
        i += lanes;
    }
    if i < len {
        let mask = ops.first_n_mask(len - i);
        // SAFETY: the mask selects only the `len - i` lanes within the slices.
        unsafe {
            for (x, input) in xs.iter_mut().zip(&inputs) {
                *x = ops.load_ptr_mask(input.as_ptr().add(i), mask);
            }
            let y = f(ops.load_ptr_mask(out.as_ptr().add(i), mask), xs);
            ops.store_ptr_mask(y, out.as_mut_ptr().add(i), mask);
        }
    }
}

/// `max(x, low)`; a NaN stays one, which the `max` of not every instruction set promises.
#[inline(always)]
pub fn at_least<I: Isa>(isa: I, x: I::F32, low: f32) -> I::F32 {
    let (ops, low) = (isa.f32(), isa.f32().splat(low));
    ops.select(low, x, ops.lt(x, low))
}

/// `min(x, high)`; a NaN stays one.
#[inline(always)]
pub fn at_most<I: Isa>(isa: I, x: I::F32, high: f32) -> I::F32 {
    let (ops, high) = (isa.f32(), isa.f32().splat(high));
    ops.select(high, x, ops.gt(x, high))
}

/// All lanes of a vector, combined pairwise: half as many each time, so that they do not wait for each other one by one.
#[inline(always)]
pub fn fold<S: Simd<Elem = f32>>(x: S, combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = x.to_array();
    let mut count = lanes.as_ref().len();
    while count > 1 {
        count /= 2;
        for i in 0..count {
            lanes[i] = combine(lanes[i], lanes[i + count]);
        }
    }
    lanes[0]
}
