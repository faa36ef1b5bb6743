//! `campaignd bench`, run as a user runs it, small: every part finds what it looks for, and leaves nothing behind.
//!
//! The parts that are held against a floor need one, which takes longer than a test may; what they stand on (crowds, daemons,
//! the flow, open-loop load) is used by these.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{Db, scratch};

/// Measures `parts` at 500 prospects on the tests' server, and answers what `report.json` says of each.
async fn measured(parts: &[&str]) -> Vec<Value> {
    let db = Db::empty().await;
    let directory = scratch("bench").join(parts.join("-"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_campaignd"));
    command
        .arg("bench")
        .args(parts)
        .args(["--sizes", "500", "--part-seconds", "2", "--report"])
        .arg(&directory)
        .env("DATABASE_URL", &db.url)
        .env("CAMPAIGND_DATA_DIR", &directory)
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}", output.status);

    let report: Value = serde_json::from_slice(&std::fs::read(directory.join("report.json")).unwrap()).unwrap();
    assert_eq!(report["not_measured"].as_array().unwrap().len(), 0, "{said}");
    let found = report["parts"].as_array().unwrap().clone();
    assert_eq!(found.iter().map(|p| p["name"].as_str().unwrap()).collect::<Vec<_>>(), parts);
    found
}

/// The value of a figure whose name begins so.
fn figure(part: &Value, name: &str) -> f64 {
    let figures = part["figures"].as_array().unwrap();
    let found = figures.iter().find(|f| f["name"].as_str().unwrap().starts_with(name));
    found.unwrap_or_else(|| panic!("no figure {name} in {part:#}"))["value"]
        .as_f64()
        .unwrap_or_else(|| panic!("{part:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_runs_in_turn_with_metrics_and_without() {
    let counting = &measured(&["counting"]).await[0];
    let [with, without] = ["with metrics", "without"].map(|n| figure(counting, &format!("durable transitions, {n}")));
    assert!(with > 1.0 && without > 1.0);
    assert!((figure(counting, "with metrics, of what is done without") - with / without).abs() < 1e-9);
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_fire_and_a_flow_runs_with_and_without_indexes() {
    let parts = measured(&["timers", "wal"]).await;
    let timers = &parts[0];
    assert_eq!(figure(timers, "timers fired in time"), 500.0);
    assert!(figure(timers, "lateness p50") > 0.0);
    assert!(figure(timers, "WAL a look") > 100.0);
    let wal = &parts[1];
    for shape in ["with an index on due times", "without"] {
        assert!(figure(wal, &format!("durable transitions, {shape}")) > 1.0);
        assert!(figure(wal, &format!("WAL a transition, {shape}")) > 100.0);
        assert!(figure(wal, &format!("get_next_pending_executions(10), {shape}")) > 0.0);
    }
    let hot = |shape: &str| figure(wal, &format!("HOT share, {shape}"));
    assert!(hot("without") > hot("with an index on due times"), "{wal:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_times_as_many_are_enrolled_as_resident_and_a_csv_is_taken_in() {
    let parts = measured(&["park", "upload"]).await;
    let park = &parts[0];
    assert!(figure(park, "resident") > 0.0);
    assert!(figure(park, "reaction of a parked one, idle p99") > 0.0);
    assert_eq!(figure(park, "not answered or failed"), 0.0);
    let upload = &parts[1];
    assert!(figure(upload, "rows taken in") > 1.0);
    assert!(figure(upload, "memory of the daemon, most") >= figure(upload, "memory of the daemon before"));
}
