//! Cuts a CSV of any length into uploads that the server takes, each with the file's header, and knows which line of the
//! file each line of an upload is.
//!
//! Reads the same dialects as the server: with or without a byte order mark, any line ending, comma, semicolon or tab. What
//! it writes is one plain dialect, so that line numbers can be reckoned: commas, `\n`, no blank rows.

use std::io::{self, BufRead, Cursor, Read};

use csv::{ByteRecord, QuoteStyle, ReaderBuilder, Terminator, WriterBuilder};

use crate::http::import::csv::delimiter;

/// Longest first line, in bytes: a file without line breaks is not read into memory whole.
const HEADER_MAX: u64 = 1 << 20;

/// How large an upload may become.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Rows without the header.
    pub(super) rows: usize,
    /// Bytes after which no further row is added.
    pub(super) bytes: usize,
}

impl Limits {
    /// Below what the server takes: 10,000 rows and 25 MiB.
    pub(super) const SERVER: Self = Self { rows: 10_000, bytes: 8 << 20 };
}

/// Why a file cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    /// Nothing in it.
    #[error("the file is empty; its first line must name the columns")]
    Empty,
    /// A first line without end.
    #[error("the first line is longer than 1 MiB: this is no CSV")]
    LongHeader,
    /// A byte that UTF-8 does not have.
    #[error("line {0} is not UTF-8; save the file as 'CSV UTF-8' and import it again")]
    NotUtf8(u64),
    /// The disk, the pipe.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The CSV reader gave up.
    #[error("cannot be read as CSV: {0}")]
    Csv(#[from] csv::Error),
}

/// One upload.
#[derive(Debug)]
pub(super) struct Chunk {
    /// CSV with the header.
    pub(super) body: Vec<u8>,
    /// The line in `body` and the line in the file on which each row starts; the first is the header's.
    lines: Vec<(u64, u64)>,
}

impl Chunk {
    /// Rows without the header.
    pub(super) fn rows(&self) -> u64 {
        self.lines.len() as u64 - 1
    }

    /// The line of the file that is `line` of this upload.
    pub(super) fn file_line(&self, line: u64) -> u64 {
        let row = self.lines.partition_point(|(own, _)| *own <= line).saturating_sub(1);
        self.lines.get(row).map_or(line, |(own, file)| file + line.saturating_sub(*own))
    }

    /// The lines of the file on which its first and last rows start.
    pub(super) fn span(&self) -> (u64, u64) {
        let at = |i: usize| self.lines.get(i).map_or(1, |(_, file)| *file);
        (at(1), at(self.lines.len() - 1))
    }
}

/// Reads a file and hands out its uploads.
pub(super) struct Chunks {
    reader: csv::Reader<Box<dyn Read + Send>>,
    limits: Limits,
    /// As it is written at the top of each upload.
    header: Vec<u8>,
    /// Whether one was handed out: a file of a header alone makes one upload, for the server to judge.
    started: bool,
    record: ByteRecord,
}

impl Chunks {
    /// Reads the header.
    pub(super) fn new(mut input: impl BufRead + Send + 'static, limits: Limits) -> Result<Self, Unreadable> {
        let mut first = Vec::new();
        (&mut input).take(HEADER_MAX).read_until(b'\n', &mut first)?;
        let text = first.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&first);
        if text.trim_ascii().is_empty() {
            return Err(Unreadable::Empty);
        }
        // A line break after the last row makes every row end in one. An additional blank line is no row.
        let rest: Box<dyn Read + Send> =
            Box::new(Cursor::new(text.to_vec()).chain(input).chain(Cursor::new(&b"\n"[..])));
        // Told to end rows at `\n` alone, the reader has consumed a row's whole line break when it hands the row out, and
        // line numbers are right also after `\r\n`. The old `\r` alone is the one case for the other way.
        let old = old_line_ends(text);
        let terminator = if old { Terminator::CRLF } else { Terminator::Any(b'\n') };
        if first.len() as u64 == HEADER_MAX && !old {
            return Err(Unreadable::LongHeader);
        }
        let mut reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter(text))
            .terminator(terminator)
            .from_reader(rest);
        let mut record = ByteRecord::new();
        if !reader.read_byte_record(&mut record)? {
            return Err(Unreadable::Empty);
        }
        let record = without_line_end(record);
        if std::str::from_utf8(record.as_slice()).is_err() {
            return Err(Unreadable::NotUtf8(1));
        }
        // All in quotes: then nothing in a column's name looks like another delimiter.
        let mut writer = writer(Vec::new(), QuoteStyle::Always);
        writer.write_byte_record(&record)?;
        let header = writer.into_inner().map_err(|e| e.into_error())?;
        Ok(Self { reader, limits, header, started: false, record })
    }

    /// The next row that is not blank and the line it starts on.
    fn next_row(&mut self) -> Result<Option<u64>, Unreadable> {
        loop {
            let before = self.reader.position().line();
            if !self.reader.read_byte_record(&mut self.record)? {
                return Ok(None);
            }
            self.record = without_line_end(std::mem::take(&mut self.record));
            // Blank lines in front of a row are counted to it; the line breaks within it are known.
            let within = line_breaks(self.record.as_slice());
            let line = self.reader.position().line().saturating_sub(1 + within).max(before);
            if let Some(bad) = self.record.iter().position(|v| std::str::from_utf8(v).is_err()) {
                let above: u64 = self.record.iter().take(bad).map(line_breaks).sum();
                return Err(Unreadable::NotUtf8(line + above));
            }
            // A line of separators only: spreadsheets leave them at the end.
            if self.record.iter().any(|value| !value.trim_ascii().is_empty()) {
                return Ok(Some(line));
            }
        }
    }

    /// The next upload; `None` after the last.
    pub(super) fn next_chunk(&mut self) -> Result<Option<Chunk>, Unreadable> {
        let mut writer = writer(self.header.clone(), QuoteStyle::Necessary);
        let mut size = self.header.len();
        let mut lines = vec![(1, 1)];
        let mut next_line = 1 + line_breaks(&self.header);
        while lines.len() <= self.limits.rows && (lines.len() == 1 || size < self.limits.bytes) {
            let Some(line) = self.next_row()? else { break };
            writer.write_byte_record(&self.record)?;
            lines.push((next_line, line));
            next_line += 1 + line_breaks(self.record.as_slice());
            size += self.record.as_slice().len() + self.record.len();
        }
        let body = writer.into_inner().map_err(|e| e.into_error())?;
        let first = !std::mem::replace(&mut self.started, true);
        Ok((first || lines.len() > 1).then_some(Chunk { body, lines }))
    }

    /// Reads to the end and counts the rows: what cannot be read is found before anything was sent.
    pub(super) fn count(mut self) -> Result<u64, Unreadable> {
        let mut rows = 0;
        while self.next_row()?.is_some() {
            rows += 1;
        }
        Ok(rows)
    }
}

fn line_breaks(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|b| **b == b'\n').count() as u64
}

/// Writes rows behind what `body` holds already.
fn writer(body: Vec<u8>, quotes: QuoteStyle) -> csv::Writer<Vec<u8>> {
    WriterBuilder::new()
        .has_headers(false)
        .flexible(true)
        .quote_style(quotes)
        .terminator(Terminator::Any(b'\n'))
        .from_writer(body)
}

/// Takes away the `\r` that a `\r\n` leaves at the end of the last value.
fn without_line_end(record: ByteRecord) -> ByteRecord {
    match record.iter().next_back() {
        Some([.., b'\r']) => {
            let last = record.len() - 1;
            record
                .iter()
                .enumerate()
                .map(|(i, v)| if i == last { v.strip_suffix(b"\r").unwrap_or(v) } else { v })
                .collect()
        }
        _ => record,
    }
}

/// Whether lines end in `\r` alone: there is one in the first line, outside quotes, that is not before its `\n`.
fn old_line_ends(first: &[u8]) -> bool {
    let line = first.strip_suffix(b"\n").map_or(first, |l| l.strip_suffix(b"\r").unwrap_or(l));
    let mut quoted = false;
    line.iter().any(|b| {
        quoted ^= *b == b'"';
        *b == b'\r' && !quoted
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunks(text: &str, rows: usize) -> Chunks {
        Chunks::new(Cursor::new(text.as_bytes().to_vec()), Limits { rows, bytes: usize::MAX }).unwrap()
    }

    fn all(text: &str, rows: usize) -> Vec<Chunk> {
        let mut chunks = chunks(text, rows);
        std::iter::from_fn(|| chunks.next_chunk().unwrap()).collect()
    }

    fn body(chunk: &Chunk) -> &str {
        std::str::from_utf8(&chunk.body).unwrap()
    }

    /// The lines the server will name for the rows of an upload: it reads them with the same crate.
    fn server_lines(chunk: &Chunk) -> Vec<u64> {
        let mut reader = ReaderBuilder::new().flexible(true).from_reader(&chunk.body[..]);
        reader.byte_records().map(|r| r.unwrap().position().unwrap().line()).collect()
    }

    #[test]
    fn every_upload_repeats_the_header_and_lines_lead_back_to_the_file() {
        let found = all("email,name\na@b.co,A\nb@b.co,B\nc@b.co,C\n", 2);
        assert_eq!(found.len(), 2);
        assert_eq!(body(&found[0]), "\"email\",\"name\"\na@b.co,A\nb@b.co,B\n");
        assert_eq!(body(&found[1]), "\"email\",\"name\"\nc@b.co,C\n");
        assert_eq!((found[1].rows(), found[1].span(), found[1].file_line(2)), (1, (4, 4), 4));
        assert_eq!((found[0].span(), found[0].file_line(3)), ((2, 3), 3));
    }

    #[test]
    fn a_line_break_in_quotes_stays_in_its_row() {
        let found = all("email,note\na@b.co,\"one\ntwo\nthree\"\nb@b.co,x\nc@b.co,\"y\nz\"\n", 2);
        assert_eq!(body(&found[0]), "\"email\",\"note\"\na@b.co,\"one\ntwo\nthree\"\nb@b.co,x\n");
        assert_eq!(server_lines(&found[0]), [2, 5]);
        assert_eq!((found[0].file_line(2), found[0].file_line(3), found[0].file_line(5)), (2, 3, 5));
        assert_eq!((server_lines(&found[1]), found[1].file_line(2), found[1].file_line(3)), (vec![2], 6, 7));
    }

    #[test]
    fn blank_lines_and_windows_line_ends_do_not_shift_the_numbers() {
        let text = "\u{feff}E-Mail;Note\r\n\r\na@b.co;\"x\r\ny\"\r\n;;\r\n\r\nb@b.co;last";
        let found = all(text, 10);
        assert_eq!(body(&found[0]), "\"E-Mail\",\"Note\"\na@b.co,\"x\r\ny\"\nb@b.co,last\n");
        assert_eq!(found[0].span(), (3, 7));
        assert_eq!((found[0].file_line(2), found[0].file_line(4)), (3, 7));
        assert_eq!(all("email\r\n\"a@b.co\"\r\n\"b@b.co\"\r\n", 1)[1].span(), (3, 3));
    }

    #[test]
    fn a_header_in_several_lines_is_counted() {
        let found = all("email,\"long\nname\"\na@b.co,1\nb@b.co,2\n", 1);
        assert_eq!((server_lines(&found[1]), found[1].file_line(3)), (vec![3], 4));
    }

    #[test]
    fn names_of_columns_cannot_pass_for_other_delimiters() {
        let found = all("email\tone;two;three\tx\ta\tb\na@b.co\t1,5\t\t\t\n", 5);
        assert_eq!(body(&found[0]), "\"email\",\"one;two;three\",\"x\",\"a\",\"b\"\na@b.co,\"1,5\",,,\n");
        assert_eq!(body(&all("email;a;b\n", 1)[0]), "\"email\",\"a\",\"b\"\n");
    }

    #[test]
    fn rows_of_old_macs_are_told_apart() {
        assert_eq!(body(&all("email,n\ra@b.co,1\rb@b.co,2", 5)[0]), "\"email\",\"n\"\na@b.co,1\nb@b.co,2\n");
    }

    #[test]
    fn a_large_row_ends_its_upload() {
        let mut chunks = Chunks::new(Cursor::new("email\naaaa\nb\nc\n"), Limits { rows: 10, bytes: 12 }).unwrap();
        let rows: Vec<u64> = std::iter::from_fn(|| chunks.next_chunk().unwrap()).map(|c| c.rows()).collect();
        assert_eq!(rows, [1, 2]);
    }

    #[test]
    fn a_header_alone_is_one_upload_for_the_server_to_judge() {
        let found = all("email,name\n", 10);
        assert_eq!((found.len(), found[0].rows(), found[0].span()), (1, 0, (1, 1)));
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_line() {
        let open = |bytes: &[u8]| Chunks::new(Cursor::new(bytes.to_vec()), Limits::SERVER);
        for empty in ["", "\n\n", "\u{feff}", "  \r\nemail\n"] {
            assert!(matches!(open(empty.as_bytes()), Err(Unreadable::Empty)), "{empty:?}");
        }
        let counted = open(b"email,n\na@b.co,1\nb@b.co,\"x\n\xff\"\n").unwrap().count();
        assert!(matches!(counted, Err(Unreadable::NotUtf8(3))), "{counted:?}");
        assert!(matches!(open(&vec![b'x'; 2 << 20]), Err(Unreadable::LongHeader)));
        assert_eq!(open(b"email\na\n\nb\n").unwrap().count().unwrap(), 2);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_every_row_keeps_its_line(
            rows in prop::collection::vec((prop::collection::vec("[a-c,;\"\n ]{0,4}x", 1..4), 0..3_usize), 0..20),
            size in 1..5_usize,
            crlf: bool,
        ) {
            let end = if crlf { "\r\n" } else { "\n" };
            let mut text = format!("email,b,c{end}");
            let mut expected = Vec::new();
            let mut line = 2;
            for (values, blanks) in &rows {
                text.push_str(&end.repeat(*blanks));
                line += *blanks as u64;
                let quoted: Vec<String> = values.iter().map(|v| format!("\"{}\"", v.replace('"', "\"\""))).collect();
                expected.push((line, values.clone()));
                line += 1 + values.iter().map(|v| line_breaks(v.as_bytes())).sum::<u64>();
                text.push_str(&quoted.join(","));
                text.push_str(end);
            }
            let mut found = Vec::new();
            for chunk in all(&text, size) {
                prop_assert!(chunk.rows() <= size as u64);
                let mut reader = ReaderBuilder::new().flexible(true).from_reader(&chunk.body[..]);
                for record in reader.records() {
                    let record = record.unwrap();
                    let line = chunk.file_line(record.position().unwrap().line());
                    found.push((line, record.iter().map(str::to_owned).collect::<Vec<_>>()));
                }
            }
            prop_assert_eq!(found, expected);
        }
    }
}
