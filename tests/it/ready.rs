//! What a server says about itself while it cannot do its work, and when it cannot even start.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use campaignd::http::{self, App, Options};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;

use crate::fake::Rig;
use crate::processes::World;
use crate::trace::{STILL, until};

/// Waits until `/readyz` gives one reason, which begins like this.
async fn until_unready(world: &World, reason: &str) {
    until(reason, async || {
        world.readiness().await.is_some_and(|(ready, why)| !ready && why.len() == 1 && why[0].starts_with(reason))
    })
    .await;
}

/// A campaign that invites one person through one account.
async fn invite_somebody(world: &World) {
    let account = json!({"channel": "linkedin", "provider": "unipile", "provider_account_id": "li_account_one_0000000",
        "name": "one"});
    world.post("/v1/accounts", &account).await;
    let campaign = json!({"name": "one", "flow_settings": {"schema_version": 1,
        "steps": [{"id": "invite", "action": "send_linkedin_cr", "message": "Hi"}]}});
    let id = world.post("/v1/campaigns", &campaign).await["id"].as_str().unwrap().to_owned();
    let people = json!([{"linkedin_url": "https://www.linkedin.com/in/somebody"}]);
    world.post(&format!("/v1/campaigns/{id}/prospects"), &people).await;
    world.post(&format!("/v1/campaigns/{id}/start"), &Value::Null).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_schema_is_not_its_own_says_so_until_it_is_again() {
    let world = World::new("ready-schema", 60).await;
    let _server = world.start_server();
    world.until_answers(world.metrics, "/readyz").await;
    assert_eq!(world.readiness().await, Some((true, vec![])));
    let take_away = "CREATE TABLE kept AS SELECT * FROM campaignd_migrations WHERE version = 10; \
        DELETE FROM campaignd_migrations WHERE version = 10";
    world.db.script(take_away).await.unwrap();
    until_unready(&world, "schema: 1 migrations are missing: run `campaignd migrate`").await;
    until("the metric says the same", async || world.metric("campaignd_ready").await == Some(0.0)).await;
    let other = "INSERT INTO campaignd_migrations SELECT * FROM kept; \
        UPDATE campaignd_migrations SET checksum = 'x' WHERE version = 10";
    world.db.script(other).await.unwrap();
    until_unready(&world, "schema: migration 10 in the database is not this program's").await;
    let mended = "UPDATE campaignd_migrations m SET checksum = k.checksum FROM kept k WHERE m.version = 10";
    world.db.script(mended).await.unwrap();
    world.until_answers(world.metrics, "/readyz").await;
    until("the metric says the same", async || world.metric("campaignd_ready").await == Some(1.0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_told_to_stop_says_that_it_drains_until_what_is_in_flight_has_ended() {
    let world = World::new("ready-draining", 60).await;
    let _sandbox = world.start_sandbox(STILL).await;
    let mut server = world.start_server();
    world.until_answers(world.metrics, "/readyz").await;
    let slow = json!({"match": {"endpoint": "POST /users/invite"}, "effect": "slow", "delay_ms": 4000});
    world.order("/sandbox/faults", &slow).await;
    invite_somebody(&world).await;
    let calling = "SELECT count(*) FROM sends WHERE status = 'dispatching'";
    until("the call is under way", async || world.count(calling).await == 1).await;

    server.terminate();
    until_unready(&world, "draining: it was told to stop").await;
    world.until_answers(world.metrics, "/healthz").await;
    assert_eq!(world.metric("campaignd_rehydration_phase{phase=\"stopping\"}").await.map(f64::signum), Some(1.0));
    assert!(TcpStream::connect(("127.0.0.1", world.api())).await.is_err(), "the API takes nothing more");
    assert_eq!(server.exit_code(), None);
    let mut code = None;
    until("it has ended", async || {
        code = server.exit_code();
        code.is_some()
    })
    .await;
    assert_eq!((code, world.count("SELECT count(*) FROM sends WHERE status = 'sent'").await), (Some(0), 1));
}

#[tokio::test]
async fn a_server_that_has_lost_its_lease_says_so() {
    let mut rig = Rig::manual().await;
    rig.start_with(|options| options.lease_ttl = Duration::from_secs(3)).await;
    let metrics = campaignd::telemetry::install().unwrap();
    let options = Options::default();
    let app = App { pool: rig.pool.clone(), runtime: rig.handle(), clock: rig.clock.clone(), options, metrics };
    let router = http::metrics_router(app);
    let readiness = async || -> Value {
        let answer = router.clone().oneshot(Request::get("/readyz").body(Body::empty()).unwrap()).await.unwrap();
        serde_json::from_slice(&to_bytes(answer.into_body(), usize::MAX).await.unwrap()).unwrap()
    };
    assert_eq!(readiness().await["ready"], true);
    crate::lease::kill_holders(&rig.db.pool).await;
    let _thief = crate::lease::acquire_when_free(&rig.db.pool).await;
    until("it has noticed", async || {
        let said = readiness().await;
        said["ready"] == false
            && said["reasons"].as_array().is_some_and(|why| why.len() == 1 && why[0]["name"] == "leases")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_address_is_taken_says_which_setting_is_meant_and_takes_nothing_over() {
    let world = World::new("ready-taken", 1).await;
    for (port, setting, option) in [
        (world.metrics, "http.metrics_listen", "campaignd serve --metrics-listen"),
        (world.api(), "http.listen", "campaignd serve --listen"),
    ] {
        let taken = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let (code, _, said) = world.run(&["serve"], &[]);
        assert_eq!(code, Some(2), "{said}");
        let place = format!("cannot listen on 127.0.0.1:{port} for ");
        for part in [place.as_str(), "Address already in use", "end the program that has it", setting, option] {
            assert!(said.contains(part), "{part}: {said}");
        }
        drop(taken);
    }
    assert_eq!(world.count("SELECT count(*) FROM shard_lease WHERE owner IS NOT NULL").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_the_provider_refuses_is_shown_until_it_is_taken() {
    let world = World::new("ready-key", 600).await;
    let sandbox = world.start_sandbox(STILL).await;
    let _server = world.start_server_with("server.log", &[("CAMPAIGND_UNIPILE__API_KEY", "pelican")]);
    world.until_answers(world.metrics, "/readyz").await;
    let refused = "campaignd_provider_key_refused{provider=\"unipile\"}";
    assert_eq!(world.metric(refused).await, Some(0.0));
    invite_somebody(&world).await;
    until("it is shown", async || world.metric(refused).await == Some(1.0)).await;
    drop(sandbox);
    let _renewed = world.start_sandbox(&[STILL, &["--api-key", "pelican"]].concat()).await;
    until("it is taken", async || world.metric(refused).await == Some(0.0)).await;
    until("the send has gone", async || world.count("SELECT count(*) FROM sends WHERE status = 'sent'").await == 1)
        .await;
}
