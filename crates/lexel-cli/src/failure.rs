//! How a run ends when it does not succeed: an exit status (those of BSD's `sysexits.h`, so that scripts can tell the
//! cases apart) and one message that says what to do.

use lexel::{Error, RunError};
use std::io;
use std::path::Path;

/// The command line, or an option's value, makes no sense (clap uses the same number).
pub const USAGE: u8 = 2;
/// `EX_DATAERR`: an input, a model's file or its configuration is not what it should be.
pub const DATA: u8 = 65;
/// `EX_NOINPUT`: a file or model that is not there, or may not be read.
pub const NO_INPUT: u8 = 66;
/// `EX_UNAVAILABLE`: no such device, or it failed.
pub const DEVICE: u8 = 69;
/// `EX_SOFTWARE`: a kind of error that this program does not know.
pub const INTERNAL: u8 = 70;
/// `EX_IOERR`: reading or writing failed, e.g. the disk is full.
pub const IO: u8 = 74;
/// `EX_TEMPFAIL`: a job that is not complete; the same command continues it.
pub const INCOMPLETE: u8 = 75;
/// 128 + SIGINT, as shells report it.
pub const INTERRUPTED: u8 = 130;

/// Why the program ends early.
#[derive(Debug)]
pub struct Failure {
    /// The exit status.
    pub status: u8,
    /// For people; empty where there is nothing to say.
    pub message: String,
}

impl Failure {
    /// A failure with a message.
    pub fn new(status: u8, message: impl Into<String>) -> Failure {
        Failure { status, message: message.into() }
    }

    /// The command line asks for something that makes no sense.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(USAGE, message)
    }

    /// `file` cannot be opened or read.
    pub fn reading(file: &str, error: &io::Error) -> Failure {
        Failure::new(reading_status(error), format!("cannot read {file}: {error}"))
    }

    /// `file` cannot be created or written.
    pub fn writing(file: &Path, error: &io::Error) -> Failure {
        Failure::new(IO, format!("cannot write {}: {error}", file.display()))
    }

    /// Standard output cannot be written. A reader that has gone away (`lexel ... | head`) has what it wanted.
    pub fn writing_stdout(error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::new(0, ""),
            _ => Failure::new(IO, format!("cannot write to standard output: {error}")),
        }
    }

    /// The user pressed Ctrl-C.
    pub fn interrupted() -> Failure {
        Failure::new(INTERRUPTED, "interrupted")
    }
}

/// The status for a file that cannot be read.
fn reading_status(error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => NO_INPUT,
        _ => IO,
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let status = match &error {
            Error::NotFound { .. } | Error::Hub { .. } => NO_INPUT,
            Error::Unsupported { .. } | Error::InvalidFile { .. } | Error::Weight { .. } => DATA,
            Error::Io { source, .. } => reading_status(source),
            Error::InvalidInput(_) => USAGE,
            // The tokenizer gives ids that the model has no row for.
            Error::Run(RunError::InvalidBatch(_)) => DATA,
            Error::Device(_) | Error::Run(_) => DEVICE,
            Error::Incomplete(_) => INCOMPLETE,
            Error::Cancelled { .. } => return Failure::interrupted(),
            _ => INTERNAL,
        };
        Failure::new(status, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not in the tests of the program, which may run as root.
    #[test]
    fn a_model_that_may_not_be_read_is_no_input() {
        let status = |kind: io::ErrorKind| Failure::from(Error::io("model/config.json")(kind.into())).status;
        assert_eq!(status(io::ErrorKind::PermissionDenied), NO_INPUT);
        assert_eq!(status(io::ErrorKind::NotFound), NO_INPUT);
        assert_eq!(status(io::ErrorKind::StorageFull), IO);
    }
}
