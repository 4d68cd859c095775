//! .csv, as RFC 4180 has it: a field in double quotes may hold commas, doubled quotes and line ends.
//!
//! csv-core parses; the crate csv on top of it says nothing of a quote that is never closed, and counts lines wrongly where
//! they end in CRLF or are empty.

use super::columns::{Columns, Table};
use super::lines::Lines;
use super::{LineRecords, RECORD_BYTES, Records, bad};
use crate::failure::Failure;
use csv_core::{ReadRecordResult, Reader};
use serde_json::Value;

/// The records of a .csv input.
pub struct Csv<const N: usize> {
    parser: Parser,
    table: Table<N>,
    kept: Vec<Value>,
}

/// From lines to fields.
struct Parser {
    lines: Lines,
    reader: Reader,
    /// Bytes of the current line that are parsed.
    parsed: usize,
    /// The current line has no end in the input.
    is_open: bool,
    /// The line where the current record begins.
    line: u64,
    /// The fields of the current record, one behind the other.
    bytes: Vec<u8>,
    /// Where each of them ends; only `fields` of them are there.
    ends: Vec<usize>,
    fields: usize,
}

impl Parser {
    /// Reads a record. Answers with the bytes read; `None` at the end of the input.
    fn read(&mut self) -> Result<Option<u64>, Failure> {
        let (mut read, mut filled, mut begun) = (0, 0, false);
        self.fields = 0;
        loop {
            if self.parsed == self.lines.buffer.len() {
                self.parsed = 0;
                match self.lines.read()? {
                    Some(bytes) => read += bytes,
                    None if begun => return Err(self.bad("a quote is opened in this record and never closed")),
                    None => return Ok(None),
                }
                if filled > RECORD_BYTES {
                    let what =
                        format!("a quote is opened in this record and not closed within {} MiB", RECORD_BYTES >> 20);
                    return Err(self.bad(&what));
                }
                // The last line's end may be missing.
                self.is_open = self.lines.buffer.last() != Some(&b'\n');
                if self.is_open {
                    self.lines.buffer.push(b'\n');
                }
            }
            let input = &self.lines.buffer[self.parsed..];
            if !begun && input.iter().any(|byte| !b"\r\n".contains(byte)) {
                begun = true;
                self.line = self.lines.line;
            }
            // Room for all of the input, and one more: the parser stops where it is full.
            self.bytes.resize(self.bytes.len().max(filled + input.len() + 1), 0);
            self.ends.resize(self.ends.len().max(self.fields + 16), 0);
            let (bytes, ends) = (&mut self.bytes[filled..], &mut self.ends[self.fields..]);
            let (result, parsed, written, ended) = self.reader.read_record(input, bytes, ends);
            self.parsed += parsed;
            filled += written;
            self.fields += ended;
            if result == ReadRecordResult::Record {
                return Ok(Some(read));
            }
        }
    }

    /// The fields of the record.
    fn fields(&self) -> Result<Vec<&str>, Failure> {
        let mut start = 0;
        let mut fields = Vec::with_capacity(self.fields);
        for (i, &end) in self.ends[..self.fields].iter().enumerate() {
            let field = &self.bytes[start..end];
            fields.push(std::str::from_utf8(field).map_err(|error| {
                let byte = field[error.valid_up_to()];
                self.bad(&format!("not valid UTF-8: byte {byte:#04x} in column {}", i + 1))
            })?);
            start = end;
        }
        Ok(fields)
    }

    fn bad(&self, what: &str) -> Failure {
        bad(&self.lines.name, self.line, what)
    }
}

impl<const N: usize> Csv<N> {
    /// Reads these columns.
    pub fn new(lines: Lines, columns: Columns<N>, keep: &[String]) -> Csv<N> {
        let (bytes, ends) = (Vec::new(), Vec::new());
        let parser =
            Parser { lines, reader: Reader::new(), parsed: 0, is_open: false, line: 1, bytes, ends, fields: 0 };
        let table = Table::new(columns, "a text with commas or quotes must be in double quotes").keep(keep);
        Csv { parser, table, kept: Vec::new() }
    }
}

impl<const N: usize> Records<N> for Csv<N> {
    fn next(&mut self) -> Result<Option<([String; N], u64)>, Failure> {
        let mut bytes = 0;
        while let Some(read) = self.parser.read()? {
            bytes += read;
            let fields = self.parser.fields()?;
            let texts = self.table.texts(&fields).map_err(|what| self.parser.bad(&what))?;
            if let Some(texts) = texts {
                self.kept = self.table.kept(&fields).into_iter().map(Value::String).collect();
                return Ok(Some((texts, bytes)));
            }
        }
        self.table.end().map_err(|what| self.parser.bad(what))?;
        Ok(None)
    }
}

impl<const N: usize> LineRecords<N> for Csv<N> {
    fn skip(&mut self) -> Result<bool, Failure> {
        Ok(self.parser.read()?.is_some())
    }

    fn first(&mut self) -> Result<bool, Failure> {
        match self.parser.read()? {
            Some(_) => {
                let fields = self.parser.fields()?;
                self.table.texts(&fields).map_err(|what| self.parser.bad(&what))?;
            }
            None => self.table.end().map_err(|what| self.parser.bad(what))?,
        }
        Ok(self.table.has_header())
    }

    fn kept(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.kept)
    }

    fn unparsed(&self) -> u64 {
        let rest = &self.parser.lines.buffer[self.parser.parsed..];
        match rest.iter().all(|byte| b"\r\n".contains(byte)) {
            true => 0,
            false => rest.len() as u64 - u64::from(self.parser.is_open),
        }
    }

    fn lines(&mut self) -> &mut Lines {
        // Whoever asks is about to read elsewhere.
        self.parser.reader = Reader::new();
        self.parser.parsed = 0;
        &mut self.parser.lines
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fails, read, records};
    use super::super::{Columns, Format};

    fn named() -> Format<2> {
        Format::Csv(Columns::Named(["q".into(), "p".into()]))
    }

    fn numbered() -> Format<1> {
        Format::Csv(Columns::Numbered([0]))
    }

    #[test]
    fn quotes_commas_and_line_ends() {
        let texts = records(b"\xef\xbb\xbfp,\"q\"\r\n\"a, \"\"b\"\"\r\nc\",d\r\n,\r\n", &named());
        assert_eq!(texts, [["d", "a, \"b\"\r\nc"], ["", ""]]);
        // The last line end may be missing, an empty line is no record, and a quote inside a field is a character.
        for input in [&b"a\n\nb \"c\"\n"[..], b"\na\nb \"c\"", b"a\r\n\r\n\"b \"\"c\"\"\"\r\n\r\n\n"] {
            assert_eq!(records(input, &numbered()), [["a"], ["b \"c\""]]);
        }
        assert_eq!(records(b"\"\"\n\"a\n\"", &numbered()), [[""], ["a\n"]]);
        // As many fields as there may be.
        let wide = format!("{}\n{}\n", ["a"; 1000].join(","), vec!["\"b\""; 1000].join(","));
        assert_eq!(records(wide.as_bytes(), &Format::Csv(Columns::Numbered([999, 0]))), [["a", "a"], ["b", "b"]]);
        assert!(read(b"q,p\n", &named(), 9).unwrap().is_empty());
        assert!(read(b"", &numbered(), 9).unwrap().is_empty());
    }

    #[test]
    fn errors_name_the_line_and_what_to_do() {
        let (named, numbered) = (named(), numbered());
        fails(&[
            (
                b"q,p\n\"a\nb\",c\n\nd\n",
                &named,
                "file, line 5: 1 column, where the first line has 2 (a text with commas",
            ),
            (b"q,p\na,\"b\nc,d\n", &named, "file, line 2: a quote is opened in this record and never closed"),
            (b"q,p\na,\"b\"\"", &named, "file, line 2: a quote is opened"),
            (b"q,p\na,b\xff\n", &named, "file, line 2: not valid UTF-8: byte 0xff in column 2"),
            (b"q;p\na;b\n", &named, "file, line 1: there is no column 'q'; the columns are 'q;p'"),
            (b"", &named, "file, line 1: the file is empty"),
            (b"\n\n", &named, "the file is empty"),
        ]);
        fails(&[(b"\"", &numbered, "line 1: a quote is opened")]);
    }
}
