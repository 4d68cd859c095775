//! Which files are read.

use crate::config::{ending, is_pipe};
use crate::failure::{Failure, NO_INPUT};
use std::fs;
use std::path::{Path, PathBuf};

/// Endings of files that are read from folders.
const ENDINGS: [&str; 6] = ["txt", "jsonl", "ndjson", "csv", "tsv", "parquet"];

/// None for standard input. Else files as they are; of folders, the files in them whose endings are known; of patterns, what
/// they match. In order, and sorted by name within a folder or pattern.
pub fn expand(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    if let [path] = paths
        && is_pipe(path)
    {
        return Ok(files);
    }
    for path in paths {
        let text = path.to_string_lossy();
        if is_pipe(path) {
            return Err(Failure::usage("standard input goes alone: give it, or files"));
        }
        if path.is_dir() {
            let before = files.len();
            folder(path, &mut files, &mut Vec::new())?;
            if files.len() == before {
                let message = format!("{} has no files ending in .{}", path.display(), ENDINGS.join(", ."));
                return Err(Failure::new(NO_INPUT, message));
            }
        } else if !path.exists() && text.contains(['*', '?', '[']) {
            // As in a shell, hidden files are asked for by name.
            let options = glob::MatchOptions { require_literal_leading_dot: true, ..Default::default() };
            let paths = glob::glob_with(&text, options).map_err(|error| Failure::usage(format!("{text}: {error}")))?;
            let matches: Result<Vec<PathBuf>, _> = paths.collect();
            let failed = |error: glob::GlobError| Failure::reading(&error.path().display().to_string(), error.error());
            let mut matches = matches.map_err(failed)?;
            matches.sort();
            let before = files.len();
            for found in matches {
                match found.is_dir() {
                    true => folder(&found, &mut files, &mut Vec::new())?,
                    false => files.push(found),
                }
            }
            if files.len() == before {
                return Err(Failure::new(NO_INPUT, format!("no file matches {text}")));
            }
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

/// `above` are the folders that it is in, without links.
fn folder(path: &Path, files: &mut Vec<PathBuf>, above: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let failed = |error| Failure::reading(&path.display().to_string(), &error);
    let itself = fs::canonicalize(path).map_err(failed)?;
    // A link back.
    if above.contains(&itself) {
        return Ok(());
    }
    above.push(itself);
    let entries: Result<Vec<_>, _> = fs::read_dir(path).map_err(failed)?.map(|entry| entry.map(|e| e.path())).collect();
    let mut entries = entries.map_err(failed)?;
    entries.sort();
    for entry in entries {
        let hidden = entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with(['.', '_']));
        if hidden {
            continue;
        }
        if entry.is_dir() {
            // What a job wrote there is no input of the next.
            if !entry.join("_job.json").exists() {
                folder(&entry, files, above)?;
            }
        } else if ending(&entry).is_some_and(|ending| ENDINGS.contains(&ending.as_str())) {
            files.push(entry);
        }
    }
    above.pop();
    Ok(())
}

/// All files must have one format, where it goes by their names.
pub fn same_format(files: &[PathBuf]) -> Result<(), Failure> {
    let Some(first) = files.first() else { return Ok(()) };
    match files.iter().find(|path| ending(path) != ending(first)) {
        Some(other) => Err(Failure::usage(format!(
            "{} and {} differ in their format: give files of one format, or --input-format",
            first.display(),
            other.display()
        ))),
        None => Ok(()),
    }
}
