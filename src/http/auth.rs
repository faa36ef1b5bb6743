//! Who is asking: the API key of a request, and with it the workspace every statement is bound to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::Instant;

use super::Shared;
use super::error::{Problem, Result};
use crate::domain::id::WorkspaceId;
use crate::store::{
    self,
    api_key::{self, Key, Stored},
};
use crate::telemetry::AUTH_FAILURES;

/// How long a key that was found is believed without asking again: a revocation takes this long at most.
const CACHED_FOR: Duration = Duration::from_secs(60);
/// Entries after which the cache starts afresh.
const CACHED_MAX: usize = 10_000;

/// The workspace of the request's key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tenant(pub(crate) WorkspaceId);

impl<S: Send + Sync> FromRequestParts<S> for Tenant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        // Absent only when a route was put outside the authenticated router: then nothing may be shown.
        parts.extensions.get().copied().ok_or_else(|| Problem::unauthorized("missing_api_key", "no API key was given"))
    }
}

/// The name of the request's key: who decided something, for the timeline.
#[derive(Clone, Debug)]
pub(crate) struct Caller(pub(crate) Arc<str>);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        parts.extensions.get().cloned().ok_or_else(|| Problem::unauthorized("missing_api_key", "no API key was given"))
    }
}

/// Keys that were looked up lately. Only ids that exist get in, and never a secret.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<HashMap<String, (Instant, Stored)>>);

impl Cache {
    fn get(&self, id: &str) -> Option<Stored> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.get(id).filter(|(at, _)| at.elapsed() < CACHED_FOR).map(|(_, stored)| stored.clone())
    }

    fn put(&self, id: &str, stored: Stored) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= CACHED_MAX {
            map.clear();
        }
        map.insert(id.to_owned(), (Instant::now(), stored));
    }
}

/// Lets a request pass that carries a valid key, and says which workspace it speaks for.
pub(crate) async fn authenticate(
    State(shared): State<Arc<Shared>>,
    mut request: Request,
    next: Next,
) -> Result<Response> {
    let key = presented(request.headers())?;
    let stored = match shared.keys.get(key.id()) {
        Some(stored) => Some(stored),
        None => {
            let found = store::with_pool("api", api_key::find(&shared.app.pool, key.id())).await?;
            found.inspect(|stored| shared.keys.put(key.id(), stored.clone()))
        }
    };
    let stored = stored.filter(|s| key.matches(s)).ok_or_else(wrong)?;
    request.extensions_mut().insert(Tenant(stored.workspace()));
    request.extensions_mut().insert(Caller(stored.name().into()));
    Ok(next.run(request).await)
}

/// Counts a request without a valid key or secret.
pub(crate) fn refused(surface: &'static str, reason: &'static str) {
    metrics::counter!(AUTH_FAILURES, "surface" => surface, "reason" => reason).increment(1);
}

/// The key of `Authorization: Bearer` or `X-API-Key`.
fn presented(headers: &HeaderMap) -> Result<Key> {
    let text = |name: &str| headers.get(name).map(|v| v.to_str().unwrap_or_default());
    let bearer = text(header::AUTHORIZATION.as_str()).map(|v| match v.split_once(' ') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => rest.trim(),
        _ => "",
    });
    let presented = bearer.or_else(|| text("x-api-key")).ok_or_else(|| {
        refused("api", "missing");
        Problem::unauthorized("missing_api_key", "send the API key as 'Authorization: Bearer cmp_...' or in X-API-Key")
    })?;
    Key::parse(presented).ok_or_else(wrong)
}

fn wrong() -> Problem {
    refused("api", "invalid");
    Problem::unauthorized("invalid_api_key", "the API key is not valid: unknown, revoked or mistyped")
}
