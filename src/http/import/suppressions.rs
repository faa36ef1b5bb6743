//! Reads a list of those who are not written to, JSON or CSV, into entries. As with uploads of prospects every bad entry is
//! reported with its place and reason, and the good ones are kept. Pure: no database.

use csv::{ReaderBuilder, StringRecord};
use serde_json::{Map, Value};

use super::columns::Column;
use super::csv::{Lines, delimiter, text};
use super::{ROWS_MAX, RejectedRow, Unreadable};
use crate::domain::suppression::{Key, Kind, Reason};

/// What a list holds.
#[derive(Debug, Default)]
pub(crate) struct List {
    /// Good entries.
    pub(crate) entries: Vec<(Key, Reason)>,
    /// Bad ones.
    pub(crate) rejected: Vec<RejectedRow>,
}

/// Reads JSON: one entry, an array of them, or `{"suppressions": [...]}`. An entry is an object with `value` and optionally
/// `kind` and `reason`, or a text that is the value.
///
/// # Errors
/// [`Unreadable`] when it is not that JSON; single bad entries are in [`List::rejected`].
pub(crate) fn json(bytes: &[u8]) -> Result<List, Unreadable> {
    let value: Value =
        serde_json::from_slice(bytes).map_err(|e| Unreadable::Json(e.to_string(), e.line(), e.column()))?;
    let items = match value {
        Value::Array(items) => items,
        Value::Object(mut map) if map.contains_key("suppressions") => match map.remove("suppressions") {
            Some(Value::Array(items)) if map.is_empty() => items,
            _ => return Err(shape()),
        },
        one @ Value::Object(_) => vec![one],
        _ => return Err(shape()),
    };
    if items.len() > ROWS_MAX {
        return Err(Unreadable::TooManyRows);
    }
    let mut list = List::default();
    for (line, item) in (0_u64..).zip(items) {
        let entry = match &item {
            Value::String(value) => entry(line, "value", None, value, None),
            Value::Object(map) => object(line, map),
            _ => Err(RejectedRow::new(line, None, "is neither an object nor a text")),
        };
        list.take(entry);
    }
    Ok(list)
}

fn shape() -> Unreadable {
    let text =
        "expected an entry such as {\"value\": \"ada@example.org\"}, an array of them, or {\"suppressions\": [...]}";
    Unreadable::Json(text.to_owned(), 1, 1)
}

fn object(line: u64, map: &Map<String, Value>) -> Result<(Key, Reason), RejectedRow> {
    if let Some(unknown) = map.keys().find(|k| !["value", "kind", "reason"].contains(&k.as_str())) {
        return Err(RejectedRow::new(line, Some(unknown), "is no key of an entry: value, kind, reason"));
    }
    let text = |key: &str| match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(RejectedRow::new(line, Some(key), "is not text")),
    };
    let value = text("value")?.ok_or_else(|| RejectedRow::new(line, Some("value"), "is missing"))?;
    entry(line, "value", text("kind")?, value, text("reason")?)
}

/// What a column of a CSV holds.
#[derive(Clone, Copy, PartialEq)]
enum Target {
    /// Values of this kind; without one, each says by itself of which kind it is.
    Value(Option<Kind>),
    Kind,
    Reason,
    Nowhere,
}

/// Reads CSV whose first line names the columns: `value`, `kind`, `reason`, or `email`, `domain`, `linkedin_url`, `phone` in
/// their usual spellings, of which a line may have several. A file without such a line holds a value at the start of each.
///
/// # Errors
/// [`Unreadable`] when it is not CSV that we can make sense of; single bad entries are in [`List::rejected`].
pub(crate) fn csv(bytes: &[u8]) -> Result<List, Unreadable> {
    let text = text(bytes)?;
    let first = text.lines().next().unwrap_or_default();
    if first.trim().is_empty() {
        return Err(Unreadable::Empty);
    }
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter(first.as_bytes()))
        .flexible(true)
        .has_headers(false)
        .from_reader(text.as_bytes());
    let mut lines = Lines::new(text.as_bytes());
    let mut record = StringRecord::new();
    let mut targets: Option<(StringRecord, Vec<Target>)> = None;
    let mut list = List::default();
    let mut rows = 0;
    let broken = |e: &csv::Error| Unreadable::Csv {
        line: e.position().map_or(1, csv::Position::line),
        reason: "it ends within a quoted value, or is no CSV".to_owned(),
    };
    while reader.read_record(&mut record).map_err(|e| broken(&e))? {
        if record.iter().all(|value| value.trim().is_empty()) {
            continue;
        }
        let line = lines.of(record.position().map_or(0, csv::Position::byte));
        let Some((head, targets)) = &targets else {
            let named: Vec<Target> = record.iter().map(target).collect();
            if named.iter().any(|t| matches!(t, Target::Value(_))) {
                targets = Some((record.clone(), named));
                continue;
            }
            if record.get(0).is_none_or(|value| Key::parse(None, value).is_err()) {
                return Err(Unreadable::NoContactColumn {
                    found: record.iter().take(20).collect::<Vec<_>>().join(", "),
                });
            }
            targets = Some((StringRecord::from(vec!["value"]), vec![Target::Value(None)]));
            rows += 1;
            list.take(entry(line, "value", None, record.get(0).unwrap_or_default(), None));
            continue;
        };
        rows += 1;
        if rows > ROWS_MAX {
            return Err(Unreadable::TooManyRows);
        }
        let cell = |wanted: Target| {
            let at = targets.iter().position(|t| *t == wanted)?;
            record.get(at).map(str::trim).filter(|text| !text.is_empty())
        };
        for ((target, value), name) in targets.iter().zip(&record).zip(head) {
            if let Target::Value(kind) = target
                && !value.trim().is_empty()
            {
                let kind = kind.map(Kind::as_str).or_else(|| cell(Target::Kind));
                list.take(entry(line, name, kind, value, cell(Target::Reason)));
            }
        }
    }
    Ok(list)
}

fn target(header: &str) -> Target {
    match header.trim().to_lowercase().as_str() {
        "value" => Target::Value(None),
        "kind" => Target::Kind,
        "reason" => Target::Reason,
        "address" => Target::Value(Some(Kind::Address)),
        "domain" => Target::Value(Some(Kind::Domain)),
        "profile" => Target::Value(Some(Kind::Profile)),
        _ => match Column::from_header(header) {
            Some(Column::Email) => Target::Value(Some(Kind::Address)),
            Some(Column::Phone) => Target::Value(Some(Kind::Phone)),
            Some(Column::Linkedin) => Target::Value(Some(Kind::Profile)),
            Some(Column::FirstName | Column::LastName | Column::Company | Column::Title) | None => Target::Nowhere,
        },
    }
}

fn entry(
    line: u64,
    column: &str,
    kind: Option<&str>,
    value: &str,
    reason: Option<&str>,
) -> Result<(Key, Reason), RejectedRow> {
    let names = |all: Vec<&str>| format!("is one of {}", all.join(", "));
    let kind = kind.map(|name| {
        Kind::parse(name)
            .ok_or_else(|| RejectedRow::new(line, Some("kind"), names(Kind::ALL.iter().map(|k| k.as_str()).collect())))
    });
    let reason = reason.map_or(Ok(Reason::Manual), |name| {
        Reason::parse(name).ok_or_else(|| {
            RejectedRow::new(line, Some("reason"), names(Reason::ALL.iter().map(|r| r.as_str()).collect()))
        })
    })?;
    let key = Key::parse(kind.transpose()?, value).map_err(|e| RejectedRow::new(line, Some(column), e))?;
    Ok((key, reason))
}

impl List {
    fn take(&mut self, entry: Result<(Key, Reason), RejectedRow>) {
        match entry {
            Ok(entry) => self.entries.push(entry),
            Err(rejected) => self.rejected.push(rejected),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(list: &List) -> Vec<(&'static str, &str, &'static str)> {
        list.entries.iter().map(|(key, reason)| (key.kind().as_str(), key.value(), reason.as_str())).collect()
    }

    fn bad(list: &List) -> Vec<(u64, Option<&str>)> {
        list.rejected.iter().map(|r| (r.line, r.column.as_deref())).collect()
    }

    #[test]
    fn json_of_every_shape_is_read_and_bad_entries_are_named_by_index() {
        let one = json(br#"{"value": "Ada@Example.org"}"#).unwrap();
        assert_eq!(values(&one), [("address", "ada@example.org", "manual")]);
        let many = json(
            br#"{"suppressions": ["@example.org", {"value": "ada-l", "kind": "profile", "reason": "complaint"}, 7, "ada-l",
                {"value": "a@b.co", "colour": 1}, {"value": "a@b.co", "kind": "fax"}, {"kind": "phone"},
                {"value": "a@b.co", "reason": "bored"}]}"#,
        )
        .unwrap();
        assert_eq!(values(&many), [("domain", "example.org", "manual"), ("profile", "ada-l", "complaint")]);
        assert_eq!(
            bad(&many),
            [
                (2, None),
                (3, Some("value")),
                (4, Some("colour")),
                (5, Some("kind")),
                (6, Some("value")),
                (7, Some("reason"))
            ]
        );
        for text in ["7", r#"{"suppressions": 1}"#, r#"{"suppressions": [], "x": 1}"#, "["] {
            assert!(matches!(json(text.as_bytes()), Err(Unreadable::Json(..))), "{text}");
        }
    }

    #[test]
    fn csv_is_read_with_columns_of_every_name_and_without_any() {
        let list =
            csv(b"E-Mail;Company;LinkedIn URL;Reason\na@b.co;Acme;linkedin.com/in/Ada;complaint\n;x;;\nnobody;;;\n")
                .unwrap();
        assert_eq!(values(&list), [("address", "a@b.co", "complaint"), ("profile", "ada", "complaint")]);
        assert_eq!(bad(&list), [(4, Some("E-Mail"))]);
        let list = csv(b"value,kind\nada-l,profile\nexample.org,\n\nada-l,\n").unwrap();
        assert_eq!(values(&list), [("profile", "ada-l", "manual"), ("domain", "example.org", "manual")]);
        assert_eq!(bad(&list), [(5, Some("value"))]);
        let list = csv("\u{feff}a@b.co\n@example.org\n+49 30 123456\n".as_bytes()).unwrap();
        assert_eq!(
            values(&list),
            [("address", "a@b.co", "manual"), ("domain", "example.org", "manual"), ("phone", "4930123456", "manual")]
        );
        assert!(matches!(csv(b"name,company\nAda,Acme\n"), Err(Unreadable::NoContactColumn { .. })));
        assert!(matches!(csv(b""), Err(Unreadable::Empty)));
        let many = "a@b.co\n".repeat(ROWS_MAX + 1);
        assert!(matches!(csv(many.as_bytes()), Err(Unreadable::TooManyRows)));
    }
}
