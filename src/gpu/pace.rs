//! How fast the device runs a program, measured from what it has done: for submissions that neither freeze a desktop nor run
//! into a driver's time limit, and for batches as large as pays.

use super::growth::Growth;
use super::work::{KINDS, Work};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Work a second that a device is taken to do before something has shown more: that of a weak integrated GPU.
const UNKNOWN_RATE: f64 = 1e11;

/// The part of the limit that a submission is planned for. What is queued, the one that runs included, may take all of it.
const MARGIN: f64 = 0.5;

/// Submissions that are looked at together: one that is seen late makes the next one seem short.
const TOGETHER: usize = 4;

/// No batch is made smaller than this for the sake of the limit.
const LEAST_TOKENS: usize = 256;

/// Cuts dispatches that take so many seconds into runs of consecutive ones, each of at most `most`, or of a single dispatch.
pub(super) fn cut(seconds: impl Iterator<Item = f64>, most: f64) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut sum = 0.0;
    for (i, seconds) in seconds.enumerate() {
        match runs.last_mut() {
            Some(run) if sum + seconds <= most => run.end = i + 1,
            _ => {
                runs.push(i..i + 1);
                sum = 0.0;
            }
        }
        sum += seconds;
    }
    runs
}

/// The measured pace of an executor.
#[derive(Debug)]
pub(super) struct Pace {
    /// The most time that what is queued should take; `None`: any.
    limit: Option<Duration>,
    /// The most work of a single step of each kind, for each token.
    widest_steps: Work,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// How long a unit of work takes, of each kind.
    seconds: [f64; KINDS],
    /// Submissions that are to be looked at.
    done: Vec<(Work, Duration)>,
    busy: Duration,
    last_landing: Option<Instant>,
    growth: Growth,
}

impl Pace {
    /// Nothing is known yet.
    pub fn new(limit: Option<Duration>, widest_steps: Work, growth: Growth) -> Pace {
        let (seconds, done) = ([1.0 / UNKNOWN_RATE; KINDS], Vec::new());
        let state = State { seconds, done, busy: Duration::ZERO, last_landing: None, growth };
        Pace { limit, widest_steps, state: Mutex::new(state) }
    }

    /// The most time that what is queued should take; `None`: any.
    pub fn limit(&self) -> Option<Duration> {
        self.limit
    }

    /// The seconds that a submission, and so a dispatch, should take at most.
    pub fn most_seconds(&self) -> f64 {
        self.limit.map_or(f64::INFINITY, |limit| limit.as_secs_f64() * MARGIN)
    }

    /// How many seconds each work should take.
    pub fn seconds(&self, works: &[Work]) -> Vec<f64> {
        let state = self.lock();
        works.iter().map(|work| state.seconds(work)).collect()
    }

    /// Tokens of the next batch: what suits the device, and of a slow one no more than that a step is a submission, so that
    /// results come by and by.
    pub fn batch_tokens(&self) -> usize {
        let state = self.lock();
        let widest = state.shares(&self.widest_steps).into_iter().fold(0.0, f64::max);
        let most = (self.most_seconds() / widest.max(f64::MIN_POSITIVE)) as usize;
        state.growth.tokens().min(most.max(LEAST_TOKENS))
    }

    /// A submission has kept the device for so long.
    pub fn done(&self, work: Work, time: Duration) {
        let mut state = self.lock();
        state.done.push((work, time));
        if state.done.len() == TOGETHER {
            let (works, times): (Vec<Work>, Vec<Duration>) = state.done.drain(..).unzip();
            state.observe(&works.into_iter().sum(), times.iter().sum(), self.limit);
        }
    }

    /// A batch of so many tokens was submitted at `begun`, and has landed now.
    pub fn landed(&self, begun: Instant, tokens: usize, work: &Work) {
        let mut state = self.lock();
        let now = Instant::now();
        let waited_until = state.last_landing.map_or(begun, |last| last.max(begun));
        let time = now - waited_until;
        state.last_landing = Some(now);
        state.busy += time;
        state.growth.landed(tokens, work.total(), time);
    }

    /// A batch of so many tokens did not fit, or was not done.
    pub fn refused(&self, tokens: usize) {
        self.lock().growth.refuse(tokens);
    }

    /// How long the device has computed, by the landings.
    pub fn busy(&self) -> Duration {
        self.lock().busy
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Seconds that work should take, of each kind.
    fn shares(&self, work: &Work) -> [f64; KINDS] {
        std::array::from_fn(|kind| work.0[kind] * self.seconds[kind])
    }

    fn seconds(&self, work: &Work) -> f64 {
        self.shares(work).iter().sum()
    }

    /// What took another time than it should have: the kinds are to blame in proportion to their shares of it.
    ///
    /// Little work shows how long the way there and back takes, and nothing of the speed, unless that is higher than was known.
    fn observe(&mut self, work: &Work, time: Duration, limit: Option<Duration>) {
        let shares = self.shares(work);
        let expected: f64 = shares.iter().sum();
        let largest = shares.into_iter().fold(0.0, f64::max);
        let ratio = time.as_secs_f64() / expected;
        let is_telling = limit.is_none_or(|limit| time >= limit / 10);
        if largest > 0.0 && (ratio < 1.0 || is_telling) {
            for (seconds, share) in self.seconds.iter_mut().zip(shares) {
                *seconds *= ratio.clamp(0.25, 4.0).powf(share / largest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_every_step_once_within_the_limit() {
        for (work, most) in [(vec![1.0; 10], 3.0), (vec![5.0, 1.0, 1.0, 9.0, 1.0], 4.0), (vec![], 1.0)] {
            let runs = cut(work.iter().copied(), most);
            let steps: Vec<usize> = runs.iter().cloned().flatten().collect();
            assert_eq!(steps, (0..work.len()).collect::<Vec<_>>());
            assert!(runs.iter().all(|run| run.len() == 1 || work[run.clone()].iter().sum::<f64>() <= most));
        }
        assert_eq!(cut([1.0; 7].into_iter(), 3.0), [0..3, 3..6, 6..7]);
        assert_eq!(cut([1.0; 7].into_iter(), f64::INFINITY).len(), 1);
        assert_eq!(cut([1.0; 3].into_iter(), 0.0).len(), 3);
    }

    #[test]
    fn batches_and_submissions_follow_the_measured_rate() {
        let limit = Some(Duration::from_millis(100));
        let products = |amount| Work([amount, 0.0, 0.0, 0.0]);
        let pace = Pace::new(limit, products(1e7), Growth::new(16_384, 16_384));
        let submissions = || cut(pace.seconds(&[products(1e9); 12]).into_iter(), pace.most_seconds() * (1.0 + 1e-9));
        // 50 ms of 1e11 a second.
        assert_eq!((pace.batch_tokens(), submissions()), (500, vec![0..5, 5..10, 10..12]));
        let done = |work, ms| (0..4).for_each(|_| pace.done(products(work), Duration::from_millis(ms)));
        (0..3).for_each(|_| done(5e9, 5)); // ten times as fast
        assert!((4900..5001).contains(&pace.batch_tokens()) && submissions().len() == 1, "{}", pace.batch_tokens());
        let before = pace.batch_tokens();
        done(1e6, 1); // a single short text
        assert_eq!(pace.batch_tokens(), before);
        (0..9).for_each(|_| done(5e9, 400)); // another program uses the device, too
        assert_eq!(pace.batch_tokens(), LEAST_TOKENS);
        assert_eq!(Pace::new(None, products(1e7), Growth::new(16_384, 16_384)).batch_tokens(), 16_384);
    }

    #[test]
    fn the_speed_of_each_kind_is_found_from_submissions_that_mix_them() {
        let pace = Pace::new(Some(Duration::from_millis(20)), Work([1e7, 1e7, 1e6, 1e6]), Growth::new(8192, 8192));
        // Products at 1e13 a second, attention at 1e12, within a window at 1e11, the others at 2e12.
        let time = |[a, b, c, d]: [f64; KINDS]| Duration::from_secs_f64(a / 1e13 + b / 1e12 + c / 1e11 + d / 2e12);
        for round in 0..200 {
            let work = match round / 3 % 5 {
                0 => [8e10, 0.0, 0.0, 2e9],
                1 => [0.0, 9e9, 0.0, 0.0],
                2 => [4e10, 0.0, 1e9, 4e9],
                3 => [0.0, 0.0, 5e8, 0.0],
                _ => [0.0, 3e9, 0.0, 8e9],
            };
            pace.done(Work(work), time(work));
        }
        for work in [[8e10, 0.0, 0.0, 0.0], [0.0, 9e9, 0.0, 0.0], [0.0, 0.0, 1e9, 0.0], [4e10, 1e9, 2e8, 2e9]] {
            let (expected, truth) = (pace.seconds(&[Work(work)])[0], time(work).as_secs_f64());
            assert!((0.8..1.25).contains(&(expected / truth)), "{work:?}: {expected} for {truth}");
        }
    }

    #[test]
    fn time_between_landings_is_busy_and_time_before_a_submission_is_not() {
        let pace = Pace::new(None, Work([1.0; KINDS]), Growth::new(1, 1));
        let begun = Instant::now();
        std::thread::sleep(Duration::from_millis(20));
        pace.landed(begun, 1, &Work([1.0; KINDS]));
        let first = pace.busy();
        assert!(first >= Duration::from_millis(20));
        std::thread::sleep(Duration::from_millis(20));
        let submitted = Instant::now();
        pace.landed(submitted, 1, &Work([1.0; KINDS]));
        assert!(pace.busy() - first <= submitted.elapsed());
        pace.landed(begun, 1, &Work([1.0; KINDS]));
        assert!(pace.busy() <= begun.elapsed(), "two in flight at once are counted once");
    }
}
