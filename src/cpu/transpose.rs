//! Rows become columns, a square as wide as a vector at a time where there are instructions for it: number by number, that takes
//! a third of the time of the product that it is done for.

use rten_simd::Isa;
use rten_simd::ops::BitOps;

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
    let lanes = isa.f32().len();
    let panels = rows.div_ceil(panel);
    assert!(rows > 0 && x.len() >= (rows - 1) * stride + cols && out.len() >= panels * panel * cols);
    for (p, out) in out.chunks_exact_mut(panel * cols).take(panels).enumerate() {
        for j in (0..panel).step_by(lanes) {
            let first = p * panel + j;
            let count = lanes.min(rows.saturating_sub(first));
            let mut d = 0;
            if count > 0 {
                while d + lanes <= cols {
                    // SAFETY: rows `first..first + count` have columns `d..d + lanes`, and so has `out`, transposed.
                    let done = unsafe {
                        let (from, to) = (x.as_ptr().add(first * stride + d), out.as_mut_ptr().add(d * panel + j));
                        square(lanes, from, stride, count, scale, to, panel)
                    };
                    if !done {
                        break;
                    }
                    d += lanes;
                }
            }
            for d in d..cols {
                let column = &mut out[d * panel + j..][..lanes];
                for (i, y) in column[..count].iter_mut().enumerate() {
                    *y = x[(first + i) * stride + d] * scale;
                }
                column[count..].fill(0.0);
            }
        }
    }
}

/// A square of so many lanes, of whose rows `count` are there, the others 0; `false` if nothing was done.
///
/// # Safety
/// `from` must have `count` rows of so many numbers, `stride` apart, and `to` as many rows as there are lanes, `panel` apart. Of
/// `lanes`, the CPU must have vectors.
#[inline(always)]
unsafe fn square(
    lanes: usize,
    from: *const f32,
    stride: usize,
    count: usize,
    scale: f32,
    to: *mut f32,
    panel: usize,
) -> bool {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: vectors of 16 numbers are those of AVX-512, of 8 those of AVX2; the rest as the caller promises.
    unsafe {
        match lanes {
            16 => x86::square_16(from, stride, count, scale, to, panel),
            8 => x86::square_8(from, stride, count, scale, to, panel),
            _ => return false,
        }
        true
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (lanes, from, stride, count, scale, to, panel);
        false
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    /// # Safety
    /// As [`super::square`].
    #[target_feature(enable = "avx512f")]
    pub unsafe fn square_16(from: *const f32, stride: usize, count: usize, scale: f32, to: *mut f32, panel: usize) {
        let scale = _mm512_set1_ps(scale);
        let mut rows = [_mm512_setzero_ps(); 16];
        for (i, row) in rows.iter_mut().enumerate() {
            if i < count {
                // SAFETY: the row is there.
                *row = _mm512_mul_ps(unsafe { _mm512_loadu_ps(from.add(i * stride)) }, scale);
            }
        }
        // Fours of rows: vector c of four has columns c, 4 + c, 8 + c and 12 + c, each in a quarter.
        let mut quads = [_mm512_setzero_ps(); 16];
        for (quads, rows) in quads.chunks_exact_mut(4).zip(rows.chunks_exact(4)) {
            let pair = |a, b| [_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)];
            let halves = [pair(rows[0], rows[1]), pair(rows[2], rows[3])];
            for (c, quad) in quads.iter_mut().enumerate() {
                let (a, b) = (_mm512_castps_pd(halves[0][c / 2]), _mm512_castps_pd(halves[1][c / 2]));
                let both = if c % 2 == 0 { _mm512_unpacklo_pd(a, b) } else { _mm512_unpackhi_pd(a, b) };
                *quad = _mm512_castpd_ps(both);
            }
        }
        for c in 0..4 {
            let quad = |i: usize| quads[4 * i + c];
            let low = [
                _mm512_shuffle_f32x4::<0x44>(quad(0), quad(1)), // quarters 0 and 1 of both
                _mm512_shuffle_f32x4::<0x44>(quad(2), quad(3)),
            ];
            let high = [
                _mm512_shuffle_f32x4::<0xee>(quad(0), quad(1)), // quarters 2 and 3
                _mm512_shuffle_f32x4::<0xee>(quad(2), quad(3)),
            ];
            let columns = [
                _mm512_shuffle_f32x4::<0x88>(low[0], low[1]), // the first quarter of each
                _mm512_shuffle_f32x4::<0xdd>(low[0], low[1]),
                _mm512_shuffle_f32x4::<0x88>(high[0], high[1]),
                _mm512_shuffle_f32x4::<0xdd>(high[0], high[1]),
            ];
            for (i, column) in columns.into_iter().enumerate() {
                // SAFETY: `to` has 16 rows.
                unsafe { _mm512_storeu_ps(to.add((4 * i + c) * panel), column) };
            }
        }
    }

    /// # Safety
    /// As [`super::square`].
    #[target_feature(enable = "avx2")]
    pub unsafe fn square_8(from: *const f32, stride: usize, count: usize, scale: f32, to: *mut f32, panel: usize) {
        let scale = _mm256_set1_ps(scale);
        let mut rows = [_mm256_setzero_ps(); 8];
        for (i, row) in rows.iter_mut().enumerate() {
            if i < count {
                // SAFETY: the row is there.
                *row = _mm256_mul_ps(unsafe { _mm256_loadu_ps(from.add(i * stride)) }, scale);
            }
        }
        // Fours of rows: vector c of four has columns c and 4 + c, each in a half.
        let mut quads = [_mm256_setzero_ps(); 8];
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
                // SAFETY: `to` has 8 rows.
                unsafe { _mm256_storeu_ps(to.add((4 * i + c) * panel), column) };
            }
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
