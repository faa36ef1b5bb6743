//! `campaignd account`: the sending accounts of the workspace.

use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::client::{Client, Remote};
use super::output::{Colour, Failure, Paint, Table, clean, print, print_json, status_colour, when};
use crate::domain::duration;

/// List and add sending accounts.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// List the sending accounts and whether they send
    #[command(after_help = "Example:
  campaignd account list")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// The server to talk to
        #[command(flatten)]
        remote: Remote,
    },
    /// Add a sending account: a LinkedIn seat, a mailbox, a WhatsApp number
    #[command(after_help = "Example:
  campaignd account add --channel linkedin --provider-account-id Wq3dRrXzTkqPZ2uBx1sYvA --name 'Ada (sales)' \\
    --kind linkedin_premium")]
    Add {
        /// What it sends through
        #[arg(long, value_parser = ["linkedin", "email", "whatsapp"])]
        channel: String,
        /// Its id with the provider
        #[arg(long, value_name = "ID")]
        provider_account_id: String,
        /// A name for people
        #[arg(long)]
        name: String,
        /// What carries it
        #[arg(long, default_value = "unipile")]
        provider: String,
        /// Least time between two sends, for example 90s
        #[arg(long, value_name = "DURATION", value_parser = gap)]
        min_gap: Option<Duration>,
        /// What it is at its provider: its limits are the defaults of that kind. Without it those of the most careful kind of
        /// its channel; unlimited: nothing but --min-gap holds
        #[arg(long, value_parser = ["linkedin_free", "linkedin_premium", "linkedin_sales_navigator", "mail_google",
            "mail_workspace", "mail_imap", "whatsapp", "unlimited"])]
        kind: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// The server to talk to
        #[command(flatten)]
        remote: Remote,
    },
}

fn gap(text: &str) -> Result<Duration, String> {
    duration::parse(text).ok_or_else(|| "is no duration: write numbers with d, h, m, s or ms, as in 1m30s".to_owned())
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// [`Failure`] with what to print and the exit code.
    pub async fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::List { json, remote } => list(&remote.client()?, json).await,
            Self::Add { channel, provider_account_id, name, provider, min_gap, kind, json, remote } => {
                let gap_ms = min_gap.map_or(0, |gap| u64::try_from(gap.as_millis()).unwrap_or(u64::MAX));
                let mut account = json!({
                    "channel": channel, "provider": provider, "provider_account_id": provider_account_id, "name": name,
                    "min_gap_ms": gap_ms,
                });
                if let (Some(kind), Some(account)) = (kind, account.as_object_mut()) {
                    account.insert("kind".to_owned(), kind.into());
                }
                add(&remote.client()?, &account, json).await
            }
        }
    }
}

/// An account in the list.
#[derive(Debug, Deserialize)]
struct Account {
    id: Uuid,
    channel: String,
    provider: String,
    provider_account_id: String,
    name: String,
    status: String,
    status_reason: Option<String>,
    next_send_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Deserialize)]
struct Accounts {
    accounts: Vec<Account>,
}

async fn list(client: &Client, json: bool) -> Result<ExitCode, Failure> {
    let answer = client.get("v1/accounts", &[]).await?;
    if json {
        print_json(&answer.body)?;
        return Ok(ExitCode::SUCCESS);
    }
    let accounts: Accounts = answer.read()?;
    let mut table = Table::new(&["ID", "CHANNEL", "NAME", "STATUS", "PROVIDER ACCOUNT", "RESTS UNTIL", "REASON"]);
    for account in &accounts.accounts {
        let rests = account.next_send_at.filter(|at| *at > answer.now.to_utc());
        table.row([
            (Colour::Plain, account.id.to_string().as_str()),
            (Colour::Plain, &account.channel),
            (Colour::Plain, &account.name),
            (status_colour(&account.status), &account.status),
            (Colour::Plain, &format!("{}:{}", account.provider, account.provider_account_id)),
            (Colour::Plain, &rests.map_or_else(String::new, |at| when(at, answer.now))),
            (Colour::Plain, account.status_reason.as_deref().unwrap_or_default()),
        ]);
    }
    print(&table.render(Paint::stdout()))?;
    Ok(ExitCode::SUCCESS)
}

async fn add(client: &Client, account: &serde_json::Value, json: bool) -> Result<ExitCode, Failure> {
    let answer = client.post("v1/accounts", account).await?;
    if json {
        print_json(&answer.body)?;
    } else {
        let id = answer.body.get("id").and_then(serde_json::Value::as_str).unwrap_or_default();
        print(&format!("account {} is made\n", clean(id)))?;
        for warning in answer.body.get("warnings").and_then(serde_json::Value::as_array).into_iter().flatten() {
            eprintln!("warning: {}", clean(warning.as_str().unwrap_or_default()));
        }
    }
    Ok(ExitCode::SUCCESS)
}
