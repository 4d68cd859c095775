//! Where a model runs: chosen by the caller, or found.

use crate::cpu::{CpuExecutor, CpuOptions};
use crate::error::{Error, Result};
use crate::executor::{Dtype, Executor};
#[cfg(feature = "gpu")]
use crate::gpu::{AdapterSelector, GpuDevice, GpuExecutor, GpuOptions};
use crate::program::{Program, WeightSource};
use std::str::FromStr;
use std::sync::Arc;

/// Where to compute.
#[derive(Clone, Default)]
pub enum Device {
    /// The environment variable `LEXEL_DEVICE` if it is set (`cpu`, `gpu` or part of an adapter's name); else a real GPU if
    /// there is one; else the CPU. Never a software adapter.
    #[default]
    Auto,
    /// The native CPU executor.
    Cpu,
    /// A real GPU: discrete before integrated before virtual. An error where there is none.
    Gpu,
    /// The adapter whose name contains this, whatever its kind; `llvmpipe` is Mesa's software adapter.
    Named(String),
    /// A device that the application opened, maybe its own.
    #[cfg(feature = "gpu")]
    Shared(Arc<GpuDevice>),
}

impl Device {
    /// Compiles the program for this device and puts its weights there.
    ///
    /// # Errors
    /// [`Error::Device`] if there is no such device or it cannot run the program; [`Error::Weight`] and others of the
    /// source of the weights.
    pub fn load(&self, program: Arc<Program>, weights: &dyn WeightSource, dtype: Dtype) -> Result<Arc<dyn Executor>> {
        match self {
            Device::Auto => match std::env::var("LEXEL_DEVICE") {
                Ok(name) if !name.is_empty() && name != "auto" => {
                    log::info!("LEXEL_DEVICE={name}");
                    name.parse::<Device>()?.load(program, weights, dtype)
                }
                _ => auto(program, weights, dtype),
            },
            Device::Cpu => cpu(program, weights, dtype),
            #[cfg(feature = "gpu")]
            Device::Gpu => gpu(&GpuDevice::open(&AdapterSelector::Auto)?, program, weights, dtype),
            #[cfg(feature = "gpu")]
            Device::Named(name) => {
                gpu(&GpuDevice::open(&AdapterSelector::Name(name.clone()))?, program, weights, dtype)
            }
            #[cfg(feature = "gpu")]
            Device::Shared(device) => gpu(device, program, weights, dtype),
            #[cfg(not(feature = "gpu"))]
            Device::Gpu | Device::Named(_) => Err(Error::Device(
                "this build of lexel has no GPU support: build it with the feature 'gpu', or use the device 'cpu'"
                    .into(),
            )),
        }
    }
}

#[cfg(feature = "gpu")]
fn auto(program: Arc<Program>, weights: &dyn WeightSource, dtype: Dtype) -> Result<Arc<dyn Executor>> {
    match GpuDevice::open(&AdapterSelector::Auto) {
        Ok(device) => gpu(&device, program, weights, dtype),
        Err(reason) => {
            log::info!("using the CPU: {reason}");
            cpu(program, weights, dtype)
        }
    }
}

#[cfg(not(feature = "gpu"))]
fn auto(program: Arc<Program>, weights: &dyn WeightSource, dtype: Dtype) -> Result<Arc<dyn Executor>> {
    cpu(program, weights, dtype)
}

#[cfg(feature = "gpu")]
fn gpu(
    device: &Arc<GpuDevice>,
    program: Arc<Program>,
    weights: &dyn WeightSource,
    dtype: Dtype,
) -> Result<Arc<dyn Executor>> {
    let options = GpuOptions { dtype, ..GpuOptions::default() };
    Ok(Arc::new(GpuExecutor::load(program, weights, device, &options)?))
}

fn cpu(program: Arc<Program>, weights: &dyn WeightSource, dtype: Dtype) -> Result<Arc<dyn Executor>> {
    Ok(Arc::new(CpuExecutor::load(program, weights, &CpuOptions { dtype, ..CpuOptions::default() })?))
}

impl FromStr for Device {
    type Err = Error;

    /// `auto`, `cpu`, `gpu`, or part of an adapter's name.
    fn from_str(name: &str) -> Result<Device> {
        Ok(match name {
            "" => return Err(Error::InvalidInput("the device's name is empty: give auto, cpu, gpu or a name".into())),
            "auto" => Device::Auto,
            "cpu" => Device::Cpu,
            "gpu" => Device::Gpu,
            name => Device::Named(name.to_string()),
        })
    }
}
