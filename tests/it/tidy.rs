//! The shape of the source: who may import whom, where SQL and the clock live, how long a file is.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot set itself up has failed")]

use std::fs;
use std::path::{Path, PathBuf};

/// A file may not be longer.
const LINES_MAX: usize = 700;

/// The rooms by floor, lowest first. A file imports only from lower floors, and from its own room.
const FLOORS: &[&[&str]] = &[
    &["domain"],
    &["clock", "telemetry", "postgres"],
    &["store", "provider"],
    &["runtime"],
    &["http", "sandbox"],
    &["service", "bench", "cli", "config"],
];

struct File {
    /// Relative to the crate, for example `src/runtime/shard.rs`.
    path: String,
    /// For example `runtime`; `main` and `lib` for the roots.
    room: String,
    text: String,
}

impl File {
    /// The lines that are code: without comments, and without a `#[cfg(test)] mod` at the end of the file.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = self.text.find("#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        self.text[..end]
            .lines()
            .enumerate()
            .map(|(n, line)| (n + 1, line.split("// ").next().unwrap_or(line)))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("tests.rs")
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<File> {
    let mut found = Vec::new();
    let mut dirs = vec![root().join("src")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let inside = path.strip_prefix(root().join("src")).unwrap();
                let first = inside.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
                found.push(File {
                    path: format!("src/{}", inside.display()),
                    room: first.trim_end_matches(".rs").to_owned(),
                    text: fs::read_to_string(&path).unwrap(),
                });
            }
        }
    }
    assert!(found.len() > 50, "the tree is where it is expected");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// The rooms that a line names by `crate::`, also in a group.
fn rooms_named(line: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        if line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &line[at + "crate::".len()..];
        let group = rest.strip_prefix('{').map(|r| r.split('}').next().unwrap_or(r));
        let names: Vec<&str> = group.map_or_else(|| vec![rest], |g| g.split(',').collect());
        for name in names {
            let word: String = name.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            rooms.push(word);
        }
    }
    rooms
}

/// Every offence of a rule, so that one run shows them all.
fn none(what: &str, offences: Vec<String>) {
    assert!(offences.is_empty(), "{what}:\n  {}", offences.join("\n  "));
}

/// Lines outside `allowed` that contain one of `words`.
fn lines_with(words: &[&str], allowed: impl Fn(&File) -> bool) -> Vec<String> {
    let mut offences = Vec::new();
    for file in sources().iter().filter(|f| !allowed(f)) {
        for (n, line) in file.code() {
            if words.iter().any(|w| line.contains(w)) {
                offences.push(format!("{}:{n}: {}", file.path, line.trim()));
            }
        }
    }
    offences
}

#[test]
fn files_import_from_lower_floors_only() {
    let mut offences = Vec::new();
    for file in sources() {
        let Some(own) = floor(&file.room) else {
            assert!(
                ["main", "lib"].contains(&file.room.as_str()),
                "{} stands on no floor: add its room here",
                file.path
            );
            continue;
        };
        for (n, line) in file.code() {
            for room in rooms_named(line) {
                let climbs = floor(&room).is_some_and(|other| other > own || (other == own && room != file.room));
                // The top floor is one house: commands, configuration, and what starts a server.
                let top = own == FLOORS.len() - 1 && floor(&room) == Some(own);
                if climbs && !top {
                    offences.push(format!("{}:{n}: {}", file.path, line.trim()));
                }
            }
        }
    }
    none("imports from the same floor or a higher one", offences);
}

#[test]
fn the_sandbox_shares_no_types_with_the_client() {
    let offences = sources()
        .iter()
        .filter(|f| f.room == "sandbox")
        .flat_map(|f| f.code().map(|(n, line)| (f.path.clone(), n, line.to_owned())).collect::<Vec<_>>())
        .filter(|(_, _, line)| {
            rooms_named(line).iter().any(|room| ["provider", "runtime", "store", "http"].contains(&room.as_str()))
        })
        .map(|(path, n, line)| format!("{path}:{n}: {}", line.trim()))
        .collect();
    none("imports of what it imitates", offences);
}

#[test]
fn sql_is_in_store_only() {
    let words = ["sqlx::", "SELECT ", "INSERT INTO", "DELETE FROM"];
    none(
        "SQL outside src/store",
        lines_with(&words, |f| ["store", "postgres"].contains(&f.room.as_str()) || f.is_test()),
    );
}

#[test]
fn ractor_is_known_in_runtime_only() {
    none("ractor outside src/runtime", lines_with(&["ractor::"], |f| f.room == "runtime"));
}

#[test]
fn the_os_clock_is_read_in_clock_only() {
    let words = ["SystemTime::now", "Utc::now", "Local::now"];
    none("clock reads outside src/clock.rs", lines_with(&words, |f| f.path == "src/clock.rs"));
}

#[test]
fn nothing_is_left_to_be_done() {
    none("stubs", lines_with(&["todo!", "unimplemented!", "dbg!", "TODO", "FIXME", "XXX"], |_| false));
}

#[test]
fn every_file_says_what_it_is_and_is_not_too_long() {
    let mut offences = Vec::new();
    for file in sources() {
        if !file.text.starts_with("//!") {
            offences.push(format!("{}: does not open with `//!`", file.path));
        }
        let lines = file.text.lines().count();
        if lines > LINES_MAX {
            offences.push(format!("{}: {lines} lines", file.path));
        }
    }
    none("files", offences);
}

#[test]
fn contributing_names_every_dependency() {
    let Ok(text) = fs::read_to_string(root().join("CONTRIBUTING.md")) else { return };
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut inside = false;
    let mut missing = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]");
        } else if inside && let Some((name, _)) = line.split_once('=') {
            let name = name.trim();
            if !name.starts_with('#') && !text.contains(name) {
                missing.push(name.to_owned());
            }
        }
    }
    none("dependencies that CONTRIBUTING.md does not name", missing);
}
