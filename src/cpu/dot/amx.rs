//! Dot products in AMX's matrices: 16 rows of 64 bytes by 16 columns in an instruction, which takes 16 cycles, eight times what
//! [`Vnni512`](super::Vnni512) does in them. Both have the same panels and come to the same integers.
//!
//! The matrices are in eight registers. `tmm0` and `tmm1` sum a panel's two vectors of columns for 16 rows, which `tmm2` holds;
//! `tmm3` and `tmm4` hold the columns; `tmm5` to `tmm7` are as `tmm0` to `tmm2` for the rows that are left, at most 15.

use super::{Amx, Dot};
use crate::cpu::gemm::{Operands, Unit, VECTORS, strip_in_groups};
use rten_simd::Isa;
use rten_simd::isa::Avx512Isa;
use rten_simd::ops::{BitOps, NumOps};
use std::arch::asm;
use std::sync::OnceLock;

/// Rows of a matrix.
const ROWS: usize = 16;

/// Steps that a matrix holds: units of 4 bytes.
const STEPS: usize = 16;

/// Bytes of a panel's step: two vectors of units.
const PANEL_STEP: usize = 128;

/// Whether this CPU has them, and Linux lets this process use their registers: it is asked once, and only if there is a use for them.
pub fn exists() -> bool {
    static EXISTS: OnceLock<bool> = OnceLock::new();
    *EXISTS.get_or_init(|| has_amx() && is_permitted()) || super::emulated()
}

/// Whether the CPU has matrices of bytes, whether or not Linux lets this process use them: by Intel's *Software Developer's
/// Manual*, volume 2, `CPUID`.
pub fn has_amx() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const AMX_INT8: u32 = 1 << 25;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & AMX_INT8 != 0
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
struct Registers;

impl Registers {
    /// With `rest` rows in `tmm5` to `tmm7`.
    ///
    /// # Safety
    /// They must [exist](exists).
    unsafe fn new(rest: usize) -> Registers {
        let mut configuration = Configuration { palette: 1, ..Configuration::default() };
        configuration.widths[..8].fill(64);
        configuration.rows[..5].fill(ROWS as u8);
        configuration.rows[5..8].fill(rest.max(1) as u8);
        // SAFETY: as the caller promises. What is in the registers is of this module alone.
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

/// Sums of rows by two vectors of columns.
#[repr(align(64))]
struct Sums([[[i32; 16]; VECTORS]; ROWS]);

/// Sums `$steps` (at least one) whole matrices' steps of rows at `$rows`, `$stride` bytes apart, and of a panel, to `$sums`. The
/// registers of sums and of rows are given.
macro_rules! product {
    ($left:tt, $right:tt, $rows:tt; $at:expr, $stride:expr, $panel:expr, $steps:expr, $sums:expr) => {
        asm!(
            concat!("tilezero ", $left),
            concat!("tilezero ", $right),
            "2:",
            concat!("tileloadd ", $rows, ", [{at} + {stride}]"),
            "tileloadd tmm3, [{panel} + {step}]",
            concat!("tdpbusd ", $left, ", ", $rows, ", tmm3"),
            "tileloadd tmm4, [{panel} + {step} + 64]",
            concat!("tdpbusd ", $right, ", ", $rows, ", tmm4"),
            "add {at}, 64",
            "add {panel}, 2048",
            "dec {steps}",
            "jnz 2b",
            concat!("tilestored [{sums} + {step}], ", $left),
            concat!("tilestored [{sums} + {step} + 64], ", $right),
            at = inout(reg) $at => _,
            stride = in(reg) $stride,
            panel = inout(reg) $panel => _,
            // A step of the panel is as long as a row of the sums.
            step = in(reg) PANEL_STEP,
            steps = inout(reg) $steps => _,
            sums = in(reg) $sums,
            out($left) _,
            out($right) _,
            out($rows) _,
            out("tmm3") _,
            out("tmm4") _,
            options(nostack),
        )
    };
}

/// As [`strip_in_groups`](super::strip_in_groups).
///
/// # Safety
/// As there.
#[inline(always)]
pub unsafe fn strip<T: Copy, S: Copy>(
    dot: Amx,
    operands: Operands<Unit>,
    group: usize,
    total: [T; VECTORS],
    start: impl Fn(usize) -> ([<Avx512Isa as Isa>::I32; VECTORS], [S; VECTORS]),
    join: impl Fn(usize, usize, [S; VECTORS], [T; VECTORS], [<Avx512Isa as Isa>::I32; VECTORS]) -> [T; VECTORS],
    mut finish: impl FnMut(usize, [T; VECTORS]),
) {
    let (ops, Operands { rows, stride, count, panel, depth }) = (dot.isa().i32(), operands);
    if !depth.is_multiple_of(STEPS) || !group.is_multiple_of(STEPS) {
        // SAFETY: as the caller promises.
        unsafe { strip_in_groups(dot, operands, group, total, start, join, finish) };
        return;
    }
    // SAFETY: the instructions exist, as `dot` does; the rest as the caller promises.
    unsafe {
        let _registers = Registers::new(count % ROWS);
        let mut sums = Sums([[[0; 16]; VECTORS]; ROWS]);
        for row in (0..count).step_by(ROWS) {
            let count = ROWS.min(count - row);
            let mut totals = [total; ROWS];
            for (g, from) in (0..depth).step_by(group).enumerate() {
                let (starts, scales) = start(g);
                let at = rows.add(row * stride + from);
                let panel = panel.add(from * PANEL_STEP / size_of::<Unit>());
                let (steps, stride) = (group.min(depth - from) / STEPS, stride * size_of::<Unit>());
                if count == ROWS {
                    product!("tmm0", "tmm1", "tmm2"; at, stride, panel, steps, sums.0.as_mut_ptr());
                } else {
                    product!("tmm5", "tmm6", "tmm7"; at, stride, panel, steps, sums.0.as_mut_ptr());
                }
                for (r, ([left, right], totals)) in sums.0[..count].iter().zip(&mut totals).enumerate() {
                    let sums = [ops.add(ops.load(left), starts[0]), ops.add(ops.load(right), starts[1])];
                    *totals = join(row + r, g, scales, *totals, sums);
                }
            }
            for (r, total) in totals[..count].iter().enumerate() {
                finish(row + r, *total);
            }
        }
    }
}
