//! What a device has been given and has not done yet. A queue is first in, first out: what an application submits to the device
//! that it shares waits for all of it.

use super::device::{Health, PATIENCE};
use super::pace::Pace;
use super::work::Work;
use crate::error::RunError;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a submission is to take, and who hears what it took.
#[derive(Debug)]
pub(super) struct Account {
    /// The time before it was submitted.
    pub begun: Instant,
    pub work: Work,
    pub pace: Arc<Pace>,
    /// Given up when it is done, or will never be.
    pub place: Place,
}

/// A place in the queue, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    ahead: Arc<Ahead>,
    /// That the submission should take.
    seconds: f64,
}

/// The submissions of all executors to a device.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    queued: Mutex<Queued>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queued {
    submissions: usize,
    /// That they should take.
    seconds: f64,
}

impl Ahead {
    /// A place for what should take so long: blocks until this and what is ahead take no more than `limit`, or nothing is ahead.
    pub fn enter(self: &Arc<Ahead>, seconds: f64, limit: Option<Duration>, health: &Health) -> Result<Place, RunError> {
        let is_full = |queued: &Queued| {
            queued.submissions > 0 && limit.is_some_and(|l| queued.seconds + seconds > l.as_secs_f64())
        };
        let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        while is_full(&queued) {
            let waited = self.changed.wait_timeout(queued, PATIENCE);
            queued = waited.unwrap_or_else(PoisonError::into_inner).0;
            health.check()?;
        }
        queued.submissions += 1;
        queued.seconds += seconds;
        Ok(Place { ahead: self.clone(), seconds })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut queued = self.ahead.queued.lock().unwrap_or_else(PoisonError::into_inner);
        queued.submissions -= 1;
        queued.seconds = if queued.submissions == 0 { 0.0 } else { queued.seconds - self.seconds };
        self.ahead.changed.notify_all();
    }
}
