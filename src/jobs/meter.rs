//! How far a job is, and how long the rest will take.

use super::Part;
use super::run::lock;
use crate::error::Error;
use crate::job::Progress;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// What is called with the [`JobProgress`] of a job, from any thread.
pub type OnJobProgress = Arc<dyn Fn(&JobProgress) + Send + Sync>;

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

/// Measures progress.
pub(super) struct Meter {
    /// When this process began.
    pub begun: Instant,
    parts: Vec<Part>,
    /// Of all parts.
    weight: f64,
    counts: Mutex<Counts>,
    callback: Option<OnJobProgress>,
}

#[derive(Default)]
struct Counts {
    /// For each part of the plan, whether it is there.
    there: Vec<bool>,
    parts_done: usize,
    /// Of what was there before this process computed it: parts, and rows that a cancelled process had saved.
    before: f64,
    /// Of the parts that are there.
    done: f64,
    /// Of what is computed of parts that are not: `(part, weight)`.
    under_way: Vec<(usize, f64)>,
    rows: u64,
    tokens: u64,
}

impl Counts {
    fn store(&mut self, part: &Part) {
        if !std::mem::replace(&mut self.there[part.index], true) {
            self.parts_done += 1;
            self.done += weight(part);
            self.under_way.retain(|(index, _)| *index != part.index);
        }
    }

    fn reach(&mut self, part: &Part, share: f64) {
        let computed = weight(part) * share;
        match self.under_way.iter_mut().find(|(index, _)| *index == part.index) {
            Some((_, weight)) => *weight = computed,
            None => self.under_way.push((part.index, computed)),
        }
    }
}

impl Meter {
    pub fn new(parts: Vec<Part>, done: &[bool], callback: Option<OnJobProgress>) -> Meter {
        let weight = parts.iter().map(weight).sum();
        let counts = Mutex::new(Counts { there: vec![false; done.len()], ..Counts::default() });
        let meter = Meter { begun: Instant::now(), parts, weight, counts, callback };
        meter.see(done);
        {
            let mut counts = lock(&meter.counts);
            counts.before = counts.done;
        }
        meter
    }

    /// What is there by now, and whatever this process has stored since it looked.
    pub fn see(&self, done: &[bool]) {
        let mut counts = lock(&self.counts);
        for part in self.parts.iter().filter(|part| done[part.index]) {
            counts.store(part);
        }
        self.tell(&counts);
    }

    /// A part is there.
    pub fn stored(&self, part: &Part) {
        let mut counts = lock(&self.counts);
        counts.store(part);
        self.tell(&counts);
    }

    /// A share of a part was computed and saved by a process that was cancelled.
    pub fn resume(&self, part: &Part, share: f64) {
        let mut counts = lock(&self.counts);
        counts.before += weight(part) * share;
        counts.reach(part, share);
    }

    /// A batch of a part is computed, of which a `share` is there by now.
    pub fn batch(&self, part: &Part, before: &Progress, now: &Progress, share: f64) {
        let mut counts = lock(&self.counts);
        counts.rows += (now.texts - before.texts) as u64;
        counts.tokens += (now.tokens - before.tokens) as u64;
        counts.reach(part, share);
        self.tell(&counts);
    }

    fn tell(&self, counts: &Counts) {
        let Some(callback) = &self.callback else { return };
        let done = counts.done + counts.under_way.iter().map(|(_, weight)| weight).sum::<f64>();
        let seconds = self.begun.elapsed().as_secs_f64();
        let pace = (done - counts.before) / seconds;
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

    pub fn cancelled(&self) -> Error {
        let total = self.parts.iter().map(|part| part.rows as usize).sum();
        Error::Cancelled { done: lock(&self.counts).rows as usize, total, results: None }
    }
}

/// A part without text is some work too.
fn weight(part: &Part) -> f64 {
    (part.weight + part.rows + 1) as f64
}
