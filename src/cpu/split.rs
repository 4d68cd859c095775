//! f32s as sums of bf16s, which AMX's matrices multiply: 8 of an f32's 24 significant bits are in each of three. With
//! `x = x1 + x2 + x3`, each of them at most 2^-8 of the one before, and the other side alike, these products are added in f32:
//!
//! | | w1 | w2 | w3 |
//! |---|---|---|---|
//! | x1 | + | + | + |
//! | x2 | + | + | |
//! | x3 | + | | |
//!
//! What is left out is 2^-24 of `x w` at most, as much as an f32's rounding. Six products of AMX take 6/16 of the time of one of
//! AVX-512's f32. An f16 is two bf16s: five products. A bf16 is one: three, or one alone where the other side is rounded to bf16, too.
//!
//! A matrix has [`STEP`] numbers of the inner dimension, in 16 rows of the left side or 16 columns of a weight. Its unit is a pair
//! of numbers that are multiplied with another pair, and added: here they lie 16 apart, because vectors are then split as they are.

pub mod tile;

use super::amx::ROWS;
use super::gemm::VECTORS;
use super::storage::Stored;
use rten_simd::Isa;
use rten_simd::isa::Avx512Isa;
use rten_simd::ops::BitOps;
use std::arch::x86_64::{
    __m512, __m512i, _CMP_ORD_Q, _MM_HINT_T0, _mm_prefetch, _mm512_add_epi32, _mm512_and_si512, _mm512_castps_si512,
    _mm512_castsi512_ps, _mm512_cmp_ps_mask, _mm512_mask_add_epi32, _mm512_mask_blend_epi16, _mm512_maskz_loadu_ps,
    _mm512_set1_epi32, _mm512_srli_epi32, _mm512_sub_ps,
};
use std::ops::Range;

/// Numbers of the inner dimension in a matrix.
pub const STEP: usize = 32;

/// Pairs of a step.
pub const PAIRS: usize = STEP / 2;

/// bf16s whose sum is an f32.
pub const PIECES: usize = 3;

/// How many bf16s stand for a number of each side of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pieces {
    pub left: usize,
    pub right: usize,
}

impl Pieces {
    /// All that two f32s hold.
    pub const ALL: Pieces = Pieces { left: PIECES, right: PIECES };

    /// Both are rounded to bf16.
    pub const ONE: Pieces = Pieces { left: 1, right: 1 };
}

/// A matrix's rows: of the left side, a row's numbers; of a weight, a pair of each of 16 columns.
pub type Matrix = [__m512i; ROWS];

/// Makes room.
pub fn grow_matrices(matrices: &mut Vec<Matrix>, len: usize) {
    if matrices.len() < len {
        // SAFETY: zeros are valid numbers.
        matrices.resize(len, unsafe { std::mem::zeroed() });
    }
}

/// bf16s of a matrix.
pub const NUMBERS: usize = ROWS * STEP;

/// Lanes of a vector.
pub const LANES: usize = 16;

/// Each lane's two numbers, as `P` pairs of bf16s, the largest first: each is what the ones before leave, rounded, half away from 0;
/// the last of several is cut off, and one alone rounded only if it is a number: rounding may make 0 of a NaN.
#[inline(always)]
pub fn pieces<const P: usize>(a: __m512, b: __m512) -> [__m512i; P] {
    let mut rest = [a, b];
    // SAFETY: there is an `Avx512Isa` where this is called.
    unsafe {
        let mut pieces = [_mm512_castps_si512(a); P];
        for (p, piece) in pieces.iter_mut().enumerate() {
            let half = _mm512_set1_epi32(if p + 1 < P || P == 1 { 0x8000 } else { 0 });
            let mut bits = [half; 2];
            for (bits, rest) in bits.iter_mut().zip(&mut rest) {
                let whole = _mm512_castps_si512(*rest);
                *bits = match P {
                    1 => _mm512_mask_add_epi32(whole, _mm512_cmp_ps_mask::<_CMP_ORD_Q>(*rest, *rest), whole, half),
                    _ => _mm512_add_epi32(whole, half),
                };
                let upper = _mm512_and_si512(*bits, _mm512_set1_epi32(0xffff_0000_u32 as i32));
                *rest = _mm512_sub_ps(*rest, _mm512_castsi512_ps(upper));
            }
            // The upper half of a lane is the second's.
            *piece = _mm512_mask_blend_epi16(0xaaaa_aaaa, _mm512_srli_epi32::<16>(bits[0]), bits[1]);
        }
        pieces
    }
}

/// Splits `width` numbers of each of `rows` rows (at most 16), which lie `stride` apart: `[steps, count]` matrices, of as many
/// pieces as `count` says. What is behind the last number is 0; rows that are not there stay as they were.
///
/// # Safety
/// `x` must be valid for them, and `to` for the matrices.
#[inline(always)]
pub unsafe fn split_rows(
    isa: Avx512Isa,
    count: usize,
    x: *const f32,
    stride: usize,
    rows: usize,
    width: usize,
    to: *mut Matrix,
) {
    // SAFETY: as the caller promises.
    unsafe {
        match count {
            1 => split_rows_in::<1>(isa, x, stride, rows, width, to),
            _ => split_rows_in::<PIECES>(isa, x, stride, rows, width, to),
        }
    }
}

/// # Safety
/// As [`split_rows`].
#[inline(always)]
unsafe fn split_rows_in<const P: usize>(
    _: Avx512Isa,
    x: *const f32,
    stride: usize,
    rows: usize,
    width: usize,
    to: *mut Matrix,
) {
    for r in 0..rows {
        for (step, from) in (0..width).step_by(STEP).enumerate() {
            // SAFETY: as the caller promises; numbers behind the last are masked.
            unsafe {
                let x = x.add(r * stride + from);
                let left = (width - from).min(STEP);
                let mask = ((1_u64 << left) - 1) as u32;
                let a = _mm512_maskz_loadu_ps(mask as u16, x);
                let b = _mm512_maskz_loadu_ps((mask >> LANES) as u16, x.wrapping_add(LANES));
                let row = to.add(step * P).cast::<__m512i>().add(r);
                for (p, piece) in pieces::<P>(a, b).into_iter().enumerate() {
                    row.add(p * ROWS).write(piece);
                }
            }
        }
    }
}

/// Splits some pairs of numbers of a panel `[depth, VECTORS * 16]`, of which each step has [`PAIRS`], for `[steps, count, VECTORS]`
/// matrices, of as many pieces as `count` says. What is behind the last number is 0.
///
/// # Safety
/// `panel` must be valid for the depth, and `to` for the matrices.
#[inline(always)]
pub unsafe fn split_panel<N: Stored>(
    isa: Avx512Isa,
    count: usize,
    panel: *const N,
    depth: usize,
    pairs: Range<usize>,
    to: *mut Matrix,
) {
    // SAFETY: as the caller promises.
    unsafe {
        match count {
            1 => split_panel_in::<N, 1>(isa, panel, depth, pairs, to),
            2 => split_panel_in::<N, 2>(isa, panel, depth, pairs, to),
            _ => split_panel_in::<N, PIECES>(isa, panel, depth, pairs, to),
        }
    }
}

/// # Safety
/// As [`split_panel`].
#[inline(always)]
unsafe fn split_panel_in<N: Stored, const P: usize>(
    isa: Avx512Isa,
    panel: *const N,
    depth: usize,
    pairs: Range<usize>,
    to: *mut Matrix,
) {
    for at in pairs {
        let (step, pair) = (at / PAIRS, at % PAIRS);
        // SAFETY: as the caller promises; any address will do for what is asked for ahead.
        unsafe {
            let to = to.add(step * P * VECTORS).cast::<__m512i>().add(pair);
            let k = step * STEP + pair;
            for k in [k, k + PAIRS] {
                let ahead = panel.wrapping_add((k + STEP) * VECTORS * LANES).cast::<i8>();
                for line in (0..VECTORS * LANES * size_of::<N>()).step_by(64) {
                    _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(line));
                }
            }
            let (a, b) = (columns(isa, panel, k, depth), columns(isa, panel, k + PAIRS, depth));
            for v in 0..VECTORS {
                for (p, piece) in pieces::<P>(a[v], b[v]).into_iter().enumerate() {
                    to.add((p * VECTORS + v) * ROWS).write(piece);
                }
            }
        }
    }
}

/// Number `k` of a panel's columns; behind the last, 0.
///
/// # Safety
/// `panel` must be valid for the depth.
#[inline(always)]
unsafe fn columns<N: Stored>(isa: Avx512Isa, panel: *const N, k: usize, depth: usize) -> [__m512; VECTORS] {
    if k >= depth {
        return [isa.f32().zero().0; VECTORS];
    }
    // SAFETY: as the caller promises.
    let [a, b] = unsafe { N::vectors::<Avx512Isa, VECTORS>(isa, panel.add(k * VECTORS * LANES)) };
    [a.0, b.0]
}
