//! The CPU executor: the reference that GPU results are held against, and what a machine without a GPU gets.
//!
//! One worker a core, each running whole batches alone: no barrier inside a batch, and every buffer of a batch stays in
//! that core's caches. One file an op, named as the op; `interpreter` is the loop over the steps.

mod activation;
mod attention;
mod disentangled;
mod embed;
mod experts;
mod glu;
mod head_norm;
mod interpreter;
mod linear;
mod matmul;
mod norm;
mod normalize;
mod pool;
mod rotary;
mod simd;
mod sum;
mod weights;
mod worker;

use crate::batch::Batch;
use crate::error::{Error, Result, RunError};
use crate::executor::{Executor, Pending};
use crate::matrix::Matrix;
use crate::program::{Activation, Output, Program, WeightSource};
use futures::channel::oneshot;
use std::sync::Arc;
use std::time::Duration;
use weights::Weights;
use worker::{Job, Work, Workers};

/// How to run on the CPU.
#[derive(Debug, Clone, Default)]
pub struct CpuOptions {
    /// Batches computed at the same time, each by one thread. `None`: one for each core that the process may use.
    pub threads: Option<usize>,
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
}

impl CpuExecutor {
    /// Reads and packs the weights, one tensor a thread at a time, and starts the threads.
    ///
    /// # Errors
    /// Whatever `weights` fails with; [`Error::Device`] if no thread can be started.
    pub fn load(program: Arc<Program>, weights: &dyn WeightSource, options: &CpuOptions) -> Result<CpuExecutor> {
        let threads = match options.threads {
            Some(threads) => threads.max(1),
            None => std::thread::available_parallelism().map_or(1, |threads| threads.get()),
        };
        let weights = Weights::load(&program, weights, threads)?;
        let model = Arc::new(Model { program, weights });
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

    /// One batch a thread, and one waiting, so that no thread waits for the next to be made.
    fn in_flight(&self) -> usize {
        self.workers.threads() + 1
    }

    /// MiniLM-L6's shape runs at the same speed, within 5 %, from 280 to 1,024 tokens on Zen 3: enough to amortise reading
    /// the weights, and the activations (3 MiB at the widest) stay in the last cache of a few cores.
    fn batch_tokens(&self) -> usize {
        512
    }

    fn describe(&self) -> String {
        let threads = self.workers.threads();
        let plural = if threads == 1 { "" } else { "s" };
        format!("cpu ({threads} thread{plural}, {})", linear::instruction_set())
    }
}

/// Applies an activation to each number, on the calling thread.
pub fn activate(activation: Activation, values: &mut [f32]) {
    struct OnValues<'a>(&'a mut [f32]);
    impl activation::WithActivation for OnValues<'_> {
        fn run<A: rten_simd::SimdUnaryOp<f32>>(self, activation: A) {
            activation.map_mut(self.0);
        }
    }
    activation::with(activation, OnValues(values));
}

#[cfg(test)]
mod tests;
