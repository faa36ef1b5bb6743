//! Campaign files and what is said about them.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;

use super::super::client::tests::serve;
use super::*;

macro_rules! golden {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/flows/", $name))
    };
}

fn text(content: &str) -> Text {
    Text { name: "flow.json".to_owned(), stem: Some("flow".to_owned()), bytes: content.as_bytes().to_vec() }
}

fn problems(content: &str) -> Vec<String> {
    let text = text(content);
    let found = text.parse().map_err(|e| vec![e]).and_then(|d| d.check()).unwrap_err();
    found.iter().map(|p| p.line(&text.name)).collect()
}

#[test]
fn good_flows_are_summed_up() {
    for content in [golden!("seed_current.json"), golden!("seed_legacy.json")] {
        let flow = text(content).parse().unwrap().check().unwrap();
        assert_eq!(summary(&flow), "3 steps (linkedin, email)");
    }
    let wrapped = format!("\u{feff}{{\"name\": \"Spring\", \"flow_settings\": {}}}", golden!("seed_current.json"));
    let document = text(&wrapped).parse().unwrap();
    assert_eq!((document.check().is_ok(), document.name()), (true, Some("Spring")));
}

#[test]
fn every_problem_is_a_line_with_the_file_and_the_path() {
    let expected: Vec<String> = golden!("six_mistakes.txt").lines().map(|l| format!("flow.json: {l}")).collect();
    assert_eq!(problems(golden!("six_mistakes.json")), expected);
}

#[test]
fn paths_are_those_of_the_file_also_when_the_flow_is_inside_a_campaign() {
    let wrapped = format!("{{\"nam\": 1, \"flow_settings\": {}}}", golden!("six_mistakes.json"));
    let found = problems(&wrapped);
    assert_eq!(found[0], "flow.json: $[\"nam\"]: unknown key; known: name, flow_settings, accounts");
    assert!(found[1].starts_with("flow.json: $.flow_settings.timezone: "), "{found:?}");
    assert!(found[6].starts_with("flow.json: $.flow_settings.steps[1].delay: "), "{found:?}");
}

#[test]
fn broken_json_is_told_with_line_and_column() {
    assert_eq!(problems("{\n  \"steps\": [,]\n}"), ["flow.json:2:13: no JSON: expected value"]);
    assert!(problems("")[0].starts_with("flow.json:1:0: no JSON: EOF"));
    let found = text("[1,").parse().unwrap_err().json();
    assert_eq!((&found["path"], &found["line"]), (&json!("$"), &json!(1)));
}

#[tokio::test]
async fn problems_the_server_finds_are_told_as_those_of_the_file() {
    let refusal = json!({"title": "invalid flow", "code": "invalid_flow", "detail": "see problems",
        "problems": [{"path": "$.steps[0].delay", "message": "wrong"}]})
    .to_string();
    let handler = post(move || async move { (StatusCode::UNPROCESSABLE_ENTITY, refusal) });
    let client = serve(Router::new().route("/v1/campaigns", handler)).await;
    for (content, path) in [("{\"steps\": []}", "$.steps[0]"), ("{\"flow_settings\": 1}", "$.flow_settings.steps[0]")] {
        let failure = create(&client, &text(content), None, false, true).await.unwrap_err();
        assert_eq!(failure, Failure::refused(format!("flow.json: {path}.delay: wrong")));
    }
}
