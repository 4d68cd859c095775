//! Writing to the hub's cache: one file at a time, under a lock that Python's library respects too, and nothing under its
//! final name before its contents are what its name says.

use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use sha1::{Digest, Sha1};
use sha2::Sha256;

use super::hub_cache::CachedRepo;
use crate::error::{Error, Result};

/// What the contents of a blob must be, as its name says: the SHA-256 of a large file, git's SHA-1 of a small one. A
/// mirror may use other names; those bind nothing but the size.
#[derive(Clone)]
pub(crate) enum Checksum {
    Sha256(Sha256),
    GitSha1(Sha1),
    None,
}

impl Checksum {
    /// The empty checksum for a blob of `size` bytes named `name`.
    pub(crate) fn of_name(name: &str, size: u64) -> Checksum {
        let is_hex = name.bytes().all(|byte| byte.is_ascii_hexdigit());
        match name.len() {
            64 if is_hex => Checksum::Sha256(Sha256::new()),
            40 if is_hex => Checksum::GitSha1(Sha1::new_with_prefix(format!("blob {size}\0"))),
            _ => Checksum::None,
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Checksum::Sha256(state) => state.update(bytes),
            Checksum::GitSha1(state) => state.update(bytes),
            Checksum::None => {}
        }
    }

    /// The checksum in hexadecimal; `None` if there is none.
    fn finish(self) -> Option<String> {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Checksum::Sha256(state) => Some(hex(&state.finalize())),
            Checksum::GitSha1(state) => Some(hex(&state.finalize())),
            Checksum::None => None,
        }
    }
}

/// A blob that is being downloaded, with its lock.
pub(crate) struct BlobWriter {
    partial: PathBuf,
    blob: PathBuf,
    name: String,
    size: u64,
    written: u64,
    file: File,
    checksum: Checksum,
}

/// Waits until no other process or thread downloads the blob `name`, however long that takes: it is a download.
pub(crate) fn lock(repo: &CachedRepo, name: &str) -> Result<File> {
    let folder = repo.cache.join(".locks").join(repo.folder.file_name().unwrap_or_default());
    std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    let path = folder.join(format!("{name}.lock"));
    let lock = File::create(&path).map_err(Error::io(&path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            log::info!("another process downloads {name}; waiting for it");
            lock.lock().map_err(Error::io(&path))?;
        }
        // Some network file systems have no locks; the contents are checked all the same.
        Err(TryLockError::Error(error)) => log::warn!("{}: no lock ({error})", path.display()),
    }
    Ok(lock)
}

/// The place of the blob `name`.
pub(crate) fn blob_path(repo: &CachedRepo, name: &str) -> PathBuf {
    repo.folder.join("blobs").join(name)
}

impl BlobWriter {
    /// Begins the blob `name` of `size` bytes. With `resume`, what an interrupted download left is kept.
    pub(crate) fn begin(repo: &CachedRepo, name: &str, size: u64, resume: bool) -> Result<BlobWriter> {
        let blob = blob_path(repo, name);
        let partial = blob.with_file_name(format!("{name}.incomplete"));
        let folder = repo.folder.join("blobs");
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let mut checksum = Checksum::of_name(name, size);
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&partial).map_err(Error::io(&partial))?;
        let left = file.metadata().map_err(Error::io(&partial))?.len();
        let mut written = 0;
        // Without a checksum nobody could tell whether the two parts belong together.
        if resume && left < size && !matches!(checksum, Checksum::None) {
            let mut buffer = vec![0; 1 << 20];
            loop {
                let count = file.read(&mut buffer).map_err(Error::io(&partial))?;
                if count == 0 {
                    break;
                }
                checksum.update(&buffer[..count]);
                written += count as u64;
            }
        } else {
            file.set_len(0).map_err(Error::io(&partial))?;
        }
        Ok(BlobWriter { partial, blob, name: name.to_string(), size, written, file, checksum })
    }

    /// Bytes of the whole blob.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes so far.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Appends; refuses more bytes than the blob has. An error says what is wrong with the contents.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<Result<(), String>> {
        if self.written + bytes.len() as u64 > self.size {
            return Ok(Err(format!("expected {} bytes, the server sends more", self.size)));
        }
        self.file.write_all(bytes).map_err(Error::io(&self.partial))?;
        self.checksum.update(bytes);
        self.written += bytes.len() as u64;
        Ok(Ok(()))
    }

    /// Checks the size and the checksum and gives the blob its name; else removes it and says what is wrong.
    pub(crate) fn finish(self) -> Result<Result<(), String>> {
        let found = self.checksum.clone().finish();
        let wrong = if self.written != self.size {
            Some(format!("expected {} bytes, got {}", self.size, self.written))
        } else {
            let found = found.filter(|found| !found.eq_ignore_ascii_case(&self.name));
            found.map(|found| format!("expected contents with the checksum {}, got {found}", self.name))
        };
        if let Some(wrong) = wrong {
            self.discard();
            return Ok(Err(wrong));
        }
        // The name must not outlive the contents in a power failure.
        self.file.sync_all().map_err(Error::io(&self.partial))?;
        std::fs::rename(&self.partial, &self.blob).map_err(Error::io(&self.blob))?;
        Ok(Ok(()))
    }

    /// Removes what was written.
    pub(crate) fn discard(self) {
        let _ = std::fs::remove_file(&self.partial);
    }
}

/// Makes `pointer`, a file of a snapshot, stand for the blob `name`.
pub(crate) fn link(repo: &CachedRepo, name: &str, pointer: &Path) -> Result<()> {
    let folder = pointer.parent().unwrap_or(&repo.folder);
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let _ = std::fs::remove_file(pointer);
    match link_or_copy(repo, name, pointer) {
        // Another process was faster; its link is ours.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(Error::io(pointer)),
    }
}

#[cfg(unix)]
fn link_or_copy(repo: &CachedRepo, name: &str, pointer: &Path) -> std::io::Result<()> {
    // Relative, as Python's library makes it: a cache can be moved.
    let depth = pointer.strip_prefix(&repo.folder).map_or(0, |path| path.components().count().saturating_sub(1));
    std::os::unix::fs::symlink(format!("{}blobs/{name}", "../".repeat(depth)), pointer)
}

#[cfg(not(unix))]
fn link_or_copy(repo: &CachedRepo, name: &str, pointer: &Path) -> std::io::Result<()> {
    // Symbolic links need a privilege on Windows.
    let blob = blob_path(repo, name);
    std::fs::hard_link(&blob, pointer).or_else(|_| std::fs::copy(&blob, pointer).map(|_| ()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// sha256sum and `git hash-object` of "hello\n".
    const SHA256: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
    const GIT: &str = "ce013625030ba8dba906f756967f9e9ca394464a";

    #[test]
    fn only_the_right_contents_get_the_name() {
        let cache = tempfile::tempdir().unwrap();
        let repo = CachedRepo::new(cache.path(), "a/b");
        for name in [SHA256, GIT, "other-name"] {
            for (text, is_right) in [("hell\n", false), ("jello\n", name == "other-name"), ("hello\n", true)] {
                let mut writer = BlobWriter::begin(&repo, name, 6, false).unwrap();
                for byte in text.bytes() {
                    writer.append(&[byte]).unwrap().unwrap();
                }
                assert_eq!(writer.finish().unwrap().is_ok(), is_right, "{name} {text:?}");
                assert_eq!(blob_path(&repo, name).exists(), is_right);
                let _ = std::fs::remove_file(blob_path(&repo, name));
            }
        }
        let mut writer = BlobWriter::begin(&repo, GIT, 6, false).unwrap();
        assert!(writer.append(b"hello\n and more").unwrap().is_err());
        writer.discard();
        assert_eq!(std::fs::read_dir(repo.folder.join("blobs")).unwrap().count(), 0);
    }

    #[test]
    fn an_interrupted_download_goes_on() {
        let cache = tempfile::tempdir().unwrap();
        let repo = CachedRepo::new(cache.path(), "a/b");
        let mut writer = BlobWriter::begin(&repo, SHA256, 6, true).unwrap();
        writer.append(b"hel").unwrap().unwrap();
        drop(writer);
        let mut writer = BlobWriter::begin(&repo, SHA256, 6, true).unwrap();
        assert_eq!(writer.written(), 3);
        writer.append(b"lo\n").unwrap().unwrap();
        writer.finish().unwrap().unwrap();
        let pointer = repo.snapshot_folder("c").join("1_Pooling/config.json");
        link(&repo, SHA256, &pointer).unwrap();
        link(&repo, SHA256, &pointer).unwrap();
        assert_eq!(std::fs::read(pointer).unwrap(), b"hello\n");
    }
}
