//! The webhook receiver: who delivers is checked, what is delivered is stored in one commit, and only then acknowledged.
//!
//! A body that we do not understand is stored and acknowledged like any other: the provider would repeat it five times and
//! then drop it. What it means is worked out afterwards, from the inbox.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use metrics::counter;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::error::{Document, Problem, Result};
use super::extract::body;
use super::limits::shed;
use super::{Shared, auth};
use crate::domain::id::InboxId;
use crate::provider::unipile::webhook::parse;
use crate::store::inbox::{self, NewInbox, Stored};
use crate::store::{self, campaign, endpoint};
use crate::telemetry::WEBHOOKS;
use crate::telemetry::trace::{Side, Stage};

/// Who delivers here; also the inbox source.
pub(crate) const PROVIDER: &str = "unipile";
/// The header in which the provider sends the endpoint's secret.
pub(crate) const SECRET_HEADER: &str = "Unipile-Auth";
/// Headers worth keeping beside the body. The secret is none of them.
const KEPT: &[&str] = &["content-type", "user-agent"];

/// The acknowledgement.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Receipt {
    /// `stored` or `duplicate`.
    status: &'static str,
}

/// Takes in what Unipile delivers to an endpoint. Authenticated by the endpoint's secret in `Unipile-Auth`, not by an API key.
#[utoipa::path(post, path = "/v1/hooks/unipile/{endpoint}", tag = "webhooks", security(()),
    params(("endpoint" = String, Path, description = "From POST /v1/hooks")),
    request_body(description = "Any bytes", content = String),
    responses(
        (status = 200, description = "Stored, or stored before; durable", body = Receipt),
        (status = 401, body = Document), (status = 403, description = "`webhook_secret_not_configured`", body = Document),
        (status = 404, body = Document), (status = 413, body = Document),
        (status = 503, description = "Not stored: deliver it again", body = Document)))]
pub(crate) async fn receive(
    State(shared): State<Arc<Shared>>,
    Path(endpoint): Path<String>,
    request: Request,
) -> Result<Json<Receipt>> {
    let result = take_in(&shared, &endpoint, request).await;
    let outcome = match &result {
        Ok(Stored::New) => "accepted",
        Ok(Stored::Duplicate) => "duplicate",
        Err(_) => "refused",
    };
    counter!(WEBHOOKS, "outcome" => outcome).increment(1);
    let status = match result? {
        Stored::New => "stored",
        Stored::Duplicate => "duplicate",
    };
    Ok(Json(Receipt { status }))
}

async fn take_in(shared: &Shared, endpoint: &str, request: Request) -> Result<Stored> {
    // Bodies are held in memory until they are stored, so only so many may be on their way; and what the engine cannot apply
    // soon is better kept by the provider.
    let _place = shared.limits.enter_webhook()?;
    if !shared.app.runtime.has_room() {
        shed("engine");
        return Err(Problem::busy("the engine has no room for more facts; deliver it again"));
    }
    let pool = &shared.limits.facts;
    let known = endpoint::find(pool, endpoint, PROVIDER).await?.ok_or_else(|| Problem::not_found("endpoint"))?;
    if !known.has_secret() {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "webhook_secret_not_configured",
            "this endpoint has no secret, so nothing is taken in; make one with POST /v1/hooks",
        ));
    }
    let presented = request.headers().get(SECRET_HEADER).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !known.accepts(presented) {
        auth::refused("webhook", if presented.is_empty() { "missing" } else { "invalid" });
        return Err(Problem::unauthorized(
            "invalid_webhook_secret",
            "the header Unipile-Auth does not hold this endpoint's secret",
        ));
    }
    let headers = kept(request.headers());
    let body = body(request, &()).await?;

    let now = shared.app.clock.now();
    let id = InboxId(campaign::new_id(now));
    let fact = shared.app.runtime.new_fact(known.workspace(), id);
    let new = NewInbox {
        workspace: known.workspace(),
        id,
        source: PROVIDER.to_owned(),
        dedupe_key: format!("{PROVIDER}:{}", parse(&body, now).dedupe_key),
        headers: Some(headers),
        body: body.into(),
        received_at: now,
        shard: None,
    };
    let storing = Stage::within("store", Side::Inside);
    // Handed over within the stage, which what follows from it belongs to.
    let stored = storing.run(async {
        let stored = inbox::store(pool, &new).await?;
        if stored == Stored::New {
            fact.is_durable();
            fact.stored(new);
        }
        Ok::<_, store::Error>(stored)
    });
    stored.await.map_err(|error| {
        // Whatever the reason: what is not stored must be delivered again.
        tracing::error!(error = &error as &dyn std::error::Error, "cannot store a webhook");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "storage_unavailable", "not stored; deliver it again")
            .retry_after(5)
    })
}

fn kept(headers: &HeaderMap) -> Value {
    KEPT.iter()
        .filter_map(|name| {
            Some(((*name).to_owned(), json!(headers.get(*name)?.to_str().ok()?.chars().take(200).collect::<String>())))
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}
