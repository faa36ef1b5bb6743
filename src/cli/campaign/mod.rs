//! `campaignd campaign`: checks flow files without a server, and makes, lists, shows, starts and pauses campaigns.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::client::{Client, Error, Remote, Wrong};
use super::output::{Colour, Failure, Paint, clean, fact, print, print_json};
use crate::domain::flow;
use crate::domain::preview::{self, Preview};
use crate::http::import::json::person as person_of;

mod file;
mod show;
#[cfg(test)]
mod tests;

use file::{Document, Found, Text, summary};

/// Check flow files; make, list, start and pause campaigns.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Check a flow file, without a server
    ///
    /// Reads a flow, or an object with `name` and `flow_settings`. Prints every problem with its JSON path; the exit code
    /// is then 1.
    #[command(after_help = "Examples:
  campaignd campaign check flow.json
  jq .flow_settings export.json | campaignd campaign check --json -")]
    Check {
        /// The flow file; `-` is standard input
        file: PathBuf,
        /// Print {"ok": bool, "problems": [{"path", "message"}]}
        #[arg(long)]
        json: bool,
    },
    /// Show what a flow would write to one person, without a server
    ///
    /// Fills in each step's texts and holds their lengths against the limits. The person is a JSON object like a row of an
    /// upload. The exit code is 1 when there are problems.
    #[command(after_help = "Example:
  echo '{\"first_name\": \"Ada\", \"email\": \"ada@example.org\"}' | campaignd campaign preview flow.json --prospect -")]
    Preview {
        /// The flow file, or an object with `name` and `flow_settings`; `-` is standard input
        file: PathBuf,
        /// The person, as JSON; `-` is standard input
        #[arg(long, value_name = "FILE")]
        prospect: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a campaign from a flow file; it does nothing until it is started
    #[command(after_help = "Example:
  campaignd campaign create flow.json --name 'Spring 2026' --start")]
    Create {
        /// The flow file, or an object with `name` and `flow_settings`; `-` is standard input
        file: PathBuf,
        /// Its name; else the one in the file, else the file's name
        #[arg(long)]
        name: Option<String>,
        /// Start it at once
        #[arg(long)]
        start: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// The server to talk to
        #[command(flatten)]
        remote: Remote,
    },
    /// List the campaigns, newest first
    #[command(after_help = "Example:
  campaignd campaign list --status active")]
    List {
        /// Only those with this status
        #[arg(long, value_parser = ["draft", "active", "paused", "completed"])]
        status: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// The server to talk to
        #[command(flatten)]
        remote: Remote,
    },
    /// Show a campaign with where its prospects and sends stand
    #[command(after_help = "Example:
  campaignd campaign show 0198c0de-0000-7000-8000-000000000001")]
    Show(Named),
    /// Start a campaign
    #[command(after_help = "Example:
  campaignd campaign start 0198c0de-0000-7000-8000-000000000001")]
    Start(Named),
    /// Pause a campaign: nothing is sent and no step comes due; replies and other facts are still recorded
    #[command(after_help = "Example:
  campaignd campaign pause 0198c0de-0000-7000-8000-000000000001")]
    Pause(Named),
    /// Resume a paused campaign
    #[command(after_help = "Example:
  campaignd campaign resume 0198c0de-0000-7000-8000-000000000001")]
    Resume(Named),
    /// Say which campaign goes first where two want the same account's next slot
    ///
    /// The higher number goes first. It holds for whoever stands in line from now on; who stands there already keeps the place.
    /// Follow-ups go before first touches whatever it is.
    #[command(after_help = "Example:
  campaignd campaign priority 0198c0de-0000-7000-8000-000000000001 10")]
    Priority {
        /// Which campaign
        #[command(flatten)]
        named: Named,
        /// -100 to 100; 0 is what a campaign begins with
        #[arg(allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-100..=100))]
        priority: i32,
    },
}

/// What every command to a campaign takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Named {
    /// The campaign's id
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
            Self::Check { file, json } => check(&Text::read(&file)?, json),
            Self::Preview { file, prospect, json } => preview(&Text::read(&file)?, &Text::read(&prospect)?, json),
            Self::Create { file, name, start, json, remote } => {
                let text = Text::read(&file)?;
                create(&remote.client()?, &text, name, start, json).await
            }
            Self::List { status, json, remote } => show::list(&remote.client()?, status.as_deref(), json).await,
            Self::Show(named) => show::show(&named).await,
            Self::Start(named) => switch(&named, "start").await,
            Self::Pause(named) => switch(&named, "pause").await,
            Self::Resume(named) => switch(&named, "resume").await,
            Self::Priority { named, priority } => set_priority(&named, priority).await,
        }
    }
}

fn check(text: &Text, json: bool) -> Result<ExitCode, Failure> {
    let result = text.parse().map_err(|e| vec![e]).and_then(|document| document.check());
    let ok = result.is_ok();
    if json {
        let problems: Vec<Value> = result.err().iter().flatten().map(Found::json).collect();
        print_json(&json!({"ok": ok, "problems": problems}))?;
    } else {
        match &result {
            Ok(flow) => print(&format!("{}: {}\n", Paint::stdout().put(Colour::Green, "ok"), summary(flow)))?,
            Err(found) => print(&found.iter().map(|p| p.line(&text.name) + "\n").collect::<String>())?,
        }
    }
    Ok(ExitCode::from(u8::from(!ok)))
}

fn preview(text: &Text, prospect: &Text, json: bool) -> Result<ExitCode, Failure> {
    let document = text.parse().map_err(|e| Failure::refused(e.line(&text.name)))?;
    let flow = flow::parse(&document.flow).map_err(|problems| {
        let lines = problems.iter().map(|p| Found::new(document.path(&p.path), p.message.as_str()).line(&text.name));
        Failure::refused(lines.collect::<Vec<_>>().join("\n"))
    })?;
    let person = serde_json::from_slice(&prospect.bytes)
        .map_err(|e| Failure::refused(format!("{}: no JSON: {e}", prospect.name)))?;
    let person = person_of(person).map_err(|row| {
        let column = row.column.map_or_else(String::new, |c| format!("{}: ", clean(&c)));
        Failure::refused(format!("{}: {column}{}", prospect.name, row.reason))
    })?;
    let mut made = preview::preview(&flow, &person);
    made.problems.splice(0..0, flow::missing_fields(&flow));
    for problem in &mut made.problems {
        problem.path = document.path(&problem.path);
    }
    if json {
        print_json(&made.to_json())?;
    } else {
        print(&shown(&made, &text.name, Paint::stdout()))?;
    }
    Ok(ExitCode::from(u8::from(!made.problems.is_empty())))
}

/// A preview as text: texts with their lines kept, and nothing in them that could steer the terminal.
fn shown(made: &Preview, file: &str, paint: Paint) -> String {
    let mut out = String::new();
    for step in &made.steps {
        let head = format!("step {}: {} ({})", step.position, step.id, step.action);
        out.push_str(&format!("{}\n", paint.put(Colour::Bold, &head)));
        for text in &step.texts {
            let over = text.length_max.is_some_and(|most| text.length > most);
            let most = text.length_max.map_or_else(String::new, |most| format!(" of at most {most}"));
            let length = format!("{}: {} characters{most}", text.key, text.length);
            out.push_str(&format!("  {}\n", paint.put(if over { Colour::Red } else { Colour::Dim }, &length)));
            for line in text.text.as_deref().unwrap_or("(cannot be filled in)").lines() {
                out.push_str(&format!("    {}\n", clean(line)));
            }
        }
    }
    if !made.problems.is_empty() {
        out.push('\n');
    }
    out.extend(made.problems.iter().map(|p| Found::new(p.path.as_str(), p.message.as_str()).line(file) + "\n"));
    out
}

#[derive(Debug, Deserialize)]
struct Created {
    id: Uuid,
    name: String,
    flow_version: i32,
}

async fn create(
    client: &Client,
    text: &Text,
    name: Option<String>,
    start: bool,
    json: bool,
) -> Result<ExitCode, Failure> {
    let document = text.parse().map_err(|e| Failure::refused(e.line(&text.name)))?;
    let name = name
        .or_else(|| document.name().map(str::to_owned))
        .or_else(|| text.stem.clone())
        .ok_or_else(|| Failure::unusable("the campaign needs a name: pass --name"))?;
    let mut body = document.around.clone();
    body.insert("name".to_owned(), name.into());
    body.insert("flow_settings".to_owned(), document.flow.clone());
    // The server judges the flow: it may be of another version than this program.
    let mut answer = client.post("v1/campaigns", &body.into()).await.map_err(|e| in_file(e, text, &document))?;
    let created: Created = answer.read()?;
    let mut status = "draft".to_owned();
    let started = if start {
        client.post(&format!("v1/campaigns/{}/start", created.id), &json!({})).await.map(Some)
    } else {
        Ok(None)
    };
    if let Ok(Some(started)) = &started {
        status = started.body.get("status").and_then(Value::as_str).unwrap_or("active").to_owned();
    }
    if json {
        if let Some(shown) = answer.body.get_mut("status") {
            *shown = Value::from(status);
        }
        print_json(&answer.body)?;
    } else {
        let paint = Paint::stdout();
        let mut out = format!("campaign {} is made\n", created.id);
        fact(&mut out, paint, "name", &clean(&created.name));
        fact(&mut out, paint, "status", &format!("{}, flow version {}", paint.status(&status), created.flow_version));
        print(&out)?;
    }
    started.map(|_| ExitCode::SUCCESS).map_err(|e| {
        let failure = Failure::from(e);
        Failure { message: format!("the campaign was made but not started: {}", failure.message), ..failure }
    })
}

/// The server's problems with the flow, as problems of the file.
fn in_file(error: Error, text: &Text, document: &Document) -> Failure {
    match error {
        Error::Problem(problem) if problem.code == "invalid_flow" && !problem.problems.is_empty() => {
            let line = |p: &Wrong| Found::new(document.path(&p.path), p.message.as_str()).line(&text.name);
            Failure::refused(problem.problems.iter().map(line).collect::<Vec<_>>().join("\n"))
        }
        other => other.into(),
    }
}

async fn switch(named: &Named, verb: &str) -> Result<ExitCode, Failure> {
    let answer = named.remote.client()?.post(&format!("v1/campaigns/{}/{verb}", named.id), &json!({})).await?;
    if named.json {
        print_json(&answer.body)?;
    } else {
        let status = answer.body.get("status").and_then(Value::as_str).unwrap_or_default();
        let changed = answer.body.get("changed").and_then(Value::as_bool).unwrap_or(true);
        let when = if changed { "now" } else { "already" };
        print(&format!("campaign {} is {} {when}\n", named.id, Paint::stdout().status(status)))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn set_priority(named: &Named, priority: i32) -> Result<ExitCode, Failure> {
    let body = json!({"priority": priority});
    let answer = named.remote.client()?.patch(&format!("v1/campaigns/{}", named.id), &body).await?;
    if named.json {
        print_json(&answer.body)?;
    } else {
        print(&format!("campaign {} has priority {priority} now\n", named.id))?;
    }
    Ok(ExitCode::SUCCESS)
}
