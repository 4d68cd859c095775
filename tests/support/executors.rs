//! Every executor that this machine can run, with every set of features: what tests run on.

use super::data::TestWeights;
use lexel::Result;
use lexel::cpu::{CpuExecutor, CpuOptions};
use lexel::executor::Executor;
pub use lexel::gpu::Dtype;
use lexel::gpu::{AdapterSelector, Features, GpuDevice, GpuExecutor, GpuOptions};
use lexel::program::{Program, TensorSpec, WeightSource};
use std::ops::Range;
use std::process::Command;
use std::sync::{Arc, OnceLock};

/// An executor that can be had: its name, and what it computes in.
pub struct Kind {
    pub name: String,
    pub dtype: Dtype,
    backend: Backend,
}

enum Backend {
    Cpu(CpuOptions),
    Gpu(Arc<GpuDevice>, GpuOptions),
}

impl Kind {
    pub fn load(&self, program: &Arc<Program>, weights: &dyn WeightSource) -> Result<Box<dyn Executor>> {
        Ok(match &self.backend {
            Backend::Cpu(options) => Box::new(CpuExecutor::load(program.clone(), weights, options)?),
            Backend::Gpu(device, options) => Box::new(GpuExecutor::load(program.clone(), weights, device, options)?),
        })
    }

    /// The weights as this executor stores them.
    pub fn weights<'a>(&self, weights: &'a TestWeights) -> Stored<'a> {
        Stored { weights, dtype: self.dtype }
    }
}

/// Weights rounded to a dtype.
pub struct Stored<'a> {
    weights: &'a TestWeights,
    dtype: Dtype,
}

impl WeightSource for Stored<'_> {
    fn read(&self, tensor: &TensorSpec, rows: Range<usize>) -> Result<Vec<f32>> {
        let values = self.weights.read(tensor, rows)?;
        Ok(match self.dtype {
            Dtype::F16 if tensor.shape.len() > 1 => {
                values.into_iter().map(|x| half::f16::from_f32(x).to_f32()).collect()
            }
            Dtype::F32 | Dtype::F16 => values,
        })
    }
}

/// The CPU executor with one thread and with several.
pub fn cpu() -> Vec<Kind> {
    let kind = |threads| Kind {
        name: format!("cpu, {threads} threads"),
        dtype: Dtype::F32,
        backend: Backend::Cpu(CpuOptions { threads: Some(threads) }),
    };
    vec![kind(1), kind(3)]
}

/// The GPU executor with every set of features that the adapter allows, in f32 and f16; empty, and visibly so, without an
/// adapter.
pub fn gpu() -> Vec<Kind> {
    let Some(device) = device() else { return Vec::new() };
    let has = device.description().features;
    let all = Features::all();
    let mut masks = vec![Features::none()];
    if has.subgroups {
        masks.push(Features { subgroup_size: None, f16: false, ..all });
    }
    if has.subgroup_size.is_some() {
        masks.push(Features { f16: false, ..all });
    }
    let mut kinds = Vec::new();
    for mask in masks {
        for dtype in [Dtype::F32, Dtype::F16] {
            if dtype == Dtype::F16 && !has.f16 {
                continue;
            }
            let features = Features { f16: dtype == Dtype::F16, ..mask };
            kinds.push(Kind {
                name: format!("gpu, {}, {}", dtype.name(), has.masked(features)),
                dtype,
                backend: Backend::Gpu(device.clone(), GpuOptions { dtype, features, ..GpuOptions::default() }),
            });
        }
    }
    kinds
}

/// All of them.
pub fn all() -> Vec<Kind> {
    cpu().into_iter().chain(gpu()).collect()
}

/// One device for all tests of a process: a GPU if there is one, else a software adapter.
pub fn device() -> Option<Arc<GpuDevice>> {
    static DEVICE: OnceLock<Option<Arc<GpuDevice>>> = OnceLock::new();
    let open = || {
        let opened = GpuDevice::open(&AdapterSelector::Any);
        match opened {
            Ok(device) => Some(device),
            Err(error) if std::env::var_os("REQUIRE_GPU").is_some_and(|value| value == "1") => {
                panic!("REQUIRE_GPU=1, and there is no adapter: {error}")
            }
            Err(error) => {
                println!("skipped: no adapter ({error})");
                None
            }
        }
    };
    DEVICE.get_or_init(open).clone()
}

/// Runs `test` as it is on a GPU. Lavapipe reads its vector width, and so its subgroup size, when it starts: there, the test
/// of this name runs in a process of its own for each width.
pub fn for_each_subgroup_size(name: &str, test: impl FnOnce()) {
    const WIDTH: &str = "LP_NATIVE_VECTOR_WIDTH";
    let lavapipe = device().is_some_and(|device| device.description().name.contains("llvmpipe"));
    if !lavapipe || std::env::var_os(WIDTH).is_some() {
        return test();
    }
    for width in ["128", "256", "512"] {
        let output = Command::new(std::env::current_exe().expect("the test's own path"))
            .args([name, "--exact", "--nocapture"])
            .env(WIDTH, width)
            .output()
            .expect("the test starts itself");
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        println!("with {WIDTH}={width}:\n{stdout}");
        assert!(output.status.success() && stdout.contains("1 passed"), "with {WIDTH}={width}:\n{stderr}");
    }
}
