//! Invitations whose note the provider does not take.

use std::time::Duration;

use campaignd::domain::account::Channel;
use campaignd::domain::execution::{ExitReason, Status};
use campaignd::domain::id::AccountId;
use campaignd::domain::send::FailureClass;
use serde_json::{Value, json};

use crate::fake::{Act, NOW, Rig, hours, parsed};

/// Room comes back when the quarter of an hour in which it was used has left the window.
const QUARTER: Duration = Duration::from_secs(900);
const USED_UP: &str = "errors/cannot_resend_yet";

fn noted(required: bool) -> Value {
    json!({"schema_version": 1, "steps": [
        {"id": "invite", "action": "send_linkedin_cr", "message": "hello", "note_required": required}]})
}

/// The provider takes no notes.
fn takes_no_notes(rig: &Rig, code: &'static str) {
    rig.fake.script(move |request, _| match &request.body {
        Some(_) => Act::Refuse(FailureClass::NoteRefused, code),
        None => Act::Ok,
    });
}

async fn budget(rig: &Rig, account: AccountId, kind: &str) {
    let limits = json!({"kind": kind, "spacing": {"min": "0s", "max": "0s"}, "warm_up": null});
    rig.limit(account, &limits).await;
}

#[tokio::test]
async fn an_invitation_refused_for_its_note_goes_without_it_as_another_send() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Linkedin, "seat").await;
    let campaign = rig.campaign(&noted(false)).await;
    takes_no_notes(&rig, USED_UP);
    let ids = rig.prospects(campaign, 2).await;
    let before = rig.executions(&ids).await;
    rig.start().await;
    rig.until_all_final().await;
    for id in &ids {
        assert_eq!(rig.sends(*id).await, ["1 1 failed", "1 2 sent"]);
        let row = rig.execution(*id).await;
        assert_eq!((row.exit_reason, row.failed_steps.len()), (Some(ExitReason::Finished), 0));
    }
    let calls = rig.fake.calls();
    assert_eq!(calls.iter().filter(|c| c.text.is_empty()).count(), 2);
    assert_eq!(calls.len(), 4, "without a budget nobody remembers");
    assert_eq!(rig.fake.doubled(), []);
    assert!(rig.one::<bool>("SELECT bool_and(body IS NULL) FROM sends WHERE status = 'sent'").await);
    rig.assert_replays(before, &parsed(&noted(false))).await;
    assert!(rig.stop().await);
}

#[tokio::test]
async fn an_account_whose_notes_are_used_up_is_asked_once_and_the_others_go_without() {
    let mut rig = Rig::manual().await;
    let account = rig.account(Channel::Linkedin, "seat").await;
    budget(&rig, account, "linkedin_premium").await;
    let campaign = rig.campaign(&noted(false)).await;
    takes_no_notes(&rig, USED_UP);
    rig.prospects(campaign, 5).await;
    rig.start().await;
    rig.until_all_final().await;
    let calls = rig.fake.calls();
    assert_eq!((calls.len(), calls.iter().filter(|c| c.text.is_empty()).count()), (6, 5));
    assert_eq!(rig.fake.doubled(), []);
    // A day later notes are tried again.
    rig.fake.script(|_, _| Act::Ok);
    rig.clock.advance(hours(25));
    rig.prospects(campaign, 1).await;
    rig.handle().arrivals();
    rig.fake.until_calls(7).await;
    assert_eq!(rig.fake.calls()[6].text, "hello");
    rig.until_all_final().await;
    assert!(rig.stop().await);
}

#[tokio::test]
async fn an_account_of_few_notes_sends_as_many_and_the_other_invitations_without() {
    let mut rig = Rig::manual().await;
    let account = rig.account(Channel::Linkedin, "seat").await;
    // One note a week, twenty invitations a day.
    budget(&rig, account, "linkedin_free").await;
    let campaign = rig.campaign(&noted(false)).await;
    rig.prospects(campaign, 5).await;
    rig.start().await;
    rig.until_all_final().await;
    let calls = rig.fake.calls();
    assert_eq!((calls.len(), calls.iter().filter(|c| c.text.is_empty()).count()), (5, 4));
    let required = rig.campaign(&noted(true)).await;
    let id = rig.prospects(required, 1).await[0];
    rig.handle().arrivals();
    rig.until(id, "decided", |e| e.open_send.is_some()).await;
    rig.advance_until(hours(1), "next week", async || rig.fake.calls().len() == 6).await;
    assert_eq!(rig.fake.calls()[5].text, "hello");
    assert!(rig.clock.now() >= NOW + hours(24 * 7));
    rig.until_all_final().await;
    assert!(rig.stop().await);
}

#[tokio::test]
async fn an_invitation_that_may_go_without_its_note_waits_for_neither_notes_nor_those_who_need_them() {
    let mut rig = Rig::manual().await;
    let account = rig.account(Channel::Linkedin, "seat").await;
    let limits = json!({"kind": "linkedin_free", "spacing": {"min": "0s", "max": "0s"}, "warm_up": null,
        "limits": {"invite": {"day": 3, "week": 21}}});
    rig.limit(account, &limits).await;
    let (required, others) = (rig.campaign(&noted(true)).await, rig.campaign(&noted(false)).await);
    rig.prospects(required, 20).await;
    rig.start().await;
    rig.fake.until_calls(1).await;
    rig.wait("the others wait for a note", async || rig.handle().lined() > 0).await;
    // On the day of the only note two more, then three a day: none waits until there are notes again.
    let ids = rig.prospects(others, 6).await;
    rig.handle().arrivals();
    rig.fake.until_calls(3).await;
    rig.clock.advance(hours(24) + QUARTER);
    rig.advance_until(Duration::from_secs(1), "the next day", async || rig.fake.calls().len() >= 6).await;
    rig.clock.advance(hours(24) + QUARTER);
    rig.advance_until(Duration::from_secs(1), "the day after", async || rig.fake.calls().len() >= 7).await;
    for id in &ids {
        rig.until(*id, "invited", |e| e.exit_reason == Some(ExitReason::Finished)).await;
    }
    assert_eq!(rig.fake.calls().iter().filter(|c| c.text.is_empty()).count(), 6);
    assert!(rig.clock.now() < NOW + hours(24 * 3));
    assert!(rig.stop().await);
}

#[tokio::test]
async fn when_nearly_all_invitations_are_used_up_none_goes_out_without_its_note_either() {
    let mut rig = Rig::manual().await;
    let account = rig.account(Channel::Linkedin, "seat").await;
    budget(&rig, account, "linkedin_premium").await;
    let campaign = rig.campaign(&noted(false)).await;
    rig.fake.script(|_, _| Act::Refuse(FailureClass::AccountQuota, "errors/limit_exceeded"));
    rig.prospects(campaign, 2).await;
    rig.start().await;
    rig.until_true("SELECT coalesce(rests ? 'invite', false) FROM account_gate").await;
    rig.fake.script(|_, _| Act::Ok);
    rig.clock.advance(hours(23));
    rig.clock.advance(hours(2));
    rig.until_all_final().await;
    assert!(rig.fake.calls().iter().all(|c| c.text == "hello"));
    assert!(
        rig.one::<bool>(&format!("SELECT bool_and(claimed_at >= '{}') FROM sends", (NOW + hours(24)).to_utc())).await
    );
    assert!(rig.stop().await);
}

#[tokio::test]
async fn a_lost_answer_to_an_invitation_without_its_note_is_read_back_and_not_sent_twice() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Linkedin, "seat").await;
    let campaign = rig.campaign(&noted(false)).await;
    rig.fake.script(move |request, n| match &request.body {
        Some(_) => Act::Refuse(FailureClass::NoteRefused, "errors/too_many_characters"),
        None if n == 0 => Act::UnknownBefore,
        None => Act::UnknownAfter,
    });
    let id = rig.prospects(campaign, 1).await[0];
    rig.start().await;
    let second = Duration::from_secs(1);
    rig.advance_until(second, "sent", async || rig.execution(id).await.status.is_final()).await;
    assert_eq!(rig.sends(id).await, ["1 1 failed", "1 2 sent"]);
    assert_eq!((rig.fake.calls().len(), rig.fake.doubled()), (3, vec![]));
    assert!(rig.stop().await);
}

#[tokio::test]
async fn a_note_that_is_required_waits_for_its_quota_and_fails_the_step_when_it_is_too_long() {
    for (code, long) in [(USED_UP, false), ("errors/too_many_characters", true)] {
        let mut rig = Rig::manual().await;
        let account = rig.account(Channel::Linkedin, "seat").await;
        budget(&rig, account, "linkedin_premium").await;
        let campaign = rig.campaign(&noted(true)).await;
        takes_no_notes(&rig, code);
        let id = rig.prospects(campaign, 1).await[0];
        rig.start().await;
        if long {
            let row = rig.until(id, "failed", |e| e.status.is_final()).await;
            assert_eq!((row.status, row.failed_steps), (Status::Failed, vec![1]));
        } else {
            rig.until_true("SELECT coalesce(rests ? 'invite_with_note', false) FROM account_gate").await;
            rig.fake.script(|_, _| Act::Ok);
            rig.clock.advance(hours(25));
            rig.until_all_final().await;
            assert_eq!(rig.sends(id).await, ["1 1 sent"]);
        }
        assert!(rig.fake.calls().iter().all(|c| c.text == "hello"));
        assert!(rig.stop().await);
    }
}
