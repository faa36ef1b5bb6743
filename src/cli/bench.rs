//! `campaignd bench`: measures the engine on this machine and writes a report.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args as ClapArgs, ValueEnum};
use tokio::sync::watch;

use super::output::{Colour, Failure, Paint, Table, count, print, print_json};
use super::serve::Stop;
use crate::bench::needs::{Needs, Room};
use crate::bench::parts::{self, Kind};
use crate::bench::report::{Entry, Machine, Postgres, Program, Report};
use crate::bench::{Bench, Error, Figure, Part, Server, Settings, markdown};
use crate::config::Config;

/// The smallest of the sizes that are run by themselves.
const SIZE_MIN: u64 = 10_000;
/// The smallest that can be asked for. The floors, and the parts that are held against them, need ten times as many.
const SIZE_LEAST: u64 = 500;
/// The largest: what a table of one database is made for.
const SIZE_MAX: u64 = 20_000_000;

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Everything below, smallest size first.
    All,
    /// What the rest is held against: a one-row commit, the writer's own statement through pgbench at batch 1 and 512, bare
    /// actors. Measured anyway when a part needs it.
    Floor,
    /// Prospects enrolled, then made resident: actors a second, and bytes of memory each.
    Spawn,
    /// kill -9 with everybody resident, restart: time to the first due work done, time to all resident.
    Rehydrate,
    /// From a trigger to the next send handed to the channel, durable first: idle and under load, and over HTTP from the
    /// webhook to the provider's call.
    React,
    /// Everybody through the seed's three steps with a provider that answers at once: durable transitions a second.
    Flow,
    /// Everybody asleep, some due each second: how late they wake, and what sleeping costs.
    Timers,
    /// Ten times as many enrolled as may be resident: bytes a parked prospect, and how soon one reacts.
    Park,
    /// A CSV through the API: rows a second, and memory meanwhile.
    Upload,
    /// Bytes of write-ahead log a transition, with and without an index on the due time.
    Wal,
    /// What the metrics cost: the flow in turn with them and without, as a ratio.
    Counting,
}

impl What {
    const fn kind(self) -> Option<Kind> {
        Some(match self {
            Self::All => return None,
            Self::Floor => Kind::Floor,
            Self::Spawn => Kind::Spawn,
            Self::Rehydrate => Kind::Rehydrate,
            Self::React => Kind::React,
            Self::Flow => Kind::Flow,
            Self::Timers => Kind::Timers,
            Self::Park => Kind::Park,
            Self::Upload => Kind::Upload,
            Self::Wal => Kind::Wal,
            Self::Counting => Kind::Counting,
        })
    }
}

/// Arguments of `bench`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
    campaignd bench all --prospects 1000000 --report bench-report\n  \
    campaignd bench flow react --prospects 100000 --part-seconds 20\n  \
    campaignd bench floor --sizes 10000 --json\n\n\
    It runs a Postgres of its own, made beside the usual one and removed at the end; with DATABASE_URL it makes databases of \
    its own on that server instead (the role needs CREATEDB) and drops them, and refuses when the database named there holds \
    campaigns. It touches no table that was there before. Ctrl-C cleans up and keeps the report of what was measured.\n\n\
    With --prospects N every part runs at 10,000, 100,000, 1,000,000 .. up to N, so that the report shows how figures grow.\n\n\
    prospects    memory     disk       free before a part begins\n\
    10,000       1.1 GB     4.1 GB\n\
    100,000      2.0 GB     5.4 GB\n\
    1,000,000    11.2 GB    18.9 GB\n\n\
    What cannot fit is refused by name and the rest runs. A part takes --part-seconds for each of its sustained loads, and the \
    time to enrol its prospects. Use a release build, and leave the machine alone meanwhile.\n\n\
    A target that is missed is a result: the exit code is 0, with --strict it is 1. 1 also when a part could not be \
    measured; 2 when nothing could.")]
pub(super) struct Args {
    /// What to measure.
    #[arg(required = true, value_name = "PART")]
    what: Vec<What>,
    /// How many prospects; every part also runs at the powers of ten below, from 10,000.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(SIZE_MIN..=SIZE_MAX))]
    prospects: u64,
    /// These numbers of prospects instead, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "N,..", conflicts_with = "prospects",
        value_parser = clap::value_parser!(u64).range(SIZE_LEAST..=SIZE_MAX))]
    sizes: Vec<u64>,
    /// Where report.json, report.md and the plots go.
    #[arg(long, value_name = "DIR", default_value = "campaignd-bench")]
    report: PathBuf,
    /// How long a sustained load lasts.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(2..=3600))]
    part_seconds: u64,
    /// Sending accounts, instead of one for every 250 prospects (16 to 4,096; at least 1,023 where sends are measured).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(3..=100_000))]
    accounts: Option<u32>,
    /// Print report.json to standard output instead of a table.
    #[arg(long)]
    json: bool,
    /// Exit code 1 when a target is missed.
    #[arg(long)]
    strict: bool,
}

impl Args {
    fn sizes(&self) -> Vec<u64> {
        let powers = std::iter::successors(Some(SIZE_MIN), |n| n.checked_mul(10)).take_while(|n| *n < self.prospects);
        let sizes: BTreeSet<u64> = match self.sizes.as_slice() {
            [] => powers.chain([self.prospects]).collect(),
            chosen => chosen.iter().copied().collect(),
        };
        sizes.into_iter().collect()
    }

    fn kinds(&self) -> Vec<Kind> {
        let all = self.what.contains(&What::All);
        let wanted: Vec<Kind> = self.what.iter().filter_map(|w| w.kind()).collect();
        Kind::ALL.into_iter().filter(|kind| all || wanted.contains(kind)).collect()
    }
}

pub(super) async fn run(args: Args, config: Config) -> Result<ExitCode, Failure> {
    let settings = Settings {
        sizes: args.sizes(),
        seconds: args.part_seconds,
        report: args.report.clone(),
        accounts: args.accounts,
    };
    std::fs::create_dir_all(&args.report)
        .map_err(|e| Failure::unusable(format!("cannot make {}: {e}", args.report.display())))?;
    if Program::THIS.profile != "release" {
        eprintln!("campaignd: this is a {} build: its figures say nothing about the program", Program::THIS.profile);
    }
    let (cancel, cancelled) = watch::channel(false);
    watch_for_the_end(cancel)?;
    let url = config.database_url.as_ref().map(|url| url.expose().to_owned());
    let server = Server::open(url.as_deref()).await.map_err(|e| failure(&e))?;
    let bench = Bench::new(settings, server, cancelled);
    let report = measure(&bench, &args).await;
    bench.close().await;
    let report = report.map_err(|e| failure(&e))?;
    let cancelled = report.entries.iter().any(|e| matches!(&e.found, Err(why) if *why == Error::Cancelled.to_string()));
    if args.json {
        print_json(&report.json())?;
    } else {
        print(&table(&report, Paint::stdout()))?;
    }
    eprintln!("report: {}", args.report.join("report.md").display());
    Ok(match report.score() {
        _ if cancelled => ExitCode::from(130),
        _ if report.has_failures() => ExitCode::from(1),
        (_, missed) if missed > 0 && args.strict => ExitCode::from(1),
        _ => ExitCode::SUCCESS,
    })
}

/// The first Ctrl-C (or SIGTERM) ends the run in order, the second one ends the process: the next run cleans up then.
fn watch_for_the_end(cancel: watch::Sender<bool>) -> Result<(), Failure> {
    let mut stop = Stop::new()?;
    tokio::spawn(async move {
        stop.requested().await;
        eprintln!("\ncleaning up; once more to leave that to the next run");
        cancel.send_replace(true);
        stop.requested().await;
        std::process::exit(130);
    });
    Ok(())
}

/// Nothing could be measured.
fn failure(error: &Error) -> Failure {
    match error {
        Error::Cancelled => Failure { message: "cancelled".to_owned(), exit_code: 130 },
        error => Failure::unusable(super::output::with_sources(error)),
    }
}

/// Measures everything, size by size, and keeps the report up to date on disk meanwhile.
async fn measure(bench: &Bench, args: &Args) -> Result<Report, Error> {
    let begun = Instant::now();
    let mut report = Report {
        program: Program::THIS,
        machine: Machine::this(),
        postgres: Postgres::of(bench.server()),
        settings: bench.settings().clone(),
        started: crate::clock::Clock::System.now(),
        took: begun.elapsed(),
        entries: Vec::new(),
    };
    let holds_against_bare = |kind: &Kind| matches!(kind, Kind::Floor | Kind::Spawn | Kind::Rehydrate);
    for size in bench.settings().sizes.clone() {
        let room = Room::now(bench.server().free_disk());
        if args.kinds().iter().any(holds_against_bare) && Needs::of(Kind::Floor, size).refusal(room).is_none() {
            // What goes wrong here is said where the figure is missing.
            let _ = bench.bare(size).await;
        }
    }
    for size in bench.settings().sizes.clone() {
        for kind in args.kinds() {
            eprintln!("{} with {} prospects", kind.name(), count(size));
            let started = Instant::now();
            let found = match Needs::of(kind, size).refusal(Room::now(bench.server().free_disk())) {
                Some(refusal) => Err(refusal),
                None => tokio::select! {
                    found = parts::run(kind, bench, size) => found.map_err(|e| super::output::with_sources(&e)),
                    // Dropping the part ends what it started.
                    () = bench.cancelled() => Err(Error::Cancelled.to_string()),
                },
            };
            if let Err(why) = &found {
                eprintln!("  not measured: {why}");
            }
            report.entries.push(Entry { found, name: kind.name(), size, took: started.elapsed() });
            report.took = begun.elapsed();
            report.write(&args.report)?;
            bench.server().sweep().await;
            if bench.is_cancelled() {
                return Ok(report);
            }
        }
    }
    Ok(report)
}

/// The figures on a terminal: those with targets, and the others without their percentiles in between.
fn table(report: &Report, paint: Paint) -> String {
    let mut sizes: Vec<u64> = report.entries.iter().map(|e| e.size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let heads: Vec<String> = sizes.iter().map(|n| count(*n)).collect();
    let mut head = vec!["PART", "FIGURE"];
    head.extend(heads.iter().map(String::as_str));
    head.push("TARGET");
    let mut table = Table::new(&head);
    for kind in Kind::ALL {
        let parts: Vec<&Part> = report.parts().filter(|p| p.name == kind.name()).collect();
        for (name, figures) in markdown::rows(&parts) {
            let has_target = figures.iter().flatten().any(|f| f.target.is_some());
            if !has_target && (name.ends_with(" p90") || name.ends_with(" p99.9") || name.ends_with(" max")) {
                continue;
            }
            let at = |size: &u64| -> Option<&Figure> {
                parts.iter().zip(&figures).find(|(part, _)| part.size == *size).and_then(|(_, figure)| *figure)
            };
            let cells: Vec<(Colour, String)> = sizes
                .iter()
                .map(|size| match at(size) {
                    Some(figure) => match figure.is_met() {
                        Some(true) => (Colour::Green, format!("{} ✓", markdown::value(figure))),
                        Some(false) => (Colour::Red, format!("{} ✗", markdown::value(figure))),
                        None => (Colour::Plain, markdown::value(figure)),
                    },
                    None => (Colour::Plain, String::new()),
                })
                .collect();
            let target = markdown::target(&figures);
            let row = [(Colour::Bold, kind.name()), (Colour::Plain, name)];
            let cells = cells.iter().map(|(colour, text)| (*colour, text.as_str()));
            table.row(row.into_iter().chain(cells).chain([(Colour::Dim, target.as_str())]));
        }
    }
    let (met, missed) = report.score();
    let mut out = table.render(paint);
    out.push_str(&format!("targets: {met} met, {missed} missed\n"));
    out
}
