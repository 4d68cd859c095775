//! Bytes, lines and hash of what is taken from a reader.

use sha2::{Digest, Sha256};
use std::io::{self, BufRead, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What was taken.
#[derive(Default)]
pub struct Tally(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    bytes: u64,
    lines: u64,
    hasher: Sha256,
}

/// A reader whose takings are counted.
pub struct TallyReader<R> {
    reader: R,
    tally: Arc<Tally>,
}

impl Tally {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.counts().bytes
    }

    /// Line ends since the last call.
    pub fn lines(&self) -> u64 {
        std::mem::take(&mut self.counts().lines)
    }

    /// SHA-256 of what was taken since the last call.
    pub fn hash(&self) -> String {
        hex(&self.counts().hasher.finalize_reset())
    }
}

impl<R> TallyReader<R> {
    /// Counts into `tally`.
    pub fn new(reader: R, tally: Arc<Tally>) -> TallyReader<R> {
        TallyReader { reader, tally }
    }
}

impl<R: BufRead> Read for TallyReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let count = bytes.len().min(out.len());
        out[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for TallyReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        // What is consumed is in the buffer: nothing is read here.
        if let Ok(bytes) = self.reader.fill_buf() {
            let bytes = &bytes[..count];
            let mut counts = self.tally.counts();
            counts.bytes += count as u64;
            // A line is taken at a time, or a piece of one.
            counts.lines += u64::from(bytes.last() == Some(&b'\n'));
            counts.hasher.update(bytes);
        }
        self.reader.consume(count);
    }
}

/// In hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
