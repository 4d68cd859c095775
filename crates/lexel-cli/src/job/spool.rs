//! Standard input of a job, kept in the job's folder: a pipe cannot be read again.

use crate::failure::{DATA, Failure};
use crate::input::Pipe;
use crate::interrupt;
use std::fs::{self, File};
use std::io::{self, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

/// Bytes compared at once.
const CHUNK: usize = 1 << 16;

/// The file with what standard input holds. If the job has one already, standard input must hold the same or nothing.
pub fn stdin(folder: &Path, ending: &str) -> Result<PathBuf, Failure> {
    let path = folder.join("_input").join(format!("stdin.{ending}"));
    let temporary = path.with_extension(format!("{ending}.tmp"));
    let failed = |error| Failure::writing(&path, &error);
    let begun_before = folder.join("_input").is_dir();
    fs::create_dir_all(folder.join("_input")).map_err(failed)?;
    let file = File::options().read(true).write(true).create(true).truncate(false).open(&temporary).map_err(failed)?;
    // Another process of the job may be reading its own standard input.
    file.lock().map_err(failed)?;
    let (stdin, terminal) = (Pipe::stdin(), io::stdin().is_terminal());
    if path.exists() {
        let _ = fs::remove_file(&temporary);
        return if terminal { Ok(()) } else { compare(&path, stdin, folder) }.map(|()| path);
    }
    interrupt::set_temporary(Some(temporary.clone()));
    let written = fill(&file, stdin, &path)
        .and_then(|bytes| match bytes {
            0 if begun_before => Err(incomplete(folder)),
            _ => Ok(()),
        })
        .and_then(|()| fs::rename(&temporary, &path).map_err(failed))
        .inspect_err(|_| drop(fs::remove_file(&temporary)));
    interrupt::set_temporary(None);
    written.map(|()| path)
}

/// A run that ended while its input still arrived kept nothing of it, and no input at all is how a job is continued.
fn incomplete(folder: &Path) -> Failure {
    let what = "standard input is empty, and an earlier run ended before it had read its own to the end";
    let how = "give the whole input again (or another folder, if it really has no rows)";
    Failure::new(DATA, format!("{}: {what}: {how}", folder.display()))
}

/// Copies standard input; returns its bytes.
fn fill(mut file: &File, mut stdin: impl Read, path: &Path) -> Result<u64, Failure> {
    let failed = |error| Failure::writing(path, &error);
    file.set_len(0).map_err(failed)?;
    let (mut chunk, mut bytes) = (vec![0; CHUNK], 0);
    loop {
        let read = stdin.read(&mut chunk).map_err(reading)?;
        if read == 0 {
            return file.sync_all().map_err(failed).map(|()| bytes);
        }
        file.write_all(&chunk[..read]).map_err(failed)?;
        bytes += read as u64;
    }
}

fn compare(path: &Path, mut stdin: impl Read, folder: &Path) -> Result<(), Failure> {
    let failed = |error| Failure::reading(&path.display().to_string(), &error);
    let mut before = BufReader::with_capacity(CHUNK, File::open(path).map_err(failed)?);
    let (mut chunk, mut expected, mut bytes) = (vec![0; CHUNK], vec![0; CHUNK], 0);
    loop {
        let read = stdin.read(&mut chunk).map_err(reading)?;
        let same = match read {
            // Nothing at all continues the job.
            0 => bytes == 0 || before.read(&mut expected[..1]).map_err(failed)? == 0,
            _ => before.read_exact(&mut expected[..read]).is_ok() && expected[..read] == chunk[..read],
        };
        match (same, read) {
            (true, 0) => return Ok(()),
            (true, _) => bytes += read,
            (false, _) => {
                let what =
                    "the input is not that of this job: standard input differs from what it was when the job began";
                let how = "give the same again, or nothing (< /dev/null) to continue with";
                let (path, other) = (path.display(), super::begin_again(folder));
                return Err(Failure::new(DATA, format!("{what}; {how} {path}; {other}")));
            }
        }
    }
}

fn reading(error: io::Error) -> Failure {
    Failure::reading("standard input", &error)
}
