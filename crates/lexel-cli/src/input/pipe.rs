//! Pipes, whose end is believed a moment late: Ctrl-C ends whoever writes into one as well, and what had come until then must not
//! pass for all of it.

use std::fs::File;
use std::io::{self, Read};
use std::thread;
use std::time::Duration;

/// In which the signal that ended the writer reaches this process, too.
const MOMENT: Duration = Duration::from_millis(50);

/// Reads what may be a pipe.
pub struct Pipe<R> {
    input: R,
    /// Its end has not come yet.
    waits: bool,
}

impl Pipe<io::Stdin> {
    /// Standard input.
    pub fn stdin() -> Pipe<io::Stdin> {
        #[cfg(unix)]
        let waits = {
            use std::os::fd::AsFd;
            let file = io::stdin().as_fd().try_clone_to_owned().map(File::from);
            file.as_ref().map_or(true, is_pipe)
        };
        #[cfg(not(unix))]
        let waits = true;
        Pipe { input: io::stdin(), waits }
    }
}

impl Pipe<File> {
    /// A file, which may be a named pipe or `/dev/stdin`.
    pub fn file(file: File) -> Pipe<File> {
        let waits = is_pipe(&file);
        Pipe { input: file, waits }
    }
}

#[cfg(unix)]
fn is_pipe(file: &File) -> bool {
    use std::os::unix::fs::FileTypeExt;
    file.metadata().is_ok_and(|data| data.file_type().is_fifo() || data.file_type().is_socket())
}

#[cfg(not(unix))]
fn is_pipe(_: &File) -> bool {
    false
}

impl<R: Read> Read for Pipe<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(to)?;
        if read == 0 && !to.is_empty() && std::mem::take(&mut self.waits) {
            thread::sleep(MOMENT);
        }
        Ok(read)
    }
}
