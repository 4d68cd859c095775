//! Where files are kept that the next start can use: the user's cache folder.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

/// The application's, once it has named one.
static FOLDER: RwLock<Option<PathBuf>> = RwLock::new(None);

/// Where the process keeps what the next start can use: how fast kernels were on a GPU, compiled shaders, and weights that were
/// made int8 for the CPU with a sample of texts. For an application with a cache folder of its own; it counts for devices that are
/// opened, and models that are loaded, afterwards. Default: `LEXEL_CACHE_DIR`, which may be `off`; else `lexel` in the user's cache
/// folder.
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
pub(crate) fn replace(path: &Path, data: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let aside = aside(path);
    let written = std::fs::write(&aside, data);
    written.and_then(|()| std::fs::rename(&aside, path)).inspect_err(|_| _ = std::fs::remove_file(&aside))
}

/// Where a file is written before it is renamed: a path that no other writer has.
pub(crate) fn aside(path: &Path) -> PathBuf {
    static WRITERS: AtomicUsize = AtomicUsize::new(0);
    let writer = WRITERS.fetch_add(1, Ordering::Relaxed);
    path.with_extension(format!("{}-{writer}.tmp", std::process::id()))
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
