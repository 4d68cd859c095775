//! Measures which kernels are the fastest on a device, and that they are right there: at its first use, in a fraction of a
//! second.

mod attention;
mod linear;
mod trial;

pub use trial::trial;

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
use std::collections::VecDeque;
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
    pub flops: Result<f64, Fault>,
}

/// What is wrong with a variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Its results are.
    Wrong(String),
    /// It did not compile or did not run.
    Failed(String),
}

impl Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Fault::Wrong(reason) | Fault::Failed(reason)) = self;
        f.write_str(reason)
    }
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
    /// What makes the device unfit: a class for which no kernel's results are right, or a [`trial`] that failed.
    pub fault: Option<Fault>,
    /// The same of an earlier measurement, with features that this one goes without.
    pub forgone: Option<Fault>,
}

impl Measurement {
    /// Whether it is worth keeping, even if the defaults stay: something was measured, and nothing failed to run but matrices
    /// that the driver cannot do. What fails for want of memory, say, may not fail the next time.
    pub fn is_sound(&self) -> bool {
        use kernels::{attention, linear};
        let mut linear = self.linear.iter().filter(|it| !matches!(it.variant, linear::Variant::Cooperative { .. }));
        let mut attention =
            self.attention.iter().filter(|it| !matches!(it.variant, attention::Variant::Cooperative { .. }));
        let failed = |flops: &Result<f64, Fault>| matches!(flops, Err(Fault::Failed(_)));
        let any_failed = linear.any(|it| failed(&it.flops)) || attention.any(|it| failed(&it.flops));
        let forgone_failed = matches!(self.forgone, Some(Fault::Failed(_)));
        !self.linear.is_empty() && !any_failed && !forgone_failed && self.fault.is_none()
    }

    /// Notes a class that no kernel is right for, and that not for want of memory or the like.
    fn refuse<V>(&mut self, right: &[V], mut faults: impl Iterator<Item = Fault>, class: String) {
        if let Some(Fault::Wrong(reason)) = faults.next().filter(|_| right.is_empty()) {
            self.fault.get_or_insert(Fault::Wrong(format!("{class}: {reason}")));
        }
    }
}

/// How long a GPU runs before its clock is up, or as good as up; while kernels are compiled, it goes down again.
const WARM_UP: Duration = Duration::from_millis(20);

/// Batches that keep a GPU busy meanwhile.
const QUEUED: usize = 4;

/// Measures a device. Nothing, where it has no clock, and in bf16, which none has. The budget is for running kernels, which are
/// compiled before; once it is spent, what has not been measured keeps the defaults.
pub fn measure(device: &Arc<GpuDevice>, dtype: Dtype, features: Features, budget: Duration) -> Measurement {
    let mut measurement = Measurement::default();
    if dtype == Dtype::Bf16 || !device.wgpu_device().features().contains(wgpu::Features::TIMESTAMP_QUERY) {
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
    fn load(&self, program: &Arc<Program>, tuning: Tuning) -> Result<GpuExecutor, Fault> {
        let tuning = TuningChoice::Given(tuning);
        let options = GpuOptions { dtype: self.dtype, features: self.features, tuning, ..GpuOptions::default() };
        GpuExecutor::load(program.clone(), &WEIGHTS, self.device, &options).map_err(failed)
    }

    /// Operations a second of those steps of a program that do `flop` each, by the fastest of them.
    fn flops(
        &mut self,
        executor: &GpuExecutor,
        batch: &Batch,
        is_step: fn(&Op) -> bool,
        flop: f64,
    ) -> Result<f64, Fault> {
        match self.time(executor, batch, is_step).map_err(failed)? {
            Duration::ZERO => Err(Fault::Failed("the device's clock stood still".into())),
            time => Ok(flop / time.as_secs_f64()),
        }
    }

    /// The least time of such a step.
    fn time(&mut self, executor: &GpuExecutor, batch: &Batch, is_step: fn(&Op) -> bool) -> Result<Duration, RunError> {
        let start = Instant::now();
        let time = fastest(executor, batch, is_step);
        self.spent += start.elapsed();
        time
    }

    /// Keeps the device busy until its clock is up.
    fn warm_up(&mut self, executor: &GpuExecutor, batch: &Batch) -> Result<(), RunError> {
        let (start, mut queued) = (Instant::now(), VecDeque::new());
        while start.elapsed() < WARM_UP && !self.device.description().is_software() {
            queued.push_back(executor.submit(batch.clone(), Output::Sentences)?);
            if queued.len() == QUEUED
                && let Some(first) = queued.pop_front()
            {
                first.wait()?;
            }
        }
        let result = queued.into_iter().try_for_each(|pending| pending.wait().map(drop));
        self.spent += start.elapsed();
        result
    }

    /// Why a variant is not used.
    fn warn(&self, variant: impl Display, reason: &Fault) {
        log::warn!("{}: kernel '{variant}' is not used: {reason}", self.device.description());
    }
}

fn failed(error: impl Display) -> Fault {
    Fault::Failed(error.to_string())
}

/// How much faster than the default a kernel must be to be taken: less may be the clock's doing, and would change from run to run.
const MARGIN: f64 = 1.03;

/// The kernel of a class, if not the default: the fastest of several, or of all; of `right` ones, those whose results are, the
/// first where the default is not among them.
fn choose<V: Copy + PartialEq>(candidates: &[V], rated: &[(f64, V)], right: &[V]) -> Option<V> {
    let default = candidates.first()?;
    if !right.contains(default) {
        let fastest = rated.iter().max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, variant)| *variant);
        return fastest.or(right.first().copied());
    }
    // One of several is no choice.
    if rated.len() < 2 && rated.len() < candidates.len() {
        return None;
    }
    let handicapped = |&(rate, variant): &(f64, V)| (if variant == *default { rate * MARGIN } else { rate }, variant);
    rated.iter().map(handicapped).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, variant)| variant)
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

/// What an executor computes of a batch.
fn run(executor: &dyn Executor, batch: Batch, output: Output) -> Result<Matrix, Fault> {
    match executor.submit(batch, output).and_then(|pending| pending.wait()) {
        Err(error @ RunError::NotFinite { .. }) => Err(Fault::Wrong(error.to_string())),
        result => result.map_err(failed),
    }
}

/// A weight in f64, as a dtype stores it.
fn stored(program: &Program, weight: WeightId, dtype: Dtype) -> Result<Vec<f64>, Fault> {
    let spec = program.weight(weight);
    let values = spec.read_all(&WEIGHTS).map_err(failed)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_chosen_that_is_right() {
        let all = ['a', 'b', 'c'];
        // The fastest, if there was a choice.
        assert_eq!(choose(&all, &[(1.0, 'a'), (2.0, 'b')], &all), Some('b'));
        assert_eq!(choose(&all, &[(1.0, 'a'), (1.02, 'b')], &all), Some('a'));
        assert_eq!(choose(&['a'], &[(1.0, 'a')], &['a']), Some('a'));
        assert_eq!(choose(&all, &[(1.0, 'a')], &all), None);
        assert_eq!(choose(&all, &[], &all), None);
        // Not the default, if that is wrong: measured or not.
        assert_eq!(choose(&all, &[(1.0, 'c')], &['b', 'c']), Some('c'));
        assert_eq!(choose(&all, &[], &['b', 'c']), Some('b'));
        assert_eq!(choose::<char>(&all, &[], &[]), None);
    }

    #[test]
    fn a_device_without_a_right_kernel_is_unfit() {
        let (wrong, failed) = (Fault::Wrong("0 instead of 1".into()), Fault::Failed("no memory".into()));
        let fault = |right: &[char], faults: &[&Fault]| {
            let mut measurement = Measurement::default();
            measurement.refuse(right, faults.iter().copied().cloned(), "attention".into());
            measurement.fault
        };
        assert_eq!(fault(&[], &[&wrong, &failed]), Some(Fault::Wrong("attention: 0 instead of 1".into())));
        assert_eq!(fault(&['b'], &[&wrong]), None);
        assert_eq!(fault(&[], &[&failed, &wrong]), None);
    }
}
