//! Whether the database answers.

use super::{Error, Pool, failed};

const PING: &str = "SELECT 1";

/// Asks the database for nothing.
///
/// # Errors
/// When it cannot be reached, or no connection became free.
pub async fn ping(pool: &Pool) -> Result<(), Error> {
    sqlx::query(PING).execute(pool).await.map_err(failed("asking the database for a sign of life"))?;
    Ok(())
}
