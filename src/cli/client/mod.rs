//! The HTTP client of the commands: where the server is, with which key, and what its refusals mean for a person.
//!
//! Owns [`Remote`] (the options every such command has) and `Client`. Follows no redirect: the key would travel along.
//! Repeats nothing by itself except where a command asks for it (an upload).

use std::net::IpAddr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, Url, redirect};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::output::Failure;
use crate::clock::Clock;
use crate::domain::time::Timestamp;
use crate::provider::Secret;

mod error;
mod remote;
#[cfg(test)]
pub(super) mod tests;

use error::cause;
pub(super) use error::{Error, Problem, Wrong};
pub use remote::Remote;

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

    /// Changes something with a JSON body.
    pub(super) async fn patch(&self, path: &str, body: &Value) -> Result<Answer, Error> {
        self.send(self.http.patch(self.url(path)).json(body).timeout(REQUEST_MAX)).await
    }

    /// Deletes something.
    pub(super) async fn delete(&self, path: &str) -> Result<Answer, Error> {
        self.send(self.http.delete(self.url(path)).timeout(REQUEST_MAX)).await
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
            let next = answer.body.get("next_cursor").and_then(Value::as_str).map(str::to_owned);
            // A page may be empty and not the last; one that leads to itself would be asked for for ever.
            let stands_still = next == cursor && items.len() == before;
            cursor = next;
            if cursor.is_none() || items.len() >= max || stands_still {
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
        if error::refused(error) {
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

fn server_time(headers: &HeaderMap) -> Option<Timestamp> {
    let text = headers.get(SERVER_TIME)?.to_str().ok()?;
    DateTime::parse_from_rfc3339(text).ok().map(|at| at.with_timezone(&Utc).into())
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}
