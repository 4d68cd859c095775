//! In x86's instructions: one where the CPU has VNNI, else three. Rows are unsigned, weights signed.

use super::{Dot, amx, emulated, one_row, vectors};
use crate::cpu::gemm::{Operands, Product, Unit, VECTORS};
use rten_simd::Isa;
use rten_simd::isa::{Avx2Isa, Avx512Isa};
use rten_simd::ops::{BitOps, NumOps, ToFloat};
use std::arch::x86_64::{
    _mm256_dpbusd_avx_epi32, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm512_dpbusd_epi32, _mm512_madd_epi16,
    _mm512_maddubs_epi16,
};

/// `$rows`: of a tile, if fewer than usual. `$sums`: an expression of its own value, two vectors of units and a vector of sums.
macro_rules! dot {
    ($(#[$doc:meta])* $name:ident, $isa:ty, $exists:expr, $(rows $rows:literal,)? $(strip $strip:path,)?
     |$self:ident, $a:ident, $b:ident, $sum:ident| $sums:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name($isa);

        impl $name {
            /// `None` on a CPU without it.
            pub fn new() -> Option<$name> {
                <$isa>::new().filter(|_| $exists).map($name)
            }
        }

        impl Dot for $name {
            one_row!($isa);

            $(
                #[inline(always)]
                unsafe fn strip<S: Copy>(
                    self,
                    operands: Operands<Unit>,
                    group: usize,
                    total: [Self::Totals; VECTORS],
                    start: impl Fn(usize) -> ([Self::Sum; VECTORS], [S; VECTORS]),
                    join: impl Fn(
                        usize,
                        usize,
                        [S; VECTORS],
                        [Self::Totals; VECTORS],
                        [Self::Sum; VECTORS],
                    ) -> [Self::Totals; VECTORS],
                    finish: impl FnMut(usize, [Self::Totals; VECTORS]),
                ) {
                    // SAFETY: as the caller promises.
                    unsafe { $strip(self, operands, group, total, start, join, finish) }
                }
            )?
        }

        impl Product for $name {
            type Sum = <$isa as Isa>::I32;
            type Units = <$isa as Isa>::I32;
            type Row = <$isa as Isa>::I32;
            type Column = Unit;

            #[inline(always)]
            fn lanes(self) -> usize {
                self.0.i32().len()
            }

            #[inline(always)]
            unsafe fn columns<const V: usize>(self, at: *const Unit) -> [Self::Units; V] {
                // SAFETY: as the caller promises.
                unsafe { vectors(self.0, at) }
            }

            #[inline(always)]
            fn prefetch(self, at: *const Unit) {
                self.0.i32().prefetch(at.cast());
            }

            #[inline(always)]
            unsafe fn row(self, units: *const Unit, at: usize) -> Self::Row {
                // SAFETY: as the caller promises.
                self.0.i32().splat(unsafe { *units.add(at) } as i32)
            }

            $(
                #[inline(always)]
                fn most_rows(self) -> usize {
                    $rows
                }
            )?

            #[inline(always)]
            fn add($self, $a: Self::Row, $b: Self::Units, $sum: Self::Sum) -> Self::Sum {
                // SAFETY: `new` checked that the CPU has these instructions.
                unsafe { $sums }
            }
        }
    };
}

dot!(
    /// AMX, and AVX-512 with VNNI for what does not fill its matrices.
    Amx,
    Avx512Isa,
    is_x86_feature_detected!("avx512vnni") && crate::cpu::amx::exists(),
    rows 6,
    strip amx::strip,
    |self, a, b, sum| _mm512_dpbusd_epi32(sum.0, a.0, b.0).into()
);
dot!(
    /// AVX-512 with VNNI. 12 sums leave room for the 12 totals that they are added to after each group, which with tiles of 12
    /// rows would be in memory: 8 % on Zen 4.
    Vnni512,
    Avx512Isa,
    is_x86_feature_detected!("avx512vnni"),
    rows 6,
    |self, a, b, sum| _mm512_dpbusd_epi32(sum.0, a.0, b.0).into()
);
dot!(
    /// AVX2 with AVX-VNNI.
    Vnni256,
    Avx2Isa,
    is_x86_feature_detected!("avxvnni") || emulated(),
    |self, a, b, sum| _mm256_dpbusd_avx_epi32(sum.0, a.0, b.0).into()
);
dot!(
    /// AVX-512 without VNNI, in tiles like those of [`Vnni512`] (5 %). Two products are added in 16 bits, which
    /// [`Limits::PAIRED`](crate::cpu::quantize::Limits::PAIRED) is for.
    Paired512,
    Avx512Isa,
    true,
    rows 6,
    |self, a, b, sum| {
        let pairs = _mm512_maddubs_epi16(a.0, b.0);
        self.0.i32().add(sum, _mm512_madd_epi16(pairs, self.0.i16().one().0).into())
    }
);
dot!(
    /// AVX2 without VNNI, as [`Paired512`]. A tile of 6 x 2 sums would leave a register too few: one of its sums would be in
    /// memory, and each step would wait for it.
    Paired256,
    Avx2Isa,
    true,
    rows 5,
    |self, a, b, sum| {
        let pairs = _mm256_maddubs_epi16(a.0, b.0);
        self.0.i32().add(sum, _mm256_madd_epi16(pairs, self.0.i16().one().0).into())
    }
);
