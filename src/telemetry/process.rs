//! The standard metrics of a process, read from `/proc` when somebody asks. By hand, in 60 lines: the crate for it brings
//! bindings for five other systems, and a counter of the facade holds whole numbers only, which CPU seconds are not.

use std::fmt::Write as _;
use std::fs;

use super::names::*;
use super::{Kind, Metric};

/// Clock ticks a second in `/proc`; Linux has had no other value on any platform since 2.6.
const TICKS: f64 = 100.0;

/// All of them in Prometheus' text format; nothing where there is no `/proc`.
pub(super) fn render() -> String {
    let mut text = String::new();
    for (name, value) in read() {
        let Some(metric) = Metric::find(name) else { continue };
        let kind = if metric.kind == Kind::Counter { "counter" } else { "gauge" };
        // Writing to a string does not fail.
        let _ = write!(text, "# HELP {name} {}\n# TYPE {name} {kind}\n{name} {value}\n\n", metric.help);
    }
    text
}

fn read() -> Vec<(&'static str, f64)> {
    let file = |name: &str| fs::read_to_string(format!("/proc/{name}")).unwrap_or_default();
    let (stat, status, limits) = (file("self/stat"), file("self/status"), file("self/limits"));
    // After the name, which may hold anything, in brackets; the first one here is the third field.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or(Vec::new(), |(_, rest)| rest.split_whitespace().collect());
    let field = |n: usize| fields.get(n - 3)?.parse::<f64>().ok();
    let kilobytes = |name| Some(after(&status, name)?.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0);
    let boot = after(&file("stat"), "btime").and_then(|t| t.trim().parse::<f64>().ok());
    #[expect(clippy::cast_precision_loss, reason = "a number of files")]
    let open = fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64);
    let max = after(&limits, "Max open files").and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok());
    let found = [
        (PROCESS_CPU, field(14).zip(field(15)).map(|(user, kernel)| (user + kernel) / TICKS)),
        (PROCESS_RSS, kilobytes("VmRSS:")),
        (PROCESS_VSIZE, kilobytes("VmSize:")),
        (PROCESS_FDS, open),
        (PROCESS_FDS_MAX, max),
        (PROCESS_THREADS, field(20)),
        (PROCESS_START, boot.zip(field(22)).map(|(boot, start)| boot + start / TICKS)),
    ];
    found.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// What follows a word at the beginning of a line.
fn after<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(word))
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use crate::telemetry::CATALOG;

    #[test]
    fn a_process_tells_all_that_the_catalogue_says() {
        let found = read();
        let names: Vec<&str> = found.iter().map(|(name, _)| *name).collect();
        let listed: Vec<&str> = CATALOG.iter().filter(|m| m.is_of_process()).map(|m| m.name).collect();
        assert_eq!(names, listed);
        let value = |name| found.iter().find(|(n, _)| *n == name).unwrap().1;
        assert!(value(PROCESS_RSS) > 1e6 && value(PROCESS_FDS) >= 3.0 && value(PROCESS_THREADS) >= 1.0, "{found:?}");
        assert!(value(PROCESS_START) > 1.6e9, "{found:?}");
    }
}
