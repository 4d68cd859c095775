//! The most that the device does a second, measured by kernels of their own: `shaders/ceilings.wgsl`.

use super::GpuExecutor;
use super::compile::{Count, Grid};
use super::device::GpuDevice;
use crate::error::RunError;
use crate::executor::Ceilings;
use std::time::{Duration, Instant};

const SOURCE: &str = include_str!("../../shaders/ceilings.wgsl");

/// What one workgroup of `multiply_add` does: its invocations, rounds and sums of four, each a multiplication and an
/// addition.
const FLOPS_A_GROUP: f64 = 256.0 * 512.0 * 8.0 * 4.0 * 2.0;

/// Bytes of each buffer, where the device binds as many: beyond the caches of most.
const BUFFER: u64 = 128 << 20;

/// A measurement takes at least this long, with dispatches as many as it takes; the best of `TRIES` counts.
const TIME: Duration = Duration::from_millis(10);
const TRIES: usize = 3;

impl GpuExecutor {
    /// Measures both ceilings, in some 100 ms on a GPU.
    pub(super) fn measure_ceilings(&self) -> Result<Ceilings, RunError> {
        let device = &self.device;
        device.health.check()?;
        let limits = &device.description().limits;
        let most = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        // A software adapter is slow, and a CPU's caches are small.
        let size = if device.description().is_software() { BUFFER / 4 } else { BUFFER }.min(most) / 4096 * 4096;
        let built = device.scoped(|| Bench::new(device, size));
        let bench = built.map_err(|error| match error {
            wgpu::Error::OutOfMemory { .. } => RunError::OutOfMemory { tokens: 0, needed: 2 * size, granted: 0 },
            error => device.health.fail(error.to_string()),
        })?;

        let groups = if device.description().is_software() { 64 } else { 4096 };
        let flops = bench.best("multiply_add", [groups, 1, 1], f64::from(groups) * FLOPS_A_GROUP)?;
        let grid = Grid { count: Count::Tokens, per_group: 256, columns: 1 };
        let grid = grid.workgroups((size / 16) as u32, limits.max_compute_workgroups_per_dimension);
        let bytes = bench.best("copy", grid, 2.0 * size as f64)?;
        Ok(Ceilings { gflops: flops / 1e9, gb_per_s: bytes / 1e9 })
    }
}

/// Two buffers, and the kernels over them.
struct Bench<'a> {
    device: &'a GpuDevice,
    module: wgpu::ShaderModule,
    layout: wgpu::BindGroupLayout,
    group: wgpu::BindGroup,
}

impl Bench<'_> {
    fn new(device: &GpuDevice, size: u64) -> Bench<'_> {
        let wgpu = &device.device;
        let source = wgpu::ShaderSource::Wgsl(SOURCE.into());
        let descriptor = wgpu::ShaderModuleDescriptor { label: Some("ceilings"), source };
        // SAFETY: every index is below the length that both buffers have, and every loop ends.
        let module = unsafe { wgpu.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) };
        let entry = |binding, read_only| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Storage { read_only },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        };
        let entries = [entry(0, true), entry(1, false)];
        let layout = wgpu.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries });
        let buffers = [0, 1].map(|_| {
            let usage = wgpu::BufferUsages::STORAGE;
            wgpu.create_buffer(&wgpu::BufferDescriptor {
                label: Some("ceilings"),
                size,
                usage,
                mapped_at_creation: false,
            })
        });
        let entry = |binding: usize| wgpu::BindGroupEntry {
            binding: binding as u32,
            resource: buffers[binding].as_entire_binding(),
        };
        let entries = [entry(0), entry(1)];
        let group =
            wgpu.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries });
        Bench { device, module, layout, group }
    }

    /// The best rate of a kernel of which one dispatch does `amount`.
    fn best(&self, kernel: &str, [x, y, z]: [u32; 3], amount: f64) -> Result<f64, RunError> {
        let wgpu = &self.device.device;
        let run = |dispatches: u32| -> Result<f64, RunError> {
            let submitted = self.device.scoped(|| {
                let layout = wgpu.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                    label: None,
                    bind_group_layouts: &[Some(&self.layout)],
                    immediate_size: 0,
                });
                let pipeline = wgpu.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                    label: Some(kernel),
                    layout: Some(&layout),
                    module: &self.module,
                    entry_point: Some(kernel),
                    compilation_options: Default::default(),
                    cache: None,
                });
                let mut encoder = wgpu.create_command_encoder(&Default::default());
                let mut pass = encoder.begin_compute_pass(&Default::default());
                pass.set_pipeline(&pipeline);
                pass.set_bind_group(0, &self.group, &[]);
                (0..dispatches).for_each(|_| pass.dispatch_workgroups(x, y, z));
                drop(pass);
                encoder.finish()
            });
            let commands = submitted.map_err(|error| self.device.health.fail(error.to_string()))?;
            let begun = Instant::now();
            self.device.queue.submit([commands]);
            self.device.wait()?;
            Ok(begun.elapsed().as_secs_f64())
        };
        let mut dispatches = 1;
        run(dispatches)?; // the first touches the memory
        let mut seconds = run(dispatches)?;
        while seconds < TIME.as_secs_f64() && dispatches < 1 << 12 {
            dispatches *= 4;
            seconds = run(dispatches)?;
        }
        for _ in 1..TRIES {
            seconds = seconds.min(run(dispatches)?);
        }
        Ok(amount * f64::from(dispatches) / seconds)
    }
}
