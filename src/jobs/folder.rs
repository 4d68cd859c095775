//! A folder of parts.
//!
//! ```text
//!   _job.json               what must be the same to continue, and the plan
//!   part-00000.npy, ...     a part is there if and only if it is complete
//!   _parts/part-00000.json  what each is: rows, rejects, tokens; written before its part
//!   _work/                  while the job runs: a lock for each part in the works, files that are being written, and what
//!                           is computed of parts that were cancelled
//!   _job.lock               held while _job.json or the end of the job is written
//!   _rejects.jsonl          at the end, if there are any: the rows without a result, and why
//!   _report.json            at the end: rows in = rows out + rejects
//! ```
//!
//! Locks are the kernel's, on open files: whoever dies, however it dies, holds none.

use super::files::{again, publish, publish_bytes, sync_folder};
use super::summary::{Receipt, Summary};
use super::{Claim, Finished, Part, Shard, Sink, Source, Unfinished};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

/// Version of the folder's layout.
const LAYOUT: u32 = 1;

/// What says that a folder is a job's.
pub(super) const JOB_FILE: &str = "_job.json";

/// What `_job.json` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobFile {
    /// Version of the folder's layout.
    layout: u32,
    /// The version of lexel that began the job.
    lexel: String,
    /// What must be the same to continue: model, prompt, dtype, ...
    pub identity: Map<String, Value>,
    /// The plan.
    pub parts: Vec<Part>,
    /// What the source needs to find its parts again: not looked at here.
    #[serde(default)]
    pub plan: Value,
}

/// A folder with a job in it.
pub struct JobFolder {
    path: PathBuf,
    parts: Vec<Part>,
    /// The ending of part files, without a dot.
    extension: String,
    /// Goes into receipts.
    device: String,
}

/// A part in the works: nobody else has it while this lives.
pub struct PartLock {
    path: PathBuf,
    /// Unlocked when closed.
    _file: File,
}

/// A [`JobFolder`] and what writes its parts.
pub struct FolderSink<'a, W> {
    folder: &'a JobFolder,
    write: W,
}

impl JobFile {
    /// A job that has not begun.
    pub fn new(identity: impl IntoIterator<Item = (String, Value)>, parts: &[Part]) -> JobFile {
        let (lexel, identity) = (env!("CARGO_PKG_VERSION").to_string(), identity.into_iter().collect());
        JobFile { layout: LAYOUT, lexel, identity, parts: parts.to_vec(), plan: Value::Null }
    }

    /// What is in the folder; `None` if it holds no job.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] if it cannot be understood.
    pub fn read(folder: &Path) -> Result<Option<JobFile>> {
        let path = folder.join(JOB_FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(path)(error)),
        };
        let damaged = |error| {
            let how = "restore it, or remove the folder to begin again";
            Error::invalid_file(&path, format!("not as it was written ({error}): {how}"))
        };
        let value: Value = serde_json::from_slice(&bytes).map_err(damaged)?;
        match value["layout"].as_u64() {
            Some(layout) if layout == u64::from(LAYOUT) => {}
            found => {
                let detail = format!("layout {found:?} is another than this version's, {LAYOUT}");
                return Err(Error::invalid_file(&path, detail));
            }
        }
        serde_json::from_value(value).map(Some).map_err(damaged)
    }

    /// What keeps `now` from continuing this job: a line for each difference.
    pub fn differences(&self, now: &JobFile) -> Vec<String> {
        let keys = self.identity.keys().chain(now.identity.keys().filter(|key| !self.identity.contains_key(*key)));
        let text = |value: Option<&Value>| value.map_or("nothing".to_string(), Value::to_string);
        keys.filter(|key| self.identity.get(*key) != now.identity.get(*key))
            .map(|key| {
                let (there, here) = (text(self.identity.get(key)), text(now.identity.get(key)));
                format!("{key}: {there} when the job began, {here} now")
            })
            .collect()
    }
}

impl JobFolder {
    /// Begins the job in this folder, which is made if it is missing; or continues it, if it is the same. Parts are files
    /// of this `extension`; `device` says in their receipts what computed them. What killed processes left is removed.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] if the folder holds another job, with all that differs.
    pub fn begin(path: &Path, job: &JobFile, extension: &str, device: &str) -> Result<JobFolder> {
        let receipts = path.join("_parts");
        fs::create_dir_all(&receipts).map_err(Error::io(receipts))?;
        let _lock = lock(path)?;
        let parts = match JobFile::read(path)? {
            Some(there) => {
                let differences = there.differences(job);
                if !differences.is_empty() {
                    return Err(Error::InvalidInput(format!(
                        "{} holds another job: give the same command to continue it, or another folder\n  {}",
                        path.display(),
                        differences.join("\n  ")
                    )));
                }
                there.parts
            }
            None => {
                let temporary = path.join("_job.json.tmp");
                let bytes = serde_json::to_vec_pretty(job).map_err(|error| Error::invalid_file(&temporary, error))?;
                publish_bytes(&temporary, &path.join("_job.json"), &bytes)?;
                sync_folder(path)?;
                job.parts.clone()
            }
        };
        let extension = extension.to_string();
        let folder = JobFolder { path: path.to_path_buf(), parts, extension, device: device.to_string() };
        folder.collect_stale()?;
        Ok(folder)
    }

    /// A job that is there, to be looked at.
    pub fn existing(path: &Path, job: &JobFile, extension: &str) -> JobFolder {
        let (parts, extension) = (job.parts.clone(), extension.to_string());
        JobFolder { path: path.to_path_buf(), parts, extension, device: String::new() }
    }

    /// The sink that has `write` fill a part's file. It gets the file's path for messages.
    pub fn sink<S, O, W>(&self, write: W) -> FolderSink<'_, W>
    where
        S: Source,
        W: Fn(&File, &Path, &Finished<S, O>) -> Result<(), S::Error> + Sync,
    {
        FolderSink { folder: self, write }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The plan.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The file of a part, whether it is there or not.
    pub fn part_path(&self, part: usize) -> PathBuf {
        self.path.join(format!("{}.{}", self.name(part), self.extension))
    }

    /// For each part, whether it is there.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be listed.
    pub fn done(&self) -> Result<Vec<bool>> {
        let mut names = std::collections::HashSet::new();
        for entry in fs::read_dir(&self.path).map_err(Error::io(&self.path))? {
            names.insert(entry.map_err(Error::io(&self.path))?.file_name());
        }
        let there = |part: &Part| {
            names
                .contains(format!("{}.{}", self.name(part.index), self.extension).as_str().as_ref() as &std::ffi::OsStr)
        };
        Ok(self.parts.iter().map(there).collect())
    }

    /// Checks that every part is there and whole and that every row has a result or a reject; then writes
    /// `_rejects.jsonl` and `_report.json`.
    ///
    /// # Errors
    /// [`Error::Incomplete`] if something is missing, [`Error::InvalidFile`] if something is damaged.
    pub fn finish(&self) -> Result<Summary> {
        let summary = self.check(None)?;
        let _lock = lock(&self.path)?;
        summary.write(&self.path)?;
        let _ = fs::remove_dir_all(self.work());
        let _ = fs::remove_file(self.path.join("_job.lock"));
        Ok(summary)
    }

    /// Checks that every part is there and whole and that every row has a result or a reject: of the job, or of a shard.
    ///
    /// # Errors
    /// [`Error::Incomplete`] if something is missing, [`Error::InvalidFile`] if something is damaged.
    pub fn check(&self, shard: Option<Shard>) -> Result<Summary> {
        Summary::of(self, |part| shard.is_none_or(|shard| shard.has(part)))
    }

    /// [`check`](Self::check) of the parts that are there.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] if one of them is damaged.
    pub fn check_done(&self) -> Result<Summary> {
        let done = self.done()?;
        Summary::of(self, |part| done[part])
    }

    /// Rows of unfinished parts that are saved for whoever continues.
    pub fn saved_rows(&self) -> usize {
        self.parts.iter().map(|part| Unfinished::count(&self.saved_path(part.index))).sum()
    }

    /// `part-00007`
    pub(super) fn name(&self, part: usize) -> String {
        let width = self.parts.len().saturating_sub(1).to_string().len().max(5);
        format!("part-{part:0width$}")
    }

    pub(super) fn receipt_path(&self, part: usize) -> PathBuf {
        self.path.join("_parts").join(self.name(part) + ".json")
    }

    fn work(&self) -> PathBuf {
        self.path.join("_work")
    }

    fn saved_path(&self, part: usize) -> PathBuf {
        self.work().join(self.name(part) + ".saved")
    }

    fn claim(&self, part: usize) -> Result<Claim<PartLock>> {
        if self.part_path(part).exists() {
            return Ok(Claim::Done);
        }
        let path = self.work().join(self.name(part) + ".lock");
        let file = again(&path, || File::options().read(true).write(true).create(true).truncate(false).open(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Claim::Taken),
            Err(TryLockError::Error(error)) => {
                let hint = format!("this file system has no locks ({error}): give each process a folder and a shard");
                return Err(Error::io(path)(std::io::Error::new(error.kind(), hint)));
            }
        }
        // Its last holder removes the lock's file once the part is there, so a lock on a file without a name shows here.
        match self.part_path(part).exists() {
            true => Ok(Claim::Done),
            false => Ok(Claim::Mine(PartLock { path, _file: file })),
        }
    }

    /// Removes what killed processes left.
    fn collect_stale(&self) -> Result<()> {
        for part in &self.parts {
            let name = self.work().join(self.name(part.index));
            let files = ["tmp", "json.tmp", "saved.tmp", "saved", "lock"].map(|ending| name.with_extension(ending));
            if !files.iter().any(|file| file.exists()) {
                continue;
            }
            let claim = self.claim(part.index)?;
            let stale = match &claim {
                Claim::Taken => &files[..0],
                Claim::Mine(_) => &files[..3],
                Claim::Done => &files[..],
            };
            stale.iter().for_each(|file| drop(fs::remove_file(file)));
        }
        Ok(())
    }
}

impl<S, O, W> Sink<S, O> for FolderSink<'_, W>
where
    S: Source,
    W: Fn(&File, &Path, &Finished<S, O>) -> Result<(), S::Error> + Sync,
{
    type Lock = PartLock;

    fn done(&self) -> Result<Vec<bool>, S::Error> {
        Ok(self.folder.done()?)
    }

    fn claim(&self, part: &Part) -> Result<Claim<PartLock>, S::Error> {
        Ok(self.folder.claim(part.index)?)
    }

    fn store(&self, lock: PartLock, finished: &Finished<S, O>) -> Result<(), S::Error> {
        let (folder, index) = (self.folder, finished.part.index);
        let (path, name) = (folder.part_path(index), folder.work().join(folder.name(index)));
        let temporary = name.with_extension("tmp");
        publish(&temporary, &path, |file| -> Result<(), S::Error> {
            (self.write)(file, &temporary, finished)?;
            let bytes = file.metadata().map_err(Error::io(&temporary))?.len();
            let receipt = Receipt::of(finished, bytes, &folder.device);
            receipt.write(&name.with_extension("json.tmp"), &folder.receipt_path(index))?;
            Ok(())
        })?;
        sync_folder(&folder.path)?;
        let _ = fs::remove_file(folder.saved_path(index));
        // While the lock is held: whoever opened the file meanwhile finds the part there.
        let _ = fs::remove_file(&lock.path);
        Ok(())
    }

    fn save(&self, _lock: &PartLock, part: &Part, unfinished: &Unfinished) -> Result<(), S::Error> {
        let path = self.folder.saved_path(part.index);
        Ok(unfinished.write(&path.with_extension("saved.tmp"), &path)?)
    }

    fn saved(&self, _lock: &PartLock, part: &Part) -> Result<Option<Unfinished>, S::Error> {
        Ok(Unfinished::read(&self.folder.saved_path(part.index))?)
    }
}

/// Waits for the lock of the whole folder.
fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("_job.lock");
    let open = || File::options().read(true).write(true).create(true).truncate(false).open(&path);
    loop {
        let file = open().map_err(Error::io(&path))?;
        file.lock().map_err(Error::io(&path))?;
        // The last one removes the file: a lock on a file without a name excludes nobody.
        if same_file(&file, &path) {
            return Ok(file);
        }
    }
}

#[cfg(unix)]
fn same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |metadata: std::io::Result<fs::Metadata>| metadata.ok().map(|metadata| (metadata.dev(), metadata.ino()));
    id(file.metadata()) == id(fs::metadata(path))
}

#[cfg(not(unix))]
fn same_file(_: &File, path: &Path) -> bool {
    path.exists()
}
