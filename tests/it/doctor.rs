//! `campaignd doctor`: the built program finds what is wrong with a real server, database and provider, and says what to do.

use serde_json::{Value, json};

use crate::processes::World;
use crate::trace::{STILL, until};

/// The sandbox's account, with limits.
fn account(id: &str, limits: Value) -> Value {
    json!({"channel": "linkedin", "provider": "unipile", "provider_account_id": id, "name": id, "limits": limits})
}

/// What the doctor says, with more settings: its exit code, and every check by its name and level.
fn doctor(world: &World, settings: &[(&str, &str)]) -> (Option<i32>, Value) {
    // The clock of a test runs faster, which the doctor would find.
    let settings = [&[("CAMPAIGND_CLOCK__SPEED", "1")], settings].concat();
    let (code, printed, errors) = world.run(&["doctor", "--json"], &settings);
    let report: Value = serde_json::from_str(&printed).unwrap_or_else(|_| panic!("{code:?}: {printed} {errors}"));
    for check in report["checks"].as_array().unwrap() {
        assert_eq!(check["level"] == "finding", check["todo"].is_string(), "a finding says what to do: {check}");
    }
    (code, report)
}

/// What is found about a part, as one text.
fn found(report: &Value, part: &str) -> String {
    let checks = report["checks"].as_array().unwrap().iter().filter(|c| c["check"] == part && c["level"] == "finding");
    checks.map(|c| format!("{} -> {}\n", c["says"].as_str().unwrap(), c["todo"].as_str().unwrap())).collect()
}

/// The exit code is 1, and only these parts have findings.
#[track_caller]
fn only(answer: &(Option<i32>, Value), parts: &[&str]) {
    let checks = answer.1["checks"].as_array().unwrap().iter();
    let mut seen: Vec<&str> =
        checks.filter(|c| c["level"] == "finding").map(|c| c["check"].as_str().unwrap()).collect();
    seen.dedup();
    assert_eq!((answer.0, seen.as_slice()), (Some(1), parts), "{:#}", answer.1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lacks_nothing_is_well_and_each_thing_that_breaks_is_found_by_its_name() {
    let world = World::new("doctor", 60).await;
    let _sandbox = world.start_sandbox(STILL).await;
    let server = world.start_server();
    world.until_answers(world.metrics, "/readyz").await;
    world.post("/v1/accounts", &account("li_account_one_0000000", json!({"kind": "linkedin_premium"}))).await;

    let well = doctor(&world, &[]);
    assert_eq!((well.0, &well.1["findings"]), (Some(0), &json!(0)), "{:#}", well.1);
    for part in
        ["settings", "server", "database", "clock", "schema", "rights", "leases", "accounts", "work", "provider"]
    {
        let checks = well.1["checks"].as_array().unwrap();
        assert!(checks.iter().any(|c| c["check"] == part && c["level"] == "well"), "{part}: {:#}", well.1);
    }
    let (code, text, _) = world.run(&["doctor"], &[("CAMPAIGND_CLOCK__SPEED", "1")]);
    assert!(code == Some(0) && text.ends_with("nothing to do\n"), "{text}");

    let wrong_key = doctor(&world, &[("CAMPAIGND_UNIPILE__API_KEY", "pelican")]);
    only(&wrong_key, &["provider"]);
    let said = found(&wrong_key.1, "provider");
    assert!(said.contains("401") && said.contains("CAMPAIGND_UNIPILE__API_KEY") && !said.contains("pelican"), "{said}");
    let nobody = doctor(&world, &[("CAMPAIGND_UNIPILE__BASE_URL", "http://127.0.0.1:1")]);
    only(&nobody, &["provider"]);
    assert!(found(&nobody.1, "provider").contains("cannot connect to 127.0.0.1 port 1"), "{:#}", nobody.1);

    let elsewhere = [("DATABASE_URL", "postgres://dodo:ostrich@127.0.0.1:1/x")];
    let away = doctor(&world, &elsewhere);
    only(&away, &["database"]);
    assert!(found(&away.1, "database").contains("start Postgres") && !away.1.to_string().contains("ostrich"));
    assert!(away.1["checks"].as_array().unwrap().iter().any(|c| c["check"] == "leases" && c["level"] == "skipped"));

    // A server without TLS where TLS is asked for, of the database and of the provider.
    let separator = if world.db.url.contains('?') { '&' } else { '?' };
    let with_tls = format!("{}{separator}sslmode=require", world.db.url);
    let without = doctor(&world, &[("DATABASE_URL", &with_tls)]);
    only(&without, &["database"]);
    assert!(found(&without.1, "database").contains("look at sslmode"), "{:#}", without.1);
    let https = format!("https://127.0.0.1:{}", world.sandbox);
    let plain = doctor(&world, &[("CAMPAIGND_UNIPILE__BASE_URL", &https)]);
    only(&plain, &["provider"]);
    assert!(found(&plain.1, "provider").contains("it is the certificate"), "{:#}", plain.1);
    let greedy = doctor(&world, &[("CAMPAIGND_DATABASE__CONNECTIONS", "5000")]);
    only(&greedy, &["database"]);
    assert!(found(&greedy.1, "database").contains("needs 5019 connections"), "{:#}", greedy.1);

    let half = doctor(&world, &[("CAMPAIGND_UNIPILE__WEBHOOK_SECRET", ""), ("CAMPAIGND_CLOCK__SPEED", "60")]);
    only(&half, &["settings"]);
    let said = found(&half.1, "settings");
    assert!(said.contains("unipile.webhook_secret is not set") && said.contains("clock.speed is 60"), "{said}");
    let (code, _, text) = world.run(&["doctor"], &[("CAMPAIGND_HTTP__LISTEN", "nonsense")]);
    assert!(code == Some(2) && text.contains("http.listen"), "{text}");

    let mut unlimited = account("li_account_two_0000000", Value::Null);
    unlimited["kind"] = json!("unlimited");
    world.post("/v1/accounts", &unlimited).await;
    world.post("/v1/accounts", &account("nobody-knows-this", json!({"kind": "linkedin_free"}))).await;
    let halt = "UPDATE accounts SET status = 'halted', status_reason = 'the provider says CREDENTIALS' \
        WHERE provider_account_id = 'li_account_one_0000000'";
    world.db.script(halt).await.unwrap();
    let accounts = doctor(&world, &[]);
    only(&accounts, &["accounts"]);
    let said = found(&accounts.1, "accounts");
    for part in
        ["is halted: the provider says CREDENTIALS", "1 accounts have no limits", "is not connected at the provider"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    world.db.script("UPDATE accounts SET status = 'disabled'").await.unwrap();

    // Killed: its lock is gone at once, its lease runs out later.
    drop(server);
    until("its session has ended", async || {
        let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' \
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        world.count(locks).await == 0
    })
    .await;
    let gone = doctor(&world, &[]);
    only(&gone, &["leases"]);
    assert!(found(&gone.1, "leases").contains("its process has no connection"), "{:#}", gone.1);
    world.db.script("UPDATE node SET lease_until = now() - interval '1 hour'").await.unwrap();
    let expired = doctor(&world, &[]);
    only(&expired, &["leases"]);
    assert!(found(&expired.1, "leases").contains("the lease of 1024 shards of node"), "{:#}", expired.1);

    world.db.script("UPDATE shard_lease SET owner = NULL").await.unwrap();
    let facts = "INSERT INTO inbox (workspace_id, id, source, dedupe_key, body, received_at, status) \
        SELECT w.id, gen_random_uuid(), 'unipile', f.status, '', now() - interval '5 minutes', f.status \
        FROM workspaces w, (VALUES ('received'), ('failed')) AS f(status)";
    world.db.script(facts).await.unwrap();
    let waiting = doctor(&world, &[]);
    only(&waiting, &["work"]);
    let said = found(&waiting.1, "work");
    assert!(said.contains("1 facts wait in the inbox") && said.contains("1 facts of the last day"), "{said}");

    world.db.script("DELETE FROM campaignd_migrations WHERE version = 10").await.unwrap();
    let behind = doctor(&world, &[]);
    only(&behind, &["schema"]);
    assert!(found(&behind.1, "schema").contains("migrations 10 are missing -> run `campaignd migrate`"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_not_do_its_work_and_a_newer_schema_are_found() {
    let world = World::new("doctor-rights", 1).await;
    let grants = "CREATE ROLE doctor_guest LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO doctor_guest; \
        GRANT INSERT, UPDATE ON sends, inbox TO doctor_guest; \
        INSERT INTO campaignd_migrations (version, description, success, checksum, execution_time) \
        VALUES (9999, 'of the future', true, '', 0)";
    world.db.script(grants).await.unwrap();
    let (scheme, rest) = world.db.url.split_once("://").unwrap();
    let host = rest.split_once('@').unwrap().1;
    let guest = format!("{scheme}://doctor_guest@{host}");
    let without = [("DATABASE_URL", guest.as_str()), ("CAMPAIGND_UNIPILE__BASE_URL", "")];
    let report = doctor(&world, &without);
    only(&report, &["settings", "rights"]);
    let said = found(&report.1, "rights");
    assert!(said.contains("may not read and write account_catch_up"), "{said}");
    assert!(said.contains("row-level security hides the rows of inbox, sends"), "{said}");
    assert!(said.contains("cannot make the partitions"), "{said}");
    let newer = doctor(&world, &[("CAMPAIGND_UNIPILE__BASE_URL", "")]);
    only(&newer, &["settings", "schema"]);
    assert!(found(&newer.1, "schema").contains("a newer campaignd has applied migration 9999"));
}
