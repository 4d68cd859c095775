//! A batch on its way to the device: recorded step by step, cut into submissions, its results copied where they can be read.

use super::compile::Count;
use super::flight::Flight;
use super::kernel::stride4;
use super::options::Dtype;
use super::upload::BatchData;
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
        workspace.reserve(batch.tokens(), batch.sequences(), &self.fixed, &self.device)?;
        let Some(allocated) = workspace.allocated() else {
            return Err(self.device.health.fail("no workspace"));
        };

        let program = &self.fixed.program;
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
        let bytes: u64 = parts.iter().map(|part| part.bytes() as u64).sum();
        let limit = self.device.description().limits.max_buffer_size;
        if bytes > limit {
            return Err(RunError::OutOfMemory { tokens: batch.tokens(), needed: bytes, granted: limit });
        }

        let steps: Vec<usize> = (0..needed.len()).filter(|&step| needed[step]).collect();
        let costs = program.costs(batch);
        let work: Vec<f64> = steps.iter().map(|&step| pace::work(&costs[step])).collect();
        let mut runs = self.pace.submissions(&work);
        let last = runs.pop().unwrap_or_default();

        let (mapping, mapped) = mpsc::channel();
        let begun = Instant::now();
        let submitted = self.device.scoped(|| {
            let buffer = self.readback.take(bytes, &self.device.device);
            let encoder = || self.device.device.create_command_encoder(&Default::default());
            self.write(&data, allocated);
            for run in runs {
                let mut encoder = encoder();
                self.record(&data, allocated, &steps[run], &mut encoder);
                self.device.queue.submit([encoder.finish()]);
            }
            let mut encoder = encoder();
            self.record(&data, allocated, &steps[last], &mut encoder);
            for (part, &value) in parts.iter().zip(outputs).filter(|(part, _)| part.rows > 0) {
                let source = workspace.buffer(allocated, value);
                encoder.copy_buffer_to_buffer(source, 0, &buffer, part.offset, part.bytes() as u64);
            }
            encoder.map_buffer_on_submit(&buffer, wgpu::MapMode::Read, ..bytes, move |result| {
                let _ = mapping.send(result); // nobody listens once the batch has failed
            });
            (self.device.queue.submit([encoder.finish()]), buffer)
        });
        let (submission, buffer) = match submitted {
            Ok(submitted) => submitted,
            Err(wgpu::Error::OutOfMemory { .. }) => {
                return Err(RunError::OutOfMemory { tokens: batch.tokens(), needed: bytes, granted: 0 });
            }
            Err(error) => return Err(self.device.health.fail(error.to_string())),
        };
        let (pace, tokens, work) = (self.pace.clone(), batch.tokens(), work.iter().sum());
        let finish = Box::new(move |bytes: Result<&[u8], RunError>| {
            if bytes.is_ok() {
                pace.landed(begun, tokens, work);
            }
            finish(bytes.map(|bytes| parts.iter().map(|part| part.read(bytes)).collect()));
        });
        self.device.launch(Flight { submission, buffer, bytes, mapped, finish, pool: self.readback.clone() })
    }

    /// One compute pass over these steps.
    fn record(&self, data: &BatchData, allocated: &Allocated, steps: &[usize], encoder: &mut wgpu::CommandEncoder) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_bind_group(0, &allocated.batch_group, &[]);
        for &step in steps {
            self.dispatch(step, data, allocated, &mut pass);
        }
    }

    /// The launches of one step. The pass has the batch's bind group.
    pub(super) fn dispatch(
        &self,
        step: usize,
        data: &BatchData,
        allocated: &Allocated,
        pass: &mut wgpu::ComputePass<'_>,
    ) {
        let [tokens, sequences, query_tiles, longest] = data.sizes;
        let per_axis = self.device.description().limits.max_compute_workgroups_per_dimension;
        let launches = self.fixed.compiled.steps[step].iter().zip(&self.fixed.pipelines[step]);
        for ((launch, pipeline), group) in launches.zip(&allocated.groups[step]) {
            let (items, decides) = match launch.grid.count {
                Count::Tokens => (tokens, tokens),
                Count::Sequences => (sequences, sequences),
                Count::QueryTiles => (query_tiles, longest),
            };
            let [x, y, z] = launch.grid.workgroups(items, per_axis);
            if x > 0 && launch.items.contains(&decides) {
                pass.set_pipeline(&pipeline.pipeline);
                pass.set_bind_group(1, group, &[]);
                pass.dispatch_workgroups(x, y, z);
            }
        }
    }

    /// Hands the batch to the queue, before whatever is submitted next.
    pub(super) fn write(&self, data: &BatchData, allocated: &Allocated) {
        let batch = [
            bytemuck::bytes_of(&data.sizes),
            bytemuck::cast_slice(&data.tokens),
            bytemuck::cast_slice(&data.sequences),
            bytemuck::cast_slice(&data.query_tiles),
        ];
        for (buffer, bytes) in allocated.batch.iter().zip(batch).filter(|(_, bytes)| !bytes.is_empty()) {
            self.device.queue.write_buffer(buffer, 0, bytes);
        }
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
                Dtype::Int8 => unreachable!("refused at load"),
            }
        }
        Matrix::new(self.rows, self.cols, data)
    }
}
