//! Weights that a sample has been used for, on disk: learning from it takes seconds (bge-large's shape: 20 on two cores), and gives
//! the same every time.
//!
//! A file's name is a hash of all that it follows from: every number of the model, the sample, the kernel, the code. It holds a
//! record a weight, and in the end the hash of them all; what is not as it should be is made again.

use super::instruction_set::lanes;
use super::linear_int8::{Kernel, Rounded};
use super::parallel::each;
use super::table::pieces;
use crate::batch::Batch;
use crate::error::Result;
use crate::kept::aside;
use crate::program::{Program, WeightId, WeightSource, WeightSpec};
use memmap2::Mmap;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The code that decides on the integers. Other code, another file.
const CODE: [&str; 7] = [
    include_str!("calibrate.rs"),
    include_str!("linear_int8.rs"),
    include_str!("moments.rs"),
    include_str!("quantize.rs"),
    include_str!("rotate.rs"),
    include_str!("rounded_file.rs"),
    include_str!("rounding.rs"),
];

/// Bytes of all files together: those that have not been used for the longest are removed.
const MOST: u64 = 4 << 30;

/// No writer takes longer.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Bytes of the hash at a file's end.
const HASH: usize = 32;

/// Parts of a record begin at a multiple of this.
const ALIGNMENT: usize = 8;

/// The weights of one model for one sample.
pub struct RoundedFile {
    path: PathBuf,
}

/// A file that is being written: the records in the order in which they will be read.
pub struct Writer {
    file: BufWriter<File>,
    hash: Sha256,
    /// Where it is written, and where it belongs.
    aside: PathBuf,
    path: PathBuf,
}

/// What a file holds.
pub struct Contents {
    bytes: Mmap,
    /// Where the parts of each weight's record lie: factors, steps, integers.
    records: HashMap<WeightId, [Range<usize>; 3]>,
}

impl RoundedFile {
    /// The file of a model and a sample in a folder, by as many threads.
    ///
    /// # Errors
    /// Those of the source: every number is read.
    pub fn of(
        program: &Program,
        source: &dyn WeightSource,
        sample: &Batch,
        kernel: Kernel,
        threads: usize,
        folder: &Path,
    ) -> Result<RoundedFile> {
        let mut hashes: Vec<_> = program.weights.iter().map(|spec| (spec, Ok([0; HASH]))).collect();
        each(threads, &mut hashes, |(spec, hash)| *hash = hash_of(spec, source));
        let mut all = Sha256::new();
        for code in CODE {
            all.update(code);
        }
        // All that decides on what the model computes, and on the integers' limits and order.
        all.update(format!("{:?} {kernel:?} {} {:?}", env!("CARGO_PKG_VERSION"), lanes(), program.steps));
        for numbers in [&sample.ids, &sample.types, &sample.positions, &sample.starts, &sample.skip] {
            all.update(numbers.len().to_le_bytes());
            all.update(bytemuck::cast_slice(numbers));
        }
        for (spec, hash) in hashes {
            all.update([spec.rows.to_le_bytes(), spec.cols.to_le_bytes()].concat());
            all.update(hash?);
        }
        let name: String = all.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Ok(RoundedFile { path: folder.join("int8").join(name) })
    }

    /// What it holds, if it is there and whole; `order` is that of its records.
    pub fn read(&self, program: &Program, order: &[WeightId], kernel: Kernel) -> Option<Contents> {
        let file = File::open(&self.path).ok()?;
        // SAFETY: a file is written aside, renamed, and never changed.
        let bytes = unsafe { Mmap::map(&file) }.ok()?;
        let (all, hash) = bytes.split_last_chunk::<HASH>()?;
        let (mut records, mut end) = (HashMap::new(), 0);
        for &id in order {
            let WeightSpec { rows, cols, .. } = *program.weight(id);
            let parts = [4 * cols, 4 * rows * kernel.groups(cols), rows * cols].map(|bytes| {
                let first = end;
                end += bytes.next_multiple_of(ALIGNMENT);
                first..first + bytes
            });
            records.insert(id, parts);
        }
        if end != all.len() || Sha256::digest(all).as_slice() != hash {
            log::warn!("{} is damaged, and is made again", self.path.display());
            return None;
        }
        // So that it is not the next to be removed. Where that is not allowed, it may be.
        let _ = File::options().append(true).open(&self.path).and_then(|file| file.set_modified(SystemTime::now()));
        Some(Contents { bytes, records })
    }

    /// Begins to write it.
    ///
    /// # Errors
    /// Those of the system.
    pub fn write(&self) -> io::Result<Writer> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let aside = aside(&self.path);
        let file = BufWriter::new(File::create(&aside)?);
        Ok(Writer { file, hash: Sha256::new(), aside, path: self.path.clone() })
    }
}

impl Writer {
    /// Adds a record.
    pub fn add(&mut self, Rounded { factors, integers, steps }: &Rounded<'_>) -> io::Result<()> {
        for part in [bytemuck::cast_slice(factors), bytemuck::cast_slice(steps), bytemuck::cast_slice(integers)] {
            let padding = &[0; ALIGNMENT][..part.len().next_multiple_of(ALIGNMENT) - part.len()];
            for bytes in [part, padding] {
                self.hash.update(bytes);
                self.file.write_all(bytes)?;
            }
        }
        Ok(())
    }

    /// After the last record: puts the file in its place, and makes room for it.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.write_all(&self.hash.finalize_reset())?;
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        fs::rename(&self.aside, &self.path)?;
        remove_oldest(&self.path, MOST);
        Ok(())
    }
}

impl Drop for Writer {
    /// One that was not finished leaves nothing.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.aside);
    }
}

impl Contents {
    /// The integers of a weight.
    pub fn rounded(&self, id: WeightId) -> Option<Rounded<'_>> {
        let [factors, steps, integers] = self.records.get(&id)?;
        Some(Rounded {
            factors: bytemuck::cast_slice(&self.bytes[factors.clone()]).into(),
            steps: bytemuck::cast_slice(&self.bytes[steps.clone()]).into(),
            integers: bytemuck::cast_slice(&self.bytes[integers.clone()]).into(),
        })
    }
}

fn hash_of(spec: &WeightSpec, source: &dyn WeightSource) -> Result<[u8; HASH]> {
    let mut hash = Sha256::new();
    pieces(spec, source, |values| {
        hash.update(bytemuck::cast_slice(values));
        true
    })?;
    Ok(hash.finalize().into())
}

/// Removes those beside `path` that have not been used for the longest, until all have no more than `most` bytes; never itself. What
/// a writer that was killed left goes after a day.
fn remove_oldest(path: &Path, most: u64) {
    let Some(Ok(entries)) = path.parent().map(fs::read_dir) else { return };
    let known = entries.flatten().filter_map(|entry| {
        let data = entry.metadata().ok().filter(|data| data.is_file())?;
        Some((data.modified().ok()?, data.len(), entry.path()))
    });
    let mut files: Vec<_> = known.collect();
    files.sort_by_key(|(used, ..)| std::cmp::Reverse(*used));
    let mut bytes = 0;
    for (used, len, file) in files {
        let is_left = file.extension().is_some() && used.elapsed().is_ok_and(|age| age > DAY);
        bytes += len;
        if (bytes > most || is_left) && file != path {
            // Another process may have removed it.
            let _ = fs::remove_file(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_been_used_for_the_longest_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (name, age) in [("a", 30), ("b", 10), ("c", 20), ("d", 40), ("e.tmp", 60), ("f.tmp", 100_000)] {
            fs::write(path(name), [0; 100]).unwrap();
            let used = SystemTime::now() - Duration::from_secs(age);
            File::options().append(true).open(path(name)).unwrap().set_modified(used).unwrap();
        }
        let names = || {
            let entries = fs::read_dir(folder.path()).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        remove_oldest(&path("d"), 500);
        assert_eq!(names(), ["a", "b", "c", "d", "e.tmp"]);
        // Itself is never removed, however old.
        remove_oldest(&path("d"), 299);
        assert_eq!(names(), ["b", "c", "d"]);
        remove_oldest(&path("d"), 0);
        assert_eq!(names(), ["d"]);
    }
}
