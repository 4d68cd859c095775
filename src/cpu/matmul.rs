//! Small matrix products on strided views, for attention: too small for a library's packing and dispatch to pay off.
//! (Linear ops have weights that are packed once: `gemm.rs`.)

use super::gemm::{Shared, most_rows, with_rows};
use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};
use std::marker::PhantomData;
use std::ops::Range;

/// A matrix whose rows begin `stride` apart, and whose columns lie `step` apart.
pub struct Strided<'a> {
    pub data: &'a [f32],
    pub stride: usize,
    pub step: usize,
}

/// A matrix whose rows begin `stride` apart, to write. What lies between them may be others' to write at the same time.
pub struct StridedMut<'a> {
    data: *mut f32,
    rows: usize,
    cols: usize,
    stride: usize,
    life: PhantomData<&'a mut [f32]>,
}

impl<'a> StridedMut<'a> {
    /// As many whole rows as there are.
    pub fn new(data: &'a mut [f32], cols: usize, stride: usize) -> StridedMut<'a> {
        assert!(0 < cols && cols <= stride);
        let rows = (data.len() + stride - cols) / stride;
        StridedMut { data: data.as_mut_ptr(), rows, cols, stride, life: PhantomData }
    }

    /// Some rows' columns of `[_, stride]`.
    ///
    /// # Safety
    /// Nobody else may have any of them at the same time.
    pub unsafe fn columns(all: &Shared<'a>, rows: Range<usize>, cols: Range<usize>, stride: usize) -> StridedMut<'a> {
        assert!(
            cols.start < cols.end && cols.end <= stride && rows.start <= rows.end && rows.end * stride <= all.len()
        );
        let data = all.pointer(rows.start * stride + cols.start);
        StridedMut { data, rows: rows.len(), cols: cols.len(), stride, life: PhantomData }
    }

    /// Without the first `rows`.
    pub fn skip(&mut self, rows: usize) -> StridedMut<'_> {
        assert!(rows <= self.rows);
        StridedMut { data: self.data.wrapping_add(rows * self.stride), rows: self.rows - rows, ..*self }
    }

    /// One of them.
    pub fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows);
        // SAFETY: it is there, and nobody else has it.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(row * self.stride), self.cols) }
    }
}

/// A matrix in panels of [`panel_width`] columns: row `r` of panel `p` begins at `p * panel_stride + r * row_stride`. A plain
/// row-major matrix is the case where `panel_stride` is the panel's width.
#[derive(Clone, Copy)]
pub struct Panels<'a> {
    pub data: &'a [f32],
    pub panel_stride: usize,
    pub row_stride: usize,
}

/// Columns of a panel: two vectors.
#[inline(always)]
pub fn panel_width<I: Isa>(isa: I) -> usize {
    2 * isa.f32().len()
}

/// `out = a b` for `a` `[rows, depth]` and `b` `[depth, cols]`. Its code is within its caller by [`Matmul::compute`], and a
/// function of its own where it is evaluated as an op.
pub struct Matmul<'a> {
    pub a: Strided<'a>,
    pub b: Panels<'a>,
    pub out: StridedMut<'a>,
    pub rows: usize,
    pub depth: usize,
    pub cols: usize,
}

impl SimdOp for Matmul<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        self.compute(
            isa,
            #[inline(always)]
            |_, sum| sum,
        );
    }
}

impl Matmul<'_> {
    /// Computes it; `finish(row, sums)` gives what is stored.
    ///
    /// # Panics
    /// If a view is too short for its shape.
    #[inline(always)]
    pub fn compute<I: Isa>(self, isa: I, finish: impl Fn(usize, I::F32) -> I::F32 + Copy) {
        let Matmul { a, b, out, rows, depth, cols } = self;
        let (lanes, panel) = (isa.f32().len(), panel_width(isa));
        assert!(rows > 0 && depth > 0 && cols > 0);
        assert!(a.data.len() > (rows - 1) * a.stride + (depth - 1) * a.step);
        assert!(rows <= out.rows && cols <= out.cols);
        let last_panel = (cols - 1) / panel;
        let last_width = cols - last_panel * panel;
        assert!(b.data.len() >= last_panel * b.panel_stride + (depth - 1) * b.row_stride + last_width);
        assert!(last_panel == 0 || b.panel_stride >= panel);

        for col in (0..cols).step_by(panel) {
            let width = panel.min(cols - col);
            let mut row = 0;
            while row < rows {
                let count = most_rows(lanes).min(rows - row);
                // SAFETY: the tile's rows `row..row + count` and columns `col..col + width` lie within the three views, whose
                // lengths are asserted above.
                unsafe {
                    let tile = Tile {
                        a: a.data.as_ptr().add(row * a.stride),
                        a_stride: a.stride,
                        a_step: a.step,
                        b: b.data.as_ptr().add(col / panel * b.panel_stride),
                        b_stride: b.row_stride,
                        out: out.data.add(row * out.stride + col),
                        out_stride: out.stride,
                        depth,
                        first: row,
                    };
                    if width == panel {
                        tile.rows::<I, 2>(isa, count, lanes, finish);
                    } else {
                        // The last columns of a head that is no multiple of the panel: a vector at a time, the last masked.
                        for done in (0..width).step_by(lanes) {
                            tile.right(done).rows::<I, 1>(isa, count, lanes.min(width - done), finish);
                        }
                    }
                }
                row += count;
            }
        }
    }
}

/// A few rows and at most one panel of columns of a product.
struct Tile {
    a: *const f32,
    a_stride: usize,
    a_step: usize,
    b: *const f32,
    b_stride: usize,
    out: *mut f32,
    out_stride: usize,
    depth: usize,
    /// The first row's number in the product.
    first: usize,
}

impl Tile {
    /// The tile so many columns further right.
    ///
    /// # Safety
    /// Those columns must exist.
    unsafe fn right(&self, columns: usize) -> Tile {
        // SAFETY: as the caller promises.
        unsafe { Tile { b: self.b.add(columns), out: self.out.add(columns), ..*self } }
    }

    /// Computes `count` rows of `VECTORS` vectors, of the last of which only the first `used` lanes are read and written.
    ///
    /// # Safety
    /// The pointers must cover `count` rows, `depth` and those columns.
    #[inline(always)]
    unsafe fn rows<I: Isa, const VECTORS: usize>(
        &self,
        isa: I,
        count: usize,
        used: usize,
        finish: impl Fn(usize, I::F32) -> I::F32,
    ) {
        with_rows!(ROWS = count, {
            // SAFETY: as the caller promises.
            unsafe { self.compute::<I, ROWS, VECTORS>(isa, used, finish) }
        })
    }

    /// # Safety
    /// As [`Tile::rows`].
    #[inline(always)]
    unsafe fn compute<I: Isa, const COUNT: usize, const VECTORS: usize>(
        &self,
        isa: I,
        used: usize,
        finish: impl Fn(usize, I::F32) -> I::F32,
    ) {
        let ops = isa.f32();
        let lanes = ops.len();
        let mask = ops.first_n_mask(used);
        let masked = used < lanes;
        let mut sums = [[ops.zero(); VECTORS]; COUNT];
        let mut columns = [ops.zero(); VECTORS];
        // SAFETY: as the caller promises; masked vectors touch only their first `used` lanes.
        unsafe {
            for k in 0..self.depth {
                let b = self.b.add(k * self.b_stride);
                if VECTORS == 1 && masked {
                    columns[0] = ops.load_ptr_mask(b, mask);
                } else {
                    for (v, column) in columns.iter_mut().enumerate() {
                        *column = ops.load_ptr(b.add(v * lanes));
                    }
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let a = ops.splat(*self.a.add(r * self.a_stride + k * self.a_step));
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        *sum = ops.mul_add(a, column, *sum);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                let out = self.out.add(r * self.out_stride);
                if VECTORS == 1 && masked {
                    ops.store_ptr_mask(finish(self.first + r, sums[0]), out, mask);
                } else {
                    for (v, sum) in sums.iter().enumerate() {
                        ops.store_ptr(finish(self.first + r, *sum), out.add(v * lanes));
                    }
                }
            }
        }
    }
}
