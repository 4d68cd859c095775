//! The activation buffers of a plan, one for each planned slot, with the bind groups over them. Growing in steps, so that
//! batches of like size allocate nothing; bounded by the caller's budget and the device's limits.

use super::compile::{Compiled, Launch, Slot};
use super::device::GpuDevice;
use super::kernel::{Binding, stride4};
use super::mark::Marks;
use super::options::Dtype;
use super::piece::MOST_FIRSTS;
use super::pipeline::Pipeline;
use super::upload::Sizes;
use super::weights::Weights;
use crate::error::RunError;
use crate::program::{Plan, Program, Rows, Value};
use std::sync::Arc;

/// Capacities are multiples of these.
const TOKENS_STEP: usize = 1024;
const SEQUENCES_STEP: usize = 64;

/// Batches of so many tokens are tried, however wide their values are.
const LEAST_TRIED: usize = 64;

/// Every value has room for whole blocks of so many rows: `linear_cooperative.wgsl` reads whole blocks.
const BLOCK_ROWS: usize = 16;

/// Submissions that most batches are done in.
const MARKS: usize = 16;

/// What every launch needs on the device and no batch changes.
#[derive(Debug)]
pub(super) struct Fixed {
    pub program: Arc<Program>,
    pub compiled: Compiled,
    /// The pipeline of each launch of each step.
    pub pipelines: Vec<Vec<Arc<Pipeline>>>,
    pub weights: Weights,
    /// The params of all launches, and where each step's launches have theirs.
    pub params: wgpu::Buffer,
    pub params_at: Vec<Vec<u64>>,
    /// Zeros, for [`Slot::Unused`].
    pub unused: wgpu::Buffer,
    /// What values are stored in.
    pub dtype: Dtype,
    pub memory_budget: Option<u64>,
}

/// The buffers of a plan.
#[derive(Debug)]
pub(super) struct Workspace {
    plan: Plan,
    tokens: usize,
    sequences: usize,
    allocated: Option<Allocated>,
}

/// What a workspace of some capacity holds.
#[derive(Debug)]
pub(super) struct Allocated {
    /// For each planned slot.
    values: Vec<wgpu::Buffer>,
    /// `@group(0)`, in order of its bindings: sizes, tokens, sequences, query tiles. The sizes lie there once for each place
    /// where a dispatch begins, so many bytes apart.
    pub batch: [wgpu::Buffer; 4],
    pub sizes_stride: u64,
    pub batch_group: wgpu::BindGroup,
    /// `@group(1)` of each launch of each step.
    pub groups: Vec<Vec<wgpu::BindGroup>>,
    pub marks: Marks,
    bytes: u64,
}

impl Workspace {
    /// Without memory yet.
    pub fn new(plan: Plan) -> Workspace {
        Workspace { plan, tokens: 0, sequences: 0, allocated: None }
    }

    /// The buffer that a value lives in.
    pub fn buffer<'a>(&self, allocated: &'a Allocated, value: Value) -> &'a wgpu::Buffer {
        &allocated.values[self.plan.buffer_of[value.index()]]
    }

    /// Makes room for a batch.
    ///
    /// # Errors
    /// [`RunError::OutOfMemory`] if the budget, the device's limits or its memory do not allow it.
    pub fn reserve(
        &mut self,
        tokens: usize,
        sequences: usize,
        fixed: &Fixed,
        device: &GpuDevice,
    ) -> Result<(), RunError> {
        if self.allocated.is_some() && tokens <= self.tokens && sequences <= self.sequences {
            return Ok(());
        }
        // In steps if they fit, else exactly, else not at all.
        let grown = (
            tokens.next_multiple_of(TOKENS_STEP).max(self.tokens),
            sequences.next_multiple_of(SEQUENCES_STEP).max(self.sequences),
        );
        self.fits(grown.0, grown.1, tokens, fixed, device)
            .and_then(|()| self.allocate(grown.0, grown.1, tokens, fixed, device))
            .or_else(|error| match error {
                RunError::OutOfMemory { .. } if grown != (tokens, sequences) => self
                    .fits(tokens, sequences, tokens, fixed, device)
                    .and_then(|()| self.allocate(tokens, sequences, tokens, fixed, device)),
                other => Err(other),
            })
    }

    /// After [`Workspace::reserve`]: makes room for the marks of so many submissions.
    ///
    /// # Errors
    /// [`RunError::DeviceLost`] if the device does not even have that.
    pub fn reserve_marks(&mut self, submissions: usize, device: &GpuDevice) -> Result<(), RunError> {
        if let Some(allocated) = self.allocated.as_mut().filter(|allocated| allocated.marks.room() < submissions) {
            let marks = device.scoped(|| Marks::new(submissions, device));
            allocated.marks = marks.map_err(|error| device.health.fail(error.to_string()))?;
        }
        Ok(())
    }

    /// The most tokens that a batch may have, doubled from `tokens` up to `most`, within the budget or, without one, within
    /// `granted` bytes; at least half of what fits.
    pub fn largest(&self, tokens: usize, most: usize, granted: u64, fixed: &Fixed, device: &GpuDevice) -> usize {
        let fits = |tokens: usize| {
            // As many sequences as short sentences make.
            let sequences = tokens / 16;
            let bytes: u64 = self.sizes(tokens, sequences, fixed).iter().sum();
            self.fits(tokens, sequences, tokens, fixed, device).is_ok()
                && (fixed.memory_budget.is_some() || bytes <= granted)
        };
        let mut tokens = tokens;
        while tokens > LEAST_TRIED && !fits(tokens) {
            tokens /= 2;
        }
        while tokens * 2 <= most && fits(tokens * 2) {
            tokens *= 2;
        }
        tokens
    }

    /// What is allocated: after [`Workspace::reserve`], something.
    pub fn allocated(&self) -> Option<&Allocated> {
        self.allocated.as_ref()
    }

    /// Bytes of each planned slot, then of each room between the launches of steps.
    fn sizes(&self, tokens: usize, sequences: usize, fixed: &Fixed) -> Vec<u64> {
        let size = |rows: usize, cols: usize| {
            let rows = rows.max(1).next_multiple_of(BLOCK_ROWS) as u64;
            (rows * stride4(cols) as u64 * 4 * fixed.dtype.size() as u64).next_multiple_of(16)
        };
        let values = self.plan.buffers.iter().map(|shape| size(shape.rows_in(tokens, sequences), shape.cols));
        let [tokens, sequences] = [tokens, sequences].map(|count| count as u32);
        let between = fixed.compiled.between(Sizes { tokens, sequences, query_tiles: 0, longest: 0 }, fixed.dtype);
        values.chain(between).collect()
    }

    /// Whether capacities lie within budget and limits. `wanted` is the batch's tokens, for the message.
    fn fits(
        &self,
        tokens: usize,
        sequences: usize,
        wanted: usize,
        fixed: &Fixed,
        device: &GpuDevice,
    ) -> Result<(), RunError> {
        let sizes = self.sizes(tokens, sequences, fixed);
        let limits = &device.description().limits;
        let largest = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        let total = sizes.iter().sum();
        let widest = sizes.into_iter().max().unwrap_or(0);
        match fixed.memory_budget {
            Some(budget) if total > budget => {
                Err(RunError::OutOfMemory { tokens: wanted, needed: total, granted: budget })
            }
            _ if widest > largest => Err(RunError::OutOfMemory { tokens: wanted, needed: widest, granted: largest }),
            _ => Ok(()),
        }
    }

    fn allocate(
        &mut self,
        tokens: usize,
        sequences: usize,
        wanted: usize,
        fixed: &Fixed,
        device: &GpuDevice,
    ) -> Result<(), RunError> {
        // The old buffers go first; batches in flight keep theirs alive.
        let granted = self.allocated.take().map_or(0, |allocated| allocated.bytes);
        (self.tokens, self.sequences) = (0, 0);
        let sizes = self.sizes(tokens, sequences, fixed);
        let create = || device.scoped(|| self.create(&sizes, tokens, sequences, fixed, device));
        let created = match create() {
            Err(wgpu::Error::OutOfMemory { .. }) if granted > 0 => {
                device.wait()?; // then the old ones are gone
                create()
            }
            created => created,
        };
        match created {
            Ok(allocated) => {
                log::debug!("workspace: {tokens} tokens, {sequences} sequences, {} bytes", allocated.bytes);
                self.allocated = Some(allocated);
                (self.tokens, self.sequences) = (tokens, sequences);
                Ok(())
            }
            Err(wgpu::Error::OutOfMemory { .. }) => {
                Err(RunError::OutOfMemory { tokens: wanted, needed: sizes.iter().sum(), granted })
            }
            Err(error) => Err(device.health.fail(error.to_string())),
        }
    }

    fn create(&self, sizes: &[u64], tokens: usize, sequences: usize, fixed: &Fixed, device: &GpuDevice) -> Allocated {
        let buffer = |label: &str, size: u64, usage| {
            device.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        let storage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let values: Vec<_> = self
            .plan
            .buffers
            .iter()
            .zip(sizes)
            .map(|(shape, &size)| {
                let rows = match shape.rows {
                    Rows::Tokens => "tokens",
                    Rows::Sequences => "sequences",
                };
                buffer(&format!("[{rows}, {}]", shape.cols), size, storage | wgpu::BufferUsages::COPY_SRC)
            })
            .collect();

        let room = |&size: &u64| buffer("between launches", size.next_multiple_of(16).max(16), storage);
        let between: Vec<_> = sizes[values.len()..].iter().map(room).collect();
        let tiles = fixed.compiled.most_query_tiles(tokens, sequences);
        let quads = |rows: usize| rows.max(1) as u64 * 16; // vec4<u32>
        let sizes_stride = u64::from(device.description().limits.min_uniform_buffer_offset_alignment.max(16));
        let batch = [
            buffer(
                "batch",
                MOST_FIRSTS as u64 * sizes_stride,
                wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            ),
            buffer("tokens", quads(tokens), storage),
            buffer("sequences", quads(sequences), storage),
            buffer("query tiles", quads(tiles), storage),
        ];
        let resources = batch.iter().enumerate().map(|(i, buffer)| match i {
            0 => wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer,
                offset: 0,
                size: wgpu::BufferSize::new(16),
            }),
            _ => buffer.as_entire_binding(),
        });
        let batch_group = group(device, "batch", &device.pipelines.batch_layout, resources);

        let groups = fixed.compiled.steps.iter().zip(&fixed.pipelines).zip(&fixed.params_at);
        let groups = groups.map(|((launches, pipelines), params_at)| {
            let launches = launches.iter().zip(pipelines).zip(params_at);
            launches
                .map(|((launch, pipeline), &at)| self.group((launch, pipeline, at), &values, &between, fixed, device))
                .collect()
        });
        Allocated {
            groups: groups.collect(),
            values,
            batch,
            sizes_stride,
            batch_group,
            marks: Marks::new(MARKS, device),
            bytes: sizes.iter().sum(),
        }
    }

    fn group(
        &self,
        (launch, pipeline, params_at): (&Launch, &Pipeline, u64),
        values: &[wgpu::Buffer],
        between: &[wgpu::Buffer],
        fixed: &Fixed,
        device: &GpuDevice,
    ) -> wgpu::BindGroup {
        let mut slots = launch.slots.iter();
        let resources = launch.kernel.bindings.iter().map(|binding| match binding {
            Binding::Params => wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: &fixed.params,
                offset: params_at,
                size: wgpu::BufferSize::new(launch.params.len() as u64),
            }),
            Binding::Read | Binding::Write => match slots.next() {
                Some(Slot::Value(value)) => values[self.plan.buffer_of[value.index()]].as_entire_binding(),
                Some(slot @ (Slot::Weight(_) | Slot::Weights(_))) => {
                    fixed.weights.buffer(slot.weights()).as_entire_binding()
                }
                Some(Slot::Between(it)) => between[it.room as usize].as_entire_binding(),
                Some(Slot::Unused) | None => fixed.unused.as_entire_binding(),
            },
        });
        group(device, launch.kernel.name, &pipeline.layout, resources)
    }
}

fn group<'a>(
    device: &GpuDevice,
    label: &str,
    layout: &wgpu::BindGroupLayout,
    resources: impl Iterator<Item = wgpu::BindingResource<'a>>,
) -> wgpu::BindGroup {
    let entries: Vec<_> =
        (0..).zip(resources).map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource }).collect();
    device.device.create_bind_group(&wgpu::BindGroupDescriptor { label: Some(label), layout, entries: &entries })
}
