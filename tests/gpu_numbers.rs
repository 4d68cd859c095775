//! The numbers of the GPU executor, to their last digits, and what becomes of those that are none.
#![cfg(feature = "gpu")]

mod support;

use lexel::RunError;
use lexel::batch::Batch;
use lexel::error::Result;
use lexel::executor::Executor;
use lexel::gpu::{Dtype, GpuDevice, GpuExecutor, GpuOptions};
use lexel::program::*;
use std::ops::Range;
use std::sync::Arc;
use support::executors::device;

/// Shaders keep wgpu's checks in tests.
fn load(program: Program, weights: &dyn WeightSource, device: &Arc<GpuDevice>) -> GpuExecutor {
    let options = GpuOptions { checked: true, ..GpuOptions::default() };
    GpuExecutor::load(Arc::new(program), weights, device, &options).unwrap()
}

/// Ones, but for row 5 of the table `word`.
struct Poisoned;
impl WeightSource for Poisoned {
    fn read(&self, tensor: &TensorSpec, rows: Range<usize>) -> Result<Vec<f32>> {
        let value = |row| if row == 5 && tensor.name == "word" { f32::NAN } else { 1.0 };
        Ok(rows.flat_map(|row| vec![value(row); tensor.cols()]).collect())
    }
}

/// As clamp, max and comparisons would, each in its way.
#[test]
fn no_activation_makes_a_number_of_what_is_none() {
    let Some(device) = device() else { return };
    for activation in Activation::ALL {
        let mut b = Builder::new();
        let table = b.matrix("word", 10, 8);
        let x = b.embed(vec![Lookup { table, index: Index::Ids, offset: 0 }]);
        let weight = b.matrix("weight", 6, 8);
        let y = b.linear(Linear { x, weight, bias: None, activation, residual: None });
        let pooled = b.pool(Pool::new(y, PoolMode::Mean));
        let executor = load(b.finish(pooled, y), &Poisoned, &device);
        let mut batch = Batch::new();
        batch.push(&[1], &[0], 0);
        batch.push(&[5], &[0], 0);
        let result = executor.submit(batch, Output::Tokens).unwrap().wait();
        assert_eq!(result, Err(RunError::NotFinite { sequence: 1 }), "{}", activation.name());
    }
}

#[test]
fn numbers_that_are_none_name_their_sequence() {
    let Some(device) = device() else { return };
    let mut b = Builder::new();
    let table = b.matrix("word", 10, 8);
    let x = b.embed(vec![Lookup { table, index: Index::Ids, offset: 0 }]);
    let pooled = b.pool(Pool::new(x, PoolMode::Mean));
    let executor = load(b.finish(pooled, x), &Poisoned, &device);
    let mut batch = Batch::new();
    batch.push(&[1, 2], &[0, 0], 0);
    batch.push(&[], &[], 0);
    batch.push(&[3, 5, 1], &[0, 0, 0], 0);
    for output in [Output::Sentences, Output::Tokens] {
        let result = executor.submit(batch.clone(), output).unwrap().wait();
        assert_eq!(result, Err(RunError::NotFinite { sequence: 2 }));
    }
}

#[test]
fn gelu_is_the_exact_form() {
    let Some(device) = device() else { return };
    /// Row i of the table is x = (i - 4000) / 500 in every column; the matrix is the identity.
    struct Axis;
    let x = |row: usize| (row as f32 - 4000.0) / 500.0;
    impl WeightSource for Axis {
        fn read(&self, tensor: &TensorSpec, rows: Range<usize>) -> Result<Vec<f32>> {
            let identity = tensor.name == "identity";
            let value = |row, col| if identity { (row == col) as u8 as f32 } else { (row as f32 - 4000.0) / 500.0 };
            Ok(rows.flat_map(|row| (0..tensor.cols()).map(move |col| value(row, col))).collect())
        }
    }
    let mut b = Builder::new();
    let (table, weight) = (b.matrix("axis", 8001, 4), b.matrix("identity", 4, 4));
    let input = b.embed(vec![Lookup { table, index: Index::Ids, offset: 0 }]);
    let y = b.linear(Linear { x: input, weight, bias: None, activation: Activation::Gelu, residual: None });
    let pooled = b.pool(Pool::new(y, PoolMode::Mean));
    let program = Arc::new(b.finish(pooled, y));

    // Maclaurin's series; in f64 it is good to 1e-9 up to 4, and erf is 1 to 1e-8 behind it.
    let erf = |z: f64| {
        let (mut sum, mut power) = (0.0, z);
        for n in 0..120 {
            sum += power / f64::from(2 * n + 1);
            power *= -z * z / f64::from(n + 1);
        }
        if z.abs() > 4.0 { z.signum() } else { sum * 2.0 / std::f64::consts::PI.sqrt() }
    };
    let gelu = |x: f64| 0.5 * x * (1.0 + erf(x / 2f64.sqrt()));
    let f16 = device.description().features.f16.then_some(Dtype::F16);
    for dtype in [Dtype::F32].into_iter().chain(f16) {
        let options = GpuOptions { dtype, ..GpuOptions::default() };
        let executor = GpuExecutor::load(program.clone(), &Axis, &device, &options).unwrap();
        let mut batch = Batch::new();
        batch.push(&(0..8001).collect::<Vec<u32>>(), &[0; 8001], 0);
        let result = executor.submit(batch, Output::Tokens).unwrap().wait().unwrap();
        let error = |row: usize| {
            let got = f64::from(result.row(row)[0]);
            let (x, rounding) = match dtype {
                Dtype::F16 => (half::f16::from_f32(x(row)).to_f64(), got.abs() / 2048.0 + 3e-8),
                _ => (f64::from(x(row)), 0.0),
            };
            ((got - gelu(x)).abs() - rounding) / x.abs().max(1.0)
        };
        let worst = (0..8001).map(|row| (error(row), row)).fold((0.0, 0), |a, b| if b.0 > a.0 { b } else { a });
        println!("gelu in {}: worst error {:e} at x = {}", dtype.name(), worst.0, x(worst.1));
        assert!(worst.0 <= if dtype == Dtype::F16 { 1e-6 } else { 3e-7 }, "{worst:?}");
    }
}
