//! Buffers of our own for what goes to the device, kept for the next time. The queue's own are made anew for each write, and where
//! there is no memory for one, wgpu 30 gives the whole device up.

use super::device::GpuDevice;
use crate::error::RunError;
use std::sync::{Mutex, PoisonError, mpsc};

/// Bytes of the smallest, and of the largest that is kept: batches fit these, pieces of weights come once.
const LEAST: u64 = 64 << 10;
const MOST: u64 = 1 << 20;

/// The staging buffers of a device.
#[derive(Debug)]
pub(super) struct Staging {
    /// Mapped.
    free: Mutex<Vec<wgpu::Buffer>>,
    /// Mapped again, once the device is done with them.
    sender: mpsc::Sender<wgpu::Buffer>,
    returned: Mutex<mpsc::Receiver<wgpu::Buffer>>,
}

/// Bytes for a buffer, from some byte on: both multiples of four.
pub(super) struct Write<'a> {
    pub buffer: &'a wgpu::Buffer,
    pub offset: u64,
    pub bytes: &'a [u8],
}

impl Staging {
    /// Without memory yet.
    pub fn new() -> Staging {
        let (sender, returned) = mpsc::channel();
        Staging { free: Mutex::default(), sender, returned: Mutex::new(returned) }
    }

    /// A mapped buffer of so many bytes at least: the smallest that there is, or a new one. `None` if there is no memory.
    fn take(&self, bytes: u64, device: &wgpu::Device) -> Option<wgpu::Buffer> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.extend(self.returned.lock().unwrap_or_else(PoisonError::into_inner).try_iter());
        let fitting = (0..free.len()).filter(|&i| free[i].size() >= bytes).min_by_key(|&i| free[i].size());
        if let Some(i) = fitting {
            return Some(free.swap_remove(i));
        }
        let buffer = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("staging"),
            size: if bytes > MOST { bytes } else { bytes.max(LEAST).next_power_of_two() },
            usage: wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: true,
        });
        buffer.get_mapped_range_mut(..).is_ok().then_some(buffer)
    }
}

impl GpuDevice {
    /// Writes, before whatever is submitted next. `false`, and an error that is the caller's to catch, if there is no memory; no
    /// error if the device is lost: see [`unwritten`](Self::unwritten).
    #[must_use]
    pub(super) fn write(&self, writes: &[Write<'_>]) -> bool {
        let total: usize = writes.iter().map(|write| write.bytes.len()).sum();
        if total == 0 {
            return true;
        }
        let Some(staging) = self.staging.take(total as u64, &self.device) else { return false };
        let Ok(mut mapped) = staging.get_mapped_range_mut(..) else { return false };
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut at = 0;
        for Write { buffer, offset, bytes } in writes.iter().filter(|write| !write.bytes.is_empty()) {
            mapped.slice(at..at + bytes.len()).copy_from_slice(bytes);
            encoder.copy_buffer_to_buffer(&staging, at as u64, buffer, *offset, bytes.len() as u64);
            at += bytes.len();
        }
        drop(mapped);
        staging.unmap();
        self.queue.submit([encoder.finish()]);
        let (sender, again) = (self.staging.sender.clone(), staging.clone());
        staging.map_async(wgpu::MapMode::Write, .., move |result| {
            // Of a lost device it is not kept either.
            if result.is_ok() && again.size() <= MOST {
                let _ = sender.send(again); // the device may be gone
            }
        });
        true
    }

    /// Why there was no [`write`](Self::write), where no error was raised: wgpu raises none of a device that is lost, whose handler
    /// may not have heard of it yet.
    pub(super) fn unwritten(&self) -> RunError {
        self.health.fail("it takes no more buffers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::AdapterSelector;
    use std::sync::Arc;

    fn device() -> Option<Arc<GpuDevice>> {
        match GpuDevice::open(&AdapterSelector::Any) {
            Ok(device) => Some(device),
            Err(error) if std::env::var_os("REQUIRE_GPU").is_some_and(|v| v == "1") => panic!("{error}"),
            Err(error) => {
                eprintln!("SKIPPED: {error}");
                None
            }
        }
    }

    #[test]
    fn a_lost_device_is_not_short_of_memory() {
        let Some(device) = device() else { return };
        let usage = wgpu::BufferUsages::COPY_DST;
        let descriptor = wgpu::BufferDescriptor { label: None, size: 16, usage, mapped_at_creation: false };
        let buffer = device.device.create_buffer(&descriptor);
        device.device.destroy();
        let written = device.scoped(|| device.write(&[Write { buffer: &buffer, offset: 0, bytes: &[1; 16] }]));
        assert!(matches!(written, Ok(false)), "{written:?}");
        assert!(matches!(device.unwritten(), RunError::DeviceLost(_)));
    }

    #[test]
    fn a_buffer_is_used_again_once_the_device_is_done_with_it() {
        let Some(device) = device() else { return };
        let usage = wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ;
        let descriptor = wgpu::BufferDescriptor { label: None, size: 200_000, usage, mapped_at_creation: false };
        let buffer = device.device.create_buffer(&descriptor);
        let bytes = |start: usize, len: usize| -> Vec<u8> { (start..start + len).map(|i| i as u8).collect() };
        let free = |sizes: &[u64]| {
            device.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
            let mut free = device.staging.free.lock().unwrap();
            free.extend(device.staging.returned.lock().unwrap().try_iter());
            let mut found: Vec<u64> = free.iter().map(wgpu::Buffer::size).collect();
            found.sort_unstable();
            assert_eq!(found, sizes);
        };
        let (large, small) = (bytes(0, 199_996), [bytes(7, 8), bytes(90, 400)]);
        let write = |offset, bytes| Write { buffer: &buffer, offset, bytes };
        assert!(device.write(&[]));
        assert!(device.write(&[write(4, &large)]));
        free(&[262_144]);
        assert!(device.write(&[write(0, &small[0]), write(16, &[]), write(12, &small[1])]));
        free(&[262_144]);
        let weights = vec![0; MOST as usize + 4];
        let usage = wgpu::BufferUsages::COPY_DST;
        let size = weights.len() as u64;
        let large_one = device.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage,
            mapped_at_creation: false,
        });
        assert!(device.write(&[Write { buffer: &large_one, offset: 0, bytes: &weights }]));
        free(&[262_144]);
        // Two at once have a buffer each.
        assert!(device.write(&[write(0, &small[0])]) && device.write(&[write(0, &small[0])]));
        free(&[65_536, 262_144]);

        buffer.map_async(wgpu::MapMode::Read, .., |result| result.unwrap());
        device.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        let found = buffer.get_mapped_range(..).unwrap();
        assert!(found[..8] == small[0] && found[8..12] == large[4..8] && found[12..412] == small[1]);
        assert!(found[412..] == large[408..]);
    }
}
