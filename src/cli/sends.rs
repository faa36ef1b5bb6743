//! `campaignd sends`: what was sent, and what became of sends that nobody could find out.

use std::process::ExitCode;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::client::{Client, Remote, read};
use super::listing::Listing;
use super::output::{Colour, Failure, Paint, Table, clean, fact, print, print_json, status_colour, when};

/// What was sent, and what nobody knows about.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// List sends, newest first; those whose outcome is not known with what to do about them
    #[command(after_help = "Examples:
  campaignd sends list --parked
  campaignd sends list --status failed --campaign 0198c0de-0000-7000-8000-000000000001")]
    List {
        /// Only those with this status
        #[arg(long, value_parser = ["pending", "dispatching", "sent", "failed", "unknown", "cancelled"])]
        status: Option<String>,
        /// Only those of this campaign
        #[arg(long, value_name = "ID")]
        campaign: Option<Uuid>,
        /// Only those through this account
        #[arg(long, value_name = "ID")]
        account: Option<Uuid>,
        /// Only those that a person has to decide
        #[arg(long)]
        parked: bool,
        /// How much of it
        #[command(flatten)]
        listing: Listing,
    },
    /// Say what became of a send whose outcome could not be found out
    ///
    /// `--sent`: the person has it, and the flow goes on. `--not-sent`: it is sent again. Look where `sends list` says before
    /// you decide. Refused while the engine still looks for it, and once its outcome is known.
    #[command(after_help = "Example:
  campaignd sends resolve 6f9619ff-8b86-5011-b42d-00c04fc964ff --sent")]
    Resolve {
        /// The send's id, as `sends list` shows it
        id: Uuid,
        /// The person has it
        #[arg(long, conflicts_with = "not_sent", required_unless_present = "not_sent")]
        sent: bool,
        /// Nobody has it: send it again
        #[arg(long)]
        not_sent: bool,
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
            Self::List { status, campaign, account, parked, listing } => {
                let (campaign, account) = (campaign.map(|id| id.to_string()), account.map(|id| id.to_string()));
                let given = [("status", &status), ("campaign", &campaign), ("account", &account)];
                let mut filter: Vec<(&str, &str)> =
                    given.iter().filter_map(|(key, value)| Some((*key, value.as_deref()?))).collect();
                if parked {
                    filter.push(("parked", "true"));
                }
                list(&listing, &filter).await
            }
            Self::Resolve { id, sent, not_sent: _, json, remote } => {
                resolve(&remote.client()?, id, if sent { "sent" } else { "not_sent" }, json).await
            }
        }
    }
}

/// A send in the list.
#[derive(Debug, Deserialize)]
struct Listed {
    id: Uuid,
    created_at: DateTime<Utc>,
    prospect_id: Uuid,
    step_id: String,
    action: String,
    status: String,
    account_name: Option<String>,
    error: Option<String>,
    unknown: Option<Unknown>,
}

/// Why its outcome is not known.
#[derive(Debug, Deserialize)]
struct Unknown {
    parked: bool,
    why: String,
    tried: String,
    look_at: String,
}

async fn list(listing: &Listing, filter: &[(&str, &str)]) -> Result<ExitCode, Failure> {
    let Some(sends) = listing.read("v1/sends", filter, "sends").await? else { return Ok(ExitCode::SUCCESS) };
    let paint = Paint::stdout();
    let mut table = Table::new(&["ID", "DECIDED", "STEP", "STATUS", "ACCOUNT", "PROSPECT", "ERROR"]);
    let mut unknown = String::new();
    for value in &sends.items {
        let send: Listed = read(value)?;
        let parked = send.unknown.as_ref().is_some_and(|u| u.parked);
        let status = if parked { "unknown, parked" } else { &send.status };
        table.row([
            (Colour::Plain, send.id.to_string().as_str()),
            (Colour::Plain, &when(send.created_at, sends.now)),
            (Colour::Plain, &format!("{} ({})", send.step_id, send.action)),
            (status_colour(&send.status), status),
            (Colour::Plain, send.account_name.as_deref().unwrap_or_default()),
            (Colour::Plain, &send.prospect_id.to_string()),
            (Colour::Plain, &send.error.as_deref().unwrap_or_default().chars().take(60).collect::<String>()),
        ]);
        if let Some(why) = &send.unknown {
            unknown.push_str(&format!("\n{}\n", send.id));
            fact(&mut unknown, paint, "why", &clean(&why.why));
            fact(&mut unknown, paint, "tried", &clean(&why.tried));
            fact(&mut unknown, paint, "look at", &clean(&why.look_at));
            if why.parked {
                let command = format!("campaignd sends resolve {} --sent (or --not-sent: sends it again)", send.id);
                fact(&mut unknown, paint, "decide", &command);
            }
        }
    }
    sends.print(&table, &unknown)?;
    Ok(ExitCode::SUCCESS)
}

async fn resolve(client: &Client, id: Uuid, outcome: &str, json: bool) -> Result<ExitCode, Failure> {
    let answer = client.post(&format!("v1/sends/{id}/resolve"), &json!({"outcome": outcome})).await?;
    if json {
        print_json(&answer.body)?;
        return Ok(ExitCode::SUCCESS);
    }
    let status = answer.body.get("status").and_then(serde_json::Value::as_str);
    let follows = status.map_or_else(
        || "its execution waits for it no more, so nothing else happens".to_owned(),
        |status| format!("its execution is {}", Paint::stdout().status(status)),
    );
    print(&format!("send {id} counts as {} now: {follows}\n", outcome.replace('_', " ")))?;
    Ok(ExitCode::SUCCESS)
}
