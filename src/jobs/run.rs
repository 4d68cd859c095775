//! The work on a job: a few threads, each with a part of its own from its first byte to its file, so that reading,
//! tokenising, computing and writing overlap, and memory holds so many parts and no more.

use super::{Claim, Finished, Part, Sink, Source};
use crate::error::{Error, Result};
use crate::job::{Cancel, OnProgress, Progress};
use crate::matrix::Matrix;
use std::collections::VecDeque;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often parts of other processes are looked at, once there is nothing else to do.
const PATIENCE: Duration = Duration::from_millis(100);

/// What is called with the [`JobProgress`] of a job, from any thread.
pub type OnJobProgress = Arc<dyn Fn(&JobProgress) + Send + Sync>;

/// The model's work on rows; it calls the second argument after each batch.
pub type Compute<'a, R> = dyn Fn(&[R], OnProgress) -> Result<Matrix> + Sync + 'a;

/// Which parts a process works on: of `count` shards, the one with this index, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// From 0.
    pub index: usize,
    /// At least 1.
    pub count: usize,
}

/// How a job is worked on.
#[derive(Clone)]
pub struct JobOptions {
    /// Parts in the works at once: two, so that the device computes one while the other is read or written.
    pub parts_at_once: usize,
    /// Only these parts.
    pub shard: Option<Shard>,
    /// Called after each batch.
    pub progress: Option<OnJobProgress>,
    /// Ends the job: parts that are complete by then are kept. Give it to the model's options too, to end within a part.
    pub cancel: Option<Cancel>,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JobProgress {
    /// Parts that are stored, by whomever.
    pub parts_done: usize,
    /// Parts of the job, or of the shard.
    pub parts: usize,
    /// The share of the work that is done, from 0 to 1: by weight, not by rows, since the longest texts of a part go first.
    pub share: f64,
    /// Rows that this process has computed.
    pub rows: u64,
    /// Tokens that this process has computed.
    pub tokens: u64,
    /// Since this process began.
    pub seconds: f64,
    /// Until the end, at the pace of all processes since this one began; `None` at the beginning.
    pub seconds_left: Option<f64>,
}

/// What a process did.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RunReport {
    /// Parts that it stored.
    pub parts: usize,
    /// Rows with a result in them.
    pub rows: u64,
    /// Rows without.
    pub rejected: u64,
    /// Tokens computed.
    pub tokens: u64,
    /// Rows that lost their end.
    pub truncated: u64,
    /// From its beginning to its end.
    pub seconds: f64,
}

impl Default for JobOptions {
    fn default() -> JobOptions {
        JobOptions { parts_at_once: 2, shard: None, progress: None, cancel: None }
    }
}

impl Shard {
    /// Whether a part is one of them.
    pub fn has(self, part: usize) -> bool {
        part % self.count == self.index
    }
}

impl FromStr for Shard {
    type Err = Error;

    /// `1/4` to `4/4`.
    fn from_str(text: &str) -> Result<Shard> {
        let parsed = text.split_once('/').and_then(|(i, n)| Some((i.parse::<usize>().ok()?, n.parse::<usize>().ok()?)));
        match parsed {
            Some((number, count)) if (1..=count).contains(&number) => Ok(Shard { index: number - 1, count }),
            _ => Err(Error::InvalidInput(format!("shard '{text}': give one of 1/N to N/N"))),
        }
    }
}

/// Works on a job until its sink has all parts, or those of the shard. `compute` is the model: it gets a part's rows and
/// what to call after each batch.
///
/// # Errors
/// The first error of the source, the sink or `compute`; [`Error::Cancelled`] once cancelled. Parts that other threads work
/// on at that moment are finished and stored.
pub fn run<S: Source, K: Sink<S>>(
    source: &S,
    sink: &K,
    compute: &Compute<S::Row>,
    options: &JobOptions,
) -> Result<RunReport, S::Error> {
    let mine = |part: &Part| options.shard.is_none_or(|shard| shard.has(part.index));
    let parts: Vec<Part> = source.parts().iter().copied().filter(mine).collect();
    let done = sink.done()?;
    let state = State {
        todo: parts.iter().copied().filter(|part| !done[part.index]).collect(),
        elsewhere: VecDeque::new(),
        error: None,
        report: RunReport::default(),
    };
    let meter = Meter::new(parts, &done, options.progress.clone());
    let run = Run { source, sink, compute, options, state: Mutex::new(state), meter: Arc::new(meter) };
    thread::scope(|scope| {
        for _ in 0..options.parts_at_once.max(1) {
            scope.spawn(|| run.work());
        }
    });
    let state = run.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    let seconds = run.meter.begun.elapsed().as_secs_f64();
    state.error.map_or(Ok(RunReport { seconds, ..state.report }), Err)
}

/// What the threads share.
struct Run<'a, S: Source, K> {
    source: &'a S,
    sink: &'a K,
    compute: &'a Compute<'a, S::Row>,
    options: &'a JobOptions,
    state: Mutex<State<S::Error>>,
    meter: Arc<Meter>,
}

struct State<E> {
    /// Parts that nobody was seen to work on.
    todo: VecDeque<Part>,
    /// Parts that other processes work on.
    elsewhere: VecDeque<Part>,
    /// Ends all threads.
    error: Option<E>,
    report: RunReport,
}

impl<S: Source, K: Sink<S>> Run<'_, S, K> {
    fn work(&self) {
        loop {
            let part = {
                let mut state = lock(&self.state);
                if state.error.is_some() || (state.todo.is_empty() && state.elsewhere.is_empty()) {
                    return;
                }
                state.todo.pop_front()
            };
            let worked = match (self.options.cancel.as_ref().is_some_and(Cancel::is_cancelled), part) {
                (true, _) => Err(self.meter.cancelled().into()),
                (false, Some(part)) => self.part(part),
                (false, None) => self.wait(),
            };
            if let Err(error) = worked {
                lock(&self.state).error.get_or_insert(error);
            }
        }
    }

    /// Other processes have the rest. One that dies leaves its part to this one.
    fn wait(&self) -> Result<(), S::Error> {
        thread::sleep(PATIENCE);
        self.meter.see(&self.sink.done()?);
        let mut state = lock(&self.state);
        let again = std::mem::take(&mut state.elsewhere);
        state.todo.extend(again);
        Ok(())
    }

    fn part(&self, part: Part) -> Result<(), S::Error> {
        let lease = match self.sink.claim(&part)? {
            Claim::Mine(lease) => lease,
            Claim::Done => return Ok(()),
            Claim::Taken => {
                lock(&self.state).elsewhere.push_back(part);
                return Ok(());
            }
        };
        let begun = Instant::now();
        let input = self.source.read(&part)?;
        let last = Arc::new(Mutex::new(Progress::default()));
        let progress = {
            let (last, meter) = (last.clone(), self.meter.clone());
            move |progress: &Progress| {
                let before = std::mem::replace(&mut *lock(&last), *progress);
                meter.batch(&part, &before, progress);
            }
        };
        let output = (self.compute)(&input.rows, Arc::new(progress)).map_err(|error| match error {
            // How far the part was is of no use to anyone.
            Error::Cancelled { .. } => self.meter.cancelled(),
            error => error,
        })?;
        let last = *lock(&last);
        let (tokens, truncated) = (last.tokens as u64, last.truncated as u64);
        let finished = Finished { part, input, output, tokens, truncated, seconds: begun.elapsed().as_secs_f64() };
        self.sink.store(lease, &finished)?;
        {
            let report = &mut lock(&self.state).report;
            report.parts += 1;
            report.rows += finished.input.rows.len() as u64;
            report.rejected += finished.input.rejects.len() as u64;
            report.tokens += tokens;
            report.truncated += truncated;
        }
        self.meter.see(&self.sink.done()?);
        Ok(())
    }
}

/// Measures progress.
struct Meter {
    begun: Instant,
    parts: Vec<Part>,
    /// Of all parts.
    weight: f64,
    /// Of the parts that were there at the beginning.
    before: f64,
    counts: Mutex<Counts>,
    callback: Option<OnJobProgress>,
}

#[derive(Default)]
struct Counts {
    parts_done: usize,
    /// Of the parts that are there.
    done: f64,
    /// Of what is computed of parts that are not: `(part, weight)`.
    under_way: Vec<(usize, f64)>,
    rows: u64,
    tokens: u64,
}

impl Meter {
    fn new(parts: Vec<Part>, done: &[bool], callback: Option<OnJobProgress>) -> Meter {
        let weight = parts.iter().map(weight).sum();
        let counts = Mutex::new(Counts::default());
        let mut meter = Meter { begun: Instant::now(), parts, weight, before: 0.0, counts, callback };
        meter.see(done);
        meter.before = lock(&meter.counts).done;
        meter
    }

    /// What is there by now.
    fn see(&self, done: &[bool]) {
        let mut counts = lock(&self.counts);
        let there = || self.parts.iter().filter(|part| done[part.index]);
        (counts.parts_done, counts.done) = (there().count(), there().map(weight).sum());
        counts.under_way.retain(|(part, _)| !done[*part]);
        self.tell(&counts);
    }

    /// A batch of a part is computed.
    fn batch(&self, part: &Part, before: &Progress, now: &Progress) {
        let mut counts = lock(&self.counts);
        counts.rows += (now.texts - before.texts) as u64;
        counts.tokens += (now.tokens - before.tokens) as u64;
        let computed = weight(part) * now.share();
        match counts.under_way.iter_mut().find(|(index, _)| *index == part.index) {
            Some((_, weight)) => *weight = computed,
            None => counts.under_way.push((part.index, computed)),
        }
        self.tell(&counts);
    }

    fn tell(&self, counts: &Counts) {
        let Some(callback) = &self.callback else { return };
        let done = counts.done + counts.under_way.iter().map(|(_, weight)| weight).sum::<f64>();
        let seconds = self.begun.elapsed().as_secs_f64();
        let pace = (done - self.before) / seconds;
        callback(&JobProgress {
            parts_done: counts.parts_done,
            parts: self.parts.len(),
            share: (done / self.weight).min(1.0),
            rows: counts.rows,
            tokens: counts.tokens,
            seconds,
            seconds_left: (pace > 0.0).then(|| (self.weight - done).max(0.0) / pace),
        });
    }

    fn cancelled(&self) -> Error {
        let total = self.parts.iter().map(|part| part.rows as usize).sum();
        Error::Cancelled { done: lock(&self.counts).rows as usize, total }
    }
}

/// A part without text is some work too.
fn weight(part: &Part) -> f64 {
    (part.weight + part.rows + 1) as f64
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
