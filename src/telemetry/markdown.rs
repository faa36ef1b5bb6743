//! The catalogue for people: `docs/metrics.md`.

use std::fmt::Write as _;

use super::{CATALOG, Kind, Metric};

/// What stands before the table.
const HEAD: &str = "# Metrics

Made from the catalogue in `src/telemetry/catalog`: `UPDATE_GOLDEN=1 cargo test --lib telemetry` writes this file anew.

`serve` shows them on `http.metrics_listen`, at `/metrics`. Times are real seconds, however fast the clock of a demo runs. No
label holds an id, a name or a text, so their number does not grow with the data: single campaigns, accounts and people are
told by the API and by SQL. Every combination of listed label values is there from the start, at 0; a histogram shows nothing
before its first sample. `process_*` are read from `/proc` and missing where there is none.

| metric | kind | labels | says |
|---|---|---|---|
";

/// `docs/metrics.md`, whole.
pub fn markdown() -> String {
    let mut text = HEAD.to_owned();
    for metric in CATALOG {
        // Writing to a string does not fail.
        let _ = writeln!(text, "| `{}` | {} | {} | {} |", metric.name, kind(metric), labels(metric), metric.help);
    }
    text
}

fn kind(metric: &Metric) -> String {
    match metric.kind {
        Kind::Counter => "counter".to_owned(),
        Kind::Gauge => "gauge".to_owned(),
        Kind::Histogram => {
            let bounds: Vec<String> = metric.buckets.iter().map(f64::to_string).collect();
            format!("histogram: {}", bounds.join(" "))
        }
    }
}

fn labels(metric: &Metric) -> String {
    let shown = metric.labels.iter().map(|label| match label.values {
        [] => format!("`{}`", label.name),
        // Of this build, and another one in the next.
        [_] => format!("`{}`", label.name),
        values => format!("`{}`: {}", label.name, values.join(", ")),
    });
    shown.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_documentation_of_the_metrics_is_the_catalogue() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&file, markdown()).unwrap();
        }
        let text = fs::read_to_string(&file).unwrap_or_default();
        assert!(text == markdown(), "docs/metrics.md is out of date: UPDATE_GOLDEN=1 cargo test --lib telemetry");
    }
}
