//! What people in line are told.

use campaignd::domain::account::Channel;
use serde_json::Value;

use crate::fake::{Rig, mails};
use crate::sends::Desk;

#[tokio::test]
async fn people_in_line_without_a_place_are_told_what_holds_the_account_that_they_wait_for() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Email, "box").await;
    let campaign = rig.campaign(&mails(1)).await;
    let gate = rig.fake.hold();
    let people = rig.prospects(campaign, 100).await;
    rig.start().await;
    rig.fake.until_calls(1).await;
    rig.wait("some stand in line", async || rig.handle().lined() > 0).await;
    rig.db.script("UPDATE accounts SET status_reason = 'the provider refuses our API key'").await.unwrap();
    let desk = Desk::over(&rig).await;
    let mut in_line = 0;
    for person in rig.executions(&people).await.iter().filter(|e| e.open_send.is_none()) {
        assert_eq!(person.accounts.email, None, "none was chosen for good");
        let (status, shown) = desk.call("GET", &format!("/v1/prospects/{}", person.prospect), Value::Null).await;
        let told = &shown["waiting_on"];
        assert_eq!((status, told["kind"].as_str()), (200, Some("account")), "{told}");
        let text = told["text"].as_str().unwrap();
        assert!(text.contains("waits in line at account 'box'") && text.contains("refuses our API key"), "{text}");
        in_line += 1;
    }
    assert!(in_line > 0);
    gate.add_permits(1000);
    rig.until_all_final().await;
    assert!(rig.stop().await);
}
