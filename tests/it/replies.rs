//! Whom a fact is about when its names do not say it yet, or say it of somebody else: answers to a send without an outcome, in
//! another campaign, of our own making, and acceptances for another account.

use std::time::Duration;

use campaignd::domain::account::Channel;
use campaignd::domain::execution::{ExitReason, Status};
use campaignd::provider::unipile::SEND_HEADER;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::facts::store;
use crate::fake::Rig;

/// Two mails, far apart.
fn two_mails() -> Value {
    json!({"schema_version": 1, "steps": [
        {"id": "one", "action": "send_email", "subject": "s", "message": "one", "delay": "300h"},
        {"id": "two", "action": "send_email", "subject": "s", "message": "two"}]})
}

/// The same on WhatsApp.
fn two_messages() -> Value {
    json!({"schema_version": 1, "steps": [
        {"id": "one", "action": "send_whatsapp", "message": "one", "delay": "300h"},
        {"id": "two", "action": "send_whatsapp", "message": "two"}]})
}

/// What somebody wrote in a chat.
fn message(account: &str, id: &str, chat: &str) -> Value {
    json!({"event": "message_received", "account_id": account, "message_id": id, "chat_id": chat, "message": "hello",
        "is_sender": false, "sender": {"attendee_provider_id": "somebody"}})
}

async fn tell(rig: &Rig, body: &Value) {
    store(rig, body).await;
    rig.handle().inbox();
}

/// Waits until everything that came in has been dealt with.
async fn until_dealt_with(rig: &Rig) {
    rig.until_true("SELECT NOT EXISTS (SELECT FROM inbox WHERE status = 'received')").await;
}

#[tokio::test]
async fn an_answer_to_a_send_without_an_outcome_waits_for_its_name() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Linkedin, "li").await;
    rig.account(Channel::Whatsapp, "idle").await;
    let flow = json!({"schema_version": 1, "steps": [
        {"id": "one", "action": "send_linkedin_inmail", "subject": "s", "message": "one", "delay": "300h"},
        {"id": "two", "action": "send_linkedin_inmail", "subject": "s", "message": "two"}]});
    let campaign = rig.campaign(&flow).await;
    let gate = rig.fake.hold();
    rig.start().await;
    let id = rig.prospects(campaign, 1).await[0];
    rig.handle().arrivals();
    rig.fake.until_calls(1).await;
    tell(&rig, &message("li", "answer", "chat-P1")).await;
    // A stranger's, where nothing is in hand: when that has been given up, the answer has waited as long.
    tell(&rig, &message("idle", "stranger", "chat-of-nobody")).await;
    rig.until_true("SELECT EXISTS (SELECT FROM inbox WHERE status = 'ignored')").await;
    assert_eq!(rig.one::<i64>("SELECT count(*) FROM inbox WHERE status = 'received'").await, 1);
    gate.add_permits(1);
    let e = rig.until(id, "answered", |e| e.status.is_final()).await;
    assert_eq!(e.exit_reason, Some(ExitReason::Replied));
    // A stranger's there is given up as well, though the account has another send in hand by then.
    tell(&rig, &message("li", "other", "chat-of-nobody")).await;
    let gate = rig.fake.hold();
    rig.clock.advance(Duration::from_secs(1));
    let next = rig.prospects(campaign, 1).await[0];
    rig.handle().arrivals();
    rig.fake.until_calls(2).await;
    until_dealt_with(&rig).await;
    assert_eq!(rig.execution(next).await.status, Status::Executing);
    gate.add_permits(1);
    rig.until(next, "written to", |e| e.status == Status::Pending).await;
    assert!(rig.stop().await);
}

#[tokio::test]
async fn an_answer_ends_every_campaign_that_the_person_is_in() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Whatsapp, "wa").await;
    let first = rig.campaign(&two_messages()).await;
    let later = json!({"schema_version": 1, "steps": [
        {"id": "pause", "action": "wait", "delay": "300h"},
        {"id": "one", "action": "send_whatsapp", "message": "first of the other"}]});
    let other = rig.campaign(&later).await;
    let one = rig.prospects(first, 1).await[0];
    let (same, stranger) = (rig.prospects(other, 1).await[0], rig.prospects(other, 1).await[0]);
    rig.db.script("UPDATE campaign_prospects SET phone = '+49301001' WHERE first_name = 'P2'").await.unwrap();
    rig.start().await;
    rig.until(one, "written to", |e| e.whatsapp.sent_count == 1).await;
    for id in [same, stranger] {
        rig.until(id, "waits", |e| e.current_step == 2 && e.status == Status::Pending).await;
    }
    // By the chat, which the other campaign does not know.
    tell(&rig, &message("wa", "answer", "chat-P1")).await;
    for id in [one, same] {
        let e = rig.until(id, "over", |e| e.status.is_final()).await;
        assert_eq!(e.exit_reason, Some(ExitReason::Replied));
    }
    assert_eq!(rig.execution(stranger).await.status, Status::Pending);
    assert!(rig.stop().await);
}

#[tokio::test]
async fn an_echo_that_does_not_say_whose_it_is_answers_nothing() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Whatsapp, "wa").await;
    let campaign = rig.campaign(&two_messages()).await;
    let id = rig.prospects(campaign, 1).await[0];
    rig.start().await;
    rig.until(id, "written to", |e| e.whatsapp.sent_count == 1 && e.status == Status::Pending).await;
    let send: Uuid = rig.one("SELECT id FROM sends").await;
    let mut echo = message("wa", &format!("message-{send}"), "chat-P1");
    echo.as_object_mut().unwrap().remove("is_sender");
    tell(&rig, &echo).await;
    until_dealt_with(&rig).await;
    assert!(rig.one::<bool>("SELECT bool_and(outcome LIKE '%echo%') FROM inbox").await);
    assert_eq!(rig.execution(id).await.status, Status::Pending);
    // Nobody knows this one: it is taken for theirs, as it always was.
    echo["message_id"] = "theirs".into();
    tell(&rig, &echo).await;
    rig.until(id, "answered", |e| e.exit_reason == Some(ExitReason::Replied)).await;
    assert!(rig.stop().await);
}

#[tokio::test]
async fn a_mails_names_are_learnt_from_its_delivery_and_it_is_no_answer_under_another_role() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "us@us.test").await;
    let campaign = rig.campaign(&two_mails()).await;
    let ids = rig.prospects(campaign, 2).await;
    rig.start().await;
    for id in &ids {
        rig.until(*id, "written to", |e| e.email.sent_count == 1 && e.status == Status::Pending).await;
    }
    let of = |name: &str| {
        format!(
            "SELECT s.id FROM sends s JOIN campaign_prospects p ON p.id = s.prospect_id \
        WHERE p.first_name = '{name}'"
        )
    };
    let (first, second): (Uuid, Uuid) = (rig.one(&of("P1")).await, rig.one(&of("P2")).await);
    // One is known by its id with the provider, the other by our header alone.
    let sent = |n: u32, more: Value| {
        let mut body = json!({"event": "mail_sent", "account_id": "us@us.test", "email_id": format!("e{n}"),
            "message_id": format!("<sent-{n}@us.test>"), "thread_id": format!("thread-{n}"), "role": "sent",
            "origin": "unipile", "from_attendee": {"identifier": "us@us.test"}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    tell(&rig, &sent(1, json!({"provider_id": format!("message-{first}")}))).await;
    tell(&rig, &sent(2, json!({"headers": [{"name": SEND_HEADER, "value": second.to_string()}]}))).await;
    until_dealt_with(&rig).await;
    assert_eq!(rig.one::<i64>("SELECT count(*) FROM identities WHERE kind IN ('rfc_message', 'thread')").await, 4);
    // The mailbox shows it once more, elsewhere.
    let mut again = sent(1, json!({"event": "mail_received", "role": "all"}));
    again["origin"] = "external".into();
    again["from_attendee"]["identifier"] = "alias@us.test".into();
    tell(&rig, &again).await;
    until_dealt_with(&rig).await;
    assert!(rig.one::<bool>("SELECT bool_and(status = 'ignored') FROM inbox").await);
    assert_eq!(rig.execution(ids[0]).await.status, Status::Pending);
    // Answers from addresses that nobody knows.
    for n in [1, 2] {
        let answer = json!({"event": "mail_received", "account_id": "us@us.test", "email_id": format!("a{n}"),
            "message_id": format!("<answer-{n}@else.test>"), "role": "inbox", "subject": "Re: s",
            "in_reply_to": {"message_id": format!("<sent-{n}@us.test>")},
            "from_attendee": {"identifier": "assistant@else.test"}});
        tell(&rig, &answer).await;
    }
    for id in ids {
        rig.until(id, "answered", |e| e.exit_reason == Some(ExitReason::Replied)).await;
    }
    assert!(rig.stop().await);
}

#[tokio::test]
async fn somebody_becomes_a_connection_of_the_account_that_contacts_them_only() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "mail").await;
    rig.account(Channel::Linkedin, "one").await;
    let two = rig.account(Channel::Linkedin, "two").await;
    let flow = json!({"schema_version": 1, "steps": [
        {"id": "mail", "action": "send_email", "subject": "s", "message": "one", "delay": "300h"},
        {"id": "invite", "action": "send_linkedin_cr"}]});
    let campaign = rig.campaign(&flow).await;
    let id = rig.prospects(campaign, 1).await[0];
    rig.start().await;
    rig.until(id, "mailed", |e| e.email.sent_count == 1 && e.status == Status::Pending).await;
    let relation = json!({"event": "new_relation", "account_id": "one", "user_provider_id": "ACoAAAp1",
        "user_public_identifier": "p1"});
    tell(&rig, &relation).await;
    until_dealt_with(&rig).await;
    assert!(!rig.execution(id).await.is_connected(), "nobody knows yet which of the two it will be");
    // Without the other there is no question.
    rig.db.script(format!("UPDATE accounts SET status = 'disabled' WHERE id = '{two}'")).await.unwrap();
    rig.handle().accounts_changed();
    tell(&rig, &relation).await;
    rig.until(id, "connected", |e| e.is_connected()).await;
    assert!(rig.stop().await);
}
