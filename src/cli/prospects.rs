//! `campaignd prospects`: takes people into a campaign from a CSV, and lists them.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::client::{Answer, Client, Error, Remote, read};
use super::listing::Listing;
use super::output::{Colour, Failure, Paint, Table, clean, count, print, print_json, relative, status_colour};

mod chunks;

use chunks::{Chunk, Chunks, Limits, Unreadable};

/// How many rows of a kind are shown; `--json` has them all.
const SHOWN_MAX: usize = 20;
/// Uploads under way: two that the server takes in, and one that it reads meanwhile.
const AT_ONCE: usize = 3;

/// Take people into a campaign and list them.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Take people into a campaign from a CSV file of any length
    ///
    /// The first line names the columns: first_name, last_name, email, phone, linkedin_url, company_name, title in any
    /// usual spelling; every other column can be used in messages by its name. Comma, semicolon or tab. Bad rows are
    /// reported with their line and left out; people who are in the campaign already are left out too, so an import can
    /// be repeated. The exit code is 1 when rows were rejected and nobody was taken in.
    #[command(after_help = "Examples:
  campaignd prospects import --campaign 0198c0de-0000-7000-8000-000000000001 people.csv
  zcat people.csv.gz | campaignd prospects import --campaign 0198c0de-0000-7000-8000-000000000001 --json -")]
    Import {
        /// The campaign's id
        #[arg(long, value_name = "ID")]
        campaign: Uuid,
        /// The CSV file in UTF-8; `-` is standard input
        file: PathBuf,
        /// Print the report as JSON, with every row
        #[arg(long)]
        json: bool,
        /// The server to talk to
        #[command(flatten)]
        remote: Remote,
    },
    /// List the people of a campaign and where they stand
    #[command(after_help = "Example:
  campaignd prospects list --campaign 0198c0de-0000-7000-8000-000000000001 --status failed")]
    List {
        /// The campaign's id
        #[arg(long, value_name = "ID")]
        campaign: Uuid,
        /// Only those with this status
        #[arg(long, value_parser = ["pending", "executing", "waiting_trigger", "completed", "failed", "paused"])]
        status: Option<String>,
        /// How much of it
        #[command(flatten)]
        listing: Listing,
    },
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// [`Failure`] with what to print and the exit code.
    pub async fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::Import { campaign, file, json, remote } => {
                import(&Arc::new(remote.client()?), campaign, &file, json).await
            }
            Self::List { campaign, status, listing } => list(&listing, campaign, status.as_deref()).await,
        }
    }
}

/// What became of the rows. Lines are those of the file.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Whether the whole file was read and sent.
    complete: bool,
    /// Rows that were sent.
    rows: u64,
    accepted: u64,
    duplicates: Vec<Duplicate>,
    suppressed: Vec<Suppressed>,
    rejected: Vec<Rejected>,
    warnings: Vec<String>,
}

/// A row whose person is not written to.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Suppressed {
    line: u64,
    key: String,
    reason: String,
}

/// A row that is somebody who is there already.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Duplicate {
    line: u64,
    /// `line 3`, or the id of the prospect.
    of: String,
    key: String,
}

/// A row that was not taken.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Rejected {
    line: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    column: Option<String>,
    reason: String,
}

/// The server's report on one upload. Lines are those of the upload.
#[derive(Debug, Deserialize)]
struct ChunkReport {
    accepted: u64,
    duplicates: Vec<Duplicate>,
    #[serde(default)]
    suppressed: Vec<Suppressed>,
    rejected: Vec<Rejected>,
    #[serde(default)]
    warnings: Vec<String>,
}

impl Report {
    fn add(&mut self, chunk: &Chunk, report: ChunkReport) {
        self.rows += chunk.rows();
        self.accepted += report.accepted;
        self.rejected.extend(report.rejected.into_iter().map(|r| Rejected { line: chunk.file_line(r.line), ..r }));
        self.suppressed
            .extend(report.suppressed.into_iter().map(|s| Suppressed { line: chunk.file_line(s.line), ..s }));
        self.duplicates.extend(report.duplicates.into_iter().map(|d| {
            let first = d.of.strip_prefix("line ").and_then(|n| n.parse().ok());
            let of = first.map_or(d.of, |line| format!("line {}", chunk.file_line(line)));
            Duplicate { line: chunk.file_line(d.line), of, key: d.key }
        }));
        for warning in report.warnings {
            merge_warning(&mut self.warnings, warning);
        }
    }

    /// Exit code 1 only if rows were rejected and nobody was taken in.
    fn exit_code(&self) -> ExitCode {
        ExitCode::from(u8::from(self.accepted == 0 && !self.rejected.is_empty()))
    }

    fn render(&self, paint: Paint) -> String {
        let mut out = String::new();
        let duplicates = self.duplicates.len() as u64;
        let suppressed = self.suppressed.len() as u64;
        let rejected = self.rejected.len() as u64;
        for (name, n, colour) in [
            ("accepted", self.accepted, Colour::Green),
            ("duplicates", duplicates, Colour::Yellow),
            ("suppressed", suppressed, Colour::Yellow),
            ("rejected", rejected, Colour::Red),
        ] {
            // Most lists have nobody on it.
            if name == "suppressed" && n == 0 {
                continue;
            }
            let colour = if n == 0 { Colour::Plain } else { colour };
            out.push_str(&format!("{name:<10} {}\n", paint.put(colour, &format!("{:>9}", count(n)))));
        }
        section(&mut out, "rejected", &self.rejected, |r| {
            let column = r.column.as_deref().map_or_else(String::new, |c| format!("{}: ", clean(c)));
            format!("line {}: {column}{}", r.line, clean(&r.reason))
        });
        section(&mut out, "duplicates", &self.duplicates, |d| {
            let of = match d.of.starts_with("line ") {
                true => clean(&d.of),
                false => format!("prospect {}, who is in the campaign already", clean(&d.of)),
            };
            format!("line {}: same {} as {of}", d.line, clean(&d.key))
        });
        section(&mut out, "suppressed: on the list of those who are not written to", &self.suppressed, |s| {
            format!("line {}: by {} ({})", s.line, clean(&s.key), clean(&s.reason.replace('_', " ")))
        });
        for warning in &self.warnings {
            out.push_str(&format!("{} {}\n", paint.put(Colour::Yellow, "warning:"), clean(warning)));
        }
        out
    }
}

/// The first of a list, one a line.
fn section<T>(out: &mut String, name: &str, items: &[T], line: impl Fn(&T) -> String) {
    if items.is_empty() {
        return;
    }
    out.push_str(&format!("\n{name}:\n"));
    for item in items.iter().take(SHOWN_MAX) {
        out.push_str(&format!("  {}\n", line(item)));
    }
    if items.len() > SHOWN_MAX {
        out.push_str(&format!("  ... and {} more; --json shows all\n", count((items.len() - SHOWN_MAX) as u64)));
    }
}

/// Adds a warning. Those that count rows of an upload (`3 of 10 accepted rows ...`) become one for the file.
fn merge_warning(all: &mut Vec<String>, new: String) {
    fn counted(text: &str) -> Option<(u64, u64, &str)> {
        let (n, rest) = text.split_once(" of ")?;
        let (of, rest) = rest.split_once(' ')?;
        Some((n.parse().ok()?, of.parse().ok()?, rest))
    }
    let merged = all.iter_mut().find_map(|old| {
        let sum = match (counted(old), counted(&new)) {
            (Some((a, of_a, what)), Some((b, of_b, same))) if what == same => {
                Some(format!("{} of {} {what}", a + b, of_a + of_b))
            }
            _ => (*old == new).then(|| new.clone()),
        };
        sum.map(|sum| *old = sum)
    });
    if merged.is_none() {
        all.push(new);
    }
}

async fn import(client: &Arc<Client>, campaign: Uuid, file: &Path, json: bool) -> Result<ExitCode, Failure> {
    let broken = |e: Unreadable| Failure { message: format!("{}: {e}", shown(file)), exit_code: 1 };
    // A file can be read twice: then nothing is sent of one that turns out to be broken. A pipe cannot.
    let total = match file.metadata() {
        Ok(about) if about.is_file() => Some(open(file)?.count().map_err(broken)?),
        _ => None,
    };
    let mut chunks = open(file)?;
    let bar = progress(total);
    let mut report = Report::default();
    let outcome = upload(client, campaign, &mut chunks, &mut report, &bar).await;
    bar.finish_and_clear();
    report.complete = outcome.is_ok();
    if json {
        print_json(&report)?;
    } else if report.complete || report.rows > 0 {
        print(&report.render(Paint::stdout()))?;
    }
    outcome.map(|()| report.exit_code()).map_err(|(cause, line)| {
        if report.rows == 0 {
            return Failure { message: format!("{}: {}", shown(file), cause.message), ..cause };
        }
        let message = format!(
            "{}: stopped before line {line}: {}\nthe lines before it are done, and perhaps some after it. import the same file again once that \
             is mended: people who are in the campaign already are left out",
            shown(file),
            cause.message
        );
        Failure { message, ..cause }
    })
}

/// Sends everything. On failure: why, and the first line of the file that was not taken.
///
/// The first upload goes alone: what is wrong with all of them is told once. Then the next is on its way and being read
/// while the server takes two in, which enter in the order in which they arrived.
async fn upload(
    client: &Arc<Client>,
    campaign: Uuid,
    chunks: &mut Chunks,
    report: &mut Report,
    bar: &ProgressBar,
) -> Result<(), (Failure, u64)> {
    let mut under_way: VecDeque<JoinHandle<(Chunk, Result<Answer, Error>)>> = VecDeque::new();
    let (mut at_once, mut failed) = (1, None);
    // The first line that no upload holds yet.
    let mut next = 2;
    let mut more = true;
    loop {
        while more && failed.is_none() && under_way.len() < at_once {
            match chunks.next_chunk() {
                Ok(Some(chunk)) => {
                    next = chunk.span().1 + 1;
                    under_way.push_back(tokio::spawn(send(Arc::clone(client), campaign, chunk, bar.clone())));
                }
                Ok(None) => more = false,
                Err(e) => failed = Some((Failure::refused(e.to_string()), next)),
            }
        }
        let Some(first) = under_way.pop_front() else { break };
        // It is neither aborted nor does it panic.
        let Ok((chunk, answer)) = first.await else { continue };
        let answer = answer.map_err(|e| refused(e, &chunk)).and_then(|answer| answer.read::<ChunkReport>());
        match answer {
            Ok(answer) => {
                report.add(&chunk, answer);
                bar.inc(chunk.rows());
                at_once = AT_ONCE;
            }
            // What follows it is on its way and may be taken in: its answer is worth waiting for.
            Err(why) => failed = failed.or(Some((why, chunk.span().0))),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Sends one upload, as often as the server asks for it.
async fn send(
    client: Arc<Client>,
    campaign: Uuid,
    mut chunk: Chunk,
    bar: ProgressBar,
) -> (Chunk, Result<Answer, Error>) {
    let waits = |wait: Duration| bar.set_message(format!(", the server is busy: again in {} s", wait.as_secs()));
    let body = std::mem::take(&mut chunk.body);
    let answer = client.upload(&format!("v1/campaigns/{campaign}/prospects"), body, waits).await;
    bar.set_message("");
    (chunk, answer)
}

/// The server's refusal of an upload, with the file's line in place of the upload's.
fn refused(error: Error, chunk: &Chunk) -> Failure {
    match error {
        Error::Problem(mut problem) => {
            if let Some(line) = problem.line {
                problem.detail =
                    problem.detail.replace(&format!("line {line} "), &format!("line {} ", chunk.file_line(line)));
            }
            Error::Problem(problem).into()
        }
        other => other.into(),
    }
}

fn open(file: &Path) -> Result<Chunks, Failure> {
    let chunks = if file == Path::new("-") {
        Chunks::new(BufReader::new(io::stdin()), Limits::SERVER)
    } else {
        let opened = File::open(file).map_err(|e| Failure::unusable(format!("cannot open {}: {e}", shown(file))))?;
        Chunks::new(BufReader::with_capacity(1 << 16, opened), Limits::SERVER)
    };
    chunks.map_err(|e| Failure::refused(format!("{}: {e}", shown(file))))
}

/// The file's name for messages.
fn shown(file: &Path) -> String {
    if file == Path::new("-") { "<stdin>".to_owned() } else { clean(&file.to_string_lossy()) }
}

/// A bar on standard error; nothing where that is no terminal.
fn progress(total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(rows) => (ProgressBar::new(rows), "{wide_bar} {human_pos}/{human_len} rows, {eta} left{msg}"),
        None => (ProgressBar::no_length(), "{spinner} {human_pos} rows, {elapsed}{msg}"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A person in a list.
#[derive(Debug, Deserialize)]
struct Listed {
    id: Uuid,
    first_name: Option<String>,
    last_name: Option<String>,
    status: Option<String>,
    current_step: Option<i32>,
    exit_reason: Option<String>,
    next_execution_at: Option<DateTime<Utc>>,
}

async fn list(listing: &Listing, campaign: Uuid, status: Option<&str>) -> Result<ExitCode, Failure> {
    let path = format!("v1/campaigns/{campaign}/prospects");
    let filter: Vec<(&str, &str)> = status.map(|s| ("status", s)).into_iter().collect();
    let Some(prospects) = listing.read(&path, &filter, "prospects").await? else { return Ok(ExitCode::SUCCESS) };
    let mut table = Table::new(&["ID", "NAME", "STATUS", "STEP", "ENDED BY", "DUE"]);
    for value in &prospects.items {
        let person: Listed = read(value)?;
        let name: Vec<&str> =
            [person.first_name.as_deref(), person.last_name.as_deref()].into_iter().flatten().collect();
        let status = person.status.as_deref().unwrap_or("-");
        table.row([
            (Colour::Plain, person.id.to_string().as_str()),
            (Colour::Plain, &name.join(" ")),
            (status_colour(status), status),
            (Colour::Plain, &person.current_step.map_or_else(String::new, |n| n.to_string())),
            (Colour::Plain, person.exit_reason.as_deref().unwrap_or_default()),
            (Colour::Plain, &person.next_execution_at.map_or_else(String::new, |at| relative(at, prospects.now))),
        ]);
    }
    prospects.print(&table, "")?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::post;
    use serde_json::{Value, json};
    use tokio::sync::Notify;

    use super::super::client::tests::serve;
    use super::*;

    const CAMPAIGN: Uuid = Uuid::from_u128(7);

    fn chunks(text: &str, rows: usize) -> Chunks {
        Chunks::new(Cursor::new(text.as_bytes().to_vec()), Limits { rows, bytes: 1 << 20 }).unwrap()
    }

    /// Uploads `text` in parts of `rows` to a server that answers with `answers`, one after the other.
    async fn run(text: &str, rows: usize, answers: Vec<(u16, Value)>) -> (Report, Result<(), (Failure, u64)>) {
        let answers = std::sync::Arc::new(std::sync::Mutex::new(answers.into_iter()));
        let handler = post(move || async move {
            let (status, body) = answers.lock().unwrap().next().unwrap();
            (StatusCode::from_u16(status).unwrap(), body.to_string())
        });
        let client = serve(Router::new().route(&format!("/v1/campaigns/{CAMPAIGN}/prospects"), handler)).await;
        let client = Arc::new(client);
        let mut report = Report::default();
        let outcome = upload(&client, CAMPAIGN, &mut chunks(text, rows), &mut report, &ProgressBar::hidden()).await;
        (report, outcome)
    }

    #[tokio::test]
    async fn reports_of_all_uploads_become_one_with_the_lines_of_the_file() {
        let text = "email,note\na@b.co,\"x\ny\"\nbad,\nc@b.co,\nC@b.co,\n";
        let (report, outcome) = run(
            text,
            2,
            vec![
                (201, json!({"accepted": 1, "duplicates": [], "rejected": [{"line": 4, "column": "email", "reason": "no @"}],
                    "warnings": ["1 of 1 accepted rows have no phone"]})),
                (201, json!({"accepted": 1, "duplicates": [{"line": 3, "of": "line 2", "key": "email"}], "rejected": [],
                    "warnings": ["1 of 1 accepted rows have no phone"]})),
            ],
        )
        .await;
        outcome.unwrap();
        assert_eq!((report.rows, report.accepted), (4, 2));
        assert_eq!(report.rejected[0].line, 4);
        assert_eq!((report.duplicates[0].line, report.duplicates[0].of.as_str()), (6, "line 5"));
        assert_eq!(report.warnings, ["2 of 2 accepted rows have no phone"]);
        assert_eq!(
            report.render(Paint::off()),
            "accepted           2\nduplicates         1\nrejected           1\n\
             \nrejected:\n  line 4: email: no @\n\
             \nduplicates:\n  line 6: same email as line 5\n\
             warning: 2 of 2 accepted rows have no phone\n"
        );
    }

    #[tokio::test]
    async fn a_refusal_in_the_middle_names_the_line_of_the_file_and_keeps_the_report() {
        let refusal =
            json!({"title": "invalid csv", "code": "invalid_csv", "detail": "line 2 cannot be read as CSV", "line": 2});
        let accepted = json!({"accepted": 1, "duplicates": [], "rejected": [], "warnings": []});
        let (report, outcome) = run("email\na@b.co\n\nb@b.co\n", 1, vec![(201, accepted), (422, refusal)]).await;
        let (failure, line) = outcome.unwrap_err();
        assert_eq!(failure, Failure::refused("invalid csv: line 4 cannot be read as CSV"));
        assert_eq!((line, report.rows, report.accepted), (4, 1, 1));
    }

    #[tokio::test]
    async fn the_next_upload_is_under_way_while_one_is_taken_in_and_reports_keep_their_order() {
        let (seen, arrived) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let handler = post(move || async move {
            let nth = seen.fetch_add(1, Ordering::SeqCst);
            if nth == 2 {
                arrived.notify_one();
            }
            if nth == 1 {
                // Answered only once the one behind it is there.
                arrived.notified().await;
            }
            json!({"accepted": 1, "duplicates": [], "rejected": [{"line": 2, "reason": "x"}]}).to_string()
        });
        let client = serve(Router::new().route(&format!("/v1/campaigns/{CAMPAIGN}/prospects"), handler)).await;
        let mut report = Report::default();
        let (client, bar) = (Arc::new(client), ProgressBar::hidden());
        let mut chunks = chunks("email\na\nb\nc\nd\n", 1);
        let sent = upload(&client, CAMPAIGN, &mut chunks, &mut report, &bar);
        tokio::time::timeout(Duration::from_secs(30), sent).await.expect("no waiting for each other").unwrap();
        assert_eq!((report.rows, report.accepted), (4, 4));
        assert_eq!(report.rejected.iter().map(|r| r.line).collect::<Vec<_>>(), [2, 3, 4, 5]);
    }

    #[test]
    fn only_an_import_that_took_nobody_and_rejected_rows_fails() {
        let rejected = || vec![Rejected { line: 2, column: None, reason: "x".to_owned() }];
        let code = |report: &Report| format!("{:?}", report.exit_code());
        let (good, bad) = (format!("{:?}", ExitCode::SUCCESS), format!("{:?}", ExitCode::from(1)));
        assert_eq!(code(&Report::default()), good);
        assert_eq!(code(&Report { accepted: 1, rejected: rejected(), ..Report::default() }), good);
        assert_eq!(code(&Report { rejected: rejected(), ..Report::default() }), bad);
    }

    #[test]
    fn a_long_list_is_cut_and_says_so() {
        let rejected = (0..25).map(|line| Rejected { line, column: None, reason: "x".to_owned() }).collect();
        let text = Report { rejected, ..Report::default() }.render(Paint::off());
        assert_eq!(text.matches("  line ").count(), SHOWN_MAX);
        assert!(text.contains("... and 5 more; --json shows all"), "{text}");
    }
}
