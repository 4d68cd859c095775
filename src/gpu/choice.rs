//! The choice of a device's kernels: read from an earlier start's file, or measured at the first use.
//!
//! They are measured on a second device of the same adapter: a driver that refuses a kernel may lose the device that it was to
//! be compiled on (<https://github.com/gfx-rs/wgpu/issues/10027>). A driver that crashes twice over cooperative matrices,
//! which are experimental in wgpu, is not asked for them again. A device that computes wrongly with matrices or with subgroup
//! operations, or cannot compile them, goes without.

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

    /// What was measured, and tried; without matrices or subgroup operations, if the device fails with them.
    fn measured(
        self: &Arc<Self>,
        dtype: Dtype,
        features: Features,
        budget: Duration,
        file: Option<&TuningFile>,
    ) -> Measurement {
        with_all_or_less(
            self.description(),
            features,
            || self.health.check().is_ok(),
            |features| {
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
            },
        )
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

/// Measures with these features; where that finds a fault, without cooperative matrices, and then without subgroups.
fn with_all_or_less(
    device: impl Display,
    features: Features,
    is_alive: impl Fn() -> bool,
    mut measured: impl FnMut(Features) -> Measurement,
) -> Measurement {
    let without_matrices = Features { cooperative: Cooperative::default(), ..features };
    let steps = [(without_matrices, "cooperative matrices"), (features.without_subgroups(), "subgroup operations")];
    let (mut tried, mut measurement) = (features, measured(features));
    for (less, forgone) in steps.into_iter().filter(|(less, _)| *less != features) {
        let Some(fault) = measurement.fault.take_if(|_| less != tried && is_alive()) else {
            continue;
        };
        log::warn!("{device}: {forgone} are not used, because with them: {fault}");
        (tried, measurement) = (less, Measurement { forgone: Some(fault), ..measured(less) });
        measurement.tuning.without_subgroups = features.subgroups && !less.subgroups;
    }
    measurement
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

    fn features(matrices: Option<u32>) -> Features {
        let cooperative = Cooperative { f16: matrices, f32: None };
        Features { f16: true, subgroups: true, subgroup_size: Some(32), cooperative, ..Features::none() }
    }

    #[test]
    fn a_device_that_fails_with_features_goes_without() {
        let (wrong, failed) = (Fault::Wrong("0 instead of 1".into()), Fault::Failed("no such instruction".into()));
        let (all, subgroups, none) = (features(Some(16)), features(None), Features { f16: true, ..Features::none() });
        // What a device has, what goes wrong with each, what is tried, and the fault in the end.
        type Case<'a> = (Features, &'a [Option<&'a Fault>], &'a [Features], Option<&'a Fault>);
        let cases: [Case; 6] = [
            (all, &[None], &[all], None),
            (all, &[Some(&wrong), None], &[all, subgroups], None),
            (all, &[Some(&wrong), Some(&failed), None], &[all, subgroups, none], None),
            (subgroups, &[Some(&failed), None], &[subgroups, none], None),
            (subgroups, &[Some(&wrong), Some(&failed)], &[subgroups, none], Some(&failed)),
            (none, &[Some(&wrong)], &[none], Some(&wrong)), // there is nothing to go without
        ];
        for (features, faults, expected, fault) in cases {
            let mut tried = Vec::new();
            let measurement = with_all_or_less(
                "a GPU",
                features,
                || true,
                |features| {
                    tried.push(features);
                    Measurement { fault: faults[tried.len() - 1].cloned(), ..Measurement::default() }
                },
            );
            assert_eq!((&tried[..], measurement.fault.as_ref()), (expected, fault));
            let forgone = tried.len().checked_sub(2).and_then(|last| faults[last]);
            assert_eq!(measurement.forgone.as_ref(), forgone);
            assert_eq!(measurement.tuning.without_subgroups, features.subgroups && tried.last() == Some(&none));
        }
    }

    #[test]
    fn a_lost_device_is_not_measured_again() {
        let lost = Fault::Failed("lost".into());
        let measurement = with_all_or_less(
            "a GPU",
            features(None),
            || false,
            |_| Measurement { fault: Some(lost.clone()), ..Measurement::default() },
        );
        assert_eq!((measurement.fault, measurement.forgone), (Some(lost), None));
    }
}
