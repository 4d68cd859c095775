//! AMX's matrices: eight registers of up to 16 rows of 64 bytes. Which of them a kernel uses for what is its own matter:
//! [`dot::amx`](super::dot) for bytes, [`linear_split`](super::linear_split) for f32.

use super::dot::emulated;
use std::arch::asm;
use std::sync::OnceLock;

/// Rows of a matrix.
pub const ROWS: usize = 16;

/// Bytes of its row.
pub const ROW: usize = 64;

/// Whether this CPU has them, and Linux lets this process use their registers: it is asked once, and only if there is a use for them.
pub fn exists() -> bool {
    static EXISTS: OnceLock<bool> = OnceLock::new();
    *EXISTS.get_or_init(|| has_amx() && is_permitted()) || emulated()
}

/// Whether the CPU multiplies matrices of bytes and of bf16, whether or not Linux lets this process use them: by Intel's *Software
/// Developer's Manual*, volume 2, `CPUID`.
pub fn has_amx() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    const AMX_INT8: u32 = 1 << 25;
    const ALL: u32 = AMX_BF16 | AMX_TILE | AMX_INT8;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & ALL == ALL
}

/// Asks Linux, which has refused their registers until then: each thread needs 8 KB more when it is interrupted. (Documented in
/// Linux' `Documentation/arch/x86/xstate.rst`.)
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: a question with numbers for arguments. What is not there is refused, by Linux before 5.16 and without AMX, too.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

/// Elsewhere they are not asked for.
#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// What says how large the registers are, in the layout of palette 1.
#[repr(C, align(64))]
#[derive(Default)]
struct Configuration {
    palette: u8,
    start: u8,
    reserved: [u8; 14],
    /// Bytes of a row.
    widths: [u16; 16],
    rows: [u8; 16],
}

/// The registers, for as long as this lives.
pub struct Registers;

impl Registers {
    /// With so many rows each, at most [`ROWS`].
    ///
    /// # Safety
    /// They must [exist](exists).
    pub unsafe fn new(rows: [usize; 8]) -> Registers {
        let mut configuration = Configuration { palette: 1, ..Configuration::default() };
        configuration.widths[..8].fill(ROW as u16);
        for (to, rows) in configuration.rows.iter_mut().zip(rows) {
            *to = rows as u8;
        }
        // SAFETY: as the caller promises. What is in the registers is a kernel's alone.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &configuration,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, readonly, preserves_flags));
        }
        Registers
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        // So that Linux need not save them. SAFETY: they exist.
        unsafe {
            asm!("tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, nomem, preserves_flags));
        }
    }
}
