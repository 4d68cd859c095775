//! Dot products in AMX's matrices: 16 rows of 64 bytes by 16 columns in an instruction, which takes 16 cycles, eight times what
//! [`Vnni512`](super::Vnni512) does in them. Both have the same panels and come to the same integers.
//!
//! The matrices are in eight registers. `tmm0` and `tmm1` sum a panel's two vectors of columns for 16 rows, which `tmm2` holds;
//! `tmm3` and `tmm4` hold the columns; `tmm5` to `tmm7` are as `tmm0` to `tmm2` for the rows that are left, at most 15.

use super::{Amx, Dot};
use crate::cpu::amx::{ROWS, Registers};
use crate::cpu::gemm::{Operands, Unit, VECTORS, strip_in_groups};
use rten_simd::Isa;
use rten_simd::isa::Avx512Isa;
use rten_simd::ops::{BitOps, NumOps};
use std::arch::asm;

/// Steps that a matrix holds: units of 4 bytes.
const STEPS: usize = 16;

/// Bytes of a panel's step: two vectors of units.
const PANEL_STEP: usize = 128;

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
        let rest = (count % ROWS).max(1);
        let _registers = Registers::new([ROWS, ROWS, ROWS, ROWS, ROWS, rest, rest, rest]);
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
