//! Sequences to batches to an executor, and the results back: tokenising the next batch, computing this one and reading
//! back the last overlap.

use crate::batch::Batch;
use crate::error::{Error, Result, RunError};
use crate::executor::{Executor, Pending};
use crate::matrix::Matrix;
use crate::program::Output;
use std::sync::mpsc::{self, SyncSender};
use std::thread;

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
    /// Computes the batches.
    pub executor: &'a dyn Executor,
    /// Which value comes back.
    pub output: Output,
    /// As [`Batch::padding`].
    pub padding: Option<u32>,
    /// Tokens a batch; a longer sequence is a batch by itself. `None`: what suits the executor.
    pub batch_tokens: Option<usize>,
}

/// Sequences that go as one batch.
struct Work {
    keys: Vec<usize>,
    batch: Batch,
}

impl Work {
    fn new(padding: Option<u32>) -> Work {
        Work { keys: Vec::new(), batch: Batch::with_padding(padding) }
    }

    /// Two works of about half the tokens; `None` for a single sequence.
    fn halves(self) -> Option<(Work, Work)> {
        let (first, second) = self.batch.halves()?;
        let mut keys = self.keys;
        let second_keys = keys.split_off(first.sequences());
        Some((Work { keys, batch: first }, Work { keys: second_keys, batch: second }))
    }
}

impl Scheduler<'_> {
    /// Runs everything that `chunks` yields, in its order, and hands each finished batch to `done`. `chunks` runs on a
    /// thread of its own, ahead of the executor by the batches that it takes in flight and no more. An error of either
    /// side ends the run.
    ///
    /// A batch that does not fit the device's memory is halved and tried again, and the batches after it stay smaller.
    ///
    /// # Errors
    /// The first error of `chunks`, of `done` or of the executor.
    pub fn run<C>(&self, chunks: C, mut done: impl FnMut(Finished) -> Result<()>) -> Result<()>
    where
        C: Iterator<Item = Result<Vec<Sequence>>> + Send,
    {
        // Besides those in the channel, one batch is being waited for and one waits for room in the channel.
        let (sender, receiver) = mpsc::sync_channel(self.executor.in_flight().saturating_sub(2));
        let scheduler = *self;
        thread::scope(|scope| {
            let producer = scope.spawn(move || scheduler.produce(chunks, &mut |work| scheduler.launch(work, &sender)));
            for (work, pending) in receiver {
                self.finish(work, pending, &mut done)?;
            }
            producer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// The same on the calling thread alone, for a few sequences: no thread is started.
    pub fn run_few(&self, sequences: Vec<Sequence>, mut done: impl FnMut(Finished) -> Result<()>) -> Result<()> {
        let (sender, receiver) = mpsc::sync_channel(sequences.len());
        self.produce(std::iter::once(Ok(sequences)), &mut |work| self.launch(work, &sender))?;
        drop(sender);
        receiver.into_iter().try_for_each(|(work, pending)| self.finish(work, pending, &mut done))
    }

    /// Cuts the sequences into batches and launches each. `launch` answers with the budget from then on, or `None` when
    /// nobody waits for results any more.
    fn produce(
        &self,
        chunks: impl Iterator<Item = Result<Vec<Sequence>>>,
        launch: &mut dyn FnMut(Work) -> Result<Option<usize>>,
    ) -> Result<()> {
        let mut chunks = chunks.peekable();
        let mut budget = self.batch_tokens.unwrap_or_else(|| self.executor.batch_tokens()).max(1);
        let mut work = Work::new(self.padding);
        let mut first = true;
        while let Some(chunk) = chunks.next() {
            let chunk = chunk?;
            if std::mem::take(&mut first) && chunks.peek().is_none() {
                // A short job: as many batches as the executor computes side by side.
                let tokens: usize = chunk.iter().map(|sequence| sequence.ids.len()).sum();
                budget = budget.min(tokens.div_ceil(self.executor.lanes())).max(1);
            }
            for sequence in chunk {
                if !work.keys.is_empty() && work.batch.tokens() + sequence.ids.len() > budget {
                    match launch(std::mem::replace(&mut work, Work::new(self.padding)))? {
                        Some(largest) => budget = budget.min(largest),
                        None => return Ok(()),
                    }
                }
                work.keys.push(sequence.key);
                work.batch.push(&sequence.ids, &sequence.types, sequence.skip);
            }
        }
        if !work.keys.is_empty() {
            launch(work)?;
        }
        Ok(())
    }

    /// Submits a batch, in halves if it does not fit. Answers with the most tokens that a batch may have from now on.
    fn launch(&self, work: Work, sender: &SyncSender<(Work, Pending)>) -> Result<Option<usize>> {
        // A copy of a few kilobytes, so that a batch which does not fit can be halved.
        match self.executor.submit(work.batch.clone(), self.output) {
            Ok(pending) => Ok(sender.send((work, pending)).ok().map(|()| usize::MAX)),
            Err(error @ RunError::OutOfMemory { .. }) => {
                let tokens = work.batch.tokens();
                let (first, second) = work.halves().ok_or(error)?;
                log::warn!("a batch of {tokens} tokens does not fit the device's memory: halving the batch size");
                let (first, second) = (self.launch(first, sender)?, self.launch(second, sender)?);
                Ok(first.zip(second).map(|(a, b)| a.min(b).min(tokens.div_ceil(2))))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for a batch; one that turns out not to fit is computed in halves.
    fn finish(&self, work: Work, pending: Pending, done: &mut dyn FnMut(Finished) -> Result<()>) -> Result<()> {
        match pending.wait() {
            Ok(rows) => done(Finished { keys: work.keys, batch: work.batch, rows }),
            Err(error @ RunError::OutOfMemory { .. }) => {
                let (first, second) = work.halves().ok_or(error)?;
                for half in [first, second] {
                    let pending = self.executor.submit(half.batch.clone(), self.output)?;
                    self.finish(half, pending, done)?;
                }
                Ok(())
            }
            Err(error) => Err(Error::from(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Gives each sequence its first id, and refuses batches beyond `limit` tokens.
    struct Echo {
        limit: usize,
        lanes: usize,
        batches: Mutex<Vec<usize>>,
    }

    impl Echo {
        fn new(limit: usize, lanes: usize) -> Echo {
            Echo { limit, lanes, batches: Mutex::new(Vec::new()) }
        }
    }

    impl Executor for Echo {
        fn submit(&self, batch: Batch, _: Output) -> Result<Pending, RunError> {
            if batch.tokens() > self.limit {
                return Err(RunError::OutOfMemory { tokens: batch.tokens(), needed: 2, granted: 1 });
            }
            self.batches.lock().unwrap().push(batch.tokens());
            let rows = (0..batch.sequences()).map(|s| batch.ids[batch.range(s).start] as f32).collect();
            let (completion, pending) = Pending::new();
            completion.send(Ok(Matrix::new(batch.sequences(), 1, rows))).unwrap();
            Ok(pending)
        }

        fn trace(&self, _: &Batch) -> Result<Vec<Matrix>, RunError> {
            Ok(Vec::new())
        }

        fn profile(&self, _: &Batch) -> Result<Vec<std::time::Duration>, RunError> {
            Ok(Vec::new())
        }

        fn in_flight(&self) -> usize {
            3
        }

        fn lanes(&self) -> usize {
            self.lanes
        }

        fn batch_tokens(&self) -> usize {
            100
        }

        fn describe(&self) -> String {
            "echo".into()
        }
    }

    fn sequences(count: usize, length: usize) -> Vec<Sequence> {
        let sequence = |key: usize| Sequence { key, ids: vec![key as u32; length], types: vec![0; length], skip: 0 };
        (0..count).map(sequence).collect()
    }

    /// Runs chunks of sequences and checks that each comes back once, with its own result.
    fn check(echo: &Echo, chunks: Vec<Vec<Sequence>>) {
        let expected: usize = chunks.iter().map(Vec::len).sum();
        let mut seen = vec![0; expected];
        let scheduler = Scheduler { executor: echo, output: Output::Sentences, padding: None, batch_tokens: None };
        scheduler
            .run(chunks.into_iter().map(Ok), |finished| {
                for (i, &key) in finished.keys.iter().enumerate() {
                    assert_eq!(finished.rows.row(i), [key as f32]);
                    seen[key] += 1;
                }
                Ok(())
            })
            .unwrap();
        assert!(seen.iter().all(|&times| times == 1), "{seen:?}");
    }

    #[test]
    fn every_sequence_comes_back_once_in_batches_of_the_budget() {
        let echo = Echo::new(usize::MAX, 1);
        let mut all = sequences(50, 30);
        let tail = all.split_off(40);
        check(&echo, vec![all, tail]);
        assert_eq!(*echo.batches.lock().unwrap(), [vec![90; 16], vec![60]].concat());
    }

    #[test]
    fn a_batch_that_does_not_fit_is_halved_and_the_budget_with_it() {
        let echo = Echo::new(60, 1);
        check(&echo, vec![sequences(20, 20), sequences(0, 0)]);
        let batches = echo.batches.lock().unwrap();
        assert!(batches.iter().all(|&tokens| tokens <= 60));
    }

    #[test]
    fn a_sequence_that_does_not_fit_alone_is_an_error_with_the_sizes() {
        let echo = Echo::new(60, 1);
        let scheduler = Scheduler { executor: &echo, output: Output::Sentences, padding: None, batch_tokens: None };
        let error = scheduler.run(std::iter::once(Ok(sequences(2, 70))), |_| Ok(())).unwrap_err();
        assert!(matches!(error, Error::Run(RunError::OutOfMemory { tokens: 70, .. })), "{error}");
    }

    #[test]
    fn a_short_job_is_spread_over_the_lanes() {
        let echo = Echo::new(usize::MAX, 4);
        check(&echo, vec![sequences(8, 5)]);
        assert_eq!(*echo.batches.lock().unwrap(), [10, 10, 10, 10]);
    }

    #[test]
    fn an_error_of_the_caller_ends_the_run() {
        let echo = Echo::new(usize::MAX, 1);
        let scheduler = Scheduler { executor: &echo, output: Output::Sentences, padding: None, batch_tokens: Some(10) };
        let stop = |_| Err(Error::Cancelled { done: 0, total: 1000, results: None });
        let endless = std::iter::repeat_with(|| Ok(sequences(10, 10)));
        assert!(matches!(scheduler.run(endless, stop), Err(Error::Cancelled { .. })));
    }
}
