//! Weights that a sample has been used for, on disk: learning from it takes seconds (bge-large's shape: 15 on two cores of Zen 4),
//! and gives the same every time.
//!
//! A file's name is a hash of all that it follows from: every number of the model, the sample, the kernel, the code. It holds a
//! record a matrix, and in the end the hash of them all; what is not as it should be is made again.

use super::instruction_set::lanes;
use super::linear_int8::{Kernel, Rounded, Weight};
use super::parallel::each;
use super::table::PIECE;
use crate::batch::Batch;
use crate::error::Result;
use crate::kept::Aside;
use crate::program::{Blocks, Part, Program, TensorSpec, WeightId, WeightSource};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The code that decides on the integers. Other code, another file.
const CODE: [&str; 9] = [
    include_str!("calibrate.rs"),
    include_str!("linear_dot.rs"),
    include_str!("linear_int8.rs"),
    include_str!("mixture.rs"),
    include_str!("moments.rs"),
    include_str!("quantize.rs"),
    include_str!("rotate.rs"),
    include_str!("rounded_file.rs"),
    include_str!("rounding.rs"),
];

/// In the folder for what is kept.
const FOLDER: &str = "cpu-int8";

/// Bytes of all files together: those that have not been used for the longest are removed.
const MOST_BYTES: u64 = 4 << 30;

/// No writer takes longer.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The weights of one model for one sample.
pub struct RoundedFile {
    path: PathBuf,
    kernel: Kernel,
    /// Which weights, in the order of their records.
    order: Vec<(WeightId, Blocks)>,
}

/// A file that is being written.
pub struct Writer {
    aside: BufWriter<Aside>,
    hash: Sha256,
    path: PathBuf,
}

impl RoundedFile {
    /// The file of a model and a sample in a folder, by as many threads. `None` if it would be too large to keep.
    ///
    /// # Errors
    /// Those of the source: every number is read.
    pub fn of(
        program: &Program,
        source: &dyn WeightSource,
        sample: &Batch,
        order: &[(WeightId, Blocks)],
        threads: usize,
        folder: &Path,
    ) -> Result<Option<RoundedFile>> {
        let kernel = Kernel::best();
        let bytes = |(id, blocks): &(WeightId, Blocks)| {
            (blocks.count() * sizes(blocks.shape(program.weight(*id)), kernel).iter().sum::<usize>()) as u64
        };
        if order.iter().map(bytes).sum::<u64>() > MOST_BYTES / 2 {
            return Ok(None);
        }
        let mut all = Sha256::new();
        for code in CODE {
            all.update(code);
        }
        // All that decides on what the model computes, and on the integers' limits, groups and order.
        all.update(format!("{} {kernel:?} {:?} {}", env!("CARGO_PKG_VERSION"), kernel.limits(), lanes()));
        all.update(format!("{:?} {:?} {order:?}", program.steps, program.weights));
        for numbers in [&sample.ids, &sample.types, &sample.positions, &sample.starts, &sample.skip] {
            all.update(numbers.len().to_le_bytes());
            all.update(bytemuck::cast_slice(numbers));
        }
        let tensors = program.weights.iter().flat_map(|spec| spec.parts.iter().flat_map(Part::tensors));
        // Each once: a table may be in several weights, by blocks of its rows.
        let mut seen = HashSet::new();
        let mut hashes: Vec<_> =
            tensors.filter(|&tensor| seen.insert(tensor)).map(|tensor| (tensor, Ok([0; _]))).collect();
        each(threads, &mut hashes, |(tensor, hash)| *hash = hash_of(tensor, source));
        for (_, hash) in hashes {
            all.update(hash?);
        }
        let name: String = all.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Ok(Some(RoundedFile { path: folder.join(FOLDER).join(name), kernel, order: order.to_vec() }))
    }

    /// The weights, if the file is there and whole.
    pub fn read(&self, program: &Program) -> Option<HashMap<WeightId, Vec<Weight>>> {
        let file = File::open(&self.path).ok()?;
        let weights = self.records(program, BufReader::new(file));
        if let Err(error) = &weights {
            log::warn!("{} is made again: {error}", self.path.display());
        }
        // So that it is not the next to be removed. Where that is not allowed, it may be.
        let _ = File::options().append(true).open(&self.path).and_then(|file| file.set_modified(SystemTime::now()));
        weights.ok()
    }

    fn records(&self, program: &Program, mut file: impl Read) -> io::Result<HashMap<WeightId, Vec<Weight>>> {
        let (mut hash, mut weights) = (Sha256::new(), HashMap::<_, Vec<_>>::new());
        let each = |&(id, blocks): &(WeightId, Blocks)| std::iter::repeat_n((id, blocks), blocks.count());
        for (id, blocks) in self.order.iter().flat_map(each) {
            let [factors, steps, integers] = sizes(blocks.shape(program.weight(id)), self.kernel);
            let (mut factors, mut steps) = (vec![0f32; factors / 4], vec![0f32; steps / 4]);
            let mut integers = vec![0i8; integers];
            for part in [
                bytemuck::cast_slice_mut(&mut factors),
                bytemuck::cast_slice_mut(&mut steps),
                bytemuck::cast_slice_mut(&mut integers),
            ] {
                file.read_exact(part)?;
                hash.update(part);
            }
            let rounded = Rounded { factors, integers, steps };
            weights.entry(id).or_default().push(Weight::pack(&rounded, self.kernel));
        }
        let mut rest = Vec::new();
        file.read_to_end(&mut rest)?;
        match rest == hash.finalize().as_slice() {
            true => Ok(weights),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, "it is damaged")),
        }
    }

    /// Begins to write it.
    ///
    /// # Errors
    /// Those of the system.
    pub fn write(&self) -> io::Result<Writer> {
        let aside = BufWriter::new(Aside::create(&self.path)?);
        Ok(Writer { aside, hash: Sha256::new(), path: self.path.clone() })
    }
}

impl Writer {
    /// Adds the record of the next weight.
    ///
    /// # Errors
    /// Those of the system.
    pub fn add(&mut self, Rounded { factors, integers, steps }: &Rounded) -> io::Result<()> {
        for part in [bytemuck::cast_slice(factors), bytemuck::cast_slice(steps), bytemuck::cast_slice(integers)] {
            self.hash.update(part);
            self.aside.write_all(part)?;
        }
        Ok(())
    }

    /// After the last record: puts the file in its place, and makes room for it.
    ///
    /// # Errors
    /// Those of the system.
    pub fn finish(mut self) -> io::Result<()> {
        self.aside.write_all(&self.hash.finalize())?;
        self.aside.into_inner()?.finish()?;
        remove_oldest(&self.path, MOST_BYTES);
        Ok(())
    }
}

/// Bytes of a record's parts: factors, steps, integers.
fn sizes([rows, cols]: [usize; 2], kernel: Kernel) -> [usize; 3] {
    [4 * cols, 4 * rows * kernel.groups(cols), rows * cols]
}

fn hash_of(tensor: &TensorSpec, source: &dyn WeightSource) -> Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let (rows, step) = (tensor.rows(), (PIECE / tensor.cols().max(1)).max(1));
    for first in (0..rows).step_by(step) {
        hash.update(bytemuck::cast_slice(&source.read(tensor, first..rows.min(first + step))?));
    }
    Ok(hash.finalize().into())
}

/// Removes those beside `path` that have not been used for the longest, until all have no more than `most` bytes; never itself, and
/// no file of others. What a writer that was killed left goes after a day.
fn remove_oldest(path: &Path, most: u64) {
    let Some(Ok(entries)) = path.parent().map(fs::read_dir) else { return };
    let known = entries.flatten().filter_map(|entry| {
        let data = entry.metadata().ok().filter(|data| data.is_file() && is_ours(&entry.path()))?;
        Some((data.modified().ok()?, data.len(), entry.path()))
    });
    let mut files: Vec<_> = known.collect();
    files.sort_by_key(|(used, ..)| std::cmp::Reverse(*used));
    let mut bytes = 0;
    for (used, len, file) in files {
        let is_abandoned = file.extension().is_some() && used.elapsed().is_ok_and(|age| age > DAY);
        bytes += len;
        if (bytes > most || is_abandoned) && file != path {
            // Another process may have removed it.
            let _ = fs::remove_file(file);
        }
    }
}

/// Whether it has such a name as a file gets, or one that is being written.
fn is_ours(path: &Path) -> bool {
    let is_hash = |stem: &str| stem.len() == 32 && stem.bytes().all(|byte| byte.is_ascii_hexdigit());
    path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| is_hash(stem.split('.').next().unwrap_or(stem)))
        && path.extension().is_none_or(|extension| extension == "tmp")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_been_used_for_the_longest_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| name.repeat(32));
        let [writing, abandoned] = ["1-0-5.tmp", "1-0-6.tmp"].map(|ending| format!("{a}.{ending}"));
        let others = ["model.onnx".to_string(), format!("{b}.onnx"), "notes".to_string()];
        let aged = [(&a, 30), (&b, 10), (&c, 20), (&d, 40), (&writing, 60), (&abandoned, 100_000)];
        for (name, age) in aged.into_iter().chain(others.each_ref().map(|name| (name, 1_000_000))) {
            let used = SystemTime::now() - Duration::from_secs(age);
            fs::write(folder.path().join(name), [0; 100]).unwrap();
            let file = File::options().append(true).open(folder.path().join(name)).unwrap();
            file.set_modified(used).unwrap();
        }
        // Itself is never removed, however old, and nothing that is not ours.
        let itself = folder.path().join(&d);
        for (most, expected) in [(600, &[&a, &b, &c, &d, &writing][..]), (299, &[&b, &c, &d]), (0, &[&d])] {
            remove_oldest(&itself, most);
            let mut expected: Vec<&String> = expected.iter().copied().chain(&others).collect();
            let entries = fs::read_dir(folder.path()).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            expected.sort();
            assert!(names.iter().eq(expected), "{names:?}");
        }
    }
}
