//! Linear ops in int8. Weights are i8 with scales for each output channel, made once; activations become bytes with scales for each
//! row, on the fly; both are [rotated](super::rotate) before, and what a weight becomes is a matter of its
//! [rounding](super::rounding). Products are summed exactly in i32; everything else is f32.
//!
//! With AVX2, and NEON with dot products or matrix products, the inner loop is our own: [`linear_dot`](super::linear_dot), and a
//! scale is for 64 or 128 numbers. Elsewhere rten-gemm computes the sums, and a scale is for all of a row or channel.

use super::activation;
use super::gemm::Shared;
use super::linear_dot::{Instructions, Panels, Product};
use super::parallel::each;
use super::quantize::{BYTES, Limits, Rows};
use super::rounding::{CHANNELS, Rounding};
use super::strip::Strip;
use super::team::Team;
use crate::program::Activation;
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_tensor::NdTensorView;

/// Rows that rten-gemm multiplies before they are finished.
const GEMM_ROWS: usize = 48;

type Gemm = GemmExecutor<u8, i8, i32>;

/// What computes the sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    Dot(Instructions),
    /// rten-gemm's choice.
    Gemm,
}

impl Kernel {
    /// The fastest that this CPU has.
    pub fn best() -> Kernel {
        if let Some(instructions) = Instructions::best() {
            return Kernel::Dot(instructions);
        }
        Kernel::Gemm
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Kernel::Dot(instructions) => instructions.name(),
            Kernel::Gemm => match Gemm::new().kernel_name() {
                name if name.contains("i8mm") => "I8MM by rten-gemm",
                name if name.contains("dot") => "dot products by rten-gemm",
                _ if Gemm::new().may_saturate() => "7 bits by rten-gemm",
                _ => "rten-gemm",
            },
        }
    }

    /// Columns that are packed side by side.
    fn panel(self) -> usize {
        match self {
            Kernel::Dot(instructions) => instructions.panel(),
            Kernel::Gemm => 1,
        }
    }

    /// What it multiplies exactly.
    pub fn limits(self) -> Limits {
        match self {
            Kernel::Dot(instructions) => instructions.limits(),
            Kernel::Gemm if Gemm::new().may_saturate() => Limits::SATURATING,
            Kernel::Gemm => Limits::BYTES,
        }
    }

    /// Two rows lie together.
    fn pairs(self) -> bool {
        matches!(self, Kernel::Dot(instructions) if instructions.pairs())
    }

    /// How many of `inner` numbers share a scale.
    fn group(self, inner: usize) -> usize {
        match self {
            Kernel::Dot(instructions) => instructions.group().min(inner),
            Kernel::Gemm => inner,
        }
    }

    /// Into how many groups.
    pub fn groups(self, inner: usize) -> usize {
        inner.div_ceil(self.group(inner))
    }
}

/// A linear op's weight.
pub struct Weight {
    packed: Packed,
    kernel: Kernel,
    channels: Channels,
}

enum Packed {
    Panels(Panels),
    Gemm(PackedBMatrix<i8>),
}

/// What is known of a weight's channels.
pub struct Channels {
    /// `[inner]`: what rows are multiplied by, and the weight has been divided by
    pub factors: Vec<f32>,
    /// `[groups, whole panels]`, 0 behind the last channel
    pub scales: Vec<f32>,
    /// `[groups, whole panels]`: what takes back that bytes of rows are larger than their numbers; 0 behind the last channel
    pub starts: Vec<i32>,
    pub inner: usize,
    /// How many numbers of the inner dimension share a scale.
    pub group: usize,
    pub cols: usize,
}

/// The integers of a weight `[cols, inner]`.
pub struct Rounded {
    /// `[inner]`: what rows are multiplied by, and the weight has been divided by
    pub factors: Vec<f32>,
    /// `[cols, inner]`: each channel's, in their [`order`](super::quantize::order)
    pub integers: Vec<i8>,
    /// `[cols, groups]`: what they are multiples of
    pub steps: Vec<f32>,
}

impl Rounded {
    /// Of `[cols, inner]`, by so many threads.
    pub fn new(values: &[f32], cols: usize, rounding: Rounding, kernel: Kernel, threads: usize) -> Rounded {
        let (limits, inner) = (kernel.limits(), rounding.factors.len());
        let (group, groups) = (kernel.group(inner), kernel.groups(inner));
        let (mut quantized, mut steps) = (vec![0i8; cols * inner], vec![0.0; cols * groups]);
        let channels = values.chunks(CHANNELS * inner).zip(quantized.chunks_mut(CHANNELS * inner));
        let mut channels: Vec<_> = channels.zip(steps.chunks_mut(CHANNELS * groups)).collect();
        each(threads, &mut channels, |((values, integers), steps)| {
            rounding.round(values, limits, group, integers, steps)
        });
        Rounded { factors: rounding.factors, integers: quantized, steps }
    }
}

impl Weight {
    /// Packs integers that are for this kernel.
    pub fn pack(rounded: &Rounded, kernel: Kernel) -> Weight {
        let Rounded { factors, integers, steps } = rounded;
        let (limits, inner) = (kernel.limits(), factors.len());
        let (group, groups, cols) = (kernel.group(inner), kernel.groups(inner), integers.len() / inner);
        let padded = cols.next_multiple_of(kernel.panel());
        let (mut scales, mut starts) = (vec![0.0; groups * padded], vec![0; groups * padded]);
        for (c, (integers, steps)) in integers.chunks_exact(inner).zip(steps.chunks_exact(groups)).enumerate() {
            for (g, (integers, step)) in integers.chunks(group).zip(steps).enumerate() {
                scales[g * padded + c] = *step;
                starts[g * padded + c] = -i32::from(limits.zero) * integers.iter().copied().map(i32::from).sum::<i32>();
            }
        }
        let packed = match kernel {
            Kernel::Dot(instructions) => Packed::Panels(Panels::pack(integers, cols, inner, instructions)),
            Kernel::Gemm => {
                let transposed = NdTensorView::from_data([cols, inner], &integers[..]).transposed();
                Packed::Gemm(Gemm::new().prepack_b(transposed))
            }
        };
        let channels = Channels { factors: factors.to_vec(), scales, starts, inner, group, cols };
        Weight { packed, kernel, channels }
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
    let Weight { packed, kernel, channels } = weight;
    let (rows, cols) = (out.len() / channels.cols, channels.cols);
    assert!(x.len() >= rows * channels.inner && residual.is_none_or(|residual| residual.len() == out.len()));
    assert!(bias.is_none_or(|bias| bias.len() == cols) && out.len() == rows * cols);
    scratch.rows.quantize(
        &x[..rows * channels.inner],
        &channels.factors,
        kernel.limits(),
        channels.group,
        kernel.pairs(),
    );
    match packed {
        Packed::Gemm(packed) => by_gemm(channels, packed, bias, activation, residual, scratch, out),
        Packed::Panels(panels) => {
            Product { rows: &scratch.rows, channels, panels, bias, activation, residual }.run(team, out);
        }
    }
}

/// On rten-gemm's sums.
fn by_gemm(
    channels: &Channels,
    packed: &PackedBMatrix<i8>,
    bias: Option<&[f32]>,
    activation: Activation,
    residual: Option<&[f32]>,
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let (gemm, cols) = (Gemm::new(), channels.cols);
    let Scratch { rows: Rows { units, scales, .. }, sums } = scratch;
    let bytes: &[u8] = bytemuck::cast_slice(units);
    let stride = channels.inner.next_multiple_of(BYTES);
    sums.resize(GEMM_ROWS * cols, 0);
    for (i, out) in out.chunks_mut(GEMM_ROWS * cols).enumerate() {
        let (first, rows) = (i * GEMM_ROWS, out.len() / cols);
        let x = &bytes[first * stride..(first + rows) * stride];
        let x = NdTensorView::from_data([rows, stride], x);
        let x = x.slice((.., ..channels.inner));
        let sums = &mut sums[..rows * cols];
        // Without rten-gemm's zero points: the starts are for all rows.
        gemm.gemm(sums, GemmInputA::Unpacked(x), GemmInputB::Packed(packed), GemmOptions::default())
            .expect("the builder checked the shapes, and the weight was packed for this kernel");
        for (r, (out, sums)) in out.chunks_exact_mut(cols).zip(sums.chunks_exact(cols)).enumerate() {
            let scale = scales[first + r];
            for (c, (out, &sum)) in out.iter_mut().zip(sums).enumerate() {
                let sum = sum + channels.starts[c];
                *out = sum as f32 * scale * channels.scales[c] + bias.map_or(0.0, |bias| bias[c]);
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
    use crate::cpu::quantize::order;
    use crate::cpu::rotate::rotated;
    use crate::cpu::tests::{assert_close, numbers};

    /// All of this kind of CPU, as far as it has them or they are emulated.
    fn kernels() -> Vec<Kernel> {
        let ours = Instructions::ALL.iter().copied().filter(|instructions| instructions.exist());
        [Kernel::Gemm].into_iter().chain(ours.map(Kernel::Dot)).collect()
    }

    /// A test of each, with those emulated that this CPU lacks.
    fn with_each(test: impl Fn(Kernel)) {
        let all = || kernels().into_iter().for_each(test);
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        crate::cpu::dot::emulation::with(all);
        #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
        all();
    }

    /// So that none is skipped unnoticed.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    #[test]
    fn what_the_cpu_lacks_is_emulated() {
        let kernels = crate::cpu::dot::emulation::with(kernels);
        let has = |instructions| kernels.contains(&Kernel::Dot(instructions));
        assert_eq!(has(Instructions::Vnni256), is_x86_feature_detected!("avx2"));
        assert_eq!(has(Instructions::Amx), is_x86_feature_detected!("avx512vnni"));
    }

    /// So that none is skipped unnoticed: scripts/test-aarch64.
    #[cfg(target_arch = "aarch64")]
    #[test]
    fn qemus_best_cpu_has_all() {
        if std::env::var("QEMU_CPU").is_ok_and(|cpu| cpu == "max") {
            assert_eq!(kernels().len(), 1 + Instructions::ALL.len());
        }
    }

    fn pack(values: &[f32], cols: usize, rounding: Rounding, kernel: Kernel, threads: usize) -> Weight {
        Weight::pack(&Rounded::new(values, cols, rounding, kernel, threads), kernel)
    }

    /// Times the factors, and rotated.
    fn prepared(x: &[f32]) -> Vec<f32> {
        rotated(x, &Rounding::nearest(x.len()).factors)
    }

    /// What is near `x`, by the plainest code, with a scale for each group; the scales as the executor rounds them.
    fn quantized(x: &[f32], group: usize, step: impl Fn(&[f32]) -> f32) -> Vec<f64> {
        let (x, order) = (prepared(x), order(x.len()));
        let ordered: Vec<f32> = order.iter().map(|&at| x[at]).collect();
        let rounded = |numbers: &[f32]| {
            let step = step(numbers);
            let inverse = if step > 0.0 { 1.0 / step } else { 0.0 };
            let value = |x: &f32| f64::from((x * inverse).round_ties_even()) * f64::from(step);
            numbers.iter().map(value).collect::<Vec<_>>()
        };
        ordered.chunks(group).flat_map(rounded).collect()
    }

    #[test]
    fn equals_plain_rounding_at_awkward_sizes() {
        with_each(|kernel| {
            // Memory that was used for more, and for what is no number.
            let mut scratch = Scratch::default();
            let weight = pack(&[1.0; 1200], 1, Rounding::nearest(1200), kernel, 1);
            let x = vec![f32::NAN; 40 * 1200];
            linear_int8(&Team::ALONE, &x, &weight, None, Activation::Identity, None, &mut scratch, &mut [0.0; 40]);
            for (rows, inner, cols) in [
                (1, 1, 1),
                (5, 7, 17),
                (47, 300, 31),
                (48, 16, 16),
                (49, 64, 33),
                (7, 1030, 33),
                (400, 12, 1),
                (5, 128, 16),
                (19, 448, 36),
            ] {
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
                let packed = pack(&weight, cols, Rounding::nearest(inner), kernel, 2);
                for (has_bias, has_residual) in [(false, false), (true, false), (false, true), (true, true)] {
                    for activation in [Activation::Identity, Activation::Relu] {
                        let (bias, residual) = (has_bias.then_some(&bias[..]), has_residual.then_some(&residual[..]));
                        let mut out = vec![f32::NAN; rows * cols];
                        linear_int8(&Team::ALONE, &x, &packed, bias, activation, residual, &mut scratch, &mut out);
                        let (limits, group) = (kernel.limits(), kernel.group(inner));
                        let largest = |x: &[f32]| x.iter().fold(0f32, |largest, x| largest.max(x.abs()));
                        let row = |x| quantized(x, group, |x| largest(x) / f32::from(limits.row));
                        let channel = |weight| quantized(weight, group, |weight| limits.step(weight));
                        let weight: Vec<_> = weight.chunks_exact(inner).map(channel).collect();
                        let (mut expected, mut sizes) = (Vec::new(), Vec::new());
                        for (r, x) in x.chunks_exact(inner).map(row).enumerate() {
                            for (c, weight) in weight.iter().enumerate() {
                                let products: Vec<f64> = x.iter().zip(weight).map(|(x, weight)| x * weight).collect();
                                let sums: Vec<f64> = products.chunks(group).map(|group| group.iter().sum()).collect();
                                let bias = bias.map_or(0.0, |bias| bias[c].into());
                                let residual = residual.map_or(0.0, |residual| residual[r * cols + c].into());
                                let y = sums.iter().sum::<f64>() + bias;
                                let y = if activation == Activation::Relu { y.max(0.0) } else { y };
                                expected.push(y + residual);
                                // The groups' sums, which f32 adds, may cancel: the error is one of their size.
                                let size = sums.iter().map(|sum| sum.abs()).sum::<f64>() + bias.abs() + residual.abs();
                                sizes.push(size.max(1.0));
                            }
                        }
                        let name = format!("{kernel:?}, {rows} x {inner} x {cols}, {}", activation.name());
                        assert!(out.iter().all(|y| y.is_finite()), "{name}");
                        for (((y, expected), size), i) in out.iter().zip(&expected).zip(&sizes).zip(0..) {
                            let error = (f64::from(*y) - expected).abs() / size;
                            assert!(
                                error <= 1e-6,
                                "{name}: element {i} is {y}, expected {expected}, off by {error:.1e}"
                            );
                        }
                    }
                }
            }
        });
    }

    #[test]
    fn the_largest_numbers_do_not_saturate() {
        let inner = 4096;
        with_each(|kernel| {
            for sign in [1.0, -1.0] {
                // Rotated, all numbers of a block are the largest, or bound by their neighbours; those of about half of the blocks
                // are negative, and so 0 in the bytes of a row.
                let row: Vec<f32> = (0..inner).map(|i| if i % 128 == 0 { 2.0 } else { 0.0 }).collect();
                let weights: Vec<f32> = row.iter().map(|x| x * sign).collect();
                let weight = pack(&weights.repeat(3), 3, Rounding::nearest(inner), kernel, 1);
                let (mut out, scratch) = ([f32::NAN; 6], &mut Scratch::default());
                linear_int8(&Team::ALONE, &row.repeat(2), &weight, None, Activation::Identity, None, scratch, &mut out);
                assert_close(&out, &[f64::from(sign) * 128.0; 6], 1e-5, &format!("{kernel:?}"));
            }
        });
    }

    #[test]
    fn what_is_not_finite_shows() {
        let inner = 300;
        with_each(|kernel| {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in [0, 63, 200, 299] {
                    let run = |x: &[f32], weight: &[f32]| {
                        let weight = pack(weight, 40, Rounding::nearest(inner), kernel, 1);
                        let (mut out, mut scratch) = (vec![0.0; 80], Scratch::default());
                        linear_int8(&Team::ALONE, x, &weight, None, Activation::Identity, None, &mut scratch, &mut out);
                        out
                    };
                    let (x, weight) = (vec![1.0; 2 * inner], vec![0.5; 40 * inner]);
                    for row in 0..2 {
                        let mut with_bad = x.clone();
                        with_bad[row * inner + at] = bad;
                        let out = run(&with_bad, &weight);
                        assert!(out.iter().enumerate().all(|(i, y)| y.is_finite() == (i / 40 != row)), "{kernel:?}");
                    }
                    let mut with_bad = weight.clone();
                    with_bad[7 * inner + at] = bad;
                    let out = run(&x, &with_bad);
                    assert!(out.iter().enumerate().all(|(i, y)| y.is_finite() == (i % 40 != 7)), "{kernel:?}");
                }
            }
        });
    }
}
