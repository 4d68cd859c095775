//! What a device has been given and may not have done yet. A queue is first in, first out: what an application submits to the
//! device that it shares waits for all of it.

use super::device::Health;
use super::flight;
use crate::error::RunError;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Submissions to a device, oldest first, with the time that each is expected to take there. Done ones are among them until
/// somebody looks.
#[derive(Debug, Default)]
pub(super) struct Ahead(Mutex<VecDeque<(wgpu::SubmissionIndex, Duration)>>);

impl Ahead {
    /// Blocks until `next` and what is ahead of it take no more than `limit`, or nothing is ahead.
    pub fn make_room(
        &self,
        next: Duration,
        limit: Duration,
        device: &wgpu::Device,
        health: &Health,
    ) -> Result<(), RunError> {
        while let Some(oldest) = self.overdue(next, limit) {
            while !flight::poll(device, oldest.clone(), health)? {}
        }
        Ok(())
    }

    /// Takes out the oldest, if there is too much to add `next`.
    fn overdue(&self, next: Duration, limit: Duration) -> Option<wgpu::SubmissionIndex> {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ahead: Duration = queue.iter().map(|(_, time)| *time).sum();
        if ahead + next <= limit { None } else { queue.pop_front().map(|(index, _)| index) }
    }

    /// Has been submitted now.
    pub fn push(&self, index: wgpu::SubmissionIndex, time: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back((index, time));
    }
}
