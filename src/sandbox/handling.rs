//! What becomes of a webhook on its way: lost, doubled, late, overtaken. By rule, else by the settings.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::act::Act;
use super::span;
use super::text::unit;
use super::webhooks::Delivery;
use super::world::{Event, World};

/// One rule of `POST /sandbox/webhooks`. What it leaves open is as in the settings.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Handling {
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    event: Option<String>,
    #[serde(default)]
    account_id: Option<String>,
    #[serde(default)]
    duplicate_share: Option<f64>,
    #[serde(default)]
    loss_share: Option<f64>,
    /// Of the sandbox's clock.
    #[serde(default, with = "span::maybe")]
    delay_min: Option<Duration>,
    #[serde(default, with = "span::maybe")]
    delay_max: Option<Duration>,
    /// Real time.
    #[serde(default, with = "span::maybe")]
    shuffle: Option<Duration>,
}

impl Handling {
    pub(super) fn check(&self) -> Result<(), String> {
        let share = |s: Option<f64>| s.is_none_or(|s| (0.0..=1.0).contains(&s));
        if share(self.duplicate_share) && share(self.loss_share) {
            Ok(())
        } else {
            Err("a share is a number from 0 to 1".to_owned())
        }
    }

    fn is_for(&self, event: &Event, account_id: &str) -> bool {
        self.source.as_deref().is_none_or(|s| s == event.source)
            && self.event.as_deref().is_none_or(|e| e == event.name)
            && self.account_id.as_deref().is_none_or(|a| a == account_id)
    }
}

impl World {
    /// Tells every webhook that waits for it. A disconnected account's news wait until it is connected again.
    pub(super) fn emit(&mut self, event: Event) {
        let limit = self.opts.history;
        let account = &mut self.accounts[event.account];
        if account.deleted {
            return;
        }
        if account.status != "OK" && event.source != "account_status" {
            if account.held.len() < limit {
                account.held.push(event);
            }
            return;
        }
        let id = account.id.clone();
        if !self.hooks.iter().any(|h| h.wants(event.source, event.name, &id)) {
            return;
        }
        let (o, seed) = (&self.opts, self.opts.seed);
        let rule = self.handlings.iter().find(|h| h.is_for(&event, &id));
        let loss = rule.and_then(|r| r.loss_share).unwrap_or(o.webhook_loss_share);
        let duplicate = rule.and_then(|r| r.duplicate_share).unwrap_or(o.webhook_duplicate_share);
        let shuffle = rule.and_then(|r| r.shuffle).unwrap_or(o.webhook_shuffle);
        let delay_min = rule.and_then(|r| r.delay_min).unwrap_or_default();
        let delay_max = rule.and_then(|r| r.delay_max).unwrap_or(o.webhook_delay_max).max(delay_min);
        let mut late = Vec::new();
        for hook in self.hooks.iter().filter(|h| h.wants(event.source, event.name, &id)) {
            let draw = |what: &str, copy: &str| unit(seed, &[what, &hook.key, event.name, &event.key, copy]);
            if loss > 0.0 && draw("loss", "") < loss {
                self.lost += 1;
                continue;
            }
            let mut body = event.body.clone();
            if let (Some(object), true) = (body.as_object_mut(), event.source != "account_status") {
                object.insert("webhook_name".to_owned(), json!(hook.name));
            }
            let body = hook.shape(body);
            let twice = duplicate > 0.0 && draw("duplicate", "") < duplicate;
            for copy in if twice { &["first", "second"][..] } else { &["first"] } {
                let hold = if shuffle.is_zero() { shuffle } else { shuffle.mul_f64(draw("hold", copy)) };
                let delivery = Delivery { hook: Arc::clone(hook), body: body.clone(), hold, deed: event.deed };
                if delay_max.is_zero() {
                    self.outbox.push(delivery);
                } else {
                    late.push((delay_min + (delay_max - delay_min).mul_f64(draw("delay", copy)), delivery));
                }
            }
        }
        for (after, delivery) in late {
            self.later(after, Act::Deliver(delivery));
        }
    }
}
