//! The recorder: takes what the rooms count, and renders it for Prometheus.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::{CATALOG, Kind, Metric, process};
use crate::domain::send::Action;

/// The process has one recorder, however many servers it runs (tests run many).
static GLOBAL: OnceLock<Result<Metrics, String>> = OnceLock::new();

/// Why nothing is counted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The recorder was refused, as a rule because the process has another.
    #[error("cannot install the metrics recorder: {0}")]
    Install(String),
}

/// What was counted so far in this process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
    on: Arc<AtomicBool>,
}

/// The recorder, with a switch: what is looked up while it is off counts nothing, as in a process without a recorder. For
/// the bench, which measures what counting costs.
struct Switched {
    recorder: PrometheusRecorder,
    on: Arc<AtomicBool>,
}

impl Switched {
    fn is_on(&self) -> bool {
        self.on.load(Relaxed)
    }
}

impl Recorder for Switched {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.recorder.describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.recorder.describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.recorder.describe_histogram(key, unit, description);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        if self.is_on() { self.recorder.register_counter(key, metadata) } else { Counter::noop() }
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        if self.is_on() { self.recorder.register_gauge(key, metadata) } else { Gauge::noop() }
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        if self.is_on() { self.recorder.register_histogram(key, metadata) } else { Histogram::noop() }
    }
}

impl Metrics {
    /// The recorder that [`install`] installed; `None` before.
    pub fn global() -> Option<Self> {
        GLOBAL.get().and_then(|m| m.as_ref().ok()).cloned()
    }

    /// Everything in Prometheus's text format.
    pub fn render(&self) -> String {
        self.handle.render() + &process::render()
    }

    /// Whether what is looked up from now on counts. Handles that somebody holds go on as they are.
    pub fn set_recording(&self, on: bool) {
        self.on.store(on, Relaxed);
    }

    /// Folds new samples into the buckets. To be called every few seconds: samples pile up between two calls (or scrapes).
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

/// Installs the process's recorder, described and with zeroes for every combination of labels that is known beforehand:
/// otherwise the first event of a kind would be invisible to `rate()`. Called again, it gives the same recorder.
pub fn install() -> Result<Metrics, Error> {
    GLOBAL.get_or_init(set_up).clone().map_err(Error::Install)
}

fn set_up() -> Result<Metrics, String> {
    let mut builder = PrometheusBuilder::new();
    // Without buckets a histogram would become a summary, which cannot be added up over instances.
    for metric in CATALOG.iter().filter(|m| m.kind == Kind::Histogram) {
        builder = builder
            .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), metric.buckets)
            .map_err(|e| e.to_string())?;
    }
    let (recorder, on) = (builder.build_recorder(), Arc::new(AtomicBool::new(true)));
    let handle = recorder.handle();
    metrics::set_global_recorder(Switched { recorder, on: Arc::clone(&on) }).map_err(|e| e.to_string())?;
    for metric in CATALOG.iter().filter(|m| !m.is_of_process()) {
        describe(metric);
        show_zeroes(metric);
    }
    metrics::gauge!(super::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION"), "revision" => env!("CAMPAIGND_COMMIT"),
        "rustc" => env!("CAMPAIGND_RUSTC"))
    .set(1.0);
    Ok(Metrics { handle, on })
}

fn describe(metric: &Metric) {
    let unit = metric.unit.unwrap_or(metrics::Unit::Count);
    match metric.kind {
        Kind::Counter => metrics::describe_counter!(metric.name, unit, metric.help),
        Kind::Gauge => metrics::describe_gauge!(metric.name, unit, metric.help),
        Kind::Histogram => metrics::describe_histogram!(metric.name, unit, metric.help),
    }
}

/// Registers every combination of listed label values. Histograms show nothing before their first sample, listed or not.
fn show_zeroes(metric: &Metric) {
    let mut combinations: Vec<Vec<metrics::Label>> = vec![Vec::new()];
    for label in metric.labels {
        combinations = combinations
            .iter()
            .flat_map(|known| {
                label.values.iter().map(|&value| {
                    let mut longer = known.clone();
                    longer.push(metrics::Label::from_static_parts(label.name, value));
                    longer
                })
            })
            .collect();
    }
    for labels in combinations.into_iter().filter(|labels| is_possible(labels)) {
        match metric.kind {
            Kind::Counter => metrics::counter!(metric.name, labels).increment(0),
            Kind::Gauge => metrics::gauge!(metric.name, labels).set(0.0),
            Kind::Histogram => {}
        }
    }
}

/// Whether an action and a channel, if both are named, belong together.
fn is_possible(labels: &[metrics::Label]) -> bool {
    let value = |name| labels.iter().find(|l| l.key() == name).map(metrics::Label::value);
    match value("action").and_then(Action::parse).zip(value("channel")) {
        Some((action, channel)) => action.channel().is_some_and(|c| c.as_str() == channel),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{COMMIT_ROWS, COMMIT_SECONDS, HTTP_REQUESTS};

    #[test]
    fn known_series_begin_at_zero_and_histograms_have_buckets() {
        let metrics = install().unwrap();
        install().unwrap();
        metrics::histogram!(COMMIT_SECONDS).record(0.003);
        metrics::histogram!(COMMIT_ROWS).record(7.0);
        let text = metrics.render();
        for line in [
            r#"campaignd_sends_total{channel="whatsapp",action="send_whatsapp",outcome="unknown"} 0"#,
            r#"campaignd_webhooks_total{outcome="refused"} 0"#,
            "campaignd_quarantined_total 0",
            r#"campaignd_persist_commit_seconds_bucket{le="0.005"} 1"#,
            r#"campaignd_persist_batch_rows_bucket{le="8"} 1"#,
            "# TYPE campaignd_persist_commit_seconds histogram",
            "# HELP campaignd_actors Live actors; a channel is an account's.",
        ] {
            assert!(text.lines().any(|l| l == line), "no `{line}` in:\n{text}");
        }
        assert!(!text.contains(r#"channel="email",action="send_whatsapp""#), "nothing is shown that cannot be");
        assert!(text.contains("\n# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total "));
        assert!(!text.contains(&format!("{HTTP_REQUESTS}{{")), "values that are not listed have no zeroes");
        assert!(Metrics::global().is_some());
    }
}
