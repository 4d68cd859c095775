//! The element-wise functions. Those that encoders run on every token are vectorised; the others are scalar code in the
//! lanes of a vector, since they only ever run on pooled rows (and on the logits of a SPLADE that sums them, which is rare).

use super::simd::{at_least, at_most};
use crate::program::Activation;
use rten_simd::ops::{BitOps, FloatOps, NumOps};
use rten_simd::{Isa, Simd, SimdUnaryOp};
use rten_vecmath::{ApproxGelu, Elu, LeakyRelu, Sigmoid, Silu, Swish, Tanh};

/// Something to be done with an activation as a type.
pub trait WithActivation {
    /// Called once, by [`with`].
    fn run<A: SimdUnaryOp<f32>>(self, activation: A);
}

/// Turns the value `activation` into a type, so that a vector loop can contain it.
pub fn with(activation: Activation, job: impl WithActivation) {
    match activation {
        Activation::Identity => job.run(Identity),
        Activation::Gelu => job.run(Gelu),
        Activation::GeluTanh => job.run(ApproxGelu {}),
        Activation::QuickGelu => job.run(Swish { alpha: 1.702 }),
        Activation::Relu => job.run(Clamp { low: 0.0, high: f32::INFINITY }),
        Activation::Silu => job.run(Silu {}),
        Activation::Tanh => job.run(Tanh {}),
        Activation::Sigmoid => job.run(Sigmoid {}),
        Activation::Relu6 => job.run(Clamp { low: 0.0, high: 6.0 }),
        Activation::LeakyRelu(slope) => job.run(LeakyRelu { alpha: slope.value() }),
        Activation::Elu => job.run(Elu { alpha: 1.0 }),
        Activation::Selu => job.run(Scalar(|x: f32| SELU_SCALE * if x > 0.0 { x } else { SELU_ALPHA * x.exp_m1() })),
        Activation::Mish => job.run(Scalar(|x: f32| x * softplus(x).tanh())),
        Activation::Softplus => job.run(Scalar(softplus)),
        Activation::Softsign => job.run(Scalar(|x: f32| x / (1.0 + x.abs()))),
        Activation::LogSigmoid => job.run(Scalar(|x: f32| -softplus(-x))),
        Activation::Tanhshrink => job.run(Scalar(|x: f32| x - x.tanh())),
        Activation::Hardshrink => job.run(Scalar(|x: f32| if x.abs() > 0.5 { x } else { 0.0 })),
        Activation::Softshrink => job.run(Scalar(|x: f32| x - x.clamp(-0.5, 0.5))),
        Activation::Hardsigmoid => job.run(Scalar(hardsigmoid)),
        Activation::Hardswish => job.run(Scalar(|x: f32| x * hardsigmoid(x))),
        Activation::Hardtanh => job.run(Clamp { low: -1.0, high: 1.0 }),
        Activation::Log1pRelu => job.run(Scalar(log1p_relu)),
        Activation::Log1pLog1pRelu => job.run(Scalar(|x: f32| log1p_relu(x).ln_1p())),
    }
}

/// PyTorch's constants of SELU (Klambauer et al. 2017).
const SELU_SCALE: f32 = 1.050_701;
const SELU_ALPHA: f32 = 1.673_263_2;

/// `ln(1 + e^x)`, without overflow.
fn softplus(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// (Of what is no number, it is none, which `max` would lose.)
fn log1p_relu(x: f32) -> f32 {
    if x <= 0.0 { 0.0 } else { x.ln_1p() }
}

fn hardsigmoid(x: f32) -> f32 {
    (x / 6.0 + 0.5).clamp(0.0, 1.0)
}

/// Leaves every number as it is.
struct Identity;

impl SimdUnaryOp<f32> for Identity {
    #[inline(always)]
    fn eval<I: Isa>(&self, _: I, x: I::F32) -> I::F32 {
        x
    }
}

/// `min(max(x, low), high)`
struct Clamp {
    low: f32,
    high: f32,
}

impl SimdUnaryOp<f32> for Clamp {
    #[inline(always)]
    fn eval<I: Isa>(&self, isa: I, x: I::F32) -> I::F32 {
        at_most(isa, at_least(isa, x, self.low), self.high)
    }
}

/// A function of one number, applied lane by lane.
struct Scalar<F>(F);

impl<F: Fn(f32) -> f32> SimdUnaryOp<f32> for Scalar<F> {
    #[inline(always)]
    fn eval<I: Isa>(&self, isa: I, x: I::F32) -> I::F32 {
        let mut lanes = x.to_array();
        for i in 0..lanes.as_ref().len() {
            lanes[i] = (self.0)(lanes[i]);
        }
        isa.f32().load(lanes.as_ref())
    }
}

/// `x * 0.5 * (1 + erf(x / sqrt 2))`. erf is a rational approximation, off by 3e-7 at most: vecmath's (Abramowitz and Stegun
/// 7.1.26) is 7e-7 off, which `x` multiplies, and takes an exponential besides.
struct Gelu;

/// The coefficients of XLA's `ErfImpl32`, highest power first: `erf(x) = x P(x^2) / Q(x^2)` for |x| < 3.83, beyond which
/// erf is 1 in f32.
const ERF_P: [f32; 5] = [2.290_506_6e-4, 3.408_291e-3, 5.095_57e-2, 1.852_083_2e-1, std::f32::consts::FRAC_2_SQRT_PI];
const ERF_Q: [f32; 7] =
    [-1.179_160_3e-7, 2.354_796_6e-5, 1.017_962_5e-3, 1.407_047e-2, 1.109_850_5e-1, 4.974_692_5e-1, 1.0];
const ERF_LIMIT: f32 = 3.832_507;

impl SimdUnaryOp<f32> for Gelu {
    #[inline(always)]
    fn eval<I: Isa>(&self, isa: I, x: I::F32) -> I::F32 {
        let ops = isa.f32();
        // Below -5.42, gelu is 0 to 2e-7: there x is held too, else it would multiply what is left of 1 + erf.
        let x = at_least(isa, x, -ERF_LIMIT * std::f32::consts::SQRT_2);
        let z = at_most(isa, ops.mul(x, ops.splat(std::f32::consts::FRAC_1_SQRT_2)), ERF_LIMIT);
        let z2 = ops.mul(z, z);
        let mut p = ops.splat(ERF_P[0]);
        for coefficient in &ERF_P[1..] {
            p = ops.mul_add(p, z2, ops.splat(*coefficient));
        }
        let mut q = ops.splat(ERF_Q[0]);
        for coefficient in &ERF_Q[1..] {
            q = ops.mul_add(q, z2, ops.splat(*coefficient));
        }
        let erf = ops.div(ops.mul(z, p), q);
        let half = ops.mul(x, ops.splat(0.5));
        ops.mul_add(half, erf, half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::activate;

    /// By its series of positive terms, which loses no digits: `2 / sqrt(pi) e^(-x^2) sum of 2^n x^(2n+1) / (2n+1)!!`.
    fn erf(x: f64) -> f64 {
        if x.abs() > 6.0 {
            return x.signum();
        }
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-18 {
            n += 1.0;
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
        }
        2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
    }

    fn reference(activation: Activation, x: f64) -> f64 {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
        let elu = |x: f64, alpha: f64| if x > 0.0 { x } else { alpha * x.exp_m1() };
        match activation {
            Activation::Identity => x,
            Activation::Gelu => x * 0.5 * (1.0 + erf(x / 2f64.sqrt())),
            Activation::GeluTanh => {
                0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
            }
            Activation::QuickGelu => x * sigmoid(1.702 * x),
            Activation::Relu => x.max(0.0),
            Activation::Silu => x * sigmoid(x),
            Activation::Tanh => x.tanh(),
            Activation::Sigmoid => sigmoid(x),
            Activation::Relu6 => x.clamp(0.0, 6.0),
            Activation::LeakyRelu(slope) => x.max(0.0) + f64::from(slope.value()) * x.min(0.0),
            Activation::Elu => elu(x, 1.0),
            Activation::Selu => 1.050_700_987_355_480_5 * elu(x, 1.673_263_242_354_377_2),
            Activation::Mish => x * softplus(x).tanh(),
            Activation::Softplus => softplus(x),
            Activation::Softsign => x / (1.0 + x.abs()),
            Activation::LogSigmoid => -softplus(-x),
            Activation::Tanhshrink => x - x.tanh(),
            Activation::Hardshrink => {
                if x.abs() > 0.5 {
                    x
                } else {
                    0.0
                }
            }
            Activation::Softshrink => x - x.clamp(-0.5, 0.5),
            Activation::Hardsigmoid => (x / 6.0 + 0.5).clamp(0.0, 1.0),
            Activation::Hardswish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
            Activation::Hardtanh => x.clamp(-1.0, 1.0),
            Activation::Log1pRelu => x.max(0.0).ln_1p(),
            Activation::Log1pLog1pRelu => x.max(0.0).ln_1p().ln_1p(),
        }
    }

    #[test]
    fn every_activation_equals_the_formula_in_f64() {
        let mut xs: Vec<f32> = (-12_000..=12_000).map(|i| i as f32 / 1000.0).collect();
        xs.extend([20.0, 50.0, 88.0, 89.0, 100.0, 104.0, 200.0, 1e4, 1e10, 1e30].iter().flat_map(|&x| [x, -x]));
        xs.extend([0.5, -0.5, 1e-4, 1e-10, -1e-10, 1e-38, 0.0, -0.0]);
        for activation in Activation::ALL {
            let mut ys = xs.clone();
            activate(activation, &mut ys);
            let (mut worst, mut at) = (0.0, 0.0);
            for (&x, &y) in xs.iter().zip(&ys) {
                let expected = reference(activation, f64::from(x));
                let error = (f64::from(y) - expected).abs() / expected.abs().max(1.0);
                assert!(y.is_finite(), "{}({x}) = {y}", activation.name());
                if error > worst {
                    (worst, at) = (error, x);
                }
            }
            println!("{:>14}: {worst:.1e} at {at}", activation.name());
            assert!(worst < 1e-6, "{}: {worst:e} at {at}", activation.name());
        }
    }

    #[test]
    fn a_nan_stays_one() {
        for activation in Activation::ALL {
            if activation == Activation::Hardshrink {
                continue; // PyTorch's gives 0 too
            }
            let mut ys = [f32::NAN; 9];
            activate(activation, &mut ys);
            assert!(ys.iter().all(|y| y.is_nan()), "{}: {ys:?}", activation.name());
        }
    }
}
