//! Which adapter a device is opened on.

use super::device::AdapterDescription;
use crate::error::{Error, Result};
use std::sync::OnceLock;

/// Which adapter to open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AdapterSelector {
    /// The best real GPU: discrete before integrated before virtual. Never a software adapter.
    #[default]
    Auto,
    /// As `Auto`, and a software adapter where there is no GPU.
    Any,
    /// One of the real GPUs, counted from 0 in the order of [`GpuDevice::adapters`](super::GpuDevice::adapters).
    Nth(usize),
    /// The first adapter whose name and backend, `NVIDIA RTX A2000, Dx12`, contain this text, in any case; a software adapter
    /// too, and a GPU through DX12 that counts as Vulkan's otherwise.
    Name(String),
    /// wgpu's `noop` backend, which checks every call and computes nothing. Only where wgpu was built with that feature.
    Noop,
}

pub(super) fn describe(adapter: &wgpu::Adapter) -> AdapterDescription {
    AdapterDescription::of(adapter, adapter.features(), adapter.limits())
}

/// Metal's driver: it is part of the system, whose version wgpu does not tell. What is known of a driver is forgotten with it.
pub(super) fn metal_driver() -> String {
    let version = std::fs::read_to_string("/System/Library/CoreServices/SystemVersion.plist").unwrap_or_default();
    format!("macOS {}", product_version(&version).unwrap_or_default()).trim().to_string()
}

fn product_version(plist: &str) -> Option<&str> {
    let (_, rest) = plist.split_once("<key>ProductVersion</key>")?;
    let (_, rest) = rest.split_once("<string>")?;
    Some(rest.split_once("</string>")?.0)
}

/// Percent of the memory that the system grants the process on a GPU (Vulkan with `VK_EXT_memory_budget`, DX12) beyond which
/// there is none left: drivers go on in the machine's memory instead, which is far slower than smaller batches.
const MEMORY_SHARE: u8 = 90;

/// Adapters of the backends that have compute shaders worth the name, best first.
pub(super) fn enumerate() -> Vec<wgpu::Adapter> {
    // One instance for the process: making one loads drivers.
    static INSTANCE: OnceLock<wgpu::Instance> = OnceLock::new();
    let instance = INSTANCE.get_or_init(|| {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = wgpu::Backends::PRIMARY;
        descriptor.flags = wgpu::InstanceFlags::empty().with_env();
        descriptor.memory_budget_thresholds.for_resource_creation = Some(MEMORY_SHARE);
        wgpu::Instance::new(descriptor)
    });
    let mut adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY));
    adapters
        .retain(|adapter| adapter.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS));
    adapters.sort_by_key(|adapter| {
        let info = adapter.get_info();
        let device_type = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => 0,
            wgpu::DeviceType::IntegratedGpu => 1,
            wgpu::DeviceType::VirtualGpu => 2,
            wgpu::DeviceType::Other => 3,
            wgpu::DeviceType::Cpu => 4,
        };
        // The same GPU may be there twice on Windows; its Vulkan driver has more features.
        let backend = match info.backend {
            wgpu::Backend::Vulkan | wgpu::Backend::Metal => 0,
            _ => 1,
        };
        (device_type, backend)
    });
    adapters
}

/// Without what DX12 has of GPUs that Vulkan has, too: each counts once.
pub(super) fn distinct(mut adapters: Vec<wgpu::Adapter>) -> Vec<wgpu::Adapter> {
    let infos: Vec<wgpu::AdapterInfo> = adapters.iter().map(wgpu::Adapter::get_info).collect();
    let mut twins = twins(&infos).into_iter();
    adapters.retain(|_| !twins.next().unwrap_or(false));
    adapters
}

/// GPUs, best first; then, behind all of them, DX12's view of those that Vulkan has, too.
pub(super) fn real() -> Vec<wgpu::Adapter> {
    let mut adapters = enumerate();
    adapters.retain(is_real);
    let infos: Vec<wgpu::AdapterInfo> = adapters.iter().map(wgpu::Adapter::get_info).collect();
    let mut adapters: Vec<_> = adapters.into_iter().zip(twins(&infos)).collect();
    adapters.sort_by_key(|(_, is_twin)| *is_twin);
    adapters.into_iter().map(|(adapter, _)| adapter).collect()
}

fn is_real(adapter: &wgpu::Adapter) -> bool {
    adapter.get_info().device_type != wgpu::DeviceType::Cpu
}

/// Which adapters are DX12's of a GPU that Vulkan has, too: where a machine has several of one kind, of all of them or of none.
fn twins(infos: &[wgpu::AdapterInfo]) -> Vec<bool> {
    let count = |backend: wgpu::Backend, of: &wgpu::AdapterInfo| {
        let same = |info: &&wgpu::AdapterInfo| (info.vendor, info.device) == (of.vendor, of.device);
        infos.iter().filter(|info| info.backend == backend).filter(same).count()
    };
    let is_twin = |info: &wgpu::AdapterInfo| {
        info.backend == wgpu::Backend::Dx12 && count(wgpu::Backend::Vulkan, info) >= count(wgpu::Backend::Dx12, info)
    };
    infos.iter().map(is_twin).collect()
}

/// Whether a name, in any case, is part of the adapter's, or of its name and backend: `RTX`, `RTX 4090, Dx12`, `dx12`.
fn is_named(info: &wgpu::AdapterInfo, name: &str) -> bool {
    format!("{}, {:?}", info.name, info.backend).to_lowercase().contains(&name.to_lowercase())
}

pub(super) fn select(selector: &AdapterSelector) -> Result<wgpu::Adapter> {
    if *selector == AdapterSelector::Noop {
        return noop();
    }
    // By name, a GPU can be had through each of its drivers.
    let all = enumerate();
    let adapters = if matches!(selector, AdapterSelector::Name(_)) { all } else { distinct(all) };
    let found: Vec<String> = adapters.iter().map(|adapter| describe(adapter).to_string()).collect();
    let mut real = 0;
    let matching = adapters.into_iter().find(|adapter| {
        real += is_real(adapter) as usize;
        match selector {
            AdapterSelector::Auto => is_real(adapter),
            AdapterSelector::Any => true,
            AdapterSelector::Nth(index) => is_real(adapter) && real == index + 1,
            AdapterSelector::Name(name) => is_named(&adapter.get_info(), name),
            AdapterSelector::Noop => false,
        }
    });
    matching.ok_or_else(|| {
        let wanted = match selector {
            AdapterSelector::Auto => "no GPU".to_string(),
            AdapterSelector::Nth(index) => format!("no GPU of number {index}, counted from 0"),
            AdapterSelector::Name(name) => {
                let hint = match ["cuda", "mps", "rocm", "hip", "xpu"]
                    .iter()
                    .any(|start| name.to_lowercase().starts_with(start))
                {
                    true => ". Every GPU is called gpu here, whoever made it",
                    false => "",
                };
                let known = "cpu, gpu, gpu0, gpu1, ... and parts of adapters' names, which `lexel devices` or \
                             GpuDevice::adapters lists";
                format!("no adapter named '{name}' (known: {known}){hint}")
            }
            AdapterSelector::Any | AdapterSelector::Noop => "no adapter".to_string(),
        };
        let found = if found.is_empty() { "none; is a driver installed?".to_string() } else { found.join("; ") };
        Error::Device(format!("{wanted}; adapters of this machine: {found}"))
    })
}

fn noop() -> Result<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::NOOP;
    descriptor.backend_options.noop = wgpu::NoopBackendOptions::enabled();
    let instance = wgpu::Instance::new(descriptor);
    pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))
        .map_err(|error| Error::Device(format!("the noop backend: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_version_is_found() {
        let plist = "<dict>\n\t<key>ProductName</key>\n\t<string>macOS</string>\n\t<key>ProductVersion</key>\n\t<string>26.1</string>\n";
        assert_eq!(product_version(plist), Some("26.1"));
        assert_eq!(product_version("<key>ProductVersion</key>"), None);
    }

    #[test]
    fn a_gpu_counts_once_and_has_a_name_for_each_of_its_drivers() {
        let adapter = |name: &str, device: u32, backend: wgpu::Backend| {
            let mut info = wgpu::AdapterInfo::new(wgpu::DeviceType::DiscreteGpu, backend);
            (info.name, info.vendor, info.device) = (name.into(), 7, device);
            info
        };
        use wgpu::Backend::{Dx12, Metal, Vulkan};
        let twin =
            [adapter("RTX", 1, Vulkan), adapter("RTX", 1, Dx12), adapter("Arc", 2, Dx12), adapter("M4", 3, Metal)];
        assert_eq!(twins(&twin), [false, true, false, false]);
        let two = [adapter("RTX", 1, Vulkan), adapter("RTX", 1, Dx12), adapter("RTX", 1, Dx12)];
        assert_eq!(twins(&two), [false; 3], "one of two has no Vulkan");
        assert!(is_named(&twin[1], "rtx") && is_named(&twin[1], "DX12") && is_named(&twin[1], "rtx, dx12"));
        assert!(!is_named(&twin[0], "dx12") && !is_named(&twin[0], "discrete"));
    }
}
