//! The client against small servers, and a server for the tests of the commands.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use serde_json::json;

use super::remote::server;
use super::*;

/// A client of a server with these routes.
pub(in crate::cli) async fn serve(routes: Router) -> Client {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Client::new(&Url::parse(&url).unwrap(), Some(Secret::new("cmp_test")), None).unwrap()
}

fn problem(status: StatusCode, body: &Value) -> (StatusCode, String) {
    (status, body.to_string())
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_with_what_to_do() {
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let client = Client::new(&Url::parse(&format!("http://127.0.0.1:{port}/")).unwrap(), None, None).unwrap();
    let failure = Failure::from(client.get("v1/campaigns", &[]).await.unwrap_err());
    assert_eq!(failure.exit_code, 2);
    assert_eq!(
        failure.message,
        format!("no campaignd answers at http://127.0.0.1:{port}: start it with `campaignd serve` or pass --server")
    );
}

#[tokio::test]
async fn a_refused_key_says_how_to_get_one() {
    let document = json!({"title": "invalid api key", "status": 401, "code": "invalid_api_key", "detail": "no"});
    let answer = problem(StatusCode::UNAUTHORIZED, &document);
    let client = serve(Router::new().route("/v1/accounts", get(|| async { answer }))).await;
    let failure = Failure::from(client.get("v1/accounts", &[]).await.unwrap_err());
    assert_eq!(failure.exit_code, 1);
    assert!(failure.message.starts_with("invalid api key: no\n"), "{failure}");
    assert!(failure.message.contains("campaignd key create"), "{failure}");
    assert!(!failure.message.contains("cmp_test"));
}

#[tokio::test]
async fn every_problem_of_a_document_is_shown_with_its_path() {
    let document = json!({
        "title": "invalid fields", "status": 422, "code": "invalid_fields", "detail": "see problems",
        "problems": [{"path": "$.name", "message": "must not be empty"}, {"path": "$.steps[0].x", "message": "un\u{1b}known"}]
    });
    let answer = problem(StatusCode::UNPROCESSABLE_ENTITY, &document);
    let client = serve(Router::new().route("/x", post(|| async { answer }))).await;
    let error = client.post("x", &json!({})).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid fields: see problems\n  $.name: must not be empty\n  $.steps[0].x: un\u{fffd}known"
    );
}

#[tokio::test]
async fn something_else_at_the_address_is_told_apart() {
    let client = serve(Router::new().route("/x", get(|| async { "<html>" }))).await;
    for path in ["x", "y"] {
        let error = client.get(path, &[]).await.unwrap_err();
        assert!(matches!(error, Error::Strange { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_upload_is_tried_again_while_the_server_is_busy() {
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&calls);
    let handler = post(move |headers: HeaderMap, body: Bytes| async move {
        assert_eq!(
            (&headers["content-type"], &headers["authorization"]),
            (&"text/csv".parse().unwrap(), &"Bearer cmp_test".parse().unwrap())
        );
        assert_eq!(&body[..], b"email\na@b.co\n");
        match seen.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => {
                let busy = json!({"title": "busy", "code": "busy", "detail": "try again"}).to_string();
                (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")], busy)
            }
            _ => {
                (StatusCode::CREATED, [("campaignd-time", "2030-01-01T00:00:00Z")], json!({"accepted": 1}).to_string())
            }
        }
    });
    let client = serve(Router::new().route("/up", handler)).await;
    let answer = client.upload("up", b"email\na@b.co\n".to_vec(), |_| {}).await.unwrap();
    assert_eq!((&answer.body["accepted"], calls.load(Ordering::Relaxed)), (&json!(1), 3));
    assert_eq!(answer.now.to_string(), "2030-01-01T00:00:00.000000Z");
}

#[tokio::test]
async fn a_list_is_read_page_after_page_up_to_its_limit() {
    let handler = get(|uri: axum::http::Uri| async move {
        let query = uri.query().unwrap_or_default().to_owned();
        let (items, next) = if query.contains("cursor=c1") { (json!([3]), None) } else { (json!([1, 2]), Some("c1")) };
        json!({"things": items, "next_cursor": next}).to_string()
    });
    let client = serve(Router::new().route("/things", handler)).await;
    let (all, more, _) = client.list("things", &[], "things", usize::MAX).await.unwrap();
    assert_eq!((all, more), (vec![json!(1), json!(2), json!(3)], false));
    let (two, more, _) = client.list("things", &[], "things", 2).await.unwrap();
    assert_eq!((two.len(), more), (2, true));
}

#[test]
fn an_address_may_leave_the_scheme_out_and_holds_no_credentials() {
    assert_eq!(server("127.0.0.1:8080").unwrap().as_str(), "http://127.0.0.1:8080/");
    assert_eq!(server("https://x.example.com/base/").unwrap().as_str(), "https://x.example.com/base/");
    for bad in ["", "ftp://x", "http://u:p@x", "http://x/?a=b", "http://"] {
        assert!(server(bad).is_err(), "{bad}");
    }
    assert!(is_local(&server("localhost:1").unwrap()) && is_local(&server("http://[::1]:1").unwrap()));
    assert!(!is_local(&server("http://campaignd:8080").unwrap()));
}
