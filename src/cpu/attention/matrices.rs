//! Attention by AMX's products of bf16s: of a head's keys with a block of queries, and of its values, transposed, with their
//! weights. Both sides are [split](crate::cpu::split): keys and values once a head, the weights as they come from the softmax,
//! while AMX multiplies those before.

use super::beside::{AT_ONCE, Beside, Vectors};
use super::{Head, UNSEEN, grow};
use crate::cpu::amx::{ROWS, Registers};
use crate::cpu::disentangled::Disentangled;
use crate::cpu::gemm::VECTORS;
use crate::cpu::kernel::{Kernel, Products};
use crate::cpu::matmul::StridedMut;
use crate::cpu::softmax::{LEAST, inverse, largest};
use crate::cpu::split::tile::{PANEL, Sums, TILE, add_step, put_back, stages, take, zero};
use crate::cpu::split::{Matrix, PAIRS, Pieces, STEP, grow_matrices, split_panel, split_rows};
use crate::cpu::transpose::transpose;
use rten_simd::isa::Avx512Isa;
use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, Simd};
use std::f32::consts::LOG2_E;

/// Of narrower heads, too much of a tile is empty.
const LEAST_HEAD: usize = 24;

/// Steps of keys whose weights are kept, for all of a head's columns.
const RUN: usize = 16;

/// AMX, for as long as this lives.
pub struct Amx {
    isa: Avx512Isa,
    count: Pieces,
    least_keys: usize,
    _registers: Registers,
}

impl Amx {
    /// If it is a kernel's, which then says that it exists; for sequences of `least_keys`.
    pub fn of(kernel: Kernel, least_keys: usize) -> Option<Amx> {
        let Kernel::Matrices(products) = kernel else { return None };
        let isa = Avx512Isa::new().expect("where there is AMX, there is AVX-512");
        let count = match products {
            Products::F32 => Pieces::ALL,
            Products::Bf16 => Pieces::ONE,
        };
        // SAFETY: it exists.
        Some(Amx { isa, count, least_keys, _registers: unsafe { Registers::new([ROWS; 8]) } })
    }

    /// Whether it takes such a head.
    pub fn takes(&self, keys: usize, head_dim: usize) -> bool {
        keys >= self.least_keys && head_dim >= LEAST_HEAD
    }
}

/// Memory kept from call to call: one head's.
#[derive(Default)]
pub struct Matrices {
    /// `[tiles of keys, 2, steps of the head, pieces]`
    keys: Vec<Matrix>,
    /// `[tiles of the head, 2, steps of keys, pieces]`
    values: Vec<Matrix>,
    /// `[head_dim, keys]`, filled up with 0
    transposed: Vec<f32>,
    /// `[steps of the head, pieces, VECTORS]`
    queries: Vec<Matrix>,
    /// Of each tile of keys that a block of queries sees.
    scores: Vec<Sums>,
    /// `[RUN, pieces, VECTORS]`
    weights: Vec<Matrix>,
    /// Of each tile of the head.
    sums: Vec<Sums>,
    /// `[queries, TILE]`
    out: Vec<f32>,
}

/// `[rows, PANEL]`
fn flat(tiles: &mut [Sums]) -> &mut [f32] {
    // SAFETY: a tile is nothing but its numbers.
    unsafe { std::slice::from_raw_parts_mut(tiles.as_mut_ptr().cast(), tiles.len() * TILE * PANEL) }
}

/// Makes room.
fn grow_sums(sums: &mut Vec<Sums>, len: usize) {
    if sums.len() < len {
        sums.resize_with(len, || Sums([[0.0; PANEL]; TILE]));
    }
}

impl Matrices {
    /// All queries of a head; `packed` is room for some of them. The keys and values are those of the head before, unless it
    /// `has_others`.
    pub fn attend(
        &mut self,
        amx: &Amx,
        head: &Head<'_>,
        has_others: bool,
        packed: &mut Vec<f32>,
        mut disentangled: Option<&mut Disentangled>,
        mut out: StridedMut<'_>,
    ) {
        // SAFETY: there is AMX, and so AVX-512.
        unsafe {
            if has_others {
                self.begin(amx, head);
            }
            for first in (0..head.tokens).step_by(PANEL) {
                self.block(amx, head, first, packed, disentangled.as_deref_mut(), out.skip(first));
            }
        }
    }

    /// Takes a head's keys and values.
    ///
    /// # Safety
    /// There must be AVX-512.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,f16c")]
    unsafe fn begin(&mut self, &Amx { isa, count, .. }: &Amx, head: &Head<'_>) {
        let (keys, head_dim, stride) = (head.keys, head.op.head_dim, head.op.qkv_cols());
        let (steps, key_steps) = (head_dim.div_ceil(STEP), keys.div_ceil(STEP));
        let padded = keys.next_multiple_of(ROWS);
        assert!(head.k.len() >= (keys - 1) * stride + head_dim);
        grow_matrices(&mut self.keys, keys.div_ceil(TILE) * 2 * steps * count.left);
        grow_matrices(&mut self.values, head_dim.div_ceil(TILE) * 2 * key_steps * count.left);
        grow(&mut self.transposed, head_dim * padded);
        for row in (0..keys).step_by(ROWS) {
            let (x, rows) = (head.k[row * stride..].as_ptr(), ROWS.min(keys - row));
            // SAFETY: the rows are there, as asserted, and room for their matrices.
            unsafe {
                let to = self.keys.as_mut_ptr().add(row / ROWS * steps * count.left);
                split_rows(isa, count.left, x, stride, rows, head_dim, to);
            }
        }
        transpose(isa, head.v.data, stride, keys, head_dim, 1.0, padded, &mut self.transposed);
        for row in (0..head_dim).step_by(ROWS) {
            let (x, rows) = (self.transposed[row * padded..].as_ptr(), ROWS.min(head_dim - row));
            // SAFETY: as above.
            unsafe {
                let to = self.values.as_mut_ptr().add(row / ROWS * key_steps * count.left);
                split_rows(isa, count.left, x, padded, rows, keys, to);
            }
        }
    }

    /// The queries from `first` on, at most [`PANEL`], of the head that was begun; `packed` is room for them.
    ///
    /// # Safety
    /// There must be AVX-512.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,f16c")]
    #[allow(clippy::too_many_arguments)]
    unsafe fn block(
        &mut self,
        &Amx { isa, count, .. }: &Amx,
        head: &Head<'_>,
        first: usize,
        packed: &mut Vec<f32>,
        disentangled: Option<&mut Disentangled>,
        mut out: StridedMut<'_>,
    ) {
        let Head { op, q, tokens, keys, .. } = *head;
        let (in_cols, head_dim) = (op.qkv_cols(), op.head_dim);
        let queries = PANEL.min(tokens - first);
        let seen = op.seen(first, first + queries, keys);
        if seen.is_empty() {
            (0..queries).for_each(|query| out.row(query).fill(0.0));
            return;
        }
        // Those before them in their tile are there, too, and masked.
        let (tile, seen) = (seen.start / TILE, seen.start / TILE * TILE..seen.end);
        let tiles = seen.len().div_ceil(TILE);
        grow(packed, head_dim * PANEL);
        transpose(isa, &q[first * in_cols..], in_cols, queries, head_dim, op.scale * LOG2_E, PANEL, packed);
        // SAFETY: as the caller promises.
        let mut most = unsafe { self.score(isa, count, packed, head_dim, tile, tiles, seen.len()) };
        let rows = flat(&mut self.scores[..tiles]);
        let (scores, beyond) = rows.split_at_mut(seen.len() * PANEL);
        if head.adjust(isa, first, queries, seen, scores, PANEL, disentangled) {
            most = largest(isa, scores);
        }
        beyond.fill(UNSEEN);
        // SAFETY: as the caller promises.
        let totals = unsafe { self.weigh(isa, count, head_dim, keys, tile, tiles, most) };
        let factors: [[f32; 16]; VECTORS] = inverse(isa, totals).map(|factors| factors.to_array());
        for (sums, from) in self.sums.iter().zip((0..head_dim).step_by(TILE)) {
            let width = TILE.min(head_dim - from);
            grow(&mut self.out, PANEL * TILE);
            transpose(isa, sums.0.as_flattened(), PANEL, width, PANEL, 1.0, TILE, &mut self.out);
            let factors = factors.as_flattened();
            for (query, (row, factor)) in self.out.chunks_exact(TILE).zip(factors).enumerate().take(queries) {
                for (out, sum) in out.row(query)[from..from + width].iter_mut().zip(row) {
                    *out = sum * factor;
                }
            }
        }
    }

    /// Multiplies some tiles of keys by queries `[head_dim, PANEL]`: writes their scores, and gives the largest of `rows`.
    ///
    /// # Safety
    /// As [`Matrices::block`].
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn score(
        &mut self,
        isa: Avx512Isa,
        count: Pieces,
        packed: &[f32],
        head_dim: usize,
        first_tile: usize,
        tiles: usize,
        rows: usize,
    ) -> Vectors {
        let (ops, steps) = (isa.f32(), head_dim.div_ceil(STEP));
        grow_matrices(&mut self.queries, steps * count.right * VECTORS);
        grow_sums(&mut self.scores, tiles);
        let mut most: Vectors = [ops.splat(LEAST); VECTORS];
        // SAFETY: the matrices are there, and AMX, as the caller promises.
        unsafe {
            split_panel(isa, count.right, packed.as_ptr(), head_dim, 0..steps * PAIRS, self.queries.as_mut_ptr());
            for tile in 0..tiles {
                let left = self.keys.as_ptr().add((first_tile + tile) * 2 * steps * count.left);
                zero();
                for step in 0..steps {
                    let left = left.add(step * count.left);
                    let queries = self.queries.as_ptr().add(step * count.right * VECTORS);
                    add_step(count, left, left.add(steps * count.left), queries, || ());
                }
                // Meanwhile, those of the tile before.
                if tile > 0 {
                    most = larger(isa, most, self.scores[tile - 1].0.as_flattened());
                }
                take(&mut self.scores[tile]);
            }
        }
        let left = rows - (tiles - 1) * TILE;
        larger(isa, most, self.scores[tiles - 1].0[..left].as_flattened())
    }

    /// Multiplies values by the scores' weights, and gives the sums of these.
    ///
    /// # Safety
    /// As [`Matrices::block`].
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn weigh(
        &mut self,
        isa: Avx512Isa,
        count: Pieces,
        head_dim: usize,
        keys: usize,
        first_tile: usize,
        tiles: usize,
        most: Vectors,
    ) -> Vectors {
        let (head_tiles, key_steps) = (head_dim.div_ceil(TILE), keys.div_ceil(STEP));
        grow_matrices(&mut self.weights, RUN * count.right * VECTORS);
        grow_sums(&mut self.sums, head_tiles);
        let mut beside = Beside::new(isa, count.right, most);
        let turn = PAIRS.div_ceil(stages(count)).next_multiple_of(AT_ONCE);
        for from in (0..tiles).step_by(RUN) {
            let steps = RUN.min(tiles - from);
            // SAFETY: the matrices are there, and AMX, as the caller promises.
            unsafe {
                let matrices = self.weights.as_mut_ptr();
                let of_step = |step: usize| matrices.add(step * count.right * VECTORS);
                beside.begin(&self.scores[from], of_step(0));
                beside.compute(PAIRS);
                for (tile, sums) in self.sums[..head_tiles].iter_mut().enumerate() {
                    let left = self.values.as_ptr().add((tile * 2 * key_steps + first_tile + from) * count.left);
                    if from == 0 {
                        zero();
                    } else {
                        put_back(sums);
                    }
                    for step in 0..steps {
                        let left = left.add(step * count.left);
                        if tile == 0 && step + 1 < steps {
                            beside.begin(&self.scores[from + step + 1], of_step(step + 1));
                        }
                        let other = left.add(key_steps * count.left);
                        add_step(count, left, other, of_step(step), || beside.compute(turn));
                    }
                    take(sums);
                }
            }
        }
        beside.totals
    }
}

/// The larger of each lane and of its column of `[rows, PANEL]`.
#[inline(always)]
fn larger(isa: Avx512Isa, most: Vectors, scores: &[f32]) -> Vectors {
    let (ops, others): (_, Vectors) = (isa.f32(), largest(isa, scores));
    [ops.max(most[0], others[0]), ops.max(most[1], others[1])]
}
