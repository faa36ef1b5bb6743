//! Sends whose outcome gets lost: their echo settles them, nothing earlier is forgotten, and nothing is called for ever. And a
//! provider that is not there costs nobody a step.

use std::sync::Arc;
use std::time::Duration;

use campaignd::domain::account::Channel;
use campaignd::domain::execution::Status;
use campaignd::domain::id::{ExecutionId, InboxId};
use campaignd::domain::retry::ATTEMPTS_MAX;
use campaignd::domain::send::FailureClass;
use campaignd::store::inbox::{self, NewInbox};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::fake::{Act, NOW, Read, Rig, WORKSPACE, hours, mails};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// One WhatsApp message, and one more after a long while.
fn hello() -> Value {
    json!({"schema_version": 1, "stop_on": [], "steps": [
        {"id": "one", "action": "send_whatsapp", "message": "Hello {{ first_name }}, how are you?", "delay": "300h"},
        {"id": "two", "action": "send_whatsapp", "message": "two"}]})
}

/// What the account has written to the first person, as its webhook tells.
fn own(id: &str, text: &str) -> Value {
    json!({"event": "message_received", "account_id": "wa", "account_type": "WHATSAPP", "chat_id": "chat-9",
        "message_id": id, "message": text, "is_sender": true, "attendees": [
            {"attendee_provider_id": "49301001@s.whatsapp.net", "attendee_specifics": {"phone_number": "+49301001"}}]})
}

async fn tell(rig: &Rig, body: &Value) {
    let new = NewInbox {
        workspace: WORKSPACE,
        id: InboxId(Uuid::now_v7()),
        source: "unipile".to_owned(),
        dedupe_key: Uuid::now_v7().to_string(),
        headers: None,
        body: body.to_string().into_bytes(),
        received_at: rig.clock.now(),
        shard: None,
    };
    inbox::store(&rig.pool, &new).await.unwrap();
    rig.handle().inbox();
}

/// Somebody to whom a message is sent that nobody will admit to.
async fn lost(rig: &mut Rig, act: Act) -> ExecutionId {
    rig.account(Channel::Whatsapp, "wa").await;
    let campaign = rig.campaign(&hello()).await;
    let id = rig.prospects(campaign, 1).await[0];
    rig.fake.script(move |_, _| act.clone());
    rig.fake.reads(|_, _| Read::Absent);
    rig.start().await;
    rig.fake.until_calls(1).await;
    id
}

async fn settled_once(rig: &mut Rig, id: ExecutionId) {
    let row = rig.until(id, "settled", |e| e.status == Status::Pending && e.current_step == 2).await;
    assert_eq!((row.whatsapp.sent_count, row.open_send), (1, None));
    assert_eq!(rig.sends(id).await, ["1 1 sent"]);
    rig.until_true("SELECT bool_and(status = 'applied' AND outcome LIKE '%echo%') FROM inbox").await;
    // Its name is known from now on: the same once more is no news, and nobody has typed anything.
    tell(rig, &own("m1", "Hello P1, how are you?")).await;
    rig.until_true("SELECT count(*) FILTER (WHERE status = 'ignored') = 1 FROM inbox").await;
    rig.clock.advance(hours(1));
    assert_eq!((rig.fake.calls().len(), rig.execution(id).await.status), (1, Status::Pending));
    assert!(rig.stop().await);
}

#[tokio::test]
async fn the_echo_of_a_send_whose_outcome_was_lost_is_its_outcome() {
    let mut rig = Rig::manual().await;
    let id = lost(&mut rig, Act::UnknownAfter).await;
    rig.until_true("SELECT status = 'unknown' FROM sends").await;
    tell(&rig, &own("m1", "hello P1 - how are you")).await;
    settled_once(&mut rig, id).await;
}

#[tokio::test]
async fn an_echo_that_comes_before_the_answer_is_lost_waits_for_it() {
    let mut rig = Rig::manual().await;
    let gate = Arc::new(Semaphore::new(0));
    let id = lost(&mut rig, Act::Hold(Arc::clone(&gate), Box::new(Act::UnknownAfter))).await;
    tell(&rig, &own("m1", "Hello P1, how are you?")).await;
    // Something else of the account is dealt with meanwhile.
    tell(&rig, &json!({"event": "message_received", "account_id": "wa", "account_type": "WHATSAPP", "is_group": true}))
        .await;
    rig.until_true("SELECT count(*) FILTER (WHERE status = 'ignored') = 1 FROM inbox").await;
    rig.db.script("DELETE FROM inbox WHERE status = 'ignored'").await.unwrap();
    gate.add_permits(1);
    settled_once(&mut rig, id).await;
}

#[tokio::test]
async fn the_echo_settles_a_send_that_was_given_up_or_is_to_be_sent_again() {
    for parked in [true, false] {
        let mut rig = Rig::manual().await;
        let id = lost(&mut rig, Act::UnknownAfter).await;
        let wanted = if parked {
            rig.fake.reads(|_, _| Read::Error);
            "SELECT parked_at IS NOT NULL FROM sends"
        } else {
            "SELECT status = 'pending' FROM sends"
        };
        rig.advance_until(SECOND * if parked { 30 } else { 1 }, wanted, async || rig.one::<bool>(wanted).await).await;
        tell(&rig, &own("m1", "Hello P1, how are you?")).await;
        settled_once(&mut rig, id).await;
    }
}

#[tokio::test]
async fn a_mail_that_leaves_the_mailbox_settles_the_send_it_is_by_our_header_and_else_by_its_text() {
    for header in [true, false] {
        let mut rig = Rig::manual().await;
        rig.account(Channel::Email, "box").await;
        let campaign = rig.campaign(&mails(1)).await;
        let id = rig.prospects(campaign, 1).await[0];
        rig.fake.script(|_, _| Act::UnknownAfter);
        rig.fake.reads(|_, _| Read::Absent);
        rig.start().await;
        rig.until_true("SELECT count(*) = 1 FROM sends WHERE status = 'unknown'").await;
        let send: Uuid = rig.one("SELECT id FROM sends").await;
        let (subject, headers) = match header {
            true => ("as they changed it", json!([{"name": "X-Campaignd-Send", "value": send}])),
            false => ("s", json!([])),
        };
        let mut left = json!({"event": "mail_sent", "account_id": "box", "email_id": "e1", "provider_id": "p1",
            "message_id": "<x@y>", "thread_id": "t1", "tracking_id": "k1", "origin": "unipile", "role": "sent",
            "to_attendees": [{"identifier": "p1@example.org"}], "subject": subject, "body_plain": "m1", "headers": headers});
        tell(&rig, &left).await;
        rig.until_all_final().await;
        assert_eq!(rig.sends(id).await, ["1 1 sent"]);
        let known =
            "SELECT count(*) = 4 FROM identities WHERE kind IN ('message', 'rfc_message', 'thread', 'tracking')";
        assert!(rig.one::<bool>(known).await);
        // Once more it is no news.
        left["email_id"] = json!("e2");
        tell(&rig, &left).await;
        rig.until_true("SELECT count(*) FILTER (WHERE status = 'ignored') = 1 FROM inbox").await;
        assert_eq!(rig.fake.calls().len(), 1);
        assert!(rig.stop().await);
    }
}

#[tokio::test]
async fn what_is_lost_each_time_is_called_less_and_less_often_then_left_to_a_person_and_looked_for_from_the_first_call_on()
 {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(1)).await;
    let id = rig.prospects(campaign, 1).await[0];
    rig.fake.script(|_, _| Act::UnknownBefore);
    rig.start().await;
    rig.fake.until_calls(1).await;
    let parked = "SELECT parked_at IS NOT NULL FROM sends";
    rig.advance_until(SECOND * 10, parked, async || rig.one::<bool>(parked).await).await;
    let calls = rig.fake.calls().len();
    assert_eq!(calls, usize::try_from(ATTEMPTS_MAX).unwrap());
    // One, two, four and eight minutes, within a fifth, and a minute for each time it is looked for.
    let took: i64 = rig.one("SELECT extract(epoch FROM parked_at - created_at)::bigint FROM sends").await;
    assert!(took >= 15 * 60 * 4 / 5 + 5 * 60, "{took} s");
    let looked = rig.fake.looked();
    assert_eq!(looked.len(), calls * 2);
    assert!(looked.iter().all(|(_, since)| *since == NOW), "{looked:?}");
    let row = rig.execution(id).await;
    assert_eq!((row.status, row.error_count), (Status::Executing, 1));
    assert_eq!(rig.sends(id).await, ["1 1 unknown"]);
    rig.clock.advance(hours(24));
    assert_eq!(rig.fake.calls().len(), calls);
    assert!(rig.stop().await);
}

#[tokio::test]
async fn a_send_that_the_provider_takes_for_another_is_called_once_and_left_to_a_person_where_nothing_shows() {
    for arrived in [true, false] {
        let mut rig = Rig::manual().await;
        rig.account(Channel::Email, "box").await;
        let campaign = rig.campaign(&mails(1)).await;
        let id = rig.prospects(campaign, 1).await[0];
        if arrived {
            rig.fake.has_received("P1", "m1");
        }
        rig.fake.script(|_, _| Act::Conflict);
        rig.start().await;
        rig.fake.until_calls(1).await;
        let over = "SELECT status = 'sent' OR parked_at IS NOT NULL FROM sends";
        rig.advance_until(SECOND, over, async || rig.one::<bool>(over).await).await;
        assert_eq!(rig.sends(id).await, [if arrived { "1 1 sent" } else { "1 1 unknown" }]);
        rig.clock.advance(hours(24));
        assert_eq!((rig.fake.calls().len(), rig.fake.finds().len()), (1, if arrived { 1 } else { 2 }));
        assert!(rig.stop().await);
    }
}

#[tokio::test]
async fn a_lost_invitation_to_somebody_who_is_a_connection_by_now_is_not_waited_for() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Linkedin, "seat").await;
    let campaign = rig
        .campaign(&json!({"schema_version": 1, "steps": [
            {"id": "invite", "action": "send_linkedin_cr", "message": "invite",
             "wait_for": {"trigger": "connection_accepted", "timeout": "72h"}},
            {"id": "later", "action": "send_linkedin_message", "message": "hello",
             "requires": ["connected"]}]}))
        .await;
    let id = rig.prospects(campaign, 1).await[0];
    rig.fake.script(|request, _| if request.body.as_deref() == Some("invite") { Act::UnknownAfter } else { Act::Ok });
    rig.fake.reads(|_, _| Read::Connected);
    rig.start().await;
    rig.fake.until_calls(1).await;
    rig.advance_until(SECOND, "the message", async || rig.fake.calls().len() == 2).await;
    assert!(rig.clock.now() < NOW + hours(1));
    assert!(rig.execution(id).await.is_connected());
    rig.until_all_final().await;
    assert_eq!(rig.sends(id).await, ["1 1 sent", "2 1 sent"]);
    assert!(rig.stop().await);
}

#[tokio::test]
async fn a_send_is_looked_for_at_whom_it_went_to_whoever_the_prospect_is_by_now() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(1)).await;
    rig.prospects(campaign, 1).await;
    let gate = Arc::new(Semaphore::new(0));
    let handed = Arc::clone(&gate);
    rig.fake.script(move |_, earlier| match earlier {
        0 => Act::Hold(Arc::clone(&handed), Box::new(Act::UnknownBefore)),
        _ => Act::Ok,
    });
    rig.start().await;
    rig.fake.until_calls(1).await;
    rig.db.script("UPDATE campaign_prospects SET first_name = 'Q', email = 'q@example.org'").await.unwrap();
    gate.add_permits(1);
    rig.advance_until(SECOND * 10, "sent", async || rig.one::<bool>("SELECT status = 'sent' FROM sends").await).await;
    let recipients: Vec<_> = rig.fake.looked().into_iter().map(|(request, _)| request.recipient).collect();
    assert!(recipients.iter().all(|r| r.email.as_deref() == Some("p1@example.org")), "{recipients:?}");
    let people: Vec<String> = rig.fake.calls().into_iter().map(|c| c.person).collect();
    assert_eq!(people, ["P1", "P1"], "and sent again as it was, or an idempotency key would be refused");
    assert!(rig.stop().await);
}

#[tokio::test]
async fn a_provider_that_is_away_for_hours_costs_nobody_a_step() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(1)).await;
    let ids = rig.prospects(campaign, 3).await;
    rig.fake.script(|_, _| Act::Refuse(FailureClass::Unavailable, "unreachable"));
    rig.start().await;
    rig.fake.until_calls(1).await;
    rig.advance_until(MINUTE, "hours go by", async || rig.clock.now() > NOW + hours(6)).await;
    let calls = rig.fake.calls().len();
    assert!((5..25).contains(&calls), "{calls} calls in six hours");
    for id in &ids {
        let row = rig.execution(*id).await;
        assert_eq!((row.status, row.attempt, row.error_count), (Status::Executing, 1, 0));
    }
    rig.fake.script(|_, _| Act::Ok);
    rig.advance_until(MINUTE, "everybody's end", async || {
        rig.one::<i64>("SELECT count(*) FROM sends WHERE status = 'sent'").await == 3
    })
    .await;
    assert!(rig.clock.now() < NOW + hours(8));
    rig.until_all_final().await;
    assert_eq!(rig.fake.doubled(), []);
    assert!(rig.stop().await);
}

#[tokio::test]
async fn somebody_with_whom_alone_it_never_works_holds_nobody_up_and_fails_in_the_end() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(1)).await;
    let ids = rig.prospects(campaign, 40).await;
    rig.fake.script(|request, _| match request.recipient.name.as_deref() {
        Some("P1") => Act::Refuse(FailureClass::Unavailable, "errors/unexpected_error"),
        _ => Act::Ok,
    });
    rig.start().await;
    rig.advance_until(MINUTE, "the others", async || {
        rig.one::<i64>("SELECT count(*) FROM sends WHERE status = 'sent'").await == 39
    })
    .await;
    assert!(rig.clock.now() < NOW + hours(12), "{:?}", rig.clock.now());
    // As long as others come, it is known to be about this one.
    let mut others = ids.len();
    rig.advance_until(hours(1), "its end", async || {
        if rig.fake.received().len() == others - 1 {
            rig.prospects(campaign, 1).await;
            rig.handle().arrivals();
            others += 1;
        }
        rig.execution(ids[0]).await.status == Status::Failed
    })
    .await;
    assert!(rig.stop().await);
}

#[tokio::test]
async fn answers_that_are_lost_one_after_the_other_have_the_account_rest() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(1)).await;
    rig.prospects(campaign, 8).await;
    rig.fake.script(|_, _| Act::UnknownAfter);
    rig.start().await;
    let sent = "SELECT count(*) = 8 FROM sends WHERE status = 'sent'";
    rig.advance_until(SECOND * 10, sent, async || rig.one::<bool>(sent).await).await;
    let claimed = "SELECT extract(epoch FROM max(claimed_at) - min(claimed_at))::bigint FROM sends";
    assert!(rig.one::<i64>(claimed).await > 3000, "the eighth in a row comes an hour after the first");
    assert_eq!(rig.fake.doubled(), []);
    assert!(rig.stop().await);
}
