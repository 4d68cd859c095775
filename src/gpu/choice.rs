//! The choice of a device's kernels: read from an earlier start's file, or measured at the first use.
//!
//! They are measured on a second device of the same adapter: a driver that refuses a kernel may lose the device that it was to
//! be compiled on (<https://github.com/gfx-rs/wgpu/issues/10027>). A driver that crashes twice over cooperative matrices,
//! which are experimental in wgpu, is not asked for them again. A device that computes wrongly with subgroup operations, or
//! cannot compile them, goes without.

use super::device::GpuDevice;
use super::measure::{BUDGET, Fault, Measurement, measure, trial};
use super::options::{Cooperative, Dtype, Features};
use super::tuning::Tuning;
use super::tuning_file::{Attempt, TuningFile};
use crate::error::{Error, Result};
use std::fmt::Display;
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
            Some(tuning) => {
                if let Some(path) = file.as_ref().map(TuningFile::path).filter(|_| tuning.without_subgroups) {
                    log::warn!(
                        "{}: without subgroup operations, which failed at its first use in {}: to try again, run \
                         `lexel devices --tune` or remove {}",
                        self.description(),
                        dtype.name(),
                        path.display()
                    );
                }
                tuning
            }
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

    /// What was measured, and tried; without subgroup operations, if the device fails with them.
    fn measured(
        self: &Arc<Self>,
        dtype: Dtype,
        features: Features,
        budget: Duration,
        file: Option<&TuningFile>,
    ) -> Measurement {
        with_subgroups_or_without(self.description(), features, |features| {
            let mut measurement = self.kernels(dtype, features, budget, file);
            if measurement.fault.is_none() {
                let device = self.second().unwrap_or_else(|reason| {
                    log::debug!("{}: tried on the device itself: {reason}", self.description());
                    self.clone()
                });
                let tried = on_own_threads(|| trial(&device, dtype, features, &measurement.tuning));
                measurement.fault = tried.unwrap_or_else(|reason| Err(Fault::Failed(reason))).err();
            }
            measurement
        })
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

/// Measures with these features; where that finds a fault, without subgroups and what needs them.
fn with_subgroups_or_without(
    device: impl Display,
    features: Features,
    mut measured: impl FnMut(Features) -> Measurement,
) -> Measurement {
    let measurement = measured(features);
    match &measurement.fault {
        Some(fault) if features.subgroups => {
            log::warn!("{device}: subgroup operations are not used, because with them: {fault}");
            let mut measurement = measured(features.without_subgroups());
            measurement.tuning.without_subgroups = true;
            measurement
        }
        _ => measurement,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_fails_with_subgroups_goes_without() {
        let features = Features { f16: true, subgroups: true, subgroup_size: Some(32), ..Features::none() };
        let (wrong, failed) = (Fault::Wrong("0 instead of 1".into()), Fault::Failed("no such instruction".into()));
        // The faults with subgroups and without; what is tried, and what comes of it.
        let cases = [
            (None, None, 1, None, false),
            (Some(&wrong), None, 2, None, true),
            (Some(&failed), None, 2, None, true),
            (Some(&wrong), Some(&failed), 2, Some(&failed), true),
        ];
        for (with, without, times, fault, without_subgroups) in cases {
            let mut tried = Vec::new();
            let measurement = with_subgroups_or_without("a GPU", features, |features| {
                tried.push(features);
                let fault = if features.subgroups { with } else { without };
                Measurement { fault: fault.cloned(), ..Measurement::default() }
            });
            let expected = [features, Features { f16: true, ..Features::none() }];
            assert_eq!(tried, expected[..times]);
            assert_eq!((measurement.fault.as_ref(), measurement.tuning.without_subgroups), (fault, without_subgroups));
        }
        // There is nothing to go without.
        let mut tried = 0;
        let measurement = with_subgroups_or_without("a GPU", Features::none(), |_| {
            tried += 1;
            Measurement { fault: Some(wrong.clone()), ..Measurement::default() }
        });
        assert_eq!((measurement.fault, tried), (Some(wrong), 1));
    }
}
