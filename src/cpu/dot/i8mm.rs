//! In AArch64's instructions for matrix products: `smmla` multiplies two rows of eight bytes by two columns, twice what `sdot`
//! does. Rows and weights are signed.

use super::Dot;
use crate::cpu::gemm::{Product, Unit};
use rten_simd::Isa;
use rten_simd::isa::ArmNeonIsa;
use rten_simd::ops::{BitOps, NumOps, ToFloat};
use std::arch::aarch64::{int32x4_t, vreinterpretq_s32_s64, vreinterpretq_s64_s32, vtrn1q_s64, vtrn2q_s64};
use std::arch::{asm, is_aarch64_feature_detected};

/// NEON with the matrix products of Armv8.6. 12 vectors of sums leave room for the 12 totals that they are added to after each group.
#[derive(Clone, Copy)]
pub struct I8mm(ArmNeonIsa);

impl I8mm {
    /// `None` on a CPU without it.
    pub fn new() -> Option<I8mm> {
        ArmNeonIsa::new().filter(|_| is_aarch64_feature_detected!("i8mm")).map(I8mm)
    }
}

impl Dot for I8mm {
    type Isa = ArmNeonIsa;
    type Totals = [<ArmNeonIsa as Isa>::F32; 2];

    const PAIRS: bool = true;

    #[inline(always)]
    fn isa(self) -> ArmNeonIsa {
        self.0
    }

    #[inline(always)]
    fn start(self, _: int32x4_t) -> [int32x4_t; 2] {
        // Of signed bytes, nothing is to be taken back.
        [self.0.i32().zero(); 2]
    }

    #[inline(always)]
    fn totals(self, columns: <ArmNeonIsa as Isa>::F32) -> Self::Totals {
        [columns; 2]
    }

    #[inline(always)]
    fn join(
        self,
        sum: [int32x4_t; 2],
        rows: [f32; 2],
        columns: <ArmNeonIsa as Isa>::F32,
        totals: Self::Totals,
    ) -> Self::Totals {
        let (ops, integers) = (self.0.f32(), self.0.i32());
        // SAFETY: every AArch64 CPU has them.
        let sums = unsafe {
            let [left, right] = [vreinterpretq_s64_s32(sum[0]), vreinterpretq_s64_s32(sum[1])];
            [vreinterpretq_s32_s64(vtrn1q_s64(left, right)), vreinterpretq_s32_s64(vtrn2q_s64(left, right))]
        };
        [
            ops.mul_add(integers.to_float(sums[0]), ops.mul(columns, ops.splat(rows[0])), totals[0]),
            ops.mul_add(integers.to_float(sums[1]), ops.mul(columns, ops.splat(rows[1])), totals[1]),
        ]
    }
}

impl Product for I8mm {
    /// Both rows' sums of the first two columns, and of the last two.
    type Sum = [int32x4_t; 2];
    /// Eight bytes of each of the first two columns, and of the last two.
    type Units = [int32x4_t; 2];
    /// Eight bytes of each row.
    type Row = int32x4_t;
    type Column = u64;

    const STEP: usize = 4;

    #[inline(always)]
    fn lanes(self) -> usize {
        self.0.i32().len()
    }

    #[inline(always)]
    unsafe fn columns<const V: usize>(self, at: *const u64) -> [[int32x4_t; 2]; V] {
        let ops = self.0.i32();
        let mut vectors = [[ops.zero(); 2]; V];
        for (v, [left, right]) in vectors.iter_mut().enumerate() {
            // SAFETY: as the caller promises.
            unsafe {
                let at = at.add(v * ops.len());
                *left = ops.load_ptr(at.cast());
                *right = ops.load_ptr(at.add(2).cast());
            }
        }
        vectors
    }

    #[inline(always)]
    fn prefetch(self, at: *const u64) {
        self.0.i32().prefetch(at.cast());
    }

    #[inline(always)]
    unsafe fn row(self, units: *const Unit, at: usize) -> int32x4_t {
        // SAFETY: as the caller promises.
        unsafe { self.0.i32().load_ptr(units.add(Self::STEP * at).cast()) }
    }

    #[inline(always)]
    fn most_rows(self) -> usize {
        3
    }

    #[inline(always)]
    fn add(self, a: int32x4_t, b: [int32x4_t; 2], mut sum: [int32x4_t; 2]) -> [int32x4_t; 2] {
        // Rust's own `vmmlaq_s32` is not stable.
        // SAFETY: `new` checked that the CPU has it.
        unsafe {
            asm!("smmla {:v}.4s, {:v}.16b, {:v}.16b", inout(vreg) sum[0], in(vreg) a, in(vreg) b[0],
                options(pure, nomem, nostack, preserves_flags));
            asm!("smmla {:v}.4s, {:v}.16b, {:v}.16b", inout(vreg) sum[1], in(vreg) a, in(vreg) b[1],
                options(pure, nomem, nostack, preserves_flags));
        }
        sum
    }
}
