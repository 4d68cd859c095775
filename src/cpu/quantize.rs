//! Activations in u8: each row rotated, and with a scale and a zero point of its own.

use super::gemm::Unit;
use super::instruction_set::dispatch;
use super::rotate::rotate;
use super::simd::fold;
use rten_simd::ops::{BitOps, FloatOps, NarrowSaturate, NumOps};
use rten_simd::{Isa, SimdOp};

/// Bytes of a unit of the inner dimension.
pub const BYTES: usize = size_of::<Unit>();

/// Rows as bytes: `rotated x = scale * (u8 - zero)` for each. Memory that is kept from call to call.
#[derive(Default)]
pub struct Rows {
    /// `[rows, units]`, rows filled up with zeros
    pub units: Vec<Unit>,
    /// `[rows]`
    pub scales: Vec<f32>,
    /// `[rows]`
    pub zeros: Vec<u8>,
    /// `[inner]`: the row at hand
    rotated: Vec<f32>,
}

impl Rows {
    /// Rotates `[rows, inner]` and turns them into bytes.
    pub fn quantize(&mut self, x: &[f32], rows: usize, inner: usize) {
        let units = inner.div_ceil(BYTES);
        self.units.resize(rows * units, 0);
        self.scales.resize(rows, 0.0);
        self.zeros.resize(rows, 0);
        self.rotated.resize(inner, 0.0);
        let Rows { units, scales, zeros, rotated } = self;
        dispatch(QuantizeRows { x, rotated, units, scales, zeros });
    }
}

struct QuantizeRows<'a> {
    x: &'a [f32],
    rotated: &'a mut [f32],
    units: &'a mut [Unit],
    scales: &'a mut [f32],
    zeros: &'a mut [u8],
}

impl SimdOp for QuantizeRows<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let inner = self.rotated.len();
        let rows = self.x.chunks_exact(inner).zip(self.units.chunks_exact_mut(inner.div_ceil(BYTES)));
        for ((x, units), (scale, zero)) in rows.zip(self.scales.iter_mut().zip(self.zeros)) {
            rotate(isa, x, self.rotated);
            let x = &*self.rotated;
            let (low, high) = range(isa, x);
            // 0 is among the numbers, and exact.
            *scale = (high.max(0.0) - low.min(0.0)) / 255.0 + 0.0 * low + 0.0 * high;
            let inverse = if *scale > 0.0 { 1.0 / *scale } else { 0.0 };
            *zero = (-low.min(0.0) * inverse).round_ties_even() as u8;
            // SAFETY: a unit is four bytes, and any bytes are a unit.
            let bytes = unsafe { std::slice::from_raw_parts_mut(units.as_mut_ptr().cast(), units.len() * BYTES) };
            let (bytes, rest) = bytes.split_at_mut(inner);
            quantize(isa, x, inverse, *zero, bytes);
            rest.fill(0);
        }
    }
}

/// `round(x / scale) + zero` in bytes; ties go to even. (rten-vecmath's, which this replaces, is a closure in `array::map`: at
/// the compiler's whim that becomes calls, and int8 takes 1.4 times as long.)
#[inline(always)]
fn quantize<I: Isa>(isa: I, x: &[f32], inverse: f32, zero: u8, out: &mut [u8]) {
    let lanes = isa.f32().len();
    let (inverses, zeros) = (isa.f32().splat(inverse), isa.i32().splat(zero.into()));
    let (mut x, mut out) = (x.chunks_exact(4 * lanes), out.chunks_exact_mut(4 * lanes));
    for (x, out) in x.by_ref().zip(out.by_ref()) {
        let (a, b) = (integers(isa, x, inverses, zeros), integers(isa, &x[lanes..], inverses, zeros));
        let (c, d) = (integers(isa, &x[2 * lanes..], inverses, zeros), integers(isa, &x[3 * lanes..], inverses, zeros));
        let (low, high) = (isa.i32().narrow_saturate(a, b), isa.i32().narrow_saturate(c, d));
        isa.u8().store(isa.i16().narrow_saturate(low, high), out);
    }
    for (x, out) in x.remainder().iter().zip(out.into_remainder()) {
        *out = ((x * inverse).round_ties_even() as i32 + i32::from(zero)).clamp(0, 255) as u8;
    }
}

/// A vector of `round(x * inverse) + zero`.
#[inline(always)]
fn integers<I: Isa>(isa: I, x: &[f32], inverse: I::F32, zero: I::I32) -> I::I32 {
    let ops = isa.f32();
    isa.i32().add(ops.to_int_round(ops.mul(ops.load(x), inverse)), zero)
}

/// The smallest and the largest number; NaN if one of them is NaN or infinite.
#[inline(always)]
fn range<I: Isa>(isa: I, x: &[f32]) -> (f32, f32) {
    let ops = isa.f32();
    let lanes = ops.len();
    let (mut low, mut high) = (ops.splat(f32::INFINITY), ops.splat(f32::NEG_INFINITY));
    // 0 as long as all are finite: comparisons lose a NaN.
    let mut trouble = ops.zero();
    let mut chunks = x.chunks_exact(lanes);
    for chunk in chunks.by_ref() {
        let x = ops.load(chunk);
        (low, high) = (ops.min(x, low), ops.max(x, high));
        trouble = ops.mul_add(x, ops.zero(), trouble);
    }
    let (mut least, mut most) = (fold(low, f32::min), fold(high, f32::max));
    let mut trouble = fold(trouble, |a, b| a + b);
    for &x in chunks.remainder() {
        (least, most, trouble) = (least.min(x), most.max(x), trouble + x * 0.0);
    }
    (least + trouble, most + trouble)
}
