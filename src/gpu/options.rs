//! What a device can do and what the caller wants of it, as plain values.

pub use crate::executor::Dtype;

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
}

impl Features {
    /// Everything that there is: as a mask, it takes nothing away.
    pub fn all() -> Features {
        Features { f16: true, subgroups: true, subgroup_size: Some(0), int64: true }
    }

    /// Nothing optional.
    pub fn none() -> Features {
        Features { f16: false, subgroups: false, subgroup_size: None, int64: false }
    }

    /// What both have. In `mask`, `subgroup_size: Some(_)` means that a fixed size may be used, whichever it is.
    pub fn masked(self, mask: Features) -> Features {
        let subgroups = self.subgroups && mask.subgroups;
        Features {
            f16: self.f16 && mask.f16,
            subgroups,
            subgroup_size: self.subgroup_size.filter(|_| subgroups && mask.subgroup_size.is_some()),
            int64: self.int64 && mask.int64,
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
        if parts.is_empty() { f.write_str("no optional features") } else { f.write_str(&parts.join(", ")) }
    }
}

/// How a program is compiled for a device.
#[derive(Debug, Clone, PartialEq)]
pub struct GpuOptions {
    /// What is computed in.
    pub dtype: Dtype,
    /// Features that may be used; the others are treated as missing.
    pub features: Features,
    /// Bytes that the activations of a batch may take on the device; by default what its limits allow.
    pub memory_budget: Option<u64>,
    /// Keep the bounds and loop checks that wgpu adds to shaders. For finding mistakes in kernels; slower.
    pub checked: bool,
}

impl Default for GpuOptions {
    fn default() -> GpuOptions {
        GpuOptions { dtype: Dtype::F32, features: Features::all(), memory_budget: None, checked: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_takes_away_and_adds_nothing() {
        let device = Features { f16: true, subgroups: true, subgroup_size: Some(8), int64: false };
        assert_eq!(device.masked(Features::all()), device);
        assert_eq!(device.masked(Features::none()), Features::none());
        assert_eq!(Features::none().masked(Features::all()), Features::none());
        let varying = Features { subgroup_size: None, ..Features::all() };
        assert_eq!(device.masked(varying), Features { subgroup_size: None, ..device });
        assert_eq!(device.masked(varying).to_string(), "f16, subgroups of varying size");
    }
}
