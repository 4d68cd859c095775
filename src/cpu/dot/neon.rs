//! In AArch64's instructions: `sdot`. Rows and weights are signed.

use super::{Dot, one_row, vectors};
use crate::cpu::gemm::{Product, Unit, number};
use rten_simd::Isa;
use rten_simd::isa::ArmNeonIsa;
use rten_simd::ops::{BitOps, NumOps, ToFloat};
use std::arch::aarch64::int32x4_t;
use std::arch::{asm, is_aarch64_feature_detected};

/// NEON with the dot products of Armv8.2. 12 sums leave room for the 12 totals that they are added to after each group.
#[derive(Clone, Copy)]
pub struct Neon(ArmNeonIsa);

impl Neon {
    /// `None` on a CPU without it.
    pub fn new() -> Option<Neon> {
        ArmNeonIsa::new().filter(|_| is_aarch64_feature_detected!("dotprod")).map(Neon)
    }
}

impl Dot for Neon {
    one_row!(ArmNeonIsa);
}

impl Product for Neon {
    type Sum = int32x4_t;
    type Units = int32x4_t;
    /// A unit's bits, in a vector register's first lane.
    type Row = f32;
    type Column = Unit;

    #[inline(always)]
    fn lanes(self) -> usize {
        self.0.i32().len()
    }

    #[inline(always)]
    unsafe fn columns<const V: usize>(self, at: *const Unit) -> [int32x4_t; V] {
        // SAFETY: as the caller promises.
        unsafe { vectors(self.0, at) }
    }

    #[inline(always)]
    fn prefetch(self, at: *const Unit) {
        self.0.i32().prefetch(at.cast());
    }

    #[inline(always)]
    unsafe fn row(self, units: *const Unit, at: usize) -> f32 {
        // SAFETY: as the caller promises.
        unsafe { number(units.cast(), at) }
    }

    #[inline(always)]
    fn most_rows(self) -> usize {
        6
    }

    #[inline(always)]
    fn add(self, a: f32, b: int32x4_t, mut sum: int32x4_t) -> int32x4_t {
        // Rust's own `vdotq_laneq_s32` is not stable.
        // SAFETY: `new` checked that the CPU has it.
        unsafe {
            asm!("sdot {:v}.4s, {:v}.16b, {:v}.4b[0]", inout(vreg) sum, in(vreg) b, in(vreg) a,
                options(pure, nomem, nostack, preserves_flags));
        }
        sum
    }
}
