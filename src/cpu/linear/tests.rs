//! Against plain f64, by each kernel.

use super::*;
use crate::cpu::tests::{assert_close, numbers};

/// A test of each kernel; with AVX-512's panels, of matrices, too, emulated if the CPU has none.
fn with_each(test: impl Fn(Kernel)) {
    test(Kernel::Vectors);
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if lanes() == 16 {
        crate::cpu::emulation::with(|| {
            // Which asks Linux for them.
            assert!(crate::cpu::amx::exists());
            test(Kernel::Matrices(Products::F32));
        });
    }
}

#[test]
fn equals_the_formula_in_f64_at_awkward_sizes() {
    check(Kernel::Vectors, false);
}

/// With AVX-512's panels: what the CPU lacks is emulated.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn so_do_matrices() {
    use crate::cpu::{amx, emulation};
    if lanes() == 16 {
        let (is_emulated, before) = (!amx::exists(), emulation::products());
        emulation::with(|| check(Kernel::Matrices(Products::F32), is_emulated));
        assert_eq!(is_emulated, emulation::products() > before);
    }
}

/// If the kernel is slow, not all.
fn check(kernel: Kernel, is_slow: bool) {
    let sizes = [
        (1, 1, 1),
        (5, 7, 17),
        (17, 520, 20),
        (47, 300, 31),
        (48, 16, 16),
        (49, 64, 33),
        (97, 8, 1),
        (400, 384, 40),
        (40, 600, 70),
        (70, 544, 33),
        (500, 300, 33),
    ];
    let mut scratch = Scratch::default();
    for ((rows, inner, cols), storage) in sizes
        .into_iter()
        .filter(|&(rows, inner, cols)| !is_slow || rows * inner * cols < 200_000)
        .flat_map(|size| [Storage::F32, Storage::F16, Storage::Bf16].map(|storage| (size, storage)))
    {
        let (x, mut weight) = (numbers(1, rows * inner), numbers(2, cols * inner));
        let (bias, residual) = (numbers(3, cols), numbers(4, rows * cols));
        match storage {
            Storage::F32 => {}
            Storage::F16 => weight.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32()),
            Storage::Bf16 => weight.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32()),
        }
        let [packed, wide] = [storage, Storage::F32].map(|storage| Weight::pack(&weight, cols, inner, storage));
        for (has_bias, has_residual) in [(false, false), (true, false), (false, true), (true, true)] {
            for activation in [Activation::Identity, Activation::Tanh, Activation::Relu] {
                if is_slow && (!has_bias || !has_residual || activation == Activation::Relu) {
                    continue;
                }
                let (bias, residual) = (has_bias.then_some(&bias[..]), has_residual.then_some(&residual[..]));
                let mut by = |weight: &Weight, out: &mut [f32]| {
                    linear(kernel, &Team::ALONE, &x, weight, bias, activation, residual, &mut scratch, out);
                };
                let mut out = vec![f32::NAN; rows * cols];
                by(&packed, &mut out);
                let mut of_wide = vec![f32::NAN; rows * cols];
                by(&wide, &mut of_wide);
                assert!(out == of_wide, "numbers that {storage:?} holds give what they give in f32");
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
                let name = format!("{rows} x {inner} x {cols} in {storage:?}, {}", activation.name());
                assert_close(&out, &expected, 3e-5, &name);
            }
        }
        linear(kernel, &Team::ALONE, &[], &packed, Some(&bias), Activation::Gelu, None, &mut scratch, &mut []);
    }
}

#[test]
fn what_is_not_finite_shows() {
    with_each(|kernel| {
        let (rows, inner, cols) = (18, 40, 20);
        let all_bits = f32::from_bits(0x7fff_ffff);
        for odd in
            [f32::NAN, -f32::NAN, all_bits, -all_bits, f32::from_bits(0x7f80_0001), f32::INFINITY, f32::NEG_INFINITY]
        {
            for storage in [Storage::F32, Storage::F16, Storage::Bf16] {
                // A weight is in f16 only if it is finite.
                for of_weight in [false, true].into_iter().take(if storage == Storage::F16 { 1 } else { 2 }) {
                    let (mut x, mut weight) = (numbers(1, rows * inner), numbers(2, cols * inner));
                    if of_weight { &mut weight[3 * inner + 17] } else { &mut x[3 * inner + 17] }.clone_from(&odd);
                    let weight = Weight::pack(&weight, cols, inner, storage);
                    let (team, identity, mut scratch) = (&Team::ALONE, Activation::Identity, Scratch::default());
                    let mut out = vec![0.0; rows * cols];
                    linear(kernel, team, &x, &weight, None, identity, None, &mut scratch, &mut out);
                    for (i, y) in out.iter().enumerate() {
                        let is_odd = 3 == if of_weight { i % cols } else { i / cols };
                        assert_eq!(y.is_finite(), !is_odd, "{odd} {:x} in {storage:?}, {kernel:?}: {y}", odd.to_bits());
                    }
                }
            }
        }
    });
}

/// By products with 1 and 0.
#[test]
fn no_bit_of_a_number_is_lost() {
    with_each(|kernel| {
        let n = 33;
        let numbers = numbers(5, n * n).into_iter().zip(0..);
        // Of all sizes that matter, and with bits everywhere.
        let numbers: Vec<f32> = numbers.map(|(x, i)| x * 1.0001f32.powi(i) * 2f32.powi(i % 60 - 30)).collect();
        let ones: Vec<f32> = (0..n * n).map(|i| f32::from(u8::from(i % n == i / n))).collect();
        let product = |x: &[f32], weight: &[f32]| {
            let weight = Weight::pack(weight, n, n, Storage::F32);
            let (team, identity, mut scratch) = (&Team::ALONE, Activation::Identity, Scratch::default());
            let mut out = vec![f32::NAN; n * n];
            linear(kernel, team, x, &weight, None, identity, None, &mut scratch, &mut out);
            out
        };
        assert!(product(&numbers, &ones) == numbers, "{kernel:?}: of x");
        let transposed: Vec<f32> = (0..n * n).map(|i| numbers[i % n * n + i / n]).collect();
        assert!(product(&ones, &transposed) == numbers, "{kernel:?}: of the weight");
    });
}

/// What is rounded is both sides, and nothing else: of numbers that are rounded before, products are the same to the last bit.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn bf16_rounds_each_side_once() {
    use crate::cpu::{amx, emulation};
    if lanes() != 16 {
        return;
    }
    let rounded = |x: &f32| f32::from_bits((x.to_bits() + 0x8000) & 0xffff_0000);
    // Of the last, a panel and a run are not the first.
    for (rows, inner, cols) in [(1, 1, 1), (1, 33, 32), (17, 32, 31), (35, 70, 40), (2, 550, 70)] {
        let (x, weight, bias) = (numbers(1, rows * inner), numbers(2, cols * inner), numbers(3, cols));
        let product = |x: &[f32], weight: &Weight| {
            let (team, mut scratch) = (&Team::ALONE, Scratch::default());
            let mut out = vec![f32::NAN; rows * cols];
            // Which asks Linux for them.
            let (is_emulated, before) = (!amx::exists(), emulation::products());
            emulation::with(|| {
                let kernel = Kernel::Matrices(Products::Bf16);
                linear(kernel, team, x, weight, Some(&bias), Activation::Relu, None, &mut scratch, &mut out);
            });
            assert_eq!(is_emulated, emulation::products() > before);
            out
        };
        let x_rounded: Vec<f32> = x.iter().map(rounded).collect();
        let weight_rounded: Vec<f32> = weight.iter().map(|x| bf16::from_f32(*x).to_f32()).collect();
        let found = product(&x, &Weight::pack_matrices(&weight, cols, inner));
        let exact = product(&x_rounded, &Weight::pack(&weight_rounded, cols, inner, Storage::F32));
        assert!(found == exact, "{rows} x {inner} x {cols}: {found:?}, {exact:?}");
        let wide = product(&x, &Weight::pack(&weight, cols, inner, Storage::F32));
        assert!(found != wide || cols == 1, "{rows} x {inner} x {cols}");
    }
}

/// Which rounding may make 0 of, and AMX.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn what_is_not_finite_shows_in_bf16() {
    use crate::cpu::{amx, emulation};
    if lanes() != 16 {
        return;
    }
    let (rows, inner, cols) = (18, 40, 20);
    let all_bits = f32::from_bits(0x7fff_ffff);
    for odd in [f32::NAN, all_bits, -all_bits, f32::from_bits(0x7f80_0001), f32::INFINITY, f32::NEG_INFINITY] {
        for of_weight in [false, true] {
            let (mut x, mut weight) = (numbers(1, rows * inner), numbers(2, cols * inner));
            if of_weight { &mut weight[3 * inner + 17] } else { &mut x[3 * inner + 17] }.clone_from(&odd);
            let weight = Weight::pack_matrices(&weight, cols, inner);
            let (team, identity, mut scratch) = (&Team::ALONE, Activation::Identity, Scratch::default());
            let mut out = vec![0.0; rows * cols];
            emulation::with(|| {
                assert!(amx::exists());
                let kernel = Kernel::Matrices(Products::Bf16);
                linear(kernel, team, &x, &weight, None, identity, None, &mut scratch, &mut out);
            });
            for (i, y) in out.iter().enumerate() {
                let is_odd = 3 == if of_weight { i % cols } else { i / cols };
                assert_eq!(y.is_finite(), !is_odd, "{odd} {:x}: {y}", odd.to_bits());
            }
        }
    }
}
