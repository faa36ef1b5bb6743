//! Where a provider delivers webhooks: an unguessable path segment and the digest of a secret header.
//!
//! Called by `http::webhook` (which refuses an endpoint without a secret) and by `http::api::hooks`.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;
use subtle::ConstantTimeEq;
use utoipa::ToSchema;
use uuid::Uuid;

use super::api_key::{digest, random_secret};
use super::{Error, Pool, failed};
use crate::domain::id::WorkspaceId;
use crate::domain::time::Timestamp;

const INSERT: &str = "INSERT INTO webhook_endpoints (workspace_id, id, provider, secret_sha256, created_at) \
     VALUES ($1, $2, $3, $4, $5)";

const FIND: &str = "SELECT workspace_id, secret_sha256 FROM webhook_endpoints WHERE id = $1 AND provider = $2";

const LIST: &str = "SELECT id, provider, secret_sha256 IS NOT NULL AS has_secret, created_at FROM webhook_endpoints \
     WHERE workspace_id = $1 ORDER BY created_at, id";

/// An endpoint as the receiver needs it.
#[derive(Clone, sqlx::FromRow)]
pub struct Endpoint {
    workspace_id: Uuid,
    secret_sha256: Option<Vec<u8>>,
}

impl Endpoint {
    /// The tenant whose inbox it fills.
    pub fn workspace(&self) -> WorkspaceId {
        WorkspaceId(self.workspace_id)
    }

    /// Whether a secret is configured. Without one nothing is taken in.
    pub fn has_secret(&self) -> bool {
        self.secret_sha256.is_some()
    }

    /// Whether `presented` is the secret. Takes the same time whatever differs; false when none is configured.
    pub fn accepts(&self, presented: &str) -> bool {
        self.secret_sha256.as_ref().is_some_and(|stored| bool::from(digest(presented).ct_eq(&stored[..])))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({}, secret: {})", self.workspace_id, self.has_secret())
    }
}

/// A webhook endpoint in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema, sqlx::FromRow)]
#[schema(as = HookEndpoint)]
pub struct Listed {
    /// The path segment.
    pub id: String,
    /// Who delivers there.
    pub provider: String,
    /// Whether a secret is configured; without one every delivery is refused.
    pub has_secret: bool,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// A new endpoint with the secret that is shown once.
#[derive(Clone, PartialEq, Eq)]
pub struct Created {
    /// The path segment: 122 random bits.
    pub id: String,
    /// What the provider has to send in its secret header.
    pub secret: String,
}

impl fmt::Debug for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Created({})", self.id)
    }
}

/// Makes an endpoint. Without a `secret` one is generated.
///
/// # Errors
/// The database's.
pub async fn create(
    pool: &Pool,
    workspace: WorkspaceId,
    provider: &str,
    secret: Option<&str>,
    now: Timestamp,
) -> Result<Created, Error> {
    let made =
        Created { id: Uuid::new_v4().simple().to_string(), secret: secret.map_or_else(random_secret, str::to_owned) };
    sqlx::query(INSERT)
        .bind(workspace.0)
        .bind(&made.id)
        .bind(provider)
        .bind(&digest(&made.secret)[..])
        .bind(now.to_utc())
        .execute(pool)
        .await
        .map_err(failed("endpoint: create"))?;
    Ok(made)
}

/// The endpoint of that id for that provider.
///
/// # Errors
/// The database's.
pub async fn find(pool: &Pool, id: &str, provider: &str) -> Result<Option<Endpoint>, Error> {
    sqlx::query_as(FIND).bind(id).bind(provider).fetch_optional(pool).await.map_err(failed("endpoint: find"))
}

/// Every endpoint of a workspace, oldest first.
///
/// # Errors
/// The database's.
pub async fn list(pool: &Pool, workspace: WorkspaceId) -> Result<Vec<Listed>, Error> {
    sqlx::query_as(LIST).bind(workspace.0).fetch_all(pool).await.map_err(failed("endpoint: list"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_without_a_secret_accepts_nothing() {
        let open = Endpoint { workspace_id: Uuid::nil(), secret_sha256: None };
        assert!(!open.accepts(""));
        let closed = Endpoint { workspace_id: Uuid::nil(), secret_sha256: Some(digest("right").to_vec()) };
        assert!(closed.accepts("right"));
        assert!(!closed.accepts("wrong"));
        assert!(!closed.accepts(""));
    }
}
