//! Several devices as one: the scheduler gives each of them batches as it has room for them.

use crate::batch::Batch;
use crate::error::RunError;
use crate::executor::{Ceilings, Executor, Pending};
use crate::matrix::Matrix;
use crate::program::Output;
use std::sync::Arc;
use std::time::Duration;

/// Executors of one program on different devices. What is not the scheduler's runs on the first that is not lost.
pub struct Several {
    members: Vec<Arc<dyn Executor>>,
}

impl Several {
    /// One executor out of at least one; they must have been loaded with the same program and weights.
    ///
    /// # Panics
    /// If there is none.
    pub fn new(members: Vec<Arc<dyn Executor>>) -> Several {
        assert!(!members.is_empty(), "several executors are at least one");
        Several { members }
    }

    /// The first that is not lost, or one that says that it is.
    fn first(&self) -> &dyn Executor {
        let alive = self.members.iter().find(|member| !member.is_lost());
        &**alive.unwrap_or(&self.members[0])
    }
}

impl Executor for Several {
    fn submit(&self, batch: Batch, output: Output) -> Result<Pending, RunError> {
        self.first().submit(batch, output)
    }

    fn trace(&self, batch: &Batch) -> Result<Vec<Matrix>, RunError> {
        self.first().trace(batch)
    }

    fn profile(&self, batch: &Batch) -> Result<Vec<Duration>, RunError> {
        self.first().profile(batch)
    }

    fn value_bytes(&self) -> usize {
        self.first().value_bytes()
    }

    fn ceilings(&self) -> Result<Ceilings, RunError> {
        self.first().ceilings()
    }

    fn in_flight(&self) -> usize {
        self.first().in_flight()
    }

    fn lanes(&self) -> usize {
        self.first().lanes()
    }

    fn batch_tokens(&self) -> usize {
        self.first().batch_tokens()
    }

    fn members(&self) -> &[Arc<dyn Executor>] {
        &self.members
    }

    fn is_lost(&self) -> bool {
        self.members.iter().all(|member| member.is_lost())
    }

    fn busy(&self) -> Duration {
        self.members.iter().map(|member| member.busy()).sum::<Duration>() / self.members.len() as u32
    }

    fn describe(&self) -> String {
        let names: Vec<String> = self.members.iter().map(|member| member.describe()).collect();
        names.join(" + ")
    }
}
