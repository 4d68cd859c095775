//! Sequences to batches to one executor or several, and the results back: tokenising the next batches, computing these and
//! reading back the last overlap.
//!
//! Executors pull: `Supply` holds the sequences that wait, and each `Lane` cuts a batch of its own executor's size from
//! them whenever that has room. So a fast device takes more, and what a lost one had goes back for the others.

mod lane;
mod supply;
#[cfg(test)]
mod tests;

use crate::batch::Batch;
use crate::error::{Result, RunError};
use crate::executor::Executor;
use crate::matrix::Matrix;
use crate::program::Output;
use lane::{Ended, Lane};
use std::panic::resume_unwind;
use std::sync::mpsc;
use std::thread;
use supply::Supply;

/// A tokenised text on its way to a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// The caller's number for it; comes back with its result.
    pub key: usize,
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// Segment ids, as many.
    pub types: Vec<u32>,
    /// Leading tokens that pooling leaves out.
    pub skip: u32,
    /// Trailing tokens that attention does not look at: see [`Batch::unseen`].
    pub unseen: u32,
}

/// A computed batch, as [`Scheduler::run`] hands it to its caller.
#[derive(Debug)]
pub struct Finished {
    /// The key of each sequence.
    pub keys: Vec<usize>,
    /// What was computed.
    pub batch: Batch,
    /// `[sequences, cols]` or `[tokens, cols]`, as the output asked for.
    pub rows: Matrix,
}

/// Runs sequences through an executor in batches of a token budget.
#[derive(Clone, Copy)]
pub struct Scheduler<'a> {
    /// Computes the batches; its [members](Executor::members) side by side, where it has some.
    pub executor: &'a dyn Executor,
    /// Which value comes back.
    pub output: Output,
    /// As [`Batch::padding`].
    pub padding: Option<u32>,
    /// Tokens a batch; a longer sequence is a batch by itself. `None`: what suits each executor.
    pub batch_tokens: Option<usize>,
}

impl<'a> Scheduler<'a> {
    /// Runs everything that `chunks` yields, and hands each finished batch to `done`, in any order. `chunks` runs on a thread
    /// of its own, ahead of the executors by a few batches. An error of either side ends the run.
    ///
    /// A batch that does not fit a device's memory is halved and tried again, and that device's batches after it stay
    /// smaller. If a device is lost, the others compute what it had; the run fails when there is none left.
    ///
    /// # Errors
    /// The first error of `chunks`, of `done` or of the executors.
    pub fn run<C>(&self, chunks: C, mut done: impl FnMut(Finished) -> Result<()>) -> Result<()>
    where
        C: Iterator<Item = Result<Vec<Sequence>>> + Send,
    {
        let executors = self.executors();
        let supply = Supply::new(self.padding, executors.len());
        thread::scope(|scope| {
            // However this ends, nobody goes on waiting.
            let _stop = supply.stop_when_dropped();
            let producer = scope.spawn(|| {
                let _close = supply.close_when_dropped();
                self.produce(chunks, &executors, &supply)
            });
            match &executors[..] {
                [executor] => self.lane(0, *executor).run(&supply, &mut done).map_err(Ended::into_error)?,
                executors => self.run_side_by_side(executors, &supply, &mut done)?,
            }
            producer.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// The same on the calling thread alone, for a few sequences: no thread is started, and of several devices the first
    /// computes.
    pub fn run_few(&self, sequences: Vec<Sequence>, mut done: impl FnMut(Finished) -> Result<()>) -> Result<()> {
        let executors = self.executors();
        let supply = Supply::new(self.padding, 1);
        self.produce(std::iter::once(Ok(sequences)), &executors[..1], &supply)?;
        supply.close();
        for (i, executor) in executors.iter().enumerate() {
            match self.lane(0, *executor).run(&supply, &mut done) {
                Err(Ended::Lost(error)) if i + 1 < executors.len() => warn_lost(*executor, &error),
                ended => return ended.map_err(Ended::into_error),
            }
        }
        Ok(())
    }

    /// Those that take batches: at least one. Of executors that are all lost, one, to say so.
    fn executors(&self) -> Vec<&'a dyn Executor> {
        let members = self.executor.members().iter().map(|member| &**member);
        let mut executors: Vec<&dyn Executor> = members.filter(|member| !member.is_lost()).collect();
        if executors.is_empty() {
            executors.push(self.executor);
        }
        executors
    }

    fn lane(&self, index: usize, executor: &'a dyn Executor) -> Lane<'a> {
        Lane::new(index, executor, self.output, self.batch_tokens)
    }

    /// Hands the sequences over, as fast as they are taken.
    fn produce(
        &self,
        chunks: impl Iterator<Item = Result<Vec<Sequence>>>,
        executors: &[&dyn Executor],
        supply: &Supply,
    ) -> Result<()> {
        let mut chunks = chunks.peekable();
        let mut first = true;
        while let Some(chunk) = chunks.next() {
            let chunk = chunk.inspect_err(|_| supply.stop())?;
            if std::mem::take(&mut first) && chunks.peek().is_none() {
                // A short job: as many batches as the executors compute side by side.
                let tokens: usize = chunk.iter().map(|sequence| sequence.ids.len()).sum();
                let lanes: usize = executors.iter().map(|executor| executor.lanes()).sum();
                supply.limit_batches(tokens.div_ceil(lanes));
            }
            if !supply.push(chunk) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A thread for each executor; this one hands over what they finish.
    fn run_side_by_side(
        &self,
        executors: &[&'a dyn Executor],
        supply: &Supply,
        done: &mut dyn FnMut(Finished) -> Result<()>,
    ) -> Result<()> {
        let (sender, receiver) = mpsc::sync_channel(executors.len());
        thread::scope(|scope| {
            // If `done` panics: before this scope waits for its threads.
            let _stop = supply.stop_when_dropped();
            let start = |(index, executor): (usize, &&'a dyn Executor)| {
                let (mut lane, sender) = (self.lane(index, *executor), sender.clone());
                scope.spawn(move || {
                    let stop = supply.stop_when_dropped();
                    let ended = lane.run(supply, &mut |finished| {
                        // Nobody listens once `done` has failed; the supply is stopped then.
                        let _ = sender.send(finished);
                        Ok(())
                    });
                    if matches!(ended, Ok(()) | Err(Ended::Lost(_))) {
                        stop.forget();
                    }
                    if let Err(Ended::Lost(error)) = &ended {
                        warn_lost(lane.executor(), error);
                    }
                    ended
                })
            };
            let threads: Vec<_> = executors.iter().enumerate().map(start).collect();
            drop(sender);
            let received = receiver.into_iter().try_for_each(&mut *done);
            if received.is_err() {
                supply.stop();
            }
            received?;
            let mut lost = None;
            let mut alive = 0;
            for thread in threads {
                match thread.join().unwrap_or_else(|panic| resume_unwind(panic)) {
                    Ok(()) => alive += 1,
                    Err(Ended::Lost(error)) => lost = Some(error),
                    Err(Ended::Failed(error)) => return Err(error),
                }
            }
            match lost {
                Some(error) if alive == 0 => Err(error.into()),
                _ => Ok(()),
            }
        })
    }
}

fn warn_lost(executor: &dyn Executor, error: &RunError) {
    log::warn!("{} computes no more: {error}. Its batches go to the other devices", executor.describe());
}
