//! One executor's part in a run: it takes a batch whenever it has room, and waits for its batches in order.

use super::Finished;
use super::supply::{Supply, Work};
use crate::error::{Error, Result, RunError};
use crate::executor::{Executor, Pending};
use crate::program::Output;
use std::collections::VecDeque;
use std::time::Instant;

/// An executor and its batches in flight.
pub(super) struct Lane<'a> {
    index: usize,
    executor: &'a dyn Executor,
    output: Output,
    /// The caller's batch size.
    batch_tokens: Option<usize>,
    /// Batches of more tokens have turned out not to fit the device's memory.
    fitting: usize,
    flights: VecDeque<(Work, Pending)>,
    /// Halves that go next.
    waiting: VecDeque<Work>,
}

/// Why a lane did not get to the end.
#[derive(Debug)]
pub(super) enum Ended {
    /// Its device is gone; the supply has its batches back.
    Lost(RunError),
    /// The run has failed.
    Failed(Error),
}

impl Ended {
    pub fn into_error(self) -> Error {
        match self {
            Ended::Lost(error) => error.into(),
            Ended::Failed(error) => error,
        }
    }
}

impl<'a> Lane<'a> {
    pub fn new(index: usize, executor: &'a dyn Executor, output: Output, batch_tokens: Option<usize>) -> Lane<'a> {
        let (flights, waiting) = Default::default();
        Lane { index, executor, output, batch_tokens, fitting: usize::MAX, flights, waiting }
    }

    pub fn executor(&self) -> &'a dyn Executor {
        self.executor
    }

    /// Takes, computes and emits until the supply is over.
    pub fn run(&mut self, supply: &Supply, emit: &mut dyn FnMut(Finished) -> Result<()>) -> Result<(), Ended> {
        let mut last_landing = Instant::now();
        loop {
            while self.flights.len() < self.executor.in_flight() {
                let is_idle = self.flights.is_empty();
                let next = self.waiting.pop_front().or_else(|| supply.take(self.index, self.budget(), is_idle));
                let Some(work) = next else { break };
                if is_idle {
                    last_landing = Instant::now();
                }
                self.submit(work, supply)?;
            }
            let Some((work, pending)) = self.flights.pop_front() else { return Ok(()) };
            match pending.wait() {
                Ok(rows) => {
                    let now = Instant::now();
                    supply.landed(self.index, &work.batch, now - last_landing);
                    last_landing = now;
                    emit(work.finish(rows)).map_err(Ended::Failed)?;
                }
                Err(error) => self.refused(work, error, supply)?,
            }
        }
    }

    /// Tokens of the next batch. Asked anew each time: an executor learns what suits it.
    fn budget(&self) -> usize {
        self.batch_tokens.unwrap_or_else(|| self.executor.batch_tokens()).min(self.fitting)
    }

    fn submit(&mut self, work: Work, supply: &Supply) -> Result<(), Ended> {
        // A copy of a few kilobytes, so that a batch which does not fit can be halved.
        match self.executor.submit(work.batch.clone(), self.output) {
            Ok(pending) => {
                self.flights.push_back((work, pending));
                Ok(())
            }
            Err(error) => self.refused(work, error, supply),
        }
    }

    /// What the executor did not compute: submitted in halves if it may be too much at once, given back if the device is lost.
    fn refused(&mut self, work: Work, error: RunError, supply: &Supply) -> Result<(), Ended> {
        match error {
            RunError::OutOfMemory { .. } | RunError::Unfinished { .. } => {
                let tokens = work.batch.tokens();
                let why = match error {
                    RunError::Unfinished { .. } => "was not done by the device, which does not say why",
                    _ => "does not fit the device's memory",
                };
                let Some((first, second)) = work.halves() else { return Err(Ended::Failed(error.into())) };
                log::warn!("a batch of {tokens} tokens {why}: halving the batch size");
                self.fitting = self.fitting.min(tokens.div_ceil(2));
                self.waiting.push_front(second);
                self.waiting.push_front(first);
                Ok(())
            }
            RunError::DeviceLost(_) => {
                let flights = self.flights.drain(..).map(|(work, _)| work);
                supply.give_back(self.index, [work].into_iter().chain(flights).chain(self.waiting.drain(..)).collect());
                Err(Ended::Lost(error))
            }
            error => Err(Ended::Failed(error.into())),
        }
    }
}
