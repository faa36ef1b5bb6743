//! `campaignd sandbox`: the provider's sandbox alone.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args as ClapArgs;

use super::output::Failure;
use super::serve::Stop;
use crate::config::Config;
use crate::sandbox::{self, Options};

/// Arguments of `sandbox`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:\n  campaignd sandbox --listen 127.0.0.1:8090 --api-key sandbox\n  \
    curl -H 'X-API-KEY: sandbox' http://127.0.0.1:8090/api/v1/accounts\n  \
    curl http://127.0.0.1:8090/sandbox/ledger\n\n\
    CAMPAIGND_CLOCK__SPEED and CAMPAIGND_CLOCK__ORIGIN set its clock; give the daemon the same two.")]
pub(super) struct Args {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8090", value_name = "ADDR")]
    listen: SocketAddr,
    /// What clients send as X-API-KEY.
    #[arg(long, default_value = "sandbox", env = "CAMPAIGND_SANDBOX_KEY", hide_env_values = true)]
    api_key: String,
    /// People with the same seed behave the same.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Append every effect to this file, one JSON line each, before it is answered.
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Share of webhooks that are delivered twice, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    duplicate_share: f64,
}

pub(super) async fn run(args: Args, config: Config) -> Result<ExitCode, Failure> {
    let mut stop = Stop::new()?;
    let options = Options {
        listen: args.listen,
        api_key: args.api_key,
        clock: config.clock(),
        seed: args.seed,
        ledger_path: args.ledger,
        webhook_duplicate_share: args.duplicate_share.clamp(0.0, 1.0),
        ..Options::default()
    };
    let server = sandbox::start(options).await.map_err(Failure::unusable_by)?;
    eprintln!("the sandbox speaks Unipile v1 on http://{0} (ledger: http://{0}/sandbox/ledger)", server.addr());
    for account in sandbox::options::default_accounts() {
        eprintln!("  account {}  {}  {}", account.id, account.kind.as_str(), account.identity);
    }
    stop.requested().await;
    server.stop().await;
    Ok(ExitCode::SUCCESS)
}
