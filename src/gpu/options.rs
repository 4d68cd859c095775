//! What a device can do and what the caller wants of it, as plain values.

use super::tuning::Tuning;
pub use crate::executor::Dtype;
use std::time::Duration;

/// The optional abilities of a device that kernels ask for. A value, so that tests run every combination that a device
/// allows: [`Features::none`] is what every adapter of wgpu's default limits has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Features {
    /// 16-bit floats in shaders (`enable f16`).
    pub f16: bool,
    /// Subgroup operations, of any subgroup size.
    pub subgroups: bool,
    /// The subgroup size, where the device has only one. Without it, a kernel must not count on any size: the driver may
    /// choose another one for each pipeline, and wgpu cannot require one.
    pub subgroup_size: Option<u32>,
    /// 64-bit integers in shaders. Kernels for software adapters load in such words.
    pub int64: bool,
    /// Cooperative matrices: the device's matrix units.
    pub cooperative: Cooperative,
}

/// The cooperative matrices that kernels can use: as wide as high, in all three roles, with sums in f32, and a workgroup of
/// four subgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Cooperative {
    /// Rows and columns of those whose factors are f16.
    pub f16: Option<u32>,
    /// Rows and columns of those whose factors are f32.
    pub f32: Option<u32>,
}

impl Cooperative {
    /// Those whose factors are of a dtype.
    pub fn size(self, dtype: Dtype) -> Option<u32> {
        match dtype {
            Dtype::F16 => self.f16,
            Dtype::F32 => self.f32,
            Dtype::Bf16 | Dtype::Int8 => None,
        }
    }
}

impl Features {
    /// Everything that there is: as a mask, it takes nothing away.
    pub fn all() -> Features {
        Features {
            f16: true,
            subgroups: true,
            subgroup_size: Some(0),
            int64: true,
            cooperative: Cooperative { f16: Some(0), f32: Some(0) },
        }
    }

    /// Nothing optional.
    pub fn none() -> Features {
        Features {
            f16: false,
            subgroups: false,
            subgroup_size: None,
            int64: false,
            cooperative: Cooperative::default(),
        }
    }

    /// These without subgroups and what needs them.
    pub fn without_subgroups(self) -> Features {
        self.masked(Features { subgroups: false, ..Features::all() })
    }

    /// What both have. In `mask`, a size is a permission: `Some(_)` means that any size may be used.
    pub fn masked(self, mask: Features) -> Features {
        let subgroups = self.subgroups && mask.subgroups;
        Features {
            f16: self.f16 && mask.f16,
            subgroups,
            subgroup_size: self.subgroup_size.filter(|_| subgroups && mask.subgroup_size.is_some()),
            int64: self.int64 && mask.int64,
            cooperative: Cooperative {
                f16: self.cooperative.f16.filter(|_| subgroups && mask.cooperative.f16.is_some()),
                f32: self.cooperative.f32.filter(|_| subgroups && mask.cooperative.f32.is_some()),
            },
        }
    }
}

impl std::fmt::Display for Features {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        if self.f16 {
            parts.push("f16".to_string());
        }
        match (self.subgroups, self.subgroup_size) {
            (true, Some(size)) => parts.push(format!("subgroups of {size}")),
            (true, None) => parts.push("subgroups of varying size".to_string()),
            (false, _) => {}
        }
        if self.int64 {
            parts.push("int64".to_string());
        }
        for (size, dtype) in [(self.cooperative.f16, "f16"), (self.cooperative.f32, "f32")] {
            if let Some(size) = size {
                parts.push(format!("{dtype} matrices of {size}"));
            }
        }
        if parts.is_empty() { f.write_str("no optional features") } else { f.write_str(&parts.join(", ")) }
    }
}

/// Where a device's [`Tuning`] comes from.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum TuningChoice {
    /// Measured at the first use of the device, and remembered. The defaults on a software adapter, and where the device has
    /// no clock.
    #[default]
    Measured,
    /// This one.
    Given(Tuning),
}

/// How a program is compiled for a device.
#[derive(Debug, Clone, PartialEq)]
pub struct GpuOptions {
    /// What is computed in.
    pub dtype: Dtype,
    /// Features that may be used; the others are treated as missing.
    pub features: Features,
    /// Bytes that the activations of a batch may take on the device; by default what its limits allow, and of the memory that the
    /// system grants, on Vulkan and DX12, 90 %.
    pub memory_budget: Option<u64>,
    /// Which kernels to take: those that were measured to be the fastest, or others.
    pub tuning: TuningChoice,
    /// The most device time that what is queued at once should take, as far as is known from the batches before: the work is
    /// cut into submissions of at most half of it, one long step into several, and each waits until there is room for it. What
    /// an application submits to the same queue waits no longer. `None`: 100 ms, so that other programs get their turn and no
    /// driver takes the device for hung; any on a software adapter, which has neither.
    pub queue_limit: Option<Duration>,
    /// Keep the bounds and loop checks that wgpu adds to shaders. For finding mistakes in kernels; slower.
    pub checked: bool,
}

impl Default for GpuOptions {
    fn default() -> GpuOptions {
        GpuOptions {
            dtype: Dtype::F32,
            features: Features::all(),
            memory_budget: None,
            tuning: TuningChoice::Measured,
            queue_limit: None,
            checked: false,
        }
    }
}

impl GpuOptions {
    /// The limit where someone looks at what the same GPU draws: little more than a frame at 60 Hz.
    pub const INTERACTIVE: Duration = Duration::from_millis(20);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_takes_away_and_adds_nothing() {
        let device = Features { f16: true, subgroups: true, subgroup_size: Some(8), ..Features::none() };
        assert_eq!(device.masked(Features::all()), device);
        assert_eq!(device.masked(Features::none()), Features::none());
        assert_eq!(Features::none().masked(Features::all()), Features::none());
        let varying = Features { subgroup_size: None, ..Features::all() };
        assert_eq!(device.masked(varying), Features { subgroup_size: None, ..device });
        assert_eq!(device.masked(varying).to_string(), "f16, subgroups of varying size");
    }
}
