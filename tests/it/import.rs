//! Uploads of prospects.

use axum::body::Body;
use campaignd::clock::Clock;
use campaignd::domain::id::CampaignId;
use campaignd::service::DEFAULT_WORKSPACE;
use campaignd::store;
use campaignd::store::lease::{Lease, LeaseView, TTL};
use campaignd::store::upload::{self, Keys, New, Taken};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::Api;
use crate::harness::Db;

#[tokio::test]
async fn bad_rows_are_reported_by_line_and_the_good_ones_taken() {
    let api = Api::new().await;
    let campaign = api.campaign().await;
    let csv = "\u{feff}First Name;LinkedIn URL;E-Mail;Seats\r\n\
        Ada;https://www.linkedin.com/in/ada/;ada@example.com;5\r\n\
        Bob;https://www.linkedin.com/company/bob;bob@example.com;\r\n\
        Cleo;;cleo@;\r\n\
        Nobody;;;\r\n\
        Dan;linkedin.com/in/dan;;\r\n\
        Ada again;;ADA@example.com;\r\n";
    let report = api.csv(&campaign, csv).await.ok(201);
    assert_eq!(report["accepted"], 2);
    let rejected: Vec<(u64, Option<&str>)> = report["rejected"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (r["line"].as_u64().unwrap(), r["column"].as_str()))
        .collect();
    assert_eq!(rejected, [(3, Some("LinkedIn URL")), (4, Some("E-Mail")), (5, None)]);
    assert_eq!(report["duplicates"], json!([{"line": 7, "of": "line 2", "key": "email"}]));
    assert_eq!(report["warnings"].as_array().unwrap().len(), 1, "{report}");

    let ids = report["prospect_ids"].as_array().unwrap();
    let shown = api.get(&format!("/v1/prospects/{}", ids[0].as_str().unwrap())).await.ok(200);
    assert_eq!(shown["linkedin_url"], "https://www.linkedin.com/in/ada");
    assert_eq!(shown["data"], json!({"seats": "5"}));
    let execution = &shown["execution"];
    assert_eq!((&execution["status"], &execution["current_step"]), (&json!("pending"), &json!(1)));
    assert_eq!((&execution["flow_version"], &execution["completed_steps"]), (&json!(1), &json!([])));
    assert!(execution["next_execution_at"].is_string());
}

#[tokio::test]
async fn people_who_are_in_the_campaign_already_are_named() {
    let api = Api::new().await;
    let campaign = api.campaign().await;
    let first = api
        .csv(&campaign, "email,linkedin,phone\nada@example.com,linkedin.com/in/Ada,\n,,+49 30 1234567\n")
        .await
        .ok(201);
    let (ada, phone) = (&first["prospect_ids"][0], &first["prospect_ids"][1]);
    let again = api
        .post(
            &format!("/v1/campaigns/{campaign}/prospects"),
            json!({"prospects": [
                {"email": "Ada@Example.com"}, {"linkedin": "https://de.linkedin.com/in/ada?x=1"},
                {"phone": "0049301234567"}, {"phone": 1_234_567}]}),
        )
        .await
        .ok(201);
    assert_eq!(again["accepted"], 1);
    assert_eq!(
        again["duplicates"],
        json!([{"line": 0, "of": ada, "key": "email"}, {"line": 1, "of": ada, "key": "linkedin_url"},
               {"line": 2, "of": phone, "key": "phone"}])
    );
    let nobody = api.csv(&campaign, "email\nada@example.com\n").await.ok(200);
    assert_eq!((&nobody["accepted"], &nobody["prospect_ids"]), (&json!(0), &json!([])));

    let other = api.campaign().await;
    assert_eq!(
        api.csv(&other, "email\nada@example.com\n").await.ok(201)["accepted"],
        1,
        "another campaign may have her too"
    );
    let unstarted = "SELECT count(*) FROM campaign_prospect_execution_state";
    assert_eq!(api.count(unstarted).await, 4);
}

#[tokio::test]
async fn ten_thousand_rows_go_in_at_once_and_are_listed_in_their_order() {
    let api = Api::new().await;
    let campaign = api.campaign().await;
    let rows: String = (0..10_000).map(|n| format!("Ada {n},ada{n}@example.com,{}\n", "x".repeat(150))).collect();
    let csv = format!("first_name,email,note\n{rows}");
    assert!(csv.len() > 1 << 20, "more than other routes take");
    let report = api.csv(&campaign, csv.clone()).await.ok(201);
    assert_eq!((&report["accepted"], &report["rejected"]), (&json!(10_000), &json!([])));
    let executions = "SELECT count(*) FROM campaign_prospect_execution_state e JOIN campaign_prospects p ON p.id = e.prospect_id \
        WHERE e.status = 'pending' AND e.flow_version = 1 AND e.workspace_id = p.workspace_id";
    assert_eq!(api.count(executions).await, 10_000);
    assert_eq!(api.csv(&campaign, csv).await.ok(200)["duplicates"].as_array().unwrap().len(), 10_000);

    let page = |query: String| {
        let (api, campaign) = (&api, &campaign);
        async move { api.get(&format!("/v1/campaigns/{campaign}/prospects?{query}")).await.ok(200) }
    };
    let first = page("limit=500&status=pending".to_owned()).await;
    let second = page(format!("limit=500&cursor={}", first["next_cursor"].as_str().unwrap())).await;
    let names = |page: &Value| -> Vec<String> {
        page["prospects"].as_array().unwrap().iter().map(|p| p["first_name"].as_str().unwrap().to_owned()).collect()
    };
    let read: Vec<String> = names(&first).into_iter().chain(names(&second)).collect();
    assert_eq!(read, (0..1000).map(|n| format!("Ada {n}")).collect::<Vec<_>>());
    assert_eq!(page("status=failed".to_owned()).await["prospects"], json!([]));
    let counts = api.get(&format!("/v1/campaigns/{campaign}")).await.ok(200);
    assert_eq!(counts["prospects"]["by_status"], json!({"pending": 10_000}));
}

#[tokio::test]
async fn uploads_that_cannot_be_read_are_refused_as_a_whole() {
    let api = Api::new().await;
    let campaign = api.campaign().await;
    let many = format!("phone\n{}", (0..10_001).map(|n| format!("{}\n", 1_000_000 + n)).collect::<String>());
    api.csv(&campaign, many).await.problem(413, "too_many_rows");
    api.csv(&campaign, vec![b'x'; (25 << 20) + 1]).await.problem(413, "body_too_large");
    assert_eq!(
        api.csv(&campaign, &b"email\nada@example.com\n\xff@example.com\n"[..]).await.problem(422, "not_utf8")["line"],
        3
    );
    api.csv(&campaign, "name,age\nAda,36\n").await.problem(422, "no_contact_column");
    api.csv(&campaign, "").await.problem(422, "empty_file");
    let path = format!("/v1/campaigns/{campaign}/prospects");
    api.call_as(&api.key, "POST", &path, "application/xml", "<x/>").await.problem(415, "unsupported_media_type");
    api.post(&path, json!({"people": []})).await.problem(400, "invalid_json");
    api.call_as(&api.key, "POST", &path, "application/json", Body::from("[{")).await.problem(400, "invalid_json");
    assert_eq!(api.count("SELECT count(*) FROM campaign_prospects").await, 0);
}

#[tokio::test]
async fn two_uploads_of_the_same_people_at_once_take_each_person_once() {
    let api = Api::new().await;
    let campaign = api.campaign().await;
    let csv: String =
        std::iter::once("email\n".to_owned()).chain((0..500).map(|n| format!("ada{n}@example.com\n"))).collect();
    let (a, b, c) =
        tokio::join!(api.csv(&campaign, csv.clone()), api.csv(&campaign, csv.clone()), api.csv(&campaign, csv.clone()));
    let accepted: u64 = [a, b, c].iter().map(|r| r.body["accepted"].as_u64().unwrap()).sum();
    assert_eq!(accepted, 500);
    assert_eq!(api.count("SELECT count(*) FROM campaign_prospects").await, 500);
}

#[tokio::test]
async fn uploads_of_two_processes_take_each_person_once() {
    let db = Db::new().await;
    let pool = store::connect(&db.url, 4).await.unwrap();
    let campaign: Uuid =
        sqlx::query_scalar("INSERT INTO campaigns (name) VALUES ('c') RETURNING id").fetch_one(&db.pool).await.unwrap();
    let lease = Lease::acquire(&pool, "test", TTL).await.unwrap();
    let people: Vec<New> = (0..2_000)
        .map(|n| {
            let email = Some(format!("ada{n}@example.com"));
            New { keys: Keys { email: email.clone(), ..Keys::default() }, email, ..New::default() }
        })
        .collect();
    let place = (DEFAULT_WORKSPACE, CampaignId(campaign));
    let now = Clock::System.now();
    // Who serves shares the campaign with itself, and with nobody else.
    let (ours, other) = (lease.view(), LeaseView::nobody());
    let (a, b) = tokio::join!(
        upload::import(&pool, &ours, place, Some(1), &people, now),
        upload::import(&pool, &other, place, Some(1), &people, now),
    );
    let taken = [a.unwrap(), b.unwrap()].concat();
    assert_eq!(taken.iter().filter(|t| matches!(t, Taken::New(_))).count(), 2_000);
    assert_eq!(taken.iter().filter(|t| matches!(t, Taken::Known { key: "email", .. })).count(), 2_000);
    lease.release().await.unwrap();
}
