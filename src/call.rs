//! Calls for async code. A model's work is done by threads of its own; what a call does beside that, from tokenising to reading
//! results back, is done on a thread of [`blocking`]'s pool, so that the caller's never waits. The futures are of no runtime in
//! particular: tokio, smol, `futures`, `pollster` or a frame's poll will do.

use crate::error::Result;
use crate::job::Cancel;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A call that is under way, whether it is polled or not. Await it, or poll it once a frame.
///
/// Dropped before its end, it ends the call at the next batch.
#[must_use = "a call that is dropped is cancelled"]
#[derive(Debug)]
pub struct Call<T> {
    task: blocking::Task<Result<T>>,
    dropped: Cancel,
}

impl<T: Send + 'static> Call<T> {
    /// Begins `work`, which should end soon once its flag is set: by `cancel`, if there is one, or because nobody waits.
    pub(crate) fn new(cancel: Option<&Cancel>, work: impl FnOnce(Cancel) -> Result<T> + Send + 'static) -> Call<T> {
        let dropped = cancel.map_or_else(Cancel::new, Cancel::child);
        let flag = dropped.clone();
        Call { task: blocking::unblock(move || work(flag)), dropped }
    }
}

impl<T> Future for Call<T> {
    type Output = Result<T>;

    /// Panics if the call did.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        Pin::new(&mut self.task).poll(context)
    }
}

impl<T> Drop for Call<T> {
    fn drop(&mut self) {
        self.dropped.cancel();
    }
}
