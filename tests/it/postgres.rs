//! The private Postgres: started, found again, given back.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use campaignd::postgres::{self, Options};
use sqlx::{Connection, PgConnection};

use crate::harness::scratch;

async fn is_up(url: &str) -> bool {
    match PgConnection::connect(url).await {
        Ok(conn) => conn.close().await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test]
async fn a_durable_cluster_asks_for_its_password_and_keeps_its_data() {
    let data_dir = scratch("durable").join("pg");
    let options = Options { data_dir: data_dir.clone(), durable: true };
    let cluster = postgres::start(options.clone()).unwrap();
    assert!(cluster.is_owned());
    let mut conn = PgConnection::connect(cluster.url()).await.unwrap();
    sqlx::query("CREATE TABLE kept (n integer)").execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();

    let (_, rest) = cluster.url().split_once(':').unwrap();
    let password = rest.split(['@', ':']).nth(1).unwrap().to_owned();
    assert_eq!(password.len(), 64);
    assert!(!format!("{cluster:?}").contains(&password), "the password is not for logs");
    assert!(!is_up(&cluster.url().replace(&password, "wrong")).await);
    let file = data_dir.with_file_name("pg.password");
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);

    let url = cluster.url().to_owned();
    cluster.stop();
    assert!(!is_up(&url).await);
    assert_eq!(postgres::running_url(&data_dir), None);

    let again = postgres::start(options).unwrap();
    let mut conn = PgConnection::connect(again.url()).await.unwrap();
    sqlx::query("SELECT n FROM kept").fetch_all(&mut conn).await.unwrap();
    conn.close().await.unwrap();
}

#[tokio::test]
async fn a_cluster_that_runs_already_is_used_and_left_running() {
    let data_dir = scratch("shared").join("pg");
    let owner = postgres::start(Options::throwaway(data_dir.clone())).unwrap();
    assert_eq!(postgres::running_url(&data_dir).as_deref(), Some(owner.url()));

    let guest = postgres::start(Options::throwaway(data_dir)).unwrap();
    assert!(!guest.is_owned());
    assert_eq!(guest.url(), owner.url());
    guest.stop();
    assert!(is_up(owner.url()).await);
}

#[tokio::test]
async fn a_pid_file_that_no_server_stands_behind_does_not_keep_it_from_starting() {
    let data_dir = scratch("stale").join("pg");
    postgres::start(Options::throwaway(data_dir.clone())).unwrap().stop();
    // Our own pid: a live process, which is no server on that directory.
    let stale = format!("{}\n{}\n0\n5432\n\n127.0.0.1\n\nready\n", std::process::id(), data_dir.display());
    fs::write(data_dir.join("postmaster.pid"), stale).unwrap();
    let cluster = postgres::start(Options::throwaway(data_dir)).unwrap();
    assert!(cluster.is_owned());
    assert!(is_up(cluster.url()).await);
}

#[tokio::test]
async fn a_directory_with_other_files_is_refused_and_left_alone() {
    let data_dir = scratch("strange").join("pg");
    fs::create_dir_all(&data_dir).unwrap();
    fs::write(data_dir.join("thesis.txt"), "important").unwrap();
    let error = postgres::start(Options::throwaway(data_dir.clone())).unwrap_err();
    assert!(error.to_string().contains("neither empty nor a cluster"), "{error}");
    assert!(data_dir.join("thesis.txt").exists());
}

#[tokio::test]
async fn a_start_that_fails_shows_the_end_of_the_log() {
    let data_dir = scratch("broken").join("pg");
    postgres::start(Options::throwaway(data_dir.clone())).unwrap().stop();
    fs::write(data_dir.join("postgresql.conf"), "no_such_setting = 1\n").unwrap();
    let error = postgres::start(Options::throwaway(data_dir)).unwrap_err();
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

/// Runs in a process of its own, which the test below kills.
#[tokio::test]
#[ignore = "started by a_server_dies_with_the_process_that_runs_it"]
async fn helper_that_runs_a_server_until_it_is_killed() {
    let cluster = postgres::start(Options::throwaway(std::env::var("HELPER_DATA_DIR").unwrap().into())).unwrap();
    println!("helper: {}", cluster.url());
    std::future::pending::<()>().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_server_dies_with_the_process_that_runs_it() {
    use std::io::{BufRead, BufReader};

    let data_dir = scratch("orphan").join("pg");
    let mut helper = Command::new(std::env::current_exe().unwrap())
        .args(["postgres::helper_that_runs_a_server_until_it_is_killed", "--exact", "--ignored", "--nocapture"])
        .env("HELPER_DATA_DIR", &data_dir)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(helper.stdout.take().unwrap()).lines();
    let url = lines.find_map(|l| l.unwrap().split("helper: ").nth(1).map(str::to_owned)).unwrap();
    assert!(is_up(&url).await);
    helper.kill().unwrap(); // SIGKILL: nothing of ours runs any more
    helper.wait().unwrap();

    let begun = std::time::Instant::now();
    while is_up(&url).await {
        assert!(begun.elapsed().as_secs() < 20, "the server of a dead process still runs");
    }
    // A start waits for the old server's end: it would find the directory in use.
    let cluster = postgres::start(Options::throwaway(data_dir)).unwrap();
    assert!(cluster.is_owned());
    assert!(is_up(cluster.url()).await);
}
