//! Formats in which a line is a record.

use super::columns::{Columns, Table};
use super::{LineRecords, RECORD_BYTES, Records, bad, choose};
use crate::failure::Failure;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, Read};

/// Records among which a key must be that is to be kept.
const FIRST: usize = 1000;

/// The lines of an input.
pub struct Lines {
    reader: Box<dyn BufRead + Send>,
    /// The input's name in messages.
    pub name: String,
    /// The number of the current line, from 1.
    pub line: u64,
    /// The current line, with its end.
    pub buffer: Vec<u8>,
    /// Invalid UTF-8 is replaced, not refused.
    pub lossy: bool,
}

/// .txt
pub struct Txt(pub Lines);

/// .jsonl
pub struct Jsonl<const N: usize> {
    lines: Lines,
    keys: [String; N],
    /// Keys whose values are kept beside the texts.
    keep: Vec<String>,
    /// Those of the last record.
    kept: Vec<Value>,
}

/// .tsv
pub struct Tsv<const N: usize> {
    lines: Lines,
    table: Table<N>,
    kept: Vec<Value>,
}

impl Lines {
    /// The lines of `reader`, which is called `name` in messages.
    pub fn new(reader: Box<dyn BufRead + Send>, name: String) -> Lines {
        Lines { reader, name, line: 0, buffer: Vec::new(), lossy: false }
    }

    /// Goes on with another reader, whose first line has the number `line + 1`.
    pub fn restart(&mut self, reader: Box<dyn BufRead + Send>, line: u64) {
        self.reader = reader;
        self.line = line;
        self.buffer.clear();
    }

    /// Reads a line into the buffer. Answers with the bytes read; `None` at the end of the input.
    pub fn read(&mut self) -> Result<Option<u64>, Failure> {
        self.buffer.clear();
        self.line += 1;
        let mut limited = (&mut self.reader).take(RECORD_BYTES as u64);
        let read = limited.read_until(b'\n', &mut self.buffer).map_err(|error| Failure::reading(&self.name, &error))?;
        if read == RECORD_BYTES {
            return Err(self.bad(&format!("the line is longer than {} MiB", RECORD_BYTES >> 20)));
        }
        // A byte order mark is no part of the first text.
        if self.line == 1 && self.buffer.starts_with(b"\xef\xbb\xbf") {
            self.buffer.drain(..3);
        }
        if self.lossy && std::str::from_utf8(&self.buffer).is_err() {
            self.buffer = String::from_utf8_lossy(&self.buffer).into_owned().into_bytes();
        }
        Ok((read > 0).then_some(read as u64))
    }

    /// The current line, without its end.
    fn text(&self) -> Result<&str, Failure> {
        let line =
            self.buffer.strip_suffix(b"\n").map_or(&self.buffer[..], |line| line.strip_suffix(b"\r").unwrap_or(line));
        std::str::from_utf8(line).map_err(|error| {
            let byte = self.buffer.get(error.valid_up_to()).copied().unwrap_or_default();
            self.bad(&format!("not valid UTF-8: byte {byte:#04x} at column {}", error.valid_up_to() + 1))
        })
    }

    fn bad(&self, what: &str) -> Failure {
        bad(&self.name, self.line, what)
    }
}

impl<const N: usize> Records<N> for Txt {
    fn next(&mut self) -> Result<Option<([String; N], u64)>, Failure> {
        let Some(read) = self.0.read()? else { return Ok(None) };
        let text = self.0.text()?;
        Ok(Some((std::array::from_fn(|_| text.to_string()), read)))
    }
}

impl<const N: usize> LineRecords<N> for Txt {
    fn skip(&mut self) -> Result<bool, Failure> {
        Ok(self.0.read()?.is_some())
    }

    fn lines(&mut self) -> &mut Lines {
        &mut self.0
    }
}

impl<const N: usize> Jsonl<N> {
    /// Reads the values of these keys.
    pub fn new(lines: Lines, keys: [String; N], keep: &[String]) -> Jsonl<N> {
        Jsonl { lines, keys, keep: keep.to_vec(), kept: Vec::new() }
    }

    /// Reads a line that is not empty.
    fn read(&mut self) -> Result<Option<u64>, Failure> {
        let mut bytes = 0;
        while let Some(read) = self.lines.read()? {
            bytes += read;
            if !self.lines.buffer.iter().all(u8::is_ascii_whitespace) {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// The texts of the line in the buffer.
    fn texts(&self) -> Result<([String; N], Vec<Value>), Failure> {
        let line = self.lines.text()?;
        let bad = |what: &str| self.lines.bad(what);
        let bare = if N == 1 { "string" } else { "array of two strings" };
        let value = serde_json::from_str(line).map_err(|error| bad(&format!("not valid JSON: {error}")))?;
        let mut texts = std::array::from_fn(|_| String::new());
        let mut kept = vec![Value::Null; self.keep.len()];
        match value {
            Value::String(text) if N == 1 => texts[0] = text,
            Value::Array(values) if N > 1 => {
                if values.len() != N {
                    return Err(bad(&format!("an array of {}: a pair has two texts", values.len())));
                }
                for (i, value) in values.iter().enumerate() {
                    texts[i] = string(value).map_err(|kind| bad(&format!("text {} is {kind}, not a string", i + 1)))?;
                }
            }
            Value::Object(object) => {
                for (text, key) in texts.iter_mut().zip(&self.keys) {
                    let Some(value) = object.get(key) else {
                        let keys: Vec<_> = object.keys().map(|key| format!("'{key}'")).collect();
                        let keys = if keys.is_empty() { "none".to_string() } else { keys.join(", ") };
                        let what = format!("there is no key '{key}'; the keys are {keys}: {}", choose::<N>());
                        return Err(bad(&what));
                    };
                    *text = string(value).map_err(|kind| bad(&format!("'{key}' is {kind}, not a string")))?;
                }
                for (kept, key) in kept.iter_mut().zip(&self.keep) {
                    *kept = object.get(key).cloned().unwrap_or_default();
                }
            }
            other => return Err(bad(&format!("expected a JSON object or {bare}, found {}", kind(&other)))),
        }
        Ok((texts, kept))
    }
}

impl<const N: usize> Records<N> for Jsonl<N> {
    fn next(&mut self) -> Result<Option<([String; N], u64)>, Failure> {
        let Some(read) = self.read()? else { return Ok(None) };
        let (texts, kept) = self.texts()?;
        self.kept = kept;
        Ok(Some((texts, read)))
    }
}

impl<const N: usize> LineRecords<N> for Jsonl<N> {
    fn skip(&mut self) -> Result<bool, Failure> {
        Ok(self.read()?.is_some())
    }

    /// A key that is to be kept and that none of the first records has is a mistake.
    fn first(&mut self) -> Result<bool, Failure> {
        let mut missing: Vec<&String> = self.keep.iter().collect();
        let mut keys = BTreeSet::new();
        for _ in 0..FIRST {
            if missing.is_empty() || self.lines.read()?.is_none() {
                break;
            }
            if let Ok(Value::Object(object)) = serde_json::from_slice(&self.lines.buffer) {
                missing.retain(|key| !object.contains_key(*key));
                keys.extend(object.into_iter().map(|(key, _)| format!("'{key}'")));
            }
        }
        match missing.first().filter(|_| !keys.is_empty()) {
            None => Ok(false),
            Some(key) => {
                let keys = keys.into_iter().collect::<Vec<_>>().join(", ");
                let what = format!("no record has the key '{key}', which is to be kept; the keys are {keys}");
                Err(self.lines.bad(&what))
            }
        }
    }

    fn kept(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.kept)
    }

    fn lines(&mut self) -> &mut Lines {
        &mut self.lines
    }
}

impl<const N: usize> Tsv<N> {
    /// Reads these columns.
    pub fn new(lines: Lines, columns: Columns<N>, keep: &[String]) -> Tsv<N> {
        Tsv { lines, table: Table::new(columns, "a tab separates columns").keep(keep), kept: Vec::new() }
    }
}

impl<const N: usize> Records<N> for Tsv<N> {
    fn next(&mut self) -> Result<Option<([String; N], u64)>, Failure> {
        let mut bytes = 0;
        while let Some(read) = self.lines.read()? {
            bytes += read;
            let fields: Vec<&str> = self.lines.text()?.split('\t').collect();
            let texts = self.table.texts(&fields);
            if let Some(texts) = texts.map_err(|what| self.lines.bad(&what))? {
                self.kept = self.table.kept(&fields).into_iter().map(Value::String).collect();
                return Ok(Some((texts, bytes)));
            }
        }
        self.table.end().map_err(|what| self.lines.bad(what))?;
        Ok(None)
    }
}

impl<const N: usize> LineRecords<N> for Tsv<N> {
    fn skip(&mut self) -> Result<bool, Failure> {
        Ok(self.lines.read()?.is_some())
    }

    fn first(&mut self) -> Result<bool, Failure> {
        match self.lines.read()? {
            Some(_) => {
                let fields: Vec<&str> = self.lines.text()?.split('\t').collect();
                self.table.texts(&fields).map_err(|what| self.lines.bad(&what))?;
            }
            None => self.table.end().map_err(|what| self.lines.bad(what))?,
        }
        Ok(self.table.has_header())
    }

    fn kept(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.kept)
    }

    fn lines(&mut self) -> &mut Lines {
        &mut self.lines
    }
}

/// The text of a string; of another value, what it is.
fn string(value: &Value) -> Result<String, &'static str> {
    value.as_str().map(str::to_string).ok_or_else(|| kind(value))
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
    use super::super::tests::{fails, read, records};
    use super::super::{Columns, Format};

    fn jsonl() -> Format<1> {
        Format::Jsonl(["text".into()])
    }

    fn pairs() -> Format<2> {
        Format::Jsonl(["a".into(), "b".into()])
    }

    #[test]
    fn lines_with_every_kind_of_end() {
        assert_eq!(records(b"a\r\nb\n\nc\r", &Format::Txt), [["a"], ["b"], [""], ["c\r"]]);
        assert_eq!(records(b"\xef\xbb\xbfa\n", &Format::Txt), [["a"]]);
        assert_eq!(records(b"\n", &Format::Txt), [[""]]);
        assert!(read::<1>(b"", &Format::Txt, 9).unwrap().is_empty());
    }

    #[test]
    fn objects_and_bare_texts() {
        // A line without anything is no record.
        let texts = records(b"\n{\"id\": 1, \"text\": \"a\\nb\"}\r\n \r\n\"c\"\n\n", &jsonl());
        assert_eq!(texts, [["a\nb"], ["c"]]);
        let texts = records(b"{\"b\": \"2\", \"id\": 1, \"a\": \"1\"}\n[\"3\", \"\"]", &pairs());
        assert_eq!(texts, [["1", "2"], ["3", ""]]);
    }

    #[test]
    fn a_line_of_tsv_is_a_record_whatever_its_quotes() {
        let named = Format::Tsv(Columns::Named(["q".into(), "p".into()]));
        let texts = records(b"\xef\xbb\xbfp\tid\tq\r\n\"a\t\t \"\"b\"\r\n\t\t", &named);
        assert_eq!(texts, [[" \"\"b\"", "\"a"], ["", ""]]);
        assert_eq!(records(b"a\n\nb\n", &Format::Tsv(Columns::Numbered([0]))), [["a"], [""], ["b"]]);
        assert!(read::<2>(b"q\tp\n", &named, 9).unwrap().is_empty());
        assert!(read::<1>(b"", &Format::Tsv(Columns::Numbered([0])), 9).unwrap().is_empty());
    }

    #[test]
    fn errors_name_the_line_and_what_to_do() {
        let jsonl = jsonl();
        fails(&[
            (b"good\nb\xffd\n", &Format::Txt, "file, line 2: not valid UTF-8: byte 0xff at column 2"),
            (b"{\"text\": \n", &jsonl, "file, line 1: not valid JSON"),
            (b"{\"body\": \"x\"}", &jsonl, "no key 'text'; the keys are 'body': choose one by --column NAME"),
            (b"{\"text\": 7}", &jsonl, "'text' is a number"),
            (b"[1]", &jsonl, "expected a JSON object or string, found an array"),
        ]);
        let (pairs, numbered) = (pairs(), Format::Tsv(Columns::Numbered([0, 1])));
        fails(&[
            (b"{\"a\": \"x\"}", &pairs, "no key 'b'; the keys are 'a': choose two by --columns A,B"),
            (b"[\"x\", \"y\"]\n[\"x\"]", &pairs, "line 2: an array of 1: a pair has two texts"),
            (b"[\"x\", null]", &pairs, "text 2 is null, not a string"),
            (b"\"x\"", &pairs, "expected a JSON object or array of two strings, found a string"),
            (b"a\tb\na b\n", &numbered, "file, line 2: 1 column, where the first line has 2 (a tab separates columns)"),
            (b"a\tb\n\n", &numbered, "file, line 2: an empty line"),
            (b"", &Format::Tsv(Columns::Named(["a".into(), "b".into()])), "file, line 1: the file is empty"),
        ]);
    }
}
