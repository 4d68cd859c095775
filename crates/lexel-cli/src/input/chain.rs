//! The records of several files, one file behind the other.

use super::{Format, Input, Pipe, Records};
use crate::failure::{Failure, NO_INPUT};
use crate::parquet;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// Bytes read at once.
const BUFFER: usize = 1 << 18;

/// Opens each file when the one before it is read.
pub struct Chain<const N: usize> {
    format: Format<N>,
    files: VecDeque<PathBuf>,
    current: Box<dyn Records<N>>,
}

impl<const N: usize> Chain<N> {
    /// Opens the first file of an input, or standard input.
    pub fn open(input: &Input<N>) -> Result<Chain<N>, Failure> {
        let (format, mut files) = (input.format.clone(), VecDeque::from(input.files.clone()));
        let current = match files.pop_front() {
            Some(path) => open(&format, &path)?,
            None => format.records(Box::new(BufReader::with_capacity(BUFFER, Pipe::stdin())), input.name())?,
        };
        Ok(Chain { format, files, current })
    }
}

impl<const N: usize> Records<N> for Chain<N> {
    fn next(&mut self) -> Result<Option<([String; N], u64)>, Failure> {
        loop {
            match (self.current.next()?, self.files.pop_front()) {
                (None, Some(path)) => self.current = open(&self.format, &path)?,
                (record, path) => {
                    // It is not its turn yet.
                    path.into_iter().for_each(|path| self.files.push_front(path));
                    return Ok(record);
                }
            }
        }
    }
}

fn open<const N: usize>(format: &Format<N>, path: &Path) -> Result<Box<dyn Records<N>>, Failure> {
    if let Format::Parquet(columns) = format {
        return Ok(Box::new(parquet::Rows::open(path, columns)?));
    }
    let file = File::open(path).map_err(|error| Failure::reading(&path.display().to_string(), &error))?;
    let reader: Box<dyn BufRead + Send> = Box::new(BufReader::with_capacity(BUFFER, Pipe::file(file)));
    format.records(reader, path.display().to_string())
}

/// Bytes of all files, as their records count them; `None` if one of them is a pipe or a device.
pub fn bytes<const N: usize>(input: &Input<N>) -> Result<Option<u64>, Failure> {
    if input.files.is_empty() {
        return Ok(None);
    }
    let mut sum = Some(0);
    for path in &input.files {
        let metadata = path.metadata().map_err(|error| Failure::reading(&path.display().to_string(), &error))?;
        if metadata.is_dir() {
            return Err(Failure::new(NO_INPUT, format!("{} is a folder: give a file", path.display())));
        }
        let bytes = match &input.format {
            Format::Parquet(columns) => Some(parquet::shape(path, columns, &[])?.text_bytes),
            _ => metadata.is_file().then_some(metadata.len()),
        };
        sum = sum.zip(bytes).map(|(sum, bytes)| sum + bytes);
    }
    Ok(sum)
}
