//! The threads, and the queue they take batches from.

use super::Model;
use super::interpreter::Workspace;
use super::team::{Meeting, Team};
use crate::batch::Batch;
use crate::error::RunError;
use crate::executor::Completion;
use crate::matrix::Matrix;
use crate::program::{Output, Plan, Rows};
use futures::channel::oneshot;
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A batch, and what to do with it.
pub struct Job {
    pub batch: Batch,
    pub work: Work,
}

/// What a batch is computed for, and where the result goes.
pub enum Work {
    /// One output.
    Run(Output, Completion),
    /// Every step's value.
    Trace(oneshot::Sender<Result<Vec<Matrix>, RunError>>),
    /// Every step's time: 0 for one that the sentences do not need.
    Profile(oneshot::Sender<Result<Vec<Duration>, RunError>>),
}

/// Blocks until a worker answers.
pub fn wait<T>(receiver: oneshot::Receiver<Result<T, RunError>>) -> Result<T, RunError> {
    pollster::block_on(receiver).unwrap_or_else(|_| Err(RunError::DeviceLost("the cpu executor stopped".into())))
}

/// The running threads.
pub struct Workers {
    queue: Arc<Queue>,
    pools: Vec<ThreadPool>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    /// As many as `state` has; for threads that help, to see without the lock that there is work of their own.
    waiting: AtomicUsize,
    meeting: Meeting,
    /// Nanoseconds that the threads have computed, without what they helped each other.
    busy: AtomicU64,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Waiting>,
    /// Threads that have no job.
    idle: usize,
    closed: bool,
}

struct Waiting {
    job: Job,
    /// Jobs that came later and went ahead.
    overtaken: usize,
}

/// A batch so many times as large lets a later one go ahead: someone asks for a text while a long job runs.
const TIMES_AS_LARGE: usize = 8;

/// So often, lest it wait forever.
const MOST_OVERTAKEN: usize = 16;

impl State {
    fn push(&mut self, job: Job) {
        let tokens = job.batch.tokens();
        let lets_ahead = |waiting: &&Waiting| {
            waiting.job.batch.tokens() >= TIMES_AS_LARGE * tokens.max(1) && waiting.overtaken < MOST_OVERTAKEN
        };
        let at = self.jobs.len() - self.jobs.iter().rev().take_while(lets_ahead).count();
        self.jobs.range_mut(at..).for_each(|waiting| waiting.overtaken += 1);
        self.jobs.insert(at, Waiting { job, overtaken: 0 });
    }
}

impl Workers {
    /// Starts `count` threads that run batches of `model`. Each is a rayon pool of its own, because rten-gemm (int8 where
    /// there is no `linear_dot`) spreads over the pool that it is called in, and goes without rayon in a pool of one.
    pub fn start(count: usize, model: &Arc<Model>) -> Result<Workers, ThreadPoolBuildError> {
        let mut workers = Workers { queue: Arc::default(), pools: Vec::new(), threads: Vec::new() };
        for i in 0..count {
            let threads = &mut workers.threads;
            let pool = ThreadPoolBuilder::new()
                .num_threads(1)
                .spawn_handler(|thread| {
                    let builder = std::thread::Builder::new().name(format!("lexel-cpu-{i}"));
                    threads.push(builder.spawn(|| thread.run())?);
                    Ok(())
                })
                .build()?;
            let (queue, model) = (workers.queue.clone(), model.clone());
            pool.spawn(move || Worker::new(model).run(&queue));
            workers.pools.push(pool);
        }
        Ok(workers)
    }

    /// How many there are.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// How long they have computed, all together.
    pub fn busy(&self) -> Duration {
        Duration::from_nanos(self.queue.busy.load(Ordering::Relaxed))
    }

    /// Puts a job into the queue: at its end, but ahead of much larger ones.
    pub fn push(&self, job: Job) {
        let mut state = self.queue.lock();
        state.push(job);
        self.queue.waiting.store(state.jobs.len(), Ordering::Release);
        // To an idle executor: the others will help.
        let is_alone = state.idle == self.threads() && state.jobs.len() == 1;
        drop(state);
        match is_alone {
            true => self.queue.changed.notify_all(),
            false => self.queue.changed.notify_one(),
        }
    }
}

impl Drop for Workers {
    /// Waits for the batches that run, at most one a thread; the others are dropped, which tells their callers.
    fn drop(&mut self) {
        let abandoned = {
            let mut state = self.queue.lock();
            state.closed = true;
            self.queue.waiting.store(1, Ordering::Release);
            std::mem::take(&mut state.jobs)
        };
        self.queue.changed.notify_all();
        drop(abandoned);
        self.pools.clear();
        for thread in self.threads.drain(..) {
            // The last handle may be dropped by a caller that a worker itself woke; a thread cannot join itself.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds this lock, and the state is valid after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job, and who computes it; `None` once the executor is dropped. Until there is one, the thread helps others.
    fn pop(&self) -> Option<(Job, Team<'_>)> {
        let mut state = self.lock();
        state.idle += 1;
        loop {
            if state.closed {
                return None;
            }
            if let Some(Waiting { job, .. }) = state.jobs.pop_front() {
                self.waiting.store(state.jobs.len(), Ordering::Release);
                state.idle -= 1;
                if !state.jobs.is_empty() {
                    return Some((job, Team::ALONE));
                }
                // Those that are idle help now, the others when they become so.
                let (team, are_idle) = (self.meeting.lead(), state.idle > 0);
                drop(state);
                if are_idle {
                    self.changed.notify_all();
                }
                return Some((job, team));
            }
            if self.meeting.wants_help() {
                drop(state);
                self.meeting.help(|| self.waiting.load(Ordering::Acquire) > 0);
                state = self.lock();
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

/// One thread's own things.
struct Worker {
    model: Arc<Model>,
    plan: Plan,
    /// For each output, the steps that it needs.
    needed: [Vec<bool>; 2],
    workspace: Workspace,
}

impl Worker {
    fn new(model: Arc<Model>) -> Worker {
        let plan = Plan::reusing(&model.program);
        let needed = [Output::Sentences, Output::Tokens].map(|output| model.program.needed(output));
        Worker { model, plan, needed, workspace: Workspace::default() }
    }

    fn run(mut self, queue: &Queue) {
        while let Some((Job { batch, work }, team)) = queue.pop() {
            // A receiver that is gone gets nothing: an `Err` from `send` is no error.
            match work {
                Work::Run(_, completion) if completion.is_canceled() => {}
                Work::Run(output, completion) => {
                    let begun = Instant::now();
                    let result = self.guarded(|worker| worker.compute(&batch, output, &team));
                    queue.busy.fetch_add(begun.elapsed().as_nanos() as u64, Ordering::Relaxed);
                    // Before the caller can submit its next batch, which may need a leader.
                    drop(team);
                    let _ = completion.send(result);
                }
                Work::Trace(sender) => {
                    let _ = sender.send(self.guarded(|worker| Ok(worker.trace(&batch))));
                }
                Work::Profile(sender) => {
                    let _ = sender.send(self.guarded(|worker| Ok(worker.profile(&batch))));
                }
            }
        }
    }

    /// A panic becomes an error of this batch; the thread goes on with a new workspace.
    fn guarded<T>(&mut self, run: impl FnOnce(&mut Worker) -> Result<T, RunError>) -> Result<T, RunError> {
        catch_unwind(AssertUnwindSafe(|| run(self))).unwrap_or_else(|panic| {
            self.workspace = Workspace::default();
            let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(RunError::DeviceLost(format!("a cpu thread panicked: {text}")))
        })
    }

    fn compute(&mut self, batch: &Batch, output: Output, team: &Team<'_>) -> Result<Matrix, RunError> {
        let needed = &self.needed[output as usize];
        self.model.pass(&self.plan, team, batch).run(needed, &mut self.workspace, |_| ());
        let value = self.model.program.output(output);
        let shape = self.model.program.shape(value);
        let rows = shape.rows_in(batch.tokens(), batch.sequences());
        let data = &self.workspace.buffers[self.plan.buffer_of[value.index()]][..rows * shape.cols];
        check_finite(data, shape.rows, shape.cols, batch)?;
        Ok(Matrix::new(rows, shape.cols, data.to_vec()))
    }

    fn trace(&mut self, batch: &Batch) -> Vec<Matrix> {
        let plan = Plan::keeping_all(&self.model.program);
        let mut workspace = Workspace::default();
        let all = vec![true; self.model.program.steps.len()];
        self.model.pass(&plan, &Team::ALONE, batch).run(&all, &mut workspace, |_| ());
        let shapes = self.model.program.steps.iter().map(|step| step.shape);
        let matrix = |(shape, data): (crate::program::Shape, Vec<f32>)| {
            Matrix::new(shape.rows_in(batch.tokens(), batch.sequences()), shape.cols, data)
        };
        shapes.zip(workspace.buffers).map(matrix).collect()
    }

    fn profile(&mut self, batch: &Batch) -> Vec<Duration> {
        let mut times = vec![Duration::ZERO; self.model.program.steps.len()];
        let mut last = Instant::now();
        let needed = &self.needed[Output::Sentences as usize];
        self.model.pass(&self.plan, &Team::ALONE, batch).run(needed, &mut self.workspace, |i| {
            let now = Instant::now();
            times[i] = now - last;
            last = now;
        });
        times
    }
}

/// Names the first sequence with a NaN or an infinity.
fn check_finite(data: &[f32], rows: Rows, cols: usize, batch: &Batch) -> Result<(), RunError> {
    match data.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(element) => {
            let row = element / cols;
            let sequence = match rows {
                Rows::Sequences => row,
                Rows::Tokens => batch.starts.partition_point(|&start| start as usize <= row) - 1,
            };
            Err(RunError::NotFinite { sequence })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::tests::batch;

    fn job(tokens: usize) -> Job {
        Job { batch: batch(&[tokens]), work: Work::Profile(oneshot::channel().0) }
    }

    fn tokens(state: &State) -> Vec<usize> {
        state.jobs.iter().map(|waiting| waiting.job.batch.tokens()).collect()
    }

    #[test]
    fn a_small_batch_goes_ahead_of_much_larger_ones_and_those_do_not_wait_forever() {
        let mut state = State::default();
        [512, 400, 9, 10, 300].into_iter().for_each(|tokens| state.push(job(tokens)));
        assert_eq!(tokens(&state), [9, 10, 512, 400, 300]);
        for _ in 0..20 {
            state.jobs.pop_front();
            state.push(job(9));
        }
        assert!(!tokens(&state).contains(&512) && !tokens(&state).contains(&400), "{:?}", tokens(&state));
    }
}
