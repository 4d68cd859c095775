//! What tells one model from another: its files.

use super::folder::JOB_FILE;
use crate::error::{Error, Result};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Endings of a model's files that matter.
const ENDINGS: [&str; 5] = ["json", "txt", "model", "safetensors", "jinja"];

/// The SHA-256 of each file in a model's `folders`, for a [`JobFile`](super::JobFile)'s identity: a job is continued with the same
/// model, wherever its folders are and however it is called.
///
/// # Errors
/// [`Error::Io`] if a folder or a file in it cannot be read.
pub fn model_files(folders: &[PathBuf]) -> Result<Vec<(String, Value)>> {
    let mut hashes = Vec::new();
    for (i, folder) in folders.iter().enumerate() {
        let mut files = Vec::new();
        collect(folder, &mut files)?;
        files.sort();
        let what = if i == 0 { "model file".to_string() } else { format!("model file of folder {}:", i + 1) };
        for path in files {
            let name = path.strip_prefix(folder).unwrap_or(&path).display();
            hashes.push((format!("{what} {name}"), hash(&path)?.into()));
        }
    }
    Ok(hashes)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        if path.is_dir() {
            // What a job wrote there is no part of the model.
            if !path.join(JOB_FILE).exists() {
                collect(&path, files)?;
            }
        } else if ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str())) {
            files.push(path);
        }
    }
    Ok(())
}

/// The SHA-256 of a file. The hub's cache has it as the name of the file behind a link.
fn hash(path: &Path) -> Result<String> {
    if let Some(name) = fs::read_link(path).ok().as_deref().and_then(Path::file_name).and_then(|name| name.to_str())
        && name.len() == 64
        && name.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return Ok(name.to_string());
    }
    let mut file = File::open(path).map_err(Error::io(path))?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).map_err(Error::io(path))? {
            0 => return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            bytes => hasher.update(&buffer[..bytes]),
        }
    }
}
