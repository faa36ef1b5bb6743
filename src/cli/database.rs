//! `migrate`, `db url`, `key`: what needs only the database.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::output::Failure;
use crate::config::Config;
use crate::postgres::{self, Private};
use crate::provider::Secret;
use crate::service::{self, DEFAULT_WORKSPACE};
use crate::store::database::DEMO_DATABASE;
use crate::store::{self, Pool, api_key, migrate};

/// Database of `serve` and the other commands in the private cluster.
pub(super) const MAIN_DATABASE: &str = "campaignd";

/// Arguments of `migrate`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  DATABASE_URL=postgres://user@host/db campaignd migrate\n\n\
    Tables of the old orchestrator are taken over: nothing is dropped or renamed, missing columns are added, and their \
    prospects go on from where they stand. Running it again changes nothing.")]
pub(super) struct MigrateArgs {
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

/// `campaignd db`.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print the URL of the private Postgres, for psql. It runs while `serve` or `demo` does.
    #[command(after_help = "Example:\n  psql \"$(campaignd db url)\"")]
    Url {
        /// The demo's database instead of the main one.
        #[arg(long)]
        demo: bool,
    },
}

/// `campaignd key`.
#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Make a key and print it, once. It is also kept for this machine's commands, readable by you only.
    Create {
        /// A name for people.
        #[arg(long, default_value = "cli")]
        name: String,
    },
    /// List the keys.
    List,
    /// Revoke a key by its id.
    Revoke {
        /// The part after `cmp_`.
        id: String,
    },
}

/// Where the database is. Runs the private one when no URL is configured; keep the answer alive.
pub(super) async fn connect_url(config: &Config) -> Result<(Secret, Option<Private>), Failure> {
    if let Some(url) = &config.database_url {
        return Ok((url.clone(), None));
    }
    let private = start_private().await?;
    Ok((Secret::new(private.url()), Some(private)))
}

/// Runs the private Postgres, or finds the one that another campaignd runs.
pub(super) async fn start_private() -> Result<Private, Failure> {
    tokio::task::spawn_blocking(|| postgres::start(postgres::Options::durable()))
        .await
        .map_err(Failure::unusable)?
        .map_err(Failure::unusable_by)
}

/// Connects for a command. A few connections do.
pub(super) async fn open(url: &Secret) -> Result<Pool, Failure> {
    store::connect(url.expose(), 5).await.map_err(Failure::unusable_by)
}

pub(super) async fn migrate(args: MigrateArgs, config: Config) -> Result<ExitCode, Failure> {
    let (url, _private) = connect_url(&config).await?;
    let pool = open(&url).await?;
    let report = migrate::migrate(&pool).await.map_err(Failure::refused_by)?;
    if args.json {
        println!(
            "{}",
            serde_json::json!({
                "applied": report.applied,
                "already_up_to_date": report.already_up_to_date,
                "adopted_executions": report.adopted.as_ref().map(|a| a.executions),
            })
        );
        return Ok(ExitCode::SUCCESS);
    }
    if report.already_up_to_date {
        println!("the schema is up to date; nothing was changed");
    }
    for applied in &report.applied {
        println!("applied {applied}");
    }
    if let Some(adopted) = &report.adopted {
        println!("took over {} executions where they stand", adopted.executions);
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn run(command: Command, config: Config) -> Result<ExitCode, Failure> {
    let Command::Url { demo } = command;
    if let Some(url) = &config.database_url {
        println!("{}", url.expose());
        return Ok(ExitCode::SUCCESS);
    }
    let url = postgres::running_url(&postgres::default_data_dir()).ok_or_else(|| {
        Failure::unusable(
            "the private Postgres is not running: it runs while `campaignd serve` or `campaignd demo` does",
        )
    })?;
    println!("{}", in_database(&url, if demo { DEMO_DATABASE } else { MAIN_DATABASE }));
    Ok(ExitCode::SUCCESS)
}

/// The same server, another database.
pub(super) fn in_database(url: &str, database: &str) -> String {
    match url.rfind('/') {
        Some(slash) => format!("{}/{database}", &url[..slash]),
        None => url.to_owned(),
    }
}

pub(super) async fn key(command: KeyCommand, config: Config) -> Result<ExitCode, Failure> {
    let (url, _private) = connect_url(&config).await?;
    let pool = open(&url).await?;
    migrate::migrate(&pool).await.map_err(Failure::refused_by)?;
    let now = config.clock().now();
    match command {
        KeyCommand::Create { name } => {
            let key = api_key::create(&pool, DEFAULT_WORKSPACE, &name, now).await.map_err(Failure::refused)?;
            keep_key(&key.reveal())?;
            println!("{}", key.reveal());
        }
        KeyCommand::List => {
            for key in api_key::list(&pool, DEFAULT_WORKSPACE).await.map_err(Failure::refused)? {
                let state = key.revoked_at.map_or_else(|| "live".to_owned(), |at| format!("revoked {at}"));
                println!("{}  {:20}  {}  {state}", key.id, key.name, key.created_at);
            }
        }
        KeyCommand::Revoke { id } => {
            if !api_key::revoke(&pool, DEFAULT_WORKSPACE, &id, now).await.map_err(Failure::refused)? {
                return Err(Failure::refused(format!("there is no live key `{id}`: see `campaignd key list`")));
            }
            println!("revoked {id}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Where this machine's commands find the API key.
pub(crate) fn key_file() -> PathBuf {
    let data = postgres::default_data_dir();
    data.parent().map_or_else(|| data.clone(), PathBuf::from).join("api-key")
}

/// Keeps a key for this machine's commands, readable by the owner only.
pub(super) fn keep_key(key: &str) -> Result<(), Failure> {
    let path = key_file();
    let write = || -> std::io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        // The mode above is for a new file only.
        file.set_permissions(Permissions::from_mode(0o600))?;
        writeln!(file, "{key}")
    };
    write().map_err(|e| Failure::unusable(format!("cannot write the API key to {}: {e}", path.display())))
}

/// Makes the first key of a database that has none, keeps it and answers it.
pub(super) async fn ensure_key(pool: &Pool, config: &Config) -> Result<Option<String>, Failure> {
    let key = service::first_key(pool, &config.clock()).await.map_err(Failure::refused)?;
    if let Some(key) = &key {
        keep_key(&key.reveal())?;
    }
    Ok(key.map(|k| k.reveal()))
}
