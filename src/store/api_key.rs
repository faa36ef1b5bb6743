//! Keys of the HTTP API: `cmp_<id>_<secret>`. Only a digest is stored, and the key is shown once.
//!
//! Called by `http::auth` for every request (behind its cache) and by the CLI.

use std::fmt;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::{Error, Pool, failed};
use crate::domain::id::WorkspaceId;
use crate::domain::time::Timestamp;

const INSERT: &str =
    "INSERT INTO api_keys (workspace_id, id, name, secret_sha256, created_at) VALUES ($1, $2, $3, $4, $5)";

const FIND: &str = "SELECT workspace_id, secret_sha256, name FROM api_keys WHERE id = $1 AND revoked_at IS NULL";

const LIST: &str =
    "SELECT id, name, created_at, revoked_at FROM api_keys WHERE workspace_id = $1 ORDER BY created_at, id";

const REVOKE: &str = "UPDATE api_keys SET revoked_at = coalesce(revoked_at, $3) WHERE workspace_id = $1 AND id = $2";

/// What every key starts with, so that secret scanners can find one.
pub const PREFIX: &str = "cmp_";

/// A key as the client presents it. `Debug` hides the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    id: String,
    secret: String,
}

impl Key {
    /// Makes a new one: 12 hexadecimal characters of id, 244 random bits of secret.
    fn generate() -> Self {
        let id = Uuid::new_v4().simple().to_string();
        Self { id: id[..12].to_owned(), secret: random_secret() }
    }

    /// Reads `cmp_<id>_<secret>`; `None` for any other shape.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let plain = |s: &str, max: usize| (1..=max).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_alphanumeric());
        (plain(id, 64) && plain(secret, 128)).then(|| Self { id: id.to_owned(), secret: secret.to_owned() })
    }

    /// The public part: names the key in lists, logs and `revoke`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The whole key, for the one time it is shown.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}_{}", self.id, self.secret)
    }

    /// Whether the secret is the one of the stored digest. Takes the same time whatever differs.
    pub fn matches(&self, stored: &Stored) -> bool {
        bool::from(digest(&self.secret).ct_eq(&stored.secret_sha256[..]))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

/// What is stored about a live key.
#[derive(Clone, sqlx::FromRow)]
pub struct Stored {
    workspace_id: Uuid,
    secret_sha256: Vec<u8>,
    name: String,
}

impl Stored {
    /// The tenant the key speaks for.
    pub fn workspace(&self) -> WorkspaceId {
        WorkspaceId(self.workspace_id)
    }

    /// The key's name for people.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stored({})", self.workspace_id)
    }
}

/// A key in a list.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Listed {
    /// The public part.
    pub id: String,
    /// A name for people.
    pub name: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was revoked; `None` while it works.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// Makes a key for a workspace. It is shown by [`Key::reveal`] now or never again.
///
/// # Errors
/// The database's; also when the workspace does not exist.
pub async fn create(pool: &Pool, workspace: WorkspaceId, name: &str, now: Timestamp) -> Result<Key, Error> {
    let key = Key::generate();
    sqlx::query(INSERT)
        .bind(workspace.0)
        .bind(&key.id)
        .bind(name)
        .bind(&digest(&key.secret)[..])
        .bind(now.to_utc())
        .execute(pool)
        .await
        .map_err(failed("api key: create"))?;
    Ok(key)
}

/// What is stored about the live key of that id; `None` when there is none or it was revoked.
///
/// # Errors
/// The database's.
pub async fn find(pool: &Pool, id: &str) -> Result<Option<Stored>, Error> {
    sqlx::query_as(FIND).bind(id).fetch_optional(pool).await.map_err(failed("api key: find"))
}

/// The workspace a presented key speaks for; `None` when it is unknown, revoked or wrong.
///
/// # Errors
/// The database's.
pub async fn verify(pool: &Pool, key: &Key) -> Result<Option<WorkspaceId>, Error> {
    let stored = find(pool, &key.id).await?;
    Ok(stored.filter(|s| key.matches(s)).map(|s| s.workspace()))
}

/// Every key of a workspace, oldest first, revoked ones too.
///
/// # Errors
/// The database's.
pub async fn list(pool: &Pool, workspace: WorkspaceId) -> Result<Vec<Listed>, Error> {
    sqlx::query_as(LIST).bind(workspace.0).fetch_all(pool).await.map_err(failed("api key: list"))
}

/// Ends a key. Servers notice within a minute. False: the workspace has no such key.
///
/// # Errors
/// The database's.
pub async fn revoke(pool: &Pool, workspace: WorkspaceId, id: &str, now: Timestamp) -> Result<bool, Error> {
    let done = sqlx::query(REVOKE)
        .bind(workspace.0)
        .bind(id)
        .bind(now.to_utc())
        .execute(pool)
        .await
        .map_err(failed("api key: revoke"))?;
    Ok(done.rows_affected() > 0)
}

/// 64 hexadecimal characters that hold 244 random bits, from the operating system's generator.
pub(super) fn random_secret() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// The SHA-256 of a secret. The secret has enough entropy that a slow hash would add nothing.
pub(super) fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_and_hides_its_secret() {
        let key = Key::generate();
        let shown = key.reveal();
        assert_eq!(Key::parse(&shown), Some(key.clone()));
        assert!(!format!("{key:?}").contains(&key.secret));
        assert_eq!(key.secret.len(), 64);
    }

    #[test]
    fn other_shapes_are_no_keys() {
        for text in ["", "cmp_", "cmp_abc", "cmp__x", "cmp_abc_", "xyz_abc_def", "cmp_abc_d ef", "cmp_a-b_def"] {
            assert_eq!(Key::parse(text), None, "{text}");
        }
    }

    #[test]
    fn only_the_right_secret_matches() {
        let key = Key::generate();
        let stored =
            Stored { workspace_id: Uuid::nil(), secret_sha256: digest(&key.secret).to_vec(), name: String::new() };
        assert!(key.matches(&stored));
        assert!(!Key { secret: random_secret(), ..key }.matches(&stored));
    }
}
