//! The HTTP client: one call, one request.
//!
//! Owns the base URL, the key, the time limits and the size limit of an answer, and turns what can go wrong on the way
//! into [`Error`], which keeps "nothing was written" apart from "nobody knows". Follows no redirect (the key would
//! travel along) and never retries. What is traced carries its `traceparent`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use reqwest::multipart::Form;
use reqwest::{Client, RequestBuilder, Url};
use serde::de::DeserializeOwned;

use crate::telemetry::PROVIDER_REQUESTS;

use super::errors::{ApiError, Error};
use crate::provider::Secret;
use crate::telemetry::trace;

/// Longest JSON answer that is read, in bytes.
pub(super) const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Longest list of mails that is read, in bytes: headers only come together with the bodies.
pub(super) const MAIL_LIST_BYTES_MAX: usize = 8 << 20;

/// Where Unipile is and how to get in.
#[derive(Clone, Debug)]
pub struct Options {
    /// The tenant's address, for example `https://api8.unipile.com:13443` or `http://127.0.0.1:8090`, with or without
    /// `/api/v1`. Where high ports are blocked, `https://api8.unipile.com?port=13443`: the port is then kept on each
    /// request.
    pub base_url: String,
    /// The access token of the tenant. It opens every account.
    pub api_key: Secret,
    /// Longest time for one request, connecting and reading the answer included. A third of it, at most, may go into
    /// connecting. Default 30 s; more means that a dead connection holds up its account for longer.
    pub timeout: Duration,
}

impl Options {
    /// Options with the default time limit.
    pub fn new(base_url: impl Into<String>, api_key: Secret) -> Self {
        Self { base_url: base_url.into(), api_key, timeout: Duration::from_secs(30) }
    }
}

/// A tenant of Unipile. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Unipile {
    http: Client,
    base: Url,
    key: Secret,
    /// Also the upper bound of the reads that are only nice to have.
    pub(super) timeout: Duration,
    /// Whether this tenant has refused the names of the unsubscribe headers as the standard spells them.
    pub(super) plain_headers_refused: Arc<AtomicBool>,
}

impl Unipile {
    /// A client. Opens no connection yet.
    ///
    /// # Errors
    /// [`Error::Options`] when the base URL or the key cannot be used.
    pub fn new(options: Options) -> Result<Self, Error> {
        // Fails only if a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let base = base_url(&options.base_url)?;
        let key = options.api_key.expose();
        if key.trim().is_empty() || !key.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::Options("the api key is empty or has characters a header cannot carry".into()));
        }
        let mut http = Client::builder()
            .user_agent(concat!("campaignd/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(options.timeout / 3)
            .timeout(options.timeout);
        if is_loopback(&base) {
            http = http.no_proxy();
        }
        let http = http.build().map_err(|e| Error::Options(format!("cannot set up the http client: {e}")))?;
        let plain_headers_refused = Arc::default();
        Ok(Self { http, base, key: options.api_key, timeout: options.timeout, plain_headers_refused })
    }

    /// The address of a call. Segments and values are percent-encoded here.
    fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Url, Error> {
        // A URL swallows these segments, which would turn the call into another one.
        if path.iter().any(|s| s.is_empty() || *s == "." || *s == "..") {
            return Err(Error::NotSent("an id in the address is empty or a dot".into()));
        }
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    /// Reads.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        bytes_max: usize,
    ) -> Result<T, Error> {
        self.call(path, self.http.get(self.url(path, query)?), bytes_max).await
    }

    /// Posts a JSON body.
    pub(super) async fn post_json<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &serde_json::Value,
    ) -> Result<T, Error> {
        self.call(path, self.http.post(self.url(path, &[])?).json(body), ANSWER_BYTES_MAX).await
    }

    /// Posts a form. `idempotency_key` goes into the header of that name.
    pub(super) async fn post_form<T: DeserializeOwned>(
        &self,
        path: &[&str],
        form: Form,
        idempotency_key: Option<&str>,
    ) -> Result<T, Error> {
        let mut request = self.http.post(self.url(path, &[])?).multipart(form);
        if let Some(key) = idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        self.call(path, request, ANSWER_BYTES_MAX).await
    }

    /// Deletes.
    pub(super) async fn delete(&self, path: &[&str]) -> Result<(), Error> {
        let _: serde_json::Value = self.call(path, self.http.delete(self.url(path, &[])?), ANSWER_BYTES_MAX).await?;
        Ok(())
    }

    async fn call<T: DeserializeOwned>(
        &self,
        path: &[&str],
        request: RequestBuilder,
        bytes_max: usize,
    ) -> Result<T, Error> {
        let answer = self.exchange(request, bytes_max).await;
        let (endpoint, code) = (endpoint(path), code(answer.as_ref().err()));
        metrics::counter!(PROVIDER_REQUESTS, "endpoint" => endpoint, "code" => code).increment(1);
        answer
    }

    async fn exchange<T: DeserializeOwned>(&self, request: RequestBuilder, bytes_max: usize) -> Result<T, Error> {
        let request = match trace::current() {
            Some(context) => request.header(trace::HEADER, context.to_string()),
            None => request,
        };
        let mut response = request
            .header("X-API-KEY", self.key.expose())
            .header("accept", "application/json")
            .send()
            .await
            .map_err(Error::transport)?;
        let status = response.status();
        let mut body = Vec::new();
        let read = loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() > bytes_max => {
                    break Err(format!("the answer is longer than {bytes_max} bytes"));
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break Ok(()),
                Err(e) => break Err(format!("the answer broke off: {}", e.without_url())),
            }
        };
        if !status.is_success() {
            // A refusal whose text is missing is still a refusal.
            return Err(Error::Api(ApiError::read(status.as_u16(), &body)));
        }
        read.map_err(Error::Unreadable)?;
        super::wire::json(&body)
            .map_err(|e| Error::Unreadable(format!("the answer is not what was expected ({:?})", e.classify())))
    }
}

/// The first part of a path: the rest holds ids.
fn endpoint(path: &[&str]) -> &'static str {
    const KNOWN: &[&str] = &["accounts", "chats", "emails", "linkedin", "messages", "users", "webhooks"];
    path.first().and_then(|first| KNOWN.iter().find(|known| *known == first)).copied().unwrap_or("other")
}

/// How a call was answered, as the metrics name it.
fn code(error: Option<&Error>) -> &'static str {
    match error {
        None | Some(Error::Unreadable(_)) => "2xx",
        Some(Error::Options(_) | Error::NotSent(_)) => "unreachable",
        Some(Error::Lost(_)) => "lost",
        Some(Error::Api(answer)) => match answer.status {
            401 => "401",
            403 => "403",
            404 => "404",
            422 => "422",
            429 => "429",
            400..500 => "4xx",
            _ => "5xx",
        },
    }
}

/// The address with `/api/v1`, and of the query only `port`.
fn base_url(text: &str) -> Result<Url, Error> {
    let bad =
        |why: &str| Error::Options(format!("the base url {why}, give for example https://api8.unipile.com:13443"));
    let mut url = Url::parse(text.trim()).map_err(|e| bad(&format!("cannot be read ({e})")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(bad("is not http or https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("must not carry a user or password"));
    }
    let port = url.query_pairs().find(|(name, _)| name == "port").map(|(_, value)| value.into_owned());
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&if path.ends_with("/api/v1") { path } else { format!("{path}/api/v1") });
    url.set_fragment(None);
    url.set_query(None);
    if let Some(port) = port {
        url.query_pairs_mut().append_pair("port", &port);
    }
    Ok(url)
}

/// Whether the address is this machine: then no proxy of the environment is asked.
fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(base_url: &str) -> Result<Unipile, Error> {
        Unipile::new(Options::new(base_url, Secret::new("k3y")))
    }

    #[test]
    fn the_base_url_may_come_with_or_without_the_version_and_keeps_a_port_in_the_query() {
        for (given, expected) in [
            (
                "https://api8.unipile.com:13443",
                "https://api8.unipile.com:13443/api/v1/users/jane%2Fdoe?account_id=a%26b",
            ),
            ("http://127.0.0.1:8090/api/v1/", "http://127.0.0.1:8090/api/v1/users/jane%2Fdoe?account_id=a%26b"),
            (
                "https://api8.unipile.com/?port=13443&x=1",
                "https://api8.unipile.com/api/v1/users/jane%2Fdoe?port=13443&account_id=a%26b",
            ),
        ] {
            let url = client(given).unwrap().url(&["users", "jane/doe"], &[("account_id", "a&b")]).unwrap();
            assert_eq!(url.as_str(), expected);
        }
    }

    #[test]
    fn an_address_that_would_become_another_call_is_refused() {
        let client = client("http://127.0.0.1:8090").unwrap();
        for id in ["", ".", ".."] {
            assert!(client.url(&["users", id], &[]).is_err());
        }
    }

    #[test]
    fn a_base_url_that_cannot_be_used_is_refused() {
        for given in ["", "api8.unipile.com", "ftp://x", "https://user:pw@x.test"] {
            assert!(matches!(client(given), Err(Error::Options(_))), "{given}");
        }
    }

    #[test]
    fn the_key_is_not_shown() {
        let options = Options::new("http://127.0.0.1:1", Secret::new("k3y"));
        assert!(!format!("{options:?}").contains("k3y"));
        assert!(!format!("{:?}", Unipile::new(options).unwrap()).contains("k3y"));
    }
}
