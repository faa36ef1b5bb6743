//! The sandbox's LinkedIn: invitations of both directions, what accounts may and may not, `InMail`, quotas.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::time::Duration;

use campaignd::sandbox::{LINKEDIN_ONE, MAIL_ONE, Quota};
use reqwest::Method;
use serde_json::{Value, json};

use crate::sandbox_rig::{Rig, answer, escaped, hours, next};

#[tokio::test]
async fn somebody_who_invites_us_is_listed_and_accepted_with_the_secret_of_the_invitation() {
    let rig = Rig::new().await;
    let mut relations = rig.listen("users", json!([]), 0).await;
    let path = format!("/api/v1/users/invite/received?account_id={LINKEDIN_ONE}");
    assert_eq!(rig.get(&path).await.1["items"], json!([]));
    for slug in ["ivy-inviter", "ned-nobody"] {
        let (status, body) =
            rig.post(&format!("/sandbox/people/{slug}/invite"), json!({ "text": "let us talk" })).await;
        assert_eq!(status, 200, "{body}");
    }
    let (_, list) = rig.get(&path).await;
    let (ned, ivy) = (&list["items"][0], &list["items"][1]);
    assert_eq!((&ivy["object"], &ivy["invitation_text"]), (&json!("InvitationReceived"), &json!("let us talk")));
    assert_eq!(ivy["inviter"]["inviter_public_identifier"], "ivy-inviter");
    let (_, profile) = rig.get(&format!("/api/v1/users/ivy-inviter?account_id={LINKEDIN_ONE}")).await;
    assert_eq!(profile["invitation"], json!({ "type": "RECEIVED", "status": "PENDING" }));

    let handle = |item: &Value, action: &str, secret: &Value| {
        let path = format!("/api/v1/users/invite/received/{}", item["id"].as_str().unwrap());
        let body =
            json!({ "provider": "LINKEDIN", "account_id": LINKEDIN_ONE, "action": action, "shared_secret": secret });
        answer(rig.ask(Method::POST, &path).json(&body))
    };
    assert_eq!(handle(ivy, "accept", &json!("guessed")).await.1["type"], "errors/invalid_parameters");
    assert_eq!(handle(ivy, "ponder", &ivy["specifics"]["shared_secret"]).await.1["type"], "errors/invalid_action");
    let done = handle(ivy, "accept", &ivy["specifics"]["shared_secret"]).await;
    assert_eq!(done, (200, json!({ "object": "UserInvitationHandled", "status": "ACCEPTED" })));
    let done = handle(ned, "decline", &ned["specifics"]["shared_secret"]).await;
    assert_eq!(done.1["status"], "DECLINED");
    assert_eq!(rig.get(&path).await.1["items"], json!([]));
    assert_eq!(handle(ned, "accept", &ned["specifics"]["shared_secret"]).await.0, 404);
    rig.clock.advance(hours(1));
    assert_eq!(next(&mut relations).await.1["user_public_identifier"], "ivy-inviter");
    let kinds: Vec<Value> = rig.ledger().await["items"].as_array().unwrap().iter().map(|e| e["kind"].clone()).collect();
    assert_eq!(kinds, ["accept_received", "decline_received"]);
}

#[tokio::test]
async fn a_free_account_writes_short_notes_and_no_inmail() {
    let rig = Rig::with(|o| o.accounts[0].premium = false).await;
    let (_, me) = rig.get(&format!("/api/v1/users/me?account_id={LINKEDIN_ONE}")).await;
    assert_eq!(me["premium"], false);
    let id = rig.provider_id("jane-never-accepts", LINKEDIN_ONE).await;
    let invite = |n: usize| json!({ "account_id": LINKEDIN_ONE, "provider_id": id, "message": "é".repeat(n) });
    assert_eq!(rig.post("/api/v1/users/invite", invite(201)).await.1["type"], "errors/too_many_characters");
    assert_eq!(rig.post("/api/v1/users/invite", invite(200)).await.0, 200);
    let (status, body) = rig.linkedin(&id, json!({ "linkedin": { "inmail": true } })).await;
    assert_eq!((status, &body["type"]), (403, &json!("errors/feature_not_subscribed")));
}

#[tokio::test]
async fn inmail_costs_a_credit_that_an_answer_gives_back_and_open_profiles_cost_nothing() {
    let rig = Rig::with(|o| o.inmail_credits = 1).await;
    let inmail = json!({ "linkedin[inmail]": "true", "subject": "Hello" });
    let mut sent = Vec::new();
    for slug in ["omar-open-profile", "nina-no-inmail", "pia-pays", "rob-refused"] {
        let id = rig.provider_id(slug, LINKEDIN_ONE).await;
        let (status, body) = rig.linkedin(&id, inmail.clone()).await;
        sent.push((status, body["type"].as_str().unwrap_or_default().to_owned()));
    }
    let refused = |kind: &str| (422, format!("errors/{kind}"));
    assert_eq!(
        sent,
        [(201, String::new()), refused("not_allowed_inmail"), (201, String::new()), refused("insufficient_credits")]
    );
    // Who was written to as a stranger has to answer before they can be written to again.
    let (_, chats) = rig.get(&format!("/api/v1/chats?account_id={LINKEDIN_ONE}&limit=1")).await;
    let chat = &chats["items"][0];
    assert_eq!((&chat["content_type"], &chat["subject"]), (&json!("inmail"), &json!("Hello")));
    let follow = || {
        let path = format!("/api/v1/chats/{}/messages", chat["id"].as_str().unwrap());
        rig.ask(Method::POST, &path).json(&json!({ "account_id": LINKEDIN_ONE, "text": "and?" }))
    };
    assert_eq!(answer(follow()).await.1["type"], "errors/no_connection_with_recipient");
    rig.act("pia-pays", "reply").await;
    assert_eq!(answer(follow()).await.0, 201);
    let rob = rig.provider_id("rob-refused", LINKEDIN_ONE).await;
    assert_eq!(rig.linkedin(&rob, inmail).await.0, 201, "the credit came back");
    let kinds: Vec<Value> = rig.ledger().await["items"].as_array().unwrap().iter().map(|e| e["kind"].clone()).collect();
    assert_eq!(kinds, ["inmail", "inmail", "message", "inmail"]);
}

#[tokio::test]
async fn a_declined_or_withdrawn_invitation_can_be_repeated_after_three_weeks() {
    let rig = Rig::new().await;
    let dan = rig.provider_id("dan-declines-never-accepts", LINKEDIN_ONE).await;
    assert_eq!(rig.invite(&dan).await.0, 200);
    rig.clock.advance(hours(25));
    let path = format!("/api/v1/users/{dan}?account_id={LINKEDIN_ONE}");
    assert_eq!(rig.get(&path).await.1["invitation"]["status"], "IGNORED");
    let sent = format!("/api/v1/users/invite/sent?account_id={LINKEDIN_ONE}");
    assert_eq!(rig.get(&sent).await.1["items"], json!([]));
    assert_eq!(rig.invite(&dan).await.1["type"], "errors/already_invited_recently");
    rig.clock.advance(hours(21 * 24));
    let (status, again) = rig.invite(&dan).await;
    assert_eq!(status, 200, "{again}");
    let id = again["invitation_id"].as_str().unwrap();
    assert!(id.len() == 19 && id.bytes().all(|b| b.is_ascii_digit()), "{id}");
}

#[tokio::test]
async fn people_who_ask_for_an_address_or_have_blocked_us_refuse_invitations() {
    let rig = Rig::new().await;
    let nora = rig.provider_id("nora-needs-email-never-accepts", LINKEDIN_ONE).await;
    assert_eq!(rig.invite(&nora).await.1["type"], "errors/unprocessable_entity");
    let body = json!({ "account_id": LINKEDIN_ONE, "provider_id": nora, "user_email": "nora@example.com" });
    assert_eq!(rig.post("/api/v1/users/invite", body).await.0, 200);
    assert_eq!(rig.ledger().await["items"][0]["user_email"], "nora@example.com");
    let bob = rig.provider_id("bob-blocked", LINKEDIN_ONE).await;
    assert_eq!(rig.invite(&bob).await.1["type"], "errors/blocked_recipient");
}

#[tokio::test]
async fn a_profile_visit_is_an_effect_only_when_the_person_is_told_of_it() {
    let rig = Rig::with(|o| o.quotas = vec![Quota::new(None, "profile", hours(24), 3)]).await;
    let path = format!("/api/v1/users/vera-visited?account_id={LINKEDIN_ONE}");
    assert_eq!(rig.get(&path).await.0, 200);
    assert_eq!(rig.ledger().await["count"], 0);
    assert_eq!(
        rig.get(&format!("{path}&notify=true&linkedin_sections=*")).await.1["throttled_sections"][0],
        "experience"
    );
    assert_eq!(rig.ledger().await["items"][0]["kind"], "visit");
    assert_eq!(rig.get(&format!("{path}&notify=perhaps")).await.0, 400);
    assert_eq!(rig.get(&format!("{path}&linkedin_api=recruiter")).await.1["type"], "errors/feature_not_subscribed");
    assert_eq!(rig.get(&path).await.0, 200);
    // Refused requests cost nothing; the fourth good one is too many, for a day.
    assert_eq!(rig.get(&path).await.1["type"], "errors/too_many_requests");
    rig.clock.advance(hours(24));
    assert_eq!(rig.get(&path).await.0, 200);
}

#[tokio::test]
async fn quotas_of_day_and_week_refuse_in_the_words_they_were_given() {
    let rig = Rig::new().await;
    let quotas = json!([
        { "action": "invite", "window": "1d", "limit": 2, "account_id": LINKEDIN_ONE },
        { "action": "invite", "window": "7d", "limit": 3, "status": 500, "type": "errors/provider_error" },
        { "action": "note", "window": "31d", "limit": 1 },
    ]);
    assert_eq!(rig.post("/sandbox/quotas", quotas).await.0, 200);
    let invite = async |n: usize, note: &str| {
        let id = rig.provider_id(&format!("person-{n}"), LINKEDIN_ONE).await;
        let body = json!({ "account_id": LINKEDIN_ONE, "provider_id": id, "message": note });
        let (status, body) = rig.post("/api/v1/users/invite", body).await;
        (status, body["usage"].as_u64(), body["type"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(invite(1, "a note").await, (200, Some(50), String::new()));
    assert_eq!(invite(2, "another").await, (422, None, "errors/cannot_resend_yet".to_owned()), "one note a month");
    assert_eq!(invite(2, "").await, (200, Some(95), String::new()));
    assert_eq!(invite(3, "").await, (422, None, "errors/cannot_resend_yet".to_owned()));
    rig.clock.advance(hours(24));
    assert_eq!(invite(3, "").await.0, 200);
    assert_eq!(invite(4, "").await, (500, None, "errors/provider_error".to_owned()));
    let (_, quotas) = rig.get("/sandbox/quotas").await;
    let refused: Vec<u64> =
        quotas["items"].as_array().unwrap().iter().map(|q| q["refused"].as_u64().unwrap()).collect();
    assert_eq!(refused, [1, 1, 1]);
    let (_, calls) = rig.get("/sandbox/calls").await;
    assert_eq!(calls["refused_count"], 3);
    assert_eq!((&calls["refused"][2]["status"], &calls["refused"][2]["fault"]), (&json!(500), &json!(false)));
    let unheard = json!({ "action": "poke", "window": "1d", "limit": 1 });
    assert_eq!(rig.post("/sandbox/quotas", unheard).await.0, 400);
}

#[tokio::test]
async fn relations_come_newest_first_in_pages_and_by_name() {
    let rig = Rig::new().await;
    for slug in ["ann-alpha", "ben-beta", "cleo-gamma"] {
        rig.related(slug).await;
        rig.clock.advance(Duration::from_secs(60));
    }
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap();
        items.iter().map(|r| r["public_identifier"].as_str().unwrap().to_owned()).collect()
    };
    let (_, first) = rig.get(&format!("/api/v1/users/relations?account_id={LINKEDIN_ONE}&limit=2")).await;
    assert_eq!(names(&first), ["cleo-gamma", "ben-beta"]);
    // The cursor carries the account and the limit; what stands beside it is not looked at.
    let cursor = escaped(&first["cursor"]);
    let (_, rest) = rig.get(&format!("/api/v1/users/relations?cursor={cursor}&limit=5000&account_id={MAIL_ONE}")).await;
    assert_eq!((names(&rest), &rest["cursor"]), (vec!["ann-alpha".to_owned()], &Value::Null));
    let (_, found) = rig.get(&format!("/api/v1/users/relations?account_id={LINKEDIN_ONE}&filter=Beta")).await;
    assert_eq!(names(&found), ["ben-beta"]);
    assert!(found["items"][0]["created_at"].as_i64().unwrap() > 1_790_000_000_000);
    assert_eq!(rig.get(&format!("/api/v1/users/relations?account_id={LINKEDIN_ONE}&limit=1001")).await.0, 400);
}

#[tokio::test]
async fn what_the_owner_types_in_the_app_is_told_as_ours_and_is_not_in_the_ledger() {
    let rig = Rig::new().await;
    rig.related("hana-held").await;
    let mut chats = rig.listen("messaging", json!([]), 0).await;
    let sent = rig.ledger().await["count"].clone();
    let (status, _) = rig.post("/sandbox/people/hana-held/by-hand", json!({ "text": "I write myself" })).await;
    assert_eq!(status, 200);
    let (_, told) = next(&mut chats).await;
    assert_eq!((&told["is_sender"], &told["message"]), (&json!(true), &json!("I write myself")));
    assert_eq!(rig.ledger().await["count"], sent);
    assert_eq!(rig.deeds("by_hand").await[0]["identity"], "hana-held");
    // By nature: some time after our first message, once.
    let id = rig.related("theo-by-hand-never-replies").await;
    assert_eq!(rig.linkedin(&id, json!({})).await.0, 201);
    assert_eq!(rig.linkedin(&id, json!({})).await.0, 201);
    rig.clock.advance(hours(7));
    assert_eq!(rig.deeds("by_hand").await.len(), 2);
}
