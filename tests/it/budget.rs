//! Budgets of accounts as they hold in the running engine: the core's own rules are tested in `domain::budget`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use campaignd::domain::account::Channel;
use campaignd::domain::budget::{History, Kind};
use campaignd::domain::execution::Status;
use campaignd::domain::id::AccountId;
use campaignd::domain::send::{Action, FailureClass};
use campaignd::domain::trigger::Trigger;
use campaignd::store::account::{self, Changes};
use serde_json::{Value, json};

use crate::client::{Api, flow};
use crate::fake::{Act, Rig, WORKSPACE, hours};

/// Most sends that are decided of a line that waits for its budget. As many again after a restart, where some may decide
/// before the channel has heard of those that are decided already.
const ROOM: i64 = 2 * 8;
/// Room comes back when the quarter of an hour in which it was used has left the window.
const QUARTER: Duration = Duration::from_secs(900);

fn invitations() -> Value {
    json!({"schema_version": 1, "steps": [{"id": "invite", "action": "send_linkedin_cr"}]})
}

async fn limit(rig: &Rig, account: AccountId, limits: Value) {
    let whole =
        json!({"kind": "linkedin_premium", "spacing": {"min": "0s", "max": "0s"}, "warm_up": null, "limits": limits});
    rig.limit(account, &whole).await;
}

/// The most claims that any window of this length holds.
async fn most(rig: &Rig, window: &str) -> i64 {
    rig.one(&format!(
        "SELECT max(n) FROM (SELECT count(*) OVER (ORDER BY claimed_at RANGE BETWEEN '{window}' PRECEDING AND CURRENT ROW) n \
         FROM sends WHERE claimed_at IS NOT NULL) w"
    ))
    .await
}

/// So many wait: a few of them decided, the others in line.
async fn until_waiting(rig: &Rig, people: i64) {
    rig.wait("the rest waits", async || {
        let decided = rig.one::<i64>("SELECT count(*) FROM sends WHERE status = 'pending'").await;
        decided <= ROOM
            && decided + i64::try_from(rig.handle().lined()).unwrap() == people
            && rig.one::<i64>("SELECT count(*) FROM account_gate WHERE in_flight IS NOT NULL").await == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_window_holds_more_than_the_limit_and_a_restart_forgets_nothing() {
    let mut rig = Rig::manual().await;
    let account = rig.account(Channel::Linkedin, "seat").await;
    limit(&rig, account, json!({"invite": {"day": 3, "week": 7}})).await;
    let campaign = rig.campaign(&invitations()).await;
    rig.prospects(campaign, 20).await;
    rig.start().await;
    rig.fake.until_calls(3).await;
    until_waiting(&rig, 17).await;
    assert_eq!(rig.fake.calls().len(), 3);

    rig.clock.advance(hours(24) + QUARTER);
    rig.advance_until(Duration::from_secs(1), "room is back", async || rig.fake.calls().len() >= 6).await;
    until_waiting(&rig, 14).await;
    assert!(rig.stop().await);
    rig.start().await;
    // Of the third day only one is left of the week.
    rig.clock.advance(hours(24) + QUARTER);
    rig.advance_until(Duration::from_secs(1), "room is back", async || rig.fake.calls().len() >= 7).await;
    until_waiting(&rig, 13).await;
    assert_eq!(rig.fake.calls().len(), 7);
    assert_eq!((most(&rig, "23:59:59").await, most(&rig, "6 days 23:59:59").await), (3, 7));
    assert_eq!(rig.fake.doubled(), []);
    assert!(rig.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follow_up_does_not_wait_behind_first_touches_that_wait_for_their_budget() {
    let mut rig = Rig::manual().await;
    let account = rig.account(Channel::Linkedin, "seat").await;
    limit(&rig, account, json!({"invite": {"day": 1}})).await;
    let campaign = rig
        .campaign(&json!({"schema_version": 1, "steps": [
            {"id": "invite", "action": "send_linkedin_cr",
             "wait_for": {"trigger": "connection_accepted", "timeout": "72h", "on_timeout": "complete"}},
            {"id": "hello", "action": "send_linkedin_message", "message": "hello"}]}))
        .await;
    let people = rig.prospects(campaign, 30).await;
    rig.start().await;
    rig.fake.until_calls(1).await;
    until_waiting(&rig, 29).await;
    let mut invited = None;
    for person in people {
        if rig.execution(person).await.status == Status::WaitingTrigger {
            invited = Some(person);
        }
    }
    rig.apply(invited.expect("one of them was invited"), Trigger::ConnectionAccepted).await;
    rig.fake.until_calls(2).await;
    let last = rig.fake.calls().pop().unwrap();
    assert_eq!(last.text, "hello");
    assert!(rig.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_first_touch_waits_behind_those_of_another_kind_whose_budget_is_used_up() {
    let mut rig = Rig::manual().await;
    let account = rig.account(Channel::Linkedin, "seat").await;
    limit(&rig, account, json!({"invite_with_note": {"day": 1}})).await;
    let noted = rig
        .campaign(&json!({"schema_version": 1, "steps": [
            {"id": "invite", "action": "send_linkedin_cr", "message": "hello", "note_required": true}]}))
        .await;
    rig.prospects(noted, 30).await;
    rig.start().await;
    rig.fake.until_calls(1).await;
    until_waiting(&rig, 29).await;
    assert!(rig.stop().await);
    rig.start().await;
    until_waiting(&rig, 29).await;
    let plain = rig.campaign(&invitations()).await;
    rig.prospects(plain, 20).await;
    rig.handle().arrivals();
    rig.fake.until_calls(21).await;
    until_waiting(&rig, 29).await;
    assert_eq!(rig.fake.doubled(), []);
    assert!(rig.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_that_is_used_up_rests_what_used_it_up_and_nothing_else() {
    let mut rig = Rig::manual().await;
    let account = rig.account(Channel::Linkedin, "seat").await;
    limit(&rig, account, json!({"invite": {"day": 50}})).await;
    let mut refused = false;
    rig.fake.script(move |request, _| {
        if request.action == Action::SendLinkedinCr && !std::mem::replace(&mut refused, true) {
            Act::Refuse(FailureClass::AccountQuota, "errors/cannot_resend_yet")
        } else {
            Act::Ok
        }
    });
    let inviting = rig.campaign(&invitations()).await;
    let visiting = rig
        .campaign(&json!({"schema_version": 1, "steps": [{"id": "look", "action": "visit_linkedin_profile"}]}))
        .await;
    rig.prospects(inviting, 2).await;
    rig.start().await;
    rig.fake.until_calls(1).await;
    rig.until_true("SELECT rests ? 'invite' AND next_send_at IS NULL AND in_flight IS NULL FROM account_gate").await;
    rig.prospects(visiting, 1).await;
    rig.handle().arrivals();
    rig.fake.until_calls(2).await;
    rig.until_true("SELECT bool_or(status = 'sent') FROM sends WHERE action = 'visit_linkedin_profile'").await;
    assert_eq!(rig.one::<i64>("SELECT count(*) FROM sends WHERE status = 'pending'").await, 2, "both keep their place");
    rig.clock.advance(hours(24) + QUARTER);
    rig.until_all_final().await;
    assert!(rig.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_given_to_an_account_that_runs_count_what_it_has_done_before() {
    let mut rig = Rig::manual().await;
    let account = rig.account(Channel::Linkedin, "seat").await;
    let plain = rig.campaign(&invitations()).await;
    let noted = rig
        .campaign(&json!({"schema_version": 1, "steps": [
            {"id": "invite", "action": "send_linkedin_cr", "message": "hello"}]}))
        .await;
    rig.prospects(plain, 2).await;
    rig.prospects(noted, 1).await;
    rig.start().await;
    rig.until_all_final().await;
    rig.clock.advance(hours(1));
    let limits = json!({"kind": "linkedin_premium", "spacing": {"min": "0s", "max": "0s"}, "warm_up": null,
        "limits": {"invite": {"day": 4}, "invite_with_note": {"day": 10}}});
    let changes = Changes { limits: Some(Some(limits.clone())), ..Changes::default() };
    assert!(account::update(&rig.pool, WORKSPACE, account, &changes, rig.clock.now()).await.unwrap());
    rig.handle().accounts_changed();
    rig.prospects(plain, 3).await;
    rig.handle().arrivals();
    rig.fake.until_calls(4).await;
    until_waiting(&rig, 2).await;
    let gate: Value = rig.one("SELECT history FROM account_gate").await;
    let history = History::from_json(&gate).unwrap();
    let counted = |kind| history.count(kind, Duration::from_secs(24 * 3600), rig.clock.now());
    assert_eq!((counted(Kind::Invite), counted(Kind::InviteWithNote)), (4, 1));

    // A month ahead the clock lets the others go; back in time, that stands in nobody's way once a person says so.
    rig.clock.advance(hours(24 * 30));
    rig.fake.until_calls(6).await;
    rig.until_all_final().await;
    let back = rig.clock.now() - hours(24 * 29);
    let release = Changes { release: true, ..Changes::default() };
    assert!(account::update(&rig.pool, WORKSPACE, account, &release, back).await.unwrap());
    let gate: Value = rig.one("SELECT history FROM account_gate").await;
    let history = History::from_json(&gate).unwrap();
    assert_eq!(history.count(Kind::Invite, Duration::from_secs(7 * 24 * 3600), back), 4, "as the sends tell it");
    assert!(!history.is_ahead(back));
    assert!(rig.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_nothing_holds_sends_without_asking_again_until_it_is_changed() {
    let mut rig = Rig::manual().await;
    let account = rig.account(Channel::Linkedin, "seat").await;
    limit(&rig, account, json!({"invite": {"day": 0}})).await;
    let campaign = rig.campaign(&invitations()).await;
    rig.prospects(campaign, 3).await;
    let visiting = rig
        .campaign(&json!({"schema_version": 1, "steps": [{"id": "look", "action": "visit_linkedin_profile"}]}))
        .await;
    let looked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&looked);
    rig.start_with(move |o| {
        o.before_send = Some(Arc::new(move |_| {
            count.fetch_add(1, Relaxed);
        }));
    })
    .await;
    rig.wait("each is looked at", async || looked.load(Relaxed) >= 3).await;
    rig.clock.advance(hours(24 * 30));
    until_waiting(&rig, 3).await;
    // Others that do go show that a month later the channel has looked at all it had to.
    rig.prospects(visiting, 1).await;
    rig.handle().arrivals();
    rig.fake.until_calls(1).await;
    rig.until_true("SELECT bool_or(status = 'sent') FROM sends WHERE action = 'visit_linkedin_profile'").await;
    assert_eq!(looked.load(Relaxed), 4, "none was looked at twice");
    assert_eq!(
        rig.one::<i64>("SELECT count(*) FROM campaign_prospect_execution_state WHERE status = 'executing'").await,
        3
    );
    limit(&rig, account, json!({"invite": {"day": 50}})).await;
    rig.handle().accounts_changed();
    rig.until_all_final().await;
    assert_eq!(rig.fake.calls().len(), 4);
    assert!(rig.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_skipped_while_it_waits_for_the_budget_is_taken_back_at_once() {
    let mut rig = Rig::manual().await;
    let account = rig.account(Channel::Linkedin, "seat").await;
    limit(&rig, account, json!({"invite": {"day": 1}})).await;
    let campaign = rig.campaign(&invitations()).await;
    let people = rig.prospects(campaign, 3).await;
    rig.start().await;
    rig.fake.until_calls(1).await;
    until_waiting(&rig, 2).await;
    let mut waiting = None;
    for person in people {
        let row = rig.execution(person).await;
        if row.status == Status::Executing {
            waiting = Some(row.id);
        }
    }
    let waiting = waiting.expect("one of them waits with a send");
    rig.apply(waiting, Trigger::Skip).await;
    rig.until(waiting, "its send is taken back", |e| e.open_send.is_none()).await;
    assert!(rig.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outside_working_hours_an_account_rests_until_they_begin_whatever_else_stands_in_the_way() {
    let mut rig = Rig::manual().await;
    let account = rig.account(Channel::Linkedin, "seat").await;
    limit(&rig, account, json!({"invite": {"day": 1, "week": 1}})).await;
    rig.db
        .script(
            "UPDATE accounts SET limits = limits || '{\"timezone\": \"UTC\", \
             \"window\": {\"days\": [\"mon\", \"tue\"], \"from\": \"09:00\", \"to\": \"18:00\"}}'",
        )
        .await
        .unwrap();
    let inviting = rig.campaign(&invitations()).await;
    rig.prospects(inviting, 2).await;
    rig.start().await;
    rig.fake.until_calls(1).await;
    until_waiting(&rig, 1).await;
    assert!(rig.stop().await);
    // In the evening the invitation is asked for again: neither the week nor the hours let it go.
    rig.clock.advance(hours(10));
    rig.start().await;
    let visiting = rig
        .campaign(&json!({"schema_version": 1, "steps": [{"id": "look", "action": "visit_linkedin_profile"}]}))
        .await;
    rig.prospects(visiting, 1).await;
    rig.handle().arrivals();
    until_waiting(&rig, 2).await;
    assert_eq!(rig.fake.calls().len(), 1);
    rig.clock.advance(hours(14));
    rig.fake.until_calls(2).await;
    rig.until_true("SELECT bool_or(status = 'sent') FROM sends WHERE action = 'visit_linkedin_profile'").await;
    assert!(rig.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_who_is_put_on_the_list_before_the_claim_is_not_contacted() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Linkedin, "seat").await;
    let campaign = rig.campaign(&invitations()).await;
    let people = rig.prospects(campaign, 2).await;
    rig.db
        .script(
            "INSERT INTO suppressions (workspace_id, kind, value, id, reason, created_at) \
             SELECT workspace_id, 'profile', 'p1', gen_random_uuid(), 'manual', now() FROM campaign_prospects LIMIT 1",
        )
        .await
        .unwrap();
    rig.start().await;
    rig.until_all_final().await;
    let ended = rig.executions(&people).await;
    assert_eq!(ended[0].exit_reason.map(|r| r.as_str()), Some("suppressed"));
    assert_eq!(ended[1].exit_reason.map(|r| r.as_str()), Some("finished"));
    assert_eq!(rig.fake.received().len(), 1);
    assert!(rig.stop().await);
}

#[tokio::test]
async fn limits_are_given_checked_shown_and_changed_over_the_api() {
    let api = Api::new().await;
    let account = json!({"channel": "linkedin", "provider": "unipile", "provider_account_id": "a", "name": "Ada"});
    let with = |more: Value| {
        let mut account = account.clone();
        account.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        account
    };
    let wrong = with(json!({"limits": {"kind": "mail_imap", "limits": {"invite": {"day": -1}}, "colour": 1}}));
    let problem = api.post("/v1/accounts", wrong).await.problem(422, "invalid_fields");
    let paths: Vec<&str> =
        problem["problems"].as_array().unwrap().iter().map(|p| p["path"].as_str().unwrap()).collect();
    assert!(paths.contains(&"$.limits.kind") && paths.contains(&"$.limits.colour"), "{paths:?}");
    api.post("/v1/accounts", with(json!({"kind": "spaceship"}))).await.problem(422, "invalid_fields");

    let made = api.post("/v1/accounts", with(json!({"kind": "linkedin_free"}))).await.ok(201);
    assert_eq!(made["limits"]["limits"]["invite"], json!({"day": 20, "week": 100}));
    assert!(made.get("warnings").is_none());
    let path = format!("/v1/accounts/{}", made["id"].as_str().unwrap());
    let shown = api.get(&path).await.ok(200);
    let invite = shown["allowances"].as_array().unwrap().iter().find(|a| a["kind"] == "invite").unwrap().clone();
    assert_eq!((&invite["day_used"], &invite["week_limit"]), (&json!(0), &json!(100)));
    assert!(invite["day_limit"].as_u64().unwrap() < 20, "it is new");

    api.patch(&path, json!({"limits": {"kind": "linkedin_free", "spacing": {"min": "2m", "max": "1m"}}}))
        .await
        .problem(422, "invalid_fields");
    let changed =
        api.patch(&path, json!({"limits": {"kind": "linkedin_premium", "warm_up": null}, "name": "Ada B"})).await;
    let changed = changed.ok(200);
    assert_eq!((&changed["name"], &changed["limits"]["kind"]), (&json!("Ada B"), &json!("linkedin_premium")));
    let off = api.patch(&path, json!({"status": "disabled", "limits": null})).await.ok(200);
    assert_eq!((&off["status"], &off["limits"], &off["allowances"]), (&json!("disabled"), &Value::Null, &json!([])));
    api.patch(&path, json!({"status": "halted"})).await.problem(422, "invalid_fields");
    api.patch("/v1/accounts/00000000-0000-7000-8000-0000000000ff", json!({})).await.problem(404, "not_found");

    let plain = json!({"channel": "email", "provider": "unipile", "provider_account_id": "b", "name": "Box"});
    let made = api.post("/v1/accounts", plain).await.ok(201);
    assert!(made["warnings"][0].as_str().unwrap().contains("taken for mail_google"), "{made}");
    assert_eq!(made["limits"]["kind"], "mail_google");
    let unlimited = with(json!({"kind": "unlimited", "provider_account_id": "c"}));
    let made = api.post("/v1/accounts", unlimited).await.ok(201);
    assert!(made.get("limits").is_none() && made.get("warnings").is_none(), "{made}");
    let both = with(json!({"kind": "unlimited", "limits": {}, "provider_account_id": "d"}));
    api.post("/v1/accounts", both).await.problem(422, "invalid_fields");
    let campaign = api.post("/v1/campaigns", json!({"name": "c", "flow": flow()})).await.ok(201);
    let path = format!("/v1/campaigns/{}", campaign["id"].as_str().unwrap());
    assert_eq!(api.get(&path).await.ok(200)["priority"], 0);
    assert_eq!(api.patch(&path, json!({"priority": 7})).await.ok(200)["priority"], 7);
    assert_eq!(api.get(&path).await.ok(200)["priority"], 7);
    api.patch(&path, json!({"priority": 1000})).await.problem(422, "invalid_fields");
}
