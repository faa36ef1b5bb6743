//! `campaignd doctor`: looks at everything that a server needs, and says what to do about what it finds.
//!
//! It changes nothing and starts nothing. What cannot be looked at because something else is missing is said to be so, not
//! left out.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::output::{Colour, Failure, Paint, clean, print, print_json};
use crate::config::Config;

mod database;
mod provider;
mod settings;

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "It looks at\n  \
    settings    values that do not go together, secrets that others can read, links that mails need\n  \
    server      whether one answers at http.metrics_listen, and why it is not ready\n  \
    database    whether it answers, its version, connections and clock\n  \
    schema      whether it is this program's; `campaignd migrate` brings it up to date\n  \
    rights      whether the role may read and write the tables and make next month's partitions\n  \
    leases      who serves, and whether that process lives\n  \
    provider    name, connection, certificate and key, by a call that changes nothing\n  \
    accounts    whether each is known there, halted, or without limits\n  \
    work        sends that a person has to decide, facts that wait\n\n\
    Give it the settings of the server: the same environment, the same --config.\n\n\
    Example:\n  campaignd --config /etc/campaignd/campaignd.toml doctor\n  campaignd doctor --json | jq '.checks[] | select(.level == \"finding\")'\n\n\
    Exit codes: 0 nothing to do, 1 findings, 2 the settings cannot be read.")]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Well,
    /// Worth knowing; nothing has to be done.
    Note,
    /// Something has to be done.
    Finding,
    /// Could not be looked at.
    Skipped,
}

/// What was found out.
#[derive(Clone, Debug, Serialize)]
struct Check {
    /// The part that was looked at.
    check: &'static str,
    level: Level,
    /// What is the case.
    says: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    todo: Option<String>,
}

/// Collects what is found out.
#[derive(Debug, Default)]
struct Report(Vec<Check>);

impl Report {
    fn add(&mut self, check: &'static str, level: Level, says: impl Into<String>, todo: Option<String>) {
        self.0.push(Check { check, level, says: says.into(), todo });
    }

    fn well(&mut self, check: &'static str, says: impl Into<String>) {
        self.add(check, Level::Well, says, None);
    }

    fn note(&mut self, check: &'static str, says: impl Into<String>) {
        self.add(check, Level::Note, says, None);
    }

    fn skip(&mut self, check: &'static str, says: impl Into<String>) {
        self.add(check, Level::Skipped, says, None);
    }

    fn find(&mut self, check: &'static str, says: impl Into<String>, todo: impl Into<String>) {
        self.add(check, Level::Finding, says, Some(todo.into()));
    }

    fn findings(&self) -> usize {
        self.0.iter().filter(|check| check.level == Level::Finding).count()
    }

    fn render(&self, paint: Paint) -> String {
        let mut out = String::new();
        for check in &self.0 {
            let (colour, word) = match check.level {
                Level::Well => (Colour::Green, "ok"),
                Level::Note => (Colour::Cyan, "note"),
                Level::Finding => (Colour::Red, "FIND"),
                Level::Skipped => (Colour::Dim, "skip"),
            };
            out.push_str(&format!(
                "{}  {:9}  {}\n",
                paint.put(colour, &format!("{word:4}")),
                check.check,
                clean(&check.says)
            ));
            if let Some(todo) = &check.todo {
                out.push_str(&format!("                 {} {}\n", paint.put(Colour::Bold, "do:"), clean(todo)));
            }
        }
        let findings = self.findings();
        out.push_str(&match findings {
            0 => "nothing to do\n".to_owned(),
            1 => "1 finding\n".to_owned(),
            n => format!("{n} findings\n"),
        });
        out
    }
}

/// Looks at everything.
pub(super) async fn run(args: Args, config: Config, file: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let mut report = Report::default();
    settings::look(&mut report, &config, file.as_deref());
    settings::server(&mut report, &config).await;
    let known = database::look(&mut report, &config).await;
    provider::look(&mut report, &config, known.as_deref()).await;
    if args.json {
        print_json(&serde_json::json!({"findings": report.findings(), "checks": report.0}))?;
    } else {
        print(&report.render(Paint::stdout()))?;
    }
    Ok(if report.findings() == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
