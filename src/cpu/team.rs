//! Idle threads help with the only batch: the columns of its products, the heads of its attention and the rows of most other
//! steps are handed out to whoever is there. Nobody waits for a thread that is not: the one that runs the batch takes parts as
//! well, down to the last.
//!
//! Each thread begins with a stretch of parts of its own, and takes them in order, so that it reads the weights as they lie in
//! memory: eight rows of MiniLM then take two cores 8 % less than where each takes the next part that nobody has.

use super::gemm::Shared;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Looks at memory before a waiting thread lets others run.
const SPINS: u32 = 2_000;

/// More helpers would wait for memory, and for each other.
const MAX_HELPERS: usize = 7;

/// Numbers of a part of rows: about a microsecond's work.
const NUMBERS: usize = 4096;

/// Rows of so many numbers each that are a part.
pub fn rows_of_part(cols: usize) -> usize {
    NUMBERS.div_ceil(cols)
}

/// Does the parts of a job that it is given.
type Work<'a> = dyn Fn(Range<usize>) + Sync + 'a;

/// Where the one who leads and those who help meet. All threads of an executor share it.
#[derive(Default)]
pub struct Meeting {
    /// A batch is being computed whose parts helpers may take.
    led: AtomicBool,
    helpers: AtomicUsize,
    /// There is a job.
    open: AtomicBool,
    /// Helpers who may be looking at `job`.
    inside: AtomicUsize,
    failed: AtomicBool,
    /// The next part of each stretch.
    next: [Alone<AtomicUsize>; 1 + MAX_HELPERS],
    job: UnsafeCell<Option<Job>>,
}

/// `parts` parts, in `stretches` of about as many each, of which a thread takes two thirds of what is left at a time.
#[derive(Clone, Copy)]
struct Job {
    work: *const Work<'static>,
    parts: usize,
    stretches: usize,
}

impl Job {
    fn start(&self, stretch: usize) -> usize {
        self.parts * stretch / self.stretches
    }
}

/// In cache lines that hold nothing else; processors fetch two at a time.
#[derive(Default)]
#[repr(align(128))]
struct Alone<T>(T);

// SAFETY: `job` is written only by the leader, of which there is one, while `open` is false and nobody is `inside`. A helper
// reads it only after entering `inside` and then finding `open`.
unsafe impl Send for Meeting {}
// SAFETY: as above.
unsafe impl Sync for Meeting {}

impl Meeting {
    /// Makes the caller the leader, until the team is dropped; if there is one, it stays alone.
    pub fn lead(&self) -> Team<'_> {
        let is_first = self.led.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        Team { meeting: is_first.then_some(self) }
    }

    /// Whether there is a leader, and room.
    pub fn wants_help(&self) -> bool {
        self.is_led() && self.helpers.load(Ordering::Relaxed) < MAX_HELPERS
    }

    fn is_led(&self) -> bool {
        self.led.load(Ordering::Acquire)
    }

    /// Helps until there is no leader, or until `leave()`.
    pub fn help(&self, leave: impl Fn() -> bool) {
        let before = self.helpers.fetch_add(1, Ordering::Relaxed);
        if before < MAX_HELPERS {
            let mut spins = 0;
            while self.is_led() && !leave() {
                if self.open.load(Ordering::Relaxed) {
                    self.enter(1 + before);
                    spins = 0;
                } else {
                    pause(&mut spins);
                }
            }
        }
        self.helpers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes parts of the job, if it is still there.
    fn enter(&self, stretch: usize) {
        // The order of these two, and of `close` and its wait, is what keeps the job alive: either this thread sees that the
        // job is closed, or the leader sees that this thread is inside.
        self.inside.fetch_add(1, Ordering::SeqCst);
        if self.open.load(Ordering::SeqCst) {
            // SAFETY: the leader writes the job, and lets go of what it points to, only while nobody is inside.
            let job = unsafe { *self.job.get() };
            if let Some(job) = job
                && catch_unwind(AssertUnwindSafe(|| self.take(job, stretch))).is_err()
            {
                self.failed.store(true, Ordering::SeqCst);
            }
        }
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }

    /// Those of a stretch, then what is left of the others.
    fn take(&self, job: Job, stretch: usize) {
        for stretch in (stretch..).take(job.stretches).map(|stretch| stretch % job.stretches) {
            let (next, end) = (&self.next[stretch].0, job.start(stretch + 1));
            let after = |first: usize| first + (2 * end.saturating_sub(first)).div_ceil(3);
            while let Ok(first) =
                next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |first| (first < end).then(|| after(first)))
            {
                // SAFETY: the leader keeps what the job points to until nobody is inside.
                unsafe { (*job.work)(first..after(first)) };
            }
        }
    }
}

/// Who computes a batch: the caller, and whoever helps.
pub struct Team<'a> {
    meeting: Option<&'a Meeting>,
}

impl Team<'_> {
    /// The caller alone.
    pub const ALONE: Team<'static> = Team { meeting: None };

    /// Calls `work` with ranges that together are `0..parts`; with one, if there is nobody to help.
    pub fn run(&self, parts: usize, work: &Work<'_>) {
        // Helpers that come or go meanwhile are no harm: whoever is there takes all stretches in the end.
        let helpers = self.meeting.map_or(0, |meeting| meeting.helpers.load(Ordering::Relaxed).min(MAX_HELPERS));
        let Some(meeting) = self.meeting.filter(|_| parts > 1 && helpers > 0) else { return work(0..parts) };

        /// Closes the job, and waits for those inside: even if the work panics.
        struct Close<'a>(&'a Meeting);
        impl Drop for Close<'_> {
            fn drop(&mut self) {
                self.0.open.store(false, Ordering::SeqCst);
                let mut spins = 0;
                while self.0.inside.load(Ordering::SeqCst) > 0 {
                    pause(&mut spins);
                }
            }
        }

        // SAFETY: only the lifetime changes. `Close` waits until nobody uses the job, before `work` ends.
        let work = unsafe { std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work) };
        let job = Job { work, parts, stretches: 1 + helpers };
        // SAFETY: the last job is closed and nobody is inside; whoever enters now finds `open` false.
        unsafe { *meeting.job.get() = Some(job) };
        for (stretch, next) in meeting.next[..job.stretches].iter().enumerate() {
            next.0.store(job.start(stretch), Ordering::Relaxed);
        }
        meeting.open.store(true, Ordering::SeqCst);
        let close = Close(meeting);
        meeting.take(job, 0);
        drop(close);
        assert!(!meeting.failed.swap(false, Ordering::SeqCst), "a helping thread panicked");
    }

    /// Calls `work` with some rows of `out` `[rows, cols]`, and their numbers, so that each is given once.
    pub fn run_rows(&self, out: &mut [f32], cols: usize, work: &(dyn Fn(Range<usize>, &mut [f32]) + Sync)) {
        let (rows, each) = (out.len() / cols, rows_of_part(cols));
        let out = Shared::new(out);
        self.run(rows.div_ceil(each), &|parts| {
            let rows = parts.start * each..rows.min(parts.end * each);
            // SAFETY: parts are given once.
            work(rows.clone(), unsafe { out.slice(rows.start * cols..rows.end * cols) });
        });
    }
}

impl Drop for Team<'_> {
    fn drop(&mut self) {
        if let Some(meeting) = self.meeting {
            meeting.led.store(false, Ordering::Release);
        }
    }
}

fn pause(spins: &mut u32) {
    *spins += 1;
    match *spins < SPINS {
        true => std::hint::spin_loop(),
        false => std::thread::yield_now(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn every_part_is_done_once_whoever_helps() {
        let meeting = Meeting::default();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        meeting.help(|| false);
                    }
                });
            }
            for round in 0..2_000 {
                let team = meeting.lead();
                for parts in [round % 50, 17, 3] {
                    let counts: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                    team.run(parts, &|range| {
                        range.for_each(|i| _ = counts[i].fetch_add(1, Ordering::Relaxed));
                    });
                    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
                }
            }
            done.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn there_is_one_leader() {
        let meeting = Meeting::default();
        let first = meeting.lead();
        assert!(first.meeting.is_some() && meeting.lead().meeting.is_none() && meeting.is_led());
        drop(first);
        assert!(!meeting.is_led());
    }

    #[test]
    fn a_panic_of_any_part_is_the_leaders() {
        let meeting = Meeting::default();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    meeting.help(|| false);
                }
            });
            for _ in 0..20 {
                let team = meeting.lead();
                let seen = Mutex::new(0);
                let result = catch_unwind(AssertUnwindSafe(|| {
                    team.run(10, &|range| {
                        *seen.lock().unwrap_or_else(|error| error.into_inner()) += 1;
                        assert!(!range.contains(&7), "on purpose");
                    });
                }));
                assert!(result.is_err());
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}
