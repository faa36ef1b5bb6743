//! The command line: `campaignd <command>`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Config;
use crate::telemetry;
use output::Failure;

pub mod account;
mod bench;
pub mod campaign;
pub mod client;
mod database;
mod demo;
mod doctor;
pub mod listing;
mod live;
pub mod output;
mod people;
pub mod prospect;
pub mod prospects;
mod sandbox;
pub mod sends;
mod serve;
pub mod suppressions;

/// Multi-channel outreach campaigns, one supervised actor per prospect, every transition durable in Postgres.
#[derive(Debug, Parser)]
#[command(name = "campaignd", version, propagate_version = true, max_term_width = 110)]
#[command(
    after_help = "Start here:\n  campaignd demo          the seed's campaign for 200 people, five days in a minute\n  \
    campaignd serve         the daemon (a private Postgres unless DATABASE_URL is set)\n  \
    campaignd campaign check flow.json"
)]
struct Cli {
    /// Settings, as TOML. CAMPAIGND_<SECTION>__<KEY> overrides them.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How the log is written, in place of log.json.
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    #[command(subcommand)]
    command: Command,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the seed's three-step campaign against the sandbox, live in this terminal.
    Demo(demo::Args),
    /// Run the daemon: API on 127.0.0.1:8080, metrics on 127.0.0.1:9464/metrics.
    Serve(serve::Args),
    /// Look at everything a server needs, and say what to do about what is found.
    Doctor(doctor::Args),
    /// Bring the schema up to date, or take over the tables of the old orchestrator.
    Migrate(database::MigrateArgs),
    /// Check flow files; make, list, start and pause campaigns.
    #[command(subcommand)]
    Campaign(campaign::Command),
    /// Take people into a campaign and list them.
    #[command(subcommand)]
    Prospects(prospects::Command),
    /// Show one person in a campaign; pause, resume, skip, restart or stop them.
    #[command(subcommand)]
    Prospect(prospect::Command),
    /// List and add sending accounts.
    #[command(subcommand)]
    Account(account::Command),
    /// What was sent; decide what became of sends that could not be found out.
    #[command(subcommand)]
    Sends(sends::Command),
    /// Who is not written to: add, list, remove and import addresses, domains, profiles and phone numbers.
    #[command(subcommand)]
    Suppressions(suppressions::Command),
    /// About the database.
    #[command(subcommand)]
    Db(database::Command),
    /// Keys of the HTTP API.
    #[command(subcommand)]
    Key(database::KeyCommand),
    /// Measure the engine on this machine: throughput, reaction, restart, memory, with the floors beside them.
    Bench(bench::Args),
    /// Run the provider's sandbox alone: a server that speaks Unipile's wire and plays the people.
    Sandbox(sandbox::Args),
}

/// Runs the command line of this process and answers its exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = match Config::load(cli.config.as_deref()) {
        Ok(config) => config,
        Err(error) => return fail(&Failure::unusable(error)),
    };
    let json = cli.log_format.map_or(config.log_json, |format| format == LogFormat::Json);
    telemetry::init_logging(json, true, !matches!(cli.command, Command::Serve(_) | Command::Sandbox(_)));
    // Every TLS client of the process uses it; an error means that it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Before the runtime's threads: a private Postgres must not be a child of one of them.
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Failure::unusable(format!("cannot start the async runtime: {error}"))),
    };
    match runtime.block_on(run(cli.command, config, cli.config)) {
        Ok(code) => code,
        Err(failure) => fail(&failure),
    }
}

async fn run(command: Command, config: Config, file: Option<PathBuf>) -> Result<ExitCode, Failure> {
    match command {
        Command::Demo(args) => demo::run(args, config).await,
        Command::Serve(args) => serve::run(args, config).await,
        Command::Doctor(args) => doctor::run(args, config, file).await,
        Command::Migrate(args) => database::migrate(args, config).await,
        Command::Campaign(command) => command.run().await,
        Command::Prospects(command) => command.run().await,
        Command::Prospect(command) => command.run().await,
        Command::Account(command) => command.run().await,
        Command::Sends(command) => command.run().await,
        Command::Suppressions(command) => command.run().await,
        Command::Db(command) => database::run(command, config).await,
        Command::Key(command) => database::key(command, config).await,
        Command::Bench(args) => bench::run(args, config).await,
        Command::Sandbox(args) => sandbox::run(args, config).await,
    }
}

fn fail(failure: &Failure) -> ExitCode {
    eprintln!("campaignd: {failure}");
    failure.into()
}
