//! `activation(x * weight^T + bias) + residual`: rten-gemm on blocks of rows, and a pass over each block while it is in the
//! cache.

use super::activation::{self, WithActivation};
use super::simd::update;
use crate::program::Activation;
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_simd::ops::NumOps;
use rten_simd::{Isa, SimdOp, SimdUnaryOp};
use rten_tensor::NdTensorView;

/// The matrix product, with the kernel for this CPU. One for each thread: it can be shared, but not sent.
pub type Gemm = GemmExecutor<f32>;

/// Rows that are multiplied and then finished at a time: 48 rows of 1,536 columns are 288 KiB, which is still in the second
/// cache when the epilogue reads it. A multiple of the 6 rows of the GEMM's tile. On Zen 3, blocks of 24 to 66 rows cost
/// nothing beside one product of all rows, and the epilogue 2 % (6 % with gelu).
const ROW_BLOCK: usize = 48;

/// The instruction set of the GEMM's kernel, for people.
pub fn instruction_set() -> &'static str {
    match Gemm::new().kernel_name() {
        name if name.contains("avx512") => "AVX-512",
        name if name.contains("fma") => "AVX2",
        name if name.contains("neon") => "NEON",
        _ => "portable",
    }
}

/// `out = activation(x * weight^T + bias) + residual`. `x` is `[rows, in]`, `weight` packs `[out, in]`, `bias` is `[out]`,
/// `residual` and `out` are `[rows, out]`.
pub fn linear(
    gemm: &Gemm,
    x: &[f32],
    weight: &PackedBMatrix<f32>,
    bias: Option<&[f32]>,
    activation: Activation,
    residual: Option<&[f32]>,
    out: &mut [f32],
) {
    let (inner, cols) = (weight.rows(), weight.cols());
    for (i, out) in out.chunks_mut(ROW_BLOCK * cols).enumerate() {
        let (first, rows) = (i * ROW_BLOCK, out.len() / cols);
        let x = NdTensorView::from_data([rows, inner], &x[first * inner..(first + rows) * inner]);
        gemm.gemm(out, GemmInputA::Unpacked(x), GemmInputB::Packed(weight), GemmOptions::default())
            .expect("the builder checked the shapes, and the weight was packed for this kernel");
        let residual = residual.map(|residual| &residual[first * cols..(first + rows) * cols]);
        if activation != Activation::Identity || bias.is_some() || residual.is_some() {
            activation::with(activation, Epilogue { out, cols, bias, residual });
        }
    }
}

/// What is left to do on a block of rows.
struct Epilogue<'a> {
    /// `[rows, cols]`
    out: &'a mut [f32],
    cols: usize,
    /// `[cols]`
    bias: Option<&'a [f32]>,
    /// `[rows, cols]`
    residual: Option<&'a [f32]>,
}

impl WithActivation for Epilogue<'_> {
    fn run<A: SimdUnaryOp<f32>>(self, activation: A) {
        Finish { epilogue: self, activation }.dispatch();
    }
}

/// An [`Epilogue`] with its activation as a type, so that the vector loop contains it.
struct Finish<'a, A> {
    epilogue: Epilogue<'a>,
    activation: A,
}

impl<A: SimdUnaryOp<f32>> SimdOp for Finish<'_, A> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Finish { epilogue: Epilogue { out, cols, bias, residual }, activation } = self;
        let ops = isa.f32();
        for (r, out) in out.chunks_exact_mut(cols).enumerate() {
            let residual = residual.map(|residual| &residual[r * cols..(r + 1) * cols]);
            match (bias, residual) {
                (Some(bias), Some(residual)) => update(
                    isa,
                    out,
                    [bias, residual],
                    #[inline(always)]
                    |y, [bias, residual]| ops.add(activation.eval(isa, ops.add(y, bias)), residual),
                ),
                (Some(bias), None) => update(
                    isa,
                    out,
                    [bias],
                    #[inline(always)]
                    |y, [bias]| activation.eval(isa, ops.add(y, bias)),
                ),
                (None, residual) => {
                    update(
                        isa,
                        out,
                        [],
                        #[inline(always)]
                        |y, []| activation.eval(isa, y),
                    );
                    if let Some(residual) = residual {
                        update(
                            isa,
                            out,
                            [residual],
                            #[inline(always)]
                            |y, [residual]| ops.add(y, residual),
                        );
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::tests::{assert_close, numbers};

    #[test]
    fn equals_the_formula_in_f64_at_awkward_sizes() {
        let gemm = Gemm::new();
        for (rows, inner, cols) in [(1, 1, 1), (5, 7, 17), (47, 300, 31), (48, 16, 16), (49, 64, 33), (97, 8, 1)] {
            let (x, weight) = (numbers(1, rows * inner), numbers(2, cols * inner));
            let (bias, residual) = (numbers(3, cols), numbers(4, rows * cols));
            let packed = gemm.prepack_b(NdTensorView::from_data([cols, inner], &weight[..]).transposed());
            for (has_bias, has_residual) in [(false, false), (true, false), (false, true), (true, true)] {
                for activation in [Activation::Identity, Activation::Relu, Activation::Tanh] {
                    let (bias, residual) = (has_bias.then_some(&bias[..]), has_residual.then_some(&residual[..]));
                    let mut out = vec![f32::NAN; rows * cols];
                    linear(&gemm, &x, &packed, bias, activation, residual, &mut out);
                    let expected: Vec<f64> = (0..rows * cols)
                        .map(|i| {
                            let (r, c) = (i / cols, i % cols);
                            let product = |k| f64::from(x[r * inner + k]) * f64::from(weight[c * inner + k]);
                            let sum = (0..inner).map(product).sum::<f64>() + bias.map_or(0.0, |bias| bias[c].into());
                            let y = match activation {
                                Activation::Relu => sum.max(0.0),
                                Activation::Tanh => sum.tanh(),
                                _ => sum,
                            };
                            y + residual.map_or(0.0, |residual| residual[i].into())
                        })
                        .collect();
                    // 300 products of up to 3 each, whose partial sums reach 30, in f32.
                    let name = format!("{rows} x {inner} x {cols}, {}", activation.name());
                    assert_close(&out, &expected, 3e-5, &name);
                }
            }
            linear(&gemm, &[], &packed, Some(&bias), Activation::Gelu, None, &mut []);
        }
    }
}
