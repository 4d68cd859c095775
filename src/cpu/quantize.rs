//! Activations in u8: each row with a scale and a zero point of its own.

use super::gemm::Unit;
use super::instruction_set::dispatch;
use super::simd::fold;
use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};
use rten_vecmath::Quantize;
use std::mem::MaybeUninit;

/// Bytes of a unit of the inner dimension.
pub const BYTES: usize = size_of::<Unit>();

/// Rows as bytes: `x = scale * (u8 - zero)` for each. Memory that is kept from call to call.
#[derive(Default)]
pub struct Rows {
    /// `[rows, units]`, rows filled up with zeros
    pub units: Vec<Unit>,
    /// `[rows]`
    pub scales: Vec<f32>,
    /// `[rows]`
    pub zeros: Vec<u8>,
}

impl Rows {
    /// Turns `[rows, inner]` into bytes.
    pub fn quantize(&mut self, x: &[f32], rows: usize, inner: usize) {
        let units = inner.div_ceil(BYTES);
        self.units.resize(rows * units, 0);
        self.scales.resize(rows, 0.0);
        self.zeros.resize(rows, 0);
        dispatch(QuantizeRows { x, inner, units: &mut self.units, scales: &mut self.scales, zeros: &mut self.zeros });
    }
}

struct QuantizeRows<'a> {
    x: &'a [f32],
    inner: usize,
    units: &'a mut [Unit],
    scales: &'a mut [f32],
    zeros: &'a mut [u8],
}

impl SimdOp for QuantizeRows<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let rows = self.x.chunks_exact(self.inner).zip(self.units.chunks_exact_mut(self.inner.div_ceil(BYTES)));
        for ((x, units), (scale, zero)) in rows.zip(self.scales.iter_mut().zip(self.zeros)) {
            let (low, high) = range(isa, x);
            // 0 is among the numbers, and exact.
            *scale = (high.max(0.0) - low.min(0.0)) / 255.0 + 0.0 * low + 0.0 * high;
            let inverse = if *scale > 0.0 { 1.0 / *scale } else { 0.0 };
            *zero = (-low.min(0.0) * inverse).round_ties_even() as u8;
            // SAFETY: a unit is four bytes, and any bytes are a unit.
            let bytes = unsafe { std::slice::from_raw_parts_mut(units.as_mut_ptr().cast(), units.len() * BYTES) };
            let (bytes, rest): (&mut [MaybeUninit<u8>], _) = bytes.split_at_mut(self.inner);
            Quantize::new(x, bytes, inverse, *zero).eval(isa);
            rest.fill(MaybeUninit::new(0));
        }
    }
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
