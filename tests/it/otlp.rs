//! Spans as a collector gets them: OTLP over HTTP, in protobuf, read here by hand.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::routing::post;
use tokio::net::TcpListener;

use crate::processes::World;
use crate::trace::{FIRST, STILL, accepts, invited, until};

/// The caller's span.
const CALLER: &str = "b7ad6b7169203331";

/// Everything that was delivered.
type Bodies = Arc<Mutex<Vec<Bytes>>>;

/// A collector that takes whatever comes.
async fn collector() -> (String, Bodies) {
    let bodies = Bodies::default();
    let kept = Arc::clone(&bodies);
    let take = async move |headers: HeaderMap, body: Bytes| {
        assert_eq!(headers["content-type"], "application/x-protobuf");
        kept.lock().unwrap().push(body);
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/v1/traces", post(take))).await });
    (url, bodies)
}

/// A number of seven bits a byte.
fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

/// The fields of a message that hold bytes, with their numbers; the others are passed over.
fn fields(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let length = match key & 7 {
            0 => {
                varint(&mut bytes);
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)).unwrap(),
            5 => 4,
            other => panic!("wire type {other}"),
        };
        let (value, rest) = bytes.split_at(length);
        if key & 7 == 2 {
            found.push((key >> 3, value));
        }
        bytes = rest;
    }
    found
}

/// The messages below one, by their field's number.
fn below(bytes: &[u8], number: u64) -> Vec<&[u8]> {
    fields(bytes).into_iter().filter(|(n, _)| *n == number).map(|(_, value)| value).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Debug)]
struct Span {
    id: String,
    parent: String,
    name: String,
}

/// The spans of a trace. Numbers are those of opentelemetry-proto: resource_spans 1, scope_spans 2, spans 2.
fn spans(bodies: &[Bytes], trace: &str) -> Vec<Span> {
    let mut found = Vec::new();
    for body in bodies {
        for scope in below(body, 1).into_iter().flat_map(|resource| below(resource, 2)) {
            for span in below(scope, 2) {
                let fields: HashMap<u64, &[u8]> = fields(span).into_iter().collect();
                if fields.get(&1).is_some_and(|id| hex(id) == trace) {
                    let text = |n: u64| fields.get(&n).copied().unwrap_or_default();
                    let name = String::from_utf8(text(5).to_vec()).unwrap();
                    found.push(Span { id: hex(text(2)), parent: hex(text(4)), name });
                }
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_gets_one_webhook_as_one_trace_that_holds_the_providers_call_and_nobodys_name() {
    let (url, bodies) = collector().await;
    let world = World::new("otlp", 60).await;
    let _sandbox = world.start_sandbox(STILL).await;
    let settings = [("CAMPAIGND_TRACE__OTLP", url.as_str()), ("CAMPAIGND_TRACE__SAMPLE", "0")];
    let _server = world.start_server_with("server.log", &settings);
    world.until_answers(world.metrics, "/readyz").await;
    invited(&world, &["jane-doe"]).await;
    let accepted = accepts(&world, "jane-doe").await;
    world.deliver(&accepted, &format!("00-{FIRST}-{CALLER}-01")).await;
    until("the whole trace is there", async || spans(&bodies.lock().unwrap(), FIRST).len() >= 7).await;

    let bodies = bodies.lock().unwrap();
    let told = spans(&bodies, FIRST);
    let mut parent = CALLER;
    for name in ["request", "store", "apply", "transition", "provider"] {
        let found: Vec<&Span> = told.iter().filter(|s| s.name == name && s.parent == parent).collect();
        assert_eq!(found.len(), 1, "{name} in {told:#?}");
        parent = &found[0].id;
    }
    assert_eq!(told.len(), 7, "{told:#?}");
    let raw: Vec<u8> = bodies.iter().flatten().copied().collect();
    let raw = String::from_utf8_lossy(&raw);
    assert!(raw.contains("campaignd") && raw.contains("send_linkedin_message"), "resource and attributes");
    for canary in ["jane", "Thanks", "the secret of this test", world.key()] {
        assert!(!raw.contains(canary), "{canary}");
    }
    assert!(!world.log("server.log").contains("stage of a trace"), "told once");
}
