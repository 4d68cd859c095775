//! The CPU executor: the reference that GPU results are held against, and what a machine without a GPU gets.
//!
//! One worker a core, each running whole batches alone: no barrier inside a batch, and every buffer of a batch stays in
//! that core's caches. Only where there are fewer batches than cores do idle workers help with one (`team`). One file an op,
//! named as the op; `interpreter` is the loop over the steps, `gemm` the inner loop of both kinds of linear ops. Where there is AMX,
//! `kernel` gives it the large products of floats, which `split` makes of bf16s: `linear_split`, and `attention` in long sequences.
//! `weights` are in f32 or 16 bits (`storage`), those of an embedding as a `table`. Int8 weights are made in `calibrate`: `moments`
//! of a sample's values decide on their `rounding`, and a `rounded_file` keeps them for the next start.

mod activation;
#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
mod calibrate;
mod ceilings;
mod disentangled;
// Other CPUs have none of its instructions.
#[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), allow(unused))]
mod dot;
mod embed;
#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
mod emulation;
mod gemm;
mod glu;
mod head_norm;
mod instruction_set;
mod interpreter;
mod join;
mod kernel;
mod linear;
#[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), allow(unused))]
mod linear_dot;
mod linear_int8;
#[cfg(target_arch = "x86_64")]
mod linear_split;
mod matmul;
mod mixture;
mod moments;
mod norm;
mod normalize;
mod packed;
mod parallel;
mod pool;
mod quantize;
mod rotary;
mod rotate;
mod rounded_file;
mod rounding;
mod short_conv;
mod simd;
mod softmax;
#[cfg(target_arch = "x86_64")]
mod split;
mod storage;
mod strip;
mod sum;
mod table;
mod team;
mod transpose;
mod weights;
mod worker;

use crate::batch::Batch;
use crate::error::{Error, Result, RunError};
use crate::executor::{Ceilings, Dtype, Executor, Pending};
use crate::matrix::Matrix;
use crate::program::{Activation, Output, Plan, Program, WeightSource};
use futures::channel::oneshot;
use gemm::Shared;
use instruction_set::InstructionSet;
use interpreter::Pass;
use kernel::{Kernel, Products};
pub(crate) use linear::PackedRows;
use std::sync::Arc;
use std::time::Duration;
use strip::Strip;
use team::Team;
use weights::Weights;
use worker::{Job, Work, Workers};

/// How to run on the CPU.
#[derive(Debug, Clone, Default)]
pub struct CpuOptions {
    /// Batches computed at the same time, each by one thread, unless there are fewer: then idle threads help. `None`: one for each
    /// core that the process may use.
    pub threads: Option<usize>,
    /// In [`Dtype::F16`], matrices are stored in f16, and computed with in f32; in [`Dtype::Bf16`] alike, unless there is AMX.
    pub dtype: Dtype,
    /// Texts like those to come: int8's weights are rounded for them, and so nearer to f32, which takes seconds and is
    /// [kept](crate::set_cache_folder) for the next start. `None`: each to what is nearest.
    pub sample: Option<Arc<Batch>>,
}

/// A program with its weights packed for this CPU, and the threads that run it. Dropping it stops them; batches that no
/// thread has begun then end as [`RunError::DeviceLost`].
pub struct CpuExecutor {
    workers: Workers,
    model: Arc<Model>,
}

/// What all workers share.
struct Model {
    program: Arc<Program>,
    weights: Weights,
    dtype: Dtype,
}

impl Model {
    fn pass<'a>(&'a self, plan: &'a Plan, team: &'a Team<'a>, batch: &'a Batch) -> Pass<'a> {
        Pass { program: &self.program, weights: &self.weights, dtype: self.dtype, plan, team, batch }
    }
}

impl CpuExecutor {
    /// Reads and packs the weights, one tensor a thread at a time, and starts the threads.
    ///
    /// # Errors
    /// Whatever `weights` fails with; [`Error::Device`] for instructions that the CPU has not (`LEXEL_INSTRUCTIONS`), and if no
    /// thread can be started.
    pub fn load(program: Arc<Program>, weights: &dyn WeightSource, options: &CpuOptions) -> Result<CpuExecutor> {
        let threads = match options.threads {
            Some(threads) => threads.max(1),
            None => std::thread::available_parallelism().map_or(1, |threads| threads.get()),
        };
        InstructionSet::check()?;
        let weights = match &options.sample {
            Some(sample) if options.dtype == Dtype::Int8 => {
                calibrate::load(&program, weights, threads, sample, crate::kept::folder().as_deref())?
            }
            _ => Weights::load(&program, weights, threads, options.dtype)?,
        };
        let model = Arc::new(Model { program, weights, dtype: options.dtype });
        let workers = Workers::start(threads, &model)
            .map_err(|error| Error::Device(format!("cannot start {threads} threads: {error}")))?;
        Ok(CpuExecutor { workers, model })
    }
}

impl Executor for CpuExecutor {
    fn submit(&self, batch: Batch, output: Output) -> Result<Pending, RunError> {
        self.model.program.check(&batch)?;
        let (completion, pending) = Pending::new();
        self.workers.push(Job { batch, work: Work::Run(output, completion) });
        Ok(pending)
    }

    fn trace(&self, batch: &Batch) -> Result<Vec<Matrix>, RunError> {
        self.model.program.check(batch)?;
        let (sender, receiver) = oneshot::channel();
        self.workers.push(Job { batch: batch.clone(), work: Work::Trace(sender) });
        worker::wait(receiver)
    }

    fn profile(&self, batch: &Batch) -> Result<Vec<Duration>, RunError> {
        self.model.program.check(batch)?;
        let (sender, receiver) = oneshot::channel();
        self.workers.push(Job { batch: batch.clone(), work: Work::Profile(sender) });
        worker::wait(receiver)
    }

    fn ceilings(&self) -> Result<Ceilings, RunError> {
        ceilings::measure(self.model.dtype)
    }

    /// One batch a thread, and one waiting, so that no thread waits for the next to be made.
    fn in_flight(&self) -> usize {
        self.workers.threads() + 1
    }

    /// A short job is cut, so that every thread has a batch.
    fn lanes(&self) -> usize {
        self.workers.threads()
    }

    /// MiniLM-L6's shape runs at the same speed, within 5 %, from 280 to 1,024 tokens on Zen 3: enough to amortise reading
    /// the weights, and the activations (3 MiB at the widest) stay in the last cache of a few cores.
    fn batch_tokens(&self) -> usize {
        512
    }

    fn busy(&self) -> Duration {
        self.workers.busy() / self.workers.threads() as u32
    }

    fn describe(&self) -> String {
        let threads = self.workers.threads();
        let plural = if threads == 1 { "" } else { "s" };
        let instructions = InstructionSet::current().of_floats();
        match self.model.dtype {
            Dtype::Int8 => {
                let (instructions, kernel) =
                    (InstructionSet::current().of_vectors(), linear_int8::Kernel::best().name());
                format!("cpu ({threads} thread{plural}, {instructions}, int8 with {kernel})")
            }
            Dtype::F16 => format!("cpu ({threads} thread{plural}, {instructions}, weights in f16)"),
            Dtype::Bf16 if Kernel::best(Products::Bf16) == Kernel::Vectors => {
                format!("cpu ({threads} thread{plural}, {instructions}, weights in bf16)")
            }
            Dtype::Bf16 => format!("cpu ({threads} thread{plural}, {instructions}, bf16)"),
            Dtype::F32 => format!("cpu ({threads} thread{plural}, {instructions})"),
        }
    }
}

/// Applies an activation to each number, on the calling thread.
pub fn activate(activation: Activation, values: &mut [f32]) {
    let width = values.len();
    let out = &Shared::new(values);
    activation::with(activation, Strip { out, residual: None, first: 0, rows: 1, width, stride: width });
}

#[cfg(test)]
mod tests;
