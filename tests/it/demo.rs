//! The demo as a process.

use std::process::Stdio;
use std::time::Duration;

use campaignd::store;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::harness::{Db, scratch};
use crate::lease::{acquire_when_free, kill_holders};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demo_that_has_lost_its_lease_ends_and_says_so() {
    let db = Db::new().await;
    let mut demo = Command::new(env!("CARGO_BIN_EXE_campaignd"))
        .args(["demo", "--prospects", "3", "--speed", "200000"])
        .env("DATABASE_URL", &db.url)
        .env("CAMPAIGND_DATA_DIR", scratch("demo-data"))
        .env("CAMPAIGND_HTTP__LISTEN", "127.0.0.1:0")
        .env("CAMPAIGND_HTTP__METRICS_LISTEN", "127.0.0.1:0")
        .env("CAMPAIGND_RUNTIME__LEASE_SECONDS", "5")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = BufReader::new(demo.stderr.take().unwrap()).lines();
    let mut heard = String::new();
    // Everybody is through: from here on only a signal, or the lease, ends it.
    tokio::time::timeout(Duration::from_secs(60), async {
        while let Some(line) = said.next_line().await.unwrap() {
            heard.push_str(&line);
            if line.contains("the server goes on") {
                return;
            }
        }
        panic!("it ended: {heard}");
    })
    .await
    .expect("the demo comes to its end");
    kill_holders(&db.pool).await;
    let pool = store::connect(&db.url, 2).await.unwrap();
    let _thief = acquire_when_free(&pool).await;
    let rest = async {
        while let Some(line) = said.next_line().await.unwrap() {
            heard.push_str(&line);
        }
        demo.wait().await.unwrap()
    };
    let status = tokio::time::timeout(Duration::from_secs(60), rest).await.expect("it ends");
    assert_eq!(status.code(), Some(3), "{heard}");
    assert!(heard.contains("another campaignd has taken the shards over"), "{heard}");
}
