//! A tile's products in AMX's registers: `tmm0` to `tmm3` sum its two matrices of rows by a panel's two of columns, `tmm4` and `tmm5`
//! hold a piece of the rows, `tmm6` and `tmm7` one of the columns.

use super::{Matrix, Pieces};
use crate::cpu::amx::{ROW, ROWS};
use crate::cpu::gemm::VECTORS;
use std::arch::asm;

/// Rows that are multiplied at a time: two matrices.
pub const TILE: usize = 2 * ROWS;

/// Columns of a panel: two matrices, too.
pub const PANEL: usize = VECTORS * 16;

/// Of a tile and a panel.
#[repr(align(64))]
pub struct Sums(pub [[f32; PANEL]; TILE]);

/// Loads a piece of a tile: two matrices, at so many bytes of a step.
macro_rules! rows {
    ($at:literal) => {
        concat!("tileloadd tmm4, [{at} + {row} + ", $at, "]\n tileloadd tmm5, [{other} + {row} + ", $at, "]")
    };
}

/// Loads the only piece of a tile that is read once a panel, so that it leaves the panel in the first cache, which has no room for
/// both: a tenth of the time of a linear op.
macro_rules! passing_rows {
    () => {
        "tileloaddt1 tmm4, [{at} + {row}]\n tileloaddt1 tmm5, [{other} + {row}]"
    };
}

/// Loads a piece of a panel: two matrices, at so many bytes of a step.
macro_rules! columns {
    ($at:literal) => {
        concat!("tileloadd tmm6, [{panel} + {row} + ", $at, "]\n tileloadd tmm7, [{panel} + {row} + ", $at, " + 1024]")
    };
}

/// Loads both.
macro_rules! both {
    ($rows:expr, $columns:expr) => {
        concat!($rows, "\n", $columns)
    };
}

/// Adds the products of what is loaded.
macro_rules! multiply {
    () => {
        "tdpbf16ps tmm0, tmm4, tmm6
        tdpbf16ps tmm1, tmm4, tmm7
        tdpbf16ps tmm2, tmm5, tmm6
        tdpbf16ps tmm3, tmm5, tmm7"
    };
}

/// Runs a block of instructions on AMX's registers, which nothing else changes between two of them.
macro_rules! tiles {
    ($($code:expr),*; $($operands:tt)*) => {
        asm!(
            $($code,)*
            $($operands)*
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, preserves_flags),
        )
    };
}

/// Begins with sums of 0.
///
/// # Safety
/// There must be [`Registers`](crate::cpu::amx::Registers).
#[inline(always)]
pub unsafe fn zero() {
    // SAFETY: as the caller promises.
    unsafe { tiles!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3";) }
}

/// The sums.
///
/// # Safety
/// There must be [`Registers`](crate::cpu::amx::Registers).
#[inline(always)]
pub unsafe fn take(sums: &mut Sums) {
    // SAFETY: as the caller promises.
    unsafe {
        tiles!(
            "tilestored [{sums} + 2 * {row}], tmm0",
            "tilestored [{sums} + 2 * {row} + 64], tmm1",
            "tilestored [{sums} + 2 * {row} + 2048], tmm2",
            "tilestored [{sums} + 2 * {row} + 2112], tmm3";
            sums = in(reg) sums.0.as_mut_ptr(), row = in(reg) ROW,
        );
    }
}

/// Goes on from what was [taken](take).
///
/// # Safety
/// There must be [`Registers`](crate::cpu::amx::Registers).
#[inline(always)]
pub unsafe fn put_back(sums: &Sums) {
    // SAFETY: as the caller promises.
    unsafe {
        tiles!(
            "tileloadd tmm0, [{sums} + 2 * {row}]",
            "tileloadd tmm1, [{sums} + 2 * {row} + 64]",
            "tileloadd tmm2, [{sums} + 2 * {row} + 2048]",
            "tileloadd tmm3, [{sums} + 2 * {row} + 2112]";
            sums = in(reg) sums.0.as_ptr(), row = in(reg) ROW,
        );
    }
}

/// Stages of a step: products of two pieces.
pub const fn stages(pieces: Pieces) -> usize {
    match (pieces.left, pieces.right) {
        (1, _) => 1,
        (_, 1) => 3,
        (_, 2) => 5,
        _ => 6,
    }
}

/// Adds a step of a tile's rows at `left` and of its others at `other`, and of a panel; calls `between` after each stage. The
/// order is the same for all numbers, so that results are, and changes one side at a time, which makes 14 loads for 24 products.
///
/// # Safety
/// The matrices must be there, and [`Registers`](crate::cpu::amx::Registers) with all rows.
#[inline(always)]
pub unsafe fn add_step(
    pieces: Pieces,
    left: *const Matrix,
    other: *const Matrix,
    panel: *const Matrix,
    mut between: impl FnMut(),
) {
    macro_rules! stages {
        ($($load:expr),*) => {{
            $(
                // Not all of them use all.
                tiles!($load, multiply!(), "# {at} {other} {panel}";
                    at = in(reg) left, other = in(reg) other, panel = in(reg) panel, row = in(reg) ROW,);
                between();
            )*
        }};
    }
    // SAFETY: as the caller promises.
    unsafe {
        match (pieces.left, pieces.right) {
            (1, _) => stages!(both!(passing_rows!(), columns!(0))),
            (_, 1) => stages!(both!(rows!(1024), columns!(0)), rows!(2048), rows!(0)),
            (_, 2) => stages!(both!(rows!(0), columns!(2048)), rows!(1024), columns!(0), rows!(2048), rows!(0)),
            _ => stages!(
                both!(rows!(0), columns!(4096)),
                columns!(2048),
                rows!(1024),
                columns!(0),
                rows!(2048),
                rows!(0)
            ),
        }
    }
}
