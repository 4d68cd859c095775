//! Dot products of bytes, in each kind of CPU's instructions.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "aarch64")]
mod i8mm;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::gemm::{Operands, Product, Unit, VECTORS, strip_in_groups};
#[cfg(target_arch = "aarch64")]
pub use i8mm::I8mm;
#[cfg(target_arch = "aarch64")]
pub use neon::Neon;
use rten_simd::Isa;
use rten_simd::ops::BitOps;
#[cfg(target_arch = "x86_64")]
pub use x86::{Amx, Paired256, Paired512, Vnni256, Vnni512};

/// Bytes of rows by bytes of a weight, summed in i32: four of each row in a step, or eight.
pub trait Dot: Product {
    /// The instruction set around it.
    type Isa: Isa;
    /// What sums are added up to, a vector for each row.
    type Totals: Copy + AsRef<[<Self::Isa as Isa>::F32]>;

    /// Two rows lie together, and take the place of one: two units of either in turn make a step.
    const PAIRS: bool;

    /// Its value.
    fn isa(self) -> Self::Isa;

    /// What sums of some columns begin with, the same in each row.
    fn start(self, columns: <Self::Isa as Isa>::I32) -> Self::Sum;

    /// The same in each row.
    fn totals(self, columns: <Self::Isa as Isa>::F32) -> Self::Totals;

    /// `totals + sum * the scales of rows and columns`; only in pairs is there a second row.
    fn join(
        self,
        sum: Self::Sum,
        rows: [f32; 2],
        columns: <Self::Isa as Isa>::F32,
        totals: Self::Totals,
    ) -> Self::Totals;

    /// As [`strip_in_groups`].
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn strip<S: Copy>(
        self,
        operands: Operands<Self::Column>,
        group: usize,
        total: [Self::Totals; VECTORS],
        start: impl Fn(usize) -> ([Self::Sum; VECTORS], [S; VECTORS]),
        join: impl Fn(usize, usize, [S; VECTORS], [Self::Totals; VECTORS], [Self::Sum; VECTORS]) -> [Self::Totals; VECTORS],
        finish: impl FnMut(usize, [Self::Totals; VECTORS]),
    ) {
        // SAFETY: as the caller promises.
        unsafe { strip_in_groups(self, operands, group, total, start, join, finish) }
    }
}

/// Whether a test pretends that the CPU has what it has not.
#[cfg(target_arch = "x86_64")]
pub fn emulated() -> bool {
    #[cfg(all(test, target_os = "linux"))]
    return super::emulation::is_on();
    #[cfg(not(all(test, target_os = "linux")))]
    false
}

/// `V` vectors of units.
///
/// # Safety
/// `at` must be valid for as many.
#[inline(always)]
unsafe fn vectors<I: Isa, const V: usize>(isa: I, at: *const Unit) -> [I::I32; V] {
    let ops = isa.i32();
    let mut vectors = [ops.zero(); V];
    for (v, vector) in vectors.iter_mut().enumerate() {
        // SAFETY: as the caller promises.
        *vector = unsafe { ops.load_ptr(at.add(v * ops.len()).cast()) };
    }
    vectors
}

/// What is `Dot` where a sum has a row's vector of columns.
macro_rules! one_row {
    ($isa:ty) => {
        type Isa = $isa;
        type Totals = [<$isa as Isa>::F32; 1];

        const PAIRS: bool = false;

        #[inline(always)]
        fn isa(self) -> $isa {
            self.0
        }

        #[inline(always)]
        fn start(self, columns: <$isa as Isa>::I32) -> <$isa as Isa>::I32 {
            columns
        }

        #[inline(always)]
        fn totals(self, columns: <$isa as Isa>::F32) -> Self::Totals {
            [columns]
        }

        #[inline(always)]
        fn join(
            self,
            sum: <$isa as Isa>::I32,
            rows: [f32; 2],
            columns: <$isa as Isa>::F32,
            totals: Self::Totals,
        ) -> Self::Totals {
            let ops = self.0.f32();
            [ops.mul_add(self.0.i32().to_float(sum), ops.mul(ops.splat(rows[0]), columns), totals[0])]
        }
    };
}
use one_row;
