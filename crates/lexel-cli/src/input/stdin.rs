//! Standard input, whose end is believed a moment late: Ctrl-C ends whoever writes into the pipe as well, and what had come until
//! then must not pass for all of it.

use std::io::{self, Read};
use std::thread;
use std::time::Duration;

/// In which the signal that ended the writer reaches this process, too.
const MOMENT: Duration = Duration::from_millis(50);

/// Reads standard input.
pub struct Stdin {
    stdin: io::Stdin,
    ended: bool,
}

impl Stdin {
    /// Standard input.
    pub fn new() -> Stdin {
        Stdin { stdin: io::stdin(), ended: false }
    }
}

impl Read for Stdin {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.stdin.read(to)?;
        if read == 0 && !to.is_empty() && !self.ended {
            self.ended = true;
            thread::sleep(MOMENT);
        }
        Ok(read)
    }
}
