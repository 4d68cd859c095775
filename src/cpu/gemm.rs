//! The matrix product behind linear ops: packed weights, and an inner loop whose sums stay in registers until they are
//! finished. What a number is, f32 or bytes, is a [`Product`]: both take 32 bits of the inner dimension at a time.

use super::storage::Stored;
use rten_simd::Isa;
use rten_simd::ops::{BitOps, NumOps};
use std::marker::PhantomData;
use std::ops::Range;

/// Vectors side by side in a tile, and so in a panel of the weights.
pub const VECTORS: usize = 2;

/// f32s of the inner dimension that are summed before the sum joins what is there: rounding grows with the length of a sum.
pub const RUN: usize = 512;

/// Bytes of a cache line, and of the widest vector.
const LINE: usize = 64;

/// Bytes of the left side that a block of rows holds: they stay in the second cache while all panels pass by.
const BLOCK_BYTES: usize = 256 << 10;

/// A panel is asked for so many multiply-adds of vectors ahead, at most [`MOST_AHEAD`] of its rows: it comes from the second cache
/// or from beyond. On Zen 4 the inner loop alone, for the eight rows of a short text that pass by all weights, becomes 20 % faster
/// than with 12 rows ahead (the text's latency 5 %); for many rows, 12 were worth 5 % on Sapphire Rapids.
const AHEAD: usize = 768;

/// At most 8 KB, of the first cache's 32 or more.
const MOST_AHEAD: usize = 64;

/// Bytes of a page of memory. Processors see by themselves that a panel is read in order, but look no further than its page.
const PAGE: usize = 4096;

/// So the first lines of a page are asked for, into the second cache, so many pages ahead: if weights come from memory, a short
/// text takes 8 to 10 % less on Sapphire Rapids, and as long as before if they come from its third cache.
const PAGES_AHEAD: usize = 4;

/// Lines of it, enough for the processor to see the order.
#[cfg(target_arch = "x86_64")]
const PAGE_LINES: usize = 8;

/// A unit of the inner dimension: one f32, or four bytes of an integer product.
pub type Unit = u32;

/// Arithmetic of an inner loop, in steps of the inner dimension: of one unit, or more. A row may be a pair of them.
pub trait Product: Copy {
    /// A row's sums of a vector of columns.
    type Sum: Copy;
    /// What a vector of columns has for a step.
    type Units: Copy;
    /// What a row has for a step, of use for every column.
    type Row: Copy;
    /// What a panel has for each step of a column.
    type Column: Copy;

    /// Units of a row in a step.
    const STEP: usize = 1;

    /// Columns of a vector.
    fn lanes(self) -> usize;

    /// `V` vectors of a panel.
    ///
    /// # Safety
    /// `at` must be valid for as many columns.
    unsafe fn columns<const V: usize>(self, at: *const Self::Column) -> [Self::Units; V];

    /// Asks for a cache line; any address will do.
    fn prefetch(self, at: *const Self::Column);

    /// What a row has for step `at`.
    ///
    /// # Safety
    /// `units` must have it.
    unsafe fn row(self, units: *const Unit, at: usize) -> Self::Row;

    /// `sum + a * b`
    fn add(self, a: Self::Row, b: Self::Units, sum: Self::Sum) -> Self::Sum;

    /// Rows of a tile of two vectors: all that its loop has must stay in registers.
    #[inline(always)]
    fn most_rows(self) -> usize {
        most_rows(self.lanes())
    }
}

/// f32 by f32, or by what is stored in its place.
#[derive(Clone, Copy)]
pub struct Floats<I, N>(I, PhantomData<N>);

impl<I: Isa, N: Stored> Floats<I, N> {
    /// With these instructions.
    #[inline(always)]
    pub fn new(isa: I) -> Floats<I, N> {
        Floats(isa, PhantomData)
    }
}

impl<I: Isa, N: Stored> Product for Floats<I, N> {
    type Sum = I::F32;
    type Units = I::F32;
    type Row = I::F32;
    type Column = N;

    #[inline(always)]
    fn lanes(self) -> usize {
        self.0.f32().len()
    }

    #[inline(always)]
    unsafe fn columns<const V: usize>(self, at: *const N) -> [I::F32; V] {
        // SAFETY: as the caller promises.
        unsafe { N::vectors(self.0, at) }
    }

    #[inline(always)]
    fn prefetch(self, at: *const N) {
        self.0.f32().prefetch(at.cast());
    }

    #[inline(always)]
    unsafe fn row(self, units: *const Unit, at: usize) -> I::F32 {
        // SAFETY: as the caller promises.
        self.0.f32().splat(unsafe { number(units.cast(), at) })
    }

    #[inline(always)]
    fn add(self, a: I::F32, b: I::F32, sum: I::F32) -> I::F32 {
        self.0.f32().mul_add(a, b, sum)
    }
}

/// `numbers[at]`, to be multiplied with a vector. The multiply-add of NEON takes it from a scalar; the compiler would rather load
/// it into all lanes (`ld1r`), which takes the multipliers' ports: by llvm-mca, a tile of 12 rows and a step of the inner
/// dimension then take 18 cycles on Neoverse N1 instead of 12, and 9 on V1 instead of 6.
///
/// # Safety
/// `numbers` must have it.
#[inline(always)]
pub(super) unsafe fn number(numbers: *const f32, at: usize) -> f32 {
    // SAFETY: as the caller promises.
    unsafe {
        #[cfg(target_arch = "aarch64")]
        {
            let number;
            std::arch::asm!("ldr {:s}, [{}, {}, lsl #2]", out(vreg) number, in(reg) numbers, in(reg) at as u64,
                options(pure, readonly, nostack, preserves_flags));
            number
        }
        #[cfg(not(target_arch = "aarch64"))]
        *numbers.add(at)
    }
}

/// Numbers that begin at a cache line.
pub struct Aligned<T> {
    data: Vec<T>,
    first: usize,
    len: usize,
}

impl<T: Copy + Default> Aligned<T> {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Aligned<T> {
        let data = vec![T::default(); len + LINE / size_of::<T>()];
        let first = data.as_ptr().align_offset(LINE).min(LINE / size_of::<T>());
        Aligned { data, first, len }
    }

    /// All of them.
    pub fn as_slice(&self) -> &[T] {
        &self.data[self.first..self.first + self.len]
    }

    /// All of them.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.data[self.first..self.first + self.len]
    }
}

/// Rows of a block whose rows are `depth` units.
pub fn block_rows(depth: usize) -> usize {
    (BLOCK_BYTES / (4 * depth.max(1))).next_multiple_of(12).clamp(12, 384)
}

/// Rows of a tile: 12 x 2 sums, two vectors of weights and a broadcast fit into the 32 registers of AVX-512 and NEON; 6 x 2 into
/// 16.
#[inline(always)]
pub fn most_rows(lanes: usize) -> usize {
    if lanes == 16 || cfg!(target_arch = "aarch64") { 12 } else { 6 }
}

/// Runs an expression in which `$ROWS` is the constant that equals `$count`.
macro_rules! with_rows {
    ($ROWS:ident = $count:expr, $do:expr) => {
        with_rows!($ROWS = $count, $do, 1 2 3 4 5 6 7 8 9 10 11 12)
    };
    ($ROWS:ident = $count:expr, $do:expr, $($rows:literal)*) => {
        match $count {
            $($rows => {
                const $ROWS: usize = $rows;
                $do
            })*
            _ => unreachable!("a tile has at most 12 rows"),
        }
    };
}
pub(super) use with_rows;

/// Some rows, and a panel of the weights.
pub struct Operands<C> {
    /// Row `r` is at `rows + r * stride`.
    pub rows: *const Unit,
    pub stride: usize,
    pub count: usize,
    /// `[depth, columns]`
    pub panel: *const C,
    /// In steps.
    pub depth: usize,
}

impl<C> Clone for Operands<C> {
    #[inline(always)]
    fn clone(&self) -> Operands<C> {
        *self
    }
}

impl<C> Copy for Operands<C> {}

/// The product of rows and one panel of `V` vectors: `start(row)` gives the sums to begin with, `finish(row, sums)` takes them.
///
/// # Safety
/// The operands must be there, and as many columns as `V` vectors have.
#[inline(always)]
pub unsafe fn strip<P: Product, const V: usize>(
    p: P,
    operands: Operands<P::Column>,
    start: impl Fn(usize) -> [P::Sum; V],
    mut finish: impl FnMut(usize, [P::Sum; V]),
) {
    for row in (0..operands.count).step_by(p.most_rows()) {
        with_rows!(ROWS = p.most_rows().min(operands.count - row), {
            // SAFETY: as the caller promises; the tile's rows are `ROWS` from `row`.
            let sums = unsafe {
                let rows = operands.rows.add(row * operands.stride);
                tile::<P, V, ROWS>(p, Operands { rows, ..operands }, |r| start(row + r))
            };
            for (r, sums) in sums.into_iter().enumerate() {
                finish(row + r, sums);
            }
        });
    }
}

/// As [`strip`], where each `group` steps of the inner dimension have scales: `start(group)` gives what their sums begin with, and
/// the scales of the columns; `join(row, group, scales, total, sums)` adds them to what the groups before came to, or to `total`.
///
/// # Safety
/// As [`strip`].
#[inline(always)]
pub unsafe fn strip_in_groups<P: Product, T: Copy, S: Copy, const V: usize>(
    p: P,
    operands: Operands<P::Column>,
    group: usize,
    total: [T; V],
    start: impl Fn(usize) -> ([P::Sum; V], [S; V]),
    join: impl Fn(usize, usize, [S; V], [T; V], [P::Sum; V]) -> [T; V],
    mut finish: impl FnMut(usize, [T; V]),
) {
    for row in (0..operands.count).step_by(p.most_rows()) {
        with_rows!(ROWS = p.most_rows().min(operands.count - row), {
            let mut totals = [total; ROWS];
            for (g, from) in (0..operands.depth).step_by(group).enumerate() {
                let (start, scales) = start(g);
                // SAFETY: as the caller promises; the tile's rows are `ROWS` from `row`, its steps at most `group` from `from`.
                let sums = unsafe {
                    let rows = operands.rows.add(row * operands.stride + from * P::STEP);
                    let panel = operands.panel.add(from * V * p.lanes());
                    let depth = group.min(operands.depth - from);
                    tile::<P, V, ROWS>(
                        p,
                        Operands { rows, panel, depth, ..operands },
                        #[inline(always)]
                        |_| start,
                    )
                };
                for r in 0..ROWS {
                    totals[r] = join(row + r, g, scales, totals[r], sums[r]);
                }
            }
            for (r, total) in totals.into_iter().enumerate() {
                finish(row + r, total);
            }
        });
    }
}

/// Of the first `ROWS` rows.
///
/// # Safety
/// As [`strip`].
#[inline(always)]
unsafe fn tile<P: Product, const V: usize, const ROWS: usize>(
    p: P,
    operands: Operands<P::Column>,
    start: impl Fn(usize) -> [P::Sum; V],
) -> [[P::Sum; V]; ROWS] {
    let lanes = p.lanes();
    let ahead = (AHEAD / (ROWS * V)).min(MOST_AHEAD);
    // `array::from_fn` becomes a call where a build optimises less.
    let mut sums = [start(0); ROWS];
    for (r, sums) in sums.iter_mut().enumerate().skip(1) {
        *sums = start(r);
    }
    // The panel is read once.
    let is_alone = operands.count <= p.most_rows();
    let page = PAGE / (V * lanes * size_of::<P::Column>());
    for from in (0..operands.depth).step_by(page) {
        if is_alone {
            prefetch_page(operands.panel.wrapping_add(from * V * lanes).wrapping_byte_add(PAGES_AHEAD * PAGE));
        }
        for k in from..operands.depth.min(from + page) {
            // SAFETY: as the caller promises.
            unsafe {
                let b = operands.panel.add(k * V * lanes);
                for line in (0..V * lanes).step_by(LINE / size_of::<P::Column>()) {
                    // Past the end this is the next group or panel, or an address that is not read.
                    p.prefetch(b.wrapping_add(ahead * V * lanes + line));
                }
                let columns: [P::Units; V] = p.columns(b);
                for (r, sums) in sums.iter_mut().enumerate() {
                    let a = p.row(operands.rows.add(r * operands.stride), k);
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        *sum = p.add(a, column, *sum);
                    }
                }
            }
        }
    }
    sums
}

/// Asks for the beginning of the first page that begins at `at` or behind it; any address will do.
#[inline(always)]
#[cfg_attr(not(target_arch = "x86_64"), allow(unused))]
fn prefetch_page<T>(at: *const T) {
    let at = at.wrapping_byte_add((at as usize).wrapping_neg() % PAGE);
    #[cfg(target_arch = "x86_64")]
    for line in 0..PAGE_LINES {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: every x86-64 has it, and no address is wrong.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.wrapping_byte_add(line * LINE).cast()) };
    }
}

/// An output that several threads write, each its own columns.
pub struct Shared<'a, T = f32> {
    data: *mut T,
    len: usize,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: the methods that hand out parts are unsafe, and ask for parts that no other thread has.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// All of `out`, to be shared.
    pub fn new(out: &'a mut [T]) -> Shared<'a, T> {
        Shared { data: out.as_mut_ptr(), len: out.len(), life: PhantomData }
    }

    /// How many numbers it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Where number `at` is.
    #[inline(always)]
    pub fn pointer(&self, at: usize) -> *mut T {
        debug_assert!(at <= self.len);
        self.data.wrapping_add(at)
    }

    /// Some numbers.
    ///
    /// # Safety
    /// Nobody else may have any of them at the same time.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: they lie within the slice that was given, and the caller promises that nobody else has them.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(range.start), range.len()) }
    }
}
