//! Linear ops in int8. Weights are i8 with a scale for each output channel, made once; activations become u8 with a scale and
//! a zero point for each row, on the fly. Products are summed exactly in i32; everything else is f32.
//!
//! With VNNI (x86) the inner loop is [`gemm`](super::gemm)'s. Elsewhere rten-gemm computes the sums (NEON, AVX2).

use super::activation;
use super::gemm::{Aligned, Shared, VECTORS, block_rows, tile, tile_rows};
use super::linear::{Mask, Strip, load, store};
use super::quantize::{BYTES, Rows};
use super::team::Team;
use super::vnni::Dot;
#[cfg(target_arch = "x86_64")]
use super::vnni::{Vnni256, Vnni512};
use crate::program::Activation;
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_simd::Isa;
use rten_simd::ops::{BitOps, NumOps, ToFloat};
use rten_tensor::NdTensorView;
use std::ops::Range;

/// Panels that a thread takes at a time.
const TASK_PANELS: usize = 2;

/// Rows that rten-gemm multiplies before they are finished.
const GEMM_ROWS: usize = 48;

type Gemm = GemmExecutor<u8, i8, i32>;

/// What computes the sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// AVX-512 with VNNI.
    #[cfg(target_arch = "x86_64")]
    Vnni512,
    /// AVX2 with AVX-VNNI.
    #[cfg(target_arch = "x86_64")]
    Vnni256,
    /// rten-gemm's choice.
    Gemm,
}

impl Kernel {
    /// The fastest that this CPU has.
    pub fn best() -> Kernel {
        #[cfg(target_arch = "x86_64")]
        {
            if Vnni512::new().is_some() {
                return Kernel::Vnni512;
            }
            if Vnni256::new().is_some() {
                return Kernel::Vnni256;
            }
        }
        Kernel::Gemm
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernel::Vnni512 | Kernel::Vnni256 => "VNNI",
            Kernel::Gemm => match Gemm::new().kernel_name() {
                name if name.contains("i8mm") => "I8MM",
                name if name.contains("dot") => "dot product",
                _ => "no VNNI",
            },
        }
    }

    /// Columns of a panel.
    fn panel(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernel::Vnni512 => 16 * VECTORS,
            #[cfg(target_arch = "x86_64")]
            Kernel::Vnni256 => 8 * VECTORS,
            Kernel::Gemm => 1,
        }
    }

    /// The largest weight. AVX2 adds pairs of products in 16 bits: 2 * 255 * 64 just fits.
    fn limit(self) -> f32 {
        match self {
            Kernel::Gemm if Gemm::new().may_saturate() => 64.0,
            _ => 127.0,
        }
    }
}

/// A linear op's weight.
pub struct Weight {
    kernel: Kernel,
    packed: Packed,
    /// `[cols]`, 0 up to the last panel's end
    scales: Vec<f32>,
    /// `[cols]`: of each channel's weights; 0 up to the last panel's end
    sums: Vec<i32>,
    inner: usize,
    cols: usize,
}

enum Packed {
    /// `[panels, units, panel, BYTES]`
    Panels(Aligned<i8>),
    Gemm(PackedBMatrix<i8>),
}

impl Weight {
    /// Quantises and packs `[cols, inner]`.
    pub fn pack(values: &[f32], cols: usize, inner: usize, kernel: Kernel) -> Weight {
        let (panel, limit) = (kernel.panel(), kernel.limit());
        let padded = cols.next_multiple_of(panel);
        let (mut scales, mut sums) = (vec![0.0; padded], vec![0; padded]);
        let mut quantized = vec![0i8; cols * inner];
        for (c, (values, to)) in values.chunks_exact(inner).zip(quantized.chunks_exact_mut(inner)).enumerate() {
            let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
            // A weight that is no number must show in the result.
            let is_finite = values.iter().all(|value| value.is_finite());
            scales[c] = if is_finite { largest / limit } else { f32::NAN };
            let inverse = if largest > 0.0 { limit / largest } else { 0.0 };
            for (to, value) in to.iter_mut().zip(values) {
                *to = (value * inverse).round_ties_even() as i8;
                sums[c] += i32::from(*to);
            }
        }
        let packed = match kernel {
            Kernel::Gemm => {
                let transposed = NdTensorView::from_data([cols, inner], &quantized[..]).transposed();
                Packed::Gemm(Gemm::new().prepack_b(transposed))
            }
            #[cfg(target_arch = "x86_64")]
            _ => {
                let units = inner.div_ceil(BYTES);
                let mut panels = Aligned::zeros(padded * units * BYTES);
                for (c, values) in quantized.chunks_exact(inner).enumerate() {
                    let first = c / panel * panel * units * BYTES + c % panel * BYTES;
                    for (unit, values) in values.chunks(BYTES).enumerate() {
                        let at = first + unit * panel * BYTES;
                        panels.as_mut_slice()[at..at + values.len()].copy_from_slice(values);
                    }
                }
                Packed::Panels(panels)
            }
        };
        Weight { kernel, packed, scales, sums, inner, cols }
    }
}

/// Memory kept from call to call.
#[derive(Default)]
pub struct Scratch {
    rows: Rows,
    /// `[GEMM_ROWS, cols]`
    sums: Vec<i32>,
}

/// As [`linear`](super::linear::linear), in int8.
#[allow(clippy::too_many_arguments)]
pub fn linear_int8(
    team: &Team<'_>,
    x: &[f32],
    weight: &Weight,
    bias: Option<&[f32]>,
    activation: Activation,
    residual: Option<&[f32]>,
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let rows = out.len() / weight.cols;
    assert!(x.len() >= rows * weight.inner && residual.is_none_or(|residual| residual.len() == out.len()));
    assert!(bias.is_none_or(|bias| bias.len() == weight.cols) && out.len() == rows * weight.cols);
    scratch.rows.quantize(&x[..rows * weight.inner], rows, weight.inner);
    match &weight.packed {
        Packed::Gemm(packed) => by_gemm(weight, packed, bias, activation, residual, scratch, out),
        #[cfg(target_arch = "x86_64")]
        Packed::Panels(panels) => {
            let out = Shared::new(out);
            let rows = &scratch.rows;
            team.run(weight.scales.len() / weight.kernel.panel(), TASK_PANELS, &|range| {
                Linear { rows, weight, panels: panels.as_slice(), range, bias, activation, residual, out: &out }.run();
            });
        }
        #[cfg(not(target_arch = "x86_64"))]
        Packed::Panels(_) => unreachable!("no kernel here reads panels"),
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = team;
}

/// Some panels of a product.
struct Linear<'a> {
    rows: &'a Rows,
    weight: &'a Weight,
    panels: &'a [i8],
    range: Range<usize>,
    bias: Option<&'a [f32]>,
    activation: Activation,
    residual: Option<&'a [f32]>,
    out: &'a Shared<'a>,
}

impl Linear<'_> {
    #[cfg(target_arch = "x86_64")]
    fn run(self) {
        #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,f16c,avx512vnni")]
        fn run_512(linear: Linear<'_>, dot: Vnni512) {
            linear.eval(dot);
        }
        #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
        fn run_256(linear: Linear<'_>, dot: Vnni256) {
            linear.eval(dot);
        }
        // SAFETY: a dot product exists only if the CPU has these features.
        match self.weight.kernel {
            Kernel::Vnni512 => unsafe { run_512(self, Vnni512::new().expect("the weight was packed for it")) },
            Kernel::Vnni256 => unsafe { run_256(self, Vnni256::new().expect("the weight was packed for it")) },
            Kernel::Gemm => unreachable!("it has no panels"),
        }
    }

    #[inline(always)]
    fn eval<D: Dot>(self, dot: D) {
        let Linear { rows, weight, panels, range, bias, activation, residual, out } = self;
        let isa = dot.isa();
        let (ops, integers, cols) = (isa.f32(), isa.i32(), weight.cols);
        let (lanes, panel) = (ops.len(), VECTORS * ops.len());
        let units = weight.inner.div_ceil(BYTES);
        let early = residual.filter(|_| activation == Activation::Identity);
        let (block, all) = (block_rows(units), rows.scales.len());
        for first in (0..all).step_by(block) {
            let count = block.min(all - first);
            for p in range.clone() {
                let col = p * panel;
                let width = panel.min(cols - col);
                let masks: [Mask<D::Isa>; VECTORS] =
                    [width.min(lanes), width.saturating_sub(lanes)].map(|used| ops.first_n_mask(used));
                let whole = width == panel;
                let sums = integers.load_many::<VECTORS>(&weight.sums[col..col + panel]);
                let scales = ops.load_many::<VECTORS>(&weight.scales[col..col + panel]);
                let bias = match bias {
                    // SAFETY: a bias is `cols` long, of which `width` remain.
                    Some(bias) => unsafe { load(isa, bias[col..].as_ptr(), whole, masks) },
                    None => [ops.zero(); VECTORS],
                };
                for row in (first..first + count).step_by(tile_rows(dot)) {
                    let count = tile_rows(dot).min(first + count - row);
                    let strip = Strip { out, residual, first: row * cols + col, rows: count, width, stride: cols };
                    strip.prefetch(isa);
                    // SAFETY: the rows are `count` from `row` and the columns `width` from `col`, and `linear_int8` has
                    // checked the lengths. No other thread has these columns.
                    unsafe {
                        tile(
                            dot,
                            rows.units[row * units..].as_ptr(),
                            units,
                            count,
                            panels[p * panel * units * BYTES..].as_ptr().cast(),
                            units,
                            #[inline(always)]
                            |r| {
                                let zero = integers.splat(-i32::from(rows.zeros[row + r]));
                                [integers.mul(zero, sums[0]), integers.mul(zero, sums[1])]
                            },
                            #[inline(always)]
                            |r, sums| {
                                let at = strip.first + r * cols;
                                let scale = ops.splat(rows.scales[row + r]);
                                let [a, b] = sums.map(
                                    #[inline(always)]
                                    |sum| ops.mul(integers.to_float(sum), scale),
                                );
                                let mut values =
                                    [ops.mul_add(a, scales[0], bias[0]), ops.mul_add(b, scales[1], bias[1])];
                                if let Some(residual) = early {
                                    let residual = load(isa, residual.as_ptr().add(at), whole, masks);
                                    values = [ops.add(values[0], residual[0]), ops.add(values[1], residual[1])];
                                }
                                store(isa, values, out.pointer(at), whole, masks);
                            },
                        );
                    }
                    if activation != Activation::Identity {
                        activation::with(activation, strip);
                    }
                }
            }
        }
    }
}

/// The same on rten-gemm's sums.
fn by_gemm(
    weight: &Weight,
    packed: &PackedBMatrix<i8>,
    bias: Option<&[f32]>,
    activation: Activation,
    residual: Option<&[f32]>,
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let (gemm, cols, units) = (Gemm::new(), weight.cols, weight.inner.div_ceil(BYTES));
    let Scratch { rows: Rows { units: bytes, scales, zeros }, sums } = scratch;
    // SAFETY: a unit is four bytes.
    let bytes: &[u8] = unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() * BYTES) };
    sums.resize(GEMM_ROWS * cols, 0);
    for (i, out) in out.chunks_mut(GEMM_ROWS * cols).enumerate() {
        let (first, rows) = (i * GEMM_ROWS, out.len() / cols);
        let x = &bytes[first * units * BYTES..(first + rows) * units * BYTES];
        let x = NdTensorView::from_data([rows, units * BYTES], x);
        let x = x.slice((.., ..weight.inner));
        let sums = &mut sums[..rows * cols];
        // Without its zero points: rten-gemm 0.27 takes those of the first tile for every full tile of rows.
        gemm.gemm(sums, GemmInputA::Unpacked(x), GemmInputB::Packed(packed), GemmOptions::default())
            .expect("the builder checked the shapes, and the weight was packed for this kernel");
        for (r, (out, sums)) in out.chunks_exact_mut(cols).zip(sums.chunks_exact(cols)).enumerate() {
            let (scale, zero) = (scales[first + r], i32::from(zeros[first + r]));
            for (c, (out, &sum)) in out.iter_mut().zip(sums).enumerate() {
                let sum = sum - zero * weight.sums[c];
                *out = sum as f32 * scale * weight.scales[c] + bias.map_or(0.0, |bias| bias[c]);
            }
        }
        let residual = residual.map(|residual| &residual[first * cols..(first + rows) * cols]);
        if activation != Activation::Identity || residual.is_some() {
            let strip = Strip { out: &Shared::new(out), residual, first: 0, rows, width: cols, stride: cols };
            activation::with(activation, strip);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::tests::{assert_close, numbers};

    fn kernels() -> Vec<Kernel> {
        #[allow(unused_mut)]
        let mut kernels = vec![Kernel::Gemm];
        #[cfg(target_arch = "x86_64")]
        {
            kernels.extend(Vnni512::new().map(|_| Kernel::Vnni512));
            kernels.extend(Vnni256::new().map(|_| Kernel::Vnni256));
        }
        kernels
    }

    /// A scale, a zero point and integers for each row, by the plainest code; the scale as the executor rounds it.
    fn quantized(x: &[f32]) -> (f64, Vec<i64>) {
        let (low, high) = x.iter().fold((0f32, 0f32), |(low, high), &x| (low.min(x), high.max(x)));
        let scale = (high - low) / 255.0;
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        let zero = (-low * inverse).round_ties_even() as i64;
        let value = |x: &f32| ((x * inverse).round_ties_even() as i64 + zero).clamp(0, 255) - zero;
        (scale.into(), x.iter().map(value).collect())
    }

    fn quantized_weight(values: &[f32], limit: f32) -> (f64, Vec<i64>) {
        let largest = values.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        let inverse = if largest > 0.0 { limit / largest } else { 0.0 };
        ((largest / limit).into(), values.iter().map(|x| (x * inverse).round_ties_even() as i64).collect())
    }

    #[test]
    fn equals_plain_integers_at_awkward_sizes() {
        for kernel in kernels() {
            for (rows, inner, cols) in
                [(1, 1, 1), (5, 7, 17), (47, 300, 31), (48, 16, 16), (49, 64, 33), (13, 1030, 65), (400, 12, 1)]
            {
                let (mut x, weight) = (numbers(1, rows * inner), numbers(2, cols * inner));
                for (r, x) in x.chunks_mut(inner).enumerate() {
                    // Rows of one sign, of zeros, and of very different sizes.
                    match r % 4 {
                        1 => x.iter_mut().for_each(|x| *x = x.abs() * 1e-3),
                        2 => x.iter_mut().for_each(|x| *x = -x.abs() * 1e3),
                        3 => x.fill(0.0),
                        _ => {}
                    }
                }
                let (bias, residual) = (numbers(3, cols), numbers(4, rows * cols));
                let packed = Weight::pack(&weight, cols, inner, kernel);
                for (has_bias, has_residual) in [(false, false), (true, false), (false, true), (true, true)] {
                    for activation in [Activation::Identity, Activation::Relu] {
                        let (bias, residual) = (has_bias.then_some(&bias[..]), has_residual.then_some(&residual[..]));
                        let (mut out, mut scratch) = (vec![f32::NAN; rows * cols], Scratch::default());
                        linear_int8(&Team::ALONE, &x, &packed, bias, activation, residual, &mut scratch, &mut out);
                        let mut expected = Vec::new();
                        for r in 0..rows {
                            let (scale, x) = quantized(&x[r * inner..(r + 1) * inner]);
                            for c in 0..cols {
                                let (weight_scale, weight) =
                                    quantized_weight(&weight[c * inner..(c + 1) * inner], kernel.limit());
                                let sum: i64 = x.iter().zip(&weight).map(|(x, weight)| x * weight).sum();
                                let y = sum as f64 * scale * weight_scale + bias.map_or(0.0, |bias| bias[c].into());
                                let y = if activation == Activation::Relu { y.max(0.0) } else { y };
                                expected.push(y + residual.map_or(0.0, |residual| residual[r * cols + c].into()));
                            }
                        }
                        let name = format!("{kernel:?}, {rows} x {inner} x {cols}, {}", activation.name());
                        assert_close(&out, &expected, 1e-5, &name);
                    }
                }
            }
        }
    }

    #[test]
    fn the_largest_numbers_do_not_saturate() {
        let inner = 4096;
        for kernel in kernels() {
            for sign in [1.0, -1.0] {
                let weight = Weight::pack(&vec![sign; 3 * inner], 3, inner, kernel);
                let mut out = [f32::NAN; 6];
                let x = vec![2.0; 2 * inner];
                let scratch = &mut Scratch::default();
                linear_int8(&Team::ALONE, &x, &weight, None, Activation::Identity, None, scratch, &mut out);
                assert_close(&out, &[f64::from(sign) * 8192.0; 6], 1e-5, &format!("{kernel:?}"));
            }
        }
    }

    #[test]
    fn what_is_not_finite_shows() {
        for kernel in kernels() {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in [0, 63, 100] {
                    let mut x = vec![1.0; 2 * 101];
                    x[101 + at] = bad;
                    let weight = Weight::pack(&vec![0.5; 40 * 101], 40, 101, kernel);
                    let (mut out, mut scratch) = (vec![0.0; 80], Scratch::default());
                    linear_int8(&Team::ALONE, &x, &weight, None, Activation::Identity, None, &mut scratch, &mut out);
                    assert!(out[..40].iter().all(|y| y.is_finite()) && out[40..].iter().all(|y| !y.is_finite()));
                }
            }
        }
    }
}
