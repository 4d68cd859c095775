//! Files that are whole or not there: written aside, on disk before they have their name.

use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// Creates `temporary`, has it filled, and gives it its name. On an error nothing is left.
pub fn publish<E: From<Error>>(
    temporary: &Path,
    path: &Path,
    fill: impl FnOnce(&File) -> Result<(), E>,
) -> Result<(), E> {
    let published = create(temporary).map_err(E::from).and_then(|file| {
        fill(&file)?;
        file.sync_all().map_err(Error::io(temporary))?;
        fs::rename(temporary, path).map_err(Error::io(path))?;
        Ok(())
    });
    if published.is_err() {
        let _ = fs::remove_file(temporary);
    }
    published
}

/// The same for bytes that are there.
pub fn publish_bytes(temporary: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
    publish(temporary, path, |mut file| file.write_all(bytes).map_err(Error::io(temporary)))
}

/// Opens a file for writing, in a folder that another process may just have removed.
fn create(path: &Path) -> Result<File> {
    let open = || File::options().read(true).write(true).create(true).truncate(true).open(path);
    again(path, open)
}

/// Calls `open`, once more with the file's folder made if that was missing.
pub fn again(path: &Path, open: impl Fn() -> std::io::Result<File>) -> Result<File> {
    let opened = match open() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let folder = path.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(folder).and_then(|()| open())
        }
        opened => opened,
    };
    opened.map_err(Error::io(path))
}

/// Makes the names in a folder survive a power cut.
pub fn sync_folder(path: &Path) -> Result<()> {
    // Elsewhere a folder cannot be opened.
    if cfg!(unix) {
        File::open(path).and_then(|folder| folder.sync_all()).map_err(Error::io(path))?;
    }
    Ok(())
}
