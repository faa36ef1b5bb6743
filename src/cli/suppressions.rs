//! `campaignd suppressions`: the list of those who are not written to.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::client::{Client, Remote, read};
use super::listing::Listing;
use super::output::{Colour, Failure, Table, clean, count, print, print_json, time};

/// Longest file of a list, in bytes: what the server takes in one request.
const FILE_MAX: u64 = 4 << 20;
/// How many rejected entries are shown; `--json` has them all.
const SHOWN_MAX: usize = 20;

/// Who is not written to.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Put mail addresses, domains, LinkedIn profiles or phone numbers on the list
    ///
    /// Nobody whom an entry names is taken into a campaign any more, and whoever is under way ends as `suppressed` before
    /// anything more is sent to them. A domain names its addresses and those of the domains below it.
    #[command(after_help = "Examples:
  campaignd suppressions add ada@example.org @competitor.example https://www.linkedin.com/in/ada
  campaignd suppressions add --kind phone --reason complaint '030 123456'")]
    Add {
        /// What to add
        #[arg(required = true, value_name = "VALUE")]
        values: Vec<String>,
        /// What the values are, where they do not tell by themselves
        #[arg(long, value_parser = ["address", "domain", "profile", "phone"])]
        kind: Option<String>,
        /// Why
        #[arg(long, default_value = "manual", value_parser = ["unsubscribed", "hard_bounce", "complaint", "manual"])]
        reason: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// The server to talk to
        #[command(flatten)]
        remote: Remote,
    },
    /// List who is not written to, newest first
    #[command(after_help = "Example:
  campaignd suppressions list --reason unsubscribed")]
    List {
        /// Only entries of this kind
        #[arg(long, value_parser = ["address", "domain", "profile", "phone"])]
        kind: Option<String>,
        /// Only entries with this reason
        #[arg(long, value_parser = ["unsubscribed", "hard_bounce", "complaint", "manual"])]
        reason: Option<String>,
        /// Only the entry with this value, in any spelling
        #[arg(long)]
        value: Option<String>,
        /// How much of it
        #[command(flatten)]
        listing: Listing,
    },
    /// Take an entry off the list, by its id or its value
    ///
    /// Only if the person has agreed to be written to again. Whoever ended because of the entry stays ended until `prospect
    /// restart`.
    #[command(after_help = "Example:
  campaignd suppressions remove ada@example.org")]
    Remove {
        /// An id as `suppressions list` shows it, or a value in any spelling
        #[arg(value_name = "ID|VALUE")]
        what: String,
        /// What the value is, where it does not tell by itself
        #[arg(long, value_parser = ["address", "domain", "profile", "phone"])]
        kind: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// The server to talk to
        #[command(flatten)]
        remote: Remote,
    },
    /// Put a whole file on the list: CSV or JSON, at most 10,000 entries
    ///
    /// CSV with a first line that names the columns (`value`, `kind`, `reason`, or `email`, `domain`, `linkedin_url`,
    /// `phone`), or with one value a line. The exit code is 1 when entries were rejected.
    #[command(after_help = "Example:
  campaignd suppressions import do-not-contact.csv")]
    Import {
        /// The file in UTF-8; `-` is standard input
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// The server to talk to
        #[command(flatten)]
        remote: Remote,
    },
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// [`Failure`] with what to print and the exit code.
    pub async fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::Add { values, kind, reason, json, remote } => {
                let entry = |value: &String| json!({"value": value, "kind": kind, "reason": reason});
                let entries: Vec<Value> = values.iter().map(entry).collect();
                let answer = remote.client()?.post("v1/suppressions", &json!({"suppressions": entries})).await?;
                report(&answer.body, json, |at| values.get(at).cloned().unwrap_or_default())
            }
            Self::List { kind, reason, value, listing } => {
                let given = [("kind", &kind), ("reason", &reason), ("value", &value)];
                let filter: Vec<(&str, &str)> = given.iter().filter_map(|(k, v)| Some((*k, v.as_deref()?))).collect();
                list(&listing, &filter).await
            }
            Self::Remove { what, kind, json, remote } => remove(&remote.client()?, &what, kind.as_deref(), json).await,
            Self::Import { file, json, remote } => import(&remote.client()?, &file, json).await,
        }
    }
}

/// What became of a list.
#[derive(Debug, Deserialize)]
struct Added {
    added: u64,
    known: u64,
    rejected: Vec<Rejected>,
}

#[derive(Debug, Deserialize)]
struct Rejected {
    line: u64,
    column: Option<String>,
    reason: String,
}

/// Prints it; `name` names an entry by its line.
fn report(body: &Value, json: bool, name: impl Fn(usize) -> String) -> Result<ExitCode, Failure> {
    let added: Added = read(body)?;
    if json {
        print_json(body)?;
    } else {
        let mut out = format!("added {}, on the list already {}\n", count(added.added), count(added.known));
        for r in added.rejected.iter().take(SHOWN_MAX) {
            let column = r.column.as_deref().filter(|c| *c != "value").map_or_else(String::new, |c| format!("{c} "));
            let line = name(usize::try_from(r.line).unwrap_or(usize::MAX));
            out.push_str(&format!("rejected: {}: {}{}\n", clean(&line), clean(&column), clean(&r.reason)));
        }
        if added.rejected.len() > SHOWN_MAX {
            let more = (added.rejected.len() - SHOWN_MAX) as u64;
            out.push_str(&format!("... and {} more; --json shows all\n", count(more)));
        }
        print(&out)?;
    }
    Ok(ExitCode::from(u8::from(!added.rejected.is_empty())))
}

/// An entry of the list.
#[derive(Debug, Deserialize)]
struct Listed {
    id: Uuid,
    kind: String,
    value: String,
    reason: String,
    prospect_id: Option<Uuid>,
    created_at: DateTime<Utc>,
}

async fn list(listing: &Listing, filter: &[(&str, &str)]) -> Result<ExitCode, Failure> {
    let Some(entries) = listing.read("v1/suppressions", filter, "suppressions").await? else {
        return Ok(ExitCode::SUCCESS);
    };
    let mut table = Table::new(&["ID", "KIND", "VALUE", "REASON", "SINCE", "PROSPECT"]);
    for value in &entries.items {
        let entry: Listed = read(value)?;
        table.row([
            (Colour::Plain, entry.id.to_string().as_str()),
            (Colour::Plain, &entry.kind),
            (Colour::Plain, &entry.value),
            (Colour::Yellow, &entry.reason),
            (Colour::Plain, &time(entry.created_at)),
            (Colour::Plain, &entry.prospect_id.map_or_else(String::new, |id| id.to_string())),
        ]);
    }
    entries.print(&table, "")?;
    Ok(ExitCode::SUCCESS)
}

async fn remove(client: &Client, what: &str, kind: Option<&str>, json: bool) -> Result<ExitCode, Failure> {
    let id = match what.parse::<Uuid>() {
        Ok(id) => id,
        Err(_) => {
            let filter: Vec<(&str, &str)> = [("value", what)].into_iter().chain(kind.map(|k| ("kind", k))).collect();
            let (found, _, _) = client.list("v1/suppressions", &filter, "suppressions", 1).await?;
            let Some(first) = found.first() else {
                return Err(Failure::refused(format!("{} is not on the list", clean(what))));
            };
            read::<Listed>(first)?.id
        }
    };
    let answer = client.delete(&format!("v1/suppressions/{id}")).await?;
    if json {
        print_json(&answer.body)?;
    } else {
        print(&format!("suppression {id} is taken off the list\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn import(client: &Client, file: &Path, json: bool) -> Result<ExitCode, Failure> {
    let stdin = file == Path::new("-");
    let name = if stdin { "<stdin>".to_owned() } else { clean(&file.to_string_lossy()) };
    let mut bytes = Vec::new();
    let read_all = |input: &mut dyn Read, bytes: &mut Vec<u8>| input.take(FILE_MAX + 1).read_to_end(bytes);
    if stdin {
        read_all(&mut std::io::stdin(), &mut bytes)
    } else {
        std::fs::File::open(file).and_then(|mut opened| read_all(&mut opened, &mut bytes))
    }
    .map_err(|e| Failure::unusable(format!("cannot read {name}: {e}")))?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(Failure::refused(format!("{name}: is larger than 4 MiB; split it")));
    }
    let first = bytes.iter().copied().find(|b| !b.is_ascii_whitespace());
    let is_json = matches!(first, Some(b'{' | b'['));
    let answer = if is_json {
        let document: Value =
            serde_json::from_slice(&bytes).map_err(|e| Failure::refused(format!("{name}: no JSON: {e}")))?;
        client.post("v1/suppressions", &document).await?
    } else {
        client.upload("v1/suppressions", bytes, |_| ()).await?
    };
    let place = if is_json { "entry" } else { "line" };
    report(&answer.body, json, |at| format!("{name}: {place} {at}"))
}
