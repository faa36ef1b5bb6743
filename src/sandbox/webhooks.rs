//! Outgoing webhooks: JSON under the provider's odd content type, answered 200 or tried again, then lost. And the errands
//! of people who follow an unsubscribe link.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};
use tokio::sync::{Semaphore, watch};

use super::deeds::Outcome;
use super::ledger::real_now;
use super::options::Options;
use super::text::form_encode;

/// A webhook somebody asked for.
pub(super) struct Hook {
    pub(super) number: u64,
    pub(super) id: String,
    /// The same in every run, wherever the receiver is.
    pub(super) key: String,
    pub(super) name: String,
    pub(super) source: String,
    pub(super) request_url: String,
    /// `json` or `form`.
    pub(super) format: String,
    pub(super) events: Vec<String>,
    /// Empty: every account.
    pub(super) account_ids: Vec<String>,
    pub(super) headers: Vec<(String, String)>,
    /// (name, key): which properties of the body are told, under which names. Empty: all, under their own.
    pub(super) data: Vec<(String, String)>,
    pub(super) enabled: bool,
    /// Requests under way at once: of its own, so that a receiver that hangs holds up nobody else's webhooks.
    pub(super) slots: Semaphore,
}

impl Hook {
    pub(super) fn wants(&self, source: &str, event: &str, account_id: &str) -> bool {
        self.enabled
            && self.source == source
            && (source == "account_status" || self.events.iter().any(|e| e == event))
            && (self.account_ids.is_empty() || self.account_ids.iter().any(|a| a == account_id))
    }

    /// The bytes of a delivery: what `data` and `format` make of a body.
    pub(super) fn shape(&self, body: Value) -> String {
        let body = if self.data.is_empty() {
            body
        } else {
            let from = body.get("AccountStatus").unwrap_or(&body);
            let chosen = self.data.iter().map(|(name, key)| (name.clone(), from[key.as_str()].clone()));
            Value::Object(chosen.collect::<Map<_, _>>())
        };
        match (self.format.as_str(), &body) {
            ("form", Value::Object(fields)) => form_encode(fields),
            _ => body.to_string(),
        }
    }
}

/// One body on its way to one webhook.
pub(super) struct Delivery {
    pub(super) hook: Arc<Hook>,
    pub(super) body: String,
    /// Real time it is held first.
    pub(super) hold: Duration,
    pub(super) deed: Option<u64>,
}

/// A URL somebody follows.
pub(super) struct Errand {
    pub(super) deed: u64,
    pub(super) url: String,
    /// POST with `List-Unsubscribe=One-Click`; else GET.
    pub(super) one_click: bool,
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
    outcomes: Mutex<Vec<Outcome>>,
    /// Errands under way at once.
    slots: Semaphore,
    delays: Mutex<Arc<[Duration]>>,
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
            outcomes: Mutex::new(Vec::new()),
            slots: Semaphore::new(opts.webhook_concurrency.max(1)),
            delays: Mutex::new(opts.webhook_retry_delays.as_slice().into()),
            pending_max: opts.history as u64,
            stop,
        })
    }

    /// The waits before the retries.
    fn delays(&self) -> Arc<[Duration]> {
        Arc::clone(&self.delays.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sets them for what is taken on from now on.
    pub(super) fn set_delays(&self, delays: &[Duration]) {
        *self.delays.lock().unwrap_or_else(PoisonError::into_inner) = delays.into();
    }

    /// What became of deliveries and errands since the last call.
    pub(super) fn outcomes(&self) -> Vec<Outcome> {
        std::mem::take(&mut *self.outcomes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn tell(&self, outcome: Outcome) {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
    }

    /// Takes a delivery on.
    pub(super) fn take(self: &Arc<Self>, delivery: Delivery) {
        if self.counters.pending.fetch_add(1, Ordering::Relaxed) >= self.pending_max {
            self.counters.pending.fetch_sub(1, Ordering::Relaxed);
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let courier = Arc::clone(self);
        tokio::spawn(async move {
            let mut stop = courier.stop.clone();
            let delivered = tokio::select! {
                done = courier.deliver(&delivery) => done,
                _ = stop.wait_for(|s| *s) => false,
            };
            let counter = if delivered { &courier.counters.delivered } else { &courier.counters.dropped };
            counter.fetch_add(1, Ordering::Relaxed);
            courier.counters.pending.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Runs an errand: tried like a webhook until something answers that is no server's failure.
    pub(super) fn run(self: &Arc<Self>, errand: Errand) {
        let courier = Arc::clone(self);
        tokio::spawn(async move {
            let mut stop = courier.stop.clone();
            tokio::select! {
                () = courier.follow(&errand) => {}
                _ = stop.wait_for(|s| *s) => {}
            }
        });
    }

    async fn follow(&self, errand: &Errand) {
        let delays = self.delays();
        let mut delays = delays.iter();
        loop {
            let Ok(slot) = self.slots.acquire().await else { return };
            let request = if errand.one_click {
                // RFC 8058: the one field, as a form.
                self.http
                    .post(&errand.url)
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body("List-Unsubscribe=One-Click")
            } else {
                self.http.get(&errand.url)
            };
            if let Ok(answer) = request.header("user-agent", "Mozilla/5.0 (mail client)").send().await {
                let status = answer.status();
                let at = real_now().as_micros();
                self.tell(Outcome::Answered { deed: errand.deed, status: status.as_u16(), at });
                if !status.is_server_error() {
                    return;
                }
            }
            drop(slot);
            let Some(delay) = delays.next() else { return };
            tokio::time::sleep(*delay).await;
        }
    }

    async fn deliver(&self, delivery: &Delivery) -> bool {
        if !delivery.hold.is_zero() {
            tokio::time::sleep(delivery.hold).await;
        }
        let delays = self.delays();
        let mut delays = delays.iter();
        loop {
            if self.attempt(delivery).await {
                if let Some(deed) = delivery.deed {
                    self.tell(Outcome::Acknowledged { deed, at: real_now().as_micros() });
                }
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
        let Ok(_slot) = delivery.hook.slots.acquire().await else { return false };
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
