//! How fast the device runs a program, measured from the batches that land: for submissions that neither freeze a desktop
//! nor run into a driver's time limit, and for batches as large as pays.

use super::growth::Growth;
use crate::batch::Batch;
use crate::program::{Cost, Program};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a number that is read or written counts for, in FLOPs: about the ratio of arithmetic to bandwidth of GPUs.
const FLOPS_A_NUMBER: f64 = 40.0;

/// Work a second that a device is taken to do before the first batch has shown more: that of a weak integrated GPU.
const UNKNOWN_RATE: f64 = 1e11;

/// The part of the limit that a submission is planned for. What is queued, the one that runs included, may take all of it.
const MARGIN: f64 = 0.5;

/// No batch is made smaller than this for the sake of the limit.
const LEAST_TOKENS: usize = 256;

/// What a step takes, in FLOPs and what counts like them.
pub(super) fn work(cost: &Cost) -> f64 {
    cost.flops + FLOPS_A_NUMBER * cost.numbers
}

/// The most work of a single step of a program for each token of a text of some length.
pub(super) fn widest_step(program: &Program) -> f64 {
    const TOKENS: usize = 128;
    let mut text = Batch::new();
    text.push(&[0; TOKENS], &[0; TOKENS], 0);
    program.costs(&text).iter().map(work).fold(0.0, f64::max) / TOKENS as f64
}

/// Cuts dispatches into runs of consecutive ones, each of at most `most` work, or of a single dispatch.
pub(super) fn cut(work: &[f64], most: f64) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut sum = 0.0;
    for (i, &work) in work.iter().enumerate() {
        match runs.last_mut() {
            Some(run) if sum + work <= most => run.end = i + 1,
            _ => {
                runs.push(i..i + 1);
                sum = 0.0;
            }
        }
        sum += work;
    }
    runs
}

/// The measured pace of an executor.
#[derive(Debug)]
pub(super) struct Pace {
    /// The most time that what is queued should take; `None`: any.
    limit: Option<Duration>,
    /// The most work of a single step, for each token.
    widest_step: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Work a second.
    rate: f64,
    busy: Duration,
    last_landing: Option<Instant>,
    growth: Growth,
}

impl Pace {
    /// Nothing is known yet. `widest_step` is the most work of a single step, for each token.
    pub fn new(limit: Option<Duration>, widest_step: f64, growth: Growth) -> Pace {
        let state = State { rate: UNKNOWN_RATE, busy: Duration::ZERO, last_landing: None, growth };
        Pace { limit, widest_step, state: Mutex::new(state) }
    }

    /// The runs of dispatches that go as one submission each.
    pub fn submissions(&self, work: &[f64]) -> Vec<Range<usize>> {
        cut(work, self.most_work())
    }

    /// Tokens of the next batch: what suits the device, and of a slow one no more than that a step is a submission, so that
    /// results come by and by.
    pub fn batch_tokens(&self) -> usize {
        let most = (self.most_work() / self.widest_step.max(1.0)) as usize;
        self.lock().growth.tokens().min(most.max(LEAST_TOKENS))
    }

    /// A batch of so many tokens was submitted at `begun`, and has landed now.
    pub fn landed(&self, begun: Instant, tokens: usize, work: f64) {
        let mut state = self.lock();
        let now = Instant::now();
        let waited_until = state.last_landing.map_or(begun, |last| last.max(begun));
        let time = now - waited_until;
        state.last_landing = Some(now);
        state.busy += time;
        state.observe(tokens, work, time, self.limit);
    }

    /// A batch of so many tokens did not fit.
    pub fn out_of_memory(&self, tokens: usize) {
        self.lock().growth.refuse(tokens);
    }

    /// How long the device has computed, by the landings.
    pub fn busy(&self) -> Duration {
        self.lock().busy
    }

    /// How long so much work should take, and the most that all that is queued should; `None`: any.
    pub fn time(&self, work: f64) -> Option<(Duration, Duration)> {
        self.limit.map(|limit| (Duration::from_secs_f64(work / self.lock().rate), limit))
    }

    /// The most work of a submission, and so of a dispatch.
    pub fn most_work(&self) -> f64 {
        self.limit.map_or(f64::INFINITY, |limit| self.lock().rate * limit.as_secs_f64() * MARGIN)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A small batch shows how long the way there and back takes, and nothing of the rate, unless that is higher than was
    /// known. One that takes a good part of the limit counts at once if it is faster, and by and by if it is slower.
    fn observe(&mut self, tokens: usize, work: f64, time: Duration, limit: Option<Duration>) {
        let rate = work / time.as_secs_f64().max(1e-6);
        let is_telling = limit.is_none_or(|limit| time >= limit / 10);
        if rate > self.rate || is_telling {
            self.rate = rate.max(0.8 * self.rate);
        }
        self.growth.landed(tokens, work, time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_every_step_once_within_the_limit() {
        for (work, most) in [(vec![1.0; 10], 3.0), (vec![5.0, 1.0, 1.0, 9.0, 1.0], 4.0), (vec![], 1.0)] {
            let runs = cut(&work, most);
            let steps: Vec<usize> = runs.iter().cloned().flatten().collect();
            assert_eq!(steps, (0..work.len()).collect::<Vec<_>>());
            assert!(runs.iter().all(|run| run.len() == 1 || work[run.clone()].iter().sum::<f64>() <= most));
        }
        assert_eq!(cut(&[1.0; 7], 3.0), [0..3, 3..6, 6..7]);
        assert_eq!(cut(&[1.0; 7], f64::INFINITY).len(), 1);
        assert_eq!(cut(&[1.0; 3], 0.0).len(), 3);
    }

    #[test]
    fn batches_and_submissions_follow_the_measured_rate() {
        let limit = Some(Duration::from_millis(100));
        let pace = Pace::new(limit, 1e7, Growth::new(16_384, 16_384));
        // 50 ms of 1e11 a second.
        assert_eq!((pace.batch_tokens(), pace.submissions(&[1e9; 12])), (500, vec![0..5, 5..10, 10..12]));
        let observe = |work, ms| pace.lock().observe(500, work, Duration::from_millis(ms), limit);
        observe(5e9, 5); // ten times as fast
        assert_eq!((pace.batch_tokens(), pace.submissions(&[1e9; 12]).len()), (5000, 1));
        observe(1e6, 1); // a single short text
        assert_eq!(pace.batch_tokens(), 5000);
        for _ in 0..20 {
            observe(5e9, 100); // another program uses the device, too
        }
        assert_eq!(pace.batch_tokens(), LEAST_TOKENS);
        assert_eq!(Pace::new(None, 1e7, Growth::new(16_384, 16_384)).batch_tokens(), 16_384);
    }

    #[test]
    fn time_between_landings_is_busy_and_time_before_a_submission_is_not() {
        let pace = Pace::new(None, 1.0, Growth::new(1, 1));
        let begun = Instant::now();
        std::thread::sleep(Duration::from_millis(20));
        pace.landed(begun, 1, 1.0);
        let first = pace.busy();
        assert!(first >= Duration::from_millis(20));
        std::thread::sleep(Duration::from_millis(20));
        let submitted = Instant::now();
        pace.landed(submitted, 1, 1.0);
        assert!(pace.busy() - first <= submitted.elapsed());
        pace.landed(begun, 1, 1.0);
        assert!(pace.busy() <= begun.elapsed(), "two in flight at once are counted once");
    }
}
