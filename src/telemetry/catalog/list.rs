//! The list itself, by room.

use metrics::Unit;

use super::labels::{ACTION, CHANNEL, CLASS, DEFERRAL, EVENT, EXIT, LIST, POOLS, STAGE, TRIGGER, label};
use super::{Kind, Label, Metric};
use crate::telemetry::names::*;

/// Buckets for times in seconds, from a commit to a slow provider. Holds the thresholds of the service levels (1 s, 5 s).
const FAST: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Buckets for times in seconds that may be long: a fact that waits for Postgres.
const LONG: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3600.0];
/// Buckets for rows in a batch.
const ROWS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

const fn metric(name: &'static str, kind: Kind, labels: &'static [Label], help: &'static str) -> Metric {
    Metric { name, kind, unit: None, labels, help, buckets: &[] }
}

const fn counter(name: &'static str, labels: &'static [Label], help: &'static str) -> Metric {
    metric(name, Kind::Counter, labels, help)
}

const fn gauge(name: &'static str, labels: &'static [Label], help: &'static str) -> Metric {
    metric(name, Kind::Gauge, labels, help)
}

/// A stretch of time as it is now.
const fn stretch(name: &'static str, labels: &'static [Label], help: &'static str) -> Metric {
    Metric { unit: Some(Unit::Seconds), ..gauge(name, labels, help) }
}

const fn bytes(name: &'static str, help: &'static str) -> Metric {
    Metric { unit: Some(Unit::Bytes), ..gauge(name, &[], help) }
}

/// Samples of stretches of time.
const fn seconds(name: &'static str, labels: &'static [Label], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, unit: Some(Unit::Seconds), labels, help, buckets: FAST }
}

/// Every metric there is, by room.
pub const CATALOG: &[Metric] = &[
    // The process and its actors.
    gauge(
        BUILD_INFO,
        &[
            label("version", &[env!("CARGO_PKG_VERSION")]),
            label("revision", &[env!("CAMPAIGND_COMMIT")]),
            label("rustc", &[env!("CAMPAIGND_RUSTC")]),
        ],
        "Constant 1; version, commit and compiler are labels. `unknown`: it was not built in a repository.",
    ),
    gauge(READY, &[], "1 while the database answers and the engine runs with everything read back: what /readyz says."),
    gauge(ACTORS, &[label("kind", &["prospect", "channel", "shard"])], "Live actors; a channel is an account's."),
    gauge(PARKED, &[], "Executions without a live actor that have a wake-up."),
    counter(PASSIVATED, &[], "Actors that gave way because more were live than there may be."),
    gauge(
        MAILBOX,
        &[label("kind", &["trigger", "timer"])],
        "Triggers from outside and timer firings that are in the mailboxes or in hand.",
    ),
    gauge(MAILBOX_LIMIT, &[label("kind", &["trigger", "timer"])], "How many of them there may be at once."),
    counter(MAILBOX_REJECTED, &[], "Triggers from outside that were refused because there may be no more."),
    gauge(
        ACTOR_MAILBOX,
        &[label("kind", &["prospect", "shard"])],
        "What waits for actors: works of prospects that are not done, and messages that shards have not taken. What waits for \
         accounts is in campaignd_channel_queue.",
    ),
    gauge(
        ACTOR_MAILBOX_DEEPEST,
        &[label("kind", &["prospect", "shard"])],
        "The same at the shard where there is most.",
    ),
    seconds(
        ACTOR_MAILBOX_SECONDS,
        &[label("kind", &["channel", "shard"])],
        "How long a message waits until its actor takes it, by some probes a second.",
    ),
    gauge(LOADING, &[], "Executions that wait for their row to be read."),
    counter(QUARANTINED, &[], "Executions that crashed their actor again and again and were put aside."),
    counter(ACTOR_RESTARTS, &[], "Actors restarted after a panic."),
    gauge(
        REHYDRATION_PHASE,
        &[label("phase", &["reading", "done", "stopping"])],
        "1 at where the engine is: reading executions back, done with that, or stopping.",
    ),
    gauge(REHYDRATION_EXPECTED, &[], "Executions that the last start reads back, as Postgres estimates them."),
    counter(REHYDRATED, &[], "Executions read back from the table after a start."),
    stretch(REHYDRATION_SECONDS, &[], "How long the last start took to read everything back; 0 until it has."),
    gauge(SHARDS, &[label("state", &["owned", "unowned"])], "Shards that this process owns, and the others."),
    stretch(
        LEASE_REMAINING,
        &[],
        "How long the lease of the shards is trusted without a renewal; at 0 the process stops.",
    ),
    stretch(LEASE_WINDOW, &[], "How long it is trusted after a renewal, which comes three times in a lease."),
    counter(LEASE_RENEWALS, &[label("outcome", &["renewed", "failed"])], "Renewals of the lease."),
    counter(CLOCK_JUMPS, &[label("direction", &["forward", "backward"])], "Jumps of the wall clock of more than 2 s."),
    // Time.
    counter(TRANSITIONS, &[TRIGGER], "Durable transitions, by the trigger that caused them."),
    counter(ENDED, &[EXIT], "Executions that have ended, by why: the end of the funnel."),
    seconds(REACTION_SECONDS, &[TRIGGER], "From the arrival of a trigger at the engine to its durable transition."),
    seconds(
        REACTION_STAGE_SECONDS,
        &[STAGE],
        "What each part of a reaction to a fact from outside took: until it is stored, until it is known whom it is about, until \
         their actor has it, until the transition is durable, and until the provider is called for the send that follows at \
         once, which may wait for the account's hours and limits.",
    ),
    seconds(TIMER_LATENESS_SECONDS, &[], "How long after its due time a timer was handled, in real time."),
    gauge(
        TIMERS,
        &[label("horizon", &["overdue", "1m", "1h", "1d", "later"])],
        "Wake-ups of executions whose campaign runs, by when they are due on the engine's clock, as the last pass over the \
         table found them.",
    ),
    stretch(
        TIMER_OVERDUE,
        &[label("status", &["pending", "waiting_trigger"])],
        "How long the oldest wake-up in the table is overdue, in real time, as the last pass found it. Pending ones may wait for \
         their account; nothing holds up one that waits for a trigger.",
    ),
    // The database.
    gauge(
        DB_UP,
        &[],
        "1 if the database answered the last probe within a second. The probe has a connection of its own.",
    ),
    seconds(DB_PROBE_SECONDS, &[], "Round trip of a probe of the database."),
    stretch(CLOCK_OFFSET, &[], "The database's clock less this machine's."),
    gauge(
        POOL,
        &[POOLS, label("state", &["idle", "used", "max"])],
        "Connections to the database, and how many there may be.",
    ),
    counter(POOL_TIMEOUTS, &[POOLS], "Callers that waited in vain for a connection, by the pool that they asked."),
    counter(
        SAMPLES,
        &[label("outcome", &["done", "failed"])],
        "Looks at the tables that the gauges of timers, inbox, quotas and parked sends are made from.",
    ),
    gauge(PERSIST_QUEUE, &[], "Changes that were handed to the writer and are not durable yet."),
    stretch(PERSIST_OLDEST, &[], "How long the oldest of them has been waiting."),
    seconds(COMMIT_SECONDS, &[], "From handing a change to the writer to its commit."),
    Metric { buckets: ROWS, ..metric(COMMIT_ROWS, Kind::Histogram, &[], "Executions in one commit of the writer.") },
    counter(PERSIST_FAILURES, &[CLASS], "Tries of the writer that failed, by the class of Postgres' error."),
    counter(
        PERSIST_FENCED,
        &[label("writer", &["transition", "claim"])],
        "Writes that were refused because the shard belongs to somebody else.",
    ),
    counter(
        PERSIST_CONFLICTS,
        &[],
        "Changes that were refused because the row was changed before, or cannot be written.",
    ),
    // Sends and accounts.
    gauge(CHANNEL_LINE, &[CHANNEL], "Executions that are due and wait for room in their account's backlog."),
    gauge(CHANNEL_QUEUE, &[CHANNEL], "Sends that are queued, in flight or held back in the channels of the accounts."),
    counter(
        SENDS,
        &[CHANNEL, ACTION, label("outcome", &["sent", "failed", "unknown", "not_sent", "unresolved"])],
        "Finished sends, by how they ended.",
    ),
    gauge(SENDS_IN_FLIGHT, &[CHANNEL], "Accounts that are carrying out a send now."),
    gauge(
        SENDS_UNKNOWN,
        &[CHANNEL, label("state", &["settling", "parked"])],
        "Sends of which nobody knows whether they happened: being looked up at the provider, or parked for a person.",
    ),
    counter(SENDS_DEFERRED, &[CHANNEL, DEFERRAL], "Times that a send was put off, by why."),
    gauge(
        ACCOUNTS,
        &[CHANNEL, label("state", &["active", "halted", "disabled"])],
        "Accounts, by whether they may send.",
    ),
    gauge(
        ACCOUNTS_QUOTA,
        &[CHANNEL, label("headroom", &["none", "lt10", "lt50", "ge50", "unlimited"])],
        "Active accounts, by how many percent are left of the daily limit that is used up most.",
    ),
    seconds(PROVIDER_SECONDS, &[CHANNEL], "Duration of a provider call."),
    counter(
        PROVIDER_REQUESTS,
        &[
            label("endpoint", &["accounts", "chats", "emails", "linkedin", "messages", "users", "webhooks", "other"]),
            label("code", &["2xx", "401", "403", "404", "422", "429", "4xx", "5xx", "unreachable", "lost"]),
        ],
        "Calls of the provider's API, by the first part of the path and by the answer.",
    ),
    gauge(
        KEY_REFUSED,
        &[label("provider", &["unipile"])],
        "1 while the provider refuses our API key: nothing is sent through it.",
    ),
    // What comes in.
    counter(WEBHOOKS, &[label("outcome", &["accepted", "duplicate", "refused"])], "Webhooks taken in."),
    counter(INBOX, &[label("outcome", &["applied", "ignored", "failed"])], "Inbox rows processed."),
    gauge(INBOX_OPEN, &[], "Stored facts that are not applied yet, counted up to 100,000."),
    stretch(INBOX_OLDEST, &[], "Age of the oldest of them, in real time."),
    Metric {
        buckets: LONG,
        ..seconds(
            INBOX_SECONDS,
            &[label("outcome", &["applied", "ignored", "failed"])],
            "From the receipt of a fact to its being dealt with, in real time.",
        )
    },
    counter(FACTS, &[EVENT], "Facts from providers, by what they say."),
    counter(
        CATCH_UP_READS,
        &[LIST, label("outcome", &["done", "failed"])],
        "Reads of an account's lists that make up for lost webhooks.",
    ),
    counter(CATCH_UP_FACTS, &[LIST], "Facts that only a read of an account's lists has told."),
    // The API.
    counter(
        HTTP_REQUESTS,
        &[label("route", &[]), label("method", &[]), label("code", &[])],
        "HTTP requests, by route template.",
    ),
    seconds(HTTP_SECONDS, &[label("route", &[])], "Duration of HTTP requests, by route template."),
    gauge(
        HTTP_IN_FLIGHT,
        &[label("kind", &["webhook", "trigger", "unsubscribe", "upload", "other"])],
        "HTTP requests under way, by the limit that they count against.",
    ),
    counter(
        HTTP_SHED,
        &[label("kind", &["webhook", "trigger", "unsubscribe", "upload", "other", "engine", "connection"])],
        "Requests answered with 503 because a limit was reached; the engine's counts webhooks only.",
    ),
    counter(
        AUTH_FAILURES,
        &[label("surface", &["api", "webhook"]), label("reason", &["missing", "invalid"])],
        "Requests without a valid key or secret.",
    ),
    counter(
        SPANS_LOST,
        &[label("reason", &["full", "refused"])],
        "Spans that the collector has not got: too many at once, or it did not take them. Only with the feature `otel`.",
    ),
    // The async runtime and the process.
    gauge(RUNTIME_BUSY, &[], "Share of the last second that the worker threads of the async runtime were busy."),
    gauge(RUNTIME_TASKS, &[], "Live tasks of the async runtime."),
    gauge(RUNTIME_QUEUED, &[], "Tasks in the queue that all its worker threads share."),
    seconds(RUNTIME_LAG, &[], "How late a task is woken that sleeps for 50 ms; a millisecond is normal."),
    Metric { unit: Some(Unit::Seconds), ..counter(PROCESS_CPU, &[], "CPU time of the process in user and kernel.") },
    bytes(PROCESS_RSS, "Resident memory of the process."),
    bytes(PROCESS_VSIZE, "Virtual memory of the process."),
    gauge(PROCESS_FDS, &[], "Open files of the process."),
    gauge(PROCESS_FDS_MAX, &[], "How many files the process may have open."),
    gauge(PROCESS_THREADS, &[], "Threads of the process."),
    stretch(PROCESS_START, &[], "When the process began, since 1970."),
];
