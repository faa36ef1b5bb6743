//! The key by which links in mails are authenticated: made once, by whoever needs it first.

use chrono::{DateTime, Utc};

use super::{Error, Pool, failed};
use crate::domain::link::{LinkSecret, SECRET_BYTES};
use crate::domain::time::Timestamp;

const MAKE: &str =
    "INSERT INTO link_secrets (name, secret, created_at) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING";

const READ: &str = "SELECT secret, created_at FROM link_secrets WHERE name = $1";

/// The name of the key for links by which people unsubscribe.
const UNSUBSCRIBE: &str = "unsubscribe";

/// The key for links by which people unsubscribe. The first call of an installation makes it; it never changes, because every
/// link that was sent would break.
///
/// # Errors
/// The database's; [`Error::Decode`] when somebody has put something else in its place.
pub async fn unsubscribe(pool: &Pool, now: Timestamp) -> Result<LinkSecret, Error> {
    let what = failed("link secret");
    let wrong =
        || Error::Decode { what: "link secret", id: UNSUBSCRIBE.to_owned(), reason: "it is too short".to_owned() };
    let read = async || {
        let row: Option<(Vec<u8>, DateTime<Utc>)> =
            sqlx::query_as(READ).bind(UNSUBSCRIBE).fetch_optional(pool).await.map_err(&what)?;
        row.map(|(secret, _)| LinkSecret::new(secret).ok_or_else(wrong)).transpose()
    };
    if let Some(secret) = read().await? {
        return Ok(secret);
    }
    // Two processes that need it at once: one makes it, both read it.
    sqlx::query(MAKE).bind(UNSUBSCRIBE).bind(&random()[..]).bind(now.to_utc()).execute(pool).await.map_err(&what)?;
    read().await?.ok_or_else(wrong)
}

/// 244 bits of the operating system's generator, as the bytes of their digest.
fn random() -> [u8; SECRET_BYTES] {
    super::api_key::digest(&super::api_key::random_secret())
}
