//! A GPU: the adapter that was chosen, wgpu's device and queue, and what is known about its health.

use super::adapters::{AdapterSelector, describe, distinct, enumerate, metal_driver, real, select};
use super::ahead::Ahead;
use super::flight::{self, Submitted, Ticket};
use super::mark::Marker;
use super::options::{Cooperative, Dtype, Features};
use super::pipeline::PipelineCache;
use super::staging::Staging;
use super::tuning::Tuning;
use crate::error::{Error, Result, RunError};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

/// An adapter of this machine.
#[derive(Debug, Clone)]
pub struct AdapterDescription {
    /// As its driver names it.
    pub name: String,
    /// Vulkan, Metal, Dx12.
    pub backend: wgpu::Backend,
    /// Discrete, integrated, virtual; `Cpu` is a software adapter.
    pub device_type: wgpu::DeviceType,
    /// The driver and its version.
    pub driver: String,
    /// What kernels may use.
    pub features: Features,
    /// What wgpu reports.
    pub limits: wgpu::Limits,
}

impl AdapterDescription {
    pub(super) fn of(adapter: &wgpu::Adapter, features: wgpu::Features, limits: wgpu::Limits) -> AdapterDescription {
        let info = adapter.get_info();
        let subgroups = features.contains(wgpu::Features::SUBGROUP);
        let (least, most) = subgroup_sizes(&info);
        let fixed = subgroups && least == most;
        // A workgroup of the kernels that use them has four subgroups of the smallest size, or fewer of a larger one.
        let four = fixed || (subgroups && least >= 32);
        let cooperative = match four && features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
            true => cooperative(&adapter.cooperative_matrix_properties()),
            false => Cooperative::default(),
        };
        AdapterDescription {
            name: info.name.clone(),
            backend: info.backend,
            device_type: info.device_type,
            driver: match info.backend {
                wgpu::Backend::Metal => metal_driver(),
                _ => format!("{} {}", info.driver, info.driver_info).trim().to_string(),
            },
            features: Features {
                f16: features.contains(wgpu::Features::SHADER_F16),
                subgroups,
                subgroup_size: fixed.then_some(least),
                int64: features.contains(wgpu::Features::SHADER_INT64),
                cooperative,
            },
            limits,
        }
    }

    /// Computes on the CPU.
    pub fn is_software(&self) -> bool {
        self.device_type == wgpu::DeviceType::Cpu
    }
}

/// `llvmpipe (LLVM 15.0.6, 256 bits), Vulkan, Cpu`
impl std::fmt::Display for AdapterDescription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {:?}, {:?}", self.name, self.backend, self.device_type)
    }
}

/// An open GPU. Executors share it; it outlives the batches in flight.
#[derive(Debug)]
pub struct GpuDevice {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) pipelines: PipelineCache,
    pub(super) health: Arc<Health>,
    pub(super) ahead: Arc<Ahead>,
    description: AdapterDescription,
    adapter: wgpu::Adapter,
    /// With an application, which draws with it.
    is_shared: bool,
    /// What has been measured, for each dtype and set of features.
    pub(super) tunings: Mutex<HashMap<(Dtype, Features), Tuning>>,
    flights: Mutex<mpsc::Sender<Submitted>>,
    marker: OnceLock<Marker>,
    pub(super) staging: Staging,
}

/// Whether the device still works. Once lost, it stays lost.
#[derive(Debug, Default)]
pub(super) struct Health {
    lost: OnceLock<String>,
}

/// How long one wait for the device lasts before its health is looked at again.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);

impl Health {
    /// Every batch from now on fails with this reason; the first reason stays.
    pub fn fail(&self, reason: impl Into<String>) -> RunError {
        let reason = self.lost.get_or_init(|| {
            let reason = reason.into();
            log::error!("GPU device lost: {reason}");
            reason
        });
        RunError::DeviceLost(reason.clone())
    }

    /// The reason, if the device is lost.
    pub fn check(&self) -> Result<(), RunError> {
        self.lost.get().map_or(Ok(()), |reason| Err(RunError::DeviceLost(reason.clone())))
    }
}

impl GpuDevice {
    /// The adapters of this machine, best first.
    pub fn adapters() -> Vec<AdapterDescription> {
        distinct(enumerate()).iter().map(describe).collect()
    }

    /// Opens an adapter with all features and limits that it has.
    ///
    /// # Errors
    /// [`Error::Device`] if there is no such adapter, naming those that there are, or if it refuses.
    pub fn open(selector: &AdapterSelector) -> Result<Arc<GpuDevice>> {
        GpuDevice::open_adapter(select(selector)?)
    }

    /// Opens one GPU after the other, best first; after all, by their other drivers.
    pub(crate) fn open_each() -> impl Iterator<Item = Result<Arc<GpuDevice>>> {
        real().into_iter().map(GpuDevice::open_adapter)
    }

    fn open_adapter(adapter: wgpu::Adapter) -> Result<Arc<GpuDevice>> {
        let mut description = describe(&adapter);
        let opened = request(&adapter, &description).or_else(|reason| {
            if description.features.cooperative == Cooperative::default() {
                return Err(reason);
            }
            log::warn!("{description}: used without its cooperative matrices: {reason}");
            description.features.cooperative = Cooperative::default();
            request(&adapter, &description)
        });
        let (device, queue) = opened.map_err(|reason| Error::Device(format!("{description}: {reason}")))?;

        log::info!("GPU: {description}, driver {}, {}", description.driver, description.features);
        Ok(GpuDevice::watched(device, queue, &adapter, description))
    }

    /// A device of our own, whose handlers for what goes wrong are ours.
    fn watched(
        device: wgpu::Device,
        queue: wgpu::Queue,
        adapter: &wgpu::Adapter,
        description: AdapterDescription,
    ) -> Arc<GpuDevice> {
        let health = Arc::new(Health::default());
        let lost = health.clone();
        device.set_device_lost_callback(move |reason, message| {
            lost.fail(format!("{reason:?}: {message}"));
        });
        // wgpu's own handler panics. An error that nobody expected is a mistake of ours, or a broken driver.
        let failed = health.clone();
        device.on_uncaptured_error(Arc::new(move |error| {
            failed.fail(error.to_string());
        }));
        GpuDevice::start(device, queue, adapter, description, health, false)
    }

    /// A device that an application has already opened and goes on using. Its handlers for lost devices and uncaptured
    /// errors stay as they are; the features and limits that it was requested with are used: what
    /// [`wanted_features`](Self::wanted_features) has makes lexel fast, and the adapter's own limits let large models in.
    ///
    /// `wgpu` must be the one that lexel is built with: `lexel::wgpu`.
    ///
    /// Losing the device is an error of the calls under way. wgpu may report it with a panic, which is caught: the program's panic
    /// hook hears of it, and with `panic = "abort"` it ends the program.
    ///
    /// ```no_run
    /// # async fn share(adapter: wgpu::Adapter) -> Result<(), Box<dyn std::error::Error>> {
    /// use lexel::{Device, SentenceTransformer, gpu::GpuDevice};
    ///
    /// let descriptor = wgpu::DeviceDescriptor {
    ///     required_features: GpuDevice::wanted_features(&adapter), // and what the application needs
    ///     required_limits: adapter.limits(),
    ///     ..Default::default()
    /// };
    /// let (device, queue) = adapter.request_device(&descriptor).await?;
    /// let gpu = GpuDevice::from_wgpu(&adapter, device.clone(), queue.clone())?;
    /// let loader = SentenceTransformer::builder("all-MiniLM-L6-v2").device(Device::Shared(gpu)).interactive(true);
    /// let model = loader.load_async().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Device`] if it was requested with less than wgpu's default limits for compute shaders.
    pub fn from_wgpu(adapter: &wgpu::Adapter, device: wgpu::Device, queue: wgpu::Queue) -> Result<Arc<GpuDevice>> {
        let description = AdapterDescription::of(adapter, device.features(), device.limits());
        if let Some(limit) = too_low(&description.limits) {
            return Err(Error::Device(format!(
                "{description}: the application's device was requested with {limit}, as wgpu's default limits have: request it \
                 with `required_limits: adapter.limits()`"
            )));
        }
        Ok(GpuDevice::start(device, queue, adapter, description, Arc::new(Health::default()), true))
    }

    /// Those features of an adapter that kernels have a use for. All are optional. Cooperative matrices are not among them:
    /// they are experimental in wgpu, which an application must ask for by itself.
    pub fn wanted_features(adapter: &wgpu::Adapter) -> wgpu::Features {
        adapter.features() & WANTED
    }

    fn start(
        device: wgpu::Device,
        queue: wgpu::Queue,
        adapter: &wgpu::Adapter,
        description: AdapterDescription,
        health: Arc<Health>,
        is_shared: bool,
    ) -> Arc<GpuDevice> {
        let flights = flight::start_thread(device.clone(), health.clone());
        let pipelines = PipelineCache::new(&device, &adapter.get_info());
        Arc::new(GpuDevice {
            device,
            queue,
            pipelines,
            health,
            ahead: Arc::default(),
            description,
            adapter: adapter.clone(),
            is_shared,
            tunings: Mutex::default(),
            flights: Mutex::new(flights),
            marker: OnceLock::new(),
            staging: Staging::new(),
        })
    }

    /// The adapter, with the features and limits that the device was opened with.
    pub fn description(&self) -> &AdapterDescription {
        &self.description
    }

    /// Another device of the same adapter, for what may cost it its life.
    pub(super) fn second(&self) -> Result<Arc<GpuDevice>, String> {
        let (device, queue) = request(&self.adapter, &self.description)?;
        Ok(GpuDevice::watched(device, queue, &self.adapter, self.description.clone()))
    }

    /// wgpu's device.
    pub fn wgpu_device(&self) -> &wgpu::Device {
        &self.device
    }

    /// wgpu's queue.
    pub fn wgpu_queue(&self) -> &wgpu::Queue {
        &self.queue
    }

    /// The kernel that proves what was done, compiled when it is asked for first. Errors are the caller's to catch.
    pub(super) fn marker(&self) -> &Marker {
        self.marker.get_or_init(|| Marker::new(&self.device))
    }

    /// Hands what was submitted to the thread that waits for the device.
    pub(super) fn launch(&self, submitted: Submitted) -> Result<(), RunError> {
        let sender = self.flights.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        sender.send(submitted).map_err(|_| self.health.fail("the thread that waits for the device ended"))
    }

    /// Runs calls to wgpu, and returns the error that they raised instead of handing it to the device's handler.
    pub(super) fn scoped<T>(&self, work: impl FnOnce() -> T) -> Result<T, wgpu::Error> {
        let scopes = [wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::OutOfMemory]
            .map(|filter| self.device.push_error_scope(filter));
        let value = work();
        // Last in, first out. On native targets the future is ready at once.
        let errors: Vec<_> = scopes.into_iter().rev().map(|scope| pollster::block_on(scope.pop())).collect();
        errors.into_iter().flatten().next().map_or(Ok(value), Err)
    }

    /// Waits until all is done that was submitted, and what the queue holds of writes with it. For what must have arrived, see
    /// [`flush`](Self::flush).
    pub(super) fn wait(&self) -> Result<(), RunError> {
        let last = self.submit([]);
        while !flight::poll(&self.device, &last, &self.health)? {}
        Ok(())
    }

    /// Submits what can be waited for.
    pub(super) fn submit(&self, commands: impl IntoIterator<Item = wgpu::CommandBuffer>) -> Ticket {
        let index = self.queue.submit(commands);
        let done = self.is_shared.then(|| {
            let (sender, done) = mpsc::channel();
            self.queue.on_submitted_work_done(move || {
                let _ = sender.send(()); // nobody may wait for it
            });
            done
        });
        Ticket { index, done }
    }
}

/// Features that kernels have a use for, but for cooperative matrices.
const WANTED: wgpu::Features = wgpu::Features::SHADER_F16
    .union(wgpu::Features::SHADER_INT64)
    .union(wgpu::Features::SUBGROUP)
    .union(wgpu::Features::SUBGROUP_BARRIER)
    .union(wgpu::Features::TIMESTAMP_QUERY)
    .union(wgpu::Features::PIPELINE_CACHE);

/// What kernels need and a device was not requested with: of the limits, those that wgpu's reduced sets lower.
fn too_low(limits: &wgpu::Limits) -> Option<String> {
    let least = wgpu::Limits::default();
    let [own, least] = [limits, &least].map(|limits| {
        [
            ("max_storage_buffers_per_shader_stage", limits.max_storage_buffers_per_shader_stage),
            ("max_compute_invocations_per_workgroup", limits.max_compute_invocations_per_workgroup),
            ("max_compute_workgroup_size_x", limits.max_compute_workgroup_size_x),
            ("max_compute_workgroup_storage_size", limits.max_compute_workgroup_storage_size),
            ("max_compute_workgroups_per_dimension", limits.max_compute_workgroups_per_dimension),
        ]
    });
    let mut both = own.into_iter().zip(least);
    both.find(|((_, own), (_, least))| own < least)
        .map(|((name, own), (_, least))| format!("{name} = {own}, and kernels need {least}"))
}

/// A device with all features and limits of an adapter that kernels use; or why there is none.
fn request(adapter: &wgpu::Adapter, description: &AdapterDescription) -> Result<(wgpu::Device, wgpu::Queue), String> {
    // Experimental in wgpu: asked for only where there are some that a kernel can use.
    let (matrices, experimental_features) = match description.features.cooperative == Cooperative::default() {
        true => (wgpu::Features::empty(), wgpu::ExperimentalFeatures::disabled()),
        // SAFETY: wgpu asks for this where a feature may be unsound. Kernels that use it are our own, keep to the bounds of
        // their buffers, and are taken only after their results have been compared (`measure/`).
        false => (wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX, unsafe { wgpu::ExperimentalFeatures::enabled() }),
    };
    let mut limits = adapter.limits();
    // DX12 sets aside memory for this many descriptors: its default of a million costs too much on a small GPU.
    limits.max_non_sampler_bindings = limits.max_non_sampler_bindings.min(100_000);
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("lexel"),
        required_features: adapter.features() & WANTED.union(matrices),
        experimental_features,
        required_limits: limits,
        memory_hints: wgpu::MemoryHints::MemoryUsage,
        ..Default::default()
    };
    // wgpu-hal 30 panics where a driver denies what it has listed: lavapipe of Mesa 26 its matrices, at 128 bits.
    match catch_unwind(AssertUnwindSafe(|| pollster::block_on(adapter.request_device(&descriptor)))) {
        Ok(opened) => opened.map_err(|error| error.to_string()),
        Err(_) => Err("the driver denies a feature that it lists".into()),
    }
}

/// The smallest and the largest subgroup. Of Metal, wgpu 30 says 4 to 64 whatever the GPU is; every GPU of Apple's has 32.
fn subgroup_sizes(info: &wgpu::AdapterInfo) -> (u32, u32) {
    match info.backend {
        wgpu::Backend::Metal if info.name.starts_with("Apple") => (32, 32),
        _ => (info.subgroup_min_size, info.subgroup_max_size),
    }
}

/// Of the kinds of cooperative matrices that an adapter has, those that kernels can use; the largest ones.
fn cooperative(kinds: &[wgpu::CooperativeMatrixProperties]) -> Cooperative {
    let largest = |factors| {
        let usable = kinds.iter().filter(|kind| {
            let sizes = [kind.m_size, kind.n_size, kind.k_size];
            sizes == [kind.m_size; 3] && kind.ab_type == factors && kind.cr_type == wgpu::CooperativeScalarType::F32
        });
        usable.map(|kind| kind.m_size).max()
    };
    Cooperative { f16: largest(wgpu::CooperativeScalarType::F16), f32: largest(wgpu::CooperativeScalarType::F32) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reduced_limits_are_named() {
        assert_eq!(too_low(&wgpu::Limits::default()), None);
        let message = too_low(&wgpu::Limits::downlevel_defaults()).unwrap();
        assert_eq!(message, "max_storage_buffers_per_shader_stage = 4, and kernels need 8");
        assert!(too_low(&wgpu::Limits::downlevel_webgl2_defaults()).is_some());
    }
}
