//! Batches in flight: a thread for each device waits for their submissions in order, reads results back and completes them.

use super::ahead::Account;
use super::device::{Health, PATIENCE};
use crate::error::RunError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

/// Takes a batch's bytes over.
pub(super) type Finish = Box<dyn FnOnce(Result<&[u8], RunError>) + Send>;

/// What the thread waits for.
pub(super) enum Submitted {
    /// A part of a batch.
    Part(Ticket, Account),
    /// The end of a batch.
    Batch(Flight),
}

/// A submission, to be waited for.
#[derive(Debug)]
pub(super) struct Ticket {
    pub index: wgpu::SubmissionIndex,
    /// On a device that an application shares: hears of the end.
    pub done: Option<mpsc::Receiver<()>>,
}

/// A submitted batch.
pub(super) struct Flight {
    /// Its last one.
    pub submission: Ticket,
    /// Of that one, if it counts.
    pub account: Option<Account>,
    /// Being mapped for reading.
    pub buffer: wgpu::Buffer,
    /// Bytes of `buffer` that are mapped.
    pub bytes: u64,
    /// Hears when the mapping is done.
    pub mapped: mpsc::Receiver<Result<(), wgpu::BufferAsyncError>>,
    /// Gets the mapped bytes, or the reason why there are none. Called once, on the waiting thread.
    pub finish: Finish,
    /// Where `buffer` goes when it has been read.
    pub pool: Arc<ReadbackPool>,
}

/// Starts the thread that waits. It ends when the sender is dropped and the last batch is done.
pub(super) fn start_thread(device: wgpu::Device, health: Arc<Health>) -> mpsc::Sender<Submitted> {
    let (sender, receiver) = mpsc::channel::<Submitted>();
    let thread = std::thread::Builder::new().name("lexel-gpu".into()).spawn(move || {
        // When the last submission was done.
        let mut ended = Instant::now();
        let mut done = |account: Account| {
            let now = Instant::now();
            let Account { begun, work, pace, place } = account;
            drop(place); // the next one may enter
            pace.done(work, now - ended.max(begun));
            ended = now;
        };
        for submitted in receiver {
            match submitted {
                Submitted::Part(ticket, account) => {
                    let result = loop {
                        match poll(&device, &ticket, &health) {
                            Ok(false) => {}
                            result => break result,
                        }
                    };
                    // The caller hears of an error with the end of the batch.
                    if result.is_ok() {
                        done(account);
                    }
                }
                Submitted::Batch(mut flight) => {
                    let result = wait(&flight, &device, &health);
                    if let (Ok(()), Some(account)) = (&result, flight.account.take()) {
                        done(account);
                    }
                    land(flight, result, &health);
                }
            }
        }
    });
    if let Err(error) = thread {
        // The receiver is gone with the closure, so every launch fails with this reason.
        log::error!("no thread to wait for the GPU: {error}");
    }
    sender
}

fn land(flight: Flight, waited: Result<(), RunError>, health: &Health) {
    let Flight { buffer, bytes, finish, pool, .. } = flight;
    if let Err(error) = waited {
        finish(Err(error));
        return;
    }
    match buffer.get_mapped_range(..bytes) {
        Ok(view) => {
            finish(Ok(&view));
            drop(view);
            buffer.unmap();
            pool.give_back(buffer);
        }
        Err(error) => finish(Err(health.fail(format!("reading results back: {error}")))),
    }
}

/// Until the batch is computed and its buffer mapped, or the device lost.
fn wait(flight: &Flight, device: &wgpu::Device, health: &Health) -> Result<(), RunError> {
    let Flight { submission, mapped, .. } = flight;
    loop {
        let done = poll(device, submission, health)?;
        // The callback may be running on another thread, where an application polls the device itself.
        let patience = if submission.done.is_some() { PAUSE } else { PATIENCE };
        match mapped.recv_timeout(if done { patience } else { Duration::ZERO }) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => {
                health.check()?;
                return Err(health.fail(format!("the device did not hand over a result: {error}")));
            }
            Err(mpsc::RecvTimeoutError::Timeout) => health.check()?,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                health.check()?;
                return Err(health.fail("the device dropped a batch"));
            }
        }
    }
}

/// Between two looks at a device that an application shares.
const PAUSE: Duration = Duration::from_micros(300);

/// Waits for a submission: `false` if it is to be waited for again. wgpu 30 panics where the device was lost meanwhile
/// (`Device::poll` in backend/wgpu_core.rs: every error but a time-out is fatal there); that becomes the error it is.
///
/// No time-out: when one passed and another thread then saw the queue empty (each submit polls), wgpu-core's
/// `Device::maintain` panicked, "If the queue is empty, ...", and a healthy device was given up. A lost device ends the wait.
///
/// On a device that an application shares, it only looks, now and then: while wgpu-core waits, it holds a lock
/// (`snatchable_lock`) that presenting a frame needs.
pub(super) fn poll(device: &wgpu::Device, ticket: &Ticket, health: &Health) -> Result<bool, RunError> {
    health.check()?;
    let poll = match ticket.done {
        Some(_) => wgpu::PollType::Poll,
        None => wgpu::PollType::Wait { submission_index: Some(ticket.index.clone()), timeout: None },
    };
    match catch_unwind(AssertUnwindSafe(|| device.poll(poll))) {
        Ok(Ok(_)) => {
            let done = ticket.done.as_ref();
            Ok(done.is_none_or(|done| done.recv_timeout(PAUSE) != Err(mpsc::RecvTimeoutError::Timeout)))
        }
        Ok(Err(wgpu::PollError::Timeout)) => Ok(false),
        Ok(Err(error)) => Err(health.fail(error.to_string())),
        Err(panic) => {
            let message = panic.downcast_ref::<String>().map_or("the driver reported an error", String::as_str);
            Err(health.fail(message))
        }
    }
}

/// Buffers that results are read back through: a few, reused.
#[derive(Debug, Default)]
pub(super) struct ReadbackPool {
    free: Mutex<Vec<wgpu::Buffer>>,
}

/// Buffers that are kept for later.
const KEPT: usize = 4;

impl ReadbackPool {
    /// A buffer of at least so many bytes.
    pub fn take(&self, bytes: u64, device: &wgpu::Device) -> wgpu::Buffer {
        let mut free = self.free.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(at) = free.iter().position(|buffer| buffer.size() >= bytes) {
            return free.swap_remove(at);
        }
        free.pop(); // too small, and it would only stand in the way
        device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("read-back"),
            size: bytes
                .max(4096)
                .checked_next_power_of_two()
                .unwrap_or(bytes)
                .min(device.limits().max_buffer_size)
                .max(bytes),
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        })
    }

    fn give_back(&self, buffer: wgpu::Buffer) {
        let mut free = self.free.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if free.len() < KEPT {
            free.push(buffer);
        }
    }
}
