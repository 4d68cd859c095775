//! The GPU executor on whatever adapter there is: a software one (Mesa's lavapipe) on a machine without a GPU. Without any,
//! the tests say so and pass, unless `REQUIRE_GPU=1`.
#![cfg(feature = "gpu")]

use lexel::RunError;
use lexel::batch::Batch;
use lexel::error::Result;
use lexel::executor::Executor;
use lexel::gpu::{AdapterSelector, Dtype, Features, GpuDevice, GpuExecutor, GpuOptions, Tuning, TuningChoice};
use lexel::matrix::Matrix;
use lexel::program::*;
use std::ops::Range;
use std::sync::Arc;

/// An adapter, or the end of the test.
macro_rules! device {
    () => {
        match GpuDevice::open(&AdapterSelector::Any) {
            Ok(device) => device,
            Err(error) if std::env::var_os("REQUIRE_GPU").is_some_and(|v| v == "1") => panic!("{error}"),
            Err(error) => {
                eprintln!("SKIPPED: {error}");
                return;
            }
        }
    };
}

/// Shaders keep wgpu's checks in tests.
fn options() -> GpuOptions {
    GpuOptions { checked: true, ..GpuOptions::default() }
}

/// Sequences of these lengths, with ids and types that differ.
fn batch(lengths: &[usize], vocabulary: u32) -> Batch {
    let mut batch = Batch::new();
    for (s, &length) in lengths.iter().enumerate() {
        let ids: Vec<u32> = (0..length).map(|i| (s * 31 + i * 7 + 1) as u32 % vocabulary).collect();
        let types: Vec<u32> = (0..length).map(|i| (i > length / 2) as u32).collect();
        batch.push(&ids, &types, (s % 2) as u32);
    }
    batch
}

/// An encoder in BERT's form: `cols` wide, two layers, mean and max pooled, normalised.
fn encoder(vocabulary: usize, cols: usize, heads: usize) -> Arc<Program> {
    let mut b = Builder::new();
    b.label("embeddings");
    let lookups =
        [("word", vocabulary, Index::Ids, 0), ("position", 515, Index::Positions, 2), ("type", 2, Index::Types, 0)]
            .map(|(name, rows, index, offset)| Lookup { table: b.matrix(name, rows, cols), index, offset });
    let x = b.embed(lookups.to_vec());
    let norm = |b: &mut Builder, name: &str, x| {
        let (weight, bias) = (b.vector(format!("{name}.weight"), cols), b.vector(format!("{name}.bias"), cols));
        b.norm(Norm {
            x,
            norm: RowNorm { kind: NormKind::Layer, weight, bias: Some(bias), eps: 1e-12 },
            residual: None,
        })
    };
    let linear = |b: &mut Builder, name: String, x, inputs, outputs, activation, residual| {
        let weight = b.matrix(format!("{name}.weight"), outputs, inputs);
        let bias = Some(b.vector(format!("{name}.bias"), outputs));
        b.linear(Linear { x, weight, bias, activation, residual })
    };
    let mut x = norm(&mut b, "embeddings", x);
    for layer in 0..2 {
        b.label(format!("layer.{layer}"));
        let identity = Activation::Identity;
        let qkv = linear(&mut b, format!("{layer}.qkv"), x, cols, 3 * cols, identity, None);
        let a = b.attention(Attention::new(qkv, heads, cols / heads));
        let h = linear(&mut b, format!("{layer}.out"), a, cols, cols, identity, Some(x));
        let h = norm(&mut b, &format!("{layer}.attention"), h);
        let m = linear(&mut b, format!("{layer}.up"), h, cols, 4 * cols, Activation::Gelu, None);
        let y = linear(&mut b, format!("{layer}.down"), m, 4 * cols, cols, identity, Some(h));
        x = norm(&mut b, &format!("{layer}.output"), y);
    }
    b.label("head");
    let pooled = b.pool(Pool { x, modes: vec![PoolMode::Mean, PoolMode::Max], normalize: false });
    let sentences = b.normalize(pooled);
    Arc::new(b.finish(sentences, x))
}

fn load(program: &Arc<Program>, device: &Arc<GpuDevice>, options: &GpuOptions) -> GpuExecutor {
    GpuExecutor::load(program.clone(), &RandomWeights { seed: 1 }, device, options).unwrap()
}

/// The largest difference of two matrices of one shape.
fn difference(a: &Matrix, b: &Matrix) -> f32 {
    assert_eq!(a.shape(), b.shape());
    a.data.iter().zip(&b.data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Runs one sequence at a time.
fn alone(executor: &GpuExecutor, batch: &Batch) -> Matrix {
    let mut rows = Vec::new();
    for s in 0..batch.sequences() {
        let mut one = Batch::new();
        one.push_from(batch, s);
        rows.extend(executor.submit(one, Output::Sentences).unwrap().wait().unwrap().data);
    }
    Matrix::new(batch.sequences(), rows.len() / batch.sequences(), rows)
}

#[test]
fn a_vector_depends_on_neither_neighbours_nor_features() {
    let device = device!();
    let varying = Features { subgroup_size: None, ..Features::all() };
    for (cols, heads) in [(32, 4), (30, 5)] {
        let program = encoder(97, cols, heads);
        let batch = batch(&[5, 1, 130, 33, 2, 64, 65], 97);
        let mut first: Option<Matrix> = None;
        for features in [Features::none(), varying, Features::all()] {
            let executor = load(&program, &device, &GpuOptions { features, ..options() });
            let together = executor.submit(batch.clone(), Output::Sentences).unwrap().wait().unwrap();
            assert_eq!(together.shape(), [7, 2 * cols]);
            let worst = difference(&together, &alone(&executor, &batch));
            assert!(worst <= 1e-6, "neighbours changed a vector by {worst} ({})", executor.describe());
            let worst = difference(&together, first.get_or_insert_with(|| together.clone()));
            assert!(worst <= 1e-5, "{features} differs by {worst} from no features");
        }
    }
}

/// A tuning says so where the device failed with them.
#[test]
fn without_subgroups_no_kernel_has_them() {
    let device = device!();
    let mut tuning = Tuning::default();
    tuning.without_subgroups = true;
    let executor = load(&encoder(97, 32, 4), &device, &GpuOptions { tuning: TuningChoice::Given(tuning), ..options() });
    assert!(!executor.describe().contains("subgroups"), "{}", executor.describe());
    let without = GpuOptions { features: device.description().features.without_subgroups(), ..options() };
    let expected = load(&encoder(97, 32, 4), &device, &without);
    let run = |executor: &GpuExecutor| executor.submit(batch(&[5, 40], 97), Output::Sentences).unwrap().wait().unwrap();
    assert_eq!(run(&executor), run(&expected));
}

#[test]
fn batches_in_flight_give_what_they_give_one_after_another() {
    let device = device!();
    let executor = load(&encoder(97, 32, 4), &device, &options());
    let batches: Vec<Batch> = (1..12).map(|n| batch(&vec![n * 9 % 40 + 1; n], 97)).collect();
    let run = |batch: &Batch| executor.submit(batch.clone(), Output::Sentences).unwrap();
    let sequential: Vec<Matrix> = batches.iter().map(|batch| run(batch).wait().unwrap()).collect();
    let pending: Vec<_> = batches.iter().map(run).collect();
    let flying: Vec<Matrix> = pending.into_iter().map(|pending| pending.wait().unwrap()).collect();
    assert_eq!(sequential, flying);

    // From several threads, on one executor; a dropped result is nobody's loss.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for (batch, expected) in batches.iter().zip(&sequential) {
                    drop(run(batch));
                    assert_eq!(run(batch).wait().unwrap(), *expected);
                }
            });
        }
    });
}

#[test]
fn a_trace_has_every_value_and_agrees_with_submit() {
    let device = device!();
    let program = encoder(97, 30, 5);
    let executor = load(&program, &device, &options());
    let batch = batch(&[3, 40, 1], 97);
    let trace = executor.trace(&batch).unwrap();
    assert_eq!(trace.len(), program.steps.len());
    for (value, step) in trace.iter().zip(&program.steps) {
        assert_eq!(value.shape(), [step.shape.rows_in(44, 3), step.shape.cols], "{}", step.label);
    }
    for output in [Output::Sentences, Output::Tokens] {
        let result = executor.submit(batch.clone(), output).unwrap().wait().unwrap();
        assert_eq!(result, trace[program.output(output).index()]);
    }
    assert!(executor.trace(&Batch::new()).unwrap().iter().all(|value| value.rows == 0));
}

#[test]
fn empty_batches_and_empty_sequences() {
    let device = device!();
    let executor = load(&encoder(97, 32, 4), &device, &options());
    let run = |batch, output| executor.submit(batch, output).unwrap().wait().unwrap();
    assert_eq!(run(Batch::new(), Output::Sentences).shape(), [0, 64]);
    assert_eq!(run(batch(&[0, 0], 97), Output::Tokens).shape(), [0, 32]);
    assert_eq!(run(batch(&[0, 0], 97), Output::Sentences), Matrix::zeros(2, 64));
    let mixed = run(batch(&[4, 0, 4], 97), Output::Sentences);
    assert_eq!(mixed.row(1), [0.0; 64]);
    assert!((mixed.row(2).iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
}

#[test]
fn f16_stays_close_to_f32() {
    let device = device!();
    let program = encoder(97, 32, 4);
    let half = GpuOptions { dtype: Dtype::F16, ..options() };
    if !device.description().features.f16 {
        assert!(GpuExecutor::load(program, &RandomWeights { seed: 1 }, &device, &half).is_err());
        eprintln!("SKIPPED: {} has no f16", device.description());
        return;
    }
    let batch = batch(&[5, 4, 130], 97);
    let run =
        |options| load(&program, &device, options).submit(batch.clone(), Output::Sentences).unwrap().wait().unwrap();
    let (single, half) = (run(&options()), run(&half));
    for s in 0..3 {
        let cosine: f32 = single.row(s).iter().zip(half.row(s)).map(|(a, b)| a * b).sum();
        assert!(cosine >= 0.9999, "cosine {cosine}");
    }
}

#[test]
fn bf16_is_refused_with_what_to_use_instead() {
    let device = device!();
    let options = GpuOptions { dtype: Dtype::Bf16, ..options() };
    let refused = GpuExecutor::load(encoder(97, 32, 4), &RandomWeights { seed: 1 }, &device, &options);
    let Err(error) = refused else { panic!("bf16 is no type of WGSL") };
    let message = error.to_string();
    assert!(message.contains("bf16") && message.contains("f16 or f32") && message.contains("cpu"), "{message}");
    let (measurement, file) = device.tune(Dtype::Bf16);
    assert!(measurement.linear.is_empty() && measurement.fault.is_some() && file.is_none());
}

#[test]
fn a_batch_beyond_the_budget_is_out_of_memory_and_a_smaller_one_runs() {
    let device = device!();
    let program = encoder(97, 32, 4);
    // Every value has room for whole blocks of 16 rows.
    let bytes = 4 * Plan::reusing(&program).elements(112, 16) as u64;
    let executor = load(&program, &device, &GpuOptions { memory_budget: Some(bytes), ..options() });
    let result = executor.submit(batch(&[56, 57], 97), Output::Sentences);
    match result {
        Err(RunError::OutOfMemory { tokens: 113, needed, granted }) => assert!(needed > granted && granted == bytes),
        other => panic!("{other:?}"),
    }
    assert!(executor.submit(batch(&[56, 56], 97), Output::Sentences).unwrap().wait().is_ok());
}

#[test]
fn batches_of_wide_values_begin_within_the_devices_limits() {
    const WIDTH: usize = 90_000;
    let device = device!();
    let mut b = Builder::new();
    let table = b.matrix("table", 9, 4);
    let x = b.embed(vec![Lookup { table, index: Index::Ids, offset: 0 }]);
    let weight = b.matrix("weight", WIDTH, 4);
    let logits = b.linear(Linear { x, weight, bias: None, activation: Activation::Identity, residual: None });
    let y = b.pool(Pool::new(logits, PoolMode::Max));
    let tokens = load(&Arc::new(b.finish(y, x)), &device, &options()).batch_tokens();
    let largest = device.description().limits.max_storage_buffer_binding_size;
    assert!(tokens > 0 && (tokens * WIDTH * 4) as u64 <= largest, "{tokens} tokens, bindings of {largest} bytes");
}

#[test]
fn an_id_beyond_the_vocabulary_never_reaches_the_device() {
    let device = device!();
    let executor = load(&encoder(97, 32, 4), &device, &options());
    let mut batch = Batch::new();
    batch.push(&[97], &[0], 0);
    assert!(matches!(executor.submit(batch, Output::Tokens), Err(RunError::InvalidBatch(_))));
}

/// `table[row][column] = row + column / 1024`, whatever the size.
struct Ramp;
impl WeightSource for Ramp {
    fn read(&self, tensor: &TensorSpec, rows: Range<usize>) -> Result<Vec<f32>> {
        Ok(rows.flat_map(|row| (0..tensor.cols()).map(move |c| row as f32 + c as f32 / 1024.0)).collect())
    }
}

#[test]
fn a_table_larger_than_a_binding_is_read_in_pieces() {
    let device = device!();
    // XLM-R's vocabulary: 768 MB in f32, six times lavapipe's largest binding.
    let (rows, cols) = (250_002u32, 768);
    let mut b = Builder::new();
    let table = b.matrix("word", rows as usize, cols);
    let types = b.matrix("type", 1, cols);
    let x = b.embed(vec![
        Lookup { table: types, index: Index::Types, offset: 0 },
        Lookup { table, index: Index::Ids, offset: 0 },
    ]);
    let pooled = b.pool(Pool::new(x, PoolMode::LastToken));
    let program = Arc::new(b.finish(pooled, x));
    let executor = GpuExecutor::load(program, &Ramp, &device, &options()).unwrap();
    let ids: Vec<u32> = (0..40).map(|i| i * (rows - 1) / 39).chain([43_689, 43_690, 43_691]).collect();
    let mut batch = Batch::new();
    batch.push(&ids, &vec![0; ids.len()], 0);
    let result = executor.submit(batch, Output::Tokens).unwrap().wait().unwrap();
    for (t, &id) in ids.iter().enumerate() {
        for c in [0, 1, 767] {
            let expected = (id as f32 + c as f32 / 1024.0) + c as f32 / 1024.0;
            assert_eq!(result.row(t)[c], expected, "id {id}, column {c}");
        }
    }
}

#[test]
fn a_lost_device_is_an_error_and_not_a_hang() {
    let device = device!();
    let executor = load(&encoder(97, 32, 4), &device, &options());
    let pending: Vec<_> =
        (0..6).map(|_| executor.submit(batch(&[200, 30, 100], 97), Output::Sentences).unwrap()).collect();
    device.wgpu_device().destroy();
    for pending in pending {
        // What was done before counts; all else says what happened.
        match pending.wait() {
            Ok(_) | Err(RunError::DeviceLost(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    // From now on nothing works, whether it is noticed at once or at the end.
    for _ in 0..3 {
        let result = executor.submit(batch(&[3], 97), Output::Sentences).and_then(|pending| pending.wait());
        assert!(matches!(result, Err(RunError::DeviceLost(_))), "{result:?}");
        assert!(matches!(executor.trace(&batch(&[3], 97)), Err(RunError::DeviceLost(_))));
    }
    let again = GpuExecutor::load(encoder(97, 32, 4), &RandomWeights { seed: 1 }, &device, &options());
    assert!(again.is_err());
}

#[test]
fn a_device_of_the_application_is_used_as_it_is() {
    let _ = device!();
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default())).unwrap();
    // wgpu's default limits and no features: what every adapter has.
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).unwrap();
    let device = GpuDevice::from_wgpu(&adapter, device, queue).unwrap();
    assert_eq!(device.description().features, Features::none());
    let executor = load(&encoder(97, 32, 4), &device, &options());
    let result = executor.submit(batch(&[9, 8], 97), Output::Sentences).unwrap().wait().unwrap();
    assert_eq!(result.shape(), [2, 64]);
    device.wgpu_device().destroy();
    let result = executor.submit(batch(&[3], 97), Output::Sentences).and_then(|pending| pending.wait());
    assert!(matches!(result, Err(RunError::DeviceLost(_))), "{result:?}");
}

#[test]
fn a_whole_program_binds_on_the_noop_backend() {
    let device = match GpuDevice::open(&AdapterSelector::Noop) {
        Ok(device) => device,
        Err(error) => panic!("dev-dependencies turn the feature on: {error}"),
    };
    let executor = load(&encoder(97, 32, 4), &device, &GpuOptions::default());
    // Nothing is computed: whatever comes back, no call was refused.
    let result = executor.submit(batch(&[3, 70], 97), Output::Sentences).unwrap().wait();
    assert!(!matches!(result, Err(RunError::DeviceLost(_))), "{result:?}");
}

#[test]
fn an_unknown_adapter_names_those_that_there_are() {
    let error = GpuDevice::open(&AdapterSelector::Name("no such thing".into())).unwrap_err().to_string();
    assert!(error.contains("'no such thing'") && error.contains("adapters of this machine"), "{error}");
    for adapter in GpuDevice::adapters() {
        println!("{adapter}: driver {}, {}", adapter.driver, adapter.features);
    }
}

#[test]
fn a_profile_times_the_steps_that_the_sentences_need() {
    let device = device!();
    let program = encoder(50, 32, 2);
    let executor = GpuExecutor::load(program.clone(), &RandomWeights { seed: 3 }, &device, &options()).unwrap();
    let batch = batch(&[40, 3, 100], 50);
    let times = match executor.profile(&batch) {
        Err(RunError::InvalidBatch(message)) if message.contains("timestamp") => {
            return eprintln!("SKIPPED: {message}");
        }
        times => times.unwrap(),
    };
    let needed = program.needed(Output::Sentences);
    assert_eq!(times.len(), program.steps.len());
    assert!(times.iter().zip(&needed).all(|(time, needed)| *needed || time.is_zero()));
    assert!(times.iter().sum::<std::time::Duration>() > std::time::Duration::ZERO);
    // The executor goes on as before.
    executor.submit(batch, Output::Sentences).unwrap().wait().unwrap();
}
