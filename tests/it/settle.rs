//! Reading back what nobody knows about, while the account rests.

use std::time::Duration;

use campaignd::domain::account::Channel;
use serde_json::json;

use crate::fake::{Act, NOW, Read, Rig, hours, mails};

const SECOND: Duration = Duration::from_secs(1);

async fn count(rig: &Rig, what: &str) -> i64 {
    rig.one(&format!("SELECT count(*) FROM sends WHERE {what}")).await
}

#[tokio::test]
async fn a_read_back_does_not_wait_until_the_account_has_rested() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    rig.db.script("UPDATE accounts SET min_gap_ms = 86400000").await.unwrap();
    let campaign = rig.campaign(&mails(1)).await;
    rig.prospects(campaign, 2).await;
    let mut lost = false;
    rig.fake.script(move |_, _| if std::mem::replace(&mut lost, true) { Act::Ok } else { Act::UnknownAfter });
    // The first look fails. Until the next, a minute later, the other one is looked at and has the account rest until tomorrow.
    rig.fake.reads(|_, n| if n == 0 { Read::Error } else { Read::Ledger });
    rig.start().await;
    rig.fake.until_calls(1).await;
    rig.advance_until(SECOND, "read back", async || count(&rig, "status = 'sent'").await == 1).await;
    assert!(rig.clock.now() < NOW + hours(23), "the account rests for a day");
    assert_eq!((rig.fake.calls().len(), rig.fake.finds().len()), (1, 2));
    rig.clock.advance(hours(24));
    rig.until_all_final().await;
    assert_eq!(rig.fake.doubled(), []);
    assert_eq!(count(&rig, &format!("claimed_at >= '{}'", (NOW + hours(24)).to_utc())).await, 1);
    assert!(rig.stop().await);
}

#[tokio::test]
async fn a_read_back_goes_on_after_a_restart_though_the_account_rests() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    rig.db.script("UPDATE accounts SET min_gap_ms = 86400000").await.unwrap();
    let campaign = rig.campaign(&mails(1)).await;
    rig.prospects(campaign, 2).await;
    let mut lost = false;
    rig.fake.script(move |_, _| if std::mem::replace(&mut lost, true) { Act::Ok } else { Act::UnknownAfter });
    rig.fake.reads(|_, _| Read::Error);
    rig.start().await;
    rig.until_true("SELECT count(*) = 2 AND bool_or(status = 'unknown') FROM sends").await;
    rig.advance_until(SECOND, "read back once", async || !rig.fake.finds().is_empty()).await;
    assert!(rig.stop().await);
    let before = rig.fake.finds().len();
    rig.fake.reads(move |_, n| if n == before { Read::Error } else { Read::Ledger });
    rig.start().await;
    rig.advance_until(SECOND, "read back", async || count(&rig, "status = 'sent'").await == 1).await;
    assert!(rig.clock.now() < NOW + hours(23), "the account rests for a day");
    rig.clock.advance(hours(24));
    rig.until_all_final().await;
    assert_eq!(rig.fake.doubled(), []);
    assert!(rig.stop().await);
}

#[tokio::test]
async fn a_read_back_goes_on_after_working_hours_and_what_was_not_sent_waits_for_the_next_day() {
    let mut rig = Rig::manual().await;
    let account = rig.account(Channel::Whatsapp, "number").await;
    let limits = json!({"kind": "whatsapp", "spacing": {"min": "30s", "max": "30s"}, "warm_up": null,
        "timezone": "UTC",
        "window": {"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "from": "09:00", "to": "09:01"}});
    rig.limit(account, &limits).await;
    let campaign = rig
        .campaign(&json!({"schema_version": 1, "steps": [
            {"id": "hello", "action": "send_whatsapp", "message": "hello"}]}))
        .await;
    rig.prospects(campaign, 3).await;
    let mut lost = false;
    rig.fake.script(move |_, _| if std::mem::replace(&mut lost, true) { Act::Ok } else { Act::UnknownBefore });
    rig.start().await;
    rig.until_true("SELECT count(*) = 1 FROM sends WHERE status = 'unknown'").await;
    rig.clock.advance(SECOND * 30);
    rig.until_true("SELECT count(*) = 1 FROM sends WHERE status = 'sent'").await;
    // For the third it is too late. The first is read back for six minutes.
    rig.clock.advance(SECOND * 30);
    let settled = "status = 'pending' AND dispatch_count = 1";
    rig.advance_until(SECOND, "known not to be sent", async || count(&rig, settled).await == 1).await;
    assert!(rig.clock.now() < NOW + hours(3), "the account works again tomorrow");
    assert_eq!((rig.fake.calls().len(), rig.fake.finds().len()), (2, 3));
    rig.clock.advance(hours(24) - rig.clock.now().since(NOW));
    // At nine on each day from tomorrow on: how long it waits beside, its own back-off says.
    let all = async || count(&rig, "status = 'sent'").await == 3;
    rig.advance_until(hours(24), "the other two", all).await;
    assert_eq!(rig.fake.doubled(), []);
    let tomorrow = (NOW + hours(24)).to_utc();
    assert_eq!(count(&rig, &format!("claimed_at >= '{tomorrow}'")).await, 2);
    assert!(rig.stop().await);
}
