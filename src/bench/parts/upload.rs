//! A CSV through the API: the real daemon as a process, `campaignd prospects import` as another.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use uuid::Uuid;

use super::desk;
use super::people::{self, Stage};
use super::rig::{Daemon, patience, settled_memory};
use crate::bench::{Bench, Error, Figure, Part, Series, Unit};
use crate::clock::Clock;
use crate::domain::id::CampaignId;
use crate::service::DEFAULT_WORKSPACE;
use crate::store::{api_key, campaign};

/// Rows a second.
const RATE_MIN: f64 = 20_000.0;
/// Live actors of the daemon.
const RESIDENT_MAX: u64 = 10_000;
/// Between two looks at the daemon's memory.
const LOOK: Duration = Duration::from_millis(100);

/// Measures it.
#[expect(clippy::cast_precision_loss, reason = "counts and bytes far below 2^53")]
pub(super) async fn run(bench: &Bench, size: u64) -> Result<Part, Error> {
    let scratch = bench.scratch("upload").await?;
    let now = Clock::System.now();
    let flow = people::seed_flow("48h");
    Stage::set(&scratch.pool, &flow, desk::NAME, bench.settings().accounts(size), now).await?;
    // A draft, as uploads are made: nothing of it runs yet.
    let campaign = campaign::create(&scratch.pool, DEFAULT_WORKSPACE, "upload", &flow, None, now).await?;
    let key = api_key::create(&scratch.pool, DEFAULT_WORKSPACE, "bench", now).await?.reveal();
    let directory = tempdir()?;
    let file = directory.0.join("people.csv");
    let written = write_csv(bench, &file, size)?;

    let mut daemon = Daemon::start(&scratch, &[super::park::resident_limit(RESIDENT_MAX)])?;
    daemon.ready(bench, 0).await?;
    let process = daemon.process();
    let before = settled_memory(bench, &process).await?;
    let mut import = Import(import(&daemon, campaign, &key, &file)?);
    let (begun, limit) = (Instant::now(), patience(size));
    let _progress = bench.progress("uploading a CSV", size);
    let (mut peak, mut points) = (before, Vec::new());
    let status = loop {
        if let Some(status) = import.0.try_wait().map_err(Error::io("waiting for an import"))? {
            break status;
        }
        let rss = process.rss().unwrap_or_default();
        peak = peak.max(rss);
        points.push((begun.elapsed().as_secs_f64(), rss as f64));
        daemon.check(bench, limit * 2, "did not take the upload")?;
        tokio::time::sleep(LOOK).await;
    };
    let took = begun.elapsed();
    let report = import.output()?;
    let accepted = report["accepted"].as_u64().unwrap_or_default();
    if !status.success() || accepted != size {
        return Err(Error::Refused(format!("{accepted} of {size} rows were taken ({status})")));
    }
    let after = settled_memory(bench, &process).await?;
    daemon.kill()?;

    let mut part = Part::new("upload", size);
    let rate = size as f64 / took.as_secs_f64();
    part.figures.push(Figure::new("rows taken in", rate, Unit::PerSecond).at_least(RATE_MIN));
    part.figures.push(
        Figure::new("whole upload", took.as_secs_f64(), Unit::Seconds)
            .note(format!("{:.0} MB of CSV, the start of the command included", written as f64 / 1e6)),
    );
    part.figures.push(Figure::new("memory of the daemon before", before as f64, Unit::Bytes));
    part.figures.push(Figure::new("memory of the daemon, most", peak as f64, Unit::Bytes));
    part.figures.push(Figure::new("memory of the daemon after", after as f64, Unit::Bytes));
    part.series.push(Series { name: "memory of the daemon".to_owned(), unit: Unit::Bytes, points });
    part.notes.push(format!(
        "`campaignd prospects import` into a draft of `campaignd serve`; at most {RESIDENT_MAX} may be resident there, so that \
         its memory shows the upload and not those who were taken in"
    ));
    Ok(part)
}

/// The command, killed when it is dropped too early.
struct Import(Child);

impl Drop for Import {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Import {
    /// What it printed: few enough bytes to have waited in the pipe.
    fn output(&mut self) -> Result<Value, Error> {
        let Some(output) = self.0.stdout.take() else { return Ok(Value::Null) };
        serde_json::from_reader(output).map_err(|e| Error::Refused(format!("cannot read the report of an import: {e}")))
    }
}

fn import(daemon: &Daemon, campaign: CampaignId, key: &str, file: &Path) -> Result<Child, Error> {
    let binary = std::env::current_exe().map_err(Error::io("finding this program"))?;
    Command::new(binary)
        .args(["prospects", "import", "--json", "--campaign"])
        .arg(campaign.to_string())
        .arg(file)
        .env("CAMPAIGND_SERVER", format!("http://{}", daemon.api))
        .env("CAMPAIGND_API_KEY", key)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(Error::io("starting an import"))
}

/// Writes the file, and answers its bytes.
fn write_csv(bench: &Bench, path: &Path, rows: u64) -> Result<u64, Error> {
    let failed = |e| Error::io(format!("writing {}", path.display()))(e);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).map_err(failed)?);
    writeln!(out, "first_name,last_name,email,linkedin_url,company_name,title,city,employees").map_err(failed)?;
    let progress = bench.progress("writing a CSV", rows);
    for n in 0..rows {
        writeln!(
            out,
            "Person{n},Example,person.{n}@people.example,https://www.linkedin.com/in/person-{n},\"Nordwind {}, Ltd\",\
             Head of Sales,Lisbon,{}",
            n % 1000,
            n % 5000
        )
        .map_err(failed)?;
        if n % 10_000 == 0 {
            progress.set(n);
            bench.check()?;
        }
    }
    out.flush().map_err(failed)?;
    Ok(path.metadata().map_err(failed)?.len())
}

/// A directory that goes when it is dropped.
struct Directory(std::path::PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tempdir() -> Result<Directory, Error> {
    let path = std::env::temp_dir().join(format!("campaignd-bench-{}", Uuid::new_v4().simple()));
    std::fs::create_dir_all(&path).map_err(Error::io(format!("making {}", path.display())))?;
    Ok(Directory(path))
}
