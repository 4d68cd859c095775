//! The work on a job: a few threads, each with a part of its own from its first byte to its file, so that reading,
//! tokenising, computing and writing overlap, and memory holds so many parts and no more.

use super::meter::{Meter, OnJobProgress};
use super::{Claim, Finished, Part, Results, Sink, Source, Unfinished};
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

/// How often they are, for the sake of progress, while there is: to list a folder of many parts takes time.
const CURIOSITY: Duration = Duration::from_secs(1);

/// The model's work on rows; it calls the second argument after each batch.
pub type Compute<'a, R, O = Matrix> = dyn Fn(&[R], OnProgress) -> Result<O> + Sync + 'a;

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
    /// Ends the job: parts that are complete by then are kept. Give it to the model's options too, to end within a part: then
    /// the sink saves what is computed of that.
    pub cancel: Option<Cancel>,
}

/// What a process did.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RunReport {
    /// Parts that it stored.
    pub parts: usize,
    /// Rows with a result in them, without those that a cancelled process had saved.
    pub rows: u64,
    /// Rows without a result.
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
/// The first error of the source, the sink or `compute`. Parts that other threads work on at that moment are finished and
/// stored. [`Error::Cancelled`] once cancelled.
pub fn run<S: Source, O: Results, K: Sink<S, O>>(
    source: &S,
    sink: &K,
    compute: &Compute<S::Row, O>,
    options: &JobOptions,
) -> Result<RunReport, S::Error> {
    let mine = |part: &Part| options.shard.is_none_or(|shard| shard.has(part.index));
    let parts: Vec<Part> = source.parts().iter().copied().filter(mine).collect();
    let done = sink.done()?;
    let state = State {
        todo: parts.iter().copied().filter(|part| !done[part.index]).collect(),
        elsewhere: VecDeque::new(),
        looked: Instant::now(),
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
struct Run<'a, S: Source, K, O> {
    source: &'a S,
    sink: &'a K,
    compute: &'a Compute<'a, S::Row, O>,
    options: &'a JobOptions,
    state: Mutex<State<S::Error>>,
    meter: Arc<Meter>,
}

struct State<E> {
    /// Parts that nobody was seen to work on.
    todo: VecDeque<Part>,
    /// Parts that other processes work on.
    elsewhere: VecDeque<Part>,
    /// When the sink was last asked what is there.
    looked: Instant,
    /// Ends all threads.
    error: Option<E>,
    report: RunReport,
}

impl<S: Source, O: Results, K: Sink<S, O>> Run<'_, S, K, O> {
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
            Claim::Done => {
                self.meter.stored(&part);
                return Ok(());
            }
            Claim::Taken => {
                lock(&self.state).elsewhere.push_back(part);
                return Ok(());
            }
        };
        let begun = Instant::now();
        let mut input = self.source.read(&part)?;
        let saved = if O::ARE_SAVED { self.sink.saved(&lease, &part)? } else { None };
        let saved = saved.filter(|saved| saved.is_of(input.rows.len()));
        let mut work = saved.unwrap_or_default();
        let before = (work.results.rows.len() as u64, work.tokens, work.truncated);
        let computed = self.compute(&part, &mut input.rows, &mut work);
        work.seconds += begun.elapsed().as_secs_f64();
        let (missing, computed) = match computed {
            Ok(computed) => computed,
            Err(Error::Cancelled { .. }) => {
                if !work.results.rows.is_empty() {
                    self.sink.save(&lease, &part, &work)?;
                }
                // How far the part was is of no use to anyone.
                return Err(self.meter.cancelled().into());
            }
            Err(error) => return Err(error.into()),
        };
        let Unfinished { results, tokens, truncated, seconds, .. } = work;
        let output = O::complete(results, missing, computed);
        let finished = Finished { part, input, output, tokens, truncated, seconds };
        self.sink.store(lease, &finished)?;
        self.meter.stored(&part);
        let look = {
            let mut state = lock(&self.state);
            let report = &mut state.report;
            report.parts += 1;
            report.rows += finished.input.rows.len() as u64 - before.0;
            report.rejected += finished.input.rejects.len() as u64;
            report.tokens += tokens - before.1;
            report.truncated += truncated - before.2;
            let look = state.looked.elapsed() >= CURIOSITY;
            if look {
                state.looked = Instant::now();
            }
            look
        };
        if look {
            self.meter.see(&self.sink.done()?);
        }
        Ok(())
    }

    /// Computes the rows that `work` lacks, and says which they are. Once cancelled, it has those that were ready.
    fn compute(&self, part: &Part, rows: &mut Vec<S::Row>, work: &mut Unfinished) -> Result<(Vec<usize>, O)> {
        let (missing, share) = (work.results.missing(rows.len()), work.share);
        let last = Arc::new(Mutex::new(Progress::default()));
        let progress = {
            let (last, meter, part) = (last.clone(), self.meter.clone(), *part);
            move |progress: &Progress| {
                let before = std::mem::replace(&mut *lock(&last), *progress);
                meter.batch(&part, &before, progress, share + (1.0 - share) * progress.share());
            }
        };
        let computed = match missing.len() == rows.len() {
            true => (self.compute)(rows, Arc::new(progress)),
            false => {
                self.meter.resume(part, share);
                with_some(rows, &missing, |rows| (self.compute)(rows, Arc::new(progress)))
            }
        };
        let last = *lock(&last);
        work.tokens += last.tokens as u64;
        work.truncated += last.truncated as u64;
        work.share = share + (1.0 - share) * last.share();
        match computed {
            Ok(results) => Ok((missing, results)),
            Err(Error::Cancelled { done, total, results: Some(some) }) => {
                work.results.append(some.rows.iter().map(|&row| missing[row]), some.matrix);
                Err(Error::Cancelled { done, total, results: None })
            }
            Err(error) => Err(error),
        }
    }
}

/// Calls `work` with the rows at these places, ascending.
fn with_some<R, T>(rows: &mut Vec<R>, places: &[usize], work: impl FnOnce(&[R]) -> T) -> T {
    let mut all: Vec<Option<R>> = rows.drain(..).map(Some).collect();
    let some: Vec<R> = places.iter().filter_map(|&place| all[place].take()).collect();
    let result = work(&some);
    for (&place, row) in places.iter().zip(some) {
        all[place] = Some(row);
    }
    rows.extend(all.into_iter().flatten());
    result
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::{JobFile, JobFolder, PartRows, equal_parts};
    use crate::sparse_matrix::SparseMatrix;
    use std::io::Write;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Rows that are their own numbers.
    struct Numbers(Vec<Part>);

    impl Source for Numbers {
        type Row = u64;
        type Extra = ();
        type Error = Error;

        fn parts(&self) -> &[Part] {
            &self.0
        }

        fn read(&self, part: &Part) -> Result<PartRows<u64, ()>> {
            let rows = (part.first_row..part.first_row + part.rows).collect();
            Ok(PartRows { rows, numbers: (0..part.rows).collect(), rejects: Vec::new(), extra: () })
        }
    }

    #[test]
    fn a_part_of_sparse_results_that_is_cancelled_starts_over() {
        let (source, folder) = (Numbers(equal_parts(10, 4)), tempfile::tempdir().unwrap());
        let job = JobFile::new([("model".to_string(), "none".into())], source.parts());
        let folder = JobFolder::begin(folder.path(), &job, "txt", "any").unwrap();
        let sink = folder.sink(|file, path, finished: &Finished<Numbers, SparseMatrix>| {
            let lines: String =
                finished.output.iter().map(|(indices, values)| format!("{indices:?} {values:?}\n")).collect();
            (&*file).write_all(lines.as_bytes()).map_err(Error::io(path))
        });
        let calls = AtomicUsize::new(0);
        // The second part is cancelled the first time.
        let compute = |rows: &[u64], _: OnProgress| {
            if calls.fetch_add(1, Ordering::Relaxed) == 1 {
                return Err(Error::Cancelled { done: 2, total: rows.len(), results: None });
            }
            let mut matrix = SparseMatrix::new(10);
            rows.iter().for_each(|&row| matrix.push_row(&[row as u32], &[row as f32 + 0.5]));
            Ok(matrix)
        };
        let options = JobOptions { parts_at_once: 1, ..JobOptions::default() };
        assert!(matches!(run(&source, &sink, &compute, &options), Err(Error::Cancelled { .. })));
        assert_eq!((folder.done().unwrap(), folder.saved_rows()), (vec![true, false, false], 0));
        let report = run(&source, &sink, &compute, &options).unwrap();
        assert_eq!((report.parts, report.rows), (2, 6));
        assert_eq!(folder.finish().unwrap().rows, 10);
        let last = std::fs::read_to_string(folder.path().join("part-00002.txt")).unwrap();
        assert_eq!(last, "[8] [8.5]\n[9] [9.5]\n");
    }
}
