//! `campaignd prospect`: one person in a campaign: where they stand and why, and an operator's commands.

use std::process::ExitCode;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::client::{Client, Remote, read};
use super::output::{
    Colour, Failure, Paint, Table, clean, fact, print, print_json, relative, status_colour, time, when,
};
use crate::domain::time::Timestamp;

/// Show one person in a campaign; pause, resume, skip, restart or stop them.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Show where a prospect stands, what is waited for and until when, and what happened so far
    #[command(after_help = "Example:
  campaignd prospect show 0198c0de-0000-7000-8000-000000000002")]
    Show {
        /// The prospect's id, as `campaignd prospects list` shows it
        id: Uuid,
        /// Print JSON: the prospect with its `execution`, `waiting_on` and whole `timeline`
        #[arg(long)]
        json: bool,
        /// The server to talk to
        #[command(flatten)]
        remote: Remote,
    },
    /// Pause a prospect until it is resumed
    #[command(after_help = "Example:
  campaignd prospect pause 0198c0de-0000-7000-8000-000000000002")]
    Pause(Simple),
    /// Resume a paused prospect
    #[command(after_help = "Example:
  campaignd prospect resume 0198c0de-0000-7000-8000-000000000002")]
    Resume(Simple),
    /// Pass over the current step
    #[command(after_help = "Example:
  campaignd prospect skip 0198c0de-0000-7000-8000-000000000002")]
    Skip(Simple),
    /// End the campaign for a prospect
    #[command(after_help = "Example:
  campaignd prospect stop 0198c0de-0000-7000-8000-000000000002")]
    Stop(Simple),
    /// Go to a step and start it now; also revive a prospect that has ended
    #[command(after_help = "Examples:
  campaignd prospect restart 0198c0de-0000-7000-8000-000000000002 --step 2
  campaignd prospect restart 0198c0de-0000-7000-8000-000000000002 --step intro")]
    Restart {
        /// Where to go on: a step's position (a number, from 1) or its id
        #[arg(long, value_name = "N|ID")]
        step: String,
        /// Which one
        #[command(flatten)]
        simple: Simple,
    },
}

/// What every command to a prospect takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Simple {
    /// The prospect's id, as `campaignd prospects list` shows it
    pub id: Uuid,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The server to talk to
    #[command(flatten)]
    pub remote: Remote,
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// [`Failure`] with what to print and the exit code.
    pub async fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::Show { id, json, remote } => show(&remote.client()?, id, json).await,
            Self::Pause(simple) => command(&simple, "pause", &json!({})).await,
            Self::Resume(simple) => command(&simple, "resume", &json!({})).await,
            Self::Skip(simple) => command(&simple, "skip", &json!({})).await,
            Self::Stop(simple) => command(&simple, "stop", &json!({})).await,
            Self::Restart { step, simple } => command(&simple, "restart", &restart(&step)).await,
        }
    }
}

/// A number is a position, anything else an id.
fn restart(step: &str) -> Value {
    step.parse::<u32>().map_or_else(|_| json!({"step_id": step}), |n| json!({"step": n}))
}

async fn command(to: &Simple, verb: &str, body: &Value) -> Result<ExitCode, Failure> {
    let answer = to.remote.client()?.post(&format!("v1/prospects/{}/{verb}", to.id), body).await?;
    if to.json {
        print_json(&answer.body)?;
    } else {
        let status = answer.body.get("status").and_then(Value::as_str).unwrap_or_default();
        print(&format!("prospect {} is {} now\n", to.id, Paint::stdout().status(status)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A prospect with its execution.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Detail {
    id: Uuid,
    campaign_id: Uuid,
    first_name: Option<String>,
    last_name: Option<String>,
    email: Option<String>,
    phone: Option<String>,
    linkedin_url: Option<String>,
    company_name: Option<String>,
    title: Option<String>,
    execution: Option<Execution>,
    waiting_on: WaitingOn,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Execution {
    current_step: Option<i32>,
    status: Option<String>,
    completed_steps: Vec<i32>,
    failed_steps: Vec<i32>,
    skipped_steps: Vec<i32>,
    linkedin_state: Option<Map<String, Value>>,
    email_state: Option<Map<String, Value>>,
    whatsapp_state: Option<Map<String, Value>>,
    last_executed_at: Option<DateTime<Utc>>,
    last_error: Option<String>,
    error_count: i32,
    flow_version: Option<i32>,
    exit_reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WaitingOn {
    text: String,
    until: Option<DateTime<Utc>>,
    next_check_at: Option<DateTime<Utc>>,
}

/// A line of the timeline: the keys of transitions and of sends.
#[derive(Debug, Deserialize)]
struct Entry {
    at: DateTime<Utc>,
    kind: String,
    trigger: Option<String>,
    from_status: Option<String>,
    to_status: Option<String>,
    from_step: Option<i32>,
    to_step: Option<i32>,
    action: Option<String>,
    step_id: Option<String>,
    status: Option<String>,
    attempt: Option<i32>,
    failure_class: Option<String>,
    error: Option<String>,
    finished_at: Option<DateTime<Utc>>,
}

async fn show(client: &Client, id: Uuid, json: bool) -> Result<ExitCode, Failure> {
    let mut answer = client.get(&format!("v1/prospects/{id}"), &[]).await?;
    let path = format!("v1/prospects/{id}/timeline");
    let (entries, _, _) = client.list(&path, &[], "entries", usize::MAX).await?;
    if json {
        if let Value::Object(document) = &mut answer.body {
            document.insert("timeline".to_owned(), Value::Array(entries));
        }
        print_json(&answer.body)?;
        return Ok(ExitCode::SUCCESS);
    }
    let entries = entries.iter().map(read).collect::<Result<Vec<Entry>, _>>()?;
    print(&render(&answer.read()?, &entries, answer.now, Paint::stdout()))?;
    Ok(ExitCode::SUCCESS)
}

fn render(detail: &Detail, entries: &[Entry], now: Timestamp, paint: Paint) -> String {
    let mut out = String::new();
    let words = |texts: [&Option<String>; 3], between: &str| {
        clean(&texts.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(between))
    };
    fact(&mut out, paint, "prospect", &detail.id.to_string());
    fact(&mut out, paint, "campaign", &detail.campaign_id.to_string());
    fact(&mut out, paint, "name", &words([&detail.first_name, &detail.last_name, &None], " "));
    fact(&mut out, paint, "company", &words([&detail.title, &detail.company_name, &None], ", "));
    fact(&mut out, paint, "reached by", &words([&detail.linkedin_url, &detail.email, &detail.phone], ", "));
    if let Some(execution) = &detail.execution {
        state(&mut out, paint, execution, now);
    }
    fact(&mut out, paint, "next", &clean(&detail.waiting_on.text));
    for (name, at) in [("until", detail.waiting_on.until), ("next check", detail.waiting_on.next_check_at)] {
        fact(&mut out, paint, name, &at.map_or_else(String::new, |at| when(at, now)));
    }
    if entries.is_empty() {
        out.push_str("\nnothing has happened yet\n");
        return out;
    }
    let mut table = Table::new(&["TIME", "", "WHAT", "OUTCOME"]);
    for entry in entries {
        let (what, (colour, outcome)) = line(entry);
        table.row([
            (Colour::Plain, time(entry.at).as_str()),
            (Colour::Dim, &relative(entry.at, now)),
            (Colour::Plain, &what),
            (colour, &outcome),
        ]);
    }
    out.push('\n');
    out.push_str(&table.render(paint));
    out
}

fn state(out: &mut String, paint: Paint, execution: &Execution, now: Timestamp) {
    let status = execution.status.as_deref().unwrap_or("-");
    let reason = execution.exit_reason.as_deref().map_or_else(String::new, |r| format!(" ({})", clean(r)));
    let step = execution.current_step.map_or_else(String::new, |n| format!(", step {n}"));
    let version = execution.flow_version.map_or_else(String::new, |n| format!(", flow version {n}"));
    fact(out, paint, "status", &format!("{}{reason}{step}{version}", paint.status(status)));
    let steps: Vec<String> = [
        ("done", &execution.completed_steps),
        ("failed", &execution.failed_steps),
        ("passed over", &execution.skipped_steps),
    ]
    .into_iter()
    .filter(|(_, steps)| !steps.is_empty())
    .map(|(name, steps)| format!("{name} {}", steps.iter().map(i32::to_string).collect::<Vec<_>>().join(", ")))
    .collect();
    fact(out, paint, "steps", &steps.join("; "));
    for (name, facts) in [
        ("linkedin", &execution.linkedin_state),
        ("email", &execution.email_state),
        ("whatsapp", &execution.whatsapp_state),
    ] {
        let facts: Vec<String> = facts.iter().flatten().map(|(key, value)| channel_fact(key, value, now)).collect();
        fact(out, paint, name, &facts.join(", "));
    }
    fact(out, paint, "last step", &execution.last_executed_at.map_or_else(String::new, |at| when(at, now)));
    if let Some(error) = &execution.last_error {
        let error = paint.put(Colour::Red, &clean(error));
        fact(out, paint, "last error", &format!("{error} ({} so far)", execution.error_count));
    }
}

/// `replied: yes`, `last sent at: 2026-... (1 h ago)`.
fn channel_fact(key: &str, value: &Value, now: Timestamp) -> String {
    let text = match value {
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => {
            DateTime::parse_from_rfc3339(text).map_or_else(|_| clean(text), |at| when(at.with_timezone(&Utc), now))
        }
        other => clean(&other.to_string()),
    };
    format!("{}: {text}", clean(&key.replace('_', " ")))
}

/// What happened, and what came of it.
fn line(entry: &Entry) -> (String, (Colour, String)) {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    if entry.kind == "send" {
        let status = text(&entry.status);
        let attempt = entry.attempt.filter(|n| *n > 1).map_or_else(String::new, |n| format!(", attempt {n}"));
        let at = entry.finished_at.map_or_else(String::new, |at| format!(" at {}", time(at)));
        let why: Vec<&str> = [entry.failure_class.as_deref(), entry.error.as_deref()].into_iter().flatten().collect();
        let why = if why.is_empty() { String::new() } else { format!(": {}", why.join(", ")) };
        let what = format!("{} ({}{attempt})", text(&entry.action), text(&entry.step_id));
        return (what, (status_colour(&status), format!("{status}{at}{why}")));
    }
    let (from, to) = (text(&entry.from_status), text(&entry.to_status));
    let place = |status: &str, step: Option<i32>| match step {
        Some(step) => format!("{status} at step {step}"),
        None => status.to_owned(),
    };
    let change = format!("{} -> {}", place(&from, entry.from_step), place(&to, entry.to_step));
    (text(&entry.trigger).replace('_', " "), (Colour::Plain, change))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_named_by_position_or_id() {
        assert_eq!(restart("2"), json!({"step": 2}));
        assert_eq!(restart("intro"), json!({"step_id": "intro"}));
        assert_eq!(restart("-1"), json!({"step_id": "-1"}));
    }

    #[test]
    fn a_prospect_is_shown_with_what_it_waits_for_and_its_history() {
        let detail = json!({
            "id": "00000000-0000-0000-0000-000000000001", "campaign_id": "00000000-0000-0000-0000-000000000002",
            "first_name": "Ada", "last_name": "L\u{1b}ovelace", "email": "ada@example.com", "data": {},
            "execution": {
                "current_step": 1, "status": "waiting_trigger", "completed_steps": [1], "failed_steps": [],
                "skipped_steps": [], "linkedin_state": {"message_count": 1, "replied": false}, "error_count": 0,
                "flow_version": 1, "version": 3
            },
            "waiting_on": {"kind": "trigger", "text": "waits for connection_accepted", "until": "2023-11-15T00:13:20Z"}
        });
        let entries = json!([
            {"at": "2023-11-14T22:00:00Z", "kind": "transition", "trigger": "due", "version": 1,
             "from_status": "pending", "to_status": "executing", "from_step": 1, "to_step": 1},
            {"at": "2023-11-14T22:00:00Z", "kind": "send", "action": "send_linkedin_cr", "step_id": "invite", "step": 1,
             "status": "sent", "attempt": 1, "finished_at": "2023-11-14T22:00:02Z"}
        ]);
        let entries: Vec<Entry> = entries.as_array().unwrap().iter().map(|e| read(e).unwrap()).collect();
        let now = Timestamp::from_micros(1_700_000_000_000_000);
        let text = render(&read(&detail).unwrap(), &entries, now, Paint::off());
        assert_eq!(
            text,
            "prospect    00000000-0000-0000-0000-000000000001\n\
             campaign    00000000-0000-0000-0000-000000000002\n\
             name        Ada L\u{fffd}ovelace\n\
             reached by  ada@example.com\n\
             status      waiting_trigger, step 1, flow version 1\n\
             steps       done 1\n\
             linkedin    message count: 1, replied: no\n\
             next        waits for connection_accepted\n\
             until       2023-11-15T00:13:20Z (in 2 h)\n\
             \n\
             TIME                              WHAT                       OUTCOME\n\
             2023-11-14T22:00:00Z  13 min ago  due                        pending at step 1 -> executing at step 1\n\
             2023-11-14T22:00:00Z  13 min ago  send_linkedin_cr (invite)  sent at 2023-11-14T22:00:02Z\n"
        );
    }
}
