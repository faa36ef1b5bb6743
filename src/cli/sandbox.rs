//! `campaignd sandbox`: the provider's sandbox alone.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args as ClapArgs, ValueEnum};

use super::output::Failure;
use super::serve::Stop;
use crate::clock::Clock;
use crate::config::Config;
use crate::sandbox::{self, Behaviour, Options};

/// Arguments of `sandbox`.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Any client written to Unipile's published v1 contract works against it: point it at http://ADDR with the key. Whatever it \
    sends is written into a ledger. People accept, reply, bounce, open and unsubscribe by themselves, as their names say \
    (jane-accepts-at-once, jane+bounces@example.com), or as they are told. docs/sandbox.md teaches all of it.\n\n\
    Examples:\n  \
    campaignd sandbox --people lifelike --speed 3600\n  \
    campaignd sandbox --set people.reply_share=0.5 --set new_relation_delay_max=8h\n\n  \
    What clients see, everything there is to look at and to change, what was really sent:\n  \
    curl -H 'X-API-KEY: sandbox' http://127.0.0.1:8090/api/v1/accounts\n  \
    curl http://127.0.0.1:8090/sandbox\n  \
    curl http://127.0.0.1:8090/sandbox/ledger/summary\n\n  \
    Make somebody do something now, and let three days pass:\n  \
    curl -X POST http://127.0.0.1:8090/sandbox/people/jane-doe/accept\n  \
    curl -d '{\"advance\":\"3d\"}' http://127.0.0.1:8090/sandbox/clock\n\n\
    CAMPAIGND_CLOCK__SPEED and CAMPAIGND_CLOCK__ORIGIN set its clock; give the daemon the same two."
)]
pub(super) struct Args {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8090", value_name = "ADDR")]
    listen: SocketAddr,
    /// What clients send as X-API-KEY.
    #[arg(long, default_value = "sandbox", env = "CAMPAIGND_SANDBOX_KEY", hide_env_values = true)]
    api_key: String,
    /// The same seed gives the same people, and the same answers to the same requests.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Goes into every id: give another word after a restart if the client remembers ids of before.
    #[arg(long, default_value = "", value_name = "WORD")]
    run: String,
    /// How people behave by themselves.
    #[arg(long, value_enum, default_value_t = People::Plain)]
    people: People,
    /// Change a setting, for example people.reply_share=0.5; GET /sandbox/settings lists them.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
    /// How many accounts of each kind.
    #[arg(long, default_value = "linkedin=2,mail=1,whatsapp=1", value_name = "KIND=N,..")]
    accounts: String,
    /// LinkedIn accounts that are not paid for: short notes, no InMail.
    #[arg(long = "free", value_name = "ACCOUNT_ID")]
    free: Vec<String>,
    /// Limits of what an account may do.
    #[arg(long, value_enum, default_value_t = Quotas::None)]
    quotas: Quotas,
    /// Invitations an account may send in 24 hours.
    #[arg(long, value_name = "N")]
    invites_per_day: Option<u32>,
    /// Let its time run so many times faster than real time, from now on.
    #[arg(long, value_name = "TIMES")]
    speed: Option<f64>,
    /// Append every effect to this file, one JSON line each, before it is answered.
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Share of webhooks that are delivered twice, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    duplicate_share: f64,
    /// Share of webhooks that are never delivered, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    loss_share: f64,
    /// Real waits before the retries of a webhook: as many retries as there are waits [default: 250ms,500ms,1s,2s,4s].
    #[arg(long, value_name = "STRETCH,..", value_delimiter = ',')]
    retry_delays: Option<Vec<String>>,
}

/// Ready-made crowds.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum People {
    /// They accept, reply, bounce and open.
    Plain,
    /// They also decline, unsubscribe, read, are out of office, hide their number, …
    Lifelike,
    /// They do nothing unless they are told to, or named so.
    Still,
}

/// Ready-made limits.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Quotas {
    /// No limits.
    None,
    /// What the provider recommends for each kind of account.
    Recommended,
}

impl Args {
    fn options(self, config: &Config) -> Result<Options, Failure> {
        let clock = match self.speed {
            None => config.clock(),
            Some(speed) if (0.001..=1_000_000.0).contains(&speed) => Clock::scaled_from_now(speed),
            Some(_) => return Err(Failure::unusable("--speed must be between 0.001 and 1000000")),
        };
        let mut accounts = accounts(&self.accounts)?;
        for id in &self.free {
            let account = accounts.iter_mut().find(|a| a.id == *id);
            account.ok_or_else(|| Failure::unusable(format!("--free {id}: there is no such account")))?.premium = false;
        }
        let quotas = match self.quotas {
            Quotas::None => Vec::new(),
            Quotas::Recommended => sandbox::recommended(&accounts),
        };
        let mut options = Options {
            listen: self.listen,
            api_key: self.api_key,
            clock,
            seed: self.seed,
            run: self.run,
            people: match self.people {
                People::Plain => Behaviour::default(),
                People::Lifelike => Behaviour::lifelike(),
                People::Still => Behaviour::still(),
            },
            accounts,
            quotas,
            invites_per_day: self.invites_per_day,
            ledger_path: self.ledger,
            webhook_duplicate_share: self.duplicate_share.clamp(0.0, 1.0),
            webhook_loss_share: self.loss_share.clamp(0.0, 1.0),
            ..Options::default()
        };
        if let Some(delays) = &self.retry_delays {
            let delays = serde_json::json!(delays).to_string();
            let wrong = |e| Failure::unusable(format!("--retry-delays: {e}"));
            options.set("webhook_retry_delays", &delays).map_err(wrong)?;
        }
        for setting in &self.settings {
            let (name, value) = setting
                .split_once('=')
                .ok_or_else(|| Failure::unusable(format!("--set {setting}: write it as NAME=VALUE")))?;
            options.set(name, value).map_err(|e| Failure::unusable(format!("--set {setting}: {e}")))?;
        }
        Ok(options)
    }
}

/// The accounts of `linkedin=2,mail=1,whatsapp=1`; a kind that is not named has none.
fn accounts(list: &str) -> Result<Vec<sandbox::AccountSpec>, Failure> {
    let mut counts = [0; 3];
    for part in list.split(',').filter(|p| !p.is_empty()) {
        let wrong = || Failure::unusable(format!("--accounts {part}: write it as linkedin=2, mail=1 or whatsapp=1"));
        let (kind, count) = part.split_once('=').ok_or_else(wrong)?;
        let place = ["linkedin", "mail", "whatsapp"].iter().position(|k| *k == kind.trim()).ok_or_else(wrong)?;
        counts[place] = count.trim().parse().ok().filter(|n| *n <= 100_000).ok_or_else(wrong)?;
    }
    Ok(sandbox::options::accounts(counts[0], counts[1], counts[2]))
}

pub(super) async fn run(args: Args, config: Config) -> Result<ExitCode, Failure> {
    let mut stop = Stop::new()?;
    let options = args.options(&config)?;
    let accounts = options.accounts.clone();
    let server = sandbox::start(options).await.map_err(Failure::unusable_by)?;
    eprintln!("the sandbox speaks Unipile v1 on http://{0} (look at http://{0}/sandbox)", server.addr());
    for account in accounts.iter().take(10) {
        eprintln!("  account {}  {}  {}", account.id, account.kind.as_str(), account.identity);
    }
    if accounts.len() > 10 {
        eprintln!("  and {} more: http://{}/sandbox/accounts", accounts.len() - 10, server.addr());
    }
    stop.requested().await;
    server.stop().await;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_read_by_kind_and_a_wrong_kind_is_named() {
        let made = accounts("linkedin=1,whatsapp=2").unwrap();
        assert_eq!(made.iter().map(|a| a.kind.as_str()).collect::<Vec<_>>(), ["LINKEDIN", "WHATSAPP", "WHATSAPP"]);
        for wrong in ["linkedin", "fax=1", "mail=many", "mail=1000000"] {
            assert!(accounts(wrong).is_err(), "{wrong}");
        }
    }
}
