use super::*;
use crate::error::Error;
use crate::executor::{Ceilings, Completion, Pending};
use crate::several::Several;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A device that gives each sequence its first id.
struct Fake {
    name: &'static str,
    budget: usize,
    in_flight: usize,
    lanes: usize,
    /// Takes a batch; an error for what it refuses.
    submit: Box<dyn Fn(Batch) -> Result<Pending, RunError> + Send + Sync>,
    lost: Arc<AtomicBool>,
    /// Tokens of each batch that was computed.
    computed: Arc<Mutex<Vec<usize>>>,
}

impl Fake {
    /// Computes at once, and refuses batches beyond `limit` tokens.
    fn echo(limit: usize, lanes: usize) -> Fake {
        let computed: Arc<Mutex<Vec<usize>>> = Arc::default();
        let done = computed.clone();
        let submit = Box::new(move |batch: Batch| {
            if batch.tokens() > limit {
                return Err(RunError::OutOfMemory { tokens: batch.tokens(), needed: 2, granted: 1 });
            }
            done.lock().unwrap().push(batch.tokens());
            let (completion, pending) = Pending::new();
            completion.send(Ok(first_ids(&batch))).unwrap();
            Ok(pending)
        });
        Fake { name: "echo", budget: 100, in_flight: 3, lanes, submit, lost: Arc::default(), computed }
    }

    /// Has a thread of its own, takes `time` for each batch, and is lost once it has computed `life` batches.
    fn remote(name: &'static str, budget: usize, time: Duration, life: usize) -> Arc<Fake> {
        let (queue, batches) = mpsc::channel::<(Batch, Completion)>();
        let (lost, computed): (Arc<AtomicBool>, Arc<Mutex<Vec<usize>>>) = Default::default();
        let (dead, done) = (lost.clone(), computed.clone());
        std::thread::spawn(move || {
            for (batch, completion) in batches {
                std::thread::sleep(time);
                let mut done = done.lock().unwrap();
                if done.len() >= life {
                    dead.store(true, Ordering::Release);
                    drop(completion); // tells whoever waits
                    continue;
                }
                done.push(batch.tokens());
                let _ = completion.send(Ok(first_ids(&batch)));
            }
        });
        let (dead, queue) = (lost.clone(), Mutex::new(queue));
        let submit = Box::new(move |batch| {
            if dead.load(Ordering::Acquire) {
                return Err(RunError::DeviceLost("unplugged".into()));
            }
            let (completion, pending) = Pending::new();
            queue.lock().unwrap().send((batch, completion)).unwrap();
            Ok(pending)
        });
        Arc::new(Fake { name, budget, in_flight: 2, lanes: 1, submit, lost, computed })
    }

    fn tokens(&self) -> usize {
        self.computed.lock().unwrap().iter().sum()
    }
}

/// What a fake computes.
fn first_ids(batch: &Batch) -> Matrix {
    let rows = (0..batch.sequences()).map(|s| batch.ids[batch.range(s).start] as f32).collect();
    Matrix::new(batch.sequences(), 1, rows)
}

impl Executor for Fake {
    fn submit(&self, batch: Batch, _: Output) -> Result<Pending, RunError> {
        (self.submit)(batch)
    }

    fn trace(&self, _: &Batch) -> Result<Vec<Matrix>, RunError> {
        Ok(Vec::new())
    }

    fn profile(&self, _: &Batch) -> Result<Vec<Duration>, RunError> {
        Ok(Vec::new())
    }

    fn ceilings(&self) -> Result<Ceilings, RunError> {
        Err(RunError::DeviceLost("a fake has no ceilings".into()))
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn lanes(&self) -> usize {
        self.lanes
    }

    fn batch_tokens(&self) -> usize {
        self.budget
    }

    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    fn busy(&self) -> Duration {
        Duration::ZERO
    }

    fn describe(&self) -> String {
        self.name.into()
    }
}

fn sequences(count: usize, length: usize) -> Vec<Sequence> {
    let sequence =
        |key: usize| Sequence { key, ids: vec![key as u32; length], types: vec![0; length], skip: 0, unseen: 0 };
    (0..count).map(sequence).collect()
}

/// Runs chunks of sequences and checks that each comes back once, with its own result.
fn check(executor: &dyn Executor, chunks: Vec<Vec<Sequence>>) {
    let expected: usize = chunks.iter().map(Vec::len).sum();
    let mut seen = vec![0; expected];
    scheduler(executor).run(chunks.into_iter().map(Ok), |finished| see(&finished, &mut seen)).unwrap();
    assert!(seen.iter().all(|&times| times == 1), "{seen:?}");
}

fn scheduler(executor: &dyn Executor) -> Scheduler<'_> {
    Scheduler { executor, output: Output::Sentences, padding: None, batch_tokens: None }
}

fn see(finished: &Finished, seen: &mut [usize]) -> Result<()> {
    for (i, &key) in finished.keys.iter().enumerate() {
        assert_eq!(finished.rows.row(i), [key as f32]);
        seen[key] += 1;
    }
    Ok(())
}

fn several(remotes: &[&Arc<Fake>]) -> Several {
    Several::new(remotes.iter().map(|&remote| remote.clone() as Arc<dyn Executor>).collect())
}

/// So many sequences of 10 tokens, in chunks.
fn chunks(count: usize) -> Vec<Vec<Sequence>> {
    sequences(count, 10).chunks(64).map(<[Sequence]>::to_vec).collect()
}

#[test]
fn every_sequence_comes_back_once_in_batches_of_the_budget() {
    let echo = Fake::echo(usize::MAX, 1);
    let mut all = sequences(50, 30);
    let tail = all.split_off(40);
    check(&echo, vec![all, tail]);
    assert_eq!(*echo.computed.lock().unwrap(), [vec![90; 16], vec![60]].concat());
}

#[test]
fn a_batch_that_does_not_fit_is_halved_and_the_budget_with_it() {
    let echo = Fake::echo(60, 1);
    check(&echo, vec![sequences(20, 20), sequences(0, 0)]);
    let batches = echo.computed.lock().unwrap();
    assert!(batches.iter().all(|&tokens| tokens <= 60));
}

#[test]
fn a_batch_that_the_device_did_not_do_is_halved_too() {
    let mut fake = Fake::echo(usize::MAX, 1);
    let (submit, refused) = (fake.submit, Arc::new(AtomicUsize::new(0)));
    let times = refused.clone();
    fake.submit = Box::new(move |batch| {
        let tokens = batch.tokens();
        if tokens <= 60 {
            return submit(batch);
        }
        times.fetch_add(1, Ordering::Relaxed);
        let (completion, pending) = Pending::new();
        completion.send(Err(RunError::Unfinished { tokens })).unwrap();
        Ok(pending)
    });
    check(&fake, vec![sequences(20, 20)]);
    assert!(refused.load(Ordering::Relaxed) > 0);
    let error = scheduler(&fake).run(std::iter::once(Ok(sequences(1, 70))), |_| Ok(())).unwrap_err();
    assert!(matches!(error, Error::Run(RunError::Unfinished { tokens: 70 })), "{error}");
}

#[test]
fn a_sequence_that_does_not_fit_alone_is_an_error_with_the_sizes() {
    let echo = Fake::echo(60, 1);
    let error = scheduler(&echo).run(std::iter::once(Ok(sequences(2, 70))), |_| Ok(())).unwrap_err();
    assert!(matches!(error, Error::Run(RunError::OutOfMemory { tokens: 70, .. })), "{error}");
}

#[test]
fn a_short_job_is_spread_over_the_lanes() {
    let echo = Fake::echo(usize::MAX, 4);
    check(&echo, vec![sequences(8, 5)]);
    assert_eq!(*echo.computed.lock().unwrap(), [10, 10, 10, 10]);
}

#[test]
fn an_error_of_the_caller_ends_the_run() {
    let echo = Fake::echo(usize::MAX, 1);
    let scheduler = Scheduler { executor: &echo, output: Output::Sentences, padding: None, batch_tokens: Some(10) };
    let stop = |_| Err(Error::Cancelled { done: 0, total: 1000, results: None });
    let endless = std::iter::repeat_with(|| Ok(sequences(10, 10)));
    assert!(matches!(scheduler.run(endless, stop), Err(Error::Cancelled { .. })));
}

#[test]
fn the_faster_of_two_devices_gets_more_and_each_its_own_size() {
    let fast = Fake::remote("fast", 200, Duration::from_millis(1), usize::MAX);
    let slow = Fake::remote("slow", 50, Duration::from_millis(5), usize::MAX);
    check(&several(&[&slow, &fast]), chunks(2000));
    assert_eq!(fast.tokens() + slow.tokens(), 20_000);
    assert!(fast.tokens() > 2 * slow.tokens() && slow.tokens() > 0, "{} and {}", fast.tokens(), slow.tokens());
    let largest = |remote: &Fake| remote.computed.lock().unwrap().iter().copied().max().unwrap();
    assert_eq!((largest(&fast), largest(&slow)), (200, 50));
}

#[test]
fn near_the_end_a_slow_device_leaves_the_rest_to_a_fast_one() {
    let (slow, fast) = (0, 1);
    let supply = Supply::new(None, 2);
    supply.push(sequences(30, 10));
    let take = |lane| supply.take(lane, 50, false).map(|work| work.batch);
    for (lane, milliseconds) in [(slow, 2000), (fast, 200)] {
        // A small batch, and no second one until it has landed.
        let trial = take(lane).unwrap();
        assert_eq!(trial.tokens(), 10);
        assert!(take(lane).is_none());
        supply.landed(lane, &trial, Duration::from_millis(milliseconds));
    }
    // 280 tokens are left: 6 s for the fast one, 10 s for a batch of the slow one. But there may be more to come.
    let work = take(slow).unwrap();
    supply.close();
    assert!(take(slow).is_none());
    assert_eq!(take(fast).unwrap().tokens(), 50);
    // The fast one is lost: all that it leaves is for the slow one.
    supply.give_back(fast, Vec::new());
    assert_eq!(take(slow).unwrap().tokens(), 50);
    assert_eq!(work.tokens(), 50);
}

#[test]
fn the_batches_of_a_lost_device_go_to_the_others() {
    let mortal = Fake::remote("mortal", 100, Duration::from_millis(1), 3);
    let other = Fake::remote("other", 30, Duration::from_millis(1), usize::MAX);
    let both = several(&[&mortal, &other]);
    check(&both, chunks(300));
    assert_eq!((mortal.tokens(), other.tokens()), (220, 2780), "a small batch, and two");
    assert!(mortal.is_lost() && !both.is_lost());
    // The next run leaves it out.
    check(&both, chunks(30));
    assert_eq!(mortal.tokens(), 220);
}

#[test]
fn the_error_surfaces_once_no_device_is_left() {
    let all: Vec<_> = (0..3).map(|life| Fake::remote("mortal", 20, Duration::ZERO, life)).collect();
    let three = several(&all.iter().collect::<Vec<_>>());
    let run = || scheduler(&three).run(chunks(500).into_iter().map(Ok), |_| Ok(()));
    for _ in 0..2 {
        assert!(matches!(run(), Err(Error::Run(RunError::DeviceLost(_)))));
    }
    assert!(three.is_lost());
    assert!(scheduler(&three).run_few(sequences(3, 1), |_| Ok(())).is_err());
}

#[test]
fn a_few_sequences_survive_the_loss_of_the_first_device() {
    let mortal = Fake::remote("mortal", 100, Duration::ZERO, 1);
    let other = Fake::remote("other", 100, Duration::ZERO, usize::MAX);
    let both = several(&[&mortal, &other]);
    for _ in 0..3 {
        let mut seen = vec![0; 5];
        scheduler(&both).run_few(sequences(5, 10), |finished| see(&finished, &mut seen)).unwrap();
        assert_eq!(seen, [1; 5]);
    }
    assert_eq!((mortal.tokens(), other.tokens()), (50, 100));
}

#[test]
fn with_several_devices_too_an_error_of_the_caller_ends_the_run() {
    let remotes = [1, 2].map(|ms| Fake::remote("remote", 50, Duration::from_millis(ms), usize::MAX));
    let endless = std::iter::repeat_with(|| Ok(sequences(10, 10)));
    let batches = AtomicUsize::new(0);
    let stop = |_| match batches.fetch_add(1, Ordering::Relaxed) {
        5 => Err(Error::Cancelled { done: 0, total: 1000, results: None }),
        _ => Ok(()),
    };
    let result = scheduler(&several(&[&remotes[0], &remotes[1]])).run(endless, stop);
    assert!(matches!(result, Err(Error::Cancelled { .. })));
}

#[test]
fn an_error_of_the_chunks_ends_the_run() {
    let remote = Fake::remote("remote", 50, Duration::ZERO, usize::MAX);
    let chunks = [Ok(sequences(10, 10)), Err(Error::InvalidInput("on purpose".into())), Ok(sequences(10, 10))];
    let result = scheduler(&*remote).run(chunks.into_iter(), |_| Ok(()));
    assert!(matches!(result, Err(Error::InvalidInput(_))));
}

#[test]
#[should_panic(expected = "on purpose")]
fn a_panic_of_the_chunks_is_the_callers_and_no_hang() {
    let echo = Fake::echo(usize::MAX, 1);
    let chunks = (0..3).map(|i| if i < 2 { Ok(sequences(10, 10)) } else { panic!("on purpose") });
    let _ = scheduler(&echo).run(chunks, |_| Ok(()));
}
