//! The choice of a device's kernels: read from an earlier start's file, or measured at the first use.
//!
//! They are measured on a second device of the same adapter: a driver that refuses a kernel may lose the device that it was to
//! be compiled on (<https://github.com/gfx-rs/wgpu/issues/10027>). A driver that crashes twice over cooperative matrices,
//! which are experimental in wgpu, is not asked for them again.

use super::device::GpuDevice;
use super::measure::{BUDGET, Fault, Measurement, measure, trial};
use super::options::{Cooperative, Dtype, Features};
use super::tuning::Tuning;
use super::tuning_file::{Attempt, TuningFile};
use crate::error::{Error, Result};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

impl GpuDevice {
    /// The kernels that suit the device best: measured at its first use, and kept for the next start.
    ///
    /// # Errors
    /// [`Error::Device`] if the device computes wrongly.
    pub(super) fn tuning(self: &Arc<Self>, dtype: Dtype, features: Features) -> Result<Tuning> {
        // Noop computes nothing, and is meant to.
        if self.description().is_software() || self.description().backend == wgpu::Backend::Noop {
            return Ok(Tuning::default());
        }
        let mut tunings = self.tunings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tuning) = tunings.get(&(dtype, features)) {
            return Ok(tuning.clone());
        }
        let file = TuningFile::new(self.description(), dtype, features);
        let tuning = match file.as_ref().and_then(TuningFile::read) {
            Some(tuning) => tuning,
            None => {
                let measurement = self.measured(dtype, features, BUDGET, file.as_ref());
                if let Some(fault) = &measurement.fault {
                    return Err(self.unfit(dtype, fault));
                }
                match &file {
                    Some(file) if measurement.is_sound() => file.write(&measurement.tuning),
                    _ => {}
                }
                measurement.tuning
            }
        };
        tunings.insert((dtype, features), tuning.clone());
        Ok(tuning)
    }

    /// Nobody's embeddings are to come from a device that computes wrongly.
    pub fn unfit(&self, dtype: Dtype, fault: &Fault) -> Error {
        let (device, dtype) = (self.description(), dtype.name());
        let what = match fault {
            Fault::Wrong(_) => "it computes wrongly",
            Fault::Failed(_) => "a small model does not run on it",
        };
        Error::Device(format!("{device}: {what} in {dtype}: {fault}. Update its driver, or take another device (cpu)"))
    }

    /// Measures the kernels anew, all of them, for what is loaded from now on, and keeps what was found for the next start: in
    /// the file whose path comes back too. A software adapter is measured and goes on with the defaults.
    pub fn tune(self: &Arc<Self>, dtype: Dtype) -> (Measurement, Option<PathBuf>) {
        let features = self.description().features;
        let file = TuningFile::new(self.description(), dtype, features);
        let measurement = self.measured(dtype, features, Duration::MAX, file.as_ref());
        if self.description().is_software() || !measurement.is_sound() {
            return (measurement, None);
        }
        let mut tunings = self.tunings.lock().unwrap_or_else(PoisonError::into_inner);
        tunings.insert((dtype, features), measurement.tuning.clone());
        let kept = file.map(|file| {
            file.write(&measurement.tuning);
            file.path().to_path_buf()
        });
        (measurement, kept)
    }

    /// What was measured, and tried.
    fn measured(
        self: &Arc<Self>,
        dtype: Dtype,
        features: Features,
        budget: Duration,
        file: Option<&TuningFile>,
    ) -> Measurement {
        let mut measurement = self.kernels(dtype, features, budget, file);
        if measurement.fault.is_none() {
            let tried = on_own_threads(|| trial(self, dtype, features, &measurement.tuning));
            measurement.fault = tried.unwrap_or_else(|reason| Err(Fault::Failed(reason))).err();
        }
        measurement
    }

    /// With cooperative matrices, unless they cost a device its life: this second one, or the process at an earlier start.
    fn kernels(&self, dtype: Dtype, features: Features, budget: Duration, file: Option<&TuningFile>) -> Measurement {
        let without = || {
            let features = Features { cooperative: Cooperative::default(), ..features };
            self.measured_apart(dtype, features, budget).unwrap_or_else(|reason| {
                log::warn!(
                    "{}: its kernels are the defaults, because none could be measured: {reason}",
                    self.description()
                );
                Measurement::default()
            })
        };
        if features.cooperative == Cooperative::default() {
            return without();
        }
        let attempt = file.map(TuningFile::attempt);
        if let Some(path) = attempt.as_ref().and_then(Attempt::crashed) {
            let path = path.display();
            log::warn!(
                "{}: without cooperative matrices, because the last tries did not end: to try again, remove {path} and run \
                 `lexel devices --tune`",
                self.description()
            );
            return without();
        }
        self.measured_apart(dtype, features, budget).unwrap_or_else(|reason| {
            log::warn!("{}: cooperative matrices are not used: {reason}", self.description());
            without()
        })
    }

    /// On a second device; or why that did not survive.
    fn measured_apart(
        &self,
        dtype: Dtype,
        features: Features,
        budget: Duration,
    ) -> std::result::Result<Measurement, String> {
        let device = self.second()?;
        let measured = on_own_threads(|| measure(&device, dtype, features, budget))?;
        device.health.check().map_err(|error| error.to_string())?;
        Ok(measured)
    }
}

/// Runs something that spreads over rayon's pool with a pool of its own; or why it did not end. The caller may be one of rayon's
/// threads, which while it waits for others of its pool may begin another load, and that one would wait for this one.
fn on_own_threads<T: Send>(work: impl FnOnce() -> T + Send) -> std::result::Result<T, String> {
    let pool = rayon::ThreadPoolBuilder::new().build().map_err(|error| error.to_string())?;
    std::thread::scope(|scope| {
        let working = scope.spawn(|| pool.install(work));
        working.join().map_err(|_| "measuring panicked".to_string())
    })
}
