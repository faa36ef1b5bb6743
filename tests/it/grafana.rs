//! What watches the daemon speaks of metrics that exist: dashboards, rules, alerts and their tests are compared with the
//! catalogue. That the rules work is for promtool (`grafana/README.md`); here is what needs no program besides cargo.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use campaignd::telemetry::{CATALOG, Kind, Metric};
use serde_json::Value;

/// Metrics of the catalogue that no dashboard shows, and why. Nothing else may be missing from the dashboards.
const INTERNAL: &[(&str, &str)] = &[];

/// Labels that Prometheus adds, and the bound of a bucket.
const ADDED: &[&str] = &["job", "instance", "le"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The files of a directory with an ending, as name without the ending, and text.
fn files(directory: &str, ending: &str) -> BTreeMap<String, String> {
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let entries = fs::read_dir(root().join(directory)).unwrap_or_else(|e| panic!("{directory}: {e}"));
    let paths = entries.map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == ending));
    let found: BTreeMap<_, _> =
        paths.map(|p| (p.file_stem().unwrap().to_string_lossy().into_owned(), read(&p))).collect();
    assert!(!found.is_empty(), "no .{ending} in {directory}");
    found
}

fn dashboards() -> BTreeMap<String, Value> {
    let parse = |(name, text): (String, String)| {
        let board = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        (name, board)
    };
    files("grafana/dashboards", "json").into_iter().map(parse).collect()
}

/// Every query of a dashboard: of its panels, its variables and its annotations.
fn queries(board: &Value) -> Vec<&str> {
    fn walk<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    match value.as_str() {
                        Some(text) if key == "expr" || key == "query" => found.push(text),
                        Some(_) => {}
                        None => walk(value, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|v| walk(v, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(board, &mut found);
    found
}

/// The words that begin with a prefix and go on in lowercase letters, digits, `_` and `:`, each with what follows it.
fn words<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    text.match_indices(prefix).map(move |(at, _)| {
        let rest = &text[at..];
        let goes_on = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == ':';
        rest.split_at(rest.find(|c| !goes_on(c)).unwrap_or(rest.len()))
    })
}

/// The entry of the catalogue that exports a series of this name.
fn exporter(series: &str) -> Option<&'static Metric> {
    CATALOG.iter().find(|m| match m.kind {
        Kind::Counter | Kind::Gauge => m.name == series,
        Kind::Histogram => ["_bucket", "_sum", "_count"].iter().any(|s| series.strip_suffix(s) == Some(m.name)),
    })
}

/// The conditions of the selector at the start of a text, as label, operator and value: `{a="b",c=~"d|e"}`.
fn conditions(text: &str) -> Vec<(&str, &str, &str)> {
    let Some(mut rest) = text.strip_prefix('{') else { return Vec::new() };
    let mut found = Vec::new();
    while let Some((label, after)) = rest.split_once('"') {
        let Some((value, after)) = after.split_once('"') else { panic!("no end of a value in {text}") };
        let name = label.trim_matches(|c: char| !c.is_ascii_lowercase() && c != '_');
        let operator = label.rsplit(|c: char| c.is_ascii_lowercase()).next().unwrap_or_default().trim();
        found.push((name, operator, value));
        if after.starts_with('}') {
            break;
        }
        rest = after;
    }
    found
}

/// What is wrong with the metrics and labels that a text names, each with its place.
fn mistakes(place: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    // Also of the process, whose names are no words of other texts.
    for (series, after) in words(text, "campaignd_").chain(words(text, "process_")) {
        let Some(metric) = exporter(series) else {
            wrong.push(format!("{place}: nothing exports {series}"));
            continue;
        };
        for (name, operator, value) in conditions(after) {
            let Some(label) = metric.labels.iter().find(|l| l.name == name) else {
                if !ADDED.contains(&name) {
                    wrong.push(format!("{place}: {series} has no label `{name}`"));
                }
                continue;
            };
            let plain = |v: &&str| !v.is_empty() && v.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            let values = if operator.ends_with('~') { value.split('|').collect() } else { vec![value] };
            for value in values.iter().filter(|v| plain(v) && !label.values.is_empty()) {
                if !label.values.contains(value) {
                    wrong.push(format!("{place}: `{name}` of {series} is never `{value}`"));
                }
            }
        }
    }
    wrong
}

/// The rules and their tests, by path.
fn rules() -> Vec<(String, String)> {
    let all = |directory: &'static str| {
        files(directory, "yml").into_iter().map(move |(name, text)| (format!("{directory}/{name}.yml"), text))
    };
    all("grafana/prometheus/rules").chain(all("grafana/prometheus/tests")).collect()
}

/// Every alert with the lines of each of its rules.
fn alerts() -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for text in files("grafana/prometheus/rules", "yml").values() {
        for rule in text.split("\n      - ") {
            if let Some(rest) = rule.strip_prefix("alert: ") {
                let name = rest.lines().next().unwrap();
                found.entry(name.to_owned()).or_default().push(rest.to_owned());
            }
        }
    }
    assert!(found.len() > 20, "{:?}", found.keys());
    found
}

#[test]
fn every_query_names_metrics_and_labels_of_the_catalogue() {
    let mut wrong = Vec::new();
    for (name, board) in dashboards() {
        for query in queries(&board) {
            wrong.extend(mistakes(&format!("dashboard {name}"), query));
        }
    }
    for (path, text) in rules() {
        wrong.extend(mistakes(&path, &text));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_query_with_a_wrong_name_label_or_value_is_noticed() {
    let right = r#"rate(campaignd_sends_total{job=~"$job",channel=~"email|whatsapp",outcome="sent"}[5m])"#;
    assert_eq!(mistakes("here", right), Vec::<String>::new());
    for (query, word) in [
        ("campaignd_send_total", "nothing exports"),
        ("campaignd_reaction_seconds{}", "nothing exports"),
        (r#"campaignd_parked{job="a",channel="email"}"#, "no label `channel`"),
        (r#"campaignd_sends_total{outcome=~"sent|lost"}"#, "never `lost`"),
    ] {
        let found = mistakes("here", query);
        assert!(found.len() == 1 && found[0].contains(word), "{query}: {found:?}");
    }
}

#[test]
fn every_metric_is_on_a_dashboard_or_internal_for_a_reason() {
    let boards = dashboards();
    let shown: BTreeSet<&str> = boards
        .values()
        .flat_map(|b| queries(b))
        .flat_map(|q| words(q, "campaignd_").chain(words(q, "process_")))
        .filter_map(|(series, _)| Some(exporter(series)?.name))
        .collect();
    for metric in CATALOG {
        let internal = INTERNAL.iter().any(|(name, why)| *name == metric.name && !why.is_empty());
        assert!(shown.contains(metric.name) != internal, "{}: shown, or internal, and not both", metric.name);
    }
}

#[test]
fn what_is_recorded_is_recorded_under_the_name_that_is_read() {
    let rules = files("grafana/prometheus/rules", "yml").into_values().collect::<String>();
    let recorded: BTreeSet<&str> = rules.lines().filter_map(|l| l.trim().strip_prefix("- record: ")).collect();
    let boards = dashboards();
    let texts = boards.values().flat_map(|b| queries(b)).chain([rules.as_str()]);
    let read: BTreeSet<&str> = texts.flat_map(|t| words(t, "campaignd:")).map(|(name, _)| name).collect();
    assert_eq!(recorded, read);
}

#[test]
fn every_panel_says_what_it_shows_in_which_unit() {
    let mut uids = BTreeSet::new();
    for (name, board) in dashboards() {
        assert_eq!(board["uid"], format!("campaignd-{name}"));
        assert!(uids.insert(board["uid"].to_string()), "{name}: its uid is another's");
        assert_eq!(board["tags"][0], "campaignd", "{name}: is not linked to by the others");
        assert_eq!(board["links"][0]["tags"][0], "campaignd", "{name}: has no links to the others");
        let variables: BTreeSet<&str> =
            board["templating"]["list"].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap()).collect();
        let mut ids = BTreeSet::new();
        for panel in board["panels"].as_array().unwrap() {
            let (title, defaults) = (&panel["title"], &panel["fieldConfig"]["defaults"]);
            assert!(title.as_str().is_some_and(|t| !t.is_empty()), "{name}");
            assert!(panel["description"].as_str().is_some_and(|d| d.ends_with('.')), "{name}: {title}");
            assert!(defaults["unit"].as_str().is_some_and(|u| !u.is_empty()), "{name}: {title}");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{name}: {title}");
            assert!(!panel["targets"].as_array().unwrap().is_empty(), "{name}: {title}");
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: {title}");
        }
        for query in queries(&board) {
            for (at, _) in query.match_indices('$') {
                let used = query[at + 1..].split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap();
                assert!(used == "__rate_interval" || variables.contains(used), "{name}: no variable ${used}: {query}");
            }
        }
    }
}

#[test]
fn every_alert_has_a_severity_a_summary_a_runbook_and_two_tests() {
    let tests = files("grafana/prometheus/tests", "yml").into_values().collect::<String>();
    let named: BTreeSet<&str> = tests.lines().filter_map(|l| l.strip_prefix("  - name: ")).collect();
    let runbooks = files("docs/runbooks", "md");
    let alerts = alerts();
    for (alert, rules) in &alerts {
        for rule in rules {
            assert!(
                ["page", "ticket"].iter().any(|s| rule.contains(&format!("\n          severity: {s}\n"))),
                "{alert}"
            );
            assert!(rule.contains("\n          summary: "), "{alert}");
            assert!(rule.contains(&format!("\n          runbook_url: docs/runbooks/{alert}.md")), "{alert}");
        }
        let book = runbooks.get(alert).unwrap_or_else(|| panic!("{alert} has no runbook"));
        assert!(book.starts_with(&format!("# {alert}\n")), "{alert}");
        for heading in ["\n## What it means\n", "\n## How to see it\n", "\n## What to do\n"] {
            assert!(book.contains(heading), "{alert}: {heading}");
        }
        for end in ["fires", "stays silent"] {
            assert!(named.contains(format!("{alert} {end}").as_str()), "{alert}: no test that it {end}");
        }
    }
    for book in runbooks.keys() {
        assert!(alerts.contains_key(book), "{book} is the runbook of no alert");
    }
}

/// All the program's sources, on one line: texts are wrapped in there.
fn sources(directory: &Path, all: &mut String) {
    for entry in fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()) {
        if entry.is_dir() {
            sources(&entry, all);
        } else {
            let text = fs::read_to_string(&entry).unwrap().replace("\\\n", "");
            all.push_str(&text.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
}

#[test]
fn what_runbooks_quote_from_the_log_is_what_the_program_says() {
    // What the driver says.
    const FOREIGN: &[&str] = &["pool timed out"];
    let (mut all, mut quoted) = (String::new(), 0);
    sources(&root().join("src"), &mut all);
    for (name, book) in files("docs/runbooks", "md") {
        let book = book.split_whitespace().collect::<Vec<_>>().join(" ");
        for after in book.split("`docker compose logs campaignd`)").skip(1) {
            let end = [after.find(" - "), after.find(" ## ")].into_iter().flatten().min().unwrap_or(after.len());
            for line in after[..end].split('`').skip(1).step_by(2) {
                quoted += 1;
                assert!(all.contains(line) || FOREIGN.contains(&line), "{name}: nothing says `{line}`");
            }
        }
    }
    assert!(quoted > 15, "{quoted}");
}

#[test]
fn runbooks_name_commands_that_exist_and_link_to_runbooks_that_exist() {
    use std::process::Command;
    let mut commands = BTreeSet::new();
    for (name, book) in files("docs/runbooks", "md") {
        // Lines are wrapped anywhere, also within a command.
        let book = book.split_whitespace().collect::<Vec<_>>().join(" ");
        for code in book.split('`').skip(1).step_by(2).filter_map(|c| c.strip_prefix("campaignd ")) {
            let path = code.split(' ').take_while(|w| w.chars().all(|c| c.is_ascii_lowercase())).map(str::to_owned);
            commands.insert(path.collect::<Vec<_>>());
        }
        for link in book.split("](").skip(1).filter_map(|l| l.split(')').next()) {
            assert!(root().join("docs/runbooks").join(link).exists(), "{name}: {link}");
        }
    }
    assert!(commands.len() > 5, "{commands:?}");
    for command in commands {
        let status =
            Command::new(env!("CARGO_BIN_EXE_campaignd")).args(&command).arg("--help").output().unwrap().status;
        assert!(status.success(), "campaignd {}", command.join(" "));
    }
}
