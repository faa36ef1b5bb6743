//! How many requests of a kind may be under way, and which connections to the database they have. A flood of one kind takes
//! nothing from the others; what finds no place is refused at once, with `Retry-After`, in place of waiting for its time-out.

use axum::http::Method;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::{Problem, Result};
use super::observe::IMPORT_ROUTE;
use super::{CONNECTION_WAIT, Options};
use crate::store::{self, Pool};
use crate::telemetry::{HTTP_IN_FLIGHT, HTTP_SHED};

/// The route on which other programs tell facts.
pub(crate) const TRIGGERS_ROUTE: &str = "/v1/triggers";
/// Where the provider delivers.
pub(crate) const WEBHOOK_ROUTE: &str = "/v1/hooks/unipile/{endpoint}";
/// Where people unsubscribe.
pub(crate) const UNSUBSCRIBE_ROUTE: &str = "/u/{token}";
/// Connections for facts, beside those of all other requests.
const FACT_CONNECTIONS: u32 = 6;

/// Requests that share a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Health and metrics: what watches us has to be answered when all else is full.
    Watch,
    /// Deliveries of the provider. The receiver takes their places itself.
    Webhook,
    /// Facts of other programs, which stay until they are durable.
    Trigger,
    /// People who follow the link in a mail, and the scanners that do so before them.
    Unsubscribe,
    /// Uploads of prospects, the largest bodies.
    Upload,
    /// People and programs that look and command.
    Other,
}

impl Kind {
    /// Of a method and a route's template.
    pub(crate) fn of(method: &Method, route: &str) -> Self {
        match route {
            "/healthz" | "/readyz" | "/metrics" => Self::Watch,
            WEBHOOK_ROUTE => Self::Webhook,
            TRIGGERS_ROUTE => Self::Trigger,
            UNSUBSCRIBE_ROUTE => Self::Unsubscribe,
            IMPORT_ROUTE if method == Method::POST => Self::Upload,
            _ => Self::Other,
        }
    }

    /// The connections to the database that such requests have.
    pub(crate) const fn pool(self) -> &'static str {
        match self {
            Self::Webhook | Self::Trigger | Self::Unsubscribe => "facts",
            Self::Watch | Self::Upload | Self::Other => "api",
        }
    }

    /// As the metrics name it.
    const fn name(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Trigger => "trigger",
            Self::Unsubscribe => "unsubscribe",
            Self::Upload => "upload",
            Self::Watch | Self::Other => "other",
        }
    }
}

/// Something was refused for want of room. `kind` is one of the values of [`HTTP_SHED`].
pub(crate) fn shed(kind: &'static str) {
    metrics::counter!(HTTP_SHED, "kind" => kind).increment(1);
}

/// The places.
pub(crate) struct Limits {
    max: Options,
    webhooks: Semaphore,
    triggers: Semaphore,
    unsubscribes: Semaphore,
    uploads: Semaphore,
    others: Semaphore,
    /// The connections of facts: neither a slow report nor an upload keeps one from being stored.
    pub(crate) facts: Pool,
}

impl Limits {
    pub(crate) fn new(options: &Options, pool: &Pool) -> Self {
        Self {
            max: options.clone(),
            webhooks: Semaphore::new(options.webhooks_in_flight_max),
            triggers: Semaphore::new(options.triggers_in_flight_max),
            unsubscribes: Semaphore::new(options.unsubscribes_in_flight_max),
            uploads: Semaphore::new(options.uploads_in_flight_max),
            others: Semaphore::new(options.in_flight_max),
            facts: store::apart(pool, FACT_CONNECTIONS, CONNECTION_WAIT),
        }
    }

    /// A place among the requests of a kind; `None` for a kind that needs none here.
    ///
    /// # Errors
    /// 503 `busy` when all are taken.
    pub(crate) fn enter(&self, kind: Kind) -> Result<Option<SemaphorePermit<'_>>> {
        let places = match kind {
            Kind::Watch | Kind::Webhook => return Ok(None),
            Kind::Trigger => &self.triggers,
            Kind::Unsubscribe => &self.unsubscribes,
            Kind::Upload => &self.uploads,
            Kind::Other => &self.others,
        };
        let busy = |_| {
            shed(kind.name());
            Problem::busy("too many requests of this kind at once; try again in a second")
        };
        places.try_acquire().map(Some).map_err(busy)
    }

    /// A place among the deliveries of the provider.
    ///
    /// # Errors
    /// 503 `busy` when all are taken.
    pub(crate) fn enter_webhook(&self) -> Result<SemaphorePermit<'_>> {
        self.webhooks.try_acquire().map_err(|_| {
            shed(Kind::Webhook.name());
            Problem::busy("too many deliveries at once; deliver it again")
        })
    }

    /// Sets the gauges of what is under way.
    #[expect(clippy::cast_precision_loss, reason = "gauges of counts")]
    pub(crate) fn sample(&self) {
        for (kind, places, max) in [
            (Kind::Webhook, &self.webhooks, self.max.webhooks_in_flight_max),
            (Kind::Trigger, &self.triggers, self.max.triggers_in_flight_max),
            (Kind::Unsubscribe, &self.unsubscribes, self.max.unsubscribes_in_flight_max),
            (Kind::Upload, &self.uploads, self.max.uploads_in_flight_max),
            (Kind::Other, &self.others, self.max.in_flight_max),
        ] {
            let taken = max.saturating_sub(places.available_permits());
            metrics::gauge!(HTTP_IN_FLIGHT, "kind" => kind.name()).set(taken as f64);
        }
        store::sample_pool("facts", &self.facts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_has_its_kind() {
        for (method, route, kind) in [
            (Method::GET, "/healthz", Kind::Watch),
            (Method::POST, WEBHOOK_ROUTE, Kind::Webhook),
            (Method::POST, TRIGGERS_ROUTE, Kind::Trigger),
            (Method::POST, UNSUBSCRIBE_ROUTE, Kind::Unsubscribe),
            (Method::POST, IMPORT_ROUTE, Kind::Upload),
            (Method::GET, IMPORT_ROUTE, Kind::Other),
            (Method::GET, "other", Kind::Other),
        ] {
            assert_eq!(Kind::of(&method, route), kind, "{method} {route}");
        }
    }
}
