//! Who sees what, and that no table of ours lets one tenant's row refer to another's.

use campaignd::postgres::{self, Options};
use campaignd::store::migrate::{MigrateError, migrate};
use sqlx::{AssertSqlSafe, Executor, PgPool};
use uuid::Uuid;

use super::campaign_with;
use crate::harness::{Db, scratch};

const USER: &str = "00000000-0000-0000-0000-00000000aaaa";

/// Two workspaces with one execution each; the user is a member of the first.
async fn two_workspaces(db: &Db) {
    db.script(format!(
        "INSERT INTO workspaces (id, name) VALUES ('00000000-0000-0000-0000-000000000002', 'other');
         INSERT INTO workspace_members VALUES ('00000000-0000-7000-8000-000000000001', '{USER}');
         INSERT INTO campaigns (id, workspace_id) VALUES
             ('00000000-0000-0000-0000-0000000000c1', '00000000-0000-7000-8000-000000000001'),
             ('00000000-0000-0000-0000-0000000000c2', '00000000-0000-0000-0000-000000000002');
         INSERT INTO campaign_prospects (id, campaign_id) VALUES
             ('00000000-0000-0000-0000-0000000000e1', '00000000-0000-0000-0000-0000000000c1'),
             ('00000000-0000-0000-0000-0000000000e2', '00000000-0000-0000-0000-0000000000c2'),
             ('00000000-0000-0000-0000-0000000000e3', '00000000-0000-0000-0000-0000000000c1');
         SELECT initialize_execution_state(campaign_id, id) FROM campaign_prospects
             WHERE id <> '00000000-0000-0000-0000-0000000000e3';
         -- Another program's row, without a workspace: its campaign's counts.
         INSERT INTO campaign_prospect_execution_state (campaign_id, prospect_id) VALUES
             ('00000000-0000-0000-0000-0000000000c1', '00000000-0000-0000-0000-0000000000e3');"
    ))
    .await
    .unwrap();
}

/// How many executions a role sees, with a setting.
async fn seen(pool: &PgPool, role: &str, setting: &str) -> i64 {
    let mut tx = pool.begin().await.unwrap();
    tx.execute(AssertSqlSafe(format!("SET LOCAL ROLE {role}; {setting}"))).await.unwrap();
    sqlx::query_scalar("SELECT count(*) FROM campaign_prospect_execution_state").fetch_one(&mut *tx).await.unwrap()
}

#[tokio::test]
async fn members_see_their_workspace_nobody_sees_nothing_and_the_service_role_sees_all() {
    let db = Db::new().await;
    two_workspaces(&db).await;
    for setting in [
        format!("SET LOCAL request.jwt.claim.sub = '{USER}'"),
        format!(r#"SET LOCAL request.jwt.claims = '{{"sub": "{USER}", "role": "authenticated"}}'"#),
        format!("SET LOCAL app.user_id = '{USER}'"),
    ] {
        assert_eq!(seen(&db.pool, "authenticated", &setting).await, 2, "{setting}");
    }
    assert_eq!(seen(&db.pool, "authenticated", "").await, 0);
    let stranger = format!("SET LOCAL app.user_id = '{}'", Uuid::nil());
    assert_eq!(seen(&db.pool, "authenticated", &stranger).await, 0);
    // A setting that was used before in the session reads as an empty text.
    assert_eq!(seen(&db.pool, "authenticated", "SET LOCAL request.jwt.claims = ''").await, 0);
    assert_eq!(seen(&db.pool, "service_role", "").await, 3);
}

#[tokio::test]
async fn members_cannot_write_and_the_service_role_can_start_executions() {
    let db = Db::new().await;
    two_workspaces(&db).await;
    let (campaign, prospects) = campaign_with(&db.pool, 1).await;
    let mut tx = db.pool.begin().await.unwrap();
    tx.execute(AssertSqlSafe(format!("SET LOCAL ROLE authenticated; SET LOCAL app.user_id = '{USER}'"))).await.unwrap();
    let denied =
        tx.execute("UPDATE campaign_prospect_execution_state SET status = 'completed'").await.unwrap_err().to_string();
    assert!(denied.contains("permission denied"), "{denied}");
    drop(tx);

    let mut tx = db.pool.begin().await.unwrap();
    tx.execute("SET LOCAL ROLE service_role").await.unwrap();
    sqlx::query(super::INITIALIZE).bind(campaign).bind(prospects[0]).execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
    let arrived: i64 = sqlx::query_scalar("SELECT count(*) FROM execution_arrivals").fetch_one(&db.pool).await.unwrap();
    assert_eq!(arrived, 4);
}

#[tokio::test]
async fn on_supabase_its_own_function_names_the_user() {
    let db = Db::empty().await;
    db.script(
        "CREATE SCHEMA auth;
         CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS
         $$ SELECT nullif(current_setting('request.jwt.claim.sub', true), '')::uuid $$",
    )
    .await
    .unwrap();
    migrate(&db.pool).await.unwrap();
    two_workspaces(&db).await;
    let as_user = format!("SET LOCAL request.jwt.claim.sub = '{USER}'");
    assert_eq!(seen(&db.pool, "authenticated", &as_user).await, 2);
    // Here, a setting that any SQL user can change names nobody.
    assert_eq!(seen(&db.pool, "authenticated", &format!("SET LOCAL app.user_id = '{USER}'")).await, 0);
}

#[tokio::test]
async fn an_owner_who_may_not_make_roles_gets_policies_for_everybody_under_the_same_conditions() {
    // A cluster of its own: roles belong to the cluster, and there must be none yet.
    let cluster = postgres::start(Options::throwaway(scratch("roles").join("pg"))).unwrap();
    let admin = PgPool::connect(cluster.url()).await.unwrap();
    for statement in [
        "CREATE ROLE app LOGIN",
        "CREATE ROLE reader LOGIN",
        "CREATE DATABASE app OWNER app",
        "CREATE ROLE nobody LOGIN",
    ] {
        admin.execute(statement).await.unwrap();
    }
    let url = |role: &str| cluster.url().replace("campaignd@", &format!("{role}@")).replace("/campaignd", "/app");

    let nobody = PgPool::connect(&url("nobody")).await.unwrap();
    let refused = migrate(&nobody).await.unwrap_err();
    assert!(matches!(&refused, MigrateError::NoPrivilege { role, .. } if role == "nobody"), "{refused}");

    let pool = PgPool::connect(&url("app")).await.unwrap();
    migrate(&pool).await.unwrap();
    assert!(migrate(&pool).await.unwrap().already_up_to_date);
    let db = Db { url: url("app"), pool };
    two_workspaces(&db).await;
    db.script("GRANT SELECT ON campaign_prospect_execution_state TO reader; GRANT USAGE ON SCHEMA public TO reader")
        .await
        .unwrap();
    let reader = PgPool::connect(&url("reader")).await.unwrap();
    assert_eq!(seen(&reader, "reader", "").await, 0);
    assert_eq!(seen(&reader, "reader", &format!("SET LOCAL app.user_id = '{USER}'")).await, 2);
    assert_eq!(seen(&reader, "reader", r#"SET LOCAL request.jwt.claims = '{"role": "service_role"}'"#).await, 3);
    for pool in [admin, nobody, db.pool, reader] {
        pool.close().await;
    }
}

#[tokio::test]
async fn the_workspace_leads_every_key_of_our_tables() {
    let db = Db::new().await;
    // Keys and references of tables that carry a workspace, by the first column. The seed's own tables are as they are;
    // the two ids that a request names before its workspace is known have to be unique by themselves.
    let wrong: Vec<String> = sqlx::query_scalar(
        "SELECT format('%s: %s', c.conrelid::regclass, pg_get_constraintdef(c.oid))
         FROM pg_constraint c
         JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attname = 'workspace_id'
         JOIN pg_attribute f ON f.attrelid = c.conrelid AND f.attnum = c.conkey[1]
         WHERE c.contype IN ('p', 'u', 'f') AND c.connamespace = 'public'::regnamespace AND f.attname <> 'workspace_id'
           AND c.conrelid::regclass::text NOT IN ('campaigns', 'campaign_prospects', 'campaign_prospect_execution_state')
           AND c.conname NOT IN ('api_keys_id_key', 'webhook_endpoints_id_key')",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn every_table_has_row_level_security_and_every_borrowed_right_a_fixed_search_path() {
    let db = Db::new().await;
    let open: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
           AND NOT relrowsecurity
         UNION ALL
         SELECT proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace
           AND prosqlbody IS NULL AND NOT coalesce(proconfig::text, '') LIKE '%search_path%'",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    assert!(open.is_empty(), "{open:?}");
}
