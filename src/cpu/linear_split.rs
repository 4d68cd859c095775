//! Linear ops in f32, by AMX's products of bf16s: both sides are [split](super::split) on the way into the second cache. With
//! `x = x1 + x2 + x3`, each of them at most 2^-8 of the one before, and the weight alike, these products are added in f32:
//!
//! | | w1 | w2 | w3 |
//! |---|---|---|---|
//! | x1 | + | + | + |
//! | x2 | + | + | |
//! | x3 | + | | |
//!
//! What is left out is 2^-24 of `x w` at most, as much as an f32's rounding. Six products of AMX take 6/16 of the time of one of
//! AVX-512's f32. Weights in f16 are two bf16s, those in bf16 one: five products, and three.

mod beside;
mod tile;

use super::amx::{ROWS, Registers};
use super::gemm::{RUN, Shared, TASK_PANELS, VECTORS};
use super::split::{Matrix, PIECES, STEP, split_rows};
use super::storage::Stored;
use super::team::Team;
use crate::program::Activation;
use beside::Beside;
use rten_simd::isa::Avx512Isa;
use std::cell::RefCell;
use std::ops::Range;
use tile::{Sums, add_step, take, zero};

/// Fewer rows are faster with AVX-512, which need not split the weight: with both, 32 take as long on a Xeon with AMX.
pub const LEAST_ROWS: usize = 32;

/// Rows that are multiplied at a time: two matrices.
const TILE: usize = 2 * ROWS;

/// Columns of a panel.
pub const PANEL: usize = VECTORS * 16;

/// Rows of a block: [`RUN`] numbers of each, split, take 1.5 MB of the second cache's 2, and stay there while all panels pass by.
const MOST_ROWS: usize = 512;

/// A linear op.
pub struct Linear<'a, N> {
    /// `[rows, inner]`
    pub x: &'a [f32],
    /// `[panels, inner, PANEL]`
    pub panels: &'a [N],
    pub inner: usize,
    pub cols: usize,
    pub bias: Option<&'a [f32]>,
    pub activation: Activation,
    pub residual: Option<&'a [f32]>,
}

/// A block of rows, and a run of the inner dimension.
#[derive(Clone, Copy)]
struct Part {
    first: usize,
    rows: usize,
    from: usize,
    depth: usize,
}

impl Part {
    fn steps(self) -> usize {
        self.depth.div_ceil(STEP)
    }

    fn tiles(self) -> usize {
        self.rows.div_ceil(TILE)
    }

    /// Matrices of a tile: those of its first rows, then those of the others.
    fn tile_matrices(self) -> usize {
        self.steps() * PIECES * TILE / ROWS
    }
}

impl<N: Stored> Linear<'_, N> {
    /// Writes `[rows, cols]`. The lengths are right, and AMX [exists](super::amx::exists).
    pub fn run(&self, team: &Team<'_>, scratch: &mut Vec<Matrix>, out: &mut [f32]) {
        let isa = Avx512Isa::new().expect("where there is AMX, there is AVX-512");
        let Linear { inner, cols, .. } = *self;
        let (rows, out) = (out.len() / cols, Shared::new(out));
        let block = rows.div_ceil(rows.div_ceil(MOST_ROWS).max(1)).next_multiple_of(TILE).max(TILE);
        for first in (0..rows).step_by(block) {
            for from in (0..inner).step_by(RUN) {
                let part = Part { first, rows: block.min(rows - first), from, depth: RUN.min(inner - from) };
                let len = part.tiles() * part.tile_matrices();
                if scratch.len() < len {
                    // SAFETY: zeros are valid numbers.
                    scratch.resize(len, unsafe { std::mem::zeroed() });
                }
                let matrices = Shared::new(&mut scratch[..len]);
                // SAFETY: there is AMX, and so AVX-512. Parts are of one thread alone.
                team.run(part.tiles(), 1, &|tiles| unsafe { self.split(isa, part, tiles, &matrices) });
                // SAFETY: as above; the matrices are written.
                team.run(cols.div_ceil(PANEL), TASK_PANELS, &|panels| {
                    ROOM.with_borrow_mut(|room| unsafe {
                        self.multiply(isa, part, panels, matrices.pointer(0), room, &out)
                    })
                });
            }
        }
    }

    /// Splits some tiles of the left side.
    ///
    /// # Safety
    /// There must be AVX-512, and no other thread that has these tiles' matrices.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,f16c")]
    unsafe fn split(&self, isa: Avx512Isa, part: Part, tiles: Range<usize>, matrices: &Shared<'_, Matrix>) {
        for row in (tiles.start * TILE..part.rows.min(tiles.end * TILE)).step_by(ROWS) {
            let rows = ROWS.min(part.rows - row);
            let x = self.x[(part.first + row) * self.inner + part.from..].as_ptr();
            let to = matrices.pointer(row / ROWS * part.steps() * PIECES);
            // SAFETY: these rows are there, and the matrices for them, of this thread alone.
            unsafe { split_rows(isa, x, self.inner, rows, part.depth, to) };
        }
    }

    /// Computes some panels' columns.
    ///
    /// # Safety
    /// There must be AMX and AVX-512, all matrices, and no other thread that has these columns.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,f16c")]
    unsafe fn multiply(
        &self,
        isa: Avx512Isa,
        part: Part,
        panels: Range<usize>,
        matrices: *const Matrix,
        room: &mut Room,
        out: &Shared<'_>,
    ) {
        let (steps, tiles) = (part.steps(), part.tiles());
        let numbers =
            |panel: usize| self.panels[(panel * self.inner + part.from) * PANEL..][..part.depth * PANEL].as_ptr();
        let [mut now, mut next] = room.panels.each_mut().map(|panel| panel.as_mut_ptr());
        let [mut sums, mut sums_before] = room.sums.each_mut().map(|sums| &raw mut *sums);
        // SAFETY: the registers exist, there is room for a run's panel, and for what is beside until all of it is done.
        unsafe {
            let _registers = Registers::new([ROWS; 8]);
            let mut beside = Beside::new(self, isa, part, out);
            beside.begin_panel(numbers(panels.start), now);
            beside.split(usize::MAX);
            for panel in panels.clone() {
                if panel + 1 < panels.end {
                    beside.begin_panel(numbers(panel + 1), next);
                }
                for tile in 0..tiles {
                    let left = matrices.add(tile * part.tile_matrices());
                    zero();
                    for step in 0..steps {
                        let left = left.add(step * PIECES);
                        let panel = now.add(step * N::PIECES * VECTORS);
                        add_step::<N>(left, left.add(steps * PIECES), panel, || beside.turn());
                    }
                    beside.finish(TILE);
                    take(&mut *sums);
                    (sums, sums_before) = (sums_before, sums);
                    beside.begin_tile(panel, tile, sums_before);
                }
                beside.split(usize::MAX);
                (now, next) = (next, now);
            }
            beside.finish(TILE);
        }
    }
}

/// What a thread keeps beside: a panel and the next, a tile and the one before.
struct Room {
    panels: [[Matrix; RUN / STEP * PIECES * VECTORS]; 2],
    sums: [Sums; 2],
}

thread_local! {
    // SAFETY: zeros are valid for all of it.
    static ROOM: RefCell<Box<Room>> = RefCell::new(unsafe { Box::new_zeroed().assume_init() });
}
