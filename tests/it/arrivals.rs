//! Rows that other programs make: who picks them up, and how soon.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot set itself up has failed")]

use std::time::{Duration, Instant};

use campaignd::clock::Clock;
use campaignd::domain::account::Channel;
use campaignd::domain::execution::Status;
use campaignd::domain::id::{CampaignId, ExecutionId};
use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};
use uuid::Uuid;

use crate::fake::{Rig, mails};

/// What the seed's upload does, on a connection that is not ours.
async fn upload(psql: &mut PgConnection, campaign: CampaignId, name: &str) -> ExecutionId {
    let id: Uuid = sqlx::query_scalar(
        "WITH p AS (INSERT INTO campaign_prospects (campaign_id, first_name, email) \
             VALUES ($1, $2, $2 || '@example.org') RETURNING id) SELECT id FROM p",
    )
    .bind(campaign.0)
    .bind(name)
    .fetch_one(&mut *psql)
    .await
    .unwrap();
    let id: Uuid = sqlx::query_scalar("SELECT initialize_execution_state($1, $2)")
        .bind(campaign.0)
        .bind(id)
        .fetch_one(psql)
        .await
        .unwrap();
    ExecutionId(id)
}

async fn system() -> Rig {
    let rig = Rig::new(Clock::System).await;
    rig.account(Channel::Email, "box").await;
    rig.account(Channel::Linkedin, "seat").await;
    rig
}

#[tokio::test]
async fn a_prospect_of_another_program_is_contacted_within_moments() {
    let mut rig = system().await;
    let campaign = rig.campaign(&mails(1)).await;
    rig.start().await;
    let mut psql = PgConnection::connect(&rig.db.url).await.unwrap();
    let mut took = Vec::new();
    for n in 0..10 {
        upload(&mut psql, campaign, &format!("P{n}")).await;
        let inserted = Instant::now();
        rig.fake.until_calls(n + 1).await;
        took.push(rig.fake.calls()[n].at.saturating_duration_since(inserted));
    }
    took.sort_unstable();
    println!("from the commit to the provider: median {:?}, worst {:?}", took[5], took[9]);
    assert!(took[5] < Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn a_lost_notification_costs_seconds_and_nothing_else() {
    let mut rig = system().await;
    let campaign = rig.campaign(&mails(1)).await;
    rig.db
        .script(
            "CREATE OR REPLACE FUNCTION campaignd_note_arrivals() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                 INSERT INTO execution_arrivals (execution_id) SELECT id FROM arrived WHERE version = 0 \
                 ON CONFLICT DO NOTHING; RETURN NULL; END $$",
        )
        .await
        .unwrap();
    rig.start().await;
    let mut psql = PgConnection::connect(&rig.db.url).await.unwrap();
    upload(&mut psql, campaign, "P1").await;
    let inserted = Instant::now();
    rig.fake.until_calls(1).await;
    assert!(inserted.elapsed() < Duration::from_secs(5), "{:?}", inserted.elapsed());
}

#[tokio::test]
async fn a_row_put_straight_into_the_state_table_runs() {
    let mut rig = system().await;
    let campaign = rig.campaign(&mails(1)).await;
    rig.start().await;
    let mut psql = PgConnection::connect(&rig.db.url).await.unwrap();
    // As bare as the table allows: no due time, no arrays, no workspace.
    psql.execute(sqlx::AssertSqlSafe(format!(
        "INSERT INTO campaign_prospects (campaign_id, first_name, email) VALUES ('{campaign}', 'P1', 'p1@example.org'); \
         INSERT INTO campaign_prospect_execution_state (campaign_id, prospect_id) \
             SELECT campaign_id, id FROM campaign_prospects"
    )))
    .await
    .unwrap();
    rig.until_all_final().await;
    assert_eq!(rig.fake.calls().len(), 1);
    assert!(
        rig.one::<bool>("SELECT workspace_id IS NOT NULL AND flow_version = 1 FROM campaign_prospect_execution_state")
            .await
    );
}

#[tokio::test]
async fn an_upload_in_one_transaction_is_picked_up_whole() {
    let mut rig = system().await;
    let campaign = rig.campaign(&mails(1)).await;
    rig.start().await;
    let mut psql = PgConnection::connect(&rig.db.url).await.unwrap();
    let mut tx = psql.begin().await.unwrap();
    for n in 0..40 {
        upload(&mut tx, campaign, &format!("P{n}")).await;
    }
    tx.commit().await.unwrap();
    rig.until_all_final().await;
    assert_eq!(rig.fake.calls().len(), 40);
    assert_eq!(rig.fake.doubled(), []);
    assert_eq!(rig.one::<i64>("SELECT count(*) FROM execution_arrivals").await, 0);
}

#[tokio::test]
async fn a_campaign_of_the_old_orchestrator_made_while_we_run_is_run() {
    let mut rig = system().await;
    rig.start().await;
    let old = json!({"steps": [
        {"type": "send_linkedin_cr", "message": "Hi {{first_name}}", "wait_for": "connection_accepted", "delay_hours": 72},
        {"type": "send_email", "subject": "s", "message": "m", "delay_days": 2}]});
    let campaign = rig.campaign(&old).await;
    let mut psql = PgConnection::connect(&rig.db.url).await.unwrap();
    let id = upload(&mut psql, campaign, "Ann").await;
    let row = rig.until(id, "the invitation", |e| e.status == Status::WaitingTrigger).await;
    assert_eq!(row.flow_version, 1);
    assert_eq!(rig.fake.calls()[0].text, "Hi Ann");
    let pinned: serde_json::Value = rig.one("SELECT flow FROM flow_versions").await;
    assert_eq!(pinned["schema_version"], 1);
}

#[tokio::test]
async fn the_prospects_of_a_draft_wait_until_it_is_active() {
    let mut rig = system().await;
    let campaign = rig.campaign(&mails(1)).await;
    rig.db.script("UPDATE campaigns SET status = 'draft'").await.unwrap();
    rig.start().await;
    let mut psql = PgConnection::connect(&rig.db.url).await.unwrap();
    let id = upload(&mut psql, campaign, "P1").await;
    rig.until_true("SELECT count(*) = 0 FROM execution_arrivals").await;
    // Another campaign's prospect that came later is through: this one has been looked at.
    let active = rig.campaign(&mails(1)).await;
    let other = upload(&mut psql, active, "P2").await;
    rig.until(other, "the active one", |e| e.status.is_final()).await;
    assert_eq!(rig.execution(id).await.version, 0);
    rig.db.script("UPDATE campaigns SET status = 'active'").await.unwrap();
    rig.handle().campaign_changed(campaign);
    rig.until(id, "the draft's", |e| e.status.is_final()).await;
}

#[tokio::test]
async fn a_flow_that_cannot_be_read_parks_its_prospects_with_the_reason_until_it_is_corrected() {
    let mut rig = system().await;
    let campaign = rig.campaign(&json!({"steps": [{"type": "send_pigeon"}]})).await;
    let early = rig.prospects(campaign, 1).await[0];
    rig.start().await;
    let mut psql = PgConnection::connect(&rig.db.url).await.unwrap();
    let late = upload(&mut psql, campaign, "P9").await;
    for id in [early, late] {
        let row = rig.until(id, "a reason", |e| e.last_error.is_some()).await;
        assert_eq!((row.status, row.version), (Status::Pending, 0));
        assert!(row.last_error.unwrap().contains("flow_settings"), "it says what to correct");
    }
    sqlx::query("UPDATE campaigns SET flow_settings = $1").bind(mails(1)).execute(&rig.db.pool).await.unwrap();
    rig.handle().campaign_changed(campaign);
    rig.until_all_final().await;
    assert_eq!(rig.fake.calls().len(), 2);
}
