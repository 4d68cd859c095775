//! Where files are kept that the next start can use: the user's cache folder.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// The application's, once it has named one.
static FOLDER: RwLock<Option<PathBuf>> = RwLock::new(None);

/// Where the process keeps what the next start can use: how fast kernels were on a GPU, compiled shaders, and weights that were
/// made int8 for the CPU with a sample of texts (4 GiB at most: those that have not been used for the longest go). For an
/// application with a cache folder of its own; it counts for devices that are opened, and models that are loaded, afterwards.
/// Default: `LEXEL_CACHE_DIR`, which may be `off`; else `lexel` in the user's cache folder.
///
/// Any lexel may share the folder, and it may be deleted at any time.
pub fn set_cache_folder(folder: impl Into<PathBuf>) {
    *FOLDER.write().unwrap_or_else(PoisonError::into_inner) = Some(folder.into());
}

/// The application's, else `LEXEL_CACHE_DIR`, else `lexel` in the user's cache folder. `None` if `LEXEL_CACHE_DIR` is `off`, or
/// there is no home.
pub(crate) fn folder() -> Option<PathBuf> {
    let named = FOLDER.read().unwrap_or_else(PoisonError::into_inner).clone();
    // This crate's own tests keep nothing that they have not named a folder for.
    named.or_else(|| folder_of(|name| std::env::var_os(name)).filter(|_| !cfg!(test)))
}

fn folder_of(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    match variable("LEXEL_CACHE_DIR") {
        Some(folder) if folder.as_os_str() == "off" => None,
        Some(folder) => Some(folder),
        None => {
            let of_user = || Some(variable("HOME").or_else(|| variable("USERPROFILE"))?.join(".cache"));
            Some(variable("XDG_CACHE_HOME").or_else(of_user)?.join("lexel"))
        }
    }
}

/// Writes a file aside, then renames it: a reader finds a whole file, whoever else writes.
#[cfg(feature = "gpu")]
pub(crate) fn replace(path: &Path, data: &[u8]) -> io::Result<()> {
    let mut aside = Aside::create(path)?;
    aside.write_all(data)?;
    aside.finish()
}

/// A file that is written aside, and takes its place when it is finished. Dropped before, it leaves nothing.
pub(crate) struct Aside {
    file: File,
    aside: PathBuf,
    path: PathBuf,
}

impl Aside {
    /// Begins the file that will be at `path`, and makes its folder.
    pub fn create(path: &Path) -> io::Result<Aside> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        static WRITERS: AtomicUsize = AtomicUsize::new(0);
        let writer = WRITERS.fetch_add(1, Ordering::Relaxed);
        // In containers that share the folder, all processes may have the same id.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let aside = path.with_extension(format!("{}-{writer}-{now}.tmp", std::process::id()));
        let file = File::options().write(true).create_new(true).open(&aside)?;
        Ok(Aside { file, aside, path: path.to_path_buf() })
    }

    /// Puts it in its place.
    pub fn finish(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.aside, &self.path)
    }
}

impl Write for Aside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // Finished, it is elsewhere.
        let _ = fs::remove_file(&self.aside);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_applications_folder_goes_first() {
        let own = tempfile::tempdir().unwrap();
        let before = folder();
        set_cache_folder(own.path());
        assert_eq!(folder().unwrap(), own.path());
        // Other tests go on where they were.
        *FOLDER.write().unwrap() = before;
    }

    #[test]
    fn the_folder_is_the_users_unless_a_variable_says_otherwise() {
        let of = |variables: &[(&str, &str)]| {
            folder_of(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
        };
        assert_eq!(of(&[("HOME", "/home/me")]).unwrap(), Path::new("/home/me/.cache/lexel"));
        assert_eq!(of(&[("HOME", "/home/me"), ("XDG_CACHE_HOME", "/x")]).unwrap(), Path::new("/x/lexel"));
        assert_eq!(of(&[("HOME", "/h"), ("LEXEL_CACHE_DIR", "/c")]).unwrap(), Path::new("/c"));
        assert_eq!(of(&[("HOME", "/h"), ("LEXEL_CACHE_DIR", "off")]), None);
        assert_eq!(of(&[]), None);
    }
}
