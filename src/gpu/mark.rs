//! Proof that a device did all that was submitted. On Metal, wgpu 30 takes a command buffer that failed, for want of memory or
//! because it took too long, for a done one (<https://github.com/gfx-rs/wgpu/issues/9545>): an earlier batch's rows would be
//! read. So the compute pass of each submission ends with the copy of a mark that no batch had before, and results count where all
//! have arrived. (A pass is a command buffer of Metal's, and the copies behind it are another: that they are done proves nothing.)

use super::device::GpuDevice;
use super::flight::{Flight, ReadbackPool, Submitted};
use super::kernel::Binding;
use super::pipeline;
use super::staging::Write;
use crate::error::RunError;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};

/// The kernel that copies a mark.
#[derive(Debug)]
pub(super) struct Marker {
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

/// Workgroups of a row of its grid.
const ROW: u32 = 1024;

/// The marks of one batch at a time.
#[derive(Debug)]
pub(super) struct Marks {
    given: wgpu::Buffer,
    /// Those that are collected.
    copied: wgpu::Buffer,
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
}

/// What so many submissions copy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    number: u32,
    submissions: usize,
}

/// Odd, so that it takes 2^32 batches to come back to a number; and not a small one, which might be a result or a size.
const STRIDE: u32 = 0x9e37_79b9;

static NEXT: AtomicU32 = AtomicU32::new(STRIDE);

impl Mark {
    /// A new mark for the next so many submissions.
    pub fn new(submissions: usize) -> Mark {
        Mark { number: NEXT.fetch_add(STRIDE, Ordering::Relaxed), submissions }
    }

    /// What is given to the submissions, for [`Marks::write`].
    pub fn given(self) -> Vec<u32> {
        vec![self.number; self.submissions]
    }

    /// Bytes that [`Marks::collect`] copies.
    pub fn bytes(self) -> usize {
        self.submissions * 4
    }

    /// Whether every submission has left its copy in these.
    pub fn is_on(self, bytes: &[u8]) -> bool {
        bytes.len() == self.bytes() && bytes.chunks_exact(4).all(|copy| copy == self.number.to_ne_bytes())
    }
}

impl Marker {
    /// Errors are the caller's to catch.
    pub fn new(device: &wgpu::Device) -> Marker {
        let source = wgpu::ShaderSource::Wgsl(include_str!("../../shaders/mark.wgsl").into());
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: Some("mark"), source });
        let layout = pipeline::layout(device, "mark", &[Binding::Read, Binding::Write], None);
        let of_pipeline = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some("mark"),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some("mark"),
            layout: Some(&of_pipeline),
            module: &module,
            entry_point: Some("mark"),
            compilation_options: Default::default(),
            cache: None,
        });
        Marker { pipeline, layout }
    }
}

impl Marks {
    /// Room for so many submissions, at least. Errors are the caller's to catch.
    pub fn new(submissions: usize, device: &GpuDevice) -> Marks {
        let Marker { pipeline, layout } = device.marker();
        let submissions = submissions.next_power_of_two();
        let buffer = |label, usage| {
            let (size, usage) = (submissions as u64 * 4, usage | wgpu::BufferUsages::STORAGE);
            let descriptor = wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
            device.device.create_buffer(&descriptor)
        };
        let given = buffer("marks", wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST);
        let copied = buffer("copied marks", wgpu::BufferUsages::COPY_SRC);
        let entries = [(0, &given), (1, &copied)];
        let entries =
            entries.map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() });
        let descriptor = wgpu::BindGroupDescriptor { label: Some("marks"), layout, entries: &entries };
        let group = device.device.create_bind_group(&descriptor);
        // The backend that computes nothing, for tests, only copies.
        let copied = if device.description().backend == wgpu::Backend::Noop { given.clone() } else { copied };
        Marks { given, copied, pipeline: pipeline.clone(), group }
    }

    /// Submissions that there is room for.
    pub fn room(&self) -> usize {
        self.given.size() as usize / 4
    }

    /// What is to be written before the submissions of a mark.
    pub fn write<'a>(&'a self, given: &'a [u32]) -> Write<'a> {
        Write { buffer: &self.given, offset: 0, bytes: bytemuck::cast_slice(given) }
    }

    /// The end of the pass of the `i`-th of these submissions.
    pub fn copy(&self, i: usize, pass: &mut wgpu::ComputePass<'_>) {
        let place = i as u32;
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        pass.dispatch_workgroups(place % ROW + 1, place / ROW + 1, 1);
    }

    /// In the last one, behind its pass: all copies, for [`Mark::is_on`].
    pub fn collect(&self, mark: Mark, encoder: &mut wgpu::CommandEncoder, buffer: &wgpu::Buffer, offset: u64) {
        encoder.copy_buffer_to_buffer(&self.copied, 0, buffer, offset, mark.bytes() as u64);
    }
}

impl GpuDevice {
    /// Submits what has been written and waits until it is there, which a mark among the writes proves.
    ///
    /// # Errors
    /// [`RunError::DeviceLost`], also if the device did not do it.
    pub(super) fn flush(&self) -> Result<(), RunError> {
        let marks = self.scoped(|| Marks::new(1, self)).map_err(|error| self.health.fail(error.to_string()))?;
        let (mapping, mapped) = mpsc::channel();
        let submitted = self.scoped(|| {
            let mark = Mark::new(1);
            if !self.write(&[marks.write(&mark.given())]) {
                return None;
            }
            let bytes = mark.bytes() as u64;
            let pool = Arc::<ReadbackPool>::default();
            let buffer = pool.take(bytes, &self.device);
            let mut encoder = self.device.create_command_encoder(&Default::default());
            marks.copy(0, &mut encoder.begin_compute_pass(&Default::default()));
            marks.collect(mark, &mut encoder, &buffer, 0);
            encoder.map_buffer_on_submit(&buffer, wgpu::MapMode::Read, ..bytes, move |result| {
                let _ = mapping.send(result); // nobody listens once the device is lost
            });
            Some((self.submit([encoder.finish()]), buffer, bytes, mark, pool))
        });
        let submitted = submitted.map_err(|error| self.health.fail(error.to_string()))?;
        let Some((submission, buffer, bytes, mark, pool)) = submitted else {
            return Err(self.unwritten());
        };
        let (completion, result) = mpsc::channel();
        let finish = Box::new(move |bytes: Result<&[u8], RunError>| {
            let _ = completion.send(bytes.map(|bytes| mark.is_on(bytes))); // its other end waits below
        });
        let account = None;
        self.launch(Submitted::Batch(Flight { submission, account, buffer, bytes, mapped, finish, pool }))?;
        match result.recv() {
            Ok(Ok(true)) => Ok(()),
            Ok(Err(error)) => Err(error),
            Ok(Ok(false)) => Err(self.health.fail("it did not do what was submitted; its memory may be full")),
            Err(_) => Err(self.health.fail("the thread that waits for the device ended")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{AdapterSelector, GpuDevice};

    /// Copies a mark in each of three submissions but `lost`, and reads what has arrived.
    fn arrived(marks: &Marks, lost: Option<usize>, device: &GpuDevice) -> bool {
        let mark = Mark::new(3);
        assert!(device.write(&[marks.write(&mark.given())]));
        let (device, queue) = (&device.device, &device.queue);
        let read = device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 16,
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        for i in 0..2 {
            let mut encoder = device.create_command_encoder(&Default::default());
            marks.copy(i, &mut encoder.begin_compute_pass(&Default::default()));
            let commands = encoder.finish();
            if lost != Some(i) {
                queue.submit([commands]);
            }
        }
        let mut encoder = device.create_command_encoder(&Default::default());
        if lost != Some(2) {
            marks.copy(2, &mut encoder.begin_compute_pass(&Default::default()));
        }
        marks.collect(mark, &mut encoder, &read, 4);
        queue.submit([encoder.finish()]);
        read.map_async(wgpu::MapMode::Read, .., |result| result.unwrap());
        device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        let bytes = read.get_mapped_range(..).unwrap();
        mark.is_on(&bytes[4..])
    }

    #[test]
    fn a_submission_that_was_not_done_is_missed() {
        let device = match GpuDevice::open(&AdapterSelector::Any) {
            Ok(device) => device,
            Err(error) if std::env::var_os("REQUIRE_GPU").is_some_and(|v| v == "1") => panic!("{error}"),
            Err(error) => return eprintln!("SKIPPED: {error}"),
        };
        let marks = Marks::new(3, &device);
        assert_eq!(marks.room(), 4);
        for lost in 0..3 {
            assert!(!arrived(&marks, Some(lost), &device), "{lost}");
            assert!(arrived(&marks, None, &device));
        }
    }
}
