//! How long each step takes on the device: a submission and a compute pass a step, with timestamps around it.

use super::GpuExecutor;
use super::flight::{Flight, Submitted};
use super::upload::BatchData;
use super::work::Work;
use crate::batch::Batch;
use crate::error::RunError;
use crate::program::Output;
use futures::channel::oneshot;
use std::sync::mpsc;
use std::time::Duration;

impl GpuExecutor {
    /// Runs a batch and returns how long each step took, 0 for one that the sentences do not need. Passes of their own cost
    /// a little: the sum is above what a plain run takes. Each is a submission, so that no driver takes it for hung.
    ///
    /// # Errors
    /// [`RunError::InvalidBatch`] on a device without timestamp queries; otherwise as
    /// [`Executor::submit`](crate::executor::Executor::submit).
    pub(super) fn time_steps(&self, batch: &Batch) -> Result<Vec<Duration>, RunError> {
        self.device.health.check()?;
        self.fixed.program.check(batch)?;
        if !self.device.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            let description = self.device.description();
            return Err(RunError::InvalidBatch(format!("{description} has no timestamp queries to profile with")));
        }
        let needed = &self.needed[Output::Sentences as usize];
        let steps: Vec<usize> = (0..needed.len()).filter(|&i| needed[i]).collect();
        let queries = 2 * steps.len() as u32;
        let bytes = u64::from(queries) * 8;

        let data = BatchData::new(batch, |longest| self.fixed.compiled.queries(longest));
        let mut workspace = self.workspace.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        workspace.reserve(batch.tokens(), batch.sequences(), &self.fixed, &self.device)?;
        let Some(allocated) = workspace.allocated() else {
            return Err(self.device.health.fail("no workspace"));
        };
        let device = &self.device.device;
        let (mapping, mapped) = mpsc::channel();
        let submitted = self.device.scoped(|| {
            let set = device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("profile"),
                ty: wgpu::QueryType::Timestamp,
                count: queries,
            });
            let resolved = device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("profile"),
                size: bytes,
                usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            });
            let buffer = self.readback.take(bytes, device);
            let firsts = self.write(&data, &[], allocated, None)?;
            for (i, &step) in (0..).zip(&steps) {
                let mut encoder = device.create_command_encoder(&Default::default());
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                    label: None,
                    timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                        query_set: &set,
                        beginning_of_pass_write_index: Some(2 * i),
                        end_of_pass_write_index: Some(2 * i + 1),
                    }),
                });
                let pieces = self.pieces(&[step], &[Work::default()], &data, f64::INFINITY);
                self.dispatch(&pieces, &firsts, allocated, &mut pass);
                drop(pass);
                self.device.queue.submit([encoder.finish()]);
            }
            let mut encoder = device.create_command_encoder(&Default::default());
            encoder.resolve_query_set(&set, 0..queries, &resolved, 0);
            encoder.copy_buffer_to_buffer(&resolved, 0, &buffer, 0, bytes);
            encoder.map_buffer_on_submit(&buffer, wgpu::MapMode::Read, ..bytes, move |result| {
                let _ = mapping.send(result); // nobody listens once the batch has failed
            });
            Some((self.device.submit([encoder.finish()]), buffer))
        });
        let (submission, buffer) = match submitted {
            Ok(submitted) => submitted.ok_or_else(|| self.device.unwritten())?,
            Err(wgpu::Error::OutOfMemory { .. }) => {
                return Err(RunError::OutOfMemory { tokens: batch.tokens(), needed: bytes, granted: 0 });
            }
            Err(error) => return Err(self.device.health.fail(error.to_string())),
        };
        drop(workspace);

        let period = f64::from(self.device.queue.get_timestamp_period());
        let count = needed.len();
        let (completion, result) = oneshot::channel();
        let finish = Box::new(move |bytes: Result<&[u8], RunError>| {
            let times = bytes.map(|bytes| {
                let ticks: Vec<u64> = bytes.as_chunks().0.iter().map(|&tick| u64::from_le_bytes(tick)).collect();
                let mut times = vec![Duration::ZERO; count];
                for (step, pair) in steps.iter().zip(ticks.chunks_exact(2)) {
                    times[*step] = Duration::from_secs_f64(pair[1].saturating_sub(pair[0]) as f64 * period * 1e-9);
                }
                times
            });
            let _ = completion.send(times); // its other end waits below
        });
        let (account, pool) = (None, self.readback.clone());
        self.device.launch(Submitted::Batch(Flight { submission, account, buffer, bytes, mapped, finish, pool }))?;
        pollster::block_on(result).unwrap_or_else(|_| Err(self.device.health.fail("the device dropped a batch")))
    }
}
