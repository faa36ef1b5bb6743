//! Databases that another program has been running on.

use campaignd::store::migrate::{Adopted, MigrateError, migrate};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::schema_of;
use crate::harness::Db;

/// The seed as its team described it, with plain timestamps, on tables that know no workspace; three rows in mid-flow, one
/// finished.
const SEED: &str = "
    CREATE TABLE campaigns (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text, flow_settings jsonb,
                            created_at timestamp DEFAULT timezone('utc', now()));
    CREATE TABLE campaign_prospects (id uuid PRIMARY KEY, campaign_id uuid REFERENCES campaigns (id), first_name text);
    CREATE TABLE campaign_prospect_execution_state (
        id uuid PRIMARY KEY, campaign_id uuid REFERENCES campaigns (id), prospect_id uuid REFERENCES campaign_prospects (id),
        current_step integer DEFAULT 1, status text DEFAULT 'pending', completed_steps integer[], failed_steps integer[],
        skipped_steps integer[], linkedin_state jsonb, email_state jsonb, whatsapp_state jsonb, waiting_for_trigger text,
        trigger_check_count integer, trigger_max_checks integer DEFAULT 168, next_check_at timestamp, n8n_execution_id text,
        last_executed_at timestamp, next_execution_at timestamp, last_error text, error_count integer,
        created_at timestamp DEFAULT now(), UNIQUE (campaign_id, prospect_id));
    CREATE INDEX old_campaign ON campaign_prospect_execution_state (campaign_id);
    CREATE INDEX old_due ON campaign_prospect_execution_state (next_execution_at)
        WHERE status IN ('pending', 'waiting_trigger');
    CREATE INDEX old_status ON campaign_prospect_execution_state (status);
    ALTER TABLE campaign_prospect_execution_state ENABLE ROW LEVEL SECURITY;
    CREATE POLICY \"Users can view\" ON campaign_prospect_execution_state FOR SELECT USING (false);
    INSERT INTO campaigns VALUES ('00000000-0000-0000-0000-0000000000c1', 'Running',
        '{\"steps\": [{\"type\": \"send_linkedin_cr\"}]}', '2025-11-01 08:00:00');
    INSERT INTO campaign_prospects
        SELECT ('00000000-0000-0000-0000-0000000000e' || n)::uuid, '00000000-0000-0000-0000-0000000000c1', 'P' || n
        FROM generate_series(1, 5) n;
    INSERT INTO campaign_prospect_execution_state
        (id, campaign_id, prospect_id, current_step, status, completed_steps, linkedin_state, waiting_for_trigger,
         trigger_check_count, next_check_at, next_execution_at)
    SELECT ('00000000-0000-0000-0000-00000000005' || n)::uuid, '00000000-0000-0000-0000-0000000000c1',
           ('00000000-0000-0000-0000-0000000000e' || n)::uuid, step, status, done, state, waiting, checks, next_check, due
    FROM (VALUES
        (1, 1, 'pending', NULL::integer[], NULL::jsonb, NULL, NULL::integer, NULL::timestamp, '2025-11-15 09:00:00'::timestamp),
        (2, 1, 'waiting_trigger', '{1}', '{\"connection_status\": \"pending\"}', 'connection_accepted', 7,
         '2025-11-15 10:30:00', '2025-11-18 09:00:00'),
        (3, 2, 'executing', '{1}', NULL, NULL, 0, NULL, NULL),
        (4, 4, 'completed', '{1,2,3}', NULL, NULL, 0, NULL, NULL)) AS v
        (n, step, status, done, state, waiting, checks, next_check, due);";

/// The seed's columns of every row, as text: what must be the same before and after.
const ROWS: &str = "
    SELECT id, campaign_id, prospect_id, current_step, status, completed_steps, failed_steps, skipped_steps, linkedin_state,
           email_state, whatsapp_state, waiting_for_trigger, trigger_check_count, trigger_max_checks,
           extract(epoch FROM next_check_at) next_check_at, n8n_execution_id,
           extract(epoch FROM last_executed_at) last_executed_at,
           extract(epoch FROM next_execution_at) next_execution_at, last_error, error_count,
           extract(epoch FROM created_at) created_at
    FROM campaign_prospect_execution_state ORDER BY id";

async fn rows(db: &Db) -> String {
    sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT json_agg(r)::text FROM ({ROWS}) r")))
        .fetch_one(&db.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_table_with_rows_in_mid_flow_is_taken_over_where_it_stands() {
    let db = Db::empty().await;
    db.script(SEED).await.unwrap();
    let before = rows(&db).await;
    // A server that keeps its own local time must not shift what is UTC.
    db.script(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone = ''Asia/Tokyo''', current_database()); END $$",
    )
    .await
    .unwrap();
    let url = db.url.clone();
    db.pool.close().await;
    let db = Db { pool: sqlx::PgPool::connect(&url).await.unwrap(), url };

    let report = migrate(&db.pool).await.unwrap();
    assert_eq!(report.adopted, Some(Adopted { executions: 4, open: 3 }));
    assert_eq!(rows(&db).await, before);
    let due: DateTime<Utc> = sqlx::query_scalar(
        "SELECT next_execution_at FROM campaign_prospect_execution_state WHERE status = 'waiting_trigger'",
    )
    .fetch_one(&db.pool)
    .await
    .unwrap();
    assert_eq!(due.to_rfc3339(), "2025-11-18T09:00:00+00:00");

    // The campaign runs on, in the default workspace; new ones begin as drafts. A clock read as a default is right again.
    let campaign: (String, Uuid, Option<i32>, DateTime<Utc>) =
        sqlx::query_as("SELECT status, workspace_id, flow_version, created_at FROM campaigns")
            .fetch_one(&db.pool)
            .await
            .unwrap();
    assert_eq!(campaign.0, "active");
    assert_eq!(campaign.1, Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0001));
    assert_eq!(campaign.2, None);
    assert_eq!(campaign.3.to_rfc3339(), "2025-11-01T08:00:00+00:00");
    let new: (String, bool) =
        sqlx::query_as("INSERT INTO campaigns (name) VALUES ('n') RETURNING status, created_at = now()")
            .fetch_one(&db.pool)
            .await
            .unwrap();
    assert_eq!(new, ("draft".to_owned(), true));

    // Equivalent indexes and other policies stay, and are not doubled.
    let indexes: Vec<String> = sqlx::query_scalar(
        "SELECT indexname::text FROM pg_indexes WHERE tablename = 'campaign_prospect_execution_state' ORDER BY 1",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    assert_eq!(
        indexes,
        [
            "campaign_prospect_execution_state_campaign_id_prospect_id_key",
            "campaign_prospect_execution_state_pkey",
            "execution_state_prospect",
            "old_campaign",
            "old_due",
            "old_status"
        ]
    );
    let policies: Vec<String> = sqlx::query_scalar(
        "SELECT policyname::text FROM pg_policies WHERE tablename = 'campaign_prospect_execution_state' ORDER BY 1",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    assert_eq!(policies, ["Users can view", "execution_state_members", "execution_state_service"]);
    // Row-level security of tables whose owner left it off stays off.
    let guarded: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class WHERE relrowsecurity AND relname IN ('campaigns', 'campaign_prospects')",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    assert!(guarded.is_empty(), "{guarded:?}");

    // The adopted program goes on inserting; an id needs no default of its own any more.
    sqlx::query(
        "SELECT initialize_execution_state('00000000-0000-0000-0000-0000000000c1', '00000000-0000-0000-0000-0000000000e5')",
    )
    .execute(&db.pool)
    .await
    .unwrap();
    let schema = schema_of(&db.url);
    assert!(migrate(&db.pool).await.unwrap().already_up_to_date);
    assert_eq!(schema_of(&db.url), schema);
}

const INDEXES: &str = "SELECT indexname::text FROM pg_indexes \
    WHERE tablename = 'campaign_prospect_execution_state' AND indexname NOT LIKE 'campaign_prospect%' ORDER BY 1";

#[tokio::test]
async fn an_index_of_another_program_stays_even_if_it_has_the_name_and_shape_of_one_of_ours() {
    let db = Db::empty().await;
    db.script(SEED).await.unwrap();
    db.script(
        "CREATE INDEX execution_state_check ON campaign_prospect_execution_state (next_check_at)
             WHERE status = 'waiting_trigger'",
    )
    .await
    .unwrap();
    migrate(&db.pool).await.unwrap();
    let indexes: Vec<String> = sqlx::query_scalar(INDEXES).fetch_all(&db.pool).await.unwrap();
    assert_eq!(indexes, ["execution_state_check", "execution_state_prospect", "old_campaign", "old_due", "old_status"]);
}

#[tokio::test]
async fn an_empty_table_of_another_program_keeps_its_own_indexes_and_gets_none_for_its_due_times() {
    let db = Db::empty().await;
    db.script(SEED).await.unwrap();
    db.script("TRUNCATE campaign_prospect_execution_state").await.unwrap();
    migrate(&db.pool).await.unwrap();
    let indexes: Vec<String> = sqlx::query_scalar(INDEXES).fetch_all(&db.pool).await.unwrap();
    assert_eq!(indexes, ["execution_state_prospect", "old_campaign", "old_due", "old_status"]);
}

#[tokio::test]
async fn a_database_of_the_previous_release_loses_the_indexes_that_made_each_transition_write_them() {
    let db = Db::new().await;
    // As the two migrations of that release left it, and in use since.
    db.script(
        "DELETE FROM campaignd_migrations WHERE version = 3;
         DROP INDEX execution_state_shard, execution_state_workspace;
         CREATE INDEX execution_state_due ON campaign_prospect_execution_state (next_execution_at)
             WHERE status IN ('pending', 'waiting_trigger');
         CREATE INDEX execution_state_check ON campaign_prospect_execution_state (next_check_at)
             WHERE status = 'waiting_trigger';
         CREATE INDEX mine ON campaign_prospect_execution_state (next_execution_at);
         CREATE INDEX sends_open ON sends (account_id) WHERE status IN ('pending', 'dispatching', 'unknown');
         ALTER TABLE sends ADD FOREIGN KEY (workspace_id, account_id) REFERENCES accounts (workspace_id, id);
         INSERT INTO campaigns (id, name) VALUES ('00000000-0000-0000-0000-0000000000c1', 'c');
         WITH p AS (INSERT INTO campaign_prospects (campaign_id) VALUES ('00000000-0000-0000-0000-0000000000c1')
                    RETURNING id)
         SELECT initialize_execution_state('00000000-0000-0000-0000-0000000000c1', id) FROM p;",
    )
    .await
    .unwrap();
    assert_eq!(migrate(&db.pool).await.unwrap().applied, ["3 hot"]);
    let indexes: Vec<String> = sqlx::query_scalar(INDEXES).fetch_all(&db.pool).await.unwrap();
    assert_eq!(indexes, ["execution_state_campaign", "execution_state_prospect", "mine"]);
    let left: i64 = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM pg_class WHERE relname = 'sends_open')
              + (SELECT count(*) FROM pg_constraint WHERE conrelid = 'sends'::regclass AND contype = 'f')",
    )
    .fetch_one(&db.pool)
    .await
    .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn campaigns_that_name_workspaces_of_no_table_bring_them_along() {
    let db = Db::empty().await;
    db.script(
        "CREATE TABLE campaigns (id uuid PRIMARY KEY, workspace_id uuid, status varchar(20) DEFAULT 'active');
         INSERT INTO campaigns VALUES (gen_random_uuid(), '00000000-0000-0000-0000-0000000000a1', 'paused'),
                                      (gen_random_uuid(), NULL, 'active');",
    )
    .await
    .unwrap();
    let report = migrate(&db.pool).await.unwrap();
    assert_eq!(report.adopted, None);
    let homeless: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM campaigns c WHERE NOT EXISTS (SELECT FROM workspaces w WHERE w.id = c.workspace_id)",
    )
    .fetch_one(&db.pool)
    .await
    .unwrap();
    assert_eq!(homeless, 0);
    // A default that was there is the owner's decision.
    let status: String = sqlx::query_scalar("INSERT INTO campaigns (id) VALUES (gen_random_uuid()) RETURNING status")
        .fetch_one(&db.pool)
        .await
        .unwrap();
    assert_eq!(status, "active");
}

#[tokio::test]
async fn workspaces_with_other_columns_are_used_as_they_are() {
    let db = Db::empty().await;
    db.script(
        "CREATE TABLE workspaces (id uuid PRIMARY KEY, slug text NOT NULL);
         CREATE TABLE workspace_members (id serial PRIMARY KEY, workspace_id uuid REFERENCES workspaces, user_id text,
                                         role text NOT NULL);
         INSERT INTO workspaces VALUES ('00000000-0000-0000-0000-0000000000a1', 'acme');
         CREATE TABLE campaigns (id uuid PRIMARY KEY, workspace_id uuid NOT NULL REFERENCES workspaces);
         INSERT INTO campaigns VALUES ('00000000-0000-0000-0000-0000000000c1', '00000000-0000-0000-0000-0000000000a1');",
    )
    .await
    .unwrap();
    migrate(&db.pool).await.unwrap();
    db.script(
        "INSERT INTO workspace_members (workspace_id, user_id, role)
             VALUES ('00000000-0000-0000-0000-0000000000a1', '00000000-0000-0000-0000-00000000aaaa', 'admin');
         INSERT INTO campaign_prospects (campaign_id) VALUES ('00000000-0000-0000-0000-0000000000c1');
         SELECT initialize_execution_state(campaign_id, id) FROM campaign_prospects;
         BEGIN;
         SET LOCAL ROLE authenticated;
         SET LOCAL app.user_id = '00000000-0000-0000-0000-00000000aaaa';
         DO $$ BEGIN ASSERT (SELECT count(*) FROM campaign_prospect_execution_state) = 1; END $$;
         COMMIT",
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn functions_of_the_same_names_are_replaced_and_their_arguments_keep_their_names() {
    let db = Db::empty().await;
    db.script(SEED).await.unwrap();
    db.script(
        "CREATE FUNCTION initialize_execution_state(p_campaign_id uuid, p_prospect_id uuid) RETURNS void
             LANGUAGE plpgsql AS $$ BEGIN END $$;
         CREATE FUNCTION get_next_pending_executions(p_limit integer) RETURNS TABLE (execution_id uuid, step integer)
             LANGUAGE sql AS $$ SELECT id, current_step FROM campaign_prospect_execution_state LIMIT p_limit $$;
         CREATE FUNCTION touch_campaign_execution() RETURNS trigger
             LANGUAGE plpgsql AS $$ BEGIN NEW.created_at = NEW.created_at; /* updated_at */ RETURN NEW; END $$;
         CREATE TRIGGER touch BEFORE UPDATE ON campaign_prospect_execution_state
             FOR EACH ROW EXECUTE FUNCTION touch_campaign_execution();",
    )
    .await
    .unwrap();
    migrate(&db.pool).await.unwrap();
    let id: Option<Uuid> = sqlx::query_scalar(
        "SELECT initialize_execution_state(p_campaign_id => '00000000-0000-0000-0000-0000000000c1',
                                           p_prospect_id => '00000000-0000-0000-0000-0000000000e1')",
    )
    .fetch_one(&db.pool)
    .await
    .unwrap();
    assert_eq!(id, Some(Uuid::from_u128(0x51)));
    let due: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM get_next_pending_executions(p_limit => 10)")
        .fetch_all(&db.pool)
        .await
        .unwrap();
    assert_eq!(due, [Uuid::from_u128(0x51), Uuid::from_u128(0x52)]);
    // Three, as ever: the table's own trigger function stays instead of ours.
    let functions: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_proc WHERE proname LIKE '%execution%'")
        .fetch_one(&db.pool)
        .await
        .unwrap();
    assert_eq!(functions, 3);
}

#[tokio::test]
async fn what_cannot_be_adopted_is_named_and_nothing_is_changed() {
    for (script, expected) in [
        ("CREATE TABLE accounts (id integer); CREATE VIEW inbox AS SELECT 1 AS n", "campaignd's: accounts, inbox."),
        ("CREATE TABLE campaigns (id bigint PRIMARY KEY)", "campaigns.id is bigint, not uuid"),
        ("CREATE TABLE campaigns (name text)", "campaigns has no column id"),
        (
            "CREATE TYPE state AS ENUM ('on'); CREATE TABLE campaigns (id uuid PRIMARY KEY, status state)",
            "campaigns.status is state, not text or varchar",
        ),
        (
            "CREATE TABLE campaigns (id uuid PRIMARY KEY, created_at timestamp);
             CREATE VIEW recent AS SELECT id, created_at FROM campaigns",
            "view recent (column campaigns.created_at)",
        ),
    ] {
        let db = Db::empty().await;
        db.script(script).await.unwrap();
        let before = schema_of(&db.url);
        let error = migrate(&db.pool).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(schema_of(&db.url), before);
    }
}

#[tokio::test]
async fn a_database_of_a_newer_campaignd_is_left_alone() {
    let db = Db::new().await;
    db.script("INSERT INTO campaignd_migrations VALUES (99, 'future', now(), true, '', 0)").await.unwrap();
    assert!(matches!(migrate(&db.pool).await, Err(MigrateError::Newer(99))));
}

#[tokio::test]
async fn an_adopted_table_keeps_its_foreign_keys_and_a_new_one_checks_each_thing_once() {
    const KEYS: &str = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'f' \
        AND conrelid IN ('campaign_prospects'::regclass, 'campaign_prospect_execution_state'::regclass) ORDER BY 1";
    let keys = async |db: &Db| -> Vec<String> { sqlx::query_scalar(KEYS).fetch_all(&db.pool).await.unwrap() };
    let to_campaign = "FOREIGN KEY (campaign_id) REFERENCES campaigns(id)".to_owned();
    let to_prospect = "FOREIGN KEY (prospect_id) REFERENCES campaign_prospects(id)".to_owned();

    let adopted = Db::empty().await;
    adopted.script(SEED).await.unwrap();
    migrate(&adopted.pool).await.unwrap();
    assert_eq!(keys(&adopted).await, [to_campaign.clone(), to_campaign.clone(), to_prospect.clone()]);

    let new = Db::empty().await;
    migrate(&new.pool).await.unwrap();
    assert_eq!(keys(&new).await, [to_campaign, to_prospect]);
}
