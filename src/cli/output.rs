//! What the commands print: tables, times, colours; and [`Failure`], how a command ends that did not work.
//!
//! Output is put together first and written once. Colours appear on a terminal only, and never with `NO_COLOR`. Whatever
//! comes from a file or a server goes through `clean`, so that it cannot steer the terminal.

use std::error::Error;
use std::fmt::Display;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::domain::time::Timestamp;

/// How a command ends that did not work. Printed to standard error by `main`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What is wrong and how to mend it; may have several lines.
    pub message: String,
    /// 1: refused, or problems were found. 2: wrong usage, or no server to talk to.
    pub exit_code: u8,
}

impl Failure {
    /// The server said no, or what was given has problems: exit code 1.
    pub fn refused(message: impl Display) -> Self {
        Self { message: message.to_string(), exit_code: 1 }
    }

    /// Nothing could be tried at all: wrong usage, an unreadable file, no server. Exit code 2.
    pub fn unusable(message: impl Display) -> Self {
        Self { message: message.to_string(), exit_code: 2 }
    }

    /// Refused because of an error, which is told with everything beneath it.
    pub(super) fn refused_by(error: impl Error) -> Self {
        Self::refused(with_sources(&error))
    }

    /// Nothing could be tried because of an error, likewise.
    pub(super) fn unusable_by(error: impl Error) -> Self {
        Self::unusable(with_sources(&error))
    }
}

/// An error with everything beneath it, on one line.
pub(super) fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

impl From<&Failure> for ExitCode {
    fn from(failure: &Failure) -> Self {
        Self::from(failure.exit_code)
    }
}

/// Writes to standard output. A reader that has gone away (`| head`) is no failure.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::unusable(format!("cannot write to standard output: {e}")))
        }
        _ => Ok(()),
    }
}

/// Writes indented JSON to standard output.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|e| Failure::unusable(format!("cannot write the answer as JSON: {e}")))?;
    text.push('\n');
    print(&text)
}

/// A colour of the terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Colour {
    #[default]
    Plain,
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
    Cyan,
}

/// Whether colours are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint(bool);

impl Paint {
    /// For standard output.
    pub(super) fn stdout() -> Self {
        Self(wanted(io::stdout().is_terminal(), |name| std::env::var_os(name).map(|v| v.to_string_lossy().into())))
    }

    /// Without colours.
    #[cfg(test)]
    pub(super) const fn off() -> Self {
        Self(false)
    }

    /// `text` in a colour.
    pub(super) fn put(self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Plain => return text.to_owned(),
            Colour::Bold => 1,
            Colour::Dim => 2,
            Colour::Red => 31,
            Colour::Green => 32,
            Colour::Yellow => 33,
            Colour::Cyan => 36,
        };
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// A status in its colour.
    pub(super) fn status(self, status: &str) -> String {
        self.put(status_colour(status), &clean(status))
    }
}

/// <https://no-color.org>: any value that is not empty switches colours off.
fn wanted(terminal: bool, env: impl Fn(&str) -> Option<String>) -> bool {
    terminal && env("NO_COLOR").is_none_or(|v| v.is_empty()) && env("TERM").is_none_or(|v| v != "dumb")
}

/// The colour of a status of a campaign, an execution, a send or an account.
pub(super) fn status_colour(status: &str) -> Colour {
    match status {
        "active" | "completed" | "sent" => Colour::Green,
        "failed" | "halted" => Colour::Red,
        "paused" | "unknown" => Colour::Yellow,
        "pending" | "executing" | "waiting_trigger" | "dispatching" => Colour::Cyan,
        "draft" | "disabled" | "cancelled" => Colour::Dim,
        _ => Colour::Plain,
    }
}

/// Text of others on one line, without characters that steer a terminal or turn the direction of writing.
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\r' | '\t' => ' ',
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// A table with aligned columns.
#[derive(Debug)]
pub(super) struct Table {
    head: Vec<String>,
    rows: Vec<Vec<(Colour, String)>>,
}

impl Table {
    /// An empty table. `head` names the columns.
    pub(super) fn new(head: &[&str]) -> Self {
        Self { head: head.iter().map(|h| (*h).to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row; its texts are cleaned.
    pub(super) fn row<'a>(&mut self, cells: impl IntoIterator<Item = (Colour, &'a str)>) {
        self.rows.push(cells.into_iter().map(|(colour, text)| (colour, clean(text))).collect());
    }

    /// The table as text. Every line ends with a line break; nothing is padded at its end.
    pub(super) fn render(&self, paint: Paint) -> String {
        let mut widths: Vec<usize> = self.head.iter().map(|h| h.chars().count()).collect();
        for row in &self.rows {
            for (width, (_, text)) in widths.iter_mut().zip(row) {
                *width = (*width).max(text.chars().count());
            }
        }
        let mut out = String::new();
        let head: Vec<(Colour, String)> = self.head.iter().map(|h| (Colour::Bold, h.clone())).collect();
        for row in std::iter::once(&head).chain(&self.rows) {
            let filled = row.iter().rposition(|(_, text)| !text.is_empty()).map_or(0, |last| last + 1);
            for (i, ((colour, text), width)) in row.iter().take(filled).zip(&widths).enumerate() {
                out.push_str(&paint.put(*colour, text));
                if i + 1 < filled {
                    let gap = width - text.chars().count() + 2;
                    out.extend(std::iter::repeat_n(' ', gap));
                }
            }
            out.push('\n');
        }
        out
    }
}

/// Adds `name  text` to a list of facts, if there is a text.
pub(super) fn fact(out: &mut String, paint: Paint, name: &str, text: &str) {
    if !text.is_empty() {
        let padded = format!("{name:<12}");
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}{text}", paint.put(Colour::Dim, &padded));
    }
}

/// RFC 3339 in UTC, to the second.
pub(super) fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// RFC 3339, and how far from `now` that is: `2026-11-24T09:00:00Z (in 18 h)`.
pub(super) fn when(at: DateTime<Utc>, now: Timestamp) -> String {
    format!("{} ({})", time(at), relative(at, now))
}

/// `in 2 d 3 h`, `5 min ago`, `now`.
pub(super) fn relative(at: DateTime<Utc>, now: Timestamp) -> String {
    let at = Timestamp::from(at);
    let (ahead, behind) = (at.since(now), now.since(at));
    if ahead.max(behind) < Duration::from_secs(1) {
        "now".to_owned()
    } else if at > now {
        format!("in {}", stretch(ahead))
    } else {
        format!("{} ago", stretch(behind))
    }
}

/// The two largest units of a stretch of time.
fn stretch(d: Duration) -> String {
    let s = d.as_secs();
    let two = |big: u64, big_name: &str, small: u64, small_name: &str| match small {
        0 => format!("{big} {big_name}"),
        _ => format!("{big} {big_name} {small} {small_name}"),
    };
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min", s / 60),
        3600..86_400 => two(s / 3600, "h", s % 3600 / 60, "min"),
        86_400..2_592_000 => two(s / 86_400, "d", s % 86_400 / 3600, "h"),
        _ => format!("{} d", s / 86_400),
    }
}

/// A count with the thousands apart: `12,345`.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_nothing_is_padded_at_the_end() {
        let mut table = Table::new(&["ID", "NAME", "NOTE"]);
        table.row([(Colour::Plain, "1"), (Colour::Green, "a longer name"), (Colour::Plain, "x")]);
        table.row([(Colour::Plain, "22"), (Colour::Plain, "b"), (Colour::Plain, "")]);
        assert_eq!(table.render(Paint::off()), "ID  NAME           NOTE\n1   a longer name  x\n22  b\n");
        assert_eq!(table.render(Paint(true)).lines().nth(1), Some("1   \u{1b}[32ma longer name\u{1b}[0m  x"));
    }

    #[test]
    fn colours_need_a_terminal_and_obey_no_color() {
        let none = |_: &str| None;
        assert!(wanted(true, none));
        assert!(!wanted(false, none));
        assert!(!wanted(true, |n| (n == "NO_COLOR").then(|| "1".to_owned())));
        assert!(wanted(true, |n| (n == "NO_COLOR").then(String::new)));
        assert!(!wanted(true, |n| (n == "TERM").then(|| "dumb".to_owned())));
    }

    #[test]
    fn times_are_told_from_now() {
        let now = Timestamp::from_micros(1_700_000_000_000_000);
        let at = |seconds: i64| (DateTime::from_timestamp(1_700_000_000 + seconds, 0)).unwrap();
        for (seconds, text) in [
            (0, "now"),
            (12, "in 12 s"),
            (-90, "1 min ago"),
            (3600, "in 1 h"),
            (-(3600 + 300), "1 h 5 min ago"),
            (72 * 3600, "in 3 d"),
            (-(86_400 + 7200), "1 d 2 h ago"),
            (86_400 * 45 + 7200, "in 45 d"),
        ] {
            assert_eq!(relative(at(seconds), now), text);
        }
        assert_eq!(when(at(60), now), "2023-11-14T22:14:20Z (in 1 min)");
    }

    #[test]
    fn text_of_others_cannot_steer_the_terminal() {
        assert_eq!(clean("a\u{1b}[31mb\nc\u{202e}d"), "a\u{fffd}[31mb c\u{fffd}d");
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!([count(0), count(999), count(1000), count(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
    }
}
