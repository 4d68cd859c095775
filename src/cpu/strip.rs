//! Some rows' columns in one panel, which linear ops read and write a row at a time, and finish when all are there.

use super::activation::WithActivation;
use super::gemm::{Shared, VECTORS};
use super::instruction_set::dispatch;
use super::simd::update;
use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, Simd, SimdOp, SimdUnaryOp};

/// A row's part of a panel; under the masks, unless it is `whole`.
///
/// # Safety
/// `from` must be valid for the columns that are read.
#[inline(always)]
pub unsafe fn load<I: Isa>(isa: I, from: *const f32, whole: bool, masks: [Mask<I>; VECTORS]) -> [I::F32; VECTORS] {
    let ops = isa.f32();
    // SAFETY: as the caller promises.
    unsafe {
        match whole {
            true => [ops.load_ptr(from), ops.load_ptr(from.add(ops.len()))],
            false => [ops.load_ptr_mask(from, masks[0]), ops.load_ptr_mask(from.wrapping_add(ops.len()), masks[1])],
        }
    }
}

/// Writes what [`load`] reads.
///
/// # Safety
/// `to` must be valid for the columns that are written.
#[inline(always)]
pub unsafe fn store<I: Isa>(isa: I, values: [I::F32; VECTORS], to: *mut f32, whole: bool, masks: [Mask<I>; VECTORS]) {
    let ops = isa.f32();
    // SAFETY: as the caller promises.
    unsafe {
        match whole {
            true => {
                ops.store_ptr(values[0], to);
                ops.store_ptr(values[1], to.add(ops.len()));
            }
            false => {
                ops.store_ptr_mask(values[0], to, masks[0]);
                ops.store_ptr_mask(values[1], to.wrapping_add(ops.len()), masks[1]);
            }
        }
    }
}

/// Of a panel of which `width` columns are there.
#[inline(always)]
pub fn masks<I: Isa>(isa: I, width: usize) -> [Mask<I>; VECTORS] {
    let ops = isa.f32();
    [ops.first_n_mask(width.min(ops.len())), ops.first_n_mask(width.saturating_sub(ops.len()))]
}

/// Selects columns of a vector.
pub type Mask<I> = <<I as Isa>::F32 as Simd>::Mask;

/// Some columns of some rows, for an activation and what follows it.
pub struct Strip<'a> {
    pub out: &'a Shared<'a>,
    pub residual: Option<&'a [f32]>,
    /// Where the first row begins, in `out` and `residual`.
    pub first: usize,
    pub rows: usize,
    pub width: usize,
    /// From row to row.
    pub stride: usize,
}

impl WithActivation for Strip<'_> {
    fn run<A: SimdUnaryOp<f32>>(self, activation: A) {
        dispatch(Finish { strip: self, activation });
    }
}

/// A [`Strip`] with its activation as a type, so that the vector loop contains it.
struct Finish<'a, A> {
    strip: Strip<'a>,
    activation: A,
}

impl<A: SimdUnaryOp<f32>> SimdOp for Finish<'_, A> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Finish { strip: Strip { out, residual, first, rows, width, stride }, activation } = self;
        let ops = isa.f32();
        for row in 0..rows {
            let at = first + row * stride;
            // SAFETY: no other thread has these columns.
            let out = unsafe { out.slice(at..at + width) };
            match residual {
                Some(residual) => update(
                    isa,
                    out,
                    [&residual[at..at + width]],
                    #[inline(always)]
                    |y, [residual]| ops.add(activation.eval(isa, y), residual),
                ),
                None => update(
                    isa,
                    out,
                    [],
                    #[inline(always)]
                    |y, []| activation.eval(isa, y),
                ),
            }
        }
    }
}
