//! Facts in any order, any number of times: each moves an execution once, and what is known in the end is the same.

use std::time::Duration;

use campaignd::domain::account::Channel;
use campaignd::domain::execution::Status;
use campaignd::domain::id::{ExecutionId, InboxId};
use campaignd::store::inbox::{self, NewInbox};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fake::{Act, Rig, WORKSPACE};

/// What happens to everybody, by the number of the person: names are those of the fake provider's receipts.
fn facts(n: usize) -> [Value; 4] {
    let chat = format!("chat-P{n}");
    let seen = |event: &str| json!({"event": event, "account_id": "wa", "account_type": "WHATSAPP", "chat_id": chat, "is_sender": true});
    [
        json!({"event": "new_relation", "account_id": "wa", "user_provider_id": format!("ACo-P{n}")}),
        json!({"event": "message_received", "account_id": "wa", "account_type": "WHATSAPP", "chat_id": chat,
            "message": "hello", "is_sender": false, "sender": {"attendee_provider_id": "somebody"}}),
        seen("message_delivered"),
        seen("message_read"),
    ]
}

/// Every order of four things.
fn orders() -> Vec<[usize; 4]> {
    let all = (0..256).map(|n| [n & 3, n >> 2 & 3, n >> 4 & 3, n >> 6 & 3]);
    all.filter(|o| (0..4).all(|i| o.contains(&i))).collect()
}

pub(crate) async fn store(rig: &Rig, body: &Value) {
    store_as(rig, InboxId(Uuid::now_v7()), body).await;
}

async fn store_as(rig: &Rig, id: InboxId, body: &Value) -> NewInbox {
    let new = NewInbox {
        workspace: WORKSPACE,
        id,
        source: "unipile".to_owned(),
        // As if it had come so late that nobody remembers it was here before.
        dedupe_key: Uuid::now_v7().to_string(),
        headers: None,
        body: body.to_string().into_bytes(),
        received_at: rig.clock.now(),
        shard: None,
    };
    inbox::store(&rig.pool, &new).await.unwrap();
    new
}

#[tokio::test]
async fn facts_in_any_order_and_twice_come_to_the_same() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Whatsapp, "wa").await;
    let flow = json!({"schema_version": 1, "stop_on": [], "steps": [
        {"id": "one", "action": "send_whatsapp", "message": "one", "delay": "300h"},
        {"id": "two", "action": "send_whatsapp", "message": "two"}]});
    let campaign = rig.campaign(&flow).await;
    let orders = orders();
    assert_eq!(orders.len(), 24);
    let ids: Vec<ExecutionId> = rig.prospects(campaign, 24).await;
    rig.start().await;
    for id in &ids {
        rig.until(*id, "written to", |e| e.whatsapp.sent_count == 1 && e.status == Status::Pending).await;
    }
    // One fact of everybody's order at a time, each twice: then everything once more.
    for place in [0, 1, 2, 3, 3, 2, 1, 0] {
        for (n, order) in orders.iter().enumerate() {
            let fact = &facts(n + 1)[order[place]];
            store(&rig, fact).await;
            store(&rig, fact).await;
        }
        rig.handle().inbox();
        rig.until_true("SELECT NOT EXISTS (SELECT FROM inbox WHERE status = 'received')").await;
    }
    let outcomes: bool = rig.one("SELECT bool_and(status = 'applied') FROM inbox").await;
    assert!(outcomes, "every fact found its person");
    for (id, order) in ids.iter().zip(&orders) {
        let e = rig.execution(*id).await;
        assert!(e.is_connected() && e.whatsapp.replied && e.whatsapp.read && e.whatsapp.delivered);
        assert_eq!((e.status, e.current_step, e.whatsapp.sent_count), (Status::Pending, 2, 1), "nothing else moved");
        let told: Vec<String> = sqlx::query_scalar(
            "SELECT trigger FROM transitions WHERE execution_id = $1 AND trigger <> ALL(ARRAY['due', 'send_finished']) \
             ORDER BY version",
        )
        .bind(id.0)
        .fetch_all(&rig.db.pool)
        .await
        .unwrap();
        // In the order they came in; that something arrived is no news once it was read.
        let names = ["connection_accepted", "reply", "message_delivered", "message_read"];
        let read_at = order.iter().position(|fact| *fact == 3);
        let expected: Vec<&str> = order
            .iter()
            .enumerate()
            .filter(|(at, fact)| **fact != 2 || Some(*at) < read_at)
            .map(|(_, fact)| names[*fact])
            .collect();
        assert_eq!(told, expected, "{order:?}");
    }
    assert!(rig.stop().await);
}

#[tokio::test]
async fn nobody_is_written_to_while_a_fact_is_taken_in_that_may_be_their_answer() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Whatsapp, "wa").await;
    let flow = json!({"schema_version": 1, "steps": [
        {"id": "one", "action": "send_whatsapp", "message": "one", "delay": "1h"},
        {"id": "two", "action": "send_whatsapp", "message": "two"}]});
    let campaign = rig.campaign(&flow).await;
    let people = rig.prospects(campaign, 2).await;
    rig.start().await;
    rig.fake.until_calls(2).await;
    for id in &people {
        rig.until(*id, "written to", |e| e.whatsapp.sent_count == 1 && e.status == Status::Pending).await;
    }
    // Somebody answers; while that is being stored, everybody's next message comes due.
    let answer = InboxId(Uuid::now_v7());
    let fact = rig.handle().new_fact(WORKSPACE, answer);
    rig.clock.advance(Duration::from_secs(3600));
    for id in &people {
        rig.until(*id, "its message is decided", |e| e.status == Status::Executing).await;
    }
    let answer = store_as(&rig, answer, &facts(1)[1]).await;
    assert_eq!(rig.fake.calls().len(), 2);
    fact.stored(answer);
    rig.until_all_final().await;
    let ends: Vec<Status> = [rig.execution(people[0]).await, rig.execution(people[1]).await].map(|e| e.status).into();
    assert_eq!(ends, [Status::Completed; 2]);
    assert_eq!(rig.fake.calls().len(), 3, "who has answered is not written to again, the other is");
    assert_eq!(rig.one::<i64>("SELECT count(*) FROM sends WHERE status = 'cancelled'").await, 1);
    assert!(rig.stop().await);
}

#[tokio::test]
async fn the_echo_of_a_send_whose_outcome_was_lost_pauses_nobody_in_another_campaign() {
    let mut rig = Rig::manual().await;
    rig.account(Channel::Whatsapp, "wa").await;
    let flow = |text: &str| {
        json!({"schema_version": 1, "stop_on": [], "steps": [
            {"id": "one", "action": "send_whatsapp", "message": text, "delay": "300h"},
            {"id": "two", "action": "send_whatsapp", "message": "two"}]})
    };
    let known = rig.campaign(&flow("one")).await;
    let other = rig.campaign(&flow("first of the other")).await;
    let before = rig.prospects(known, 1).await[0];
    rig.start().await;
    rig.until(before, "written to", |e| e.whatsapp.sent_count == 1).await;
    // The same person, to whom another campaign now writes the first time; what became of that is lost.
    rig.fake.script(|_, _| Act::UnknownAfter);
    let same = rig.prospects(other, 1).await[0];
    rig.db.script("UPDATE campaign_prospects SET phone = '+49301001'").await.unwrap();
    rig.handle().arrivals();
    rig.until_true("SELECT bool_or(status = 'unknown') FROM sends").await;
    let send: Uuid = rig.one("SELECT id FROM sends WHERE status = 'unknown'").await;
    let own = |id: &str, text: &str| {
        json!({"event": "message_received", "account_id": "wa", "account_type": "WHATSAPP", "chat_id": "chat-P1",
            "message_id": id, "message": text, "is_sender": true})
    };
    // As the provider has changed it, only its id tells; which the outcome brings.
    store(&rig, &own(&format!("message-{send}"), "a link instead")).await;
    rig.handle().inbox();
    rig.advance_until(Duration::from_secs(1), "it is known as ours", async || {
        rig.one::<bool>("SELECT bool_and(status = 'ignored' AND outcome LIKE '%echo%') FROM inbox").await
    })
    .await;
    // By its text it is known under any name.
    store(&rig, &own("nobody-knows", "First of the other!")).await;
    rig.handle().inbox();
    rig.until_true("SELECT bool_and(status = 'ignored' AND outcome LIKE '%echo%') FROM inbox").await;
    for id in [before, same] {
        assert_eq!(rig.execution(id).await.status, Status::Pending);
    }
    // And what neither campaign has said was typed by hand.
    store(&rig, &own("typed", "let us talk on the phone")).await;
    rig.handle().inbox();
    rig.until(before, "taken over", |e| e.status == Status::Paused).await;
    assert!(rig.stop().await);
}
