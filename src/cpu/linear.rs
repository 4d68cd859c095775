//! `activation(x * weight^T + bias) + residual` in f32, of weights in f32 or [16 bits](super::storage): the bias is where the sums
//! begin, the residual is added while they are still in registers, and an activation follows while its strip of the output is in
//! the first cache.

use super::activation;
use super::gemm::{Aligned, Floats, Operands, Product, RUN, Shared, Unit, VECTORS, block_rows, most_rows, strip};
use super::instruction_set::{dispatch, lanes};
use super::kernel::Kernel;
#[cfg(target_arch = "x86_64")]
use super::kernel::Products;
use super::storage::{Storage, Stored};
use super::strip::{Mask, Strip, load, masks, store};
use super::team::Team;
#[cfg(target_arch = "x86_64")]
use super::{linear_split, split};
use crate::program::Activation;
use half::{bf16, f16};
use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};
use std::mem::MaybeUninit;
use std::ops::Range;

/// A linear op's weight.
pub struct Weight {
    panels: Panels,
    inner: usize,
    cols: usize,
    /// Columns of a panel.
    panel: usize,
}

/// `[panels, inner, panel]`, the last panel filled with 0.
enum Panels {
    F32(Aligned<f32>),
    F16(Aligned<f16>),
    Bf16(Aligned<bf16>),
    /// Rounded to bf16, as are the rows that they are multiplied with: `[panels, steps, VECTORS]`.
    #[cfg(target_arch = "x86_64")]
    Matrices(Aligned<bf16>),
}

impl Weight {
    /// Packs `[cols, inner]`.
    pub fn pack(values: &[f32], cols: usize, inner: usize, storage: Storage) -> Weight {
        let panels = match storage {
            Storage::F32 => Panels::F32(panels(values, cols, inner)),
            Storage::F16 => Panels::F16(panels(values, cols, inner)),
            Storage::Bf16 => Panels::Bf16(panels(values, cols, inner)),
        };
        Weight { panels, inner, cols, panel: VECTORS * lanes() }
    }

    /// Packs the same for products in bf16, by AMX alone.
    #[cfg(target_arch = "x86_64")]
    pub fn pack_matrices(values: &[f32], cols: usize, inner: usize) -> Weight {
        let panels = Panels::Matrices(linear_split::pack(values, cols, inner));
        Weight { panels, inner, cols, panel: split::tile::PANEL }
    }
}

fn panels<N: Stored>(values: &[f32], cols: usize, inner: usize) -> Aligned<N> {
    let panel = VECTORS * lanes();
    let mut panels = Aligned::zeros(cols.div_ceil(panel) * panel * inner);
    let mut stored = vec![N::default(); inner];
    for (out, values) in panels.as_mut_slice().chunks_mut(panel * inner).zip(values.chunks(panel * inner)) {
        for (column, values) in values.chunks_exact(inner).enumerate() {
            N::store(values, &mut stored);
            for (out, value) in out[column..].iter_mut().step_by(panel).zip(&stored) {
                *out = *value;
            }
        }
    }
    panels
}

/// Rows that many others are multiplied with: a search's queries. By vectors of f32 however many they are, so that equal rows have
/// equal products.
pub(crate) struct PackedRows(Weight);

impl PackedRows {
    /// Packs `[rows, cols]`, of which neither is 0.
    pub fn pack(values: &[f32], rows: usize, cols: usize) -> PackedRows {
        PackedRows(Weight::pack(values, rows, cols, Storage::F32))
    }

    /// The product of each row of `x` `[n, cols]` with each of these, on the calling thread: `[n, rows]`.
    pub fn products(&self, x: &[f32], out: &mut [f32]) {
        let (team, activation, mut none) = (&Team::ALONE, Activation::Identity, Scratch::default());
        linear(Kernel::Vectors, team, x, &self.0, None, activation, None, &mut none, out);
    }
}

/// Memory kept from call to call.
#[derive(Default)]
pub(crate) struct Scratch {
    #[cfg(target_arch = "x86_64")]
    split: Vec<split::Matrix>,
}

/// The fastest kernel for an output of so many numbers.
#[cfg_attr(not(target_arch = "x86_64"), allow(unused))]
pub fn best_kernel(numbers: usize, weight: &Weight) -> Kernel {
    #[cfg(target_arch = "x86_64")]
    let rows = numbers / weight.cols;
    #[cfg(target_arch = "x86_64")]
    match weight.panels {
        Panels::Matrices(_) => return Kernel::Matrices(Products::Bf16),
        _ if rows >= linear_split::LEAST_ROWS && weight.inner >= split::STEP => return Kernel::best(Products::F32),
        _ => {}
    }
    Kernel::Vectors
}

/// Room for a panel of [`RUN`] units in f32: its numbers are `RUN * VECTORS * 16` at most.
#[repr(align(64))]
struct Wide([MaybeUninit<f32>; RUN * VECTORS * 16]);

/// A panel in f32.
#[inline(always)]
fn widen<I: Isa, N: Stored>(isa: I, panel: &[N], wide: &mut Wide) -> *const f32 {
    let (ops, lanes) = (isa.f32(), isa.f32().len());
    let wide = &mut wide.0[..panel.len()];
    for (from, to) in panel.chunks_exact(VECTORS * lanes).zip(wide.chunks_exact_mut(VECTORS * lanes)) {
        // SAFETY: the chunks are as long as the vectors.
        unsafe {
            let vectors: [I::F32; VECTORS] = N::vectors(isa, from.as_ptr());
            ops.store_ptr(vectors[0], to.as_mut_ptr().cast());
            ops.store_ptr(vectors[1], to[lanes..].as_mut_ptr().cast());
        }
    }
    wide.as_ptr().cast()
}

/// Runs an expression in which `$panels` are the weight's numbers.
macro_rules! with_panels {
    ($panels:ident = $weight:expr => $do:expr) => {
        match &$weight.panels {
            Panels::F32(panels) => {
                let $panels = panels.as_slice();
                $do
            }
            Panels::F16(panels) => {
                let $panels = panels.as_slice();
                $do
            }
            Panels::Bf16(panels) => {
                let $panels = panels.as_slice();
                $do
            }
            #[cfg(target_arch = "x86_64")]
            Panels::Matrices(_) => unreachable!("what is packed for AMX's matrices is multiplied by them"),
        }
    };
}

/// `out = activation(x * weight^T + bias) + residual`. `x` is `[rows, in]`, `weight` packs `[out, in]`, `bias` is `[out]`,
/// `residual` and `out` are `[rows, out]`.
#[allow(clippy::too_many_arguments)]
#[cfg_attr(not(target_arch = "x86_64"), allow(unused))]
pub fn linear(
    kernel: Kernel,
    team: &Team,
    x: &[f32],
    weight: &Weight,
    bias: Option<&[f32]>,
    activation: Activation,
    residual: Option<&[f32]>,
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let Weight { inner, cols, .. } = *weight;
    let rows = out.len() / cols;
    assert!(x.len() >= rows * inner && residual.is_none_or(|residual| residual.len() == out.len()));
    assert!(bias.is_none_or(|bias| bias.len() == cols) && out.len() == rows * cols);
    match kernel {
        Kernel::Vectors => {
            let out = Shared::new(out);
            team.run(cols.div_ceil(weight.panel), &|range: Range<usize>| {
                with_panels!(panels = weight => {
                    dispatch(Linear { x, weight, panels, bias, activation, residual, out: &out, rows, range })
                });
            });
        }
        #[cfg(target_arch = "x86_64")]
        Kernel::Matrices(_) => {
            assert!(weight.panel == split::tile::PANEL, "where there is AMX, panels are AVX-512's");
            let scratch = &mut scratch.split;
            if let Panels::Matrices(matrices) = &weight.panels {
                let panels = linear_split::Panels::<bf16>::Matrices(matrices.as_slice());
                linear_split::Linear { x, panels, inner, cols, bias, activation, residual }.run(team, scratch, out);
            } else {
                with_panels!(panels = weight => {
                    let panels = linear_split::Panels::Numbers(panels);
                    linear_split::Linear { x, panels, inner, cols, bias, activation, residual }.run(team, scratch, out)
                });
            }
        }
    }
}

/// Some panels' columns.
struct Linear<'a, N> {
    x: &'a [f32],
    weight: &'a Weight,
    /// The weight's.
    panels: &'a [N],
    bias: Option<&'a [f32]>,
    activation: Activation,
    residual: Option<&'a [f32]>,
    out: &'a Shared<'a>,
    rows: usize,
    range: Range<usize>,
}

impl<N: Stored> SimdOp for Linear<'_, N> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Linear { x, weight, panels, bias, activation, residual, out, rows, range } = self;
        let (ops, inner, cols) = (isa.f32(), weight.inner, weight.cols);
        let early = residual.filter(|_| activation == Activation::Identity);
        let block = block_rows(inner);
        let mut wide = Wide([MaybeUninit::uninit(); RUN * VECTORS * 16]);
        for first in (0..rows).step_by(block) {
            let rows = block.min(rows - first);
            for panel in range.clone() {
                let col = panel * weight.panel;
                let width = weight.panel.min(cols - col);
                let masks = masks(isa, width);
                let whole = width == weight.panel;
                let start = match bias {
                    // SAFETY: a bias is `cols` long, of which `width` remain.
                    Some(bias) => unsafe { load(isa, bias[col..].as_ptr(), whole, masks) },
                    None => [ops.zero(); VECTORS],
                };
                let strided = first * cols + col;
                for from in (0..inner).step_by(RUN) {
                    let (units, is_first, is_last) = (RUN.min(inner - from), from == 0, from + RUN >= inner);
                    let panel = &panels[(panel * inner + from) * weight.panel..][..units * weight.panel];
                    let run = Run {
                        x: x[first * inner + from..].as_ptr().cast(),
                        inner,
                        units,
                        rows,
                        start: if is_first { start } else { [ops.zero(); VECTORS] },
                        is_first,
                        residual: early.filter(|_| is_last),
                        out,
                        first: strided,
                        cols,
                        whole,
                        masks,
                    };
                    // SAFETY: the rows are `rows` from `first` and the columns `width` from `col`, and `linear` has checked the
                    // lengths. No other thread has these columns, and the first run has written them.
                    // A panel that only one tile meets is widened vector by vector; else before: for many rows it would cost 6 % of
                    // their time on Zen 4.
                    unsafe {
                        if rows > most_rows(ops.len()) && N::IS_NARROW {
                            let panel = widen(isa, panel, &mut wide);
                            run.sum(isa, Floats::<_, f32>::new(isa), panel);
                        } else {
                            run.sum(isa, Floats::<_, N>::new(isa), panel.as_ptr());
                        }
                    }
                }
                if activation != Activation::Identity {
                    let strip = Strip { out, residual, first: strided, rows, width, stride: cols };
                    activation::with(activation, strip);
                }
            }
        }
    }
}

/// Some units of the inner dimension, in some rows and one panel.
struct Run<'a, I: Isa> {
    x: *const Unit,
    /// From row to row of `x`.
    inner: usize,
    units: usize,
    rows: usize,
    /// What the sums begin with.
    start: [I::F32; VECTORS],
    /// No run before has left its sums in `out`.
    is_first: bool,
    residual: Option<&'a [f32]>,
    out: &'a Shared<'a>,
    /// Where the first row begins, in `out` and `residual`.
    first: usize,
    cols: usize,
    whole: bool,
    masks: [Mask<I>; VECTORS],
}

impl<I: Isa> Run<'_, I> {
    /// Adds it up, `panel` being `[units, panel]`.
    ///
    /// # Safety
    /// `x` and `panel` must be valid for it, and nobody else may have these columns of `out`.
    #[inline(always)]
    unsafe fn sum<P: Product<Sum = I::F32>>(self, isa: I, p: P, panel: *const P::Column) {
        let Run { x, inner, units, rows, start, is_first, residual, out, first, cols, whole, masks } = self;
        let ops = isa.f32();
        // SAFETY: as the caller promises.
        unsafe {
            strip(
                p,
                Operands { rows: x, stride: inner, count: rows, panel, depth: units },
                #[inline(always)]
                |_| start,
                #[inline(always)]
                |row, mut sums: [I::F32; VECTORS]| {
                    let at = first + row * cols;
                    let to = out.pointer(at);
                    if !is_first {
                        let before = load(isa, to, whole, masks);
                        sums = [ops.add(before[0], sums[0]), ops.add(before[1], sums[1])];
                    }
                    if let Some(residual) = residual {
                        let residual = load(isa, residual.as_ptr().add(at), whole, masks);
                        sums = [ops.add(sums[0], residual[0]), ops.add(sums[1], residual[1])];
                    }
                    store(isa, sums, to, whole, masks);
                },
            );
        }
    }
}

#[cfg(test)]
mod tests;
