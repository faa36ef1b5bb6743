//! CSV as spreadsheets write it: with or without a byte order mark, any line ending, comma, semicolon or tab.

use csv::{ReaderBuilder, StringRecord};
use serde_json::Value;

use super::columns::{Column, data_key};
use super::{ROWS_MAX, RejectedRow, Unreadable, Upload, field, set_duplicates_apart};
use crate::store::upload::New;

/// Where a column's values go.
enum Target {
    Field(Column),
    Data(String),
    /// A column without a name: passed over.
    Nowhere,
}

/// Reads a CSV upload whose first line names the columns.
///
/// # Errors
/// [`Unreadable`] when it is not CSV that we can make sense of; single bad rows are in [`Upload::rejected`].
pub(crate) fn read(bytes: &[u8]) -> Result<Upload, Unreadable> {
    let text = text(bytes)?;
    let first = text.lines().next().unwrap_or_default();
    if first.trim().is_empty() {
        return Err(Unreadable::Empty);
    }
    let mut reader =
        ReaderBuilder::new().delimiter(delimiter(first.as_bytes())).flexible(true).from_reader(text.as_bytes());
    let header = reader.headers().map_err(|e| unreadable(&e))?.clone();
    let targets = targets(&header)?;

    let mut upload = Upload::default();
    let mut record = StringRecord::new();
    let mut rows = 0;
    let mut lines = Lines::new(text.as_bytes());
    while reader.read_record(&mut record).map_err(|e| unreadable(&e))? {
        // A line of separators only: spreadsheets leave them at the end.
        if record.iter().all(|value| value.trim().is_empty()) {
            continue;
        }
        rows += 1;
        if rows > ROWS_MAX {
            return Err(Unreadable::TooManyRows);
        }
        let line = lines.of(record.position().map_or(0, csv::Position::byte));
        match row(line, &header, &targets, &record) {
            Ok(row) => upload.rows.push((line, row)),
            Err(rejected) => upload.rejected.push(rejected),
        }
    }
    set_duplicates_apart(&mut upload, "line");
    Ok(upload)
}

/// Counts lines as an editor does. The reader's own count lags behind after empty lines and with `\r\n`.
pub(super) struct Lines<'a> {
    text: &'a [u8],
    at: usize,
    line: u64,
}

impl<'a> Lines<'a> {
    pub(super) const fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, line: 1 }
    }

    /// The line of the record that the reader began at this byte, which may still be the end of the line before. Bytes must
    /// not go down from call to call.
    pub(super) fn of(&mut self, byte: u64) -> u64 {
        let mut start = usize::try_from(byte).unwrap_or(usize::MAX).min(self.text.len());
        while matches!(self.text.get(start), Some(b'\r' | b'\n')) {
            start += 1;
        }
        let ends = |i: &usize| match self.text[*i] {
            b'\n' => true,
            b'\r' => self.text.get(i + 1) != Some(&b'\n'),
            _ => false,
        };
        self.line += (self.at..start).filter(ends).count() as u64;
        self.at = start;
        self.line
    }
}

/// The text behind the byte order mark.
pub(super) fn text(bytes: &[u8]) -> Result<&str, Unreadable> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|e| {
        let before = &bytes[..e.valid_up_to()];
        Unreadable::NotUtf8 { line: 1 + before.iter().filter(|b| **b == b'\n').count() as u64 }
    })
}

/// The separator that the first line uses most, outside quotes: a comma, a semicolon or a tab.
pub(crate) fn delimiter(first: &[u8]) -> u8 {
    let mut quoted = false;
    let mut counts = [(b',', 0), (b';', 0), (b'\t', 0)];
    for b in first {
        quoted ^= *b == b'"';
        if let Some(count) = counts.iter_mut().find(|c| c.0 == *b && !quoted) {
            count.1 += 1;
        }
    }
    // The first of equals wins: a comma.
    counts.iter().rev().max_by_key(|c| c.1).map_or(b',', |c| c.0)
}

/// Where each column goes. The first column of a meaning takes it; a second one goes to `data`.
fn targets(header: &StringRecord) -> Result<Vec<Target>, Unreadable> {
    let mut taken = Vec::new();
    let targets: Vec<Target> = header
        .iter()
        .map(|name| match Column::from_header(name) {
            Some(column) if !taken.contains(&column) => {
                taken.push(column);
                Target::Field(column)
            }
            _ => match data_key(name) {
                key if key.is_empty() => Target::Nowhere,
                key => Target::Data(key),
            },
        })
        .collect();
    if taken.iter().any(|c| c.is_contact()) {
        return Ok(targets);
    }
    let found: Vec<String> = header.iter().take(20).map(|h| h.chars().take(40).collect()).collect();
    Err(Unreadable::NoContactColumn { found: found.join(", ") })
}

fn row(line: u64, header: &StringRecord, targets: &[Target], record: &StringRecord) -> Result<New, RejectedRow> {
    if record.len() > targets.len() {
        let reason = format!("has {} values, but the first line names {} columns", record.len(), targets.len());
        return Err(RejectedRow::new(line, None, reason));
    }
    let mut row = New::default();
    for ((value, target), name) in record.iter().zip(targets).zip(header) {
        let result = match target {
            Target::Nowhere => Ok(()),
            Target::Field(column) => field::set(&mut row, *column, value),
            Target::Data(_) if value.trim().is_empty() => Ok(()),
            Target::Data(key) => {
                let value = Value::from(value.trim());
                field::data(&value).map(|()| {
                    row.data.insert(key.clone(), value);
                })
            }
        };
        result.map_err(|reason| RejectedRow::new(line, Some(name.trim()), reason))?;
    }
    field::check(line, &row)?;
    Ok(row)
}

fn unreadable(error: &csv::Error) -> Unreadable {
    let line = error.position().map_or(1, csv::Position::line);
    Unreadable::Csv { line, reason: "the quoting or the encoding is broken".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spreadsheet_export_is_read_whatever_its_dialect() {
        let text = "\u{feff}First Name;E-Mail;Favourite colour\r\nAda;ada@example.com;blue\r\n;;\r\n\"Bo;b\";bob@example.com;\r\n";
        let upload = read(text.as_bytes()).unwrap();
        assert_eq!(upload.rejected, []);
        let rows: Vec<_> = upload.rows.iter().map(|(l, r)| (*l, r.first_name.as_deref(), r.email.as_deref())).collect();
        assert_eq!(rows, [(2, Some("Ada"), Some("ada@example.com")), (4, Some("Bo;b"), Some("bob@example.com"))]);
        assert_eq!(upload.rows[0].1.data["favourite_colour"], "blue");
        assert!(upload.rows[1].1.data.is_empty());
    }

    #[test]
    fn lines_are_counted_as_an_editor_counts_them() {
        for text in [
            "phone\n\n123456\n\"12\n3457\"\n123458",
            "phone\r\n\r\n123456\r\n\"12\r3457\"\r\n123458\r\n",
            "phone\r\r123456\r\"12\r3457\"\r123458",
        ] {
            let upload = read(text.as_bytes()).unwrap();
            let lines: Vec<u64> = upload.rows.iter().map(|(line, _)| *line).collect();
            let bad: Vec<u64> = upload.rejected.iter().map(|r| r.line).collect();
            assert_eq!((lines, bad), (vec![3, 6], vec![4]), "{text:?}");
        }
    }

    #[test]
    fn every_bad_row_is_reported_with_its_line_and_column() {
        let text = "email,phone\nnobody,\n,12\n,\"\"\nada@example.com,\na@b.co,123456,surplus\n";
        let upload = read(text.as_bytes()).unwrap();
        assert_eq!(upload.rows.len(), 1);
        let bad: Vec<_> = upload.rejected.iter().map(|r| (r.line, r.column.as_deref())).collect();
        assert_eq!(bad, [(2, Some("email")), (3, Some("phone")), (6, None)]);
    }

    #[test]
    fn a_repeated_person_is_named_with_the_first_line() {
        let text = "email,linkedin\nada@example.com,linkedin.com/in/ada\nADA@example.com,\n,https://www.linkedin.com/in/Ada/\n";
        let upload = read(text.as_bytes()).unwrap();
        assert_eq!(upload.rows.len(), 1);
        let found: Vec<_> = upload.duplicates.iter().map(|d| (d.line, d.of.as_str(), d.key)).collect();
        assert_eq!(found, [(3, "line 2", "email"), (4, "line 2", "linkedin_url")]);
    }

    #[test]
    fn files_that_are_no_csv_are_refused_as_a_whole() {
        assert_eq!(read(b"").unwrap_err(), Unreadable::Empty);
        assert_eq!(read(b"email\nada\xff@example.com\n").unwrap_err(), Unreadable::NotUtf8 { line: 2 });
        assert!(matches!(read(b"name,age\nAda,36\n").unwrap_err(), Unreadable::NoContactColumn { .. }));
        let many = format!("phone\n{}", "123456\n".repeat(ROWS_MAX + 1));
        assert_eq!(read(many.as_bytes()).unwrap_err(), Unreadable::TooManyRows);
    }
}
