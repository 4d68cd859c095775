//! Rows become columns, eight by eight in registers where there are instructions for it: number by number, that takes a third of
//! the time of the product that it is done for.

use rten_simd::Isa;
use rten_simd::ops::BitOps;

/// Rows and columns of a square.
const SIDE: usize = 8;

/// Transposes `[rows, cols]`, whose rows begin `stride` apart, into panels `[cols, panel]`, times `scale`; what is missing of the
/// last panel is 0. `panel` is a multiple of a vector's lanes.
///
/// # Panics
/// If `x` or `out` is too short.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub fn transpose<I: Isa>(
    isa: I,
    x: &[f32],
    stride: usize,
    rows: usize,
    cols: usize,
    scale: f32,
    panel: usize,
    out: &mut [f32],
) {
    let side = isa.f32().len().min(SIDE);
    let panels = rows.div_ceil(panel);
    assert!(panel.is_multiple_of(side), "{panel} columns, vectors of {side}");
    assert!(rows > 0 && x.len() >= (rows - 1) * stride + cols && out.len() >= panels * panel * cols);
    // Vectors of eight numbers or more are those of AVX2 and AVX-512.
    let whole = if cfg!(target_arch = "x86_64") && side == SIDE { cols / SIDE * SIDE } else { 0 };
    for (p, out) in out.chunks_exact_mut(panel * cols).take(panels).enumerate() {
        for j in (0..panel).step_by(side) {
            let first = p * panel + j;
            let count = side.min(rows.saturating_sub(first));
            let squares = if count > 0 { whole } else { 0 };
            #[cfg(target_arch = "x86_64")]
            for d in (0..squares).step_by(SIDE) {
                // SAFETY: the CPU has AVX2, see above. Rows `first..first + count` have columns `d..d + SIDE`, and so has `out`,
                // transposed.
                unsafe {
                    let (from, to) = (x.as_ptr().add(first * stride + d), out.as_mut_ptr().add(d * panel + j));
                    square(from, stride, count, scale, to, panel);
                }
            }
            for d in squares..cols {
                let column = &mut out[d * panel + j..][..side];
                for (i, y) in column[..count].iter_mut().enumerate() {
                    *y = x[(first + i) * stride + d] * scale;
                }
                column[count..].fill(0.0);
            }
        }
    }
}

/// A square of whose rows the first `count` are there, the others 0.
///
/// # Safety
/// `from` must have `count` rows of [`SIDE`] numbers, `stride` apart, and `to` [`SIDE`] rows of as many, `panel` apart; the CPU
/// must have AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn square(from: *const f32, stride: usize, count: usize, scale: f32, to: *mut f32, panel: usize) {
    use std::arch::x86_64::*;
    let scale = _mm256_set1_ps(scale);
    let mut rows = [_mm256_setzero_ps(); SIDE];
    for (i, row) in rows.iter_mut().enumerate() {
        if i < count {
            // SAFETY: the row is there.
            *row = _mm256_mul_ps(unsafe { _mm256_loadu_ps(from.add(i * stride)) }, scale);
        }
    }
    // Fours of rows: vector c of four has columns c and 4 + c, each in a half.
    let mut quads = [_mm256_setzero_ps(); SIDE];
    for (quads, rows) in quads.chunks_exact_mut(4).zip(rows.chunks_exact(4)) {
        let pair = |a, b| [_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b)];
        let halves = [pair(rows[0], rows[1]), pair(rows[2], rows[3])];
        for (c, quad) in quads.iter_mut().enumerate() {
            let (a, b) = (_mm256_castps_pd(halves[0][c / 2]), _mm256_castps_pd(halves[1][c / 2]));
            let both = if c % 2 == 0 { _mm256_unpacklo_pd(a, b) } else { _mm256_unpackhi_pd(a, b) };
            *quad = _mm256_castpd_ps(both);
        }
    }
    for c in 0..4 {
        let columns = [
            _mm256_permute2f128_ps::<0x20>(quads[c], quads[4 + c]), // the first half of both
            _mm256_permute2f128_ps::<0x31>(quads[c], quads[4 + c]),
        ];
        for (i, column) in columns.into_iter().enumerate() {
            // SAFETY: `to` has the row.
            unsafe { _mm256_storeu_ps(to.add((4 * i + c) * panel), column) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::instruction_set::dispatch;
    use rten_simd::SimdOp;

    struct Transpose<'a> {
        x: &'a [f32],
        stride: usize,
        rows: usize,
        cols: usize,
        vectors: usize,
    }

    impl SimdOp for Transpose<'_> {
        type Output = (usize, Vec<f32>);

        #[inline(always)]
        fn eval<I: Isa>(self, isa: I) -> (usize, Vec<f32>) {
            let Transpose { x, stride, rows, cols, vectors } = self;
            let panel = vectors * isa.f32().len();
            let mut out = vec![f32::NAN; rows.div_ceil(panel) * panel * cols];
            transpose(isa, x, stride, rows, cols, 2.0, panel, &mut out);
            (panel, out)
        }
    }

    #[test]
    fn every_number_is_in_its_place_and_the_rest_is_0() {
        for rows in [1, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 70] {
            for (cols, stride) in [(1, 1), (5, 9), (8, 8), (16, 40), (32, 96), (36, 50)] {
                let x: Vec<f32> = (0..(rows - 1) * stride + cols).map(|i| i as f32).collect();
                for vectors in [1, 2] {
                    let (panel, out) = dispatch(Transpose { x: &x, stride, rows, cols, vectors });
                    for (at, y) in out.into_iter().enumerate() {
                        let (column, row) = (at / panel % cols, at / (panel * cols) * panel + at % panel);
                        let expected = if row < rows { 2.0 * x[row * stride + column] } else { 0.0 };
                        assert_eq!(y, expected, "[{rows}, {cols}], {vectors} vectors: row {row}, column {column}");
                    }
                }
            }
        }
    }
}
