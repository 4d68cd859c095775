//! Gated linear units: the activation of one half of the columns times the other half.

use super::activation::{self, WithActivation};
use super::instruction_set::dispatch;
use super::simd::update;
use crate::program::{Activation, Half};
use rten_simd::ops::NumOps;
use rten_simd::{Isa, SimdOp, SimdUnaryOp};

/// `out = activation(activated half of x) * other half`. `x` is `[rows, 2 * cols]`, `out` is `[rows, cols]`.
pub fn glu(x: &[f32], cols: usize, activation: Activation, activated: Half, out: &mut [f32]) {
    activation::with(activation, Glu { x, cols, activated, out });
}

struct Glu<'a> {
    x: &'a [f32],
    cols: usize,
    activated: Half,
    out: &'a mut [f32],
}

impl WithActivation for Glu<'_> {
    fn run<A: SimdUnaryOp<f32>>(self, activation: A) {
        dispatch(Gated { glu: self, activation });
    }
}

/// A [`Glu`] with its activation as a type, so that the vector loop contains it.
struct Gated<'a, A> {
    glu: Glu<'a>,
    activation: A,
}

impl<A: SimdUnaryOp<f32>> SimdOp for Gated<'_, A> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Gated { glu: Glu { x, cols, activated, out }, activation } = self;
        let ops = isa.f32();
        for (x, out) in x.chunks_exact(2 * cols).zip(out.chunks_exact_mut(cols)) {
            let (first, second) = x.split_at(cols);
            let halves = match activated {
                Half::First => [first, second],
                Half::Second => [second, first],
            };
            update(
                isa,
                out,
                halves,
                #[inline(always)]
                |_, [a, b]| ops.mul(activation.eval(isa, a), b),
            );
        }
    }
}
