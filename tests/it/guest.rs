//! The bench as a guest on somebody's server: what it refuses, what it measures, and that nothing of it stays behind.

use std::process::{Command, Output};

use campaignd::bench::{Bench, Error, Server, Settings};
use campaignd::store::bench as measured;
use serde_json::Value;
use tokio::sync::watch;

use crate::harness::{Db, scratch};

fn settings(name: &str) -> Settings {
    Settings { sizes: vec![10_000], seconds: 2, report: scratch(name), accounts: None }
}

/// The bench's databases on the test server, whoever made them: tests run side by side, so each looks for its own.
async fn databases(db: &Db) -> Vec<String> {
    sqlx::query_scalar("SELECT datname::text FROM pg_database WHERE datname LIKE 'campaignd\\_bench\\_%'")
        .fetch_all(&db.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_database_that_holds_campaigns_is_refused() {
    let db = Db::new().await;
    sqlx::query("INSERT INTO campaigns (name, status) VALUES ('ours', 'active')").execute(&db.pool).await.unwrap();
    let refused = Server::open(Some(&db.url)).await.err().unwrap();
    assert!(matches!(&refused, Error::Refused(why) if why.contains("holds campaigns")), "{refused}");
}

#[tokio::test]
async fn a_role_that_may_not_make_databases_is_told_so() {
    let db = Db::empty().await;
    db.script("DROP ROLE IF EXISTS bench_guest; CREATE ROLE bench_guest LOGIN").await.unwrap();
    let url = db.url.replacen("campaignd@", "bench_guest@", 1);
    let refused = Server::open(Some(&url)).await.err().unwrap();
    assert!(matches!(&refused, Error::Refused(why) if why.contains("ALTER ROLE bench_guest CREATEDB")), "{refused}");
}

#[tokio::test]
async fn scratch_databases_are_gone_afterwards_also_after_an_error() {
    let db = Db::empty().await;
    let server = Server::open(Some(&db.url)).await.unwrap();
    let (_cancel, cancelled) = watch::channel(false);
    let bench = Bench::new(settings("gone"), server, cancelled);

    let failed: Result<String, Error> = async {
        let scratch = bench.scratch("failing").await?;
        sqlx::query("INSERT INTO campaigns (name, status) VALUES ('c', 'active')")
            .execute(&scratch.pool)
            .await
            .unwrap();
        let (name,): (String,) =
            sqlx::query_as("SELECT current_database()::text").fetch_one(&scratch.pool).await.unwrap();
        assert!(databases(&db).await.contains(&name));
        Err(Error::Refused(name))
    }
    .await;
    let Err(Error::Refused(first)) = failed else { panic!("it fails") };
    bench.server().sweep().await;
    assert!(!databases(&db).await.contains(&first), "dropped although it was in use");

    // One that is still wanted when the run ends.
    let wanted = bench.scratch("wanted").await.unwrap();
    let (second,): (String,) = sqlx::query_as("SELECT current_database()::text").fetch_one(&wanted.pool).await.unwrap();
    bench.close().await;
    let left = databases(&db).await;
    assert!(!left.contains(&first) && !left.contains(&second), "{left:?}");
}

#[tokio::test]
async fn what_a_killed_run_left_behind_is_swept_up_and_a_living_runs_is_not() {
    let db = Db::empty().await;
    let living = measured::Run::enter(&db.url, "00000000aaaa").await.unwrap();
    let dead = measured::Run::enter(&db.url, "00000000bbbb").await.unwrap();
    let (kept, lost) = (living.database(0), dead.database(7));
    measured::create_database(&db.pool, &kept).await.unwrap();
    measured::create_database(&db.pool, &lost).await.unwrap();
    // Somebody else's, whose name only begins like ours.
    db.script("CREATE DATABASE campaignd_bench_mine").await.unwrap();
    dead.leave().await;

    // Its session goes a moment after it has left.
    while !measured::left_behind(&db.pool).await.unwrap().contains(&lost) {
        tokio::task::yield_now().await;
    }
    Server::open(Some(&db.url)).await.unwrap().close().await;
    let left = databases(&db).await;
    assert!(!left.contains(&lost), "{left:?}");
    assert!(left.contains(&kept) && left.contains(&"campaignd_bench_mine".to_owned()), "{left:?}");
    living.leave().await;
}

#[tokio::test]
async fn nothing_but_a_scratch_database_can_be_dropped() {
    let db = Db::empty().await;
    for name in ["campaignd_template", "campaignd_bench_x; DROP TABLE y", "postgres"] {
        assert!(measured::drop_database(&db.pool, name).await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn the_floors_are_measured_from_the_command_line() {
    let db = Db::empty().await;
    let report = scratch("floors");
    let mut command = Command::new(env!("CARGO_BIN_EXE_campaignd"));
    command.args(["bench", "floor", "--sizes", "10000", "--part-seconds", "2", "--json", "--report"]).arg(&report);
    command.env("DATABASE_URL", &db.url);
    let output: Output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let figures = json["parts"][0]["figures"].as_array().unwrap();
    let value = |name: &str| figures.iter().find(|f| f["name"] == name).and_then(|f| f["value"].as_f64());
    assert!(value("bare actor spawn").unwrap() > 1000.0, "{figures:#?}");
    // Where there is no pgbench, the figures say so instead.
    if let Some(many) = value("transitions, batch 512") {
        let one = value("transitions, batch 1").unwrap();
        assert!(many > one && one > 1.0, "{figures:#?}");
        assert!(value("WAL a transition, batch 512").unwrap() > 100.0);
        assert!(value("one-row commit p50").unwrap() > 0.0);
    } else {
        assert!(figures.iter().any(|f| f["note"].as_str().is_some_and(|n| n.contains("pgbench"))), "{figures:#?}");
    }
    for file in ["report.md", "report.json", "floor-latency.svg"] {
        assert!(report.join(file).is_file(), "{file}");
    }
}
