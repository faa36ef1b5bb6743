//! What is wrong with a flow, where, and in which order it is told.

use std::fmt;

use super::names::nearest;

/// One thing that is wrong with a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// JSON path, for example `$.steps[2].delay`.
    pub path: String,
    /// What is wrong and how to mend it.
    pub message: String,
}

/// `$.steps[2].delay: ...`
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Every key of the language in the order in which it is written. A JSON object has no order of its own here, so problems
/// are told in this one.
const ORDER: &[&str] = &[
    "schema_version",
    "name",
    "description",
    "timezone",
    "window",
    "stop_on",
    "steps",
    "days",
    "from",
    "to",
    "holidays",
    "id",
    "type",
    "action",
    "subject",
    "message",
    "variants",
    "delay",
    "delay_hours",
    "delay_days",
    "wait_for",
    "trigger",
    "timeout",
    "check_every",
    "max_checks",
    "on_timeout",
    "requires",
];

/// A place in the document: its JSON path, and where it stands in document order.
#[derive(Clone, Debug)]
pub(super) struct Place {
    path: String,
    order: Vec<usize>,
}

impl Place {
    pub(super) fn root() -> Self {
        Self { path: "$".to_owned(), order: Vec::new() }
    }

    /// A member of the object here.
    pub(super) fn key(&self, key: &str) -> Self {
        let plain = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let path = if plain { format!("{}.{key}", self.path) } else { format!("{}[{key:?}]", self.path) };
        // A misspelt key stands where the right one would.
        let known = if ORDER.contains(&key) { Some(key) } else { nearest(key, ORDER.iter().copied()) };
        self.below(path, ORDER.iter().position(|k| Some(*k) == known).unwrap_or(ORDER.len()))
    }

    /// An element of the array here.
    pub(super) fn index(&self, index: usize) -> Self {
        self.below(format!("{}[{index}]", self.path), index)
    }

    /// Whether both are the same place.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.path == other.path
    }

    fn below(&self, path: String, order: usize) -> Self {
        Self { path, order: self.order.iter().copied().chain([order]).collect() }
    }
}

/// Collects problems.
#[derive(Debug, Default)]
pub(super) struct Report {
    found: Vec<(Vec<usize>, Problem)>,
}

impl Report {
    pub(super) fn add(&mut self, place: &Place, message: impl Into<String>) {
        self.found.push((place.order.clone(), Problem { path: place.path.clone(), message: message.into() }));
    }

    /// All of them in document order.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        self.found.sort_by(|a, b| a.0.cmp(&b.0));
        self.found.into_iter().map(|(_, p)| p).collect()
    }
}
