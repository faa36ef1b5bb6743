//! Outgoing webhooks: JSON under the provider's odd content type, answered 200 or tried again, then lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

use super::options::Options;

/// A webhook somebody asked for.
pub(super) struct Hook {
    pub(super) number: u64,
    pub(super) id: String,
    pub(super) name: String,
    pub(super) source: String,
    pub(super) request_url: String,
    pub(super) format: String,
    pub(super) events: Vec<String>,
    /// Empty: every account.
    pub(super) account_ids: Vec<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) enabled: bool,
}

impl Hook {
    pub(super) fn wants(&self, source: &str, event: &str, account_id: &str) -> bool {
        self.enabled
            && self.source == source
            && (source == "account_status" || self.events.iter().any(|e| e == event))
            && (self.account_ids.is_empty() || self.account_ids.iter().any(|a| a == account_id))
    }
}

/// One body on its way to one webhook.
pub(super) struct Delivery {
    pub(super) hook: Arc<Hook>,
    pub(super) body: String,
}

/// How deliveries went.
#[derive(Default)]
pub(super) struct Counters {
    /// Answered 200.
    delivered: AtomicU64,
    /// Attempts that were not.
    failed: AtomicU64,
    /// Given up.
    dropped: AtomicU64,
    /// Not decided yet.
    pending: AtomicU64,
}

/// Sends deliveries in the background until told to stop.
pub(super) struct Courier {
    http: reqwest::Client,
    pub(super) counters: Counters,
    slots: Semaphore,
    delays: Vec<Duration>,
    pending_max: u64,
    stop: watch::Receiver<bool>,
}

impl Courier {
    pub(super) fn new(opts: &Options, stop: watch::Receiver<bool>) -> Result<Self, reqwest::Error> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .user_agent("axios/1.7.7")
            .timeout(opts.webhook_timeout)
            .redirect(reqwest::redirect::Policy::none())
            // Receivers are on this machine as a rule, where no proxy of the environment leads.
            .no_proxy()
            .build()?;
        Ok(Self {
            http,
            counters: Counters::default(),
            slots: Semaphore::new(opts.webhook_concurrency.max(1)),
            delays: opts.webhook_retry_delays.clone(),
            pending_max: opts.history as u64,
            stop,
        })
    }

    /// Takes a delivery on; `hold` is how long it is held first.
    pub(super) fn take(self: &Arc<Self>, delivery: Delivery, hold: Duration) {
        if self.counters.pending.fetch_add(1, Ordering::Relaxed) >= self.pending_max {
            self.counters.pending.fetch_sub(1, Ordering::Relaxed);
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let courier = Arc::clone(self);
        tokio::spawn(async move {
            let mut stop = courier.stop.clone();
            let delivered = tokio::select! {
                done = courier.deliver(&delivery, hold) => done,
                _ = stop.wait_for(|s| *s) => false,
            };
            let counter = if delivered { &courier.counters.delivered } else { &courier.counters.dropped };
            counter.fetch_add(1, Ordering::Relaxed);
            courier.counters.pending.fetch_sub(1, Ordering::Relaxed);
        });
    }

    async fn deliver(&self, delivery: &Delivery, hold: Duration) -> bool {
        if !hold.is_zero() {
            tokio::time::sleep(hold).await;
        }
        let mut delays = self.delays.iter();
        loop {
            if self.attempt(delivery).await {
                return true;
            }
            self.counters.failed.fetch_add(1, Ordering::Relaxed);
            match delays.next() {
                Some(delay) => tokio::time::sleep(*delay).await,
                None => {
                    tracing::warn!(
                        webhook = delivery.hook.id,
                        "the sandbox gives up on a webhook after its last retry"
                    );
                    return false;
                }
            }
        }
    }

    async fn attempt(&self, delivery: &Delivery) -> bool {
        let Ok(_slot) = self.slots.acquire().await else { return false };
        let mut headers = HeaderMap::new();
        // What the provider really does: the body is JSON all the same.
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert("accept", HeaderValue::from_static("application/json, text/plain, */*"));
        for (name, value) in &delivery.hook.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
        let request = self.http.post(&delivery.hook.request_url).headers(headers).body(delivery.body.clone());
        request.send().await.is_ok_and(|answer| answer.status() == reqwest::StatusCode::OK)
    }

    pub(super) fn report(&self) -> Value {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let c = &self.counters;
        json!({ "delivered": read(&c.delivered), "failed": read(&c.failed), "dropped": read(&c.dropped),
            "pending": read(&c.pending) })
    }
}
