//! A batch on its way to the device: recorded step by step, cut into submissions, its results copied where they can be read.

use super::ahead::Account;
use super::flight::{Flight, Submitted, Ticket};
use super::kernel::stride4;
use super::mark::Mark;
use super::options::Dtype;
use super::piece::{self, Piece, Whole};
use super::staging::Write;
use super::upload::{BatchData, Sizes};
use super::work::Work;
use super::workspace::{Allocated, Workspace};
use super::{GpuExecutor, pace};
use crate::batch::Batch;
use crate::error::RunError;
use crate::matrix::Matrix;
use crate::program::Value;
use std::sync::mpsc;
use std::time::Instant;

impl GpuExecutor {
    /// Records and submits a batch: the steps in `needed`, then a copy of `outputs`. `finish` gets these as matrices.
    pub(super) fn start(
        &self,
        batch: &Batch,
        workspace: &mut Workspace,
        needed: &[bool],
        outputs: &[Value],
        finish: impl FnOnce(Result<Vec<Matrix>, RunError>) + Send + 'static,
    ) -> Result<(), RunError> {
        let data = BatchData::new(batch, |longest| self.fixed.compiled.queries(longest));
        let program = &self.fixed.program;
        let steps: Vec<usize> = (0..needed.len()).filter(|&step| needed[step]).collect();
        let costs = program.costs(batch);
        let work = |&step: &usize| Work::of(&program.steps[step].op, &costs[step]);
        let works: Vec<Work> = steps.iter().map(work).collect();
        let pieces = self.pieces(&steps, &works, &data, self.pace.most_seconds());
        let mut runs = pace::cut(pieces.iter().map(|piece| piece.seconds), self.pace.most_seconds());
        let last = runs.pop().unwrap_or_default();

        workspace.reserve(batch.tokens(), batch.sequences(), &self.fixed, &self.device)?;
        workspace.reserve_marks(runs.len() + 1, &self.device)?;
        let Some(allocated) = workspace.allocated() else {
            return Err(self.device.health.fail("no workspace"));
        };

        let parts: Vec<Part> = outputs
            .iter()
            .scan(0, |offset, &value| {
                let shape = program.shape(value);
                let (rows, stride) = (shape.rows_in(batch.tokens(), batch.sequences()), stride4(shape.cols) * 4);
                let part = Part { offset: *offset, rows, cols: shape.cols, stride, dtype: self.fixed.dtype };
                *offset += part.bytes() as u64;
                Some(part)
            })
            .collect();
        let results: u64 = parts.iter().map(|part| part.bytes() as u64).sum();
        let limit = self.device.description().limits.max_buffer_size;
        let read_back = results + (runs.len() as u64 + 1) * 4; // with marks
        if read_back > limit {
            return Err(RunError::OutOfMemory { tokens: batch.tokens(), needed: read_back, granted: limit });
        }

        let (mapping, mapped) = mpsc::channel();
        let begun = Instant::now();
        let submitted = self.device.scoped(|| {
            let marks = &allocated.marks;
            let mark = Mark::new(runs.len() + 1);
            let bytes = results + mark.bytes() as u64;
            let buffer = self.readback.take(bytes, &self.device.device);
            let encoder = || self.device.device.create_command_encoder(&Default::default());
            let Some(firsts) = self.write(&data, &pieces, allocated, Some(mark)) else { return Ok(None) };
            for (i, run) in runs.iter().enumerate() {
                let mut encoder = encoder();
                self.record(i, &pieces[run.clone()], &firsts, allocated, &mut encoder);
                let (index, account) = self.enqueue(encoder, &pieces[run.clone()])?;
                self.device.launch(Submitted::Part(index, account))?;
            }
            let mut encoder = encoder();
            self.record(runs.len(), &pieces[last.clone()], &firsts, allocated, &mut encoder);
            for (part, &value) in parts.iter().zip(outputs).filter(|(part, _)| part.rows > 0) {
                let source = workspace.buffer(allocated, value);
                encoder.copy_buffer_to_buffer(source, 0, &buffer, part.offset, part.bytes() as u64);
            }
            marks.collect(mark, &mut encoder, &buffer, results);
            encoder.map_buffer_on_submit(&buffer, wgpu::MapMode::Read, ..bytes, move |result| {
                let _ = mapping.send(result); // nobody listens once the batch has failed
            });
            Ok::<_, RunError>(Some((self.enqueue(encoder, &pieces[last])?, buffer, bytes, mark)))
        });
        let ((submission, account), buffer, bytes, mark) = match submitted {
            Ok(submitted) => submitted?.ok_or_else(|| self.device.unwritten())?,
            Err(wgpu::Error::OutOfMemory { .. }) => {
                return Err(RunError::OutOfMemory { tokens: batch.tokens(), needed: results, granted: 0 });
            }
            Err(error) => return Err(self.device.health.fail(error.to_string())),
        };
        let (pace, tokens, work) = (self.pace.clone(), batch.tokens(), works.into_iter().sum());
        let finish = Box::new(move |bytes: Result<&[u8], RunError>| {
            let results = bytes.and_then(|bytes| match bytes.split_at(results as usize) {
                (results, marks) if mark.is_on(marks) => Ok(results),
                _ => Err(RunError::Unfinished { tokens }),
            });
            match &results {
                Ok(_) => pace.landed(begun, tokens, &work),
                Err(RunError::Unfinished { .. }) => pace.refused(tokens),
                Err(_) => {}
            }
            finish(results.map(|bytes| parts.iter().map(|part| part.read(bytes)).collect()));
        });
        let (account, pool) = (Some(account), self.readback.clone());
        self.device.launch(Submitted::Batch(Flight { submission, account, buffer, bytes, mapped, finish, pool }))
    }

    /// The dispatches of steps, each of at most about `most` seconds.
    pub(super) fn pieces(&self, steps: &[usize], works: &[Work], data: &BatchData, most: f64) -> Vec<Piece> {
        let seconds = self.pace.seconds(works);
        let whole = |((&step, &work), seconds)| Whole { step, work, seconds };
        let steps: Vec<Whole> = steps.iter().zip(works).zip(seconds).map(whole).collect();
        let per_axis = self.device.description().limits.max_compute_workgroups_per_dimension;
        piece::pieces(&self.fixed.compiled, &steps, data.sizes, most, per_axis)
    }

    /// Submits, as soon as there is room for these pieces among what the device has yet to do.
    fn enqueue(&self, encoder: wgpu::CommandEncoder, pieces: &[Piece]) -> Result<(Ticket, Account), RunError> {
        let commands = encoder.finish();
        let seconds = pieces.iter().map(|piece| piece.seconds).sum();
        let place = self.device.ahead.enter(seconds, self.pace.limit(), &self.device.health)?;
        let begun = Instant::now();
        let ticket = self.device.submit([commands]);
        let work = pieces.iter().map(|piece| piece.work).sum();
        Ok((ticket, Account { begun, work, pace: self.pace.clone(), place }))
    }

    /// One compute pass over these pieces, the `i`-th of a batch, and its mark.
    fn record(
        &self,
        i: usize,
        pieces: &[Piece],
        firsts: &[u32],
        allocated: &Allocated,
        encoder: &mut wgpu::CommandEncoder,
    ) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        self.dispatch(pieces, firsts, allocated, &mut pass);
        allocated.marks.copy(i, &mut pass);
    }

    /// The pieces of a batch whose [`GpuExecutor::write`] gave `firsts`.
    pub(super) fn dispatch(
        &self,
        pieces: &[Piece],
        firsts: &[u32],
        allocated: &Allocated,
        pass: &mut wgpu::ComputePass<'_>,
    ) {
        let per_axis = self.device.description().limits.max_compute_workgroups_per_dimension;
        let mut bound = None;
        for piece in pieces {
            if bound != Some(piece.groups.start) {
                let at = firsts.binary_search(&piece.groups.start).expect("`write` has the firsts of all pieces");
                pass.set_bind_group(0, &allocated.batch_group, &[(at as u64 * allocated.sizes_stride) as u32]);
                bound = Some(piece.groups.start);
            }
            let launch = &self.fixed.compiled.steps[piece.step][piece.launch];
            pass.set_pipeline(&self.fixed.pipelines[piece.step][piece.launch].pipeline);
            pass.set_bind_group(1, &allocated.groups[piece.step][piece.launch], &[]);
            let [x, y, z] = launch.grid.fold(piece.groups.len() as u32, per_axis);
            pass.dispatch_workgroups(x, y, z);
        }
    }

    /// Hands the batch to the queue, before whatever is submitted next, and its mark. Returns where its dispatches begin, in the
    /// order in which the sizes lie on the device for each.
    ///
    /// `None` if [`GpuDevice::write`](super::GpuDevice::write) did not.
    pub(super) fn write(
        &self,
        data: &BatchData,
        pieces: &[Piece],
        allocated: &Allocated,
        mark: Option<Mark>,
    ) -> Option<Vec<u32>> {
        let firsts = piece::firsts(pieces);
        let Sizes { tokens, sequences, query_tiles, .. } = data.sizes;
        let mut sizes = vec![0; firsts.len() * allocated.sizes_stride as usize / 4];
        for (&first, sizes) in firsts.iter().zip(sizes.chunks_exact_mut(allocated.sizes_stride as usize / 4)) {
            sizes[..4].copy_from_slice(&[tokens, sequences, query_tiles, first]);
        }
        let batch: [&[u8]; 4] = [
            bytemuck::cast_slice(&sizes),
            bytemuck::cast_slice(&data.tokens),
            bytemuck::cast_slice(&data.sequences),
            bytemuck::cast_slice(&data.query_tiles),
        ];
        let given = mark.map(Mark::given).unwrap_or_default();
        let writes = allocated.batch.iter().zip(batch).map(|(buffer, bytes)| Write { buffer, offset: 0, bytes });
        let writes: Vec<Write> = writes.chain([allocated.marks.write(&given)]).collect();
        self.device.write(&writes).then_some(firsts)
    }
}

/// A value in a read-back buffer.
#[derive(Debug, Clone, Copy)]
struct Part {
    offset: u64,
    rows: usize,
    cols: usize,
    /// Elements from row to row.
    stride: usize,
    dtype: Dtype,
}

impl Part {
    fn bytes(&self) -> usize {
        self.rows * self.stride * self.dtype.size()
    }

    /// As f32, without the padding.
    fn read(&self, bytes: &[u8]) -> Matrix {
        let bytes = &bytes[self.offset as usize..][..self.bytes()];
        let mut data = Vec::with_capacity(self.rows * self.cols);
        for row in bytes.chunks_exact(self.stride * self.dtype.size()) {
            match self.dtype {
                Dtype::F32 => data.extend(bytemuck::cast_slice::<u8, f32>(row)[..self.cols].iter()),
                Dtype::F16 => {
                    data.extend(bytemuck::cast_slice::<u8, half::f16>(row)[..self.cols].iter().map(|x| x.to_f32()))
                }
                Dtype::Bf16 | Dtype::Int8 => unreachable!("refused at load"),
            }
        }
        Matrix::new(self.rows, self.cols, data)
    }
}
