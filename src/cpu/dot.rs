//! The dot product of bytes in x86's VNNI instructions.

use super::gemm::{Product, Unit};
use rten_simd::Isa;
use rten_simd::ops::BitOps;

/// Four u8 by four i8, summed in i32.
pub trait Dot: Product<Sum = <Self::Isa as Isa>::I32> {
    /// The instruction set around it.
    type Isa: Isa;

    /// Its value.
    fn isa(self) -> Self::Isa;
}

macro_rules! vnni {
    ($name:ident, $isa:ty, $feature:tt, $dot:ident) => {
        /// Its instruction for the dot product.
        #[derive(Clone, Copy)]
        pub struct $name($isa);

        impl $name {
            /// `None` on a CPU without it.
            pub fn new() -> Option<$name> {
                <$isa>::new().filter(|_| is_x86_feature_detected!($feature)).map($name)
            }
        }

        impl Dot for $name {
            type Isa = $isa;

            #[inline(always)]
            fn isa(self) -> $isa {
                self.0
            }
        }

        impl Product for $name {
            type Sum = <$isa as Isa>::I32;
            type Units = <$isa as Isa>::I32;

            #[inline(always)]
            fn lanes(self) -> usize {
                self.0.i32().len()
            }

            #[inline(always)]
            unsafe fn load(self, units: *const Unit) -> Self::Units {
                // SAFETY: as the caller promises.
                unsafe { self.0.i32().load_ptr(units.cast()) }
            }

            #[inline(always)]
            fn prefetch(self, units: *const Unit) {
                self.0.i32().prefetch(units.cast());
            }

            #[inline(always)]
            fn splat(self, unit: Unit) -> Self::Units {
                self.0.i32().splat(unit as i32)
            }

            #[inline(always)]
            fn add(self, a: Self::Units, b: Self::Units, sum: Self::Sum) -> Self::Sum {
                // SAFETY: `new` checked that the CPU has this instruction.
                unsafe { std::arch::x86_64::$dot(sum.0, a.0, b.0) }.into()
            }
        }
    };
}

vnni!(Vnni512, rten_simd::isa::Avx512Isa, "avx512vnni", _mm512_dpbusd_epi32);
vnni!(Vnni256, rten_simd::isa::Avx2Isa, "avxvnni", _mm256_dpbusd_avx_epi32);
