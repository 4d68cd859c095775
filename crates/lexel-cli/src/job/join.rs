//! The parts of a job, in one folder or in several, as one file.

use crate::failure::{DATA, Failure, INCOMPLETE, NO_INPUT};
use crate::output::{npy, publish, safetensors};
use crate::parquet;
use lexel::jobs::{JobFile, JobFolder, Summary};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A part's file, and how many rows it has.
struct Piece {
    path: PathBuf,
    /// Bytes before the rows.
    head: u64,
    /// Type and columns, where the format says so.
    kind: (String, Option<usize>),
    /// `embeddings` or `scores`, in .safetensors.
    name: &'static str,
    rows: u64,
}

/// Joins all parts, checked, and lists the rejects beside the file.
pub fn merge(folders: &[PathBuf], output: &Path) -> Result<Summary, Failure> {
    let (mut all, mut paths): (Option<(JobFile, Summary)>, Vec<Option<PathBuf>>) = (None, Vec::new());
    let ending = crate::config::ending(output).unwrap_or_default();
    let mut rejects = Vec::new();
    check_folders(folders, output)?;
    for folder in folders {
        let Some(job) = JobFile::read(folder)? else {
            return Err(Failure::new(NO_INPUT, format!("{} holds no job", folder.display())));
        };
        let format = job.identity.get("output_format").and_then(|format| format.as_str()).unwrap_or_default();
        if format != ending {
            let message = format!("{} holds .{format} parts: give an --output of that ending", folder.display());
            return Err(Failure::usage(message));
        }
        if let Some((first, _)) = &all {
            let mut differences = first.differences(&job);
            if first.parts != job.parts || first.plan["ranges"] != job.plan["ranges"] {
                differences.push("the input".to_string());
            }
            if !differences.is_empty() {
                let (a, b, what) = (folders[0].display(), folder.display(), differences.join("; "));
                return Err(Failure::new(DATA, format!("{a} and {b} hold different jobs: {what}")));
            }
        }
        let there = JobFolder::existing(folder, &job, &ending);
        let (done, summary) = (there.done()?, there.check_done()?);
        paths.resize(done.len(), None);
        for (i, path) in paths.iter_mut().enumerate().filter(|(i, _)| done[*i]) {
            // Its rows and rejects would count twice.
            if let Some(other) = path {
                let (a, b) = (other.display(), there.part_path(i));
                let how = "give folders that have no part in common";
                return Err(Failure::usage(format!("part {i} comes twice, as {a} and as {}: {how}", b.display())));
            }
            *path = Some(there.part_path(i));
        }
        rejects.extend(summary.rejects.iter().cloned());
        match &mut all {
            None => all = Some((job, summary)),
            Some((_, sum)) => sum.add(&summary),
        }
    }
    let Some((_, mut summary)) = all else { return Err(Failure::usage("no folder")) };
    let missing: Vec<String> =
        paths.iter().enumerate().filter(|(_, path)| path.is_none()).map(|(i, _)| i.to_string()).collect();
    if !missing.is_empty() {
        let (count, some) = (missing.len(), missing[..missing.len().min(8)].join(", "));
        return Err(Failure::new(INCOMPLETE, format!("{count} of {} parts are missing: {some} ...", paths.len())));
    }
    rejects.sort_by_key(|reject| reject.row);
    summary.rejects = rejects;
    let paths: Vec<PathBuf> = paths.into_iter().flatten().collect();
    publish(output, |file, path| join(&ending, &paths, file, path))?;
    let mut list = output.as_os_str().to_owned();
    list.push(".rejects.jsonl");
    list_rejects(Path::new(&list), &summary)?;
    Ok(summary)
}

/// Writes the list of rejects; without any, removes that of a merge before.
fn list_rejects(list: &Path, summary: &Summary) -> Result<(), Failure> {
    if summary.rejects.is_empty() {
        return match std::fs::remove_file(list) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::writing(list, &error)),
            _ => Ok(()),
        };
    }
    publish(list, |mut file, path| {
        file.write_all(summary.reject_lines().as_bytes()).map_err(|error| Failure::writing(path, &error))
    })
}

/// Each folder comes once, and none of them holds the output: it could be one of the parts.
fn check_folders(folders: &[PathBuf], output: &Path) -> Result<(), Failure> {
    let parent = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Through a link; a file that is not there yet is where its folder is.
    let place = output.canonicalize().or_else(|_| parent.canonicalize()).ok();
    let mut seen: Vec<(PathBuf, &Path)> = Vec::new();
    for folder in folders {
        // A folder that is not there is told of where it is read.
        let Ok(real) = folder.canonicalize() else { continue };
        if let Some((_, other)) = seen.iter().find(|(path, _)| *path == real) {
            let (a, b) = (other.display(), folder.display());
            return Err(Failure::usage(format!("{a} and {b} are the same folder: give it once")));
        }
        if place.as_ref().is_some_and(|place| place.starts_with(&real)) {
            let (output, folder) = (output.display(), folder.display());
            let how = "give a file outside of it";
            return Err(Failure::usage(format!("--output {output} is in {folder}, a job that is merged: {how}")));
        }
        seen.push((real, folder));
    }
    Ok(())
}

fn join(ending: &str, parts: &[PathBuf], file: &File, path: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::writing(path, &error);
    let mut out = BufWriter::with_capacity(1 << 20, file);
    match ending {
        "parquet" => {
            let of_part = |part: &PathBuf| Ok((part.clone(), parquet::batches(part)?.0));
            let schema = parquet::common(&parts.iter().map(of_part).collect::<Result<Vec<_>, Failure>>()?)?;
            let batches = parts.iter().flat_map(|part| match parquet::batches(part) {
                Ok((_, batches)) => {
                    let cast = |batch: Result<_, _>| parquet::cast(part, &batch?, &schema);
                    Box::new(batches.map(cast)) as Box<dyn Iterator<Item = _>>
                }
                Err(failure) => Box::new(std::iter::once(Err(failure))),
            });
            return parquet::write(path, out, &schema, batches);
        }
        "npy" | "safetensors" => {
            let piece = |path: &PathBuf| if ending == "npy" { npy_piece(path) } else { safetensors_piece(path) };
            let pieces: Vec<Piece> = parts.iter().map(piece).collect::<Result<_, _>>()?;
            let rows: u64 = pieces.iter().map(|piece| piece.rows).sum();
            let Some(Piece { kind: (descr, cols), name, .. }) = pieces.first() else { return Ok(()) };
            let row_bytes = cols.unwrap_or(1) as u64 * size(descr);
            if ending == "npy" {
                out.write_all(&npy::header(descr, rows as usize, *cols)).map_err(failed)?;
            } else {
                out.write_all(&safetensors::header(descr, name, rows, *cols)).map_err(failed)?;
            }
            for piece in &pieces {
                copy(&piece.path, piece.head, piece.rows * row_bytes, &mut out).map_err(failed)?;
            }
            if ending == "safetensors" {
                for piece in &pieces {
                    copy(&piece.path, piece.head + piece.rows * row_bytes, piece.rows * 8, &mut out).map_err(failed)?;
                }
            }
        }
        _ => {
            for part in parts {
                copy(part, 0, u64::MAX, &mut out).map_err(failed)?;
            }
        }
    }
    out.flush().map_err(failed)
}

fn copy(path: &Path, start: u64, bytes: u64, out: &mut impl Write) -> io::Result<()> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let copied = io::copy(&mut file.take(bytes), out)?;
    match bytes {
        u64::MAX => Ok(()),
        bytes if bytes == copied => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{} is too short", path.display()))),
    }
}

fn size(descr: &str) -> u64 {
    descr.trim_start_matches(['<', '|', 'f', 'i', 'u']).parse().unwrap_or(4)
}

fn npy_piece(path: &Path) -> Result<Piece, Failure> {
    let bad = || Failure::new(DATA, format!("{} is not a part as it was written", path.display()));
    let mut header = [0; npy::HEADER_BYTES];
    File::open(path).and_then(|mut file| file.read_exact(&mut header)).map_err(|_| bad())?;
    let (descr, shape) = npy::describe(&header).ok_or_else(bad)?;
    let rows = *shape.first().ok_or_else(bad)? as u64;
    Ok(Piece {
        path: path.to_path_buf(),
        head: npy::HEADER_BYTES as u64,
        kind: (descr, shape.get(1).copied()),
        name: "",
        rows,
    })
}

fn safetensors_piece(path: &Path) -> Result<Piece, Failure> {
    let bad = || Failure::new(DATA, format!("{} is not a part as it was written", path.display()));
    let mut reader = BufReader::new(File::open(path).map_err(|_| bad())?);
    let mut length = [0; 8];
    reader.read_exact(&mut length).map_err(|_| bad())?;
    let length = u64::from_le_bytes(length);
    let mut header = Vec::new();
    reader.fill_buf().map_err(|_| bad())?;
    reader.take(length.min(1 << 20)).read_to_end(&mut header).map_err(|_| bad())?;
    let header: serde_json::Value = serde_json::from_slice(&header).map_err(|_| bad())?;
    let name = if header.get("embeddings").is_some() { "embeddings" } else { "scores" };
    let tensor = &header[name];
    let shape: Vec<u64> = tensor["shape"].as_array().ok_or_else(bad)?.iter().filter_map(|n| n.as_u64()).collect();
    let descr = match tensor["dtype"].as_str().ok_or_else(bad)? {
        "F16" => "<f2",
        "I8" => "|i1",
        "U8" => "|u1",
        _ => "<f4",
    };
    let cols = shape.get(1).map(|&cols| cols as usize);
    let rows = *shape.first().ok_or_else(bad)?;
    Ok(Piece { path: path.to_path_buf(), head: 8 + length, kind: (descr.to_string(), cols), name, rows })
}
