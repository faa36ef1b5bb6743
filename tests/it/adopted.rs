//! A database that the old orchestrator has been running on: each prospect goes on from where it stands.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot set itself up has failed")]

use campaignd::clock::Clock;
use campaignd::domain::account::Channel;
use campaignd::domain::execution::{ExitReason, Status, WaitTrigger};
use campaignd::domain::id::ExecutionId;
use campaignd::domain::trigger::Trigger;
use campaignd::store::migrate::migrate;
use std::time::Duration;
use uuid::Uuid;

use crate::fake::{NOW, Rig, hours};
use crate::harness::Db;

/// The seed's tables as its team has them: plain timestamps, no workspaces, flows in the old forms. It is Monday, 09:00.
///
/// Campaign c1 is the seed's example in an object, c2 the same as a bare list, c3 two mails.
const OLD: &str = r#"
    CREATE TABLE campaigns (id uuid PRIMARY KEY, name text, flow_settings jsonb);
    CREATE TABLE campaign_prospects (id uuid PRIMARY KEY, campaign_id uuid REFERENCES campaigns (id),
        first_name text, email text, linkedin_url text);
    CREATE TABLE campaign_prospect_execution_state (
        id uuid PRIMARY KEY, campaign_id uuid REFERENCES campaigns (id), prospect_id uuid REFERENCES campaign_prospects (id),
        current_step integer DEFAULT 1, status text DEFAULT 'pending', completed_steps integer[], failed_steps integer[],
        skipped_steps integer[], linkedin_state jsonb, email_state jsonb, whatsapp_state jsonb, waiting_for_trigger text,
        trigger_check_count integer, trigger_max_checks integer DEFAULT 168, next_check_at timestamp, n8n_execution_id text,
        last_executed_at timestamp, next_execution_at timestamp, last_error text, error_count integer,
        UNIQUE (campaign_id, prospect_id));
    INSERT INTO campaigns VALUES
        ('00000000-0000-0000-0000-0000000000c1', 'object', '{"steps": [
            {"type": "send_linkedin_cr", "message": "invite {{first_name}}", "wait_for": "connection_accepted", "delay_hours": 72},
            {"type": "send_email", "subject": "s", "message": "intro {{first_name}}", "delay_hours": 48},
            {"type": "send_linkedin_message", "message": "nudge {{first_name}}", "delay_days": 5}]}'),
        ('00000000-0000-0000-0000-0000000000c2', 'list', '[
            {"action": "send_linkedin_cr", "message": "invite {{first_name}}", "wait_for": "connection_accepted", "delay_hours": 72},
            {"action": "send_email", "subject": "s", "message": "intro {{first_name}}", "delay_hours": 48}]'),
        ('00000000-0000-0000-0000-0000000000c3', 'mails', '{"steps": [
            {"id": 1, "type": "send_email", "subject": "s", "message": "one", "delay_hours": 1},
            {"id": 2, "type": "send_email", "subject": "s", "message": "two"}]}');
    INSERT INTO campaign_prospects
        SELECT ('00000000-0000-0000-0000-0000000000e' || to_hex(n))::uuid, ('00000000-0000-0000-0000-0000000000c' || c)::uuid,
            'P' || n, 'p' || n || '@example.org', 'https://www.linkedin.com/in/p' || n
        FROM (VALUES (1, 1), (2, 1), (3, 2), (4, 1), (5, 1), (6, 3), (7, 3), (8, 3), (9, 3), (10, 1), (11, 2)) AS v (n, c);
    INSERT INTO campaign_prospect_execution_state
        (id, campaign_id, prospect_id, current_step, status, completed_steps, linkedin_state, email_state,
         waiting_for_trigger, trigger_check_count, next_check_at, next_execution_at, last_executed_at)
    SELECT ('00000000-0000-0000-0000-00000000005' || to_hex(n))::uuid, p.campaign_id, p.id,
        step, status, done, li::jsonb, mail::jsonb, waiting, checks, next_check::timestamp, due::timestamp, last::timestamp
    FROM (VALUES
        -- due since an hour
        (1, 1, 'pending', NULL::integer[], NULL, NULL, NULL, NULL::integer, NULL, '2026-01-05 08:00', NULL),
        -- waits, with a check and a deadline
        (2, 1, 'waiting_trigger', NULL, '{"connection_status": "pending"}', NULL, 'connection_accepted', 7,
         '2026-01-05 09:30', '2026-01-07 09:00', '2026-01-04 09:00'),
        -- waits, and nobody wrote until when
        (3, 1, 'waiting_trigger', NULL, '{"connection_status": "pending"}', NULL, 'connection_accepted', NULL, NULL, NULL, NULL),
        -- the second step is due in ten hours
        (4, 2, 'pending', '{1}', '{"connection_status": "accepted"}', NULL, NULL, 0, NULL, '2026-01-05 19:00', NULL),
        -- over
        (5, 4, 'completed', '{1,2,3}', NULL, NULL, NULL, 0, NULL, NULL, NULL),
        -- was being carried out when the old one was switched off: it had sent it
        (6, 1, 'executing', NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL),
        -- the same: it had not
        (7, 2, 'executing', '{1}', NULL, '{"sent_count": 1}', NULL, 0, NULL, '2026-01-05 08:00', NULL),
        -- paused by hand
        (8, 2, 'paused', '{1}', NULL, '{"sent_count": 1}', NULL, 0, NULL, '2026-01-05 08:00', NULL),
        -- nobody wrote when it is due
        (9, 1, 'pending', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
        -- accepted, and the old one had not noticed yet
        (10, 1, 'waiting_trigger', NULL, '{"connection_status": "accepted"}', NULL, 'connection_accepted', 3,
         '2026-01-05 09:30', '2026-01-07 09:00', NULL),
        -- past its last step
        (11, 3, 'pending', '{1,2}', NULL, '{"sent_count": 1}', NULL, 0, NULL, '2026-01-05 08:00', NULL)) AS v
        (n, step, status, done, li, mail, waiting, checks, next_check, due, last)
    JOIN campaign_prospects p ON p.id = ('00000000-0000-0000-0000-0000000000e' || to_hex(n))::uuid;
"#;

fn id(n: u128) -> ExecutionId {
    ExecutionId(Uuid::from_u128(0x50 | n))
}

async fn adopted() -> Rig {
    let db = Db::empty().await;
    db.script(OLD).await.unwrap();
    migrate(&db.pool).await.unwrap();
    let rig = Rig::on(db, Clock::manual(NOW)).await;
    rig.account(Channel::Linkedin, "seat").await;
    rig.account(Channel::Email, "box").await;
    rig
}

fn received(rig: &Rig, person: &str, text: &str) -> u32 {
    rig.fake.received().get(&(person.to_owned(), text.to_owned())).copied().unwrap_or(0)
}

#[tokio::test]
async fn each_row_of_the_old_orchestrator_goes_on_from_where_it_stands() {
    let mut rig = adopted().await;
    rig.fake.has_received("P6", "one");
    rig.start().await;

    // Due: its invitation goes out now.
    let row = rig.until(id(1), "the invitation", |e| e.status == Status::WaitingTrigger).await;
    assert_eq!(received(&rig, "P1", "invite P1"), 1);
    assert_eq!(row.next_execution_at, Some(NOW + hours(72)));
    // The wait keeps its own times; the one without gets the flow's.
    let row = rig.execution(id(2)).await;
    assert_eq!((row.version, row.trigger_check_count), (0, 7));
    let row = rig.until(id(3), "mended", |e| e.next_execution_at.is_some()).await;
    assert_eq!(row.waiting_for_trigger, Some(WaitTrigger::ConnectionAccepted));
    assert_eq!((row.next_check_at, row.next_execution_at), (Some(NOW + hours(1)), Some(NOW + hours(72))));
    // What is over stays over, what is paused stays paused, and what lies ahead is not touched.
    assert_eq!(rig.execution(id(5)).await.version, 0);
    assert_eq!(rig.execution(id(4)).await.version, 0);
    rig.until(id(9), "the mail without a due time", |e| e.email.sent_count == 1).await;
    let row = rig.until(id(11), "past its last step", |e| e.status.is_final()).await;
    assert_eq!((row.status, row.exit_reason), (Status::Completed, Some(ExitReason::Finished)));

    // The check of half past nine; the one that was accepted goes on to its mail.
    rig.clock.advance(Duration::from_secs(1800));
    let row = rig.until(id(2), "a check", |e| e.trigger_check_count == 8).await;
    assert_eq!(row.next_check_at, Some(NOW + Duration::from_secs(5400)));
    rig.until(id(10), "the mail", |e| e.email.sent_count == 1).await;
    rig.apply(id(2), Trigger::ConnectionAccepted).await;
    rig.until(id(2), "the mail", |e| e.email.sent_count == 1).await;
    assert_eq!(received(&rig, "P2", "intro P2"), 1);
    assert_eq!(received(&rig, "P2", "invite P2"), 0, "it had its invitation from the old one");
    assert_eq!(received(&rig, "P4", "intro P4"), 0);

    let row = rig.execution(id(8)).await;
    assert_eq!(row.status, Status::Paused);
    assert_eq!(received(&rig, "P8", "two"), 0);
    rig.apply(id(8), Trigger::Resume).await;
    rig.until(id(8), "the second mail", |e| e.status.is_final()).await;
    assert_eq!(received(&rig, "P8", "two"), 1);

    rig.clock.advance(hours(10));
    let row = rig.until(id(4), "the mail", |e| e.email.sent_count == 1).await;
    assert_eq!((row.current_step, row.completed_steps.as_slice()), (3, &[1, 2][..]));
    assert_eq!(row.next_execution_at, row.email.last_sent_at.map(|at| at + hours(48)));
    assert_eq!(rig.fake.doubled(), []);
}

#[tokio::test]
async fn what_the_old_orchestrator_was_sending_is_read_back_before_anything_is_sent() {
    let mut rig = adopted().await;
    rig.fake.has_received("P6", "one");
    rig.start().await;
    // It had sent it: the step is done, and nobody is written to again.
    let six = rig.until(id(6), "it is settled", |e| e.current_step == 2).await;
    assert_eq!((six.completed_steps.as_slice(), six.email.sent_count), (&[1][..], 1));
    assert_eq!(rig.sends(id(6)).await, ["1 1 sent"]);
    // It had not: two reads find nothing, then it is sent, once.
    rig.fake.until_finds(2).await;
    assert_eq!(received(&rig, "P7", "two"), 0);
    rig.advance_until(Duration::from_secs(1), "the mail", async || received(&rig, "P7", "two") == 1).await;
    let seven = rig.until(id(7), "its end", |e| e.status.is_final()).await;
    assert_eq!((seven.completed_steps.as_slice(), seven.email.sent_count), (&[1, 2][..], 2));
    rig.clock.advance(hours(2));
    rig.until(id(6), "its second mail", |e| e.status.is_final()).await;
    assert_eq!((received(&rig, "P6", "one"), received(&rig, "P6", "two")), (1, 1));
    assert_eq!(rig.fake.doubled(), []);
    rig.until_true("SELECT bool_and(status = 'sent') FROM sends").await;
}

#[tokio::test]
async fn rows_that_the_old_orchestrator_adds_later_are_taken_as_well() {
    let mut rig = adopted().await;
    rig.start().await;
    rig.db
        .script(
            "INSERT INTO campaign_prospects (campaign_id, first_name, email) \
                 VALUES ('00000000-0000-0000-0000-0000000000c3', 'Late', 'late@example.org'); \
             INSERT INTO campaign_prospect_execution_state (campaign_id, prospect_id, current_step, status, completed_steps) \
                 SELECT campaign_id, id, 2, 'executing', '{1}' FROM campaign_prospects WHERE first_name = 'Late'",
        )
        .await
        .unwrap();
    rig.advance_until(Duration::from_secs(1), "its second mail", async || received(&rig, "Late", "two") == 1).await;
    assert_eq!(received(&rig, "Late", "one"), 0);
}

#[tokio::test]
async fn a_row_with_a_status_nobody_knows_says_so_and_keeps_its_place() {
    let mut rig = adopted().await;
    rig.db
        .script(
            "DO $$ DECLARE c record; BEGIN FOR c IN SELECT conname FROM pg_constraint \
                 WHERE conrelid = 'campaign_prospect_execution_state'::regclass AND contype = 'c' \
                 LOOP EXECUTE format('ALTER TABLE campaign_prospect_execution_state DROP CONSTRAINT %I', c.conname); END LOOP; END $$; \
             UPDATE campaign_prospect_execution_state SET status = 'dreaming' WHERE id = '00000000-0000-0000-0000-000000000051'",
        )
        .await
        .unwrap();
    rig.start().await;
    rig.until(id(9), "the others run", |e| e.email.sent_count == 1).await;
    rig.until_true(
        "SELECT last_error LIKE '%dreaming%' AND status = 'dreaming' AND version = 0 FROM campaign_prospect_execution_state \
         WHERE id = '00000000-0000-0000-0000-000000000051'",
    )
    .await;
    // Corrected by hand, it takes triggers.
    rig.db
        .script("UPDATE campaign_prospect_execution_state SET status = 'pending' WHERE id = '00000000-0000-0000-0000-000000000051'")
        .await
        .unwrap();
    rig.apply(id(1), Trigger::Skip).await;
    rig.until(id(1), "its second step", |e| e.email.sent_count == 1).await;
    assert!(rig.stop().await);
}
