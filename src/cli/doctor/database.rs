//! The database: whether it answers, whose schema it has, who serves it, and what waits in it.

use std::time::{Duration, Instant};

use super::Report;
use crate::cli::database::{MAIN_DATABASE, in_database};
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::id::SHARDS;
use crate::domain::time::Timestamp;
use crate::postgres;
use crate::provider::Secret;
use crate::store::doctor::{self as rows, Sender};
use crate::store::migrate::{self, Standing};
use crate::store::{self, Pool};

/// Connections that `serve` uses besides database.connections.
const BESIDES: u32 = 19;
/// How far the two clocks may be apart.
const APART_MAX: Duration = Duration::from_secs(2);
/// After this long a fact that waits is no longer one that was just stored, in seconds.
const FACT_AGE_MAX: i64 = 60;

/// Looks at everything in the database. Answers the accounts that should send, if they could be read.
pub(super) async fn look(report: &mut Report, config: &Config) -> Option<Vec<Sender>> {
    let Some(pool) = connect(report, config).await else {
        skip(report, &["schema", "rights", "leases", "accounts", "work"], "the database cannot be asked about this");
        return None;
    };
    if !rights(report, &pool).await {
        skip(report, &["schema", "leases", "accounts", "work"], "the role cannot see the tables");
        return None;
    }
    if !schema(report, &pool).await {
        skip(report, &["leases", "accounts", "work"], "the tables are not all there");
        return None;
    }
    let accounts = match look_inside(report, config, &pool).await {
        Ok(accounts) => Some(accounts),
        Err(error) => {
            report.find(
                "database",
                error.to_string(),
                "look at the log of Postgres, and let the role read campaignd's tables",
            );
            None
        }
    };
    pool.close().await;
    accounts
}

fn skip(report: &mut Report, checks: &[&'static str], why: &str) {
    for check in checks {
        report.skip(check, why);
    }
}

async fn connect(report: &mut Report, config: &Config) -> Option<Pool> {
    const CHECK: &str = "database";
    let url = match &config.database_url {
        Some(url) => url.clone(),
        None => match postgres::running_url(&postgres::default_data_dir()) {
            Some(url) => Secret::new(in_database(&url, MAIN_DATABASE)),
            None => {
                report.note(
                    CHECK,
                    "DATABASE_URL is not set: a private Postgres is used, which runs while `campaignd serve` does, and not now",
                );
                return None;
            }
        },
    };
    let pool = match store::connect(url.expose(), 2).await {
        Ok(pool) => pool,
        Err(error) => {
            let todo = match error {
                _ if error.is_about_tls() => {
                    "look at sslmode and sslrootcert in DATABASE_URL, at the host's name in it, and at ssl in the settings of Postgres"
                }
                store::Error::Address(_) => "correct DATABASE_URL (or database.url)",
                store::Error::Unavailable { .. } => {
                    "start Postgres, or correct host and port in DATABASE_URL; `psql \"$DATABASE_URL\"` tells more"
                }
                _ => "correct user, password and database in DATABASE_URL, or let the role in (pg_hba.conf)",
            };
            report.find(CHECK, super::super::output::with_sources(&error), todo);
            return None;
        }
    };
    let began = Instant::now();
    match rows::server(&pool).await {
        Ok(server) => {
            // The answer was half way when the server looked at its clock.
            let took = began.elapsed();
            let ours = Clock::System.now() - took / 2;
            described(report, config, &server);
            clocks(report, ours, server.clock);
            Some(pool)
        }
        Err(error) => {
            report.find(CHECK, error.to_string(), "look at the log of Postgres");
            None
        }
    }
}

fn clocks(report: &mut Report, ours: Timestamp, theirs: Timestamp) {
    const CHECK: &str = "clock";
    let apart = ours.since(theirs).max(theirs.since(ours));
    if apart > APART_MAX {
        let says = format!("this machine's clock and the database's are {} s apart", apart.as_secs());
        return report.find(
            CHECK,
            says,
            "let NTP set both clocks (timedatectl status): due times go by ours, leases by its",
        );
    }
    report.well(CHECK, "this machine's and the database's agree");
}

fn described(report: &mut Report, config: &Config, server: &rows::Server) {
    const CHECK: &str = "database";
    if server.number < migrate::POSTGRES_MIN {
        return report.find(
            CHECK,
            format!("Postgres {} is too old", server.version),
            "use Postgres 15 or newer: upgrade the server, or take another one",
        );
    }
    if server.is_standby {
        return report.find(
            CHECK,
            "this server follows another one and takes no writes",
            "point DATABASE_URL at the primary, or promote this one",
        );
    }
    let needs = config.connections + BESIDES;
    if i64::from(needs) > i64::from(server.connections) {
        return report.find(
            CHECK,
            format!("campaignd needs {needs} connections, the server has {} for everybody", server.connections),
            "raise max_connections of Postgres, or lower database.connections",
        );
    }
    report.well(CHECK, format!("Postgres {} answers, as role {}", server.version, server.role));
}

/// Whether every table is there that what follows reads.
async fn schema(report: &mut Report, pool: &Pool) -> bool {
    const CHECK: &str = "schema";
    match migrate::standing(pool).await {
        Ok(Standing::Current) => report.well(CHECK, "up to date"),
        Ok(Standing::Behind { missing }) => {
            let numbers: Vec<String> = missing.iter().map(ToString::to_string).collect();
            report.find(
                CHECK,
                format!("migrations {} are missing", numbers.join(", ")),
                "run `campaignd migrate` (`serve` does it at its start as well)",
            );
            return false;
        }
        Ok(Standing::Newer { version }) => {
            let says = format!("a newer campaignd has applied migration {version}");
            report.find(CHECK, says, "use that campaignd, or a newer one: this one does not start here");
        }
        Ok(Standing::Changed { version }) => {
            let says = format!("migration {version} in the database is not this program's");
            report.find(CHECK, says, "use the campaignd that applied it");
        }
        Err(error) => {
            report.find(
                CHECK,
                error.to_string(),
                "let the role read campaignd_migrations, or connect as the owner of the tables",
            );
            return false;
        }
    }
    true
}

async fn look_inside(report: &mut Report, config: &Config, pool: &Pool) -> Result<Vec<Sender>, store::Error> {
    leases(report, &rows::owners(pool).await?);
    let accounts = rows::senders(pool).await?;
    senders(report, &accounts);
    let now = config.clock().now();
    work(report, config, &rows::waiting(pool, now).await?, now);
    Ok(accounts)
}

/// Whether the role can see what there is.
async fn rights(report: &mut Report, pool: &Pool) -> bool {
    const CHECK: &str = "rights";
    let rights = match rows::rights(pool).await {
        Ok(rights) => rights,
        Err(error) => {
            report.find(CHECK, error.to_string(), "look at the log of Postgres");
            return false;
        }
    };
    let owner = "connect as the owner of the tables, or as a role that is a member of it";
    if !rights.lacks.is_empty() {
        report.find(CHECK, format!("the role may not read and write {}", rights.lacks.join(", ")), owner);
    }
    if !rights.hidden.is_empty() {
        let says = format!("row-level security hides the rows of {} from the role", rights.hidden.join(", "));
        report.find(CHECK, says, owner);
    }
    if !rights.may_partition {
        report.find(CHECK, "the role cannot make the partitions of the coming months", owner);
    }
    if rights.lacks.is_empty() && rights.hidden.is_empty() && rights.may_partition {
        report.well(CHECK, "the role may do what is needed");
    }
    rights.see_migrations()
}

fn leases(report: &mut Report, owners: &[rows::Owner]) {
    const CHECK: &str = "leases";
    let all: i64 = owners.iter().map(|o| o.shards).sum();
    if all != i64::from(SHARDS) {
        report.find(
            CHECK,
            format!("shard_lease has {all} rows instead of {SHARDS}"),
            "restore the table from a backup",
        );
    }
    for owner in owners {
        let Some(node) = owner.node else {
            report.note(CHECK, format!("nobody serves {} shards; `campaignd serve` takes them", owner.shards));
            continue;
        };
        let build = owner.build.as_deref().unwrap_or("of an unknown version");
        let until = owner.until.map_or_else(String::new, |at| format!(" at {}", at.format("%H:%M:%S UTC")));
        if owner.lives && owner.is_current {
            report.well(CHECK, format!("node {node} ({build}) serves {} shards", owner.shards));
        } else if owner.is_current {
            // A cut connection looks the same for a moment.
            let says = format!("node {node} has {} shards, but its process has no connection", owner.shards);
            report.find(CHECK, says, "if it is gone, start `campaignd serve`: it takes over at once");
        } else {
            report.find(
                CHECK,
                format!("the lease of {} shards of node {node} ran out{until}", owner.shards),
                "start `campaignd serve`; if one runs, look at its log for why it cannot renew its lease",
            );
        }
    }
}

fn senders(report: &mut Report, accounts: &[Sender]) {
    const CHECK: &str = "accounts";
    let before = report.findings();
    for account in accounts {
        let who = format!("account {} ({})", account.id, account.channel);
        if account.status == "halted" {
            let why = account.reason.as_deref().unwrap_or("no reason is kept");
            report.find(
                CHECK,
                format!("{who} is halted: {why}"),
                format!(
                    "reconnect it at {}; it goes on by itself when the provider reports that it works",
                    account.provider
                ),
            );
        }
        if account.provider != "unipile" {
            let says = format!("{who} names the provider `{}`, which this program does not have", account.provider);
            report.find(CHECK, says, "correct its provider, or disable it");
        }
    }
    let unlimited = accounts.iter().filter(|a| a.is_unlimited).count();
    if unlimited > 0 {
        report.find(
            CHECK,
            format!("{unlimited} accounts have no limits: nothing keeps them from being blocked by their network"),
            "give each a kind: PATCH /v1/accounts/ID {\"limits\": {\"kind\": \"linkedin_premium\"}} (docs/api.md, Budgets of accounts)",
        );
    }
    if accounts.is_empty() {
        report.note(CHECK, "there are none yet: `campaignd account add` makes one");
    } else if report.findings() == before {
        report.well(CHECK, format!("{} are active, with limits", accounts.len()));
    }
}

fn work(report: &mut Report, config: &Config, waiting: &rows::Waiting, now: Timestamp) {
    const CHECK: &str = "work";
    let before = report.findings();
    let day = |at: Option<chrono::DateTime<chrono::Utc>>| {
        at.map_or_else(String::new, |at| at.format("%F %H:%M UTC").to_string())
    };
    if waiting.parked > 0 {
        report.find(
            CHECK,
            format!(
                "{} sends wait for a person's word, the oldest since {}",
                waiting.parked,
                day(waiting.parked_since)
            ),
            "campaignd sends list --parked says where to look; then `campaignd sends resolve ID --sent|--not-sent`",
        );
    }
    let age = waiting.facts_since.map_or(0, |at| (now.to_utc() - at).num_seconds());
    if age > FACT_AGE_MAX {
        report.find(
            CHECK,
            format!("{} facts wait in the inbox, the oldest since {}", waiting.facts, day(waiting.facts_since)),
            "is a server ready? If so docs/runbooks/CampaigndInboxBehind.md says what to do",
        );
    }
    if waiting.unreadable > 0 {
        report.find(
            CHECK,
            format!("{} facts of the last day could not be read", waiting.unreadable),
            "docs/runbooks/CampaigndFactsUnreadable.md says what to do",
        );
    }
    if waiting.with_links > 0 && config.public_url.is_none() {
        report.find(
            CHECK,
            format!(
                "{} active campaigns have a link to unsubscribe, and http.public_url is not set",
                waiting.with_links
            ),
            "set CAMPAIGND_HTTP__PUBLIC_URL to the address under which people reach http.listen",
        );
    }
    if report.findings() == before {
        report.well(CHECK, format!("{} campaigns are active; nothing waits for a person", waiting.campaigns));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_767_603_600_000_000);

    fn server() -> rows::Server {
        rows::Server {
            version: "17.2".to_owned(),
            number: 170_002,
            role: "campaignd".to_owned(),
            clock: NOW,
            is_standby: false,
            connections: 97,
        }
    }

    /// What is said about a server, and what to do about it.
    fn said(server: &rows::Server) -> (Level, String) {
        let mut report = Report::default();
        described(&mut report, &Config::default(), server);
        said_last(report)
    }

    fn said_last(mut report: Report) -> (Level, String) {
        assert_eq!(report.0.len(), 1);
        let check = report.0.remove(0);
        (check.level, format!("{} -> {}", check.says, check.todo.unwrap_or_default()))
    }

    #[test]
    fn a_server_that_is_too_old_a_standby_or_too_small_is_found_and_what_to_do_about_it_is_said() {
        assert_eq!(said(&server()).0, Level::Well);
        for (server, parts) in [
            (
                rows::Server { number: 140_012, version: "14.12".into(), ..server() },
                ["Postgres 14.12 is too old", "15 or newer"],
            ),
            (rows::Server { is_standby: true, ..server() }, ["takes no writes", "point DATABASE_URL at the primary"]),
            (
                rows::Server { connections: 20, ..server() },
                ["needs 39 connections, the server has 20", "raise max_connections"],
            ),
        ] {
            let (level, text) = said(&server);
            assert!(level == Level::Finding && parts.iter().all(|part| text.contains(part)), "{text}");
        }
    }

    #[test]
    fn clocks_that_are_apart_are_found_whichever_is_ahead() {
        let apart = |ours: Timestamp, theirs: Timestamp| {
            let mut report = Report::default();
            clocks(&mut report, ours, theirs);
            said_last(report)
        };
        for (ours, theirs) in [(NOW, NOW + Duration::from_secs(90)), (NOW + Duration::from_secs(90), NOW)] {
            let (level, text) = apart(ours, theirs);
            assert!(level == Level::Finding && text.contains("are 90 s apart -> let NTP"), "{text}");
        }
        assert_eq!(apart(NOW, NOW + APART_MAX).0, Level::Well);
    }
}
