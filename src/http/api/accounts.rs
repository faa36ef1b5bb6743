//! Sending accounts: make and list.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::Shared;
use super::super::auth::Tenant;
use super::super::error::{Document, Problem, Result};
use super::super::extract::Json as JsonBody;
use super::{Made, name};
use crate::domain::account::Channel;
use crate::store::account::{self, Created, Listed, New};

/// What carries accounts today.
const PROVIDERS: &[&str] = &["unipile"];
/// A day: a larger gap is a slip of the unit.
const MIN_GAP_MS_MAX: u32 = 86_400_000;

/// An account to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateAccount {
    /// `linkedin`, `email` or `whatsapp`.
    channel: String,
    /// `unipile`.
    provider: String,
    /// Its id with the provider.
    provider_account_id: String,
    /// A name for people.
    name: String,
    /// Least time between two sends, in milliseconds; 0 where it is not given.
    #[serde(default)]
    min_gap_ms: u32,
}

/// A made account.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CreatedAccount {
    /// Its id with us.
    id: Uuid,
}

/// The workspace's accounts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Accounts {
    /// Oldest first.
    accounts: Vec<Listed>,
}

/// Makes a sending account.
#[utoipa::path(post, path = "/v1/accounts", tag = "accounts", request_body = CreateAccount, responses(
    (status = 201, body = CreatedAccount),
    (status = 409, description = "`account_exists`, with the `id` it has", body = Document),
    (status = 422, description = "`invalid_fields`", body = Document)))]
pub(crate) async fn create(
    State(shared): State<Arc<Shared>>,
    Tenant(workspace): Tenant,
    JsonBody(asked): JsonBody<CreateAccount>,
) -> Result<Made<CreatedAccount>> {
    let new = check(&asked).map_err(Problem::invalid)?;
    match account::create(&shared.app.pool, workspace, &new, shared.app.clock.now()).await? {
        Created::New(id) => {
            shared.app.runtime.accounts_changed();
            tracing::info!(account.id = %id, channel = new.channel.as_str(), "account made");
            Ok((StatusCode::CREATED, Json(CreatedAccount { id: id.0 })))
        }
        Created::Exists(id) => {
            Err(Problem::conflict("account_exists", "this workspace has that provider account already; see id")
                .with("id", id.to_string()))
        }
    }
}

/// Checks all fields; reports every one that is wrong.
fn check(asked: &CreateAccount) -> std::result::Result<New, Vec<(String, String)>> {
    let mut problems = Vec::new();
    let mut text = |field: &str, value: &str| {
        name(value, 200).unwrap_or_else(|e| {
            problems.push((format!("$.{field}"), e));
            String::new()
        })
    };
    let provider_account_id = text("provider_account_id", &asked.provider_account_id);
    let name = text("name", &asked.name);
    let channel = Channel::parse(&asked.channel);
    if channel.is_none() {
        problems.push(("$.channel".to_owned(), "is one of linkedin, email, whatsapp".to_owned()));
    }
    if !PROVIDERS.contains(&asked.provider.as_str()) {
        problems.push(("$.provider".to_owned(), format!("is one of {}", PROVIDERS.join(", "))));
    }
    if asked.min_gap_ms > MIN_GAP_MS_MAX {
        problems.push(("$.min_gap_ms".to_owned(), format!("is at most {MIN_GAP_MS_MAX} (a day)")));
    }
    match (channel, i32::try_from(asked.min_gap_ms)) {
        (Some(channel), Ok(min_gap_ms)) if problems.is_empty() => {
            Ok(New { channel, provider: asked.provider.clone(), provider_account_id, name, min_gap_ms })
        }
        _ => Err(problems),
    }
}

/// Lists the workspace's accounts.
#[utoipa::path(get, path = "/v1/accounts", tag = "accounts", responses((status = 200, body = Accounts)))]
pub(crate) async fn list(State(shared): State<Arc<Shared>>, Tenant(workspace): Tenant) -> Result<Json<Accounts>> {
    Ok(Json(Accounts { accounts: account::list(&shared.app.pool, workspace).await? }))
}
