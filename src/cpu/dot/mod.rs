//! The dot product of bytes, in each kind of CPU's instructions.

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::gemm::{Product, Unit};
#[cfg(target_arch = "aarch64")]
pub use neon::Neon;
use rten_simd::Isa;
#[cfg(target_arch = "x86_64")]
pub use x86::{Paired256, Paired512, Vnni256, Vnni512};

/// Four bytes of a row by four of a weight, summed in i32.
pub trait Dot: Product<Sum = <Self::Isa as Isa>::I32, Column = Unit> {
    /// The instruction set around it.
    type Isa: Isa;

    /// Its value.
    fn isa(self) -> Self::Isa;
}
