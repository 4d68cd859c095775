//! Work of the vector units, which AMX does not wait for: a tile whose products are summed is finished, and the next panel prepared.

use super::{Linear, Panels, Part};
use crate::cpu::activation;
use crate::cpu::gemm::{Shared, VECTORS};
use crate::cpu::split::tile::{PANEL, Sums, TILE, stages};
use crate::cpu::split::{Matrix, NUMBERS, PAIRS, STEP, split_panel};
use crate::cpu::storage::Stored;
use crate::cpu::strip::{Strip, load, masks, store};
use crate::program::Activation;
use rten_simd::Isa;
use rten_simd::isa::Avx512Isa;
use rten_simd::ops::{BitOps, NumOps};
use std::arch::x86_64::{__m512i, _MM_HINT_T1, _mm_prefetch};

/// One that is multiplied next.
#[derive(Clone, Copy)]
enum Panel<N> {
    /// To be split.
    Numbers {
        from: *const N,
        to: *mut Matrix,
    },
    Ready(*const Matrix),
}

/// What there is to do. It is done in small pieces: a core looks some hundred operations ahead, and AMX's must be among them.
pub struct Beside<'a, N> {
    linear: &'a Linear<'a, N>,
    isa: Avx512Isa,
    part: Part,
    out: &'a Shared<'a>,
    turn: usize,
    /// For each turn, of which those of a tile must suffice.
    pairs_a_turn: usize,
    rows_a_turn: usize,
    /// The first pair that is not prepared.
    pair: usize,
    panel: Panel<N>,
    /// The first row that is not finished.
    row: usize,
    rows: usize,
    sums: *const Sums,
    /// Where the first row begins in `out`.
    at: usize,
    width: usize,
}

impl<'a, N: Stored> Beside<'a, N> {
    /// Nothing yet.
    pub fn new(linear: &'a Linear<'a, N>, isa: Avx512Isa, part: Part, out: &'a Shared<'a>) -> Beside<'a, N> {
        let turns = (part.steps() * stages(part.pieces) / 2).max(1);
        Beside {
            linear,
            isa,
            part,
            out,
            turn: 0,
            pairs_a_turn: (part.steps() * PAIRS).div_ceil(turns * part.tiles()),
            rows_a_turn: TILE.div_ceil(turns),
            pair: part.steps() * PAIRS,
            panel: Panel::Ready(std::ptr::null()),
            row: 0,
            rows: 0,
            sums: std::ptr::null(),
            at: 0,
            width: 0,
        }
    }

    /// There is a panel to prepare, in one room or the other by its number. Says where it will be.
    #[inline(always)]
    pub fn begin_panel(&mut self, panel: usize, rooms: [*mut Matrix; 2]) -> *const Matrix {
        let (inner, Part { from, depth, .. }) = (self.linear.inner, self.part);
        self.pair = 0;
        match self.linear.panels {
            Panels::Numbers(numbers) => {
                let from = numbers[(panel * inner + from) * PANEL..][..depth * PANEL].as_ptr();
                let to = rooms[panel % 2];
                self.panel = Panel::Numbers { from, to };
                to
            }
            Panels::Matrices(matrices) => {
                let of_steps = |steps: usize| steps * VECTORS * NUMBERS;
                let first = panel * inner.div_ceil(STEP) + from / STEP;
                let matrices = matrices[of_steps(first)..][..of_steps(self.part.steps())].as_ptr().cast();
                self.panel = Panel::Ready(matrices);
                matrices
            }
        }
    }

    /// There is a tile to finish.
    ///
    /// # Safety
    /// Its sums must be there until it is finished, and no other thread have its columns.
    #[inline(always)]
    pub unsafe fn begin_tile(&mut self, panel: usize, tile: usize, sums: *const Sums) {
        let (cols, col) = (self.linear.cols, panel * PANEL);
        (self.row, self.rows, self.sums) = (0, TILE.min(self.part.rows - tile * TILE), sums);
        (self.at, self.width) = ((self.part.first + tile * TILE) * cols + col, PANEL.min(cols - col));
    }

    /// Does a little of the one or the other.
    ///
    /// # Safety
    /// The CPU must have these features.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,f16c")]
    #[inline(never)]
    pub unsafe fn turn(&mut self) {
        self.turn += 1;
        // SAFETY: as the caller promises.
        unsafe {
            match self.turn % 2 {
                0 => self.prepare(self.pairs_a_turn),
                _ => self.finish(self.rows_a_turn),
            }
        }
    }

    /// Splits up to `count` more pairs of the panel, or asks for them ahead if they are ready.
    ///
    /// # Safety
    /// The CPU must have AVX-512, and no other thread the room.
    #[inline(always)]
    pub unsafe fn prepare(&mut self, count: usize) {
        let end = (self.part.steps() * PAIRS).min(self.pair.saturating_add(count));
        let (range, depth) = (self.pair..end, self.part.depth);
        self.pair = end;
        // SAFETY: as the caller promises; the panel is there.
        unsafe {
            match self.panel {
                Panel::Numbers { from, to } => {
                    split_panel(self.isa, self.part.pieces.right, from, depth, range, to);
                }
                Panel::Ready(matrices) => {
                    for line in range.start * VECTORS..range.end * VECTORS {
                        _mm_prefetch::<_MM_HINT_T1>(matrices.cast::<__m512i>().add(line).cast());
                    }
                }
            }
        }
    }

    /// Finishes up to `count` more rows of the tile.
    ///
    /// # Safety
    /// The CPU must have AVX-512.
    #[inline(always)]
    pub unsafe fn finish(&mut self, count: usize) {
        let Linear { inner, cols, bias, activation, residual, .. } = *self.linear;
        let (isa, ops, out, Part { from, depth, .. }) = (self.isa, self.isa.f32(), self.out, self.part);
        let (is_first, is_last) = (from == 0, from + depth == inner);
        let (begin, end, width) = (self.row, self.rows.min(self.row + count), self.width);
        if begin == end {
            return;
        }
        self.row = end;
        let (masks, whole) = (masks(isa, width), width == PANEL);
        let early = residual.filter(|_| is_last && activation == Activation::Identity);
        // SAFETY: as the one promised who began the tile; `linear` has checked the lengths.
        unsafe {
            let bias = match bias {
                Some(bias) if is_first => load(isa, bias.as_ptr().add(self.at % cols), whole, masks),
                _ => [ops.zero(); VECTORS],
            };
            for row in begin..end {
                let at = self.at + row * cols;
                let to = out.pointer(at);
                let before = if is_first { bias } else { load(isa, to, whole, masks) };
                let [a, b] = load(isa, (&(*self.sums).0)[row].as_ptr(), true, masks);
                let mut values = [ops.add(before[0], a), ops.add(before[1], b)];
                if let Some(residual) = early {
                    let residual = load(isa, residual.as_ptr().add(at), whole, masks);
                    values = [ops.add(values[0], residual[0]), ops.add(values[1], residual[1])];
                }
                store(isa, values, to, whole, masks);
            }
        }
        if is_last && activation != Activation::Identity {
            let first = self.at + begin * cols;
            let strip = Strip { out, residual, first, rows: end - begin, width, stride: cols };
            activation::with(activation, strip);
        }
    }
}
