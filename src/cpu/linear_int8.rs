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
        team,
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
mod tests;
