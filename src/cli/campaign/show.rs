//! How campaigns are shown: the list, and one with where its prospects and sends stand.

use std::collections::BTreeMap;
use std::process::ExitCode;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Named;
use super::file::summary;
use crate::cli::client::{Client, Wrong, read as read_answer};
use crate::cli::output::{
    Colour, Failure, Paint, Table, clean, count, fact, print, print_json, status_colour, time, when,
};
use crate::domain::flow;

#[derive(Debug, Deserialize)]
struct Listed {
    id: Uuid,
    name: String,
    status: String,
    flow_version: i32,
    created_at: DateTime<Utc>,
}

pub(super) async fn list(client: &Client, status: Option<&str>, json: bool) -> Result<ExitCode, Failure> {
    let filter: Vec<(&str, &str)> = status.map(|s| ("status", s)).into_iter().collect();
    let (campaigns, _, now) = client.list("v1/campaigns", &filter, "campaigns", usize::MAX).await?;
    if json {
        print_json(&json!({"campaigns": campaigns}))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["ID", "NAME", "STATUS", "FLOW", "CREATED"]);
    for value in &campaigns {
        let campaign: Listed = read_answer(value)?;
        table.row([
            (Colour::Plain, campaign.id.to_string().as_str()),
            (Colour::Plain, &campaign.name),
            (status_colour(&campaign.status), &campaign.status),
            (Colour::Plain, &format!("v{}", campaign.flow_version)),
            (Colour::Plain, &when(campaign.created_at, now)),
        ]);
    }
    print(&table.render(Paint::stdout()))?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Deserialize)]
struct Detail {
    id: Uuid,
    name: String,
    status: String,
    flow_version: i32,
    flow_settings: Value,
    accounts: Option<Vec<Uuid>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    prospects: Prospects,
    sends: BTreeMap<String, BTreeMap<String, u64>>,
    #[serde(default)]
    problems: Vec<Wrong>,
}

#[derive(Debug, Deserialize)]
struct Prospects {
    total: u64,
    by_status: BTreeMap<String, u64>,
    by_exit_reason: BTreeMap<String, u64>,
}

pub(super) async fn show(named: &Named) -> Result<ExitCode, Failure> {
    let answer = named.remote.client()?.get(&format!("v1/campaigns/{}", named.id), &[]).await?;
    if named.json {
        print_json(&answer.body)?;
        return Ok(ExitCode::SUCCESS);
    }
    let campaign: Detail = answer.read()?;
    let paint = Paint::stdout();
    let mut out = String::new();
    let flow = flow::parse(&campaign.flow_settings).map_or_else(|_| String::new(), |f| format!(", {}", summary(&f)));
    let accounts = campaign.accounts.as_ref().map_or_else(
        || "every one of the workspace".to_owned(),
        |ids| ids.iter().map(Uuid::to_string).collect::<Vec<_>>().join(", "),
    );
    fact(&mut out, paint, "campaign", &campaign.id.to_string());
    fact(&mut out, paint, "name", &clean(&campaign.name));
    fact(&mut out, paint, "status", &paint.status(&campaign.status));
    fact(&mut out, paint, "flow", &format!("version {}{flow}", campaign.flow_version));
    fact(&mut out, paint, "accounts", &accounts);
    fact(&mut out, paint, "created", &when(campaign.created_at, answer.now));
    fact(&mut out, paint, "changed", &time(campaign.updated_at));
    fact(&mut out, paint, "prospects", &count(campaign.prospects.total));
    out.push_str(&figures(&campaign, paint));
    for problem in &campaign.problems {
        let text = format!("problem: {}: {}", clean(&problem.path), clean(&problem.message));
        out.push_str(&paint.put(Colour::Red, &text));
        out.push('\n');
    }
    print(&out)?;
    Ok(ExitCode::SUCCESS)
}

/// Where the prospects and the sends stand, as one table.
fn figures(campaign: &Detail, paint: Paint) -> String {
    let mut table = Table::new(&["", "", "COUNT"]);
    let prospects = [("prospects", &campaign.prospects.by_status), ("ended by", &campaign.prospects.by_exit_reason)];
    let sends = campaign.sends.iter().map(|(channel, counts)| (channel.as_str(), counts));
    let mut any = false;
    for (group, counts) in prospects.into_iter().chain(sends) {
        for (i, (name, n)) in counts.iter().enumerate() {
            any = true;
            table.row([
                (Colour::Dim, if i == 0 { group } else { "" }),
                (status_colour(name), name.as_str()),
                (Colour::Plain, &count(*n)),
            ]);
        }
    }
    if any { format!("\n{}", table.render(paint)) } else { String::new() }
}
