//! Texts from files, window by window: a thread reads the next window while the current one is encoded, so that memory
//! stays flat however long the file is.

use crate::failure::{DATA, Failure, NO_INPUT};
use crate::interrupt;
use serde_json::Value;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// Texts in a window: enough that batches of equal lengths are dense.
pub const WINDOW_TEXTS: usize = 16_384;

/// Bytes of texts after which a window ends early: texts may be as long as books.
const WINDOW_BYTES: usize = 64 << 20;

/// A longer line is no text but a file of another kind.
const LINE_BYTES: usize = 256 << 20;

/// Which texts to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// `None`: standard input.
    pub path: Option<PathBuf>,
    /// How a line becomes a text.
    pub format: Format,
}

/// How a line becomes a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// The line is the text.
    Txt,
    /// The line is a JSON object whose `column` is the text, or a JSON string.
    Jsonl {
        /// The key.
        column: String,
    },
}

/// Some texts that follow each other in the input.
#[derive(Debug, Default)]
pub struct Window {
    /// The texts.
    pub texts: Vec<String>,
    /// Bytes of the input that they took.
    pub bytes: u64,
}

/// Reads an input on a thread of its own, at most one window ahead.
pub struct Windows {
    receiver: Receiver<Result<Window, Failure>>,
    /// The size of the input in bytes, where it is a file.
    pub bytes: Option<u64>,
}

impl Input {
    /// The input's name in messages.
    pub fn name(&self) -> String {
        self.path.as_ref().map_or_else(|| "standard input".to_string(), |path| path.display().to_string())
    }

    /// Opens it and begins to read.
    pub fn windows(&self, texts: usize) -> Result<Windows, Failure> {
        let (reader, bytes) = self.open()?;
        let mut lines = Lines { reader, name: self.name(), format: self.format.clone(), line: 0, buffer: Vec::new() };
        let (sender, receiver) = mpsc::sync_channel(1);
        // Not joined: it may wait for a terminal or pipe when the program wants to end.
        thread::spawn(move || {
            loop {
                let window = lines.window(texts);
                let last = window.as_ref().map_or(true, |window| window.texts.is_empty());
                if sender.send(window).is_err() || last {
                    return;
                }
            }
        });
        Ok(Windows { receiver, bytes })
    }

    /// All texts at once, or the first `limit` of them.
    pub fn texts(&self, limit: Option<usize>) -> Result<Vec<String>, Failure> {
        let mut texts = Vec::new();
        let windows = self.windows(WINDOW_TEXTS.min(limit.unwrap_or(usize::MAX)))?;
        while texts.len() < limit.unwrap_or(usize::MAX)
            && let Some(mut window) = windows.next()?
        {
            texts.append(&mut window.texts);
        }
        texts.truncate(limit.unwrap_or(usize::MAX));
        Ok(texts)
    }

    fn open(&self) -> Result<(Box<dyn BufRead + Send>, Option<u64>), Failure> {
        let Some(path) = &self.path else {
            return Ok((Box::new(BufReader::with_capacity(1 << 18, io::stdin())), None));
        };
        let file = File::open(path).map_err(|error| Failure::reading(&self.name(), &error))?;
        let metadata = file.metadata().map_err(|error| Failure::reading(&self.name(), &error))?;
        if metadata.is_dir() {
            return Err(Failure::new(NO_INPUT, format!("{} is a folder: give a file", path.display())));
        }
        Ok((Box::new(BufReader::with_capacity(1 << 18, file)), metadata.is_file().then_some(metadata.len())))
    }
}

impl Windows {
    /// The next texts; `None` at the end. Waits for the input, but not longer than until Ctrl-C.
    pub fn next(&self) -> Result<Option<Window>, Failure> {
        loop {
            if interrupt::requested() {
                return Err(Failure::interrupted());
            }
            match self.receiver.recv_timeout(Duration::from_millis(100)) {
                Ok(window) => return window.map(|window| (!window.texts.is_empty()).then_some(window)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
            }
        }
    }
}

/// The reading thread's side.
struct Lines {
    reader: Box<dyn BufRead + Send>,
    name: String,
    format: Format,
    line: u64,
    buffer: Vec<u8>,
}

impl Lines {
    /// Up to so many texts; none at the end.
    fn window(&mut self, texts: usize) -> Result<Window, Failure> {
        let mut window = Window::default();
        let mut bytes = 0;
        while window.texts.len() < texts && bytes < WINDOW_BYTES {
            let read = self.read_line()?;
            if read == 0 {
                break;
            }
            window.bytes += read as u64;
            let text = self.text()?;
            bytes += text.len();
            window.texts.push(text);
        }
        Ok(window)
    }

    /// Reads a line into the buffer, without its end. Answers with the bytes read: 0 at the end of the input.
    fn read_line(&mut self) -> Result<usize, Failure> {
        self.buffer.clear();
        self.line += 1;
        let mut limited = (&mut self.reader).take(LINE_BYTES as u64);
        let read = limited.read_until(b'\n', &mut self.buffer).map_err(|error| Failure::reading(&self.name, &error))?;
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
            if self.buffer.last() == Some(&b'\r') {
                self.buffer.pop();
            }
        } else if read == LINE_BYTES {
            return Err(self.bad(&format!("the line is longer than {} MiB", LINE_BYTES >> 20)));
        }
        // A byte order mark is no part of the first text.
        if self.line == 1 && self.buffer.starts_with(b"\xef\xbb\xbf") {
            self.buffer.drain(..3);
        }
        Ok(read)
    }

    /// The text of the line in the buffer.
    fn text(&self) -> Result<String, Failure> {
        let line = std::str::from_utf8(&self.buffer).map_err(|error| {
            let byte = self.buffer.get(error.valid_up_to()).copied().unwrap_or_default();
            self.bad(&format!("not valid UTF-8: byte {byte:#04x} at column {}", error.valid_up_to() + 1))
        })?;
        let Format::Jsonl { column } = &self.format else { return Ok(line.to_string()) };
        if line.trim().is_empty() {
            return Err(self.bad("an empty line: each line of a .jsonl file is a JSON object or string"));
        }
        let value = serde_json::from_str(line).map_err(|error| self.bad(&format!("not valid JSON: {error}")))?;
        match value {
            Value::String(text) => Ok(text),
            Value::Object(mut object) => match object.remove(column) {
                Some(Value::String(text)) => Ok(text),
                Some(other) => Err(self.bad(&format!("'{column}' is {}, not a string", kind(&other)))),
                None => {
                    let keys: Vec<_> = object.keys().map(|key| format!("'{key}'")).collect();
                    let keys = if keys.is_empty() { "none".to_string() } else { keys.join(", ") };
                    Err(self.bad(&format!("there is no key '{column}'; the keys are {keys}: choose one by --column")))
                }
            },
            other => Err(self.bad(&format!("expected a JSON object or string, found {}", kind(&other)))),
        }
    }

    fn bad(&self, what: &str) -> Failure {
        Failure::new(DATA, format!("{}, line {}: {what}", self.name, self.line))
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn read(bytes: &[u8], format: Format, texts: usize) -> Result<Vec<Vec<String>>, Failure> {
        let reader = Box::new(Cursor::new(bytes.to_vec()));
        let mut lines = Lines { reader, name: "file".into(), format, line: 0, buffer: Vec::new() };
        let mut windows = Vec::new();
        loop {
            let window = lines.window(texts)?;
            if window.texts.is_empty() {
                return Ok(windows);
            }
            windows.push(window.texts);
        }
    }

    fn jsonl() -> Format {
        Format::Jsonl { column: "text".into() }
    }

    #[test]
    fn lines_with_every_kind_of_end() {
        assert_eq!(read(b"a\r\nb\n\nc\r", Format::Txt, 9).unwrap(), [["a", "b", "", "c\r"]]);
        assert_eq!(read(b"\xef\xbb\xbfa\n", Format::Txt, 9).unwrap(), [["a"]]);
        assert_eq!(read(b"\n", Format::Txt, 9).unwrap(), [[""]]);
        assert!(read(b"", Format::Txt, 9).unwrap().is_empty());
    }

    #[test]
    fn windows_split_between_lines() {
        let windows = read(b"1\n2\n3\n4\n5", Format::Txt, 2).unwrap();
        assert_eq!(windows, [vec!["1", "2"], vec!["3", "4"], vec!["5"]]);
    }

    #[test]
    fn objects_and_strings() {
        let texts = read(b"{\"id\": 1, \"text\": \"a\\nb\"}\r\n\"c\"\n", jsonl(), 9).unwrap();
        assert_eq!(texts, [["a\nb", "c"]]);
    }

    #[test]
    fn errors_name_the_line_and_what_to_do() {
        for (bytes, format, expected) in [
            (&b"good\nb\xffd\n"[..], Format::Txt, "file, line 2: not valid UTF-8: byte 0xff at column 2"),
            (b"{\"text\": \n", jsonl(), "file, line 1: not valid JSON"),
            (b"\"a\"\n\n", jsonl(), "line 2: an empty line"),
            (b"{\"body\": \"x\"}", jsonl(), "no key 'text'; the keys are 'body'"),
            (b"{\"text\": 7}", jsonl(), "'text' is a number"),
            (b"[1]", jsonl(), "found an array"),
        ] {
            let failure = read(bytes, format, 9).unwrap_err();
            assert_eq!(failure.status, DATA);
            assert!(failure.message.contains(expected), "{}", failure.message);
        }
    }
}
