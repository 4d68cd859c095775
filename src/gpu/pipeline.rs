//! Kernels' texts become pipelines, each once for a device.

use super::compile::Launch;
use super::device::GpuDevice;
use super::kernel::Binding;
use super::pipeline_file::PipelineFile;
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// A compiled kernel and the layout of its `@group(1)`.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

/// The pipelines of a device, by their text and whether wgpu's checks are in.
#[derive(Debug)]
pub(super) struct PipelineCache {
    /// The layout of `@group(0)`: common/batch.wgsl.
    pub batch_layout: wgpu::BindGroupLayout,
    pipelines: Mutex<HashMap<(String, bool), Arc<Pipeline>>>,
    file: Option<PipelineFile>,
}

impl PipelineCache {
    pub fn new(device: &wgpu::Device, info: &wgpu::AdapterInfo) -> PipelineCache {
        let bindings = [Binding::Params, Binding::Read, Binding::Read, Binding::Read];
        let file = PipelineFile::open(device, info);
        PipelineCache { batch_layout: layout(device, "batch", &bindings, Some(0)), pipelines: Mutex::default(), file }
    }

    /// Keeps on disk what has been compiled.
    pub fn save(&self) {
        if let Some(file) = &self.file {
            file.save();
        }
    }

    /// The launch's pipeline, compiled now if it is new.
    ///
    /// # Errors
    /// [`Error::Device`] with the compiler's message.
    pub fn get(&self, launch: &Launch, checked: bool, device: &GpuDevice) -> Result<Arc<Pipeline>> {
        let key = (launch.prelude.text(launch.kernel), checked);
        let lock = || self.pipelines.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(pipeline) = lock().get(&key) {
            return Ok(pipeline.clone());
        }
        // Not under the lock: several threads compile at once.
        let pipeline = Arc::new(self.compile(launch, &key.0, checked, device)?);
        Ok(lock().entry(key).or_insert(pipeline).clone())
    }

    fn compile(&self, launch: &Launch, text: &str, checked: bool, device: &GpuDevice) -> Result<Pipeline> {
        let name = launch.kernel.name;
        let compiled = device.scoped(|| {
            let source =
                wgpu::ShaderModuleDescriptor { label: Some(name), source: wgpu::ShaderSource::Wgsl(text.into()) };
            let module = if checked {
                device.device.create_shader_module(source)
            } else {
                // SAFETY: our own shaders, which stay inside their buffers (every index is bounded by the batch's counts,
                // which `Program::check` and the workspace's sizes agree with) and whose loops end; tests run them
                // with the checks on.
                unsafe { device.device.create_shader_module_trusted(source, wgpu::ShaderRuntimeChecks::unchecked()) }
            };
            let layout = layout(&device.device, name, launch.kernel.bindings, None);
            let pipeline_layout = device.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some(name),
                bind_group_layouts: &[Some(&self.batch_layout), Some(&layout)],
                immediate_size: 0,
            });
            let pipeline = device.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(name),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some(name),
                compilation_options: wgpu::PipelineCompilationOptions {
                    // No kernel reads workgroup memory that it has not written.
                    zero_initialize_workgroup_memory: checked,
                    ..Default::default()
                },
                cache: self.file.as_ref().map(PipelineFile::cache),
            });
            Pipeline { pipeline, layout }
        });
        compiled.map_err(|error| Error::Device(format!("{}: kernel {name}: {error}", device.description())))
    }
}

/// `dynamic`: the binding whose offset comes with each dispatch.
pub(super) fn layout(
    device: &wgpu::Device,
    label: &str,
    bindings: &[Binding],
    dynamic: Option<u32>,
) -> wgpu::BindGroupLayout {
    let entries: Vec<_> = (0..)
        .zip(bindings)
        .map(|(binding, kind)| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: match kind {
                    Binding::Params => wgpu::BufferBindingType::Uniform,
                    Binding::Read => wgpu::BufferBindingType::Storage { read_only: true },
                    Binding::Write => wgpu::BufferBindingType::Storage { read_only: false },
                },
                has_dynamic_offset: dynamic == Some(binding),
                min_binding_size: None,
            },
            count: None,
        })
        .collect();
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(label), entries: &entries })
}
