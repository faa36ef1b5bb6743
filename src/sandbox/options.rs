//! What a sandbox can be told at its start.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::behaviour::Behaviour;
use super::quota::Quota;
use crate::clock::Clock;

/// Id of the first LinkedIn account of the default set.
pub const LINKEDIN_ONE: &str = "li_account_one_0000000";
/// Id of the second LinkedIn account of the default set.
pub const LINKEDIN_TWO: &str = "li_account_two_0000000";
/// Id of the Google mailbox of the default set.
pub const MAIL_ONE: &str = "mail_account_one_00000";
/// Id of the WhatsApp account of the default set.
pub const WHATSAPP_ONE: &str = "wa_account_one_0000000";

/// What an account sends with; `wire` is the provider's own word for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountKind {
    /// `LINKEDIN`.
    LinkedIn,
    /// `GOOGLE_OAUTH`: a mailbox.
    Mail,
    /// `WHATSAPP`.
    WhatsApp,
}

impl AccountKind {
    /// The provider's own word for it.
    pub const fn as_str(self) -> &'static str {
        self.wire()
    }

    /// The kind behind a provider's word; the sandbox has one kind of mailbox for all of its words for mail.
    pub(super) fn of_wire(word: &str) -> Option<Self> {
        match word {
            "LINKEDIN" => Some(Self::LinkedIn),
            "WHATSAPP" => Some(Self::WhatsApp),
            "MAIL" | "GOOGLE" | "GOOGLE_OAUTH" | "OUTLOOK" | "EXCHANGE" | "ICLOUD" => Some(Self::Mail),
            _ => None,
        }
    }

    pub(super) const fn wire(self) -> &'static str {
        match self {
            Self::LinkedIn => "LINKEDIN",
            Self::Mail => "GOOGLE_OAUTH",
            Self::WhatsApp => "WHATSAPP",
        }
    }
}

/// One account the sandbox has connected.
#[derive(Clone, Debug)]
pub struct AccountSpec {
    /// The account's id on the wire; at most 64 characters of `[A-Za-z0-9_-]`.
    pub id: String,
    /// Display name; for a mailbox also the name in `From`.
    pub name: String,
    /// What it sends with.
    pub kind: AccountKind,
    /// Public slug (LinkedIn), address (mail) or number in digits (WhatsApp) of the account itself.
    pub identity: String,
    /// Whether a LinkedIn account is paid for: notes of 300 characters, and `InMail`. Without it 200, and none.
    pub premium: bool,
    /// Other addresses a mailbox may send from.
    pub aliases: Vec<String>,
}

impl AccountSpec {
    fn new(id: String, name: String, kind: AccountKind, identity: String) -> Self {
        Self { id, name, kind, identity, premium: kind == AccountKind::LinkedIn, aliases: Vec::new() }
    }
}

/// The accounts every sandbox has unless told otherwise: two LinkedIn accounts, one Google mailbox, one WhatsApp number.
pub fn default_accounts() -> Vec<AccountSpec> {
    accounts(2, 1, 1)
}

/// So many accounts of each kind. The first ones are those of [`default_accounts`]; the others have ids like
/// `li_account_0003_00000`, `mail_account_0002_000`, `wa_account_0002_00000`, padded to 22 characters.
pub fn accounts(linkedin: usize, mail: usize, whatsapp: usize) -> Vec<AccountSpec> {
    let mut list = Vec::with_capacity(linkedin + mail + whatsapp);
    for n in 1..=linkedin {
        let (id, name, identity) = match n {
            1 => (LINKEDIN_ONE.to_owned(), "Ada Sender".to_owned(), "ada-sender".to_owned()),
            2 => (LINKEDIN_TWO.to_owned(), "Ben Sender".to_owned(), "ben-sender".to_owned()),
            n => (padded("li", n), format!("Sender {n}"), format!("sender-{n}")),
        };
        list.push(AccountSpec::new(id, name, AccountKind::LinkedIn, identity));
    }
    for n in 1..=mail {
        let (id, name, identity) = match n {
            1 => (MAIL_ONE.to_owned(), "Ada Sender".to_owned(), "ada@sender.example".to_owned()),
            n => (padded("mail", n), format!("Sender {n}"), format!("sender-{n}@sender.example")),
        };
        list.push(AccountSpec::new(id, name, AccountKind::Mail, identity));
    }
    for n in 1..=whatsapp {
        let id = if n == 1 { WHATSAPP_ONE.to_owned() } else { padded("wa", n) };
        let name = if n == 1 { "Ada Sender".to_owned() } else { format!("Sender {n}") };
        let identity = format!("336{:08}", 1 + 100 * (n - 1));
        list.push(AccountSpec::new(id, name, AccountKind::WhatsApp, identity));
    }
    list
}

/// An account id as long as the provider's.
fn padded(prefix: &str, n: usize) -> String {
    format!("{:0<22}", format!("{prefix}_account_{n:04}_"))
}

/// Everything a sandbox can be told. `Debug` hides the key.
#[derive(Clone)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The key `X-API-KEY` must carry.
    pub api_key: String,
    /// The clock people live by.
    pub clock: Clock,
    /// Two sandboxes with the same seed hold the same people, and answer the same requests the same.
    pub seed: u64,
    /// Goes into every id the sandbox makes. Give a restarted sandbox another word than before if its client remembers ids,
    /// or what is new will be taken for what was.
    pub run: String,
    /// How people behave.
    pub people: Behaviour,
    /// The connected accounts.
    pub accounts: Vec<AccountSpec>,
    /// Also append the ledger here, one JSON object a line, flushed at the moment of each effect.
    pub ledger_path: Option<PathBuf>,
    /// Share of LinkedIn's answers to messages in which an id is null though the message was sent; each id for itself.
    pub null_ids_share: f64,
    /// Invitations an account may send in 24 hours of the clock; then 422 `errors/cannot_resend_yet`. `None`: no end.
    pub invites_per_day: Option<u32>,
    /// What else accounts may do in a rolling window of the clock.
    pub quotas: Vec<Quota>,
    /// `InMail` credits of a premium account at the start.
    pub inmail_credits: u32,
    /// Whether `List-Unsubscribe` and `List-Unsubscribe-Post` are let through as custom headers. The published list of
    /// allowed names has neither, and a name of its own in their place.
    pub list_unsubscribe: bool,
    /// `new_relation` comes this late at most, on the clock.
    pub new_relation_delay_max: Duration,
    /// Real waits before the retries of a webhook that was not answered 200; after the last it is dropped.
    pub webhook_retry_delays: Vec<Duration>,
    /// Real time a webhook's receiver has to answer.
    pub webhook_timeout: Duration,
    /// Requests of one webhook under way at once.
    pub webhook_concurrency: usize,
    /// On LinkedIn, reads show a message this late at most, on the clock. Zero: at once.
    pub read_lag_max: Duration,
    /// Share of webhooks that are delivered twice.
    pub webhook_duplicate_share: f64,
    /// Share of webhooks that are never delivered.
    pub webhook_loss_share: f64,
    /// Every webhook is held for a drawn time of the clock up to this. Zero: not held.
    pub webhook_delay_max: Duration,
    /// Share of the news held during a disconnection that is lost instead of told afterwards.
    pub held_loss_share: f64,
    /// Every webhook is held for a random real time up to this, so that they overtake each other. Zero: not held.
    pub webhook_shuffle: Duration,
    /// Messages, mails, ledger entries and undelivered webhooks kept of each; older ones are forgotten (the ledger's file is not).
    pub history: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8090)),
            api_key: "sandbox".to_owned(),
            clock: Clock::System,
            seed: 1,
            run: String::new(),
            people: Behaviour::default(),
            accounts: default_accounts(),
            ledger_path: None,
            null_ids_share: 0.02,
            invites_per_day: None,
            quotas: Vec::new(),
            inmail_credits: 50,
            list_unsubscribe: true,
            new_relation_delay_max: Duration::from_secs(300),
            webhook_retry_delays: [250, 500, 1000, 2000, 4000].map(Duration::from_millis).to_vec(),
            webhook_timeout: Duration::from_secs(30),
            webhook_concurrency: 32,
            read_lag_max: Duration::ZERO,
            webhook_duplicate_share: 0.0,
            webhook_loss_share: 0.0,
            webhook_delay_max: Duration::ZERO,
            held_loss_share: 0.0,
            webhook_shuffle: Duration::ZERO,
            history: 1_000_000,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("listen", &self.listen)
            .field("api_key", &"hidden")
            .field("clock", &self.clock)
            .field("seed", &self.seed)
            .field("people", &self.people)
            .field("accounts", &self.accounts.iter().map(|a| &a.id).collect::<Vec<_>>())
            .field("ledger_path", &self.ledger_path)
            .finish_non_exhaustive()
    }
}
