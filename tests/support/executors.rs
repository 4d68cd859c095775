//! Every executor that this machine can run, with every set of features: what tests run on.

use super::data::TestWeights;
use lexel::Result;
use lexel::cpu::{CpuExecutor, CpuOptions};
use lexel::executor::Executor;
#[cfg(feature = "gpu")]
use lexel::gpu::kernel::Target;
#[cfg(feature = "gpu")]
use lexel::gpu::kernels::{attention, linear};
#[cfg(feature = "gpu")]
use lexel::gpu::tuning::{AttentionClass, LengthClass, RowClass};
#[cfg(feature = "gpu")]
use lexel::gpu::{self, AdapterSelector, Features, GpuDevice, GpuExecutor, GpuOptions, Tuning, TuningChoice};
use lexel::program::{Program, TensorSpec, WeightSource};
#[cfg(feature = "gpu")]
use std::io::Write as _;
use std::ops::Range;
use std::sync::Arc;
#[cfg(feature = "gpu")]
use std::time::Duration;

/// What an executor stores and multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    F32,
    F16,
    /// Weights in f16, everything else in f32: the CPU's f16.
    F16Weights,
}

/// An executor that can be had: its name, and what it computes in.
pub struct Kind {
    pub name: String,
    pub dtype: Dtype,
    /// Its kernels are those of another kind but for a detail.
    pub variation: bool,
    backend: Backend,
}

enum Backend {
    Cpu(CpuOptions),
    #[cfg(feature = "gpu")]
    Gpu(Arc<GpuDevice>, GpuOptions),
}

impl Kind {
    pub fn load(&self, program: &Arc<Program>, weights: &dyn WeightSource) -> Result<Box<dyn Executor>> {
        // The CPU does not round the tables of attention.
        let rounded = Stored { weights, dtype: self.dtype };
        let weights = if self.dtype == Dtype::F16Weights { &rounded } else { weights };
        Ok(match &self.backend {
            Backend::Cpu(options) => Box::new(CpuExecutor::load(program.clone(), weights, options)?),
            #[cfg(feature = "gpu")]
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
    weights: &'a dyn WeightSource,
    dtype: Dtype,
}

impl WeightSource for Stored<'_> {
    fn read(&self, tensor: &TensorSpec, rows: Range<usize>) -> Result<Vec<f32>> {
        let values = self.weights.read(tensor, rows)?;
        Ok(match self.dtype {
            Dtype::F16 | Dtype::F16Weights if tensor.shape.len() > 1 => {
                values.into_iter().map(|x| half::f16::from_f32(x).to_f32()).collect()
            }
            _ => values,
        })
    }
}

/// The CPU executor with one thread and with several, and with weights in f16.
pub fn cpu() -> Vec<Kind> {
    let kind = |threads, dtype: lexel::Dtype, stored| Kind {
        name: format!("cpu, {threads} threads, {}", dtype.name()),
        dtype: stored,
        variation: false,
        backend: Backend::Cpu(CpuOptions { threads: Some(threads), dtype, sample: None }),
    };
    vec![
        kind(1, lexel::Dtype::F32, Dtype::F32),
        kind(3, lexel::Dtype::F32, Dtype::F32),
        kind(2, lexel::Dtype::F16, Dtype::F16Weights),
    ]
}

/// The GPU executor with every set of features that the adapter allows, in f32 and f16, one set with every launch in as many
/// dispatches as can be; empty, and visibly so, without an adapter. Lavapipe has three subgroup sizes: there, what does not
/// depend on them runs with the middle one only.
#[cfg(feature = "gpu")]
pub fn gpu() -> Vec<Kind> {
    let Some(device) = device() else { return Vec::new() };
    let has = device.description().features;
    let again = std::env::var(WIDTH).is_ok_and(|width| width != "256");
    let without_subgroups = Features { subgroups: false, ..Features::all() };
    let any_size = Features { subgroup_size: None, int64: false, ..Features::all() };
    let without_int64 = Features { int64: false, ..Features::all() };
    let mut kinds = Vec::new();
    let in_pieces = Some(Duration::from_nanos(1));
    for (mask, queue_limit, there, variation) in [
        (without_subgroups, None, !again, false),
        (any_size, in_pieces, has.subgroups, true),
        (without_int64, None, has.subgroup_size.is_some(), has.int64),
        (Features::all(), None, has.subgroup_size.is_some() && has.int64, false),
    ] {
        for (stored, there) in [(Dtype::F32, there), (Dtype::F16, there && has.f16 && !again)] {
            if there {
                let (dtype, features) = match stored {
                    Dtype::F16 => (gpu::Dtype::F16, mask),
                    _ => (gpu::Dtype::F32, Features { f16: false, ..mask }),
                };
                let options = GpuOptions { dtype, features, queue_limit, ..GpuOptions::default() };
                let pieces = if queue_limit == in_pieces { ", in pieces" } else { "" };
                let name = format!("gpu, {}, {}{pieces}", options.dtype.name(), has.masked(options.features));
                // In f16 without subgroups, the kernels are those of f32 with another type to load.
                let variation = variation || again || (stored == Dtype::F16 && !mask.subgroups);
                kinds.push(Kind { name, dtype: stored, variation, backend: Backend::Gpu(device.clone(), options) });
            }
        }
    }
    kinds
}

/// The GPU executor with each kernel of the matrix product that the adapter can run, whether it would choose it or not.
#[cfg(feature = "gpu")]
pub fn linear_kernels() -> Vec<Kind> {
    tuned(|target| {
        let candidates = RowClass::ALL.into_iter().flat_map(|rows| linear::candidates(target, rows));
        let mut variants: Vec<_> = candidates.collect();
        // A software adapter's matrices are of 8, which only Metal must not be asked to read from vectors.
        if device().is_some_and(|device| device.description().is_software()) {
            let staged = |variant: &linear::Variant| match *variant {
                linear::Variant::Cooperative { size, rows, columns, .. } => {
                    Some(linear::Variant::Cooperative { size, rows, columns, staged: true })
                }
                _ => None,
            };
            variants.extend(variants.iter().filter_map(staged).filter(|it| it.fits(target, 96)).collect::<Vec<_>>());
        }
        variants.into_iter().map(|variant| (format!("linear: {variant}"), Tuning::only(variant))).collect()
    })
}

/// The same with each kernel of attention, for batches of the class of lengths that it is meant for.
#[cfg(feature = "gpu")]
pub fn attention_kernels() -> Vec<Kind> {
    tuned(|target| {
        let variants = LengthClass::ALL.into_iter().flat_map(|length| {
            attention::candidates(target, 16, length).into_iter().map(move |variant| (length, variant))
        });
        let tuning = |(length, variant)| {
            let mut tuning = Tuning::default();
            tuning.set_attention(AttentionClass { length, wide: false }, variant);
            tuning.set_attention(AttentionClass { length, wide: true }, variant);
            (format!("attention: {variant}"), tuning)
        };
        variants.map(tuning).collect()
    })
}

/// The GPU executor in f32 and f16, with each tuning that is made for it, by name; once each.
#[cfg(feature = "gpu")]
fn tuned(tunings: impl Fn(&Target) -> Vec<(String, Tuning)>) -> Vec<Kind> {
    let Some(device) = device() else { return Vec::new() };
    let description = device.description();
    let mut kinds: Vec<Kind> = Vec::new();
    for (dtype, stored) in [(gpu::Dtype::F32, Dtype::F32), (gpu::Dtype::F16, Dtype::F16)] {
        if stored == Dtype::F16 && !description.features.f16 {
            continue;
        }
        let target = Target {
            dtype,
            int8: false,
            features: description.features,
            limits: description.limits.clone(),
            software: false,
            tuning: Tuning::default(),
        };
        for (name, tuning) in tunings(&target) {
            let name = format!("gpu, {}, {name}", dtype.name());
            if kinds.iter().all(|kind| kind.name != name) {
                let options = GpuOptions { dtype, tuning: TuningChoice::Given(tuning), ..GpuOptions::default() };
                let backend = Backend::Gpu(device.clone(), options);
                kinds.push(Kind { name, dtype: stored, variation: true, backend });
            }
        }
    }
    kinds
}

/// Built without it.
#[cfg(not(feature = "gpu"))]
pub fn gpu() -> Vec<Kind> {
    Vec::new()
}

/// All of them.
pub fn all() -> Vec<Kind> {
    cpu().into_iter().chain(gpu()).collect()
}

/// Those that are no variation of another.
pub fn distinct() -> Vec<Kind> {
    all().into_iter().filter(|kind| !kind.variation).collect()
}

/// One device for all tests of a process: a GPU if there is one, else a software adapter.
#[cfg(feature = "gpu")]
pub fn device() -> Option<Arc<GpuDevice>> {
    static DEVICE: std::sync::OnceLock<Option<Arc<GpuDevice>>> = std::sync::OnceLock::new();
    let open = || match GpuDevice::open(&AdapterSelector::Any) {
        Ok(device) => Some(device),
        Err(error) if std::env::var_os("REQUIRE_GPU").is_some_and(|value| value == "1") => {
            panic!("REQUIRE_GPU=1, and there is no adapter: {error}")
        }
        Err(error) => {
            // Past the capture of the test harness: a skip must be seen.
            let _ = writeln!(std::io::stderr(), "skipped: no adapter ({error})");
            None
        }
    };
    DEVICE.get_or_init(open).clone()
}

/// The bits of lavapipe's vectors, which are its subgroup size times 32. Read when the driver starts.
const WIDTH: &str = "LP_NATIVE_VECTOR_WIDTH";

/// Runs `test` on a GPU; on lavapipe the test of this name in a process of its own for each subgroup size, two at a time.
#[cfg(feature = "gpu")]
pub fn for_each_subgroup_size(name: &str, test: impl FnOnce()) {
    let lavapipe = device().is_some_and(|device| device.description().name.contains("llvmpipe"));
    if !lavapipe || std::env::var_os(WIDTH).is_some() {
        return test();
    }
    let run = |width: &str| {
        let output = std::process::Command::new(std::env::current_exe().expect("the test's own path"))
            .args([name, "--exact", "--nocapture"])
            .env(WIDTH, width)
            .output()
            .expect("the test starts itself");
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        println!("with {WIDTH}={width}:\n{stdout}");
        assert!(output.status.success() && stdout.contains("1 passed"), "with {WIDTH}={width}:\n{stderr}");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| run("256"));
        run("128");
        run("512");
    });
}

/// Built without a GPU: nothing to run.
#[cfg(not(feature = "gpu"))]
pub fn for_each_subgroup_size(_: &str, _: impl FnOnce()) {}
