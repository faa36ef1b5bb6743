//! `POST /v1/triggers`: a fact about a prospect that another program knows. Stored in the inbox first, then delivered.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::Shared;
use super::super::auth::Tenant;
use super::super::error::{Document, Problem, Result};
use super::super::extract::Json as JsonBody;
use super::prospects::execution_of;
use crate::domain::account::Channel;
use crate::domain::execution::BounceStatus;
use crate::domain::id::{InboxId, WorkspaceId};
use crate::domain::trigger::Trigger;
use crate::runtime::{DeliverError, Delivery};
use crate::store::inbox::{self, InboxStatus, Mark, NewInbox, Stored};
use crate::store::suppression;
use crate::telemetry::trace::{Side, Stage};

/// How long an answer waits for what became of a fact. It is durable then, and is applied however long that takes.
const APPLY_WAIT: Duration = Duration::from_secs(5);
/// The inbox source of these facts.
const SOURCE: &str = "api";

/// A fact about a prospect.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PostTrigger {
    /// Whom it is about.
    prospect_id: Uuid,
    /// `connection_accepted`, `reply`, `bounce` or `unsubscribe`.
    trigger: String,
    /// For `reply`: `linkedin`, `email` or `whatsapp`.
    channel: Option<String>,
    /// For `bounce`: `hard` (where it is not given) or `soft`.
    bounce: Option<String>,
    /// Your own id of the fact, at most 200 characters: the same key again changes nothing.
    key: Option<String>,
}

/// What became of the fact.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct TriggerAnswer {
    /// Whether it moved the execution; durable when true.
    applied: bool,
    /// The key was used before: nothing was changed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
    /// Why it moved nothing: late, repeated, or `queued` (stored, applied as soon as the engine has room).
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// The execution's version after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<i64>,
    /// Its status after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
}

/// Tells the engine that something happened.
#[utoipa::path(post, path = "/v1/triggers", tag = "triggers", request_body = PostTrigger, responses(
    (status = 200, description = "Applied, refused as late or repeated, or a duplicate", body = TriggerAnswer),
    (status = 202, description = "Stored; applied as soon as the engine has room", body = TriggerAnswer),
    (status = 404, body = Document), (status = 409, description = "`unrunnable`", body = Document),
    (status = 422, description = "`invalid_fields`", body = Document), (status = 503, body = Document)))]
pub(crate) async fn create(
    State(shared): State<Arc<Shared>>,
    Tenant(workspace): Tenant,
    JsonBody(asked): JsonBody<PostTrigger>,
) -> Result<Response> {
    let trigger = check(&asked).map_err(Problem::invalid)?;
    // What is stored and not dealt with is remembered until then.
    if !shared.app.runtime.takes_facts() {
        return Err(Problem::busy("the engine has no room for more facts; tell it again"));
    }
    let pool = &shared.limits.facts;
    let execution = execution_of(pool, workspace, asked.prospect_id).await?.execution_id();

    let now = shared.app.clock.now();
    let id = InboxId(crate::store::campaign::new_id(now));
    let fact = json!({
        "execution_id": execution.0, "prospect_id": asked.prospect_id, "trigger": trigger.name(),
        "channel": asked.channel, "bounce": asked.bounce,
    });
    let new = NewInbox {
        workspace,
        id,
        source: SOURCE.to_owned(),
        dedupe_key: format!("{SOURCE}:{}", asked.key.unwrap_or_else(|| id.to_string())),
        headers: None,
        body: fact.to_string().into_bytes(),
        received_at: now,
        shard: Some(execution.shard()),
    };
    let noted = shared.app.runtime.new_fact(workspace, id).about(execution);
    let storing = Stage::within("store", Side::Inside);
    let stored = storing.run(inbox::store(pool, &new)).await?;
    drop(storing);
    if stored == Stored::Duplicate {
        return Ok(Json(TriggerAnswer { duplicate: true, ..TriggerAnswer::default() }).into_response());
    }
    noted.is_durable();

    // From here on the fact is durable. What cannot be done now is done from the inbox.
    if let Some(reason) = trigger.suppresses() {
        suppression::add_people(pool, &[execution], reason, now).await?;
    }
    let delivery = shared.app.runtime.deliver(execution, trigger);
    let outcome = match tokio::time::timeout(APPLY_WAIT, delivery).await {
        Ok(Ok(outcome)) => outcome,
        Err(_) | Ok(Err(DeliverError::Busy | DeliverError::Stopping)) => {
            noted.stored(new);
            let answer = TriggerAnswer { reason: Some("queued"), ..TriggerAnswer::default() };
            return Ok((StatusCode::ACCEPTED, Json(answer)).into_response());
        }
        Ok(Err(error @ (DeliverError::NotFound(_) | DeliverError::Unrunnable(..)))) => {
            mark(&shared, workspace, id, InboxStatus::Failed, error.to_string()).await;
            return Err(error.into());
        }
    };
    let answer = match outcome {
        Delivery::Applied { version, status } => {
            mark(&shared, workspace, id, InboxStatus::Applied, "applied".to_owned()).await;
            TriggerAnswer {
                applied: true,
                version: Some(version),
                status: Some(status.as_str()),
                ..TriggerAnswer::default()
            }
        }
        Delivery::Rejected { reason } => {
            mark(&shared, workspace, id, InboxStatus::Applied, reason.to_owned()).await;
            TriggerAnswer { reason: Some(reason), ..TriggerAnswer::default() }
        }
    };
    Ok(Json(answer).into_response())
}

/// Closes the inbox row. A failure leaves it open: the engine delivers it once more and finds that it is late.
async fn mark(shared: &Shared, workspace: WorkspaceId, id: InboxId, status: InboxStatus, outcome: String) {
    let mark = Mark { workspace, id, status, outcome: Some(outcome), shard: None };
    if let Err(error) = inbox::mark(&shared.limits.facts, &[mark], shared.app.clock.now()).await {
        tracing::warn!(inbox.id = %id, error = &error as &dyn std::error::Error, "cannot close an inbox row");
    }
}

/// The trigger that is meant; or every field that is wrong.
fn check(asked: &PostTrigger) -> std::result::Result<Trigger, Vec<(String, String)>> {
    let mut problems = Vec::new();
    let mut wrong = |field: &str, message: &str| problems.push((format!("$.{field}"), message.to_owned()));
    if asked.key.as_ref().is_some_and(|k| super::name(k, 200).as_ref() != Ok(k)) {
        wrong("key", "is 1 to 200 characters long, without control characters or spaces around it");
    }
    let channel = asked.channel.as_deref().map(Channel::parse);
    let bounce = asked.bounce.as_deref().map(BounceStatus::parse);
    if channel.is_some() && asked.trigger != "reply" {
        wrong("channel", "goes with the trigger 'reply' only");
    }
    if bounce.is_some() && asked.trigger != "bounce" {
        wrong("bounce", "goes with the trigger 'bounce' only");
    }
    let trigger = match asked.trigger.as_str() {
        "connection_accepted" => Some(Trigger::ConnectionAccepted),
        "unsubscribe" => Some(Trigger::Unsubscribe),
        "reply" => channel.flatten().map_or_else(
            || {
                wrong("channel", "is one of linkedin, email, whatsapp");
                None
            },
            |channel| Some(Trigger::Reply { channel }),
        ),
        "bounce" => bounce.unwrap_or(Some(BounceStatus::Hard)).map_or_else(
            || {
                wrong("bounce", "is hard or soft");
                None
            },
            |status| Some(Trigger::Bounce { status }),
        ),
        _ => {
            wrong("trigger", "is one of connection_accepted, reply, bounce, unsubscribe");
            None
        }
    };
    trigger.filter(|_| problems.is_empty()).ok_or(problems)
}
