//! Linear ops by AMX's products of bf16s: both sides are [split](super::split) on the way into the second cache.

mod beside;

use super::amx::{ROWS, Registers};
use super::gemm::{Aligned, RUN, Shared, VECTORS};
use super::split::tile::{PANEL, Sums, TILE, add_step, take, zero};
use super::split::{LANES, Matrix, NUMBERS, PAIRS, PIECES, Pieces, STEP, grow_matrices, split_rows};
use super::storage::Stored;
use super::team::Team;
use crate::program::Activation;
use beside::Beside;
use half::bf16;
use rten_simd::isa::Avx512Isa;
use std::cell::RefCell;
use std::ops::Range;

/// Fewer rows are faster with AVX-512, which need not split the weight: with both, 32 take as long on a Xeon with AMX.
pub const LEAST_ROWS: usize = 32;

/// Bytes of a block's rows, split, which stay in the second cache, of 2 MB, while all panels pass by. With 1.5 MB, a run of 512 took a
/// quarter longer.
const BLOCK_BYTES: usize = 1200 << 10;

/// A weight.
#[derive(Clone, Copy)]
pub enum Panels<'a, N> {
    /// `[panels, inner, PANEL]`
    Numbers(&'a [N]),
    /// `[panels, steps, VECTORS]` matrices, see [`pack`]: both sides are rounded to bf16.
    Matrices(&'a [bf16]),
}

/// Rounds `[cols, inner]` to bf16, in panels of AMX's matrices: `[panels, steps, VECTORS]` of [`NUMBERS`], filled up with 0.
pub fn pack(values: &[f32], cols: usize, inner: usize) -> Aligned<bf16> {
    let (panels, steps) = (cols.div_ceil(PANEL), inner.div_ceil(STEP));
    let mut matrices = Aligned::zeros(panels * steps * VECTORS * NUMBERS);
    let numbers = matrices.as_mut_slice();
    for (column, values) in values.chunks_exact(inner).enumerate() {
        let (panel, v, lane) = (column / PANEL, column % PANEL / LANES, column % LANES);
        for (k, value) in values.iter().enumerate() {
            let (step, half, row) = (k / STEP, k % STEP / PAIRS, k % PAIRS);
            let matrix = (panel * steps + step) * VECTORS + v;
            numbers[matrix * NUMBERS + row * STEP + 2 * lane + half] = bf16::from_f32(*value);
        }
    }
    matrices
}

/// A linear op.
pub struct Linear<'a, N> {
    /// `[rows, inner]`
    pub x: &'a [f32],
    pub panels: Panels<'a, N>,
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
    pieces: Pieces,
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
        self.steps() * self.pieces.left * TILE / ROWS
    }
}

impl<N: Stored> Linear<'_, N> {
    /// Writes `[rows, cols]`. The lengths are right, and AMX [exists](super::amx::exists).
    pub fn run(&self, team: &Team<'_>, scratch: &mut Vec<Matrix>, out: &mut [f32]) {
        let isa = Avx512Isa::new().expect("where there is AMX, there is AVX-512");
        let Linear { inner, cols, .. } = *self;
        let pieces = match self.panels {
            Panels::Numbers(_) => Pieces { right: N::PIECES, ..Pieces::ALL },
            Panels::Matrices(_) => Pieces::ONE,
        };
        let (rows, out) = (out.len() / cols, Shared::new(out));
        let most = BLOCK_BYTES / (RUN.min(inner).next_multiple_of(STEP) * pieces.left * size_of::<bf16>());
        let block = rows.div_ceil(rows.div_ceil(most).max(1)).next_multiple_of(TILE).max(TILE);
        for first in (0..rows).step_by(block) {
            for from in (0..inner).step_by(RUN) {
                let (rows, depth) = (block.min(rows - first), RUN.min(inner - from));
                let part = Part { first, rows, from, depth, pieces };
                let len = part.tiles() * part.tile_matrices();
                grow_matrices(scratch, len);
                let matrices = Shared::new(&mut scratch[..len]);
                // SAFETY: there is AMX, and so AVX-512. Parts are of one thread alone.
                team.run(part.tiles(), &|tiles| unsafe { self.split(isa, part, tiles, &matrices) });
                // SAFETY: as above; the matrices are written.
                team.run(cols.div_ceil(PANEL), &|panels| {
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
            let to = matrices.pointer(row / ROWS * part.steps() * part.pieces.left);
            // SAFETY: these rows are there, and the matrices for them, of this thread alone.
            unsafe { split_rows(isa, part.pieces.left, x, self.inner, rows, part.depth, to) };
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
        let (steps, tiles, pieces) = (part.steps(), part.tiles(), part.pieces);
        let rooms = room.panels.each_mut().map(|panel| panel.as_mut_ptr());
        let [mut sums, mut sums_before] = room.sums.each_mut().map(|sums| &raw mut *sums);
        // SAFETY: the registers exist, there is room for a run's panel, and for what is beside until all of it is done.
        unsafe {
            let _registers = Registers::new([ROWS; 8]);
            let mut beside = Beside::new(self, isa, part, out);
            let mut now = beside.begin_panel(panels.start, rooms);
            beside.prepare(usize::MAX);
            for panel in panels.clone() {
                let next = if panel + 1 < panels.end { beside.begin_panel(panel + 1, rooms) } else { now };
                for tile in 0..tiles {
                    let left = matrices.add(tile * part.tile_matrices());
                    zero();
                    for step in 0..steps {
                        let left = left.add(step * pieces.left);
                        let other = left.add(steps * pieces.left);
                        let panel = now.add(step * pieces.right * VECTORS);
                        add_step(pieces, left, other, panel, || beside.turn());
                    }
                    beside.finish(TILE);
                    take(&mut *sums);
                    (sums, sums_before) = (sums_before, sums);
                    beside.begin_tile(panel, tile, sums_before);
                }
                beside.prepare(usize::MAX);
                now = next;
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
