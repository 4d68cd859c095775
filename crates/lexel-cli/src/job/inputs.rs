//! Which files are read, and whether the output is a folder.

use crate::config::ending;
use crate::failure::{Failure, NO_INPUT};
use std::fs;
use std::path::{Path, PathBuf};

/// Endings of files that are read from folders.
const ENDINGS: [&str; 6] = ["txt", "jsonl", "ndjson", "csv", "tsv", "parquet"];

/// Files as they are; of folders, the files in them whose endings are known; of patterns, what they match. In order, and
/// sorted by name within a folder or pattern.
pub fn expand(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        let text = path.to_string_lossy();
        if text == "-" {
            return Err(Failure::usage("a job folder needs files as input: a pipe cannot be read again to resume"));
        }
        if path.is_dir() {
            let before = files.len();
            folder(path, &mut files)?;
            if files.len() == before {
                let message = format!("{} has no files ending in .{}", path.display(), ENDINGS.join(", ."));
                return Err(Failure::new(NO_INPUT, message));
            }
        } else if !path.exists() && text.contains(['*', '?', '[']) {
            let paths = glob::glob(&text).map_err(|error| Failure::usage(format!("{text}: {error}")))?;
            let mut matches: Vec<PathBuf> = paths.filter_map(Result::ok).filter(|path| path.is_file()).collect();
            if matches.is_empty() {
                return Err(Failure::new(NO_INPUT, format!("no file matches {text}")));
            }
            matches.sort();
            files.extend(matches);
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn folder(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let failed = |error| Failure::reading(&path.display().to_string(), &error);
    let entries: Result<Vec<_>, _> = fs::read_dir(path).map_err(failed)?.map(|entry| entry.map(|e| e.path())).collect();
    let mut entries = entries.map_err(failed)?;
    entries.sort();
    for entry in entries {
        let hidden = entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with(['.', '_']));
        if hidden {
            continue;
        }
        if entry.is_dir() {
            folder(&entry, files)?;
        } else if ending(&entry).is_some_and(|ending| ENDINGS.contains(&ending.as_str())) {
            files.push(entry);
        }
    }
    Ok(())
}

/// Whether an output is a job folder: by its name or because it is there.
pub fn is_folder(path: &Path) -> bool {
    path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

/// A job's folder is new, empty or a job's.
pub fn check_folder(path: &Path) -> Result<(), Failure> {
    let Ok(mut entries) = fs::read_dir(path) else { return Ok(()) };
    let foreign = |name: &str| !name.starts_with('_');
    let other = entries.find_map(|entry| entry.ok()?.file_name().into_string().ok().filter(|name| foreign(name)));
    match other {
        Some(name) if !path.join("_job.json").exists() => Err(Failure::usage(format!(
            "{} is a folder that holds other files ('{name}'): give a new folder, or a file, for --output",
            path.display()
        ))),
        _ => Ok(()),
    }
}
