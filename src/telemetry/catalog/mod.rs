//! Every metric: what it is, its unit, its labels, and for histograms the buckets. Descriptions, zeroes, documentation and the
//! dashboards' test all come from here.

mod labels;
mod list;

pub use self::list::CATALOG;

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

impl Metric {
    /// The metric of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        CATALOG.iter().find(|m| m.name == name)
    }

    /// Whether it is rendered by this process's own hand: the standard metrics of a process, which are read when somebody asks.
    pub(super) fn is_of_process(&self) -> bool {
        self.name.starts_with("process_")
    }
}

#[cfg(test)]
mod tests {
    use super::labels::{ACTION, CHANNEL, TRIGGER};
    use super::*;
    use crate::domain::account::{AccountStatus, Channel};
    use crate::domain::execution::ExitReason;
    use crate::domain::send::{Action, SendOutcome};
    use crate::domain::trigger::Trigger;
    use crate::telemetry::{ACCOUNTS, ENDED, SENDS};

    #[test]
    fn every_name_in_this_room_is_in_the_catalogue_once() {
        let source = include_str!("../names.rs");
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
            assert!(m.name.starts_with("campaignd_") || m.is_of_process(), "{}", m.name);
            assert_eq!(m.name.ends_with("_total"), m.kind == Kind::Counter, "{}", m.name);
            assert_eq!(
                m.name.trim_end_matches("_total").ends_with("_seconds"),
                m.unit == Some(::metrics::Unit::Seconds),
                "{}",
                m.name
            );
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
        let values = |name: &str, label: usize| Metric::find(name).unwrap().labels[label].values;
        let acting = Action::ALL.iter().filter(|a| a.channel().is_some()).map(|a| a.as_str());
        assert_eq!(ACTION.values, acting.collect::<Vec<_>>());
        assert_eq!(values(ACCOUNTS, 1), AccountStatus::ALL.iter().map(|s| s.as_str()).collect::<Vec<_>>());
        assert_eq!(values(ENDED, 0), ExitReason::ALL.iter().map(|r| r.as_str()).collect::<Vec<_>>());
        let outcomes = values(SENDS, 2);
        for outcome in [SendOutcome::Sent, SendOutcome::NotSent, SendOutcome::Unknown { error: String::new() }] {
            assert!(outcomes.contains(&outcome.as_str()));
        }
    }
}
