//! Migrations, on empty databases and on ones with rows in mid-flow.

mod adoption;
mod rights;

use std::process::Command;

use campaignd::domain::id::shard_of;
use campaignd::domain::time::Timestamp;
use campaignd::postgres;
use campaignd::store::migrate::{ensure_partitions, migrate};
use chrono::{DateTime, Utc};
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use sqlx::postgres::types::PgInterval;
use uuid::Uuid;

use crate::harness::Db;

/// The schema as pg_dump sees it, without the random marks that newer ones print.
fn schema_of(url: &str) -> String {
    let dump = postgres::find_binaries().unwrap().join("pg_dump");
    let out = Command::new(dump).args(["--schema-only", "--dbname", url]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines().filter(|l| !l.contains("restrict ")).collect::<Vec<_>>().join("\n")
}

/// A campaign of the default workspace with `prospects` prospects.
async fn campaign_with(pool: &PgPool, prospects: i32) -> (Uuid, Vec<Uuid>) {
    let campaign = sqlx::query_scalar("INSERT INTO campaigns (name, status) VALUES ('c', 'active') RETURNING id")
        .fetch_one(pool)
        .await
        .unwrap();
    let ids = sqlx::query_scalar(
        "INSERT INTO campaign_prospects (campaign_id, first_name) SELECT $1, 'P' || n FROM generate_series(1, $2) n
         RETURNING id",
    )
    .bind(campaign)
    .bind(prospects)
    .fetch_all(pool)
    .await
    .unwrap();
    (campaign, ids)
}

const INITIALIZE: &str = "SELECT initialize_execution_state($1, $2)";

#[tokio::test]
async fn migrating_twice_changes_nothing() {
    let db = Db::empty().await;
    let first = migrate(&db.pool).await.unwrap();
    assert!(!first.already_up_to_date);
    assert_eq!(
        first.applied,
        [
            "1 seed",
            "2 ours",
            "3 hot",
            "4 upload",
            "5 one check",
            "6 suppressions",
            "7 catch up",
            "8 budgets",
            "9 traceparent",
            "10 look ups",
            "11 no row trigger"
        ]
    );
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).unwrap().count();
    assert_eq!(first.applied.len(), files, "a new file is embedded only when src/store/migrate.rs is compiled again");
    assert_eq!(first.adopted, None);
    let schema = schema_of(&db.url);

    let second = migrate(&db.pool).await.unwrap();
    assert!(second.already_up_to_date);
    assert!(second.applied.is_empty());
    assert_eq!(schema_of(&db.url), schema);
}

#[tokio::test]
async fn processes_that_migrate_at_once_take_turns() {
    let db = Db::empty().await;
    let runs = futures_util::future::join_all((0..4).map(|_| migrate(&db.pool))).await;
    let did: usize = runs.into_iter().map(|run| run.unwrap().applied.len()).sum();
    assert_eq!(did, 11, "each migration was applied by one of them");
    assert!(migrate(&db.pool).await.unwrap().already_up_to_date);
}

#[tokio::test]
async fn the_seeds_table_has_its_columns_types_and_defaults() {
    let db = Db::new().await;
    let columns: Vec<(String, String, Option<String>)> = sqlx::query_as(
        "SELECT column_name::text, CASE data_type WHEN 'ARRAY' THEN udt_name::text ELSE data_type::text END, column_default::text
         FROM information_schema.columns WHERE table_name = 'campaign_prospect_execution_state' ORDER BY ordinal_position",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    let seen: Vec<(&str, &str, &str)> =
        columns.iter().take(20).map(|(n, t, d)| (&**n, &**t, d.as_deref().unwrap_or(""))).collect();
    let zoned = "timestamp with time zone";
    assert_eq!(
        seen,
        [
            ("id", "uuid", "gen_random_uuid()"),
            ("campaign_id", "uuid", ""),
            ("prospect_id", "uuid", ""),
            ("current_step", "integer", "1"),
            ("status", "text", "'pending'::text"),
            ("completed_steps", "_int4", ""),
            ("failed_steps", "_int4", ""),
            ("skipped_steps", "_int4", ""),
            ("linkedin_state", "jsonb", ""),
            ("email_state", "jsonb", ""),
            ("whatsapp_state", "jsonb", ""),
            ("waiting_for_trigger", "text", ""),
            ("trigger_check_count", "integer", ""),
            ("trigger_max_checks", "integer", "168"),
            ("next_check_at", zoned, ""),
            ("n8n_execution_id", "text", ""),
            ("last_executed_at", zoned, ""),
            ("next_execution_at", zoned, ""),
            ("last_error", "text", ""),
            ("error_count", "integer", ""),
        ]
    );
    // "Indexes Created: 4" beside the two keys, "Functions Created: 3", "RLS Policies: 2".
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT indexname::text FROM pg_indexes WHERE tablename = 'campaign_prospect_execution_state'
         AND indexname LIKE 'execution_state%' ORDER BY 1",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    assert_eq!(
        names,
        ["execution_state_campaign", "execution_state_prospect", "execution_state_shard", "execution_state_workspace"]
    );
    let all: i64 =
        sqlx::query_scalar("SELECT count(*) FROM pg_indexes WHERE tablename = 'campaign_prospect_execution_state'")
            .fetch_one(&db.pool)
            .await
            .unwrap();
    assert_eq!(all, 6);
    let mut functions: Vec<String> =
        sqlx::query_scalar("SELECT proname::text FROM pg_proc WHERE proname LIKE '%execution%'")
            .fetch_all(&db.pool)
            .await
            .unwrap();
    functions.sort();
    assert_eq!(
        functions,
        ["get_next_pending_executions", "initialize_execution_state", "update_execution_state_updated_at"]
    );
    let policies: i64 =
        sqlx::query_scalar("SELECT count(*) FROM pg_policies WHERE tablename = 'campaign_prospect_execution_state'")
            .fetch_one(&db.pool)
            .await
            .unwrap();
    assert_eq!(policies, 2);
}

#[tokio::test]
async fn initialising_a_prospect_twice_gives_the_same_row_unchanged() {
    let db = Db::new().await;
    let (campaign, prospects) = campaign_with(&db.pool, 1).await;
    let id: Uuid = sqlx::query_scalar(INITIALIZE).bind(campaign).bind(prospects[0]).fetch_one(&db.pool).await.unwrap();
    let row: (i32, String, Vec<i32>, i32, i32, bool, Uuid, i16) = sqlx::query_as(
        "SELECT current_step, status, completed_steps, error_count, trigger_max_checks, next_execution_at <= now(),
                workspace_id, shard FROM campaign_prospect_execution_state WHERE id = $1",
    )
    .bind(id)
    .fetch_one(&db.pool)
    .await
    .unwrap();
    let workspace = Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0001);
    assert_eq!(row, (1, "pending".to_owned(), vec![], 0, 168, true, workspace, shard_of(&id).cast_signed()));

    sqlx::query("UPDATE campaign_prospect_execution_state SET current_step = 2, status = 'executing' WHERE id = $1")
        .bind(id)
        .execute(&db.pool)
        .await
        .unwrap();
    let again: Uuid =
        sqlx::query_scalar(INITIALIZE).bind(campaign).bind(prospects[0]).fetch_one(&db.pool).await.unwrap();
    assert_eq!(again, id);
    let step: i32 = sqlx::query_scalar("SELECT current_step FROM campaign_prospect_execution_state")
        .fetch_one(&db.pool)
        .await
        .unwrap();
    assert_eq!(step, 2);
}

#[tokio::test]
async fn initialising_somebody_who_is_not_in_the_campaign_says_so() {
    let db = Db::new().await;
    let (_, prospects) = campaign_with(&db.pool, 1).await;
    let (other, _) = campaign_with(&db.pool, 0).await;
    for (prospect, text) in [(Uuid::nil(), "does not exist"), (prospects[0], "is not in campaign")] {
        let error = sqlx::query(INITIALIZE).bind(other).bind(prospect).execute(&db.pool).await.unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}

#[tokio::test]
async fn the_next_pending_executions_are_the_due_ones_oldest_first() {
    let db = Db::new().await;
    let (campaign, prospects) = campaign_with(&db.pool, 5).await;
    sqlx::query(
        "INSERT INTO campaign_prospect_execution_state (campaign_id, prospect_id, status, next_execution_at)
         SELECT $1, p.id, p.status, now() + p.due FROM unnest($2::uuid[], $3::text[], $4::interval[]) p (id, status, due)",
    )
    .bind(campaign)
    .bind(&prospects)
    .bind(["pending", "waiting_trigger", "executing", "pending", "completed"])
    .bind([-1, -2, -3, 1, -4].map(hours))
    .execute(&db.pool)
    .await
    .unwrap();
    let due: Vec<Uuid> =
        sqlx::query_scalar("SELECT prospect_id FROM get_next_pending_executions()").fetch_all(&db.pool).await.unwrap();
    assert_eq!(due, [prospects[1], prospects[0]]);
    let one: Vec<Uuid> = sqlx::query_scalar(r#"SELECT prospect_id FROM get_next_pending_executions("limit" => 1)"#)
        .fetch_all(&db.pool)
        .await
        .unwrap();
    assert_eq!(one, [prospects[1]]);
}

fn hours(n: i64) -> PgInterval {
    PgInterval { months: 0, days: 0, microseconds: n * 3_600_000_000 }
}

#[tokio::test]
async fn updated_at_stays_true_for_writers_that_forget_it_where_the_trigger_is_wanted() {
    let db = Db::new().await;
    let (campaign, prospects) = campaign_with(&db.pool, 1).await;
    let row_triggers = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'campaign_prospect_execution_state'::regclass \
        AND NOT tgisinternal AND tgtype & 19 = 19";
    let found: i64 = sqlx::query_scalar(row_triggers).fetch_one(&db.pool).await.unwrap();
    assert_eq!(found, 0, "a row trigger before an update costs each transition a lock and its record");
    db.script(
        "CREATE TRIGGER updated_at BEFORE UPDATE ON campaign_prospect_execution_state FOR EACH ROW \
         WHEN (NEW.updated_at IS NOT DISTINCT FROM OLD.updated_at) EXECUTE FUNCTION update_execution_state_updated_at()",
    )
    .await
    .unwrap();
    sqlx::query(INITIALIZE).bind(campaign).bind(prospects[0]).execute(&db.pool).await.unwrap();
    db.script("UPDATE campaign_prospect_execution_state SET updated_at = '2001-01-01Z'").await.unwrap();
    let read = "SELECT updated_at FROM campaign_prospect_execution_state";
    let set: DateTime<Utc> = sqlx::query_scalar(read).fetch_one(&db.pool).await.unwrap();
    assert_eq!(set.to_rfc3339(), "2001-01-01T00:00:00+00:00");
    db.script("UPDATE campaign_prospect_execution_state SET last_error = 'x'").await.unwrap();
    let kept: DateTime<Utc> = sqlx::query_scalar(read).fetch_one(&db.pool).await.unwrap();
    assert!(kept > set);
}

#[tokio::test]
async fn rows_of_other_programs_arrive_with_one_notification_a_transaction() {
    let db = Db::new().await;
    let mut listener = PgListener::connect(&db.url).await.unwrap();
    listener.listen("campaignd_arrivals").await.unwrap();
    let (campaign, prospects) = campaign_with(&db.pool, 3).await;
    let mut tx = db.pool.begin().await.unwrap();
    for prospect in &prospects[..2] {
        sqlx::query(INITIALIZE).bind(campaign).bind(prospect).execute(&mut *tx).await.unwrap();
    }
    tx.commit().await.unwrap();
    // A row that we made ourselves, past version 0, is no arrival, and wakes nobody.
    sqlx::query("INSERT INTO campaign_prospect_execution_state (campaign_id, prospect_id, version) VALUES ($1, $2, 1)")
        .bind(campaign)
        .bind(prospects[2])
        .execute(&db.pool)
        .await
        .unwrap();
    db.script("NOTIFY campaignd_arrivals, 'end'").await.unwrap();
    let mut heard = Vec::new();
    while heard.last().is_none_or(|p| p != "end") {
        heard.push(listener.recv().await.unwrap().payload().to_owned());
    }
    assert_eq!(heard, ["", "end"]);
    let arrived: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM execution_arrivals a JOIN campaign_prospect_execution_state s ON s.id = a.execution_id
         WHERE s.prospect_id = ANY ($1)",
    )
    .bind(&prospects[..2])
    .fetch_one(&db.pool)
    .await
    .unwrap();
    let all: i64 = sqlx::query_scalar("SELECT count(*) FROM execution_arrivals").fetch_one(&db.pool).await.unwrap();
    assert_eq!((arrived, all), (2, 2));
}

#[tokio::test]
async fn months_get_partitions_of_their_own_and_the_default_catches_the_rest() {
    let db = Db::new().await;
    let from: Timestamp = "2031-11-30T23:30:00-01:00".parse::<DateTime<Utc>>().unwrap().into(); // December in UTC
    db.script(
        "INSERT INTO transitions VALUES (gen_random_uuid(), gen_random_uuid(), 1, '2032-01-15Z', 1, 'due', NULL,
                                         'pending', 'executing', 1, 1, 0, 0)",
    )
    .await
    .unwrap();
    // January is in the default partition already and stays there.
    let made = ensure_partitions(&db.pool, from, 3).await.unwrap();
    assert_eq!(made, ["transitions_2031_12", "sends_2031_12", "sends_2032_01", "transitions_2032_02", "sends_2032_02"]);
    assert!(ensure_partitions(&db.pool, from, 3).await.unwrap().is_empty());
    // The current month and the next one were made by the migration.
    let months: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM generate_series(0, 12) n
         WHERE to_regclass('sends_' || to_char(now() AT TIME ZONE 'UTC' + make_interval(months => n), 'YYYY_MM')) IS NOT NULL",
    )
    .fetch_one(&db.pool)
    .await
    .unwrap();
    assert_eq!(months, 2);
}

#[tokio::test]
async fn no_index_of_a_new_database_is_on_what_a_transition_changes() {
    let db = Db::new().await;
    // Whatever an index names, in its columns or its predicate, except what is set once, and what is set only when a person has
    // to decide: an update that sets it to the NULL that it is stays HOT (`hot` has the figures).
    let columns: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT c.relname || '.' || a.attname FROM pg_index i
         JOIN pg_class c ON c.oid = i.indrelid
         JOIN pg_depend d ON d.objid = i.indexrelid AND d.refobjid = i.indrelid AND d.refobjsubid > 0
         JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = d.refobjsubid
         WHERE c.relname IN ('campaign_prospect_execution_state', 'sends', 'account_gate') ORDER BY 1",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    let changing: Vec<&String> = columns
        .iter()
        .filter(|c| {
            // parked_at is the condition of an index, and changes only where a person is asked.
            ![
                "id",
                "campaign_id",
                "prospect_id",
                "shard",
                "workspace_id",
                "account_id",
                "execution_id",
                "created_at",
                "parked_at",
            ]
            .iter()
            .any(|fixed| c.ends_with(&format!(".{fixed}")))
        })
        .collect();
    assert!(changing.is_empty(), "{changing:?}");
    let room: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT reloptions::text FROM pg_class WHERE relname LIKE 'sends\\_%' AND relkind = 'r'",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    assert_eq!(room, ["{fillfactor=50}"]);
}

#[tokio::test]
async fn spellings_of_one_person_meet() {
    let db = Db::new().await;
    for (given, slug) in [
        ("https://www.linkedin.com/in/Jane-Doe-1/", Some("jane-doe-1")),
        ("http://de.linkedin.com/in/jane-doe-1?utm=x#top", Some("jane-doe-1")),
        ("linkedin.com/in/jane-doe-1/details/skills", Some("jane-doe-1")),
        ("Jane-Doe-1", Some("jane-doe-1")),
        ("ACoAABkXyz12345", Some("ACoAABkXyz12345")),
        ("https://www.linkedin.com/in/ACoAABkXyz12345/", Some("ACoAABkXyz12345")),
        ("https://www.linkedin.com/in/jane_doe-1", Some("jane_doe-1")),
        ("https://www.linkedin.com/in/Jane-Doe-1", Some("jane-doe-1")),
        ("https://www.linkedin.com/in/ACoAABkXyz12345", Some("ACoAABkXyz12345")),
        ("https://www.linkedin.com/in/jane-doe/in/john", Some("john")),
        ("https://www.linkedin.com/in/", None),
        ("https://www.linkedin.com/company/acme", None),
        ("", None),
    ] {
        let found: Option<String> =
            sqlx::query_scalar("SELECT campaignd_linkedin_slug($1)").bind(given).fetch_one(&db.pool).await.unwrap();
        assert_eq!(found.as_deref(), slug, "{given}");
        // The short cut and the long way agree: indexes hold what the long way gave.
        let long = "SELECT campaignd_linkedin_slug_of_any($1)";
        let found: Option<String> = sqlx::query_scalar(long).bind(given).fetch_one(&db.pool).await.unwrap();
        assert_eq!(found.as_deref(), slug, "{given}");
    }
    for (given, digits) in [("+49 (170) 123-45", Some("4917012345")), ("004917012345", Some("4917012345")), ("-", None)]
    {
        let found: Option<String> =
            sqlx::query_scalar("SELECT campaignd_phone_digits($1)").bind(given).fetch_one(&db.pool).await.unwrap();
        assert_eq!(found.as_deref(), digits, "{given}");
    }
    let plan: Vec<String> = sqlx::query_scalar(
        "EXPLAIN (COSTS OFF) SELECT id FROM campaign_prospects WHERE campaignd_linkedin_slug(linkedin_url) = 'jane-doe'",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    assert!(plan.join(" ").contains("campaign_prospects_linkedin"), "{plan:?}");
}

#[tokio::test]
async fn the_shard_in_sql_is_the_shard_in_the_program() {
    let db = Db::new().await;
    let ids: Vec<(Uuid, i16)> = sqlx::query_as(
        "SELECT id, campaignd_shard(id) FROM (SELECT gen_random_uuid() id FROM generate_series(1, 200)) i",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    assert!(ids.iter().all(|(id, shard)| shard_of(id).cast_signed() == *shard));
    assert!(ids.iter().any(|(_, shard)| *shard > 255));
}
