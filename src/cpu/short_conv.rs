//! The gated short convolution of LFM2: each column by itself, over a token and a few before it.

use super::instruction_set::dispatch;
use super::simd::update;
use crate::batch::Batch;
use rten_simd::ops::NumOps;
use rten_simd::{Isa, SimdOp};

/// `bcx` is `[tokens, 3 * cols]`, `weight` is `[taps, cols]`, `bias` is `[cols]`, `out` is `[tokens, cols]`.
pub fn short_conv(bcx: &[f32], weight: &[f32], bias: Option<&[f32]>, cols: usize, batch: &Batch, out: &mut [f32]) {
    dispatch(Convolve { bcx, weight, bias, cols, batch, out });
}

struct Convolve<'a> {
    bcx: &'a [f32],
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    cols: usize,
    batch: &'a Batch,
    out: &'a mut [f32],
}

impl SimdOp for Convolve<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Convolve { bcx, weight, bias, cols, batch, out } = self;
        let ops = isa.f32();
        let part = |token: usize, part: usize| &bcx[token * 3 * cols + part * cols..][..cols];
        for range in (0..batch.sequences()).map(|s| batch.range(s)) {
            for token in range.clone() {
                let out = &mut out[token * cols..][..cols];
                match bias {
                    Some(bias) => out.copy_from_slice(bias),
                    None => out.fill(0.0),
                }
                // The last tap is the token's own.
                for (back, tap) in weight.chunks_exact(cols).rev().enumerate().take(token - range.start + 1) {
                    update(
                        isa,
                        out,
                        [tap, part(token - back, 0), part(token - back, 2)],
                        #[inline(always)]
                        |sum, [tap, b, x]| ops.mul_add(tap, ops.mul(b, x), sum),
                    );
                }
                update(
                    isa,
                    out,
                    [part(token, 1)],
                    #[inline(always)]
                    |sum, [c]| ops.mul(sum, c),
                );
            }
        }
    }
}
