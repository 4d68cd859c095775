//! What runs a program. Two implementers: `cpu` and `gpu`. They share nothing but this trait, so they can check each other.
//! `several` is made of some of them.

use crate::batch::Batch;
use crate::error::{Error, RunError};
use crate::matrix::Matrix;
use crate::program::Output;
use futures::channel::oneshot;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// What is computed in. Sums are always accumulated in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Dtype {
    /// Weights and activations in f32. (On the CPU, a matrix whose numbers 16 bits hold exactly takes no more.)
    #[default]
    F32,
    /// Weights and activations stored in f16: half the memory and bandwidth. On the CPU, only matrices.
    F16,
    /// On the CPU alone, since WGSL has no such numbers: matrices stored in bf16, or in f16 if that holds them exactly; and with AMX,
    /// products of large ones with values that are rounded to bf16, too. Everything else is in f32.
    Bf16,
    /// Linear ops over tokens in 8 bits, everything else in f32 (on a GPU, in f16 where it can; on the CPU, tables of
    /// embeddings are in f16).
    Int8,
}

impl Dtype {
    /// All of them.
    pub const ALL: [Dtype; 4] = [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::Int8];

    /// Bytes of one number of a weight.
    pub fn size(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::Int8 => 1,
        }
    }

    /// The name on the command line, and in WGSL.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
            Dtype::Int8 => "int8",
        }
    }
}

impl std::str::FromStr for Dtype {
    type Err = Error;

    fn from_str(name: &str) -> Result<Dtype, Error> {
        Dtype::ALL.into_iter().find(|dtype| dtype.name() == name).ok_or_else(|| {
            let known = Dtype::ALL.map(Dtype::name).join(", ");
            Error::InvalidInput(format!("unknown dtype '{name}'; known: {known}"))
        })
    }
}

/// How a program is loaded onto any device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecutorOptions {
    /// What is computed in.
    pub dtype: Dtype,
    /// Someone works at this machine: on a GPU, keep what is queued short enough that no frame is late.
    pub interactive: bool,
    /// Texts like those to come, for int8 on a CPU: weights are rounded for them. A model's loader has some of its own.
    pub sample: Option<Arc<Batch>>,
}

/// The most that a device does a second, in the way that its programs are profiled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ceilings {
    /// 10^9 multiplications and additions a second: of f32 in registers on a GPU, whose matrix units are beyond this; of a
    /// product in the executor's dtype on a core of a CPU.
    pub gflops: f64,
    /// 10^9 bytes a second, read and written by a copy.
    pub gb_per_s: f64,
}

/// A program compiled for a device, with its weights there.
pub trait Executor: Send + Sync {
    /// Starts a batch, and returns when it is queued: at once, or where the device has much to do, when there is room. Several
    /// may be in flight. The result is the requested value's rows: one for
    /// each sequence, or one for each token.
    ///
    /// # Errors
    /// [`RunError::OutOfMemory`] if the batch does not fit now, and [`RunError::Unfinished`], from [`Pending`], if it was not
    /// done: a smaller one may be. [`RunError::InvalidBatch`] if it contradicts the program. [`RunError::DeviceLost`] if the
    /// device is gone.
    fn submit(&self, batch: Batch, output: Output) -> Result<Pending, RunError>;

    /// Runs a batch and returns every step's value, in order: for tests and for finding a first difference.
    fn trace(&self, batch: &Batch) -> Result<Vec<Matrix>, RunError>;

    /// Runs a batch and returns how long each step took, in order, 0 for one that the sentences do not need.
    ///
    /// # Errors
    /// As [`Executor::submit`]; [`RunError::InvalidBatch`] if the device has no clock for it.
    fn profile(&self, batch: &Batch) -> Result<Vec<Duration>, RunError>;

    /// Bytes of a number of a step's value. (Of a weight's: [`Dtype::size`].)
    fn value_bytes(&self) -> usize {
        size_of::<f32>()
    }

    /// Measures what the steps of a profile can be held against, in some 100 ms.
    ///
    /// # Errors
    /// [`RunError::DeviceLost`] if the device is gone.
    fn ceilings(&self) -> Result<Ceilings, RunError>;

    /// Batches in flight that keep the device busy; more bring nothing.
    fn in_flight(&self) -> usize;

    /// Batches that it computes side by side: a short job is cut into as many, so that all of the device works on it.
    fn lanes(&self) -> usize {
        1
    }

    /// The batch size, in tokens, at which the device runs well. An executor that learns it answers differently over time.
    fn batch_tokens(&self) -> usize;

    /// The executors that it is made of, where it is several: the scheduler gives each batches of its own.
    fn members(&self) -> &[Arc<dyn Executor>] {
        &[]
    }

    /// Whether the device is gone for good: every batch from now on fails.
    fn is_lost(&self) -> bool {
        false
    }

    /// How long the device has computed so far; of several devices or threads, the mean.
    fn busy(&self) -> Duration;

    /// What it runs on, for people: `cpu (2 threads, AVX2)`, `llvmpipe (Vulkan, f32, subgroups 8)`.
    fn describe(&self) -> String;
}

/// A batch in flight: a future of its result. Drop it to lose interest; the device finishes by itself.
#[derive(Debug)]
pub struct Pending {
    result: oneshot::Receiver<Result<Matrix, RunError>>,
}

/// The executor's end of a [`Pending`]. Dropped unsent, it makes the result [`RunError::DeviceLost`]: nobody waits forever.
pub type Completion = oneshot::Sender<Result<Matrix, RunError>>;

impl Pending {
    /// A batch in flight, and the end through which its executor completes it.
    pub fn new() -> (Completion, Pending) {
        let (completion, result) = oneshot::channel();
        (completion, Pending { result })
    }

    /// Blocks until the result is there. Not for async code: await the `Pending` there.
    pub fn wait(self) -> Result<Matrix, RunError> {
        pollster::block_on(self)
    }
}

impl Future for Pending {
    type Output = Result<Matrix, RunError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.result).poll(context).map(|result| {
            result
                .unwrap_or_else(|_| Err(RunError::DeviceLost("the executor stopped before the batch was done".into())))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abandoned_batch_is_an_error_and_not_a_hang() {
        let (completion, pending) = Pending::new();
        drop(completion);
        assert!(matches!(pending.wait(), Err(RunError::DeviceLost(_))));
    }
}
