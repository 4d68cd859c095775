//! Where a model runs: chosen by the caller, or found.

use crate::cpu::{CpuExecutor, CpuOptions};
use crate::error::{Error, Result};
use crate::executor::{Executor, ExecutorOptions};
#[cfg(feature = "gpu")]
use crate::gpu::{AdapterSelector, GpuDevice, GpuExecutor, GpuOptions};
use crate::program::{Program, WeightSource};
use crate::several::Several;
use std::str::FromStr;
use std::sync::Arc;

/// Where to compute.
#[derive(Debug, Clone, Default)]
pub enum Device {
    /// What the environment variable `LEXEL_DEVICE` names, if it is set (as [`Device::from_str`] reads it); else a real GPU if
    /// there is one; else the CPU, also where the GPU cannot run the model, which a warning tells. Never a software adapter.
    #[default]
    Auto,
    /// The native CPU executor.
    Cpu,
    /// A real GPU: discrete before integrated before virtual. An error where there is none.
    Gpu,
    /// One of the real GPUs, counted from 0 in the order of [`GpuDevice::adapters`](crate::gpu::GpuDevice::adapters).
    Nth(usize),
    /// The adapter whose name and backend contain this, whatever its kind; `llvmpipe` is Mesa's software adapter, `dx12` the
    /// first through DX12.
    Named(String),
    /// All of these: each computes the next batch when it has room. If one is lost, the others go on.
    Several(Vec<Device>),
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
    pub fn load(
        &self,
        program: Arc<Program>,
        weights: &dyn WeightSource,
        options: &ExecutorOptions,
    ) -> Result<Arc<dyn Executor>> {
        match self {
            Device::Auto => match from_environment()? {
                Some(device) => device.load(program, weights, options),
                None => auto(program, weights, options),
            },
            Device::Cpu => cpu(program, weights, options),
            #[cfg(feature = "gpu")]
            Device::Gpu => gpu(&GpuDevice::open(&AdapterSelector::Auto)?, program, weights, options),
            #[cfg(feature = "gpu")]
            Device::Named(name) => {
                gpu(&GpuDevice::open(&AdapterSelector::Name(name.clone()))?, program, weights, options)
            }
            Device::Several(devices) if devices.is_empty() => {
                Err(Error::InvalidInput("the list of devices is empty: give at least one".into()))
            }
            Device::Several(devices) => {
                let load = |device: &Device| device.load(program.clone(), weights, options);
                Ok(Arc::new(Several::new(devices.iter().map(load).collect::<Result<_>>()?)))
            }
            #[cfg(feature = "gpu")]
            Device::Nth(index) => gpu(&GpuDevice::open(&AdapterSelector::Nth(*index))?, program, weights, options),
            #[cfg(feature = "gpu")]
            Device::Shared(device) => gpu(device, program, weights, options),
            #[cfg(not(feature = "gpu"))]
            Device::Gpu | Device::Nth(_) | Device::Named(_) => Err(Error::Device(
                "this build of lexel has no GPU support: build it with the feature 'gpu', or use the device 'cpu'"
                    .into(),
            )),
        }
    }
}

/// What `LEXEL_DEVICE` names, unless that is `auto` again.
fn from_environment() -> Result<Option<Device>> {
    match std::env::var("LEXEL_DEVICE") {
        Ok(name) if !name.is_empty() => {
            log::info!("LEXEL_DEVICE={name}");
            let device: Device = name.parse()?;
            Ok((!matches!(device, Device::Auto)).then_some(device))
        }
        _ => Ok(None),
    }
}

#[cfg(feature = "gpu")]
fn auto(program: Arc<Program>, weights: &dyn WeightSource, options: &ExecutorOptions) -> Result<Arc<dyn Executor>> {
    let mut first = None;
    for device in GpuDevice::open_each() {
        match device.and_then(|device| gpu(&device, program.clone(), weights, options)) {
            // It is broken, too small or unfit: another one, or another driver of the same, may not be.
            Err(Error::Device(reason)) => {
                log::warn!("not used: {reason}");
                first.get_or_insert(reason);
            }
            result => return result,
        }
    }
    match (cpu(program, weights, options), first) {
        // If the CPU cannot do it either, that stays the reason.
        (Err(_), Some(reason)) => Err(Error::Device(reason)),
        (result, Some(_)) => {
            log::warn!("using the CPU");
            result
        }
        (result, None) => {
            if let Err(reason) = GpuDevice::open(&AdapterSelector::Auto) {
                log::info!("using the CPU: {reason}");
            }
            result
        }
    }
}

#[cfg(not(feature = "gpu"))]
fn auto(program: Arc<Program>, weights: &dyn WeightSource, options: &ExecutorOptions) -> Result<Arc<dyn Executor>> {
    cpu(program, weights, options)
}

#[cfg(feature = "gpu")]
fn gpu(
    device: &Arc<GpuDevice>,
    program: Arc<Program>,
    weights: &dyn WeightSource,
    options: &ExecutorOptions,
) -> Result<Arc<dyn Executor>> {
    let queue_limit = options.interactive.then_some(GpuOptions::INTERACTIVE);
    let options = GpuOptions { dtype: options.dtype, queue_limit, ..GpuOptions::default() };
    Ok(Arc::new(GpuExecutor::load(program, weights, device, &options)?))
}

fn cpu(program: Arc<Program>, weights: &dyn WeightSource, options: &ExecutorOptions) -> Result<Arc<dyn Executor>> {
    let options = CpuOptions { threads: None, dtype: options.dtype, sample: options.sample.clone() };
    Ok(Arc::new(CpuExecutor::load(program, weights, &options)?))
}

impl FromStr for Device {
    type Err = Error;

    /// `auto`, `cpu`, `gpu`, `gpu0`, `gpu1`, ..., part of an adapter's name, in any case, or several of these (but `auto`) with
    /// commas between. A comma in parentheses belongs to a name: `llvmpipe (LLVM 15.0.6, 256 bits)`.
    fn from_str(name: &str) -> Result<Device> {
        let names: Vec<&str> = split(name).map(str::trim).collect();
        if let Some((i, name)) = names.iter().enumerate().find(|(i, name)| contains(&names[..*i], name)) {
            let place = i + 1;
            return Err(Error::InvalidInput(format!(
                "the device {name} is there twice, again at place {place}: name each once"
            )));
        }
        match &names[..] {
            [name] => one(name),
            names if contains(names, "auto") => Err(Error::InvalidInput(format!(
                "devices {name}: auto stands alone; name the devices, as `lexel devices` or GpuDevice::adapters lists them"
            ))),
            names => Ok(Device::Several(names.iter().map(|name| one(name)).collect::<Result<_>>()?)),
        }
    }
}

/// At the commas outside of parentheses.
fn split(names: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    names.split(move |c| {
        depth += (c == '(') as i32 - (c == ')') as i32;
        c == ',' && depth == 0
    })
}

fn contains(names: &[&str], name: &str) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn one(name: &str) -> Result<Device> {
    Ok(match name.to_ascii_lowercase().as_str() {
        "" => return Err(Error::InvalidInput("the device's name is empty: give auto, cpu, gpu or a name".into())),
        "auto" => Device::Auto,
        "cpu" => Device::Cpu,
        "gpu" => Device::Gpu,
        lower => match lower.strip_prefix("gpu").map(str::parse) {
            Some(Ok(index)) => Device::Nth(index),
            _ => Device::Named(name.to_string()),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices() {
        let parse = |name: &str| name.parse::<Device>();
        assert!(matches!(parse("cpu"), Ok(Device::Cpu)));
        assert!(matches!(parse("gpu12"), Ok(Device::Nth(12))));
        assert!(matches!(parse("CPU"), Ok(Device::Cpu)) && matches!(parse("Gpu"), Ok(Device::Gpu)));
        assert!(matches!(parse("GPU1"), Ok(Device::Nth(1))) && matches!(parse(" Auto"), Ok(Device::Auto)));
        assert!(matches!(parse("gpux"), Ok(Device::Named(name)) if name == "gpux"));
        let name = "llvmpipe (LLVM 15.0.6, 256 bits)";
        assert!(matches!(parse(name), Ok(Device::Named(named)) if named == name));
        let Ok(Device::Several(devices)) = parse(&format!("gpu0, {name},cpu")) else { panic!("three devices") };
        assert!(matches!(&devices[..], [Device::Nth(0), Device::Named(named), Device::Cpu] if named == name));
        for (name, expected) in [("", "empty"), ("cpu,", "empty"), ("cpu,gpu0,CPU", "twice"), ("cpu,Auto", "alone")] {
            let error = parse(name).err().unwrap().to_string();
            assert!(error.contains(expected), "{name}: {error}");
        }
    }
}
