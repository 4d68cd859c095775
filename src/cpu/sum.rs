//! Sums of values.

use super::instruction_set::dispatch;
use super::simd::update;
use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

/// `out = x * x_factor + other * factor`, all of one shape.
pub fn sum(x: &[f32], x_factor: f32, other: &[f32], factor: f32, out: &mut [f32]) {
    dispatch(Sum { x, x_factor, other, factor, out });
}

/// `out += other`.
pub fn add(other: &[f32], out: &mut [f32]) {
    dispatch(Add { other, out });
}

struct Sum<'a> {
    x: &'a [f32],
    x_factor: f32,
    other: &'a [f32],
    factor: f32,
    out: &'a mut [f32],
}

impl SimdOp for Sum<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        let (x_factor, factor) = (ops.splat(self.x_factor), ops.splat(self.factor));
        update(
            isa,
            self.out,
            [self.x, self.other],
            #[inline(always)]
            |_, [x, other]| ops.mul_add(x, x_factor, ops.mul(other, factor)),
        );
    }
}

struct Add<'a> {
    other: &'a [f32],
    out: &'a mut [f32],
}

impl SimdOp for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        update(
            isa,
            self.out,
            [self.other],
            #[inline(always)]
            |y, [other]| ops.add(y, other),
        );
    }
}
