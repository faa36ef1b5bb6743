//! `campaignd campaign`: checks flow files without a server, and makes, lists, shows, starts and pauses campaigns.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::client::{Client, Error, Remote, Wrong, read as read_answer};
use super::output::{Colour, Failure, Paint, Table, clean, count, fact, print, print_json, status_colour, time, when};
use crate::domain::account::Channel;
use crate::domain::flow::{self, Flow};

/// Longest campaign file, in bytes: what the server takes in one request.
const FILE_MAX: u64 = 1 << 20;
/// What an object may hold that is a campaign and not a flow.
const KEYS: &[&str] = &["name", "flow_settings", "accounts"];

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
            Self::Create { file, name, start, json, remote } => {
                let text = Text::read(&file)?;
                create(&remote.client()?, &text, name, start, json).await
            }
            Self::List { status, json, remote } => list(&remote.client()?, status.as_deref(), json).await,
            Self::Show(named) => show(&named).await,
            Self::Start(named) => switch(&named, "start").await,
            Self::Pause(named) => switch(&named, "pause").await,
            Self::Resume(named) => switch(&named, "resume").await,
        }
    }
}

/// A campaign file as it was read.
#[derive(Debug)]
struct Text {
    /// For messages.
    name: String,
    /// What a campaign is called that has no other name.
    stem: Option<String>,
    bytes: Vec<u8>,
}

impl Text {
    fn read(file: &Path) -> Result<Self, Failure> {
        let stdin = file == Path::new("-");
        let name = if stdin { "<stdin>".to_owned() } else { clean(&file.to_string_lossy()) };
        let mut bytes = Vec::new();
        let input: Result<Box<dyn Read>, io::Error> =
            if stdin { Ok(Box::new(io::stdin())) } else { File::open(file).map(|f| Box::new(f) as Box<dyn Read>) };
        input
            .and_then(|input| input.take(FILE_MAX + 1).read_to_end(&mut bytes))
            .map_err(|e| Failure::unusable(format!("cannot read {name}: {e}")))?;
        if bytes.len() as u64 > FILE_MAX {
            return Err(Failure::refused(format!("{name}: is larger than 1 MiB")));
        }
        let stem = file.file_stem().filter(|_| !stdin).map(|s| s.to_string_lossy().into_owned());
        Ok(Self { name, stem, bytes })
    }

    /// The document, or where it is no JSON.
    fn parse(&self) -> Result<Document, Found> {
        let bytes = self.bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.bytes);
        serde_json::from_slice(bytes).map(Document::new).map_err(|e| {
            let full = e.to_string();
            let place = format!(" at line {} column {}", e.line(), e.column());
            Found {
                path: "$".to_owned(),
                message: format!("no JSON: {}", full.strip_suffix(&place).unwrap_or(&full)),
                place: Some((e.line(), e.column())),
            }
        })
    }
}

/// A problem of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    path: String,
    message: String,
    /// Line and column, where it is no JSON.
    place: Option<(usize, usize)>,
}

impl Found {
    fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), place: None }
    }

    /// `FILE: $.steps[2].delay: ...` or `FILE:3:14: ...`
    fn line(&self, file: &str) -> String {
        let message = clean(&self.message);
        match self.place {
            Some((line, column)) => format!("{file}:{line}:{column}: {message}"),
            None => format!("{file}: {}: {message}", clean(&self.path)),
        }
    }

    fn json(&self) -> Value {
        match self.place {
            Some((line, column)) => {
                json!({"path": self.path, "message": self.message, "line": line, "column": column})
            }
            None => json!({"path": self.path, "message": self.message}),
        }
    }
}

/// A flow, or a campaign with a flow in it.
#[derive(Debug)]
struct Document {
    flow: Value,
    /// `$`, or `$.flow_settings`: where the flow stands in the file.
    root: &'static str,
    /// The campaign around the flow, without the flow.
    around: Map<String, Value>,
}

impl Document {
    fn new(value: Value) -> Self {
        match value {
            Value::Object(mut map) if map.contains_key("flow_settings") => {
                let flow = map.remove("flow_settings").unwrap_or_default();
                Self { flow, root: "$.flow_settings", around: map }
            }
            flow => Self { flow, root: "$", around: Map::new() },
        }
    }

    /// A path in the flow as a path in the file.
    fn path(&self, in_flow: &str) -> String {
        format!("{}{}", self.root, in_flow.strip_prefix('$').unwrap_or(in_flow))
    }

    /// The flow, or every problem of the file.
    fn check(&self) -> Result<Flow, Vec<Found>> {
        let mut found = Vec::new();
        for (key, value) in &self.around {
            if !KEYS.contains(&key.as_str()) {
                found.push(Found::new(format!("$[{key:?}]"), format!("unknown key; known: {}", KEYS.join(", "))));
            } else if key == "name" && !value.is_string() {
                found.push(Found::new("$.name", "must be a text"));
            }
        }
        match flow::parse(&self.flow) {
            Ok(flow) if found.is_empty() => Ok(flow),
            Ok(_) => Err(found),
            Err(problems) => {
                found.extend(problems.into_iter().map(|p| Found::new(self.path(&p.path), p.message)));
                Err(found)
            }
        }
    }

    /// The name in the file: the campaign's, else the flow's.
    fn name(&self) -> Option<&str> {
        self.around
            .get("name")
            .or_else(|| self.flow.get("name"))
            .and_then(Value::as_str)
            .filter(|n| !n.trim().is_empty())
    }
}

/// `3 steps (linkedin, email)`; the channels in the order of their first step.
fn summary(flow: &Flow) -> String {
    let mut channels: Vec<Channel> = Vec::new();
    for channel in flow.steps.iter().filter_map(|s| s.action.channel()) {
        if !channels.contains(&channel) {
            channels.push(channel);
        }
    }
    let names: Vec<&str> = channels.into_iter().map(Channel::as_str).collect();
    let names = if names.is_empty() { "contacting nobody".to_owned() } else { names.join(", ") };
    let n = flow.len();
    format!("{n} step{} ({names})", if n == 1 { "" } else { "s" })
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

#[derive(Debug, Deserialize)]
struct Listed {
    id: Uuid,
    name: String,
    status: String,
    flow_version: i32,
    created_at: DateTime<Utc>,
}

async fn list(client: &Client, status: Option<&str>, json: bool) -> Result<ExitCode, Failure> {
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

async fn show(named: &Named) -> Result<ExitCode, Failure> {
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

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::post;

    use super::super::client::tests::serve;
    use super::*;

    macro_rules! golden {
        ($name:literal) => {
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/flows/", $name))
        };
    }

    fn text(content: &str) -> Text {
        Text { name: "flow.json".to_owned(), stem: Some("flow".to_owned()), bytes: content.as_bytes().to_vec() }
    }

    fn problems(content: &str) -> Vec<String> {
        let text = text(content);
        let found = text.parse().map_err(|e| vec![e]).and_then(|d| d.check()).unwrap_err();
        found.iter().map(|p| p.line(&text.name)).collect()
    }

    #[test]
    fn good_flows_are_summed_up() {
        for content in [golden!("seed_current.json"), golden!("seed_legacy.json")] {
            let flow = text(content).parse().unwrap().check().unwrap();
            assert_eq!(summary(&flow), "3 steps (linkedin, email)");
        }
        let wrapped = format!("\u{feff}{{\"name\": \"Spring\", \"flow_settings\": {}}}", golden!("seed_current.json"));
        let document = text(&wrapped).parse().unwrap();
        assert_eq!((document.check().is_ok(), document.name()), (true, Some("Spring")));
    }

    #[test]
    fn every_problem_is_a_line_with_the_file_and_the_path() {
        let expected: Vec<String> = golden!("six_mistakes.txt").lines().map(|l| format!("flow.json: {l}")).collect();
        assert_eq!(problems(golden!("six_mistakes.json")), expected);
    }

    #[test]
    fn paths_are_those_of_the_file_also_when_the_flow_is_inside_a_campaign() {
        let wrapped = format!("{{\"nam\": 1, \"flow_settings\": {}}}", golden!("six_mistakes.json"));
        let found = problems(&wrapped);
        assert_eq!(found[0], "flow.json: $[\"nam\"]: unknown key; known: name, flow_settings, accounts");
        assert!(found[1].starts_with("flow.json: $.flow_settings.timezone: "), "{found:?}");
        assert!(found[6].starts_with("flow.json: $.flow_settings.steps[1].delay: "), "{found:?}");
    }

    #[test]
    fn broken_json_is_told_with_line_and_column() {
        assert_eq!(problems("{\n  \"steps\": [,]\n}"), ["flow.json:2:13: no JSON: expected value"]);
        assert!(problems("")[0].starts_with("flow.json:1:0: no JSON: EOF"));
        let found = text("[1,").parse().unwrap_err().json();
        assert_eq!((&found["path"], &found["line"]), (&json!("$"), &json!(1)));
    }

    #[tokio::test]
    async fn problems_the_server_finds_are_told_as_those_of_the_file() {
        let refusal = json!({"title": "invalid flow", "code": "invalid_flow", "detail": "see problems",
            "problems": [{"path": "$.steps[0].delay", "message": "wrong"}]})
        .to_string();
        let handler = post(move || async move { (StatusCode::UNPROCESSABLE_ENTITY, refusal) });
        let client = serve(Router::new().route("/v1/campaigns", handler)).await;
        for (content, path) in
            [("{\"steps\": []}", "$.steps[0]"), ("{\"flow_settings\": 1}", "$.flow_settings.steps[0]")]
        {
            let failure = create(&client, &text(content), None, false, true).await.unwrap_err();
            assert_eq!(failure, Failure::refused(format!("flow.json: {path}.delay: wrong")));
        }
    }
}
