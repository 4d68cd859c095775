//! What was measured of a device, on disk: a file of JSON for each device, driver, dtype and set of features, and for these
//! shaders, that a user may read and edit.

use super::device::AdapterDescription;
use super::options::{Dtype, Features};
use super::tuning::Tuning;
use crate::kept::{folder, replace};
use serde::{Deserialize, Serialize};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// What is measured, and tried: other shaders, another file.
const SHADERS: [&str; 56] = [
    include_str!("../../shaders/attention.wgsl"),
    include_str!("../../shaders/attention_cooperative.wgsl"),
    include_str!("../../shaders/attention_subgroup.wgsl"),
    include_str!("../../shaders/attention_tiled.wgsl"),
    include_str!("../../shaders/attention_whole.wgsl"),
    include_str!("../../shaders/ceilings.wgsl"),
    include_str!("../../shaders/common/activation.wgsl"),
    include_str!("../../shaders/common/attention.wgsl"),
    include_str!("../../shaders/common/attention_distances.wgsl"),
    include_str!("../../shaders/common/attention_load.wgsl"),
    include_str!("../../shaders/common/attention_mask.wgsl"),
    include_str!("../../shaders/common/attention_rows.wgsl"),
    include_str!("../../shaders/common/attention_rows1.wgsl"),
    include_str!("../../shaders/common/attention_store.wgsl"),
    include_str!("../../shaders/common/attention_store1.wgsl"),
    include_str!("../../shaders/common/attention_tiles.wgsl"),
    include_str!("../../shaders/common/batch.wgsl"),
    include_str!("../../shaders/common/embed.wgsl"),
    include_str!("../../shaders/common/experts.wgsl"),
    include_str!("../../shaders/common/linear.wgsl"),
    include_str!("../../shaders/common/linear_bias.wgsl"),
    include_str!("../../shaders/common/linear_blocks.wgsl"),
    include_str!("../../shaders/common/norm.wgsl"),
    include_str!("../../shaders/common/pool.wgsl"),
    include_str!("../../shaders/common/rows_all.wgsl"),
    include_str!("../../shaders/common/rows_experts.wgsl"),
    include_str!("../../shaders/common/team_subgroup.wgsl"),
    include_str!("../../shaders/common/team_workgroup.wgsl"),
    include_str!("../../shaders/common/words_f16.wgsl"),
    include_str!("../../shaders/common/words_f16_int64.wgsl"),
    include_str!("../../shaders/common/words_f32.wgsl"),
    include_str!("../../shaders/common/words_f32_int64.wgsl"),
    include_str!("../../shaders/embed.wgsl"),
    include_str!("../../shaders/embed_norm.wgsl"),
    include_str!("../../shaders/mark.wgsl"),
    include_str!("../../shaders/mixture_gather.wgsl"),
    include_str!("../../shaders/mixture_place.wgsl"),
    include_str!("../../shaders/mixture_route.wgsl"),
    include_str!("../../shaders/mixture_sum.wgsl"),
    include_str!("../../shaders/glu.wgsl"),
    include_str!("../../shaders/head_norm.wgsl"),
    include_str!("../../shaders/join.wgsl"),
    include_str!("../../shaders/linear.wgsl"),
    include_str!("../../shaders/linear_cooperative.wgsl"),
    include_str!("../../shaders/linear_cooperative_staged.wgsl"),
    include_str!("../../shaders/linear_few.wgsl"),
    include_str!("../../shaders/linear_int8.wgsl"),
    include_str!("../../shaders/linear_subgroup.wgsl"),
    include_str!("../../shaders/norm.wgsl"),
    include_str!("../../shaders/normalize.wgsl"),
    include_str!("../../shaders/pool.wgsl"),
    include_str!("../../shaders/pool_normalize.wgsl"),
    include_str!("../../shaders/quantize.wgsl"),
    include_str!("../../shaders/rotary.wgsl"),
    include_str!("../../shaders/short_conv.wgsl"),
    include_str!("../../shaders/sum.wgsl"),
];

/// A file's contents.
#[derive(Debug, Serialize, Deserialize)]
struct Contents {
    /// What it was measured on: another driver, and other shaders, are measured anew.
    device: String,
    tuning: Tuning,
}

/// The place of a device's tuning.
#[derive(Debug, Clone)]
pub(super) struct TuningFile {
    device: String,
    path: PathBuf,
    /// Of an [`Attempt`]: of any dtype, on the same device and driver.
    attempt: PathBuf,
}

impl TuningFile {
    /// `None` where nothing is to be kept.
    pub fn new(description: &AdapterDescription, dtype: Dtype, features: Features) -> Option<TuningFile> {
        Some(TuningFile::within(&folder()?, description, dtype, features))
    }

    fn within(folder: &Path, description: &AdapterDescription, dtype: Dtype, features: Features) -> TuningFile {
        let AdapterDescription { name, backend, driver, .. } = description;
        let lexel = format!("lexel {} ({:08x})", env!("CARGO_PKG_VERSION"), hash(&SHADERS) as u32);
        let device = format!("{name}, {backend:?}, {driver}, {}, {features}; {lexel}", dtype.name());
        let of = |what: &str, ending: &str| folder.join(format!("tuning-{:016x}.{ending}", hash(what)));
        let attempt = of(&format!("{name}, {backend:?}, {driver}; {lexel}"), "trying");
        TuningFile { path: of(&device, "json"), attempt, device }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tuning, if the file is there and of this device.
    pub fn read(&self) -> Option<Tuning> {
        let text = fs::read(&self.path).ok()?;
        match serde_json::from_slice::<Contents>(&text) {
            Ok(contents) if contents.device == self.device => Some(contents.tuning),
            Ok(contents) => {
                log::warn!("{}: of '{}', and not used for '{}'", self.path.display(), contents.device, self.device);
                None
            }
            Err(error) => {
                log::warn!("{}: {error}; measuring again", self.path.display());
                None
            }
        }
    }

    /// Begins to try what may crash the driver, and the process with it.
    pub fn attempt(&self) -> Attempt {
        Attempt::begin(self.attempt.clone())
    }

    /// Writes it. What goes wrong costs the next start a measurement, and nothing else.
    pub fn write(&self, tuning: &Tuning) {
        let contents = Contents { device: self.device.clone(), tuning: tuning.clone() };
        let written = serde_json::to_vec_pretty(&contents).map_err(std::io::Error::from);
        if let Err(error) = written.and_then(|text| replace(&self.path, &text)) {
            log::debug!("{}: the measured kernels are not kept: {error}", self.path.display());
        }
    }
}

fn hash(what: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// Tries that have not ended before it is believed that they crash: one may have been killed for any reason.
const TRIES: usize = 2;

/// A try that may not end: until it is dropped, a file says so, a line for each, which this process has locked. Without a
/// place for the file, nothing is said.
pub(super) struct Attempt {
    path: PathBuf,
    /// `None` also while another process tries, and after a crash.
    file: Option<fs::File>,
    crashed: bool,
}

impl Attempt {
    fn begin(path: PathBuf) -> Attempt {
        let open = || {
            fs::create_dir_all(path.parent()?).ok()?;
            // Not to append: on Windows such a file cannot be emptied. It is read to its end before it is written.
            let file = fs::OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).ok()?;
            file.try_lock().ok()?;
            Some(file)
        };
        let mut file = open();
        // Nobody holds the lock, and yet it has lines.
        let unended = file.as_ref().map_or(0, |file| BufReader::new(file).lines().count());
        let crashed = unended >= TRIES;
        match &mut file {
            _ if crashed => file = None,
            Some(file) => _ = file.write_all(b"kernels are being tried\n").and_then(|()| file.sync_all()),
            None => {}
        }
        Attempt { path, file, crashed }
    }

    /// The file of earlier ones that never ended. It stays.
    pub fn crashed(&self) -> Option<&Path> {
        self.crashed.then_some(&self.path)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            // Emptied first: another process may have opened it already.
            let _ = file.set_len(0);
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::kernels::linear::Variant;

    #[test]
    fn a_tuning_is_read_back_by_the_device_that_it_was_measured_on() {
        let folder = tempfile::tempdir().unwrap();
        let description = |driver: &str| AdapterDescription {
            name: "a GPU".into(),
            backend: wgpu::Backend::Vulkan,
            device_type: wgpu::DeviceType::DiscreteGpu,
            driver: driver.into(),
            features: Features::none(),
            limits: wgpu::Limits::default(),
        };
        let file = |driver: &str| TuningFile::within(folder.path(), &description(driver), Dtype::F32, Features::none());
        let mut tuning = Tuning::only(Variant::Tiled { rows: 64, panels: 2 });
        assert_eq!(file("1.0").read(), None);
        file("1.0").write(&tuning);
        assert_eq!(file("1.0").read(), Some(tuning.clone()));
        tuning.without_subgroups = true;
        file("1.0").write(&tuning);
        assert_eq!(file("1.0").read(), Some(tuning.clone()));
        assert_eq!(file("1.1").read(), None, "another driver");
        fs::copy(file("1.0").path(), file("1.1").path()).unwrap();
        assert_eq!(file("1.1").read(), None, "a file of another device");
        let old = format!(r#"{{"device": {:?}, "tuning": {{"linear": []}}}}"#, file("1.0").device);
        fs::write(file("1.0").path(), old).unwrap();
        assert_eq!(file("1.0").read(), None, "of a lexel that did not measure attention");
        fs::write(file("1.0").path(), "{").unwrap();
        assert_eq!(file("1.0").read(), None, "half a file");
    }

    #[test]
    fn all_shaders_are_known() {
        let mut files = 0;
        for folder in ["shaders", "shaders/common"] {
            for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    let text = fs::read_to_string(&path).unwrap();
                    assert!(SHADERS.contains(&&*text), "{} is not among them", path.display());
                    files += 1;
                }
            }
        }
        assert_eq!(files, SHADERS.len());
    }

    #[test]
    fn tries_that_never_ended_are_known_at_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").join("a.trying");
        let first = Attempt::begin(path.clone());
        assert!(first.crashed().is_none() && path.exists());
        assert!(Attempt::begin(path.clone()).crashed().is_none(), "another process that tries has not crashed");
        assert!(path.exists(), "and its file is not another's to remove");
        drop(first);
        assert!(!path.exists());
        fs::write(&path, "as a crash leaves it\n").unwrap();
        let second = Attempt::begin(path.clone());
        assert!(second.crashed().is_none(), "it may have been killed");
        // As a second crash leaves it: the lock goes, and the file stays.
        let left = fs::read(&path).unwrap();
        drop(second);
        assert!(!path.exists());
        fs::write(&path, left).unwrap();
        for _ in 0..2 {
            assert_eq!(Attempt::begin(path.clone()).crashed(), Some(&*path));
        }
    }
}
