//! Who is not written to: the list through the API, uploads, facts that put people on it, and what a claim asks.

use axum::body::Body;
use campaignd::domain::id::ProspectId;
use campaignd::domain::suppression::{Key, Kind, Reason};
use campaignd::domain::trigger::Trigger;
use campaignd::store::suppression::{self, New};
use campaignd::store::{execution, prospect};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::client::{Api, WORKSPACE};

async fn values(api: &Api, query: &str) -> Vec<(String, String, String)> {
    let page = api.get(&format!("/v1/suppressions{query}")).await.ok(200);
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_owned();
    let entries = page["suppressions"].as_array().unwrap();
    entries.iter().map(|e| (text(e, "kind"), text(e, "value"), text(e, "reason"))).collect()
}

fn entry(kind: &str, value: &str, reason: &str) -> (String, String, String) {
    (kind.to_owned(), value.to_owned(), reason.to_owned())
}

async fn add(api: &Api, value: &str) -> Value {
    api.post("/v1/suppressions", json!({"value": value})).await.body
}

#[tokio::test]
async fn the_list_is_added_to_once_read_in_pages_and_taken_from() {
    let api = Api::new().await;
    let first = api.post("/v1/suppressions", json!({"value": " Ada@Example.ORG", "reason": "complaint"})).await.ok(201);
    assert_eq!((&first["added"], &first["known"]), (&json!(1), &json!(0)));
    let again = api.post("/v1/suppressions", json!({"value": "ada@example.org"})).await.ok(200);
    assert_eq!((&again["added"], &again["known"]), (&json!(0), &json!(1)));
    let csv = "email,linkedin,note\nbob@example.org,linkedin.com/in/Bob,x\nnobody,,\nbob@example.org,,\n";
    let report = api.call_as(&api.key, "POST", "/v1/suppressions", "text/csv", csv).await.ok(201);
    assert_eq!((&report["added"], &report["known"]), (&json!(2), &json!(1)), "{report}");
    assert_eq!((&report["rejected"][0]["line"], &report["rejected"][0]["column"]), (&json!(3), &json!("email")));
    add(&api, "@competitor.example").await;
    add(&api, "0049 30 123456").await;

    let all = values(&api, "").await;
    assert_eq!(all[0], entry("phone", "4930123456", "manual"));
    assert_eq!(all.len(), 5);
    let page = api.get("/v1/suppressions?limit=2").await.ok(200);
    let next = page["next_cursor"].as_str().unwrap();
    assert_eq!(values(&api, &format!("?limit=3&cursor={next}")).await, all[2..]);
    assert_eq!(values(&api, "?kind=domain").await, [entry("domain", "competitor.example", "manual")]);
    assert_eq!(values(&api, "?reason=complaint").await, [entry("address", "ada@example.org", "complaint")]);
    assert_eq!(values(&api, "?value=ADA@example.org").await, [entry("address", "ada@example.org", "complaint")]);
    for bad in ["?kind=fax", "?reason=bored", "?value=ada", "?limit=0", "?cursor=x", "?colour=red"] {
        api.get(&format!("/v1/suppressions{bad}")).await.problem(400, "invalid_query");
    }
    let stranger = api.stranger().await;
    let theirs = api.call_as(&stranger, "GET", "/v1/suppressions", "", Body::empty()).await.ok(200);
    assert_eq!(theirs["suppressions"], json!([]));

    let id = page["suppressions"][0]["id"].as_str().unwrap();
    let path = format!("/v1/suppressions/{id}");
    api.call_as(&stranger, "DELETE", &path, "", Body::empty()).await.problem(404, "not_found");
    api.call_as(&api.key, "DELETE", &path, "", Body::empty()).await.ok(200);
    api.call_as(&api.key, "DELETE", &path, "", Body::empty()).await.problem(404, "not_found");
    assert_eq!(values(&api, "").await, all[1..]);
    let rows = "a@b.co\n".repeat(10_001);
    api.call_as(&api.key, "POST", "/v1/suppressions", "text/csv", rows).await.problem(413, "too_many_rows");
    api.call_as(&api.key, "POST", "/v1/suppressions", "text/plain", "x").await.problem(415, "unsupported_media_type");
}

#[tokio::test]
async fn an_upload_says_who_is_suppressed_and_takes_none_of_them() {
    let api = Api::new().await;
    for value in ["ada@example.org", "@competitor.example", "https://www.linkedin.com/in/Carl", "+49 30 123456"] {
        add(&api, value).await;
    }
    for value in ["bounced@example.org", "elsewhere@example.org"] {
        api.post("/v1/suppressions", json!({"value": value, "reason": "hard_bounce"})).await.ok(201);
    }
    let campaign = api.campaign().await;
    let people = "first_name,email,linkedin,phone\n\
        Ada,ADA@example.org,,\n\
        Ben,ben@competitor.example,,\n\
        Cat,cat@notcompetitor.example,,\n\
        Carl,,http://linkedin.com/in/carl/,\n\
        Dan,,,004930123456\n\
        Eva,bounced@example.org,,\n\
        Fay,elsewhere@example.org,linkedin.com/in/fay,\n";
    let report = api.csv(&campaign, people).await.ok(201);
    assert_eq!(report["accepted"], 2, "{report}");
    assert_eq!(
        report["suppressed"],
        json!([
            {"line": 2, "key": "email", "reason": "manual"},
            {"line": 3, "key": "domain", "reason": "manual"},
            {"line": 5, "key": "linkedin_url", "reason": "manual"},
            {"line": 6, "key": "phone", "reason": "manual"},
            {"line": 7, "key": "email", "reason": "hard_bounce"},
        ])
    );
    assert_eq!(api.count("SELECT count(*) FROM campaign_prospects").await, 2);
    assert_eq!(api.count("SELECT count(*) FROM campaign_prospect_execution_state").await, 2);
    // Another workspace's list is not ours.
    let stranger = api.stranger().await;
    let all = json!([{"value": "zoe@example.org"}]).to_string();
    api.call_as(&stranger, "POST", "/v1/suppressions", "application/json", all).await.ok(201);
    let report = api.csv(&campaign, "first_name,email\nZoe,zoe@example.org\n").await.ok(201);
    assert_eq!(report["accepted"], 1);
}

#[tokio::test]
async fn whoever_unsubscribes_is_on_the_list_and_is_not_restarted_until_they_are_off_it() {
    let api = Api::new().await;
    let campaign = api.campaign().await;
    let id = api.prospect(&campaign).await;
    let answer = api.post("/v1/triggers", json!({"prospect_id": id, "trigger": "unsubscribe"})).await.ok(200);
    assert_eq!(answer["applied"], true);
    assert_eq!(
        values(&api, "").await.into_iter().collect::<std::collections::BTreeSet<_>>(),
        [entry("address", "ada@example.com", "unsubscribed"), entry("profile", "ada", "unsubscribed")].into()
    );
    let restart = format!("/v1/prospects/{id}/restart");
    let refused = api.post(&restart, json!({"step": 1})).await.problem(409, "suppressed");
    assert_eq!(refused["reason"], "unsubscribed");
    let other = api.campaign().await;
    let report = api.csv(&other, "email\nada@example.com\n").await.ok(200);
    assert_eq!(report["suppressed"][0]["reason"], "unsubscribed");
    let listed = api.get("/v1/suppressions").await.ok(200);
    for entry in listed["suppressions"].as_array().unwrap() {
        assert_eq!((&entry["prospect_id"], &entry["campaign_id"]), (&json!(id), &json!(campaign)));
        let path = format!("/v1/suppressions/{}", entry["id"].as_str().unwrap());
        api.call_as(&api.key, "DELETE", &path, "", Body::empty()).await.ok(200);
    }
    api.post(&restart, json!({"step": 1})).await.ok(200);
    // Nothing is left to be moved the second time, and they are on the list all the same.
    api.post(&format!("/v1/prospects/{id}/stop"), json!({})).await.ok(200);
    let late = api.post("/v1/triggers", json!({"prospect_id": id, "trigger": "unsubscribe"})).await.ok(200);
    assert_eq!((&late["applied"], &late["reason"]), (&json!(false), &json!("already_final")));
    assert_eq!(values(&api, "?reason=unsubscribed").await.len(), 2);
}

#[tokio::test]
async fn a_hard_bounce_keeps_mail_away_and_nothing_else_and_a_soft_one_nothing() {
    let api = Api::new().await;
    let campaign = api.campaign().await;
    let id = api.prospect(&campaign).await;
    let bounce = |kind| json!({"prospect_id": id, "trigger": "bounce", "bounce": kind});
    api.post("/v1/triggers", bounce("soft")).await.ok(200);
    assert_eq!(values(&api, "").await, []);
    api.post("/v1/triggers", bounce("hard")).await.ok(200);
    assert_eq!(values(&api, "").await, [entry("address", "ada@example.com", "hard_bounce")]);
    api.post(&format!("/v1/prospects/{id}/restart"), json!({"step": 1})).await.ok(200);
    // Who then asks not to be written to at all is not held to have only bounced.
    api.post("/v1/triggers", json!({"prospect_id": id, "trigger": "unsubscribe"})).await.ok(200);
    assert_eq!(values(&api, "?kind=address").await, [entry("address", "ada@example.com", "unsubscribed")]);
}

#[tokio::test]
async fn a_suppressed_person_ends_as_suppressed_with_the_reason_in_the_timeline() {
    let api = Api::new().await;
    let campaign = api.campaign().await;
    let id = api.prospect(&campaign).await;
    let prospect: ProspectId = id.parse().unwrap();
    let execution = execution::of_prospect(&api.db.pool, WORKSPACE, prospect).await.unwrap().unwrap();
    let found = Trigger::Suppressed { reason: Reason::Complaint };
    api.app.runtime.deliver(execution, found).await.unwrap();
    let row = prospect::execution(&api.db.pool, WORKSPACE, prospect).await.unwrap().unwrap();
    assert_eq!((row.status.as_deref(), row.exit_reason.as_deref()), (Some("completed"), Some("suppressed")));
    let timeline = api.get(&format!("/v1/prospects/{id}/timeline")).await.ok(200);
    let last = timeline["entries"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["trigger"], &last["detail"]), (&json!("suppressed"), &json!({"reason": "complaint"})));
}

/// What `campaignd_suppressed` answers.
async fn asked(api: &Api, channel: &str, recipient: Value) -> Vec<String> {
    sqlx::query_scalar("SELECT * FROM campaignd_suppressed($1, $2, $3)")
        .bind(WORKSPACE.0)
        .bind(channel)
        .bind(recipient)
        .fetch_all(&api.db.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_claim_is_told_by_any_address_in_any_spelling_and_by_no_other() {
    let api = Api::new().await;
    for value in
        ["ada@example.org", "@competitor.example", "linkedin.com/in/Ada-L", "ACoAAAbCdEfGhIjKl", "+49 30 123456"]
    {
        add(&api, value).await;
    }
    api.post("/v1/suppressions", json!({"value": "gone@example.org", "reason": "hard_bounce"})).await.ok(201);
    for recipient in [
        json!({"email": " ADA@example.ORG"}),
        json!({"email": "x@COMPETITOR.example", "phone": null}),
        json!({"email": "x@Mail.competitor.example"}),
        json!({"email": "x@a.b.c.d.e.f.g.competitor.example"}),
        json!({"linkedin": "https://de.linkedin.com/in/ada-l/?x=1"}),
        json!({"linkedin": "ADA-L"}),
        json!({"recipient_id": "ACoAAAbCdEfGhIjKl"}),
        json!({"phone": "0049 (30) 123456"}),
    ] {
        assert_eq!(asked(&api, "linkedin", recipient.clone()).await, ["manual"], "{recipient}");
    }
    for recipient in [
        json!({}),
        json!({"email": "", "linkedin": "", "phone": ""}),
        json!({"email": "bob@example.org", "linkedin": "bob", "phone": "+4930"}),
        json!({"email": "x@notcompetitor.example"}),
        json!({"email": "x@a.b.c.d.e.f.notcompetitor.example"}),
        json!({"email": "x@competitor.example.org"}),
        json!({"email": "x@example"}),
        json!({"email": "competitor.example"}),
        json!({"recipient_id": "acoaaabcdefghijkl"}),
    ] {
        // An address without an @ is its own domain for the look-up; nobody can be mailed there.
        if recipient["email"] != "competitor.example" {
            assert_eq!(asked(&api, "email", recipient.clone()).await, [""; 0], "{recipient}");
        }
    }
    assert_eq!(asked(&api, "email", json!({"email": "gone@example.org"})).await, ["hard_bounce"]);
    assert_eq!(asked(&api, "linkedin", json!({"email": "gone@example.org"})).await, [""; 0]);
    let both = asked(&api, "email", json!({"email": "ada@competitor.example", "linkedin": "ada-l"})).await;
    assert_eq!(both, ["manual", "manual"], "one row an entry");
}

#[tokio::test]
async fn what_the_program_and_the_database_make_of_a_value_is_the_same() {
    let api = Api::new().await;
    for (kind, text) in [
        (Kind::Address, "Ada@Example.org"),
        (Kind::Domain, "Example.org"),
        (Kind::Profile, "https://www.linkedin.com/in/Ada-L/"),
        (Kind::Profile, "ACoAAAbCdEfGhIjKl"),
        (Kind::Profile, "zo%C3%AB-k"),
        (Kind::Phone, "+49 (30) 123-456"),
        (Kind::Phone, "0049 30 123456"),
    ] {
        let key = Key::parse(Some(kind), text).unwrap();
        for given in [text, key.value()] {
            let stored: Option<String> = sqlx::query_scalar("SELECT campaignd_suppression_value($1, $2)")
                .bind(kind.as_str())
                .bind(given)
                .fetch_one(&api.db.pool)
                .await
                .unwrap();
            assert_eq!(stored.as_deref(), Some(key.value()), "{kind} {given}");
        }
    }
}

/// The look-ups of a claim: one probe by all values, taken apart where it stands.
#[tokio::test]
async fn a_claim_looks_everything_up_by_its_value_in_one_probe() {
    let api = Api::new().await;
    let keys: Vec<New> = (0..2000)
        .map(|n| New {
            key: Key::parse(None, &format!("person{n}@example.org")).unwrap(),
            reason: Reason::Manual,
            campaign: None,
            prospect: None,
        })
        .collect();
    assert_eq!(suppression::add(&api.db.pool, WORKSPACE, &keys, api.app.clock.now()).await.unwrap(), 2000);
    let ask = "SELECT w.n, EXISTS (SELECT FROM campaignd_suppressed(w.workspace, 'email', w.recipient)) \
        FROM (SELECT n, '00000000-0000-7000-8000-000000000001'::uuid AS workspace, jsonb_build_object('email', \
            'person' || n || '@example.org', 'linkedin', 'https://www.linkedin.com/in/p' || n, 'phone', '+4930' || n) AS recipient \
            FROM generate_series(1500, 2499) AS n OFFSET 0) w";
    let rows: Vec<(i32, bool)> = sqlx::query_as(ask).fetch_all(&api.db.pool).await.unwrap();
    assert_eq!(rows.iter().filter(|(_, suppressed)| *suppressed).count(), 500);
    // As the engine plans it, whose claims ask.
    let engine = campaignd::store::connect_engine(&api.db.url, 1).await.unwrap();
    let plan: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!("EXPLAIN (ANALYZE, BUFFERS) {ask}")))
        .fetch_all(&engine)
        .await
        .unwrap();
    let plan = plan.join("\n");
    println!("{plan}");
    assert!(!plan.contains("Function Scan on campaignd_suppressed"), "not taken apart:\n{plan}");
    assert!(plan.contains("suppressions_value"), "{plan}");
    assert!(!plan.contains("Seq Scan on suppressions"), "{plan}");
}

#[tokio::test]
async fn people_who_said_so_before_there_was_a_list_are_on_it_after_the_migration() {
    let api = Api::new().await;
    let campaign = api.campaign().await;
    let people = "first_name,email,linkedin\nAda,Ada@example.org,linkedin.com/in/Ada\nBob,bob@example.org,linkedin.com/in/bob\n\
        Cy,cy@example.org,\n";
    let ids = api.csv(&campaign, people).await.ok(201)["prospect_ids"].clone();
    let ended = |n: usize, reason: &str| {
        let id = ids[n].as_str().unwrap().to_owned();
        format!("UPDATE campaign_prospect_execution_state SET exit_reason = '{reason}' WHERE prospect_id = '{id}';")
    };
    // As it was one migration ago.
    let before =
        "DROP FUNCTION campaignd_suppressed; DROP FUNCTION campaignd_suppression_value; DROP INDEX sends_parked;
        DROP FUNCTION campaignd_domains; DROP FUNCTION campaignd_domains_of_any; DROP INDEX sends_time;
        DROP TABLE suppressions, link_secrets; DELETE FROM campaignd_migrations WHERE version IN (6, 10);";
    let script = [before, &ended(0, "unsubscribed"), &ended(1, "bounced"), &ended(2, "replied")].concat();
    api.db.script(script).await.unwrap();
    let report = campaignd::store::migrate::migrate(&api.db.pool).await.unwrap();
    assert_eq!(report.applied, ["6 suppressions", "10 look ups"]);
    let on_it: std::collections::BTreeSet<_> = values(&api, "").await.into_iter().collect();
    let expected = [
        entry("address", "ada@example.org", "unsubscribed"),
        entry("address", "bob@example.org", "hard_bounce"),
        entry("profile", "ada", "unsubscribed"),
    ];
    assert_eq!(on_it, expected.into());
}

#[tokio::test]
async fn a_domain_covers_the_domains_below_it_also_for_uploads_and_restarts() {
    let api = Api::new().await;
    let campaign = api.campaign().await;
    let people = "first_name,email\nAda,ada@mail.example.com\nBob,bob@notexample.com\n";
    let ids = api.csv(&campaign, people).await.ok(201)["prospect_ids"].clone();
    add(&api, "@example.com").await;
    let more = "first_name,email\nCy,cy@EU.mail.example.com\nDi,di@example.com.org\n";
    let report = api.csv(&campaign, more).await.ok(201);
    assert_eq!(report["accepted"], 1, "{report}");
    assert_eq!(report["suppressed"], json!([{"line": 2, "key": "domain", "reason": "manual"}]));
    for (n, covered) in [(0, true), (1, false)] {
        let path = format!("/v1/prospects/{}/restart", ids[n].as_str().unwrap());
        let answer = api.post(&path, json!({"step": 1})).await;
        assert_eq!(answer.body["code"] == "suppressed", covered, "{}", answer.body);
    }
}
