//! The sequences that wait for a device: one producer fills, each lane cuts batches of its own size.

use super::{Finished, Sequence};
use crate::batch::Batch;
use crate::matrix::Matrix;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Sequences that go as one batch.
pub(super) struct Work {
    keys: Vec<usize>,
    pub batch: Batch,
}

impl Work {
    /// Two works of about half the tokens; `None` for a single sequence.
    pub fn halves(self) -> Option<(Work, Work)> {
        let (first, second) = self.batch.halves()?;
        let mut keys = self.keys;
        let second_keys = keys.split_off(first.sequences());
        Some((Work { keys, batch: first }, Work { keys: second_keys, batch: second }))
    }

    pub fn finish(self, rows: Matrix) -> Finished {
        Finished { keys: self.keys, batch: self.batch, rows }
    }

    /// As it was before it became a batch.
    fn into_sequences(self) -> impl DoubleEndedIterator<Item = Sequence> {
        let batch = self.batch;
        self.keys.into_iter().enumerate().map(move |(s, key)| {
            let range = batch.range(s);
            let (ids, types) = (batch.ids[range.clone()].to_vec(), batch.types[range].to_vec());
            Sequence { key, ids, types, skip: batch.skip[s], unseen: batch.unseen[s] }
        })
    }
}

/// Tokens that wait where several devices take them: enough to know near the end how much there is left, so that a slow
/// device need not begin what a fast one does sooner. Some 8 MB.
const AHEAD_OF_SEVERAL: usize = 1 << 20;

/// The part of a batch that a device of several gets while its speed is not known.
const TRIAL: usize = 4;

/// What waits. All of it is behind one lock, which is held for the cutting of a batch and never while one is computed.
pub(super) struct Supply {
    padding: Option<u32>,
    /// Tokens that wait, at least, before the producer has to.
    ahead: usize,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    sequences: VecDeque<Sequence>,
    /// Of `sequences`.
    tokens: usize,
    /// More will come.
    open: bool,
    /// Nobody wants anything any more.
    stopped: bool,
    /// Sequences that lanes have taken and neither landed nor given back.
    out: usize,
    /// Tokens of the largest batch that was asked for.
    asked: usize,
    /// No batch is larger.
    limit: usize,
    lanes: Vec<Pace>,
}

/// What is known of a lane's speed.
#[derive(Clone, Copy, Default)]
struct Pace {
    /// Tokens taken and not yet landed.
    out: usize,
    landed: usize,
    time: Duration,
    lost: bool,
}

impl Pace {
    /// Tokens a second; `None` before the first batch has landed.
    fn rate(&self) -> Option<f64> {
        (self.landed > 0 && !self.lost).then(|| self.landed as f64 / self.time.as_secs_f64().max(1e-6))
    }
}

impl State {
    fn push_back(&mut self, sequence: Sequence) {
        self.tokens += sequence.ids.len();
        self.sequences.push_back(sequence);
    }

    /// A batch of up to so many tokens, if there are as many or no more will come.
    fn cut(&mut self, budget: usize, padding: Option<u32>) -> Option<Work> {
        if self.sequences.is_empty() || (self.open && self.tokens < budget) {
            return None;
        }
        let mut work = Work { keys: Vec::new(), batch: Batch::with_padding(padding) };
        while let Some(sequence) = self.sequences.front() {
            if !work.keys.is_empty() && work.batch.tokens() + sequence.ids.len() > budget {
                break;
            }
            self.tokens -= sequence.ids.len();
            work.keys.push(sequence.key);
            work.batch.push_expanded(&sequence.ids, &sequence.types, sequence.skip, sequence.unseen);
            self.sequences.pop_front();
        }
        Some(work)
    }

    /// The most tokens that a lane of several is trusted with: a small batch first, alone, which shows how fast it is.
    fn trial(&self, lane: usize, budget: usize) -> usize {
        match self.lanes[lane] {
            _ if self.lanes.len() == 1 => usize::MAX,
            Pace { landed: 0, out: 0, .. } => budget.div_ceil(TRIAL),
            Pace { landed: 0, .. } => 0,
            _ => usize::MAX,
        }
    }

    /// Whether the other lanes will have done everything that waits before this one had done `budget` tokens of it.
    fn is_sooner_done_by_others(&self, lane: usize, budget: usize) -> bool {
        let own = self.lanes[lane];
        let others = self.lanes.iter().enumerate().filter(|(other, _)| *other != lane);
        let rate_of_others: f64 = others.filter_map(|(_, pace)| pace.rate()).sum();
        let Some(rate) = own.rate().filter(|_| !self.open && rate_of_others > 0.0) else {
            return false;
        };
        self.tokens as f64 / rate_of_others < (own.out + budget.min(self.tokens)) as f64 / rate
    }

    /// Whether a lane that waits will never get anything.
    fn is_over(&self) -> bool {
        self.stopped || (!self.open && self.sequences.is_empty() && self.out == 0)
    }
}

impl Supply {
    /// An open supply for so many lanes.
    pub fn new(padding: Option<u32>, lanes: usize) -> Supply {
        let state = State {
            sequences: VecDeque::new(),
            tokens: 0,
            open: true,
            stopped: false,
            out: 0,
            asked: 0,
            limit: usize::MAX,
            lanes: vec![Pace::default(); lanes],
        };
        let ahead = if lanes > 1 { AHEAD_OF_SEVERAL } else { 0 };
        Supply { padding, ahead, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Appends sequences, as soon as fewer wait than two of the largest batches have. `false` if nobody wants them.
    pub fn push(&self, sequences: Vec<Sequence>) -> bool {
        let is_full = |state: &mut State| {
            !state.stopped && state.tokens > 0 && { state.tokens >= self.ahead.max(state.asked.saturating_mul(2)) }
        };
        let state = self.changed.wait_while(self.lock(), is_full);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        sequences.into_iter().for_each(|sequence| state.push_back(sequence));
        self.changed.notify_all();
        !state.stopped
    }

    /// The most tokens that a batch may have, whatever its lane's budget.
    pub fn limit_batches(&self, tokens: usize) {
        self.lock().limit = tokens.max(1);
    }

    /// No more will come.
    pub fn close(&self) {
        self.lock().open = false;
        self.changed.notify_all();
    }

    /// Nobody gets anything any more, and nothing is kept.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        state.sequences.clear();
        state.tokens = 0;
        self.changed.notify_all();
    }

    /// The next batch for a lane, of up to `budget` tokens. With `wait`, `None` means that there will be none any more;
    /// without, that there is none now, or that other lanes are better given it.
    pub fn take(&self, lane: usize, budget: usize, wait: bool) -> Option<Work> {
        let mut state = self.lock();
        let budget = budget.max(1);
        if state.asked < budget {
            state.asked = budget;
            self.changed.notify_all();
        }
        loop {
            if state.is_over() {
                return None;
            }
            let budget = budget.min(state.limit).min(state.trial(lane, budget));
            let work = match budget == 0 || state.is_sooner_done_by_others(lane, budget) {
                true => None,
                false => state.cut(budget, self.padding),
            };
            if let Some(work) = work {
                state.out += work.batch.sequences();
                state.lanes[lane].out += work.batch.tokens();
                self.changed.notify_all();
                return Some(work);
            }
            if !wait {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A lane has the results of a batch, `time` after those of the one before.
    pub fn landed(&self, lane: usize, batch: &Batch, time: Duration) {
        let mut state = self.lock();
        state.out -= batch.sequences();
        let pace = &mut state.lanes[lane];
        pace.out -= batch.tokens();
        pace.landed += batch.tokens();
        pace.time += time;
        self.changed.notify_all();
    }

    /// A lane's device is lost: what it had taken goes back to the front.
    pub fn give_back(&self, lane: usize, works: Vec<Work>) {
        let mut state = self.lock();
        state.lanes[lane].lost = true;
        if !state.stopped {
            for sequence in works.into_iter().flat_map(Work::into_sequences).rev() {
                state.out -= 1;
                state.tokens += sequence.ids.len();
                state.sequences.push_front(sequence);
            }
        }
        self.changed.notify_all();
    }

    /// Stops when it goes out of scope, also by a panic.
    pub fn stop_when_dropped(&self) -> OnDrop<'_> {
        OnDrop { supply: self, action: Some(Supply::stop) }
    }

    /// Closes when it goes out of scope, also by a panic.
    pub fn close_when_dropped(&self) -> OnDrop<'_> {
        OnDrop { supply: self, action: Some(Supply::close) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does something to a supply at the end of its life.
pub(super) struct OnDrop<'a> {
    supply: &'a Supply,
    action: Option<fn(&Supply)>,
}

impl OnDrop<'_> {
    /// Does nothing then.
    pub fn forget(mut self) {
        self.action = None;
    }
}

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        if let Some(action) = self.action {
            action(self.supply);
        }
    }
}
