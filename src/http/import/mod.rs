//! Reads an upload of prospects, CSV or JSON, into checked rows. Every bad row is reported with its place and reason, and
//! the good ones are kept. Pure: no database.
//!
//! [`csv`] and [`json`] find the rows and their columns, [`field`] checks one value, [`columns`] knows the column names.

use std::collections::HashMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::store::upload::New;

pub(crate) mod columns;
pub(crate) mod csv;
pub(crate) mod field;
pub(crate) mod json;
pub(crate) mod suppressions;

/// Rows in one upload.
pub(crate) const ROWS_MAX: usize = 10_000;

/// A row that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct RejectedRow {
    /// CSV: the line the row starts on, the header being line 1. JSON: the index in the array, from 0.
    pub(crate) line: u64,
    /// The column as the upload names it; absent when the row as a whole is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) column: Option<String>,
    /// What is wrong with it.
    pub(crate) reason: String,
}

impl RejectedRow {
    pub(crate) fn new(line: u64, column: Option<&str>, reason: impl Into<String>) -> Self {
        Self { line, column: column.map(str::to_owned), reason: reason.into() }
    }
}

/// A row that is the same person as an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct DuplicateRow {
    /// As in `rejected`.
    pub(crate) line: u64,
    /// `line 3` (CSV) or `index 3` (JSON) of this upload, or the id of the prospect in the campaign.
    pub(crate) of: String,
    /// The column that tells: `email`, `linkedin_url` or `phone`.
    pub(crate) key: &'static str,
}

/// What an upload holds.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    /// Good rows with their line.
    pub(crate) rows: Vec<(u64, New)>,
    /// Bad rows.
    pub(crate) rejected: Vec<RejectedRow>,
    /// Repeated rows; the first of each is among `rows`.
    pub(crate) duplicates: Vec<DuplicateRow>,
}

/// Why an upload cannot be read at all.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    /// A byte that UTF-8 does not have.
    #[error("line {line} is not UTF-8; save the file as 'CSV UTF-8' and upload it again")]
    NotUtf8 {
        /// Where the first such byte is.
        line: u64,
    },
    /// Nothing in it.
    #[error("the file is empty; its first line must name the columns")]
    Empty,
    /// Nobody could be contacted.
    #[error(
        "no column holds an address: name at least one of email, linkedin_url, phone in the first line (found: {found})"
    )]
    NoContactColumn {
        /// The columns that were found.
        found: String,
    },
    /// More rows than one request takes.
    #[error("more than {ROWS_MAX} rows in one request; split the upload")]
    TooManyRows,
    /// Not the documented JSON.
    #[error("{0}")]
    Json(String, usize, usize),
    /// The CSV reader gave up.
    #[error("line {line} cannot be read as CSV: {reason}")]
    Csv {
        /// Where.
        line: u64,
        /// Why.
        reason: String,
    },
}

/// Moves every row that repeats an earlier one from `rows` to `duplicates`. `place` is `line` or `index`.
fn set_duplicates_apart(upload: &mut Upload, place: &str) {
    let mut seen: HashMap<(&'static str, String), u64> = HashMap::new();
    let mut kept = Vec::with_capacity(upload.rows.len());
    for (line, row) in std::mem::take(&mut upload.rows) {
        let known = row.keys.iter().find_map(|(key, value)| Some((key, *seen.get(&(key, value.to_owned()))?)));
        if let Some((key, first)) = known {
            upload.duplicates.push(DuplicateRow { line, of: format!("{place} {first}"), key });
            continue;
        }
        seen.extend(row.keys.iter().map(|(key, value)| ((key, value.to_owned()), line)));
        kept.push((line, row));
    }
    upload.rows = kept;
}
