//! The demo's database: dropped and made anew at each run, kept in between.

use super::{Error, Pool, failed};

/// Its name.
pub const DEMO_DATABASE: &str = "campaignd_demo";

const SERVED: &str = "
SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = 'campaignd_demo' AND application_name = 'campaignd')";
// FORCE: a forgotten psql must not keep the demo from starting.
const DROP: &str = "DROP DATABASE IF EXISTS campaignd_demo WITH (FORCE)";
const CREATE: &str = "CREATE DATABASE campaignd_demo";

/// Makes the demo's database afresh. Answers `false`, and changes nothing, while another campaignd uses it.
///
/// # Errors
/// When Postgres cannot be asked, or the role may not make databases.
pub async fn recreate_demo(pool: &Pool) -> Result<bool, Error> {
    let what = failed("making the demo's database");
    if sqlx::query_scalar(SERVED).fetch_one(pool).await.map_err(&what)? {
        return Ok(false);
    }
    sqlx::query(DROP).execute(pool).await.map_err(&what)?;
    sqlx::query(CREATE).execute(pool).await.map_err(&what)?;
    Ok(true)
}
