//! The demo's live view: a bar and three lines on a terminal, a line every few seconds elsewhere.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;

/// Least time between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// What is shown at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// Prospects taken in.
    pub(super) total: u64,
    /// By status, in the order of the table of statuses.
    pub(super) statuses: Vec<(String, u64)>,
    /// By why they ended.
    pub(super) exits: Vec<(String, u64)>,
    /// Sends that happened, by channel.
    pub(super) sends: Vec<(String, u64)>,
    /// Sends of unknown outcome.
    pub(super) unknown: u64,
}

impl Snapshot {
    /// Reads the answer of `GET /v1/campaigns/{id}`.
    pub(super) fn of(campaign: &Value) -> Self {
        let counts = |map: &Value| -> Vec<(String, u64)> {
            let map = map.as_object().into_iter().flatten();
            map.map(|(name, count)| (name.clone(), count.as_u64().unwrap_or(0))).collect()
        };
        let prospects = &campaign["prospects"];
        let mut shot = Self {
            total: prospects["total"].as_u64().unwrap_or(0),
            statuses: counts(&prospects["by_status"]),
            exits: counts(&prospects["by_exit_reason"]),
            ..Self::default()
        };
        for (channel, by_status) in campaign["sends"].as_object().into_iter().flatten() {
            let by_status = counts(by_status);
            shot.unknown += count(&by_status, "unknown");
            shot.sends.push((channel.clone(), count(&by_status, "sent")));
        }
        shot
    }

    pub(super) fn status(&self, name: &str) -> u64 {
        count(&self.statuses, name)
    }

    pub(super) fn sent(&self, channel: &str) -> u64 {
        count(&self.sends, channel)
    }

    /// Prospects that have ended.
    pub(super) fn finished(&self) -> u64 {
        self.status("completed") + self.status("failed")
    }
}

fn count(list: &[(String, u64)], name: &str) -> u64 {
    list.iter().find(|(n, _)| n == name).map_or(0, |(_, c)| *c)
}

fn listed(list: &[(String, u64)]) -> String {
    list.iter().fold(String::new(), |mut text, (name, count)| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{}{name} {count}", if text.is_empty() { "" } else { "   " });
        text
    })
}

/// See the module's text.
pub(super) struct Live {
    bar: ProgressBar,
    lines: Vec<ProgressBar>,
    terminal: bool,
    last_line: Option<Instant>,
}

impl Live {
    pub(super) fn new(total: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let group = MultiProgress::new();
        let style = |text: &str| ProgressStyle::with_template(text).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = group.add(ProgressBar::new(total));
        bar.set_style(style("{msg:12} {wide_bar} {pos}/{len} done"));
        let lines = ["status", "ended", "sends"]
            .into_iter()
            .map(|prefix| {
                let line = group.add(ProgressBar::new_spinner());
                line.set_style(style("  {prefix:8} {msg}"));
                line.set_prefix(prefix);
                line
            })
            .collect();
        Self { bar, lines, terminal, last_line: None }
    }

    /// Shows one moment; `elapsed` is on the campaign's clock.
    pub(super) fn show(&mut self, shot: &Snapshot, elapsed: Duration) {
        let hours = elapsed.as_secs() / 3600;
        let at = format!("day {} {:02}h", hours / 24, hours % 24);
        let texts = [listed(&shot.statuses), listed(&shot.exits), listed(&shot.sends)];
        if !self.terminal {
            if self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
                self.last_line = Some(Instant::now());
                eprintln!("{at}  {}/{} done  {}  sends: {}", shot.finished(), shot.total, texts[0], texts[2]);
            }
            return;
        }
        self.bar.set_message(at);
        self.bar.set_position(shot.finished());
        for (line, text) in self.lines.iter().zip(texts) {
            line.set_message(text);
        }
    }

    /// Leaves the last state on the screen.
    pub(super) fn finish(&self) {
        self.bar.abandon();
        for line in &self.lines {
            line.abandon();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_are_added_up_by_status_and_channel() {
        let shot = Snapshot::of(&json!({
            "prospects": {"total": 9, "by_status": {"completed": 5, "pending": 4},
                "by_exit_reason": {"finished": 3, "replied": 2}},
            "sends": {"email": {"sent": 5, "unknown": 1}, "linkedin": {"pending": 2}}}));
        assert_eq!((shot.total, shot.finished(), shot.sent("email"), shot.unknown), (9, 5, 5, 1));
        assert_eq!(listed(&shot.exits), "finished 3   replied 2");
    }
}
