//! Compiled pipelines on disk, so that a program's second start need not compile: where the backend can (Vulkan).
//!
//! A file for each kind of adapter and driver in the user's cache folder. The driver checks that it is its own; that it is whole is
//! checked here, because wgpu hands the contents over as they are.

use crate::kept::{folder, replace};
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A file beyond this is begun anew: it only ever grows.
const LARGEST: u64 = 64 << 20;

/// Bytes of the checksum at the file's beginning.
const CHECKSUM: usize = size_of::<u64>();

/// wgpu's cache, and the file that it was filled from.
#[derive(Debug)]
pub(super) struct PipelineFile {
    cache: wgpu::PipelineCache,
    path: PathBuf,
    /// The checksum of what the file holds.
    stored: Mutex<Option<u64>>,
}

impl PipelineFile {
    /// The file of an adapter. `None` where the device cannot use one, or the user wants none.
    pub fn open(device: &wgpu::Device, info: &wgpu::AdapterInfo) -> Option<PipelineFile> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let path = folder()?.join(name(info)?);
        let data = read(&path);
        // SAFETY: the data is what `get_data` gave, by its checksum; wgpu and the driver refuse what another version made.
        let cache = unsafe {
            device.create_pipeline_cache(&wgpu::PipelineCacheDescriptor {
                label: Some("pipelines"),
                data: data.as_deref(),
                fallback: true,
            })
        };
        let stored = Mutex::new(data.as_deref().map(checksum));
        Some(PipelineFile { cache, path, stored })
    }

    /// What pipelines are made with.
    pub fn cache(&self) -> &wgpu::PipelineCache {
        &self.cache
    }

    /// Writes the file if there is something new in it. What goes wrong costs the next start some time, and nothing else.
    pub fn save(&self) {
        let Some(data) = self.cache.get_data() else { return };
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = checksum(&data);
        if *stored == Some(sum) {
            return;
        }
        match write(&self.path, &data) {
            Ok(()) => {
                log::debug!("{}: {} bytes of compiled pipelines", self.path.display(), data.len());
                *stored = Some(sum);
            }
            Err(error) => log::debug!("{}: compiled pipelines are not kept: {error}", self.path.display()),
        }
    }
}

fn read(path: &Path) -> Option<Vec<u8>> {
    if fs::metadata(path).ok()?.len() > LARGEST {
        return None;
    }
    let mut bytes = fs::read(path).ok()?;
    let sum = u64::from_le_bytes(*bytes.first_chunk::<CHECKSUM>()?);
    bytes.drain(..CHECKSUM);
    (checksum(&bytes) == sum).then_some(bytes)
}

fn write(path: &Path, data: &[u8]) -> std::io::Result<()> {
    replace(path, &[&checksum(data).to_le_bytes(), data].concat())
}

/// A file's name: two drivers of one GPU have one each. `None` where the backend keeps no pipelines.
fn name(info: &wgpu::AdapterInfo) -> Option<String> {
    let key = wgpu::util::pipeline_cache_key(info)?;
    Some(format!("{key}_{:08x}", checksum(info.driver.as_bytes()) as u32))
}

/// Against accidents only. Another version of the standard library may have another one, and then the file is not used.
fn checksum(data: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(data);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_driver_of_a_gpu_has_a_file_and_each_version_the_same() {
        let info = |driver: &str, version: &str| {
            let mut info = wgpu::AdapterInfo::new(wgpu::DeviceType::DiscreteGpu, wgpu::Backend::Vulkan);
            (info.driver, info.driver_info) = (driver.into(), version.into());
            info
        };
        let radv = name(&info("radv", "Mesa 25")).unwrap();
        assert_eq!(name(&info("radv", "Mesa 26")).unwrap(), radv);
        assert_ne!(name(&info("AMD open-source driver", "2025.Q2")).unwrap(), radv);
    }

    #[test]
    fn only_a_whole_file_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new folder/pipelines");
        assert_eq!(read(&path), None);
        write(&path, b"compiled").unwrap();
        write(&path, b"compiled again").unwrap();
        assert_eq!(read(&path).unwrap(), b"compiled again");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left aside");
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[CHECKSUM + 3] ^= 1;
        for damaged in [&whole[..whole.len() - 1], &whole[..3], &flipped, b"", b"something else entirely"] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(read(&path), None);
        }
    }
}
