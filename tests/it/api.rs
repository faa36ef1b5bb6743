//! The HTTP API as a client meets it.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::Request;
use campaignd::http::{Options, Server};
use campaignd::store::api_key;
use serde_json::{Value, json};

use crate::client::{Api, WORKSPACE, flow, small};

fn bare(method: &str, path: &str) -> Request<Body> {
    Request::builder().method(method).uri(path).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn a_request_without_a_valid_key_is_refused() {
    let api = Api::new().await;
    let missing = api.send(bare("GET", "/v1/campaigns")).await;
    assert_eq!(missing.headers["www-authenticate"], "Bearer");
    missing.problem(401, "missing_api_key");

    let revoked = api_key::create(&api.db.pool, WORKSPACE, "old", api.app.clock.now()).await.unwrap();
    assert!(api_key::revoke(&api.db.pool, WORKSPACE, revoked.id(), api.app.clock.now()).await.unwrap());
    let wrong = format!("{}0", &api.key[..api.key.len() - 1]);
    let other = format!("{}1", &api.key[..api.key.len() - 1]);
    let mut details = BTreeSet::new();
    for key in ["", "x", "cmp_nobody_0000", &revoked.reveal(), if wrong == api.key { &other } else { &wrong }] {
        let problem = api.call_as(key, "GET", "/v1/campaigns", "", Body::empty()).await.problem(401, "invalid_api_key");
        details.insert(problem["detail"].to_string());
    }
    assert_eq!(details.len(), 1, "every wrong key gets the same answer");

    let basic = Request::get("/v1/campaigns").header("authorization", "Basic abc").body(Body::empty()).unwrap();
    api.send(basic).await.problem(401, "invalid_api_key");
    let header = Request::get("/v1/campaigns").header("x-api-key", &api.key).body(Body::empty()).unwrap();
    api.send(header).await.ok(200);
    api.get("/v1/campaigns").await.ok(200);
}

#[tokio::test]
async fn bad_requests_get_problem_documents() {
    let api = Api::new().await;
    let at = |kind: &'static str, body: &'static str| api.call_as(&api.key, "POST", "/v1/campaigns", kind, body);
    let problem = at("application/json", "{\n \"name\": }").await.problem(400, "invalid_json");
    assert_eq!((&problem["line"], &problem["column"]), (&json!(2), &json!(10)));
    at("text/plain", "{}").await.problem(415, "unsupported_media_type");
    at("application/json", r#"{"name": 5, "flow": {}}"#).await.problem(422, "invalid_body");
    at("application/json", r#"{"name": "x", "flow": {}, "colour": 1}"#).await.problem(422, "invalid_body");
    at("application/json", r#"{"name": " ", "flow": {}}"#).await.problem(422, "invalid_fields");
    let large = format!("{{\"name\": \"{}\"}}", "x".repeat(1 << 20));
    api.call_as(&api.key, "POST", "/v1/campaigns", "application/json", large).await.problem(413, "body_too_large");

    api.get("/v1/nothing").await.problem(404, "unknown_route");
    let not_allowed = api.call_as(&api.key, "DELETE", "/v1/campaigns", "", Body::empty()).await;
    assert!(not_allowed.headers.contains_key("allow"));
    not_allowed.problem(405, "method_not_allowed");
    for query in ["limit=0", "limit=501", "limit=x", "cursor=x", "status=x", "colour=red"] {
        api.get(&format!("/v1/campaigns?{query}")).await.problem(400, "invalid_query");
    }
    let named = Request::get("/healthz").header("x-request-id", "abc-1").body(Body::empty()).unwrap();
    assert_eq!(api.send(named).await.headers["x-request-id"], "abc-1");
}

#[tokio::test]
async fn a_flow_with_problems_is_refused_with_all_of_them() {
    let api = Api::new().await;
    let flow = json!({"steps": [{"id": "a", "action": "send_mail"}, {"id": "b", "action": "send_email", "colour": 1}]});
    let problem =
        api.post("/v1/campaigns", json!({"name": "x", "flow_settings": flow})).await.problem(422, "invalid_flow");
    let problems = problem["problems"].as_array().unwrap();
    assert!(problems.len() >= 2, "{problem}");
    assert!(problems.iter().all(|p| p["path"].as_str().unwrap().starts_with('$') && p["message"].is_string()));
    assert_eq!(api.count("SELECT count(*) FROM campaigns").await, 0);
}

#[tokio::test]
async fn a_campaign_starts_once_its_channels_have_accounts() {
    let api = Api::new().await;
    let made = api.post("/v1/campaigns", json!({"name": " Spring ", "flow": flow()})).await.ok(201);
    assert_eq!((&made["name"], &made["status"], &made["flow_version"]), (&json!("Spring"), &json!("draft"), &json!(1)));
    assert_eq!(made["flow_settings"]["schema_version"], 1);
    assert_eq!(api.count("SELECT count(*) FROM flow_versions").await, 1);
    let id = made["id"].as_str().unwrap();
    let to = |what: &str| format!("/v1/campaigns/{id}/{what}");

    let refused = api.post(&to("start"), json!({})).await.problem(409, "no_account");
    assert_eq!(refused["channels"], json!(["linkedin", "email"]));
    api.post(&to("resume"), json!({})).await.problem(409, "invalid_status");

    for channel in ["linkedin", "email"] {
        let account =
            json!({"channel": channel, "provider": "unipile", "provider_account_id": channel, "name": "Seat"});
        let made = api.post("/v1/accounts", account.clone()).await.ok(201);
        let again = api.post("/v1/accounts", account).await.problem(409, "account_exists");
        assert_eq!(again["id"], made["id"]);
    }
    assert_eq!(api.count("SELECT count(*) FROM account_gate").await, 2);
    assert_eq!(api.get("/v1/accounts").await.ok(200)["accounts"].as_array().unwrap().len(), 2);

    for (what, status, changed) in [
        ("start", "active", true),
        ("start", "active", false),
        ("pause", "paused", true),
        ("pause", "paused", false),
        ("resume", "active", true),
        ("resume", "active", false),
    ] {
        let now = api.post(&to(what), json!({})).await.ok(200);
        assert_eq!((&now["status"], &now["changed"]), (&json!(status), &json!(changed)), "{what}");
    }
    assert_eq!(api.get("/v1/campaigns?status=active").await.ok(200)["campaigns"][0]["id"], made["id"]);
    assert_eq!(api.get("/v1/campaigns?status=draft").await.ok(200)["campaigns"], json!([]));
    let shown = api.get(&to("")[..to("").len() - 1]).await.ok(200);
    assert_eq!(
        (&shown["status"], &shown["problems"], &shown["prospects"]["total"]),
        (&json!("active"), &json!([]), &json!(0))
    );
}

#[tokio::test]
async fn accounts_are_checked_field_by_field() {
    let api = Api::new().await;
    let bad = json!({"channel": "fax", "provider": "pigeon", "provider_account_id": "", "name": "x\ny", "min_gap_ms": 90_000_000});
    let problem = api.post("/v1/accounts", bad).await.problem(422, "invalid_fields");
    let paths: BTreeSet<&str> =
        problem["problems"].as_array().unwrap().iter().map(|p| p["path"].as_str().unwrap()).collect();
    assert_eq!(paths, BTreeSet::from(["$.channel", "$.min_gap_ms", "$.name", "$.provider", "$.provider_account_id"]));
    let unknown = json!({"name": "x", "flow": flow(), "accounts": ["00000000-0000-0000-0000-000000000009"]});
    api.post("/v1/campaigns", unknown).await.problem(422, "invalid_fields");
}

#[tokio::test]
async fn lists_are_read_in_pages() {
    let api = Api::new().await;
    for _ in 0..3 {
        api.campaign().await;
    }
    let first = api.get("/v1/campaigns?limit=2").await.ok(200);
    let next = format!("/v1/campaigns?limit=2&cursor={}", first["next_cursor"].as_str().unwrap());
    let second = api.get(&next).await.ok(200);
    assert_eq!(second["next_cursor"], Value::Null);
    let ids =
        |page: &Value| page["campaigns"].as_array().unwrap().iter().map(|c| c["id"].to_string()).collect::<Vec<_>>();
    let all: BTreeSet<String> = ids(&first).into_iter().chain(ids(&second)).collect();
    assert_eq!((ids(&first).len(), all.len()), (2, 3));
}

#[tokio::test]
async fn an_operators_commands_move_a_prospect() {
    let api = Api::new().await;
    let campaign = api.campaign().await;
    let id = api.prospect(&campaign).await;
    let to = |what: &str| format!("/v1/prospects/{id}/{what}");

    let paused = api.post(&to("pause"), json!({})).await.ok(200);
    assert_eq!((&paused["applied"], &paused["status"]), (&json!(true), &json!("paused")));
    let refused = api.post(&to("pause"), json!({})).await.problem(409, "rejected");
    assert!(refused["reason"].is_string());
    let shown = api.get(&format!("/v1/prospects/{id}")).await.ok(200);
    assert_eq!((&shown["waiting_on"]["kind"], &shown["execution"]["status"]), (&json!("person"), &json!("paused")));
    api.post(&to("resume"), json!({})).await.ok(200);

    for (bad, path) in [
        (json!({}), "$.step"),
        (json!({"step": 9}), "$.step"),
        (json!({"step": 0}), "$.step"),
        (json!({"step_id": "nowhere"}), "$.step_id"),
        (json!({"step": 1, "step_id": "invite"}), "$.step"),
    ] {
        let problem = api.post(&to("restart"), bad).await.problem(422, "invalid_fields");
        assert_eq!(problem["problems"][0]["path"], path);
    }
    api.post(&to("restart"), json!({"step_id": "intro"})).await.ok(200);
    let shown = api.get(&format!("/v1/prospects/{id}")).await.ok(200);
    assert_eq!(shown["execution"]["current_step"], 2);

    let stopped = api.post(&to("stop"), json!({})).await.ok(200);
    let shown = api.get(&format!("/v1/prospects/{id}")).await.ok(200);
    assert_eq!(
        (&shown["execution"]["exit_reason"], &shown["waiting_on"]["kind"]),
        (&json!("stopped"), &json!("nothing"))
    );
    assert_eq!(shown["execution"]["version"], stopped["version"]);
    let counts = api.get(&format!("/v1/campaigns/{campaign}")).await.ok(200);
    assert_eq!(counts["prospects"]["by_exit_reason"], json!({"stopped": 1}));

    let mut seen = Vec::new();
    let mut next = String::new();
    loop {
        let page = api.get(&format!("/v1/prospects/{id}/timeline?limit=1{next}")).await.ok(200);
        let entry = &page["entries"][0];
        assert_eq!(entry["kind"], "transition");
        seen.push(entry["trigger"].as_str().unwrap().to_owned());
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        next = format!("&cursor={cursor}");
    }
    assert_eq!(seen.iter().filter(|t| *t != "adopted").collect::<Vec<_>>(), ["pause", "resume", "restart", "stop"]);
    api.get(&format!("/v1/prospects/{id}/timeline?cursor=x")).await.problem(400, "invalid_query");
}

#[tokio::test]
async fn a_trigger_is_stored_then_applied_and_its_key_counts_once() {
    let api = Api::new().await;
    let campaign = api.campaign().await;
    let id = api.prospect(&campaign).await;
    let shown = api.get(&format!("/v1/prospects/{id}")).await.ok(200);
    assert_eq!(shown["waiting_on"]["kind"], "campaign", "{shown}");

    let reply = json!({"prospect_id": id, "trigger": "reply", "channel": "email", "key": "crm-1"});
    let answer = api.post("/v1/triggers", reply.clone()).await.ok(200);
    assert_eq!((&answer["applied"], &answer["status"]), (&json!(true), &json!("completed")), "{answer}");
    let again = api.post("/v1/triggers", reply).await.ok(200);
    assert_eq!((&again["duplicate"], &again["applied"]), (&json!(true), &json!(false)));
    let late = api.post("/v1/triggers", json!({"prospect_id": id, "trigger": "connection_accepted"})).await.ok(200);
    assert!(late["applied"] == true || late["reason"].is_string(), "{late}");
    assert_eq!(api.count("SELECT count(*) FROM inbox WHERE source = 'api' AND status = 'applied'").await, 2);
    let shown = api.get(&format!("/v1/prospects/{id}")).await.ok(200);
    assert_eq!(shown["execution"]["exit_reason"], "replied");

    for (bad, path) in [
        (json!({"prospect_id": id, "trigger": "wink"}), "$.trigger"),
        (json!({"prospect_id": id, "trigger": "reply"}), "$.channel"),
        (json!({"prospect_id": id, "trigger": "unsubscribe", "channel": "email"}), "$.channel"),
        (json!({"prospect_id": id, "trigger": "bounce", "bounce": "odd"}), "$.bounce"),
        (json!({"prospect_id": id, "trigger": "unsubscribe", "key": ""}), "$.key"),
    ] {
        let problem = api.post("/v1/triggers", bad).await.problem(422, "invalid_fields");
        assert_eq!(problem["problems"][0]["path"], path);
    }
}

#[tokio::test]
async fn another_workspaces_ids_are_as_good_as_absent() {
    let api = Api::new().await;
    let campaign = api.campaign().await;
    let prospect = api.prospect(&campaign).await;
    let account = json!({"channel": "email", "provider": "unipile", "provider_account_id": "a", "name": "Seat"});
    let account = api.post("/v1/accounts", account).await.ok(201)["id"].as_str().unwrap().to_owned();
    api.post("/v1/hooks", json!({})).await.ok(201);
    let before = api.get(&format!("/v1/prospects/{prospect}")).await.ok(200);
    let key = api.stranger().await;
    let absent = "00000000-0000-7000-8000-00000000dead";

    for (method, path, body) in [
        ("GET", "/v1/campaigns/C", json!(null)),
        ("POST", "/v1/campaigns/C/start", json!({})),
        ("POST", "/v1/campaigns/C/pause", json!({})),
        ("POST", "/v1/campaigns/C/resume", json!({})),
        ("GET", "/v1/campaigns/C/prospects", json!(null)),
        ("POST", "/v1/campaigns/C/prospects", json!([{"email": "eve@example.com"}])),
        ("GET", "/v1/prospects/P", json!(null)),
        ("GET", "/v1/prospects/P/timeline", json!(null)),
        ("POST", "/v1/prospects/P/pause", json!({})),
        ("POST", "/v1/prospects/P/resume", json!({})),
        ("POST", "/v1/prospects/P/skip", json!({})),
        ("POST", "/v1/prospects/P/stop", json!({})),
        ("POST", "/v1/prospects/P/restart", json!({"step": 1})),
        ("POST", "/v1/triggers", json!({"prospect_id": "P", "trigger": "unsubscribe"})),
    ] {
        let with = |campaign: &str, prospect: &str| {
            let path = path.replace('C', campaign).replace('P', prospect);
            let body = body.to_string().replace("\"P\"", &format!("\"{prospect}\""));
            (path, body)
        };
        let (foreign, foreign_body) = with(&campaign, &prospect);
        let (none, none_body) = with(absent, absent);
        let theirs =
            api.call_as(&key, method, &foreign, "application/json", foreign_body).await.problem(404, "not_found");
        let nobodys = api.call_as(&key, method, &none, "application/json", none_body).await.problem(404, "not_found");
        assert_eq!(theirs, nobodys, "{method} {path}");
    }
    for (path, field) in [("/v1/campaigns", "campaigns"), ("/v1/accounts", "accounts"), ("/v1/hooks", "hooks")] {
        let page = api.call_as(&key, "GET", path, "", Body::empty()).await.ok(200);
        assert_eq!(page[field], json!([]), "{path}");
    }
    let borrowed = json!({"name": "x", "flow": flow(), "accounts": [account]});
    let refused = api.call_as(&key, "POST", "/v1/campaigns", "application/json", borrowed.to_string()).await;
    refused.problem(422, "invalid_fields");
    assert_eq!(api.get(&format!("/v1/prospects/{prospect}")).await.ok(200), before, "nothing was changed");
    assert_eq!(api.count("SELECT count(*) FROM inbox").await, 0);
}

#[tokio::test]
async fn the_openapi_document_lists_every_route() {
    let api = Api::new().await;
    let document = api.send(bare("GET", "/openapi.json")).await.ok(200);
    let listed: BTreeSet<String> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().unwrap().keys().map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect();
    let expected: BTreeSet<String> = [
        "GET /v1/campaigns",
        "POST /v1/campaigns",
        "POST /v1/campaigns/preview",
        "GET /v1/campaigns/{id}",
        "POST /v1/campaigns/{id}/start",
        "POST /v1/campaigns/{id}/pause",
        "POST /v1/campaigns/{id}/resume",
        "GET /v1/campaigns/{id}/prospects",
        "POST /v1/campaigns/{id}/prospects",
        "GET /v1/prospects/{id}",
        "GET /v1/prospects/{id}/timeline",
        "POST /v1/prospects/{id}/pause",
        "POST /v1/prospects/{id}/resume",
        "POST /v1/prospects/{id}/skip",
        "POST /v1/prospects/{id}/restart",
        "POST /v1/prospects/{id}/stop",
        "POST /v1/triggers",
        "GET /v1/sends",
        "POST /v1/sends/{id}/resolve",
        "GET /v1/suppressions",
        "POST /v1/suppressions",
        "DELETE /v1/suppressions/{id}",
        "GET /u/{token}",
        "POST /u/{token}",
        "GET /v1/accounts",
        "GET /v1/accounts/{id}",
        "PATCH /v1/accounts/{id}",
        "PATCH /v1/campaigns/{id}",
        "POST /v1/accounts",
        "GET /v1/hooks",
        "POST /v1/hooks",
        "POST /v1/hooks/unipile/{endpoint}",
        "GET /openapi.json",
        "GET /healthz",
        "GET /readyz",
    ]
    .map(str::to_owned)
    .into();
    assert_eq!(listed, expected);
    // Each of them is there, and refuses strangers unless it is one of those that need no key.
    for route in &expected {
        let (method, path) = route.split_once(' ').unwrap();
        let answer = api.send(bare(method, &path.replace("{id}", "x").replace("{endpoint}", "x"))).await;
        let open = !path.starts_with("/v1/") || path.ends_with("{endpoint}");
        assert_eq!(answer.status.as_u16() == 401, !open, "{route}: {}", answer.status);
        assert_ne!(answer.body["code"], "unknown_route", "{route}");
    }
    // Every schema that is referred to exists.
    let text = document.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
    assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
}

#[tokio::test]
async fn health_needs_no_key_and_readiness_says_what_is_missing() {
    let api = Api::new().await;
    api.send(bare("GET", "/healthz")).await.ok(200);
    // The engine reads its table back first.
    crate::trace::until("it is ready", async || api.send(bare("GET", "/readyz")).await.status == 200).await;
    api.db.shut().await;
    crate::trace::until("the prober has seen it", async || {
        let unready = api.send(bare("GET", "/readyz")).await;
        unready.body["ready"] == false && unready.body["reasons"][0]["name"] == "database" && unready.status == 503
    })
    .await;
    api.db.pool.close().await;
    api.send(bare("GET", "/healthz")).await.ok(200);
    let refused = api.get("/v1/campaigns").await;
    assert!(refused.headers.contains_key("retry-after"));
    refused.problem(503, "storage_unavailable");
}

#[tokio::test]
async fn more_requests_than_fit_are_turned_away_and_slow_ones_ended() {
    let full = Api::with(Options { in_flight_max: 0, ..Options::default() }).await;
    let answer = full.get("/v1/campaigns").await;
    assert_eq!(answer.headers["retry-after"], "1");
    answer.problem(503, "busy");
    full.send(bare("GET", "/healthz")).await.ok(200);
    let hurry = std::time::Duration::from_millis(50);
    let hurried = Api::with(Options { request_timeout: hurry, ..Options::default() }).await;
    // Nobody reads the table before this ends.
    let mut held = hurried.db.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE campaigns").execute(&mut *held).await.unwrap();
    hurried.get("/v1/campaigns").await.problem(503, "request_timeout");
}

#[tokio::test]
async fn the_server_listens_on_both_addresses_and_stops() {
    let api = Api::with(small()).await;
    let server = Server::start(api.app.clone()).await.unwrap();
    let get = |address: std::net::SocketAddr, path: &'static str| async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        std::io::Result::Ok(text)
    };
    let (public, inside) = (server.api_addr(), server.metrics_addr());
    assert!(get(public, "/healthz").await.unwrap().starts_with("HTTP/1.1 200"));
    get(public, "/v1/nothing/of/ours").await.unwrap();
    let metrics = get(inside, "/metrics").await.unwrap();
    assert!(metrics.contains("text/plain; version=0.0.4"));
    assert!(
        metrics.contains("campaignd_http_requests_total{route=\"/healthz\",method=\"GET\",code=\"200\"}"),
        "{metrics}"
    );
    assert!(metrics.contains("route=\"other\"") && !metrics.contains("of/ours"), "strangers' paths are no labels");
    assert!(get(public, "/metrics").await.unwrap().starts_with("HTTP/1.1 404"), "metrics are not for the public");
    assert!(get(inside, "/v1/campaigns").await.unwrap().starts_with("HTTP/1.1 404"));
    let taken = Options { listen: public, ..small() };
    let mut app = api.app.clone();
    app.options = taken;
    assert!(Server::start(app).await.unwrap_err().to_string().contains("cannot listen"));
    server.stop().await;
    assert!(get(public, "/healthz").await.is_err());
}
