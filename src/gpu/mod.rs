//! The GPU executor. A program is compiled once for a device ([`compile`]: kernels, constants, grids as plain data; then
//! pipelines and packed weights); a batch is then a few small uploads, a compute pass or a few (`submit.rs`) and one
//! read-back. Which kernels suit the device is measured at its first use ([`measure`]; `choice.rs` keeps it).
//!
//! A GPU computes while `submit` has long returned, unless there is more than its queue should hold (`ahead.rs`). Mesa's
//! lavapipe 22.3 seems to hold `vkQueueSubmit` until the submissions before are done.
//!
//! To add a kernel: `shaders/x.wgsl` and `kernels/x.rs` (the conventions are in [`kernel`]), and its arm in
//! [`compile::compile`].

mod adapters;
mod ahead;
mod ceilings;
mod choice;
pub mod compile;
mod device;
mod flight;
mod growth;
pub mod kernel;
pub mod kernels;
mod mark;
pub mod measure;
mod options;
mod pace;
mod piece;
mod pipeline;
mod pipeline_file;
mod profile;
mod staging;
mod submit;
pub mod tuning;
mod tuning_file;
mod upload;
pub mod weights;
mod work;
mod workspace;

pub use adapters::AdapterSelector;
pub use device::{AdapterDescription, GpuDevice};
pub use options::{Cooperative, Dtype, Features, GpuOptions, TuningChoice};
pub use tuning::Tuning;

use crate::batch::Batch;
use crate::error::{Error, Result, RunError};
use crate::executor::{Ceilings, Executor, Pending};
use crate::matrix::Matrix;
use crate::program::{Output, Plan, Program, Rows, Value, WeightSource};
use compile::{Compiled, Launch, Slot};
use flight::ReadbackPool;
use futures::channel::oneshot;
use growth::Growth;
use kernel::{Binding, Target};
use pace::Pace;
use pipeline::Pipeline;
use rayon::prelude::*;
use staging::Write;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use weights::Weights;
use work::Work;
use workspace::{Fixed, Workspace};

/// Batches in flight: one computes, one waits behind it, one is being read back or prepared.
const IN_FLIGHT: usize = 3;
/// Tokens of a batch on a GPU that is not known yet, and the most that they may grow to.
const GPU_BATCH_TOKENS: usize = 8_192;
const MOST_BATCH_TOKENS: usize = 131_072;
/// Bytes of activations that batches may grow to where the caller sets no budget.
const GRANTED_BYTES: u64 = 1 << 30;
/// The most device time that what is queued should take.
const QUEUE_LIMIT: Duration = Duration::from_millis(100);
/// On a software adapter, what fits the CPU's caches better.
const SOFTWARE_BATCH_TOKENS: usize = 2_048;

/// A program compiled for a GPU, with its weights there.
#[derive(Debug)]
pub struct GpuExecutor {
    device: Arc<GpuDevice>,
    fixed: Fixed,
    dtype: Dtype,
    features: Features,
    /// For each output, the steps that it needs.
    needed: [Vec<bool>; 2],
    /// Recording and submitting is one thing at a time: the queue's order keeps batches apart that share these buffers.
    workspace: Mutex<Workspace>,
    /// Every value in its own buffer. Made by the first trace.
    tracing: Mutex<Option<Workspace>>,
    readback: Arc<ReadbackPool>,
    pace: Arc<Pace>,
}

impl GpuExecutor {
    /// Compiles a program and uploads its weights.
    ///
    /// # Errors
    /// [`Error::Device`] if the device lacks what the options ask for, is too small for the weights, or computes wrongly,
    /// which is looked for at its first use, and for a [wide](Program::wide) program in f16; those of the weights' source.
    pub fn load(
        program: Arc<Program>,
        weights: &dyn WeightSource,
        device: &Arc<GpuDevice>,
        options: &GpuOptions,
    ) -> Result<GpuExecutor> {
        device.health.check()?;
        let description = device.description();
        let features = description.features.masked(options.features);
        if options.dtype == Dtype::Bf16 {
            return Err(Error::Device(format!(
                "{description} has no bf16 in shaders: use dtype f16 or f32, or bf16 on the device cpu"
            )));
        }
        if options.dtype == Dtype::F16 && program.wide {
            return Err(Error::Device(format!(
                "{description} would store hidden states in f16, whose range they leave in this architecture; use dtype f32"
            )));
        }
        if options.dtype == Dtype::F16 && !features.f16 {
            return Err(Error::Device(format!("{description} has no 16-bit floats in shaders; use dtype f32")));
        }
        let tuning = match &options.tuning {
            TuningChoice::Measured => device.tuning(options.dtype, features)?,
            TuningChoice::Given(tuning) => tuning.clone(),
        };
        let features = if tuning.without_subgroups { features.without_subgroups() } else { features };
        let target = target(device, options.dtype, features, program.wide, tuning);
        let compiled = compile::compile(&program, &target)?;
        check_limits(&compiled, &target, description)?;

        // Before the weights, after which the device must prove that it has everything.
        let (params, params_at) = upload_params(&compiled, device)?;
        // Side by side: drivers compile on the CPU, and uploads wait for the device.
        let (pipelines, weights) = rayon::join(
            || compile_pipelines(&compiled, options.checked, device),
            || {
                let slots = compiled.steps.iter().flatten().flat_map(|launch| &launch.slots);
                let uses = slots.map(Slot::weights).filter(|weights| !weights.is_empty());
                Weights::upload(uses, &program, weights, target.dtype, device)
            },
        );
        let (pipelines, weights) = (pipelines?, weights?);
        // Not of the small programs of measurements.
        if options.tuning == TuningChoice::Measured {
            device.pipelines.save();
        }
        log::debug!("weights: {} bytes", weights.bytes());
        let unused = create(device, "unused", 64, wgpu::BufferUsages::STORAGE)?;

        let needed = [Output::Sentences, Output::Tokens].map(|output| program.needed(output));
        let workspace = Workspace::new(Plan::reusing(&program));
        let fixed = Fixed {
            program,
            compiled,
            pipelines,
            weights,
            params,
            params_at,
            unused,
            dtype: target.dtype,
            memory_budget: options.memory_budget,
        };
        let (first, most) = match target.software {
            true => (SOFTWARE_BATCH_TOKENS, SOFTWARE_BATCH_TOKENS),
            false => (GPU_BATCH_TOKENS, MOST_BATCH_TOKENS),
        };
        let growth = Growth::new(first, workspace.largest(first, most, GRANTED_BYTES, &fixed, device));
        let limit = options.queue_limit.or((!target.software).then_some(QUEUE_LIMIT));
        let pace = Arc::new(Pace::new(limit, Work::widest_steps(&fixed.program), growth));
        let workspace = Mutex::new(workspace);
        let (device, readback) = (device.clone(), Arc::default());
        Ok(GpuExecutor {
            device,
            fixed,
            dtype: options.dtype,
            features,
            needed,
            workspace,
            tracing: Mutex::default(),
            readback,
            pace,
        })
    }

    /// The device that it runs on.
    pub fn device(&self) -> &Arc<GpuDevice> {
        &self.device
    }
}

impl Executor for GpuExecutor {
    fn submit(&self, batch: Batch, output: Output) -> Result<Pending, RunError> {
        self.device.health.check()?;
        self.fixed.program.check(&batch)?;
        let value = self.fixed.program.output(output);
        let shape = self.fixed.program.shape(value);
        let (completion, pending) = Pending::new();
        if shape.rows_in(batch.tokens(), batch.sequences()) == 0 {
            let _ = completion.send(Ok(Matrix::zeros(0, shape.cols))); // its other end is `pending`
            return Ok(pending);
        }
        let needed = &self.needed[output as usize];
        let starts = batch.starts.clone();
        let mut workspace = self.workspace.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let started = self.start(&batch, &mut workspace, needed, &[value], move |result| {
            let result = result.and_then(|mut matrices| {
                let matrix = matrices.pop().unwrap_or_else(|| Matrix::zeros(0, 0));
                check_finite(&matrix, shape.rows, &starts).map(|()| matrix)
            });
            let _ = completion.send(result); // the caller may have lost interest
        });
        match started {
            Ok(()) => Ok(pending),
            Err(error) => {
                if let RunError::OutOfMemory { tokens, .. } = error {
                    self.pace.refused(tokens);
                }
                Err(error)
            }
        }
    }

    fn trace(&self, batch: &Batch) -> Result<Vec<Matrix>, RunError> {
        self.device.health.check()?;
        self.fixed.program.check(batch)?;
        let program = &self.fixed.program;
        let values: Vec<Value> = (0..program.steps.len()).map(|i| Value(i as u32)).collect();
        if batch.sequences() == 0 {
            return Ok(values.iter().map(|&value| Matrix::zeros(0, program.shape(value).cols)).collect());
        }
        let (completion, result) = oneshot::channel();
        let mut tracing = self.tracing.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let workspace = tracing.get_or_insert_with(|| Workspace::new(Plan::keeping_all(program)));
        self.start(batch, workspace, &vec![true; values.len()], &values, move |result| {
            let _ = completion.send(result); // its other end waits below
        })?;
        pollster::block_on(result).unwrap_or_else(|_| Err(self.device.health.fail("the device dropped a batch")))
    }

    fn profile(&self, batch: &Batch) -> Result<Vec<Duration>, RunError> {
        self.time_steps(batch)
    }

    fn value_bytes(&self) -> usize {
        self.fixed.dtype.size()
    }

    fn ceilings(&self) -> Result<Ceilings, RunError> {
        self.measure_ceilings()
    }

    fn in_flight(&self) -> usize {
        IN_FLIGHT
    }

    fn batch_tokens(&self) -> usize {
        self.pace.batch_tokens()
    }

    fn busy(&self) -> Duration {
        self.pace.busy()
    }

    fn is_lost(&self) -> bool {
        self.device.health.check().is_err()
    }

    fn describe(&self) -> String {
        let description = self.device.description();
        format!("{} ({:?}, {}, {})", description.name, description.backend, self.dtype.name(), self.features)
    }
}

/// What launches are chosen for. `wide`: as [`Program::wide`].
fn target(device: &GpuDevice, dtype: Dtype, features: Features, wide: bool, tuning: Tuning) -> Target {
    let description = device.description();
    // In int8, everything but the linear ops is computed in what is fast and holds the model's numbers.
    let (dtype, int8) = match dtype {
        Dtype::Int8 if features.f16 && !wide => (Dtype::F16, true),
        Dtype::Int8 => (Dtype::F32, true),
        dtype => (dtype, false),
    };
    let (limits, software) = (description.limits.clone(), description.is_software());
    Target { dtype, int8, features, limits, software, tuning }
}

/// The first sequence with a number that is none.
fn check_finite(matrix: &Matrix, rows: Rows, starts: &[u32]) -> Result<(), RunError> {
    let Some(at) = matrix.data.iter().position(|x| !x.is_finite()) else {
        return Ok(());
    };
    let row = at / matrix.cols;
    let sequence = match rows {
        Rows::Sequences => row,
        Rows::Tokens => starts.partition_point(|&start| start as usize <= row) - 1,
    };
    Err(RunError::NotFinite { sequence })
}

/// Grids along z are not folded, and a stage binds so many buffers.
fn check_limits(compiled: &Compiled, target: &Target, description: &AdapterDescription) -> Result<()> {
    let limits = &target.limits;
    for launch in compiled.steps.iter().flatten() {
        let storage = launch.kernel.bindings.iter().filter(|binding| **binding != Binding::Params).count() as u32;
        let (buffers, columns) = (storage + kernel::BATCH_STORAGE_BUFFERS, launch.grid.columns);
        let (most_buffers, most_columns) =
            (limits.max_storage_buffers_per_shader_stage, limits.max_compute_workgroups_per_dimension);
        if buffers > most_buffers || columns > most_columns {
            return Err(Error::Device(format!(
                "{description}: kernel {} needs {buffers} storage buffers and {columns} workgroups along z; the device \
                 has {most_buffers} and {most_columns}",
                launch.kernel.name
            )));
        }
    }
    Ok(())
}

/// The pipeline of each launch of each step. Layers share theirs: each is compiled once, on any thread.
fn compile_pipelines(compiled: &Compiled, checked: bool, device: &GpuDevice) -> Result<Vec<Vec<Arc<Pipeline>>>> {
    let get = |launch: &Launch| device.pipelines.get(launch, checked, device);
    let launches = compiled.steps.iter().flatten().map(|launch| (launch.prelude.text(launch.kernel), launch));
    let distinct: HashMap<String, &Launch> = launches.collect();
    distinct.into_par_iter().try_for_each(|(_, launch)| get(launch).map(|_| ()))?;
    compiled.steps.iter().map(|launches| launches.iter().map(get).collect()).collect()
}

/// The params of all launches in one buffer, and where each step's launches have theirs.
fn upload_params(compiled: &Compiled, device: &GpuDevice) -> Result<(wgpu::Buffer, Vec<Vec<u64>>)> {
    let alignment = device.description().limits.min_uniform_buffer_offset_alignment as usize;
    let mut bytes = Vec::new();
    let mut place = |params: &[u8]| {
        let at = bytes.len() as u64;
        bytes.extend_from_slice(params);
        bytes.resize(bytes.len().next_multiple_of(alignment), 0);
        at
    };
    let at =
        compiled.steps.iter().map(|launches| launches.iter().map(|launch| place(&launch.params)).collect()).collect();
    let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
    let buffer = create(device, "params", bytes.len().max(16) as u64, usage)?;
    let written = device.scoped(|| device.write(&[Write { buffer: &buffer, offset: 0, bytes: &bytes }]));
    let refuse = |why: String| Error::Device(format!("{}: params: {why}", device.description()));
    if !written.map_err(|error| refuse(error.to_string()))? {
        return Err(device.unwritten().into());
    }
    Ok((buffer, at))
}

fn create(device: &GpuDevice, label: &str, size: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
    let descriptor = wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
    let created = device.scoped(|| device.device.create_buffer(&descriptor));
    created.map_err(|error| Error::Device(format!("{}: {label} of {size} bytes: {error}", device.description())))
}
