//! Measures which kernels are the fastest on a device, and that they are right there: at its first use, in a fraction of a
//! second.

mod attention;
mod linear;

use super::GpuExecutor;
use super::device::GpuDevice;
use super::kernels;
use super::options::{Dtype, Features, GpuOptions, TuningChoice};
use super::tuning::{AttentionClass, Class, Tuning};
use crate::batch::Batch;
use crate::error::RunError;
use crate::executor::Executor;
use crate::matrix::Matrix;
use crate::program::{Op, Output, Program, RandomWeights, WeightId};
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a measurement may take at a device's first use.
pub const BUDGET: Duration = Duration::from_millis(300);

/// Rows of the tables that the inputs are read from.
const VOCABULARY: usize = 64;
const WEIGHTS: RandomWeights = RandomWeights { seed: 1 };

/// A variant of one class, and what became of it.
#[derive(Debug, Clone)]
pub struct Measured<Class, Variant> {
    /// The class.
    pub class: Class,
    /// The variant.
    pub variant: Variant,
    /// Multiplications and additions a second; or why the variant is not used.
    pub flops: Result<f64, String>,
}

/// What was measured, best class by class, and all that was tried, in order.
#[derive(Debug, Clone, Default)]
pub struct Measurement {
    /// The fastest of each class.
    pub tuning: Tuning,
    /// The kernels of the matrix product.
    pub linear: Vec<Measured<Class, kernels::linear::Variant>>,
    /// The kernels of attention.
    pub attention: Vec<Measured<AttentionClass, kernels::attention::Variant>>,
}

impl Measurement {
    /// Whether it is worth keeping, even if the defaults stay: something was measured, and nothing failed but matrices that
    /// the driver cannot do. What fails otherwise, for want of memory say, may not fail the next time.
    pub fn is_sound(&self) -> bool {
        use kernels::{attention, linear};
        let mut linear = self.linear.iter().filter(|it| !matches!(it.variant, linear::Variant::Cooperative { .. }));
        let mut attention =
            self.attention.iter().filter(|it| !matches!(it.variant, attention::Variant::Cooperative { .. }));
        !self.linear.is_empty() && linear.all(|it| it.flops.is_ok()) && attention.all(|it| it.flops.is_ok())
    }
}

/// How long a GPU runs before its clock is up; or as good as up.
const WARM_UP: Duration = Duration::from_millis(30);

/// Measures a device. Nothing, where it has no clock. The budget is for running kernels, which are compiled before; once it is
/// spent, what has not been measured keeps the defaults.
pub fn measure(device: &Arc<GpuDevice>, dtype: Dtype, features: Features, budget: Duration) -> Measurement {
    let mut measurement = Measurement::default();
    if !device.wgpu_device().features().contains(wgpu::Features::TIMESTAMP_QUERY) {
        return measurement;
    }
    let start = Instant::now();
    // Products take most of a model's time.
    let mut bench = Bench { device, dtype, features, limit: budget / 3 * 2, spent: Duration::ZERO };
    linear::measure(&mut bench, &mut measurement);
    bench.limit = budget;
    attention::measure(&mut bench, &mut measurement);
    let [all, running] = [start.elapsed(), bench.spent].map(|time| time.as_millis());
    log::info!("{}: kernels chosen in {all} ms, {running} of them running", device.description());
    measurement
}

/// What is measured on, and how long it may and did run.
struct Bench<'a> {
    device: &'a Arc<GpuDevice>,
    dtype: Dtype,
    features: Features,
    limit: Duration,
    spent: Duration,
}

impl Bench<'_> {
    fn is_over(&self) -> bool {
        self.spent >= self.limit
    }

    /// The program with one tuning.
    fn load(&self, program: &Arc<Program>, tuning: Tuning) -> Result<GpuExecutor, String> {
        let tuning = TuningChoice::Given(tuning);
        let options = GpuOptions { dtype: self.dtype, features: self.features, tuning, ..GpuOptions::default() };
        GpuExecutor::load(program.clone(), &WEIGHTS, self.device, &options).map_err(|error| error.to_string())
    }

    /// Operations a second of those steps of a program that do `flop` each, by the fastest of them.
    fn flops(
        &mut self,
        executor: &GpuExecutor,
        batch: &Batch,
        is_step: fn(&Op) -> bool,
        flop: f64,
    ) -> Result<f64, String> {
        let start = Instant::now();
        let time = fastest(executor, batch, is_step).map_err(|error| error.to_string());
        self.spent += start.elapsed();
        match time? {
            Duration::ZERO => Err("the device's clock stood still".into()),
            time => Ok(flop / time.as_secs_f64()),
        }
    }

    /// Keeps the device busy until its clock is up; the least time of such a step.
    fn warm_up(
        &mut self,
        executor: &GpuExecutor,
        batch: &Batch,
        is_step: fn(&Op) -> bool,
    ) -> Result<Duration, RunError> {
        let start = Instant::now();
        let mut least = fastest(executor, batch, is_step)?;
        while start.elapsed() < WARM_UP && !self.device.description().is_software() {
            least = least.min(fastest(executor, batch, is_step)?);
        }
        self.spent += start.elapsed();
        Ok(least)
    }

    /// Why a variant is not used.
    fn warn(&self, variant: impl Display, reason: &str) {
        log::warn!("{}: kernel '{variant}' is not used: {reason}", self.device.description());
    }
}

/// The least time of such a step.
fn fastest(executor: &GpuExecutor, batch: &Batch, is_step: fn(&Op) -> bool) -> Result<Duration, RunError> {
    let mut fastest = Duration::MAX;
    executor.profile(batch)?; // the first run is slower
    for _ in 0..2 {
        let times = executor.profile(batch)?;
        let steps = times.iter().zip(&executor.fixed.program.steps).filter(|(_, step)| is_step(&step.op));
        fastest = steps.map(|(time, _)| *time).fold(fastest, Duration::min);
    }
    Ok(fastest)
}

/// The tokens' rows of a batch, as an executor computes them.
fn run(executor: &GpuExecutor, batch: Batch) -> Result<Matrix, String> {
    let result = executor.submit(batch, Output::Tokens).and_then(|pending| pending.wait());
    result.map_err(|error| error.to_string())
}

/// A weight in f64, as a dtype stores it.
fn stored(program: &Program, weight: WeightId, dtype: Dtype) -> Result<Vec<f64>, String> {
    let spec = program.weight(weight);
    let values = spec.read_all(&WEIGHTS).map_err(|error| error.to_string())?;
    let stored = |x: f32| match dtype {
        Dtype::F16 | Dtype::Int8 if spec.cols > 1 => half::f16::from_f32(x).to_f64(),
        _ => f64::from(x),
    };
    Ok(values.into_iter().map(stored).collect())
}

/// A batch of sequences of these lengths; the token at place `i` has the id `i % VOCABULARY`.
fn batch(lengths: &[usize]) -> Batch {
    let mut batch = Batch::new();
    for &length in lengths {
        let first = batch.tokens();
        let ids: Vec<u32> = (first..first + length).map(|i| (i % VOCABULARY) as u32).collect();
        batch.push(&ids, &vec![0; length], 0);
    }
    batch
}
