//! The writer's own statement, to be run by pgbench: the same text on the same rows, without our program.
//!
//! A batch's parameters are laid down in a table, one row a batch; the script reads them from there instead of being sent
//! them. Everything here runs in a scratch database.

use sqlx::{AssertSqlSafe, Connection as _, Either, Executor as _, PgConnection, Statement as _, TypeInfo as _};
use uuid::Uuid;

use crate::domain::account::Channel;
use crate::domain::id::{AccountId, CampaignId, WorkspaceId};
use crate::domain::time::Timestamp;
use crate::store::lease::LeaseView;
use crate::store::writer::{Batch, Change, PLAN_ONCE};
use crate::store::{Error, Pool, failed, shard_column};

const ROWS: &str = "CREATE TABLE bench_row WITH (fillfactor = 80) AS \
    SELECT n::bigint AS id, 0 AS n, repeat('x', 200) AS filler FROM generate_series(1, $1::bigint) AS n";
const ROWS_KEY: &str = "ALTER TABLE bench_row ADD PRIMARY KEY (id)";
const VACUUM: &str = "VACUUM (ANALYZE)";
const COUNT: &str = "SELECT count(*) FROM transitions";
const ACCOUNTS: &str = "WITH made AS ( \
        INSERT INTO accounts (workspace_id, id, shard, channel, provider, provider_account_id, name) \
        SELECT $1, a.id, a.shard, a.channel, 'bench', a.id, a.id \
        FROM unnest($2::uuid[], $3::smallint[], $4::text[]) AS a (id, shard, channel) RETURNING id, shard) \
    INSERT INTO account_gate (workspace_id, account_id, shard) SELECT $1, id, shard FROM made";
// Version 1: not an arrival. The prospect has the execution's id, which no key forbids.
const PROSPECTS: &str = "WITH people AS ( \
        INSERT INTO campaign_prospects (id, campaign_id, workspace_id, first_name, email) \
        SELECT u.id, $2, $1, 'P', u.id || '@people.example' FROM unnest($3::uuid[]) AS u (id)) \
    INSERT INTO campaign_prospect_execution_state (id, campaign_id, prospect_id, workspace_id, flow_version, step_id, version, \
        next_execution_at) \
    SELECT u.id, $2, u.id, $1, 1, 'invite', 1, $4 FROM unnest($3::uuid[]) AS u (id)";

/// How a one-row commit is asked for; `:rows` is the table's size.
pub const ONE_ROW: &str = "\\set id random(1, :rows)\nUPDATE bench_row SET n = n + 1 WHERE id = :id;\n";

/// What the sessions of the writer's lanes are set to, as libpq's `PGOPTIONS`.
pub const LANE_OPTIONS: &str =
    "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_mergejoin=off -c jit=off";

/// Changes as the writer would send them: one batch.
#[derive(Debug)]
pub struct Recorded(Batch);

impl Recorded {
    /// Turns changes, at most one an execution, into the parameters of the writer's statement.
    pub fn new(lease: &LeaseView, changes: &[&Change]) -> Self {
        Self(Batch::new(lease, changes))
    }

    /// The transitions in it.
    pub fn transitions(&self) -> usize {
        self.0.transitions()
    }

    /// Writes it as a lane does, and answers how many executions moved. `connection`: one that [`lane`] made.
    ///
    /// # Errors
    /// When Postgres refuses.
    pub async fn write(&self, connection: &mut Lane) -> Result<usize, Error> {
        self.0.run(&mut connection.0).await.map(|outcome| outcome.moved.len())
    }
}

/// A connection with the settings of a writer's lane.
#[derive(Debug)]
pub struct Lane(PgConnection);

/// Opens one.
///
/// # Errors
/// When Postgres does not let us in.
pub async fn lane(pool: &Pool) -> Result<Lane, Error> {
    let what = failed("connecting as a lane");
    let mut connection = PgConnection::connect_with(&pool.connect_options()).await.map_err(&what)?;
    sqlx::query(PLAN_ONCE).execute(&mut connection).await.map_err(&what)?;
    Ok(Lane(connection))
}

/// Makes the table of the one-row commit.
///
/// # Errors
/// When Postgres refuses.
pub async fn make_rows(pool: &Pool, rows: i64) -> Result<(), Error> {
    let what = failed("making the table of the one-row commit");
    let mut connection = unlimited(pool).await.map_err(&what)?;
    // A statement that makes a table takes no parameters.
    let make = ROWS.replace("$1::bigint", &rows.to_string());
    for statement in [make.as_str(), ROWS_KEY, VACUUM] {
        sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await.map_err(&what)?;
    }
    connection.close().await.map_err(&what)
}

/// Makes accounts with their gates.
///
/// # Errors
/// When Postgres refuses.
pub async fn make_accounts(
    pool: &Pool,
    workspace: WorkspaceId,
    accounts: &[(AccountId, Channel)],
) -> Result<(), Error> {
    sqlx::query(ACCOUNTS)
        .bind(workspace.0)
        .bind(accounts.iter().map(|(id, _)| id.0).collect::<Vec<_>>())
        .bind(accounts.iter().map(|(id, _)| shard_column(id.shard())).collect::<Vec<_>>())
        .bind(accounts.iter().map(|(_, channel)| channel.as_str()).collect::<Vec<_>>())
        .execute(pool)
        .await
        .map_err(failed("making accounts for a floor"))
        .map(drop)
}

/// Makes prospects whose executions have these ids: at the first step, of version 1, due at `at`. A prospect's id is its
/// execution's.
///
/// # Errors
/// When Postgres refuses.
pub async fn make_prospects(
    pool: &Pool,
    workspace: WorkspaceId,
    campaign: CampaignId,
    ids: &[Uuid],
    at: Timestamp,
) -> Result<(), Error> {
    sqlx::query(PROSPECTS)
        .bind(workspace.0)
        .bind(campaign.0)
        .bind(ids)
        .bind(at.to_utc())
        .execute(pool)
        .await
        .map_err(failed("making prospects for a floor"))
        .map(drop)
}

/// How many transitions there are.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn transitions(pool: &Pool) -> Result<i64, Error> {
    sqlx::query_scalar(COUNT).fetch_one(pool).await.map_err(failed("counting transitions"))
}

/// Lays batches down for pgbench, one sequence a client, and answers the script that writes them: each client walks its own
/// sequence from the first to the last, one a transaction. `name` keeps several of them in one database apart.
///
/// # Errors
/// When Postgres refuses.
pub async fn lay_down(pool: &Pool, name: &str, clients: &[Vec<Recorded>]) -> Result<String, Error> {
    let what = failed("laying batches down for pgbench");
    let mut connection = unlimited(pool).await.map_err(&what)?;
    // What the batches hold may call for different statements; each has its own parameters, and so its own table.
    let mut tables: Vec<(&'static str, String, String)> = Vec::new();
    let mut runs: Vec<(usize, usize)> = Vec::new();
    let longest = clients.iter().map(Vec::len).max().unwrap_or(0);
    for number in 0..longest {
        for (client, batches) in clients.iter().enumerate() {
            let Some(Recorded(batch)) = batches.get(number) else { continue };
            let statement = batch.statement();
            let table = match tables.iter().position(|(text, ..)| *text == statement) {
                Some(table) => table,
                None => {
                    let table = format!("bench_{name}_{}", tables.len());
                    let insert = make_table(&mut connection, &table, statement).await.map_err(&what)?;
                    tables.push((statement, table, insert));
                    tables.len() - 1
                }
            };
            if let Some((_, _, insert)) = tables.get(table) {
                let key = i64::try_from(client * SEQUENCE + number).unwrap_or(i64::MAX);
                let query = batch.bind(sqlx::query(AssertSqlSafe(insert.as_str()))).bind(key);
                query.execute(&mut connection).await.map_err(&what)?;
            }
            if runs.last().is_none_or(|(_, last)| *last != table) {
                runs.push((number, table));
            }
        }
    }
    connection.close().await.map_err(&what)?;
    Ok(script(&tables, &runs))
}

/// Between the numbers of two clients' sequences.
const SEQUENCE: usize = 1_000_000;

/// Makes the table of a statement's parameters (`n`, `p1`, `p2`, ..) and answers the statement that fills it.
async fn make_table(
    connection: &mut PgConnection,
    table: &str,
    statement: &'static str,
) -> Result<String, sqlx::Error> {
    // The largest statement names the type of every parameter; the smaller ones end earlier, and may pass some over.
    let prepared = (&mut *connection).prepare(sqlx::SqlStr::from_static(Batch::WHOLE)).await?;
    let numbers = statement.split('$').skip(1).filter_map(|part| {
        let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        part.get(..digits)?.parse::<usize>().ok()
    });
    let last = numbers.max().unwrap_or(0);
    let types: Vec<String> = match prepared.parameters() {
        Some(Either::Left(types)) => types.iter().take(last).map(|t| t.name().to_owned()).collect(),
        _ => Vec::new(),
    };
    let columns: Vec<String> = types.iter().enumerate().map(|(i, t)| format!("p{} {t}", i + 1)).collect();
    // Not compressed: the writer is sent them as they are.
    let plain: Vec<String> = types
        .iter()
        .enumerate()
        .filter(|(_, t)| t.ends_with("[]"))
        .map(|(i, _)| format!("ALTER COLUMN p{} SET STORAGE EXTERNAL", i + 1))
        .collect();
    let create = format!("CREATE TABLE {table} ({}, n bigint PRIMARY KEY)", columns.join(", "));
    connection.execute(AssertSqlSafe(create)).await?;
    connection.execute(AssertSqlSafe(format!("ALTER TABLE {table} {}", plain.join(", ")))).await?;
    let values: Vec<String> = (1..=types.len() + 1).map(|i| format!("${i}")).collect();
    Ok(format!("INSERT INTO {table} VALUES ({})", values.join(", ")))
}

/// `:i` counts a client's transactions; `-D i=-1` is to be given.
fn script(tables: &[(&'static str, String, String)], runs: &[(usize, usize)]) -> String {
    let mut text = format!("\\set i :i + 1\n\\set n :client_id * {SEQUENCE} + :i\n");
    for (i, (_, table)) in runs.iter().enumerate() {
        let until = runs.get(i + 1).map(|(next, _)| *next);
        let Some((statement, name, _)) = tables.get(*table) else { continue };
        match (i, until) {
            (0, None) => {}
            (0, Some(until)) => text.push_str(&format!("\\if :i < {until}\n")),
            (_, Some(until)) => text.push_str(&format!("\\elif :i < {until}\n")),
            (_, None) => text.push_str("\\else\n"),
        }
        text.push_str(&from_table(statement, name));
        text.push_str(";\n");
    }
    if runs.len() > 1 {
        text.push_str("\\endif\n");
    }
    text
}

/// The statement with its parameters read from row `:n` of a table.
fn from_table(statement: &str, table: &str) -> String {
    let rest = statement.strip_prefix("WITH ").unwrap_or(statement);
    let mut text = format!("WITH bench_b AS MATERIALIZED (SELECT * FROM {table} WHERE n = :n), ");
    let mut parts = rest.split('$');
    text.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = part.split_at(digits);
        text.push_str(&format!("(SELECT p{number} FROM bench_b){after}"));
    }
    text
}

async fn unlimited(pool: &Pool) -> Result<PgConnection, sqlx::Error> {
    let options = pool.connect_options().as_ref().clone().options([("statement_timeout", "0")]);
    PgConnection::connect_with(&options).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_given_its_parameters_from_a_row() {
        let text = from_table("WITH a AS (SELECT $1, $12::text[]) SELECT * FROM a", "t");
        assert_eq!(
            text,
            "WITH bench_b AS MATERIALIZED (SELECT * FROM t WHERE n = :n), a AS (SELECT (SELECT p1 FROM bench_b), \
             (SELECT p12 FROM bench_b)::text[]) SELECT * FROM a"
        );
    }

    #[test]
    fn a_script_changes_its_statement_where_the_batches_do() {
        let tables =
            [("WITH a AS (x) y", "t0".to_owned(), String::new()), ("WITH b AS (x) y", "t1".to_owned(), String::new())];
        let one = script(&tables, &[(0, 0)]);
        assert!(!one.contains("\\if") && one.matches("FROM t0").count() == 1, "{one}");
        let three = script(&tables, &[(0, 0), (5, 1), (9, 0)]);
        let order = ["\\if :i < 5", "FROM t0", "\\elif :i < 9", "FROM t1", "\\else", "FROM t0", "\\endif"];
        let mut from = 0;
        for part in order {
            from += three[from..].find(part).unwrap_or_else(|| panic!("{part} in {three}"));
        }
    }
}
