//! Whole programs on wgpu's backend that computes nothing: it validates what a driver would be given (pipelines, bindings,
//! grids, sizes) for limits and features that no adapter at hand has.

#![cfg(feature = "gpu")]

mod support;

use lexel::error::RunError;
use lexel::executor::Executor;
use lexel::gpu::{Dtype, Features, GpuDevice, GpuExecutor, GpuOptions};
use lexel::program::*;
use std::sync::Arc;
use support::data::{TestWeights, batch};
use support::programs::{BertShape, MINILM, bert};

const ONE_LAYER: BertShape = BertShape { layers: 1, ..MINILM };

/// A device of the noop backend with these limits and features. `subgroup` is its subgroup size, if it has only one.
fn noop(limits: wgpu::Limits, features: wgpu::Features, subgroup: Option<u32>) -> Arc<GpuDevice> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::NOOP;
    descriptor.backend_options.noop = wgpu::NoopBackendOptions {
        enable: true,
        limits: Some(limits.clone()),
        features: Some(features),
        subgroup_min_size: subgroup,
        subgroup_max_size: subgroup,
        ..Default::default()
    };
    let instance = wgpu::Instance::new(descriptor);
    let adapter = pollster::block_on(instance.request_adapter(&Default::default())).expect("the noop adapter");
    let descriptor =
        wgpu::DeviceDescriptor { required_features: features, required_limits: limits, ..Default::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).expect("the noop device");
    GpuDevice::from_wgpu(&adapter, device, queue).expect("a device")
}

/// What devices differ in: name, limits, features, subgroup size.
fn devices() -> Vec<(&'static str, Arc<GpuDevice>)> {
    let defaults = wgpu::Limits::default();
    let none = wgpu::Features::empty();
    let all = wgpu::Features::SHADER_F16 | wgpu::Features::SUBGROUP;
    vec![
        ("wgpu's default limits, no features", noop(defaults.clone(), none, None)),
        ("f16", noop(defaults.clone(), wgpu::Features::SHADER_F16, None)),
        ("subgroups of varying size", noop(defaults.clone(), all, None)),
        ("subgroups of 4", noop(defaults.clone(), all, Some(4))),
        ("subgroups of 32", noop(defaults.clone(), all, Some(32))),
        ("subgroups of 64", noop(defaults.clone(), all, Some(64))),
        ("subgroups of 8, int64", noop(defaults, all | wgpu::Features::SHADER_INT64, Some(8))),
    ]
}

/// Submits batches of every kind of size; the results are shapes only.
fn exercise(name: &str, executor: &dyn Executor, hidden: usize) {
    for lengths in [vec![], vec![0, 0], vec![1], vec![100, 0, 512, 1], vec![3; 300]] {
        let batch = batch(&lengths);
        let tokens = batch.tokens();
        for (output, rows) in [(Output::Sentences, lengths.len()), (Output::Tokens, tokens)] {
            let result = executor.submit(batch.clone(), output).and_then(|pending| pending.wait());
            let result = result.unwrap_or_else(|error| panic!("{name}: {} sequences: {error}", lengths.len()));
            assert_eq!(result.shape(), [rows, hidden], "{name}");
        }
    }
}

#[test]
fn whole_programs_are_bound_and_submitted_on_every_kind_of_device() {
    for (shape, layers) in [(ONE_LAYER, "one layer"), (MINILM, "MiniLM-L6")] {
        let program = Arc::new(bert(shape));
        for (name, device) in devices() {
            for dtype in [Dtype::F32, Dtype::F16] {
                if dtype == Dtype::F16 && !device.description().features.f16 {
                    continue;
                }
                let options = GpuOptions { dtype, ..GpuOptions::default() };
                let name = format!("{layers}, {name}, {}", dtype.name());
                let executor = GpuExecutor::load(program.clone(), &TestWeights::default(), &device, &options)
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
                exercise(&name, &executor, shape.hidden);
            }
        }
    }
}

/// More rows than one axis of a grid can have workgroups: it is folded, and that is valid.
#[test]
fn a_grid_of_more_than_65535_workgroups_is_folded() {
    let shape = BertShape { hidden: 8, heads: 2, intermediate: 8, positions: 512, layers: 1, vocabulary: 100 };
    let program = Arc::new(bert(shape));
    for features in [Features::none(), Features::all()] {
        let (_, device) = devices().pop().expect("devices");
        let options = GpuOptions { features, ..GpuOptions::default() };
        let executor = GpuExecutor::load(program.clone(), &TestWeights::default(), &device, &options).unwrap();
        let sequences = 70_000;
        let result = executor.submit(batch(&vec![2; sequences]), Output::Sentences).and_then(|pending| pending.wait());
        assert_eq!(result.map(|result| result.shape()), Ok([sequences, shape.hidden]), "{features}");
    }
}

/// What does not fit is an error that says so, before the device sees it.
#[test]
fn a_batch_beyond_the_limits_is_out_of_memory() {
    let program = Arc::new(bert(ONE_LAYER));
    let (_, device) = devices().remove(0);
    let executor = GpuExecutor::load(program, &TestWeights::default(), &device, &GpuOptions::default()).unwrap();
    // [tokens, 1536] of f32 are 6 KiB a token; a binding of wgpu's default limits holds 128 MiB.
    let result = executor.submit(batch(&[512; 60]), Output::Sentences).and_then(|pending| pending.wait());
    assert!(matches!(result, Err(RunError::OutOfMemory { .. })), "{result:?}");
    exercise("afterwards", &executor, ONE_LAYER.hidden);
}
