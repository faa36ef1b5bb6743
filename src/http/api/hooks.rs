//! Webhook endpoints: make and list. What is delivered to them goes to [`super::super::webhook`].

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::Shared;
use super::super::auth::Tenant;
use super::super::error::{Document, Problem, Result};
use super::super::extract::Json as JsonBody;
use super::super::webhook::{PROVIDER, SECRET_HEADER};
use super::Made;
use crate::store::endpoint::{self, Listed};

/// An endpoint to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateHook {
    /// What the provider sends in the secret header: 16 to 200 visible ASCII characters. Absent: one is generated.
    secret: Option<String>,
}

/// A made endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CreatedHook {
    /// The path segment.
    id: String,
    /// Who delivers there: `unipile`.
    provider: &'static str,
    /// The path to register with the provider, behind this server's public address.
    path: String,
    /// The header in which the provider must send the secret.
    header: &'static str,
    /// The secret. It is shown this once.
    secret: String,
}

/// The workspace's webhook endpoints.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Hooks {
    /// Oldest first.
    hooks: Vec<Listed>,
}

/// Makes a webhook endpoint with its secret.
#[utoipa::path(post, path = "/v1/hooks", tag = "webhooks", request_body = CreateHook, responses(
    (status = 201, body = CreatedHook), (status = 422, description = "`invalid_fields`", body = Document)))]
pub(crate) async fn create(
    State(shared): State<Arc<Shared>>,
    Tenant(workspace): Tenant,
    JsonBody(asked): JsonBody<CreateHook>,
) -> Result<Made<CreatedHook>> {
    let secret = asked.secret.as_deref();
    if secret.is_some_and(|s| !(16..=200).contains(&s.len()) || !s.bytes().all(|b| b.is_ascii_graphic())) {
        let message = "is 16 to 200 visible ASCII characters long; leave it out to have one generated";
        return Err(Problem::invalid(vec![("$.secret".to_owned(), message.to_owned())]));
    }
    let made = endpoint::create(&shared.app.pool, workspace, PROVIDER, secret, shared.app.clock.now()).await?;
    let path = format!("/v1/hooks/{PROVIDER}/{}", made.id);
    let made = CreatedHook { id: made.id, provider: PROVIDER, path, header: SECRET_HEADER, secret: made.secret };
    Ok((StatusCode::CREATED, Json(made)))
}

/// Lists the workspace's webhook endpoints, without their secrets.
#[utoipa::path(get, path = "/v1/hooks", tag = "webhooks", responses((status = 200, body = Hooks)))]
pub(crate) async fn list(State(shared): State<Arc<Shared>>, Tenant(workspace): Tenant) -> Result<Json<Hooks>> {
    Ok(Json(Hooks { hooks: endpoint::list(&shared.app.pool, workspace).await? }))
}
