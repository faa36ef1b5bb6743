//! Stages as OTLP spans, over HTTP in protobuf, to a collector.
//!
//! Nobody waits for the collector: a bounded queue takes what has ended, one task sends it in batches, and what finds no room
//! or cannot be delivered is dropped and counted, in the metrics and in the log.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, StringValue};
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter, SpanLinks};
use tokio::sync::{mpsc, oneshot};

use super::{Finished, Known, Side};
use crate::domain::time::Timestamp;
use crate::telemetry::SPANS_LOST;

/// Spans that wait for the collector; more are dropped.
const QUEUE_MAX: usize = 4096;
/// Spans of one request.
const BATCH_MAX: usize = 512;
/// How long spans are gathered.
const GATHER: Duration = Duration::from_millis(500);
/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is said that spans are lost.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// The process has one collector, however many servers it runs.
static EXPORT: OnceLock<Export> = OnceLock::new();

/// Why spans are not exported.
#[derive(Debug, thiserror::Error)]
#[error("cannot export traces to {endpoint}: {reason}")]
pub struct Error {
    endpoint: String,
    reason: String,
}

struct Export {
    queue: mpsc::Sender<Message>,
    now: fn() -> Timestamp,
    dropped: AtomicU64,
}

impl Export {
    /// Counts spans that the collector does not get. `reason` is one of the values of [`SPANS_LOST`].
    fn lose(&self, reason: &'static str, spans: u64) {
        self.dropped.fetch_add(spans, Relaxed);
        metrics::counter!(SPANS_LOST, "reason" => reason).increment(spans);
    }
}

enum Message {
    Span(Box<SpanData>),
    /// Answer when everything before this is delivered, or lost.
    Flush(oneshot::Sender<()>),
}

/// Sends what ends from now on to a collector, for example `http://127.0.0.1:4318`. `now` is the wall clock. To be called in
/// the async runtime; called again, it changes nothing.
///
/// # Errors
/// When the address cannot be used. Whether anybody answers there is not looked at.
pub fn export_to(endpoint: &str, now: fn() -> Timestamp) -> Result<(), Error> {
    let failed = |reason: String| Error { endpoint: endpoint.to_owned(), reason };
    // Fails only if a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut client = reqwest::Client::builder()
        .user_agent(concat!("campaignd/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .timeout(TIMEOUT);
    // The usual collector is an agent on the same machine: no proxy of the environment is asked for it.
    if ["//127.", "//localhost", "//[::1]"].iter().any(|host| endpoint.contains(host)) {
        client = client.no_proxy();
    }
    let client = client.build().map_err(|e| failed(e.to_string()))?;
    let url = if endpoint.ends_with("/v1/traces") { endpoint.to_owned() } else { format!("{endpoint}/v1/traces") };
    let mut exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(url)
        .with_timeout(TIMEOUT)
        .build()
        .map_err(|e| failed(e.to_string()))?;
    // Of OTEL_RESOURCE_ATTRIBUTES and the like nothing is taken: they may say who, and nobody has looked at them.
    let resource = Resource::builder_empty()
        .with_service_name("campaignd")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    exporter.set_resource(&resource);
    let (queue, messages) = mpsc::channel(QUEUE_MAX);
    if EXPORT.set(Export { queue, now, dropped: AtomicU64::new(0) }).is_ok() {
        tokio::spawn(deliver(exporter, messages));
    }
    Ok(())
}

/// Waits until what has ended is delivered, at the end of the program.
pub async fn flush() {
    let Some(export) = EXPORT.get() else { return };
    let (answer, wait) = oneshot::channel();
    if export.queue.send(Message::Flush(answer)).await.is_ok() {
        let _ = tokio::time::timeout(TIMEOUT, wait).await;
    }
}

/// Takes a stage if there is a collector, else gives it back.
pub(super) fn take(stage: Finished) -> Option<Finished> {
    let Some(export) = EXPORT.get() else { return Some(stage) };
    if export.queue.try_send(Message::Span(Box::new(span(stage, (export.now)())))).is_err() {
        export.lose("full", 1);
    }
    None
}

async fn deliver(exporter: opentelemetry_otlp::SpanExporter, mut messages: mpsc::Receiver<Message>) {
    let mut gathered = Vec::with_capacity(BATCH_MAX);
    let mut said: Option<Instant> = None;
    while messages.recv_many(&mut gathered, BATCH_MAX).await > 0 {
        if !gathered.iter().any(|message| matches!(message, Message::Flush(_))) && gathered.len() < BATCH_MAX {
            tokio::time::sleep(GATHER).await;
            let room = BATCH_MAX - gathered.len();
            for _ in 0..room {
                let Ok(message) = messages.try_recv() else { break };
                gathered.push(message);
            }
        }
        let (mut spans, mut waiting) = (Vec::with_capacity(gathered.len()), Vec::new());
        for message in gathered.drain(..) {
            match message {
                Message::Span(span) => spans.push(*span),
                Message::Flush(answer) => waiting.push(answer),
            }
        }
        let count = spans.len() as u64;
        if count > 0
            && let Err(error) = exporter.export(spans).await
            && let Some(export) = EXPORT.get()
        {
            export.lose("refused", count);
            tracing::debug!(%error, "cannot export spans");
        }
        let lost = EXPORT.get().map_or(0, |export| export.dropped.load(Relaxed));
        if lost > 0 && said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            tracing::warn!(lost, "spans were lost: the collector at trace.otlp does not take them, or not fast enough");
            said = Some(Instant::now());
        }
        for answer in waiting {
            let _ = answer.send(());
        }
    }
}

fn span(stage: Finished, ended: Timestamp) -> SpanData {
    let end_time = ended.to_utc().into();
    let trace = TraceId::from_bytes(stage.context.trace_id());
    let value = |known: Known| -> opentelemetry::Value {
        match known {
            Known::Id(id) => StringValue::from(id.to_string()).into(),
            Known::Name(name) => name.into(),
            Known::Route(route) => StringValue::from(route).into(),
            Known::Count(n) => n.into(),
        }
    };
    SpanData {
        span_context: SpanContext::new(
            trace,
            SpanId::from_bytes(stage.context.span_id()),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        ),
        parent_span_id: stage.parent.map_or(SpanId::INVALID, |parent| SpanId::from_bytes(parent.span_id())),
        parent_span_is_remote: stage.side == Side::Server && stage.parent.is_some(),
        span_kind: match stage.side {
            Side::Server => SpanKind::Server,
            Side::Consumer => SpanKind::Consumer,
            Side::Client => SpanKind::Client,
            Side::Inside => SpanKind::Internal,
        },
        name: stage.name.into(),
        start_time: (ended - stage.took).to_utc().into(),
        end_time,
        attributes: stage.known.into_iter().map(|(key, known)| KeyValue::new(key, value(known))).collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: if stage.failed { Status::error("") } else { Status::Unset },
        instrumentation_scope: InstrumentationScope::builder("campaignd").build(),
    }
}
