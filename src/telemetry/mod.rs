//! What an engineer sees: the metrics catalogue and logging. Names live here only.
//!
//! Rooms count with `metrics::counter!(telemetry::SENDS, "channel" => .., "outcome" => ..)`; the constants below are the
//! names, [`CATALOG`] says what each one is. Label values are names of enums, never ids or texts, so that the number of series
//! does not grow with the number of prospects. `serve` installs the recorder, renders it at `/metrics` and tidies it up.

mod catalog;
mod logging;
mod metrics;
pub mod trace;

pub use self::catalog::{CATALOG, Kind, Label, Metric};
pub use self::logging::init_logging;
pub use self::metrics::{Error, Metrics, install};

/// Constant 1; the version is its label (gauge; label `version`).
pub const BUILD_INFO: &str = "campaignd_build_info";
/// Live prospect actors (gauge).
pub const RESIDENTS: &str = "campaignd_residents";
/// Executions without a live actor that have a wake-up (gauge).
pub const PARKED: &str = "campaignd_parked";
/// Actors that gave way because more were live than there may be (counter).
pub const PASSIVATED: &str = "campaignd_passivated_total";
/// Executions that are due and wait for room in their account's backlog (gauge; label `channel`).
pub const CHANNEL_LINE: &str = "campaignd_channel_line";
/// Sends that the channels of the accounts have (gauge; label `channel`).
pub const CHANNEL_QUEUE: &str = "campaignd_channel_queue";
/// Durable transitions by trigger (counter; label `trigger`).
pub const TRANSITIONS: &str = "campaignd_transitions_total";
/// From handing a change to the writer to its commit, in seconds (histogram).
pub const COMMIT_SECONDS: &str = "campaignd_persist_commit_seconds";
/// Rows in one group commit (histogram).
pub const COMMIT_ROWS: &str = "campaignd_persist_batch_rows";
/// From the arrival of a trigger to its durable transition, in seconds (histogram; label `trigger`).
pub const REACTION_SECONDS: &str = "campaignd_reaction_seconds";
/// How long after its due time a timer was handled, in real seconds (histogram).
pub const TIMER_LATENESS_SECONDS: &str = "campaignd_timer_lateness_seconds";
/// Finished sends (counter; labels `channel`, `outcome`).
pub const SENDS: &str = "campaignd_sends_total";
/// Duration of a provider call in seconds (histogram; label `channel`).
pub const PROVIDER_SECONDS: &str = "campaignd_provider_call_seconds";
/// Webhooks taken in (counter; label `outcome`: accepted, duplicate, refused).
pub const WEBHOOKS: &str = "campaignd_webhooks_total";
/// Inbox rows processed (counter; label `outcome`: applied, ignored, failed).
pub const INBOX: &str = "campaignd_inbox_processed_total";
/// Facts from providers, by what they say (counter; label `event`).
pub const FACTS: &str = "campaignd_facts_total";
/// Reads of an account's lists that make up for lost webhooks (counter; labels `list`, `outcome`: done, failed).
pub const CATCH_UP_READS: &str = "campaignd_catch_up_reads_total";
/// Facts that only such a read has told (counter; label `list`).
pub const CATCH_UP_FACTS: &str = "campaignd_catch_up_facts_total";
/// Executions put into quarantine (counter).
pub const QUARANTINED: &str = "campaignd_quarantined_total";
/// Actors restarted after a panic (counter).
pub const ACTOR_RESTARTS: &str = "campaignd_actor_restarts_total";
/// Rehydrated executions (counter).
pub const REHYDRATED: &str = "campaignd_rehydrated_total";
/// HTTP requests (counter; labels `route`, `method`, `code`).
pub const HTTP_REQUESTS: &str = "campaignd_http_requests_total";
/// HTTP request duration in seconds (histogram; label `route`).
pub const HTTP_SECONDS: &str = "campaignd_http_request_seconds";
