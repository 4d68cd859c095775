//! Against plain rounding and plain sums, with every CPU's instructions.

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
    crate::cpu::emulation::with(all);
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    all();
}

/// So that none is skipped unnoticed.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn what_the_cpu_lacks_is_emulated() {
    use crate::cpu::emulation;
    let kernels = emulation::with(kernels);
    let has = |instructions| kernels.contains(&Kernel::Dot(instructions));
    assert_eq!(has(Instructions::Vnni256), is_x86_feature_detected!("avx2"));
    assert_eq!(has(Instructions::Amx), is_x86_feature_detected!("avx512vnni"));
    if has(Instructions::Amx) && !Instructions::Amx.exist() {
        // Two groups of two matrices' steps, for 16 rows and for the other 3, by two vectors of columns; and what fills none.
        let products = |inner: usize| {
            let weight = pack(&vec![1.0; 20 * inner], 20, Rounding::nearest(inner), Kernel::Dot(Instructions::Amx), 1);
            let (x, mut out, mut scratch) = (vec![1.0; 19 * inner], vec![0.0; 19 * 20], Scratch::default());
            let (before, team) = (emulation::products(), Team::ALONE);
            linear_int8(&team, &x, &weight, None, Activation::Identity, None, &mut scratch, &mut out);
            emulation::products() - before
        };
        assert_eq!(emulation::with(|| [products(256), products(100)]), [2 * 2 * 2 * 2, 0]);
    }
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
            (13, 1030, 65),
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
                        assert!(error <= 1e-6, "{name}: element {i} is {y}, expected {expected}, off by {error:.1e}");
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
