//! The file that an output is written to before it has its name: `.NAME.lexel-tmp`, of one process at a time.

use crate::failure::{Failure, IO};
use std::ffi::{OsStr, OsString};
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Opens the file aside of `path`, whose name is `name`: empty, and locked until it is closed, so that no other process
/// writes into it or gives it the name. What a killed process left is overwritten: its lock went with it.
pub fn create(path: &Path, name: &OsStr) -> Result<(PathBuf, File), Failure> {
    let failed = |error| Failure::writing(path, &error);
    let mut aside = OsString::from(".");
    aside.push(shortened(name));
    aside.push(".lexel-tmp");
    let temporary = path.with_file_name(aside);
    loop {
        // Emptied once it is locked.
        let file = File::options().write(true).create(true).truncate(false).open(&temporary).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let how = "wait for its end, or give another --output";
                return Err(Failure::new(IO, format!("another lexel is writing {}: {how}", path.display())));
            }
            // A file system without locks has no other use that would be safer.
            Err(TryLockError::Error(error)) => {
                let path = path.display();
                log::warn!("{path} cannot be locked ({error}): no other lexel must write it at the same time");
            }
        }
        if is_at(&file, &temporary).map_err(failed)? {
            file.set_len(0).map_err(failed)?;
            // What the user lets nobody read is read by nobody meanwhile.
            keep_mode(&file, path, 0o200);
            return Ok((temporary, file));
        }
    }
}

/// As much of a name as leaves room for what stands around it: file systems take 255 bytes.
fn shortened(name: &OsStr) -> OsString {
    const MOST: usize = 200;
    match name.len() <= MOST {
        true => name.to_os_string(),
        false => {
            let text = name.to_string_lossy();
            let end = (0..=MOST).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
            text[..end].into()
        }
    }
}

/// Gives the file aside its name: on disk before, or a power cut could leave an empty file of that name.
pub fn publish(file: &File, temporary: &Path, path: &Path) -> io::Result<()> {
    keep_mode(file, path, 0);
    file.sync_all()?;
    std::fs::rename(temporary, path)
}

/// Gives the file the mode of the one that it replaces, and these bits more.
#[cfg(unix)]
fn keep_mode(file: &File, replaced: &Path, more: u32) {
    use std::os::unix::fs::PermissionsExt;
    if let Ok(metadata) = std::fs::metadata(replaced) {
        let mode = metadata.permissions().mode() | more;
        // A file system that has no modes keeps none.
        let _ = file.set_permissions(std::fs::Permissions::from_mode(mode));
    }
}

/// Elsewhere there are no modes.
#[cfg(not(unix))]
fn keep_mode(_: &File, _: &Path, _: u32) {}

/// Whether the file still has this name. Whoever held the lock may have renamed or removed it after it was opened here.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let file = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (file.dev(), file.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Elsewhere a file that is open under a name cannot be told from another.
#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> io::Result<bool> {
    path.try_exists()
}
