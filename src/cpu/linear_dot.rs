//! Int8 products by x86's VNNI instructions, in [`gemm`](super::gemm)'s inner loop.

use super::activation;
use super::gemm::{Aligned, Shared, VECTORS, block_rows, strip};
use super::instruction_set::InstructionSet;
use super::linear::{Mask, Strip, load, store};
use super::linear_int8::Channels;
use super::quantize::{BYTES, Rows};
use super::team::Team;
use super::vnni::{Dot, Vnni256, Vnni512};
use crate::program::Activation;
use rten_simd::Isa;
use rten_simd::ops::{BitOps, NumOps, ToFloat};
use std::ops::Range;

/// Panels that a thread takes at a time.
const TASK_PANELS: usize = 2;

/// Which instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vnni {
    /// AVX-512 with VNNI.
    Bits512,
    /// AVX2 with AVX-VNNI.
    Bits256,
}

impl Vnni {
    /// The widest that this CPU has, of the current instruction set.
    pub fn best() -> Option<Vnni> {
        match InstructionSet::current() {
            InstructionSet::Avx512 if Vnni512::new().is_some() => Some(Vnni::Bits512),
            InstructionSet::Avx512 | InstructionSet::Avx2 if Vnni256::new().is_some() => Some(Vnni::Bits256),
            _ => None,
        }
    }

    /// Columns of a panel.
    pub fn panel(self) -> usize {
        match self {
            Vnni::Bits512 => 16 * VECTORS,
            Vnni::Bits256 => 8 * VECTORS,
        }
    }
}

/// A weight in i8, packed for the inner loop.
pub struct Panels {
    vnni: Vnni,
    /// `[panels, units, panel, BYTES]`
    values: Aligned<i8>,
}

impl Panels {
    /// Packs `[cols, inner]`.
    pub fn pack(quantized: &[i8], cols: usize, inner: usize, vnni: Vnni) -> Panels {
        let (panel, units) = (vnni.panel(), inner.div_ceil(BYTES));
        let mut packed = Aligned::zeros(cols.next_multiple_of(panel) * units * BYTES);
        for (c, values) in quantized.chunks_exact(inner).enumerate() {
            let first = c / panel * panel * units * BYTES + c % panel * BYTES;
            for (unit, values) in values.chunks(BYTES).enumerate() {
                let at = first + unit * panel * BYTES;
                packed.as_mut_slice()[at..at + values.len()].copy_from_slice(values);
            }
        }
        Panels { vnni, values: packed }
    }
}

/// A product's operands.
#[derive(Clone, Copy)]
pub struct Product<'a> {
    pub rows: &'a Rows,
    pub channels: &'a Channels,
    pub panels: &'a Panels,
    pub bias: Option<&'a [f32]>,
    pub activation: Activation,
    pub residual: Option<&'a [f32]>,
}

impl Product<'_> {
    /// Writes `[rows, cols]`.
    pub fn run(self, team: &Team<'_>, out: &mut [f32]) {
        let (out, vnni) = (Shared::new(out), self.panels.vnni);
        team.run(self.channels.cols.div_ceil(vnni.panel()), TASK_PANELS, &|range| {
            #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,f16c,avx512vnni")]
            fn with_512(product: Product<'_>, dot: Vnni512, range: Range<usize>, out: &Shared<'_>) {
                product.part(dot, range, out);
            }
            #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
            fn with_256(product: Product<'_>, dot: Vnni256, range: Range<usize>, out: &Shared<'_>) {
                product.part(dot, range, out);
            }
            const CHECKED: &str = "the weight was packed for it";
            // SAFETY: a dot product exists only if the CPU has these features.
            unsafe {
                match vnni {
                    Vnni::Bits512 => with_512(self, Vnni512::new().expect(CHECKED), range, &out),
                    Vnni::Bits256 => with_256(self, Vnni256::new().expect(CHECKED), range, &out),
                }
            }
        });
    }

    /// Some panels.
    #[inline(always)]
    fn part<D: Dot>(self, dot: D, range: Range<usize>, out: &Shared<'_>) {
        let Product { rows, channels, panels, bias, activation, residual } = self;
        let isa = dot.isa();
        let (ops, integers, cols) = (isa.f32(), isa.i32(), channels.cols);
        let (lanes, panel) = (ops.len(), VECTORS * ops.len());
        let units = channels.inner.div_ceil(BYTES);
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
                let sums = integers.load_many::<VECTORS>(&channels.sums[col..col + panel]);
                let scales = ops.load_many::<VECTORS>(&channels.scales[col..col + panel]);
                let bias = match bias {
                    // SAFETY: a bias is `cols` long, of which `width` remain.
                    Some(bias) => unsafe { load(isa, bias[col..].as_ptr(), whole, masks) },
                    None => [ops.zero(); VECTORS],
                };
                let strided = first * cols + col;
                // SAFETY: the rows are `count` from `first` and the columns `width` from `col`, and `linear_int8` has
                // checked the lengths. No other thread has these columns.
                unsafe {
                    strip(
                        dot,
                        rows.units[first * units..].as_ptr(),
                        units,
                        count,
                        panels.values.as_slice()[p * panel * units * BYTES..].as_ptr().cast(),
                        units,
                        #[inline(always)]
                        |row| {
                            let zero = integers.splat(-i32::from(rows.zeros[first + row]));
                            [integers.mul(zero, sums[0]), integers.mul(zero, sums[1])]
                        },
                        #[inline(always)]
                        |row, sums| {
                            let at = strided + row * cols;
                            let scale = ops.splat(rows.scales[first + row]);
                            let [a, b] = sums.map(
                                #[inline(always)]
                                |sum| ops.mul(integers.to_float(sum), scale),
                            );
                            let mut values = [ops.mul_add(a, scales[0], bias[0]), ops.mul_add(b, scales[1], bias[1])];
                            if let Some(residual) = early {
                                let residual = load(isa, residual.as_ptr().add(at), whole, masks);
                                values = [ops.add(values[0], residual[0]), ops.add(values[1], residual[1])];
                            }
                            store(isa, values, out.pointer(at), whole, masks);
                        },
                    );
                }
                if activation != Activation::Identity {
                    let strip = Strip { out, residual, first: strided, rows: count, width, stride: cols };
                    activation::with(activation, strip);
                }
            }
        }
    }
}
