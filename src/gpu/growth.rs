//! The batch size by trying: doubled as long as the device gets faster by it.

use std::time::Duration;

/// What the rate must gain for a doubled batch to stay.
const GAIN: f64 = 1.05;

/// Full batches, and time, of a window. The first batch of a size is not counted, for it allocates.
const BATCHES: usize = 3;
const TIME: Duration = Duration::from_millis(20);

/// Windows whose median is a size's rate: a device that is kept busy by others for a while does not decide.
const WINDOWS: usize = 3;

/// The batch size of an executor, in tokens.
#[derive(Debug)]
pub(super) struct Growth {
    tokens: usize,
    most: usize,
    /// The rate at half the size, while a doubled one is tried.
    rate_of_half: Option<f64>,
    settled: bool,
    /// The windows of this size.
    rates: Vec<f64>,
    is_warm: bool,
    /// Of the window.
    batches: usize,
    work: f64,
    time: Duration,
}

impl Growth {
    /// From `tokens` to at most `most`.
    pub fn new(tokens: usize, most: usize) -> Growth {
        let tokens = tokens.min(most);
        Growth {
            tokens,
            most,
            rate_of_half: None,
            settled: tokens == most,
            rates: Vec::new(),
            is_warm: false,
            batches: 0,
            work: 0.0,
            time: Duration::ZERO,
        }
    }

    /// The size now.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// A batch took so long for so much work.
    pub fn landed(&mut self, tokens: usize, work: f64, time: Duration) {
        let is_full = tokens <= self.tokens && tokens * 4 >= self.tokens * 3;
        if self.settled || !is_full {
            return;
        }
        if !std::mem::replace(&mut self.is_warm, true) {
            return;
        }
        self.batches += 1;
        self.work += work;
        self.time += time;
        if self.batches >= BATCHES && self.time >= TIME {
            self.rates.push(self.work / self.time.as_secs_f64());
            (self.batches, self.work, self.time) = (0, 0.0, Duration::ZERO);
        }
        if self.rates.len() == WINDOWS {
            self.rates.sort_by(f64::total_cmp);
            self.decide(self.rates[WINDOWS / 2]);
            self.rates.clear();
            self.is_warm = false;
        }
    }

    fn decide(&mut self, rate: f64) {
        if self.rate_of_half.is_some_and(|half| rate < half * GAIN) {
            self.tokens /= 2;
            self.settled = true;
        } else if self.tokens * 2 <= self.most {
            self.tokens *= 2;
            self.rate_of_half = Some(rate);
            return;
        } else {
            self.settled = true;
        }
        log::debug!("batches of {} tokens from now on", self.tokens);
    }

    /// A batch of so many tokens did not fit: none of more than half of it is asked for again.
    pub fn refuse(&mut self, tokens: usize) {
        self.most = self.most.min((tokens / 2).max(1));
        self.tokens = self.tokens.min(self.most);
        self.settled = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that takes `fixed` seconds for each batch and `each` for each token.
    fn run(growth: &mut Growth, fixed: f64, each: f64) {
        for _ in 0..200 {
            let tokens = growth.tokens();
            growth.landed(tokens, tokens as f64, Duration::from_secs_f64(fixed + each * tokens as f64));
        }
    }

    #[test]
    fn it_grows_while_that_pays_and_stays_there() {
        // 1000 tokens take as long as the way there and back: 8,192 in a batch are 10.9 % faster than 4,096, 16,384 are
        // 5.8 % faster than those, and 32,768 another 3.0 %.
        let mut growth = Growth::new(1024, 1 << 20);
        run(&mut growth, 0.1, 1e-4);
        assert_eq!(growth.tokens(), 16_384);
        run(&mut growth, 10.0, 1e-4);
        assert_eq!(growth.tokens(), 16_384, "settled");
    }

    #[test]
    fn what_keeps_the_device_busy_for_a_while_does_not_decide() {
        let (mut growth, mut sizes) = (Growth::new(1024, 1 << 20), std::collections::HashMap::new());
        for _ in 0..200 {
            let tokens = growth.tokens();
            let count = sizes.entry(tokens).or_insert(0);
            *count += 1;
            // The third batch of each size takes ten seconds more.
            let stall = if *count == 3 { 10.0 } else { 0.0 };
            let time = Duration::from_secs_f64(0.1 + 1e-4 * tokens as f64 + stall);
            growth.landed(tokens, tokens as f64, time);
        }
        assert_eq!(growth.tokens(), 16_384);
    }

    #[test]
    fn it_stops_at_the_most_and_where_nothing_is_gained() {
        let mut growth = Growth::new(1024, 5000);
        run(&mut growth, 0.1, 1e-4);
        assert_eq!(growth.tokens(), 4096);
        let mut growth = Growth::new(1024, 1 << 20);
        run(&mut growth, 0.0, 1e-4);
        assert_eq!(growth.tokens(), 1024);
        assert_eq!(Growth::new(1024, 600).tokens(), 600);
    }

    #[test]
    fn small_batches_say_nothing() {
        let mut growth = Growth::new(1024, 1 << 20);
        for _ in 0..100 {
            growth.landed(700, 700.0, Duration::from_millis(20));
        }
        assert_eq!(growth.tokens(), 1024);
    }

    #[test]
    fn what_did_not_fit_is_not_tried_again() {
        let mut growth = Growth::new(1024, 1 << 20);
        growth.refuse(1000);
        run(&mut growth, 0.1, 1e-4);
        assert_eq!(growth.tokens(), 500);
    }
}
