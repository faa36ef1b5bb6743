//! The report of a run: what was measured, on which machine, with which program and Postgres.
//!
//! `report.json` is for programs: its form has a name, and a field is only ever added under the same name. `report.md` and
//! the plots are for people.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Bound, Error, Figure, Latencies, Part, Server, Settings, markdown, plot};
use crate::domain::time::Timestamp;

/// The name of the form of `report.json`.
pub const SCHEMA: &str = "campaignd-bench/1";

/// Where a run took place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The processor, in its own words.
    pub cpu: String,
    /// Cores that the program may use.
    pub cores: usize,
    /// Bytes of memory; 0 where the system does not tell.
    pub memory: u64,
    /// The system and its version.
    pub kernel: String,
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo")
            .lines()
            .find_map(|l| l.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim().to_owned()));
        let kernel = read("/proc/sys/kernel/osrelease");
        Self {
            cpu: cpu.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: thread::available_parallelism().map_or(1, usize::from),
            memory: super::memory::total().unwrap_or(0),
            kernel: format!("{} {}", std::env::consts::OS, kernel.trim()).trim().to_owned(),
        }
    }
}

/// Which program was measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its version.
    pub version: &'static str,
    /// The commit it was built from; `unknown` outside of a repository.
    pub commit: &'static str,
    /// `release` or `debug`.
    pub profile: &'static str,
    /// The compiler.
    pub rustc: &'static str,
}

impl Program {
    /// This one.
    pub const THIS: Self = Self {
        version: env!("CARGO_PKG_VERSION"),
        commit: env!("CAMPAIGND_COMMIT"),
        profile: env!("CAMPAIGND_PROFILE"),
        rustc: env!("CAMPAIGND_RUSTC"),
    };
}

/// What Postgres was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postgres {
    /// Its version.
    pub version: String,
    /// Whether it was a private cluster of the run; else the server of `DATABASE_URL`.
    pub private: bool,
    /// Settings by name.
    pub settings: Vec<(String, String)>,
}

impl Postgres {
    /// The one of a run.
    pub fn of(server: &Server) -> Self {
        Self {
            version: server.version().to_owned(),
            private: server.is_private(),
            settings: server.settings().to_vec(),
        }
    }
}

/// One part at one size.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it found; else why it was not measured.
    pub found: Result<Part, String>,
    /// Its name.
    pub name: &'static str,
    /// Prospects.
    pub size: u64,
    /// How long it took.
    pub took: Duration,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Report {
    /// Which program.
    pub program: Program,
    /// Where.
    pub machine: Machine,
    /// On what.
    pub postgres: Postgres,
    /// How.
    pub settings: Settings,
    /// When it began.
    pub started: Timestamp,
    /// How long it took so far.
    pub took: Duration,
    /// In the order in which they were measured.
    pub entries: Vec<Entry>,
}

impl Report {
    /// The parts that were measured.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        self.entries.iter().filter_map(|e| e.found.as_ref().ok())
    }

    /// Targets that were met, and that were missed.
    pub fn score(&self) -> (usize, usize) {
        let met = |wanted| self.parts().flat_map(|p| &p.figures).filter(|f| f.is_met() == Some(wanted)).count();
        (met(true), met(false))
    }

    /// Whether a part that was asked for could not be measured.
    pub fn has_failures(&self) -> bool {
        self.entries.iter().any(|e| e.found.is_err())
    }

    /// As `report.json` has it.
    pub fn json(&self) -> Value {
        let (met, missed) = self.score();
        let measured = self.entries.iter().filter_map(|e| e.found.as_ref().ok().map(|p| part_json(p, e.took)));
        let missing = self
            .entries
            .iter()
            .filter_map(|e| e.found.as_ref().err().map(|why| json!({"name": e.name, "prospects": e.size, "why": why})));
        let postgres: serde_json::Map<String, Value> =
            self.postgres.settings.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        json!({
            "schema": SCHEMA,
            "program": {
                "version": self.program.version,
                "commit": self.program.commit,
                "profile": self.program.profile,
                "rustc": self.program.rustc,
            },
            "machine": {
                "cpu": self.machine.cpu,
                "cores": self.machine.cores,
                "memory_bytes": self.machine.memory,
                "kernel": self.machine.kernel,
            },
            "postgres": {"version": self.postgres.version, "private": self.postgres.private, "settings": postgres},
            "settings": {
                "sizes": self.settings.sizes,
                "part_seconds": self.settings.seconds,
                "accounts": self.settings.sizes.iter().map(|n| self.settings.accounts(*n)).collect::<Vec<_>>(),
            },
            "started_at": self.started.to_string(),
            "seconds": seconds(self.took),
            "targets": {"met": met, "missed": missed},
            "parts": measured.collect::<Vec<_>>(),
            "not_measured": missing.collect::<Vec<_>>(),
        })
    }

    /// Writes `report.json`, `report.md` and the plots into a directory, which is made when it is missing. Files of an
    /// earlier run with the same names are replaced.
    ///
    /// # Errors
    /// When the directory or a file cannot be written.
    pub fn write(&self, directory: &Path) -> Result<(), Error> {
        let wrote = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).map_err(Error::io(format!("writing {}", path.display())))
        };
        fs::create_dir_all(directory).map_err(Error::io(format!("making {}", directory.display())))?;
        wrote("report.json", &format!("{:#}\n", self.json()))?;
        let plots = plot::all(&self.parts().collect::<Vec<_>>());
        for plot in &plots {
            wrote(&plot.file, &plot.svg)?;
        }
        wrote("report.md", &markdown::write(self, &plots))
    }
}

fn part_json(part: &Part, took: Duration) -> Value {
    let latencies = part.latencies.iter().map(|(name, l)| latencies_json(name, l));
    let series = part.series.iter().map(|s| {
        let points: Vec<[f64; 2]> = s.points.iter().map(|(at, value)| [*at, *value]).collect();
        json!({"name": s.name, "unit": s.unit.as_str(), "points": points})
    });
    json!({
        "name": part.name,
        "prospects": part.size,
        "seconds": seconds(took),
        "figures": part.figures.iter().map(figure_json).collect::<Vec<_>>(),
        "latencies": latencies.collect::<Vec<_>>(),
        "series": series.collect::<Vec<_>>(),
        "notes": part.notes,
    })
}

fn figure_json(figure: &Figure) -> Value {
    let target = figure.target.as_ref().map(|t| {
        let bound = match t.bound {
            Bound::AtMost => "at_most",
            Bound::AtLeast => "at_least",
        };
        json!({"bound": bound, "value": t.value, "from": t.from})
    });
    json!({
        "name": figure.name,
        "value": figure.value,
        "unit": figure.unit.as_str(),
        "target": target,
        "met": figure.is_met(),
        "note": figure.note,
    })
}

fn latencies_json(name: &str, latencies: &Latencies) -> Value {
    let mut json =
        json!({"name": name, "unit": "s", "count": latencies.count(), "mean": latencies.mean().as_secs_f64()});
    for (label, value) in latencies.percentiles() {
        json[label] = json!(value.as_secs_f64());
    }
    json
}

/// To the tenth.
fn seconds(took: Duration) -> f64 {
    (took.as_secs_f64() * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Series, Unit};

    fn report() -> Report {
        let latencies = Latencies::new();
        for micros in [100, 100, 100, 2000] {
            latencies.record(Duration::from_micros(micros));
        }
        let mut part = Part::new("flow", 10_000);
        part.figures.push(
            Figure::new("transitions", 21_000.0, Unit::PerSecond)
                .at_least_times(0.7, Some(40_000.0), "batch 512 through pgbench")
                .note("60 s"),
        );
        part.figures.push(Figure::new("memory", 8_000.0, Unit::Bytes).at_most(9_000.0));
        part.figures.push(Figure::unmeasured("WAL", Unit::Bytes, "no | idea"));
        part.latencies.push(("commit".to_owned(), latencies));
        part.series.push(Series {
            name: "transitions".to_owned(),
            unit: Unit::PerSecond,
            points: vec![(0.0, 5.0), (1.0, 7.0)],
        });
        part.notes.push("one at a time".to_owned());
        Report {
            program: Program { version: "1.2.3", commit: "abc", profile: "release", rustc: "rustc 1" },
            machine: Machine { cpu: "CPU".to_owned(), cores: 2, memory: 24_000_000_000, kernel: "linux 6".to_owned() },
            postgres: Postgres {
                version: "15.1".to_owned(),
                private: true,
                settings: vec![("fsync".to_owned(), "on".to_owned())],
            },
            settings: Settings { sizes: vec![10_000, 100_000], seconds: 60, report: "r".into(), accounts: None },
            started: Timestamp::from_micros(1_767_603_600_000_000),
            took: Duration::from_millis(61_234),
            entries: vec![
                Entry { found: Ok(part), name: "flow", size: 10_000, took: Duration::from_secs(60) },
                Entry { found: Err("needs room".to_owned()), name: "flow", size: 100_000, took: Duration::ZERO },
            ],
        }
    }

    #[test]
    fn the_form_of_the_json_is_kept() {
        let expected = json!({
            "schema": "campaignd-bench/1",
            "program": {"version": "1.2.3", "commit": "abc", "profile": "release", "rustc": "rustc 1"},
            "machine": {"cpu": "CPU", "cores": 2, "memory_bytes": 24_000_000_000_u64, "kernel": "linux 6"},
            "postgres": {"version": "15.1", "private": true, "settings": {"fsync": "on"}},
            "settings": {"sizes": [10_000, 100_000], "part_seconds": 60, "accounts": [40, 400]},
            "started_at": "2026-01-05T09:00:00.000000Z",
            "seconds": 61.2,
            "targets": {"met": 1, "missed": 1},
            "parts": [{
                "name": "flow",
                "prospects": 10_000,
                "seconds": 60.0,
                "figures": [
                    {
                        "name": "transitions", "value": 21_000.0, "unit": "1/s", "met": false, "note": "60 s",
                        "target": {"bound": "at_least", "value": 28_000.0, "from": "0.7 x batch 512 through pgbench"},
                    },
                    {
                        "name": "memory", "value": 8_000.0, "unit": "B", "met": true, "note": null,
                        "target": {"bound": "at_most", "value": 9_000.0, "from": null},
                    },
                    {"name": "WAL", "value": null, "unit": "B", "met": null, "note": "no | idea", "target": null},
                ],
                "latencies": [{
                    "name": "commit", "unit": "s", "count": 4, "mean": 0.000_575,
                    "p50": 0.000_100_096, "p90": 0.002, "p99": 0.002, "p99.9": 0.002, "max": 0.002,
                }],
                "series": [{"name": "transitions", "unit": "1/s", "points": [[0.0, 5.0], [1.0, 7.0]]}],
                "notes": ["one at a time"],
            }],
            "not_measured": [{"name": "flow", "prospects": 100_000, "why": "needs room"}],
        });
        assert_eq!(format!("{:#}", report().json()), format!("{expected:#}"));
    }

    #[test]
    fn the_report_for_people_shows_figures_beside_their_targets() {
        let directory = std::env::temp_dir().join(format!("campaignd-report-{}", std::process::id()));
        report().write(&directory).unwrap();
        let text = fs::read_to_string(directory.join("report.md")).unwrap();
        for line in [
            "Targets: 1 met, 1 missed.",
            "| transitions | **21,000/s (≥ 28,000/s) ✗** | ≥ 0.7 x batch 512 through pgbench |",
            "| memory | 8,000 B ✓ | ≤ 9,000 B |",
            "| WAL | not measured |  |",
            "Not measured with 100,000 prospects: needs room",
            "- one at a time",
            "- WAL: no | idea",
            "![flow: latencies by percentile, 10,000 prospects](flow-latency.svg)",
            "Postgres 15.1 (a private cluster of this run): fsync on.",
        ] {
            assert!(text.contains(line), "{line}\nin\n{text}");
        }
        assert!(fs::read_to_string(directory.join("flow-latency.svg")).unwrap().starts_with("<svg"));
        assert!(fs::read_to_string(directory.join("report.json")).unwrap().contains("campaignd-bench/1"));
        fs::remove_dir_all(directory).unwrap();
    }
}
