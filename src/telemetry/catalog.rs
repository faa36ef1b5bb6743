//! Every metric: what it is, its unit, its labels, and for histograms the buckets. Descriptions, zeroes, documentation and the
//! dashboards' test all come from here.

use super::*;

/// What a metric does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Samples, counted in buckets.
    Histogram,
}

/// A label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Every value it takes; empty when the values are not listed here (routes, status codes, versions).
    pub values: &'static [&'static str],
}

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its full name, as Prometheus shows it: with the unit, and `_total` for counters.
    pub name: &'static str,
    /// What it does.
    pub kind: Kind,
    /// `None` for things that are just counted.
    pub unit: Option<::metrics::Unit>,
    /// Its labels.
    pub labels: &'static [Label],
    /// One sentence for people.
    pub help: &'static str,
    /// Upper bounds of a histogram's buckets; empty for the others.
    pub buckets: &'static [f64],
}

/// Buckets for times in seconds, from a commit to a slow provider. Holds the thresholds of the service levels (1 s, 5 s).
const FAST: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Buckets for rows in a batch.
const ROWS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

const CHANNEL: Label = Label { name: "channel", values: &["linkedin", "email", "whatsapp"] };
const TRIGGER: Label = Label {
    name: "trigger",
    values: &[
        "adopted",
        "due",
        "check_due",
        "connection_accepted",
        "reply",
        "bounce",
        "message_delivered",
        "message_read",
        "mail_opened",
        "mail_clicked",
        "human_took_over",
        "unsubscribe",
        "suppressed",
        "send_finished",
        "send_resolved",
        "pause",
        "resume",
        "skip",
        "restart",
        "stop",
        "quarantine",
    ],
};

const LIST: Label = Label { name: "list", values: &["messages", "relations"] };
/// Whatever a provider calls it: what is not known is `unknown`.
const EVENT: Label = Label {
    name: "event",
    values: &[
        "new_relation",
        "message_received",
        "message_delivered",
        "message_read",
        "message_reaction",
        "message_edited",
        "message_deleted",
        "mail_received",
        "mail_sent",
        "mail_opened",
        "mail_link_clicked",
        "account_status",
        "unknown",
        "unreadable",
    ],
};

const fn label(name: &'static str, values: &'static [&'static str]) -> Label {
    Label { name, values }
}

const fn counter(name: &'static str, labels: &'static [Label], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, unit: None, labels, help, buckets: &[] }
}

const fn gauge(name: &'static str, labels: &'static [Label], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, unit: None, labels, help, buckets: &[] }
}

const fn seconds(name: &'static str, labels: &'static [Label], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, unit: Some(::metrics::Unit::Seconds), labels, help, buckets: FAST }
}

/// Every metric there is, by room.
pub const CATALOG: &[Metric] = &[
    gauge(BUILD_INFO, &[label("version", &[env!("CARGO_PKG_VERSION")])], "Constant 1; the version is a label."),
    gauge(RESIDENTS, &[], "Live prospect actors."),
    gauge(PARKED, &[], "Executions without a live actor that have a wake-up."),
    counter(PASSIVATED, &[], "Actors that gave way because more were live than there may be."),
    gauge(CHANNEL_LINE, &[CHANNEL], "Executions that are due and wait for room in their account's backlog."),
    gauge(CHANNEL_QUEUE, &[CHANNEL], "Sends that are queued, in flight or held back in the channels of the accounts."),
    counter(TRANSITIONS, &[TRIGGER], "Durable transitions, by the trigger that caused them."),
    seconds(REACTION_SECONDS, &[TRIGGER], "From the arrival of a trigger to its durable transition."),
    seconds(TIMER_LATENESS_SECONDS, &[], "How long after its due time a timer was handled, in real time."),
    counter(QUARANTINED, &[], "Executions that crashed their actor again and again and were put aside."),
    counter(ACTOR_RESTARTS, &[], "Actors restarted after a panic."),
    counter(REHYDRATED, &[], "Executions read back from the table after a start."),
    seconds(COMMIT_SECONDS, &[], "From handing a change to the writer to its commit."),
    Metric {
        name: COMMIT_ROWS,
        kind: Kind::Histogram,
        unit: None,
        labels: &[],
        help: "Executions in one commit of the writer.",
        buckets: ROWS,
    },
    counter(
        SENDS,
        &[CHANNEL, label("outcome", &["sent", "failed", "unknown", "not_sent", "unresolved"])],
        "Finished sends, by how they ended.",
    ),
    seconds(PROVIDER_SECONDS, &[CHANNEL], "Duration of a provider call."),
    counter(WEBHOOKS, &[label("outcome", &["accepted", "duplicate", "refused"])], "Webhooks taken in."),
    counter(INBOX, &[label("outcome", &["applied", "ignored", "failed"])], "Inbox rows processed."),
    counter(FACTS, &[EVENT], "Facts from providers, by what they say."),
    counter(
        CATCH_UP_READS,
        &[LIST, label("outcome", &["done", "failed"])],
        "Reads of an account's lists that make up for lost webhooks.",
    ),
    counter(CATCH_UP_FACTS, &[LIST], "Facts that only a read of an account's lists has told."),
    counter(
        HTTP_REQUESTS,
        &[label("route", &[]), label("method", &[]), label("code", &[])],
        "HTTP requests, by route template.",
    ),
    seconds(HTTP_SECONDS, &[label("route", &[])], "Duration of HTTP requests, by route template."),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::account::Channel;
    use crate::domain::send::SendOutcome;
    use crate::domain::trigger::Trigger;

    #[test]
    fn every_name_in_this_room_is_in_the_catalogue_once() {
        let source = include_str!("mod.rs");
        let mut named: Vec<&str> =
            source.lines().filter_map(|l| l.strip_prefix("pub const ")?.split('"').nth(1)).collect();
        let mut listed: Vec<&str> = CATALOG.iter().map(|m| m.name).collect();
        named.sort_unstable();
        listed.sort_unstable();
        assert_eq!(named, listed);
    }

    #[test]
    fn names_follow_prometheus_conventions() {
        for m in CATALOG {
            assert!(m.name.starts_with("campaignd_"), "{}", m.name);
            assert_eq!(m.name.ends_with("_total"), m.kind == Kind::Counter, "{}", m.name);
            assert_eq!(m.name.ends_with("_seconds"), m.unit == Some(::metrics::Unit::Seconds), "{}", m.name);
            assert_eq!(m.buckets.is_empty(), m.kind != Kind::Histogram, "{}", m.name);
            assert!(m.buckets.is_sorted() && m.help.ends_with('.'), "{}", m.name);
        }
    }

    #[test]
    fn listed_label_values_are_the_domains_names() {
        assert_eq!(CHANNEL.values, Channel::ALL.iter().map(|c| c.as_str()).collect::<Vec<_>>());
        for trigger in [Trigger::Due, Trigger::CheckDue, Trigger::ConnectionAccepted, Trigger::Restart { step: 1 }] {
            assert!(TRIGGER.values.contains(&trigger.name()));
        }
        let outcomes = CATALOG.iter().find(|m| m.name == SENDS).map(|m| m.labels[1].values).unwrap();
        for outcome in [SendOutcome::Sent, SendOutcome::NotSent, SendOutcome::Unknown { error: String::new() }] {
            assert!(outcomes.contains(&outcome.as_str()));
        }
    }
}
