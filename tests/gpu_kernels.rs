//! Kernels that a device is given by measurement or by dtype: the measurement itself, and 8 bits.

#![cfg(feature = "gpu")]

mod support;

use lexel::executor::Executor;
use lexel::gpu::measure::{Fault, Measured, measure, trial};
use lexel::gpu::tuning::{AttentionClass, Class, LengthClass, RowClass};
use lexel::gpu::{AdapterSelector, Dtype, Features, GpuDevice, GpuExecutor, GpuOptions, Tuning};
use lexel::program::*;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use support::case::input;
use support::data::{Fill, TestWeights, batch};
use support::executors::device;
use support::programs::{BertShape, MINILM, bert};

/// The adapter, or a visible skip.
macro_rules! device {
    () => {
        match device() {
            Some(device) => device,
            None => return,
        }
    };
}

fn load(program: &Arc<Program>, weights: &dyn WeightSource, device: &Arc<GpuDevice>, dtype: Dtype) -> GpuExecutor {
    let options = GpuOptions { dtype, ..GpuOptions::default() };
    GpuExecutor::load(program.clone(), weights, device, &options).unwrap()
}

#[test]
fn a_measurement_finds_a_kernel_for_each_class_and_every_kernel_right() {
    let device = device!();
    // Time for all of them on the slowest adapter: SwiftShader on a busy machine needs more than a minute.
    let measured = measure(&device, Dtype::F32, Features::none(), Duration::from_secs(600));
    if measured.linear.is_empty() {
        return eprintln!("SKIPPED: {} has no clock", device.description());
    }
    for wide in [false, true] {
        for class in RowClass::ALL.map(|rows| Class { rows, wide }) {
            assert_eq!(measured.tuning.linear(class), Some(best(&measured.linear, class)));
        }
        for class in LengthClass::ALL.map(|length| AttentionClass { length, wide }) {
            assert_eq!(measured.tuning.attention(class), Some(best(&measured.attention, class)));
        }
    }
    let text = serde_json::to_string(&measured.tuning).unwrap();
    assert_eq!(serde_json::from_str::<Tuning>(&text).unwrap(), measured.tuning, "{text}");
}

#[test]
fn the_small_model_of_the_trial_is_right() {
    let device = device!();
    let f16 = device.description().features.f16.then_some(Dtype::F16);
    for dtype in [Dtype::F32, Dtype::Int8].into_iter().chain(f16) {
        for features in [Features { f16: dtype == Dtype::F16, ..Features::none() }, Features::all()] {
            assert_eq!(trial(&device, dtype, features, &Tuning::default()), Ok(()), "{}, {features}", dtype.name());
        }
    }
}

/// wgpu's noop backend stands for a driver that is broken.
#[test]
fn a_device_that_computes_nothing_fails_the_trial() {
    let device = GpuDevice::open(&AdapterSelector::Noop).unwrap();
    let fault = trial(&device, Dtype::F32, Features::none(), &Tuning::default()).unwrap_err();
    assert!(matches!(&fault, Fault::Wrong(reason) if reason.contains("131 tokens")), "{fault:?}");
    let error = device.unfit(Dtype::F32, &fault).to_string();
    assert!(error.contains("it computes wrongly in f32") && error.contains("cosine of 0.000000"), "{error}");
}

/// Of a class, of whose variants all are right: the fastest, if it is so by 3 % beside the first, the default.
fn best<C: Copy + PartialEq + Debug, V: Copy + Debug>(trials: &[Measured<C, V>], class: C) -> V {
    let rate = |trial: &Measured<C, V>| *trial.flops.as_ref().unwrap_or_else(|reason| panic!("{trial:?}: {reason}"));
    let mut of_class = trials.iter().filter(|trial| trial.class == class);
    let default = of_class.next().unwrap_or_else(|| panic!("nothing was measured for {class:?}"));
    let fastest = of_class.chain([default]).max_by(|a, b| rate(a).total_cmp(&rate(b))).unwrap_or(default);
    assert!(rate(fastest) > 0.0, "{fastest:?}");
    if rate(fastest) > 1.03 * rate(default) { fastest.variant } else { default.variant }
}

/// What rounding to 8 bits costs: the errors of a sum's terms are independent, so theirs stays well below a hundredth of it.
#[test]
fn products_in_8_bits_are_off_by_their_rounding_and_no_more() {
    let device = device!();
    let weights = TestWeights::default().with("x", Fill::Random { mean: 0.2, deviation: 1.0 });
    for (inner, outer) in [(37, 36), (128, 127), (300, 129), (384, 256), (1100, 70)] {
        let mut b = Builder::new();
        let x = input(&mut b, "x", inner);
        let residual = input(&mut b, "x.residual", outer);
        let (weight, bias) = (b.matrix("weight", outer, inner), Some(b.vector("bias", outer)));
        b.label("product");
        let y = b.linear(Linear { x, weight, bias, activation: Activation::Relu, residual: Some(residual) });
        let pooled = b.pool(Pool::new(y, PoolMode::Mean));
        let program = Arc::new(b.finish(pooled, y));
        let executor = load(&program, &weights, &device, Dtype::Int8);
        for rows in [1, 16, 33, 260] {
            let batch = batch(&[rows]);
            let trace = executor.trace(&batch).unwrap();
            let [got, x] = [y, x].map(|value| &trace[value.index()]);
            let want =
                support::naive::step(&program, &weights, &batch, y.index(), |value| (&trace[value.index()]).into());
            let errors = got.data.iter().zip(&want.data).map(|(got, want)| f64::from(*got) - want);
            let (square, most) = errors.fold((0.0, 0.0f64), |(sum, most), e| (sum + e * e, most.max(e.abs())));
            let rms = (square / want.data.len() as f64).sqrt();
            let size = (x.data.iter().map(|x| f64::from(x * x)).sum::<f64>() / x.data.len() as f64).sqrt();
            let place = format!("{inner} -> {outer}, {rows} rows: {rms:.2e}, at most {most:.2e}, of {size:.2e}");
            assert!(rms <= 0.005 * size && most <= 0.03 * size, "{place}");
        }
    }
}

#[test]
fn a_model_in_8_bits_stays_close_to_f32() {
    let device = device!();
    let shape = BertShape { layers: 2, ..MINILM };
    let program = Arc::new(bert(shape));
    let weights = TestWeights::default();
    let batch = batch(&[5, 130, 28, 1, 17]);
    let [single, int8] = [Dtype::F32, Dtype::Int8].map(|dtype| {
        load(&program, &weights, &device, dtype).submit(batch.clone(), Output::Sentences).unwrap().wait().unwrap()
    });
    for s in 0..batch.sequences() {
        let cosine: f32 = single.row(s).iter().zip(int8.row(s)).map(|(a, b)| a * b).sum();
        assert!(cosine >= 0.999, "sequence {s}: cosine {cosine}");
    }
}
