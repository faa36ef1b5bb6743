//! The HTTP client of the commands: where the server is, with which key, and what its refusals mean for a person.
//!
//! Owns [`Remote`] (the options every such command has) and [`Client`]. Follows no redirect: the key would travel along.
//! Repeats nothing by itself except where a command asks for it ([`Client::upload`]).

use std::convert::Infallible;
use std::error::Error as _;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, Url, redirect};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::database::key_file;
use super::output::{Failure, clean};
use crate::clock::Clock;
use crate::domain::time::Timestamp;
use crate::provider::Secret;

/// Connecting takes no longer.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// A request takes no longer: a little more than the server gives itself.
const REQUEST_MAX: Duration = Duration::from_secs(40);
/// An upload takes no longer: likewise.
const UPLOAD_MAX: Duration = Duration::from_secs(180);
/// How often an upload is tried while the server says that it is busy.
const UPLOAD_TRIES: u32 = 10;
/// The longest wait between two tries, whatever the server asks for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// Longest answer that is read, in bytes.
const ANSWER_MAX: usize = 64 << 20;
/// Rows of one page of a list.
const PAGE: usize = 500;
/// The server's clock, which is not the wall clock in a demo.
const SERVER_TIME: &str = "campaignd-time";

/// Which server a command talks to.
#[derive(Clone, Debug, clap::Args)]
pub struct Remote {
    /// The server's address
    #[arg(
        long,
        env = "CAMPAIGND_SERVER",
        default_value = "http://127.0.0.1:8080",
        value_name = "URL",
        value_parser = server,
        help_heading = "Server"
    )]
    pub server: Url,
    /// The API key; else the one in the file `api-key` of the data directory (CAMPAIGND_DATA_DIR), which `campaignd
    /// serve` and `key create` write
    #[arg(
        long,
        env = "CAMPAIGND_API_KEY",
        hide_env_values = true,
        value_name = "KEY",
        value_parser = secret,
        help_heading = "Server"
    )]
    pub api_key: Option<Secret>,
}

/// Reads `--server`. A bare `host:port` means plain HTTP.
fn server(text: &str) -> Result<Url, String> {
    let text = text.trim();
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url = Url::parse(&full).map_err(|e| format!("no address: {e}; write it as http://127.0.0.1:8080"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("no address: write it as http://127.0.0.1:8080 or https://campaignd.example.com".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err("must hold neither credentials nor `?` or `#`; the key goes into --api-key".to_owned());
    }
    Ok(url)
}

fn secret(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(text.trim()))
}

impl Remote {
    /// A client for this server. Does not connect yet.
    ///
    /// # Errors
    /// When the TLS library cannot be set up.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let given = self.api_key.clone().filter(|k| !k.expose().is_empty());
        let (key, key_problem) = match given {
            Some(key) => (Some(key), None),
            None => match std::fs::read_to_string(key_file()) {
                Ok(text) => (Some(Secret::new(text.trim())).filter(|k| !k.expose().is_empty()), None),
                Err(e) if e.kind() == io::ErrorKind::NotFound => (None, None),
                Err(e) => (None, Some(format!("cannot read {}: {e}", key_file().display()))),
            },
        };
        Client::new(&self.server, key, key_problem)
    }
}

/// A campaignd server. One request a call.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    /// Without a slash at its end.
    server: String,
    key: Option<Secret>,
    /// Why the key file could not be read.
    key_problem: Option<String>,
}

/// An answer that is not an error.
#[derive(Debug)]
pub(super) struct Answer {
    /// The document.
    pub(super) body: Value,
    /// The server's time, for relative times.
    pub(super) now: Timestamp,
}

impl Answer {
    /// The document as a type.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        read(&self.body)
    }
}

/// A part of an answer as a type.
pub(super) fn read<T: DeserializeOwned>(value: &Value) -> Result<T, Failure> {
    T::deserialize(value).map_err(|e| {
        Failure::refused(format!("the server's answer has another form than this version reads ({e}); is it newer?"))
    })
}

impl Client {
    fn new(server: &Url, key: Option<Secret>, key_problem: Option<String>) -> Result<Self, Failure> {
        // Another part of this program may have installed it already: the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_MAX)
            .redirect(redirect::Policy::none())
            .user_agent(concat!("campaignd/", env!("CARGO_PKG_VERSION")));
        if is_local(server) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|e| Failure::unusable(format!("cannot set up HTTP: {}", cause(&e))))?;
        Ok(Self { http, server: server.as_str().trim_end_matches('/').to_owned(), key, key_problem })
    }

    /// Reads a document. `path` has no slash in front.
    ///
    /// # Errors
    /// See [`Error`]; so do all the others.
    pub(super) async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Answer, Error> {
        self.send(self.http.get(self.url(path)).query(query).timeout(REQUEST_MAX)).await
    }

    /// Posts a document.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Answer, Error> {
        self.send(self.http.post(self.url(path)).json(body).timeout(REQUEST_MAX)).await
    }

    /// Posts CSV. Waits and tries again while the server says that it is busy (503 with `Retry-After`): the server takes
    /// nobody in twice. `waits` is told each wait.
    pub(super) async fn upload(&self, path: &str, csv: Vec<u8>, waits: impl Fn(Duration)) -> Result<Answer, Error> {
        let csv = bytes(csv);
        let mut tries = 1;
        loop {
            let request = self.http.post(self.url(path)).header(CONTENT_TYPE, "text/csv").timeout(UPLOAD_MAX);
            match self.send(request.body(csv.clone())).await {
                Err(Error::Problem(Problem { retry_after: Some(wait), .. })) if tries < UPLOAD_TRIES => {
                    tries += 1;
                    waits(wait);
                    tokio::time::sleep(wait).await;
                }
                other => return other,
            }
        }
    }

    /// Reads the items `name` of a list, page after page, at most `max`; and whether there are more.
    pub(super) async fn list(
        &self,
        path: &str,
        filter: &[(&str, &str)],
        name: &str,
        max: usize,
    ) -> Result<(Vec<Value>, bool, Timestamp), Failure> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let limit = PAGE.min(max - items.len()).to_string();
            let mut query = filter.to_vec();
            query.push(("limit", &limit));
            query.extend(cursor.as_deref().map(|c| ("cursor", c)));
            let mut answer = self.get(path, &query).await?;
            let before = items.len();
            if let Some(Value::Array(page)) = answer.body.get_mut(name).map(Value::take) {
                items.extend(page);
            }
            cursor = answer.body.get("next_cursor").and_then(Value::as_str).map(str::to_owned);
            // A page without items would be asked for for ever.
            if cursor.is_none() || items.len() >= max || items.len() == before {
                return Ok((items, cursor.is_some(), answer.now));
            }
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.server)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Answer, Error> {
        let request = match &self.key {
            Some(key) => request.bearer_auth(key.expose()),
            None => request,
        };
        let response = request.send().await.map_err(|e| self.failed(&e))?;
        let status = response.status();
        let now = server_time(response.headers()).unwrap_or_else(|| Clock::System.now());
        let retry_after = (status.as_u16() == 503).then(|| retry_after(response.headers())).flatten();
        let body = self.body(response).await?;
        let strange = || Error::Strange { server: self.server.clone(), status: status.as_u16() };
        if status.is_success() {
            let body = serde_json::from_slice(&body).map_err(|_| strange())?;
            return Ok(Answer { body, now });
        }
        let mut problem: Problem = serde_json::from_slice(&body).map_err(|_| strange())?;
        problem.retry_after = retry_after;
        problem.hint = match (status.as_u16(), problem.code.as_str()) {
            (401, _) => Some(self.key_hint()),
            (_, "no_account") => Some("from here: `campaignd account add`, see its --help".to_owned()),
            _ => None,
        };
        Err(Error::Problem(problem))
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|e| self.failed(&e))? {
            if body.len() + part.len() > ANSWER_MAX {
                return Err(Error::Strange { server: self.server.clone(), status: response.status().as_u16() });
            }
            body.extend_from_slice(&part);
        }
        Ok(body)
    }

    fn failed(&self, error: &reqwest::Error) -> Error {
        let server = self.server.clone();
        if refused(error) {
            Error::NobodyThere { server }
        } else if error.is_connect() {
            Error::Unreachable { server, reason: cause(error) }
        } else if error.is_timeout() {
            Error::Slow { server }
        } else {
            Error::Broken { server, reason: cause(error) }
        }
    }

    /// How to get in.
    fn key_hint(&self) -> String {
        let mut hint = String::new();
        if let Some(problem) = &self.key_problem {
            hint = format!("{problem}\n");
        }
        hint + "make a key with `campaignd key create` where the server runs, and pass it in CAMPAIGND_API_KEY or --api-key"
    }
}

/// Makes clones of a body cheap.
fn bytes(body: Vec<u8>) -> axum::body::Bytes {
    body.into()
}

/// Whether the server is on this machine: then no proxy stands between.
fn is_local(server: &Url) -> bool {
    let host = server.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether nobody listens there.
fn refused(error: &reqwest::Error) -> bool {
    let mut source = error.source();
    while let Some(e) = source {
        if e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
            return true;
        }
        source = e.source();
    }
    false
}

/// The innermost text of an error: the outer ones repeat the address.
fn cause(error: &reqwest::Error) -> String {
    let mut found: &dyn std::error::Error = error;
    while let Some(source) = found.source() {
        found = source;
    }
    found.to_string()
}

fn server_time(headers: &HeaderMap) -> Option<Timestamp> {
    let text = headers.get(SERVER_TIME)?.to_str().ok()?;
    DateTime::parse_from_rfc3339(text).ok().map(|at| at.with_timezone(&Utc).into())
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Nothing listens.
    #[error("no campaignd answers at {server}: start it with `campaignd serve` or pass --server")]
    NobodyThere { server: String },
    /// No connection came about.
    #[error("cannot reach {server}: {reason}")]
    Unreachable { server: String, reason: String },
    /// It takes too long; what was asked may have been done.
    #[error("{server} did not answer in time; it may still have done what was asked: look before you repeat it")]
    Slow { server: String },
    /// The connection broke; what was asked may have been done.
    #[error("the connection to {server} broke ({reason}); look before you repeat what was asked")]
    Broken { server: String, reason: String },
    /// Something else answers there.
    #[error("{server} answers ({status}), but not as campaignd does: does --server name the right address?")]
    Strange { server: String, status: u16 },
    /// The server said no.
    #[error("{0}")]
    Problem(Problem),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Problem(_) => Self::refused(error.to_string()),
            _ => Self::unusable(error.to_string()),
        }
    }
}

/// A problem document (RFC 9457) of the server.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Problem {
    /// `code` in words.
    pub(super) title: String,
    /// For people.
    #[serde(default)]
    pub(super) detail: String,
    /// For programs.
    #[serde(default)]
    pub(super) code: String,
    /// What is wrong where.
    #[serde(default)]
    pub(super) problems: Vec<Wrong>,
    /// The line of an upload.
    #[serde(default)]
    pub(super) line: Option<u64>,
    /// What there is already.
    #[serde(default)]
    pub(super) id: Option<String>,
    #[serde(skip)]
    hint: Option<String>,
    #[serde(skip)]
    pub(super) retry_after: Option<Duration>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Wrong {
    /// Its JSON path.
    pub(super) path: String,
    /// What is wrong with it.
    pub(super) message: String,
}

/// Title and detail, then a line for each problem.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&clean(&self.title))?;
        if !self.detail.is_empty() {
            write!(f, ": {}", clean(&self.detail))?;
        }
        for wrong in &self.problems {
            write!(f, "\n  {}: {}", clean(&wrong.path), clean(&wrong.message))?;
        }
        if let Some(id) = &self.id {
            write!(f, "\n  id: {}", clean(id))?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n{hint}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::body::Bytes;
    use axum::http::{HeaderMap, StatusCode};
    use axum::routing::{get, post};
    use serde_json::json;

    use super::*;

    /// A client of a server with these routes.
    pub(in crate::cli) async fn serve(routes: Router) -> Client {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Client::new(&Url::parse(&url).unwrap(), Some(Secret::new("cmp_test")), None).unwrap()
    }

    fn problem(status: StatusCode, body: &Value) -> (StatusCode, String) {
        (status, body.to_string())
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_told_with_what_to_do() {
        let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let client = Client::new(&Url::parse(&format!("http://127.0.0.1:{port}/")).unwrap(), None, None).unwrap();
        let failure = Failure::from(client.get("v1/campaigns", &[]).await.unwrap_err());
        assert_eq!(failure.exit_code, 2);
        assert_eq!(
            failure.message,
            format!(
                "no campaignd answers at http://127.0.0.1:{port}: start it with `campaignd serve` or pass --server"
            )
        );
    }

    #[tokio::test]
    async fn a_refused_key_says_how_to_get_one() {
        let document = json!({"title": "invalid api key", "status": 401, "code": "invalid_api_key", "detail": "no"});
        let answer = problem(StatusCode::UNAUTHORIZED, &document);
        let client = serve(Router::new().route("/v1/accounts", get(|| async { answer }))).await;
        let failure = Failure::from(client.get("v1/accounts", &[]).await.unwrap_err());
        assert_eq!(failure.exit_code, 1);
        assert!(failure.message.starts_with("invalid api key: no\n"), "{failure}");
        assert!(failure.message.contains("campaignd key create"), "{failure}");
        assert!(!failure.message.contains("cmp_test"));
    }

    #[tokio::test]
    async fn every_problem_of_a_document_is_shown_with_its_path() {
        let document = json!({
            "title": "invalid fields", "status": 422, "code": "invalid_fields", "detail": "see problems",
            "problems": [{"path": "$.name", "message": "must not be empty"}, {"path": "$.steps[0].x", "message": "un\u{1b}known"}]
        });
        let answer = problem(StatusCode::UNPROCESSABLE_ENTITY, &document);
        let client = serve(Router::new().route("/x", post(|| async { answer }))).await;
        let error = client.post("x", &json!({})).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid fields: see problems\n  $.name: must not be empty\n  $.steps[0].x: un\u{fffd}known"
        );
    }

    #[tokio::test]
    async fn something_else_at_the_address_is_told_apart() {
        let client = serve(Router::new().route("/x", get(|| async { "<html>" }))).await;
        for path in ["x", "y"] {
            let error = client.get(path, &[]).await.unwrap_err();
            assert!(matches!(error, Error::Strange { .. }), "{error}");
        }
    }

    #[tokio::test]
    async fn an_upload_is_tried_again_while_the_server_is_busy() {
        let calls = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&calls);
        let handler = post(move |headers: HeaderMap, body: Bytes| async move {
            assert_eq!(
                (&headers["content-type"], &headers["authorization"]),
                (&"text/csv".parse().unwrap(), &"Bearer cmp_test".parse().unwrap())
            );
            assert_eq!(&body[..], b"email\na@b.co\n");
            match seen.fetch_add(1, Ordering::Relaxed) {
                0 | 1 => {
                    let busy = json!({"title": "busy", "code": "busy", "detail": "try again"}).to_string();
                    (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")], busy)
                }
                _ => (
                    StatusCode::CREATED,
                    [("campaignd-time", "2030-01-01T00:00:00Z")],
                    json!({"accepted": 1}).to_string(),
                ),
            }
        });
        let client = serve(Router::new().route("/up", handler)).await;
        let answer = client.upload("up", b"email\na@b.co\n".to_vec(), |_| {}).await.unwrap();
        assert_eq!((&answer.body["accepted"], calls.load(Ordering::Relaxed)), (&json!(1), 3));
        assert_eq!(answer.now.to_string(), "2030-01-01T00:00:00.000000Z");
    }

    #[tokio::test]
    async fn a_list_is_read_page_after_page_up_to_its_limit() {
        let handler = get(|uri: axum::http::Uri| async move {
            let query = uri.query().unwrap_or_default().to_owned();
            let (items, next) =
                if query.contains("cursor=c1") { (json!([3]), None) } else { (json!([1, 2]), Some("c1")) };
            json!({"things": items, "next_cursor": next}).to_string()
        });
        let client = serve(Router::new().route("/things", handler)).await;
        let (all, more, _) = client.list("things", &[], "things", usize::MAX).await.unwrap();
        assert_eq!((all, more), (vec![json!(1), json!(2), json!(3)], false));
        let (two, more, _) = client.list("things", &[], "things", 2).await.unwrap();
        assert_eq!((two.len(), more), (2, true));
    }

    #[test]
    fn an_address_may_leave_the_scheme_out_and_holds_no_credentials() {
        assert_eq!(server("127.0.0.1:8080").unwrap().as_str(), "http://127.0.0.1:8080/");
        assert_eq!(server("https://x.example.com/base/").unwrap().as_str(), "https://x.example.com/base/");
        for bad in ["", "ftp://x", "http://u:p@x", "http://x/?a=b", "http://"] {
            assert!(server(bad).is_err(), "{bad}");
        }
        assert!(is_local(&server("localhost:1").unwrap()) && is_local(&server("http://[::1]:1").unwrap()));
        assert!(!is_local(&server("http://campaignd:8080").unwrap()));
    }
}
