//! Sending accounts: make, list, change; and how much each may do.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::Shared;
use super::super::auth::Tenant;
use super::super::error::{Document, Problem, Result};
use super::super::extract::{Id, Json as JsonBody};
use super::allowance::{Allowance, allowances};
use super::{Made, name};
use crate::domain::account::{AccountStatus, Channel};
use crate::domain::budget::{self, AccountKind};
use crate::domain::id::AccountId;
use crate::store::account::{self, Changes, Created, Listed, New};

/// What carries accounts today.
const PROVIDERS: &[&str] = &["unipile"];
/// The `kind` of an account that is to have no budget.
const UNLIMITED: &str = "unlimited";
/// A day: a larger gap is a slip of the unit.
const MIN_GAP_MS_MAX: u32 = 86_400_000;

/// What is wrong with a request: path and reason.
type Problems = Vec<(String, String)>;

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
    /// What it is at its provider, for example `linkedin_free`, `linkedin_premium`, `mail_workspace`: its limits are the
    /// defaults of that kind. The same as `limits` with nothing but `kind`. `unlimited`: only `min_gap_ms` holds.
    #[serde(default)]
    kind: Option<String>,
    /// How much it may do. With neither this nor `kind` it is taken for the most careful kind of its channel.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    limits: Option<Value>,
}

/// What is to be changed about an account; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangeAccount {
    /// A name for people.
    #[serde(default)]
    name: Option<String>,
    /// Least time between two sends, in milliseconds.
    #[serde(default)]
    min_gap_ms: Option<u32>,
    /// How much it may do, as a whole; `null`: only `min_gap_ms` holds.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Object>)]
    limits: Option<Value>,
    /// `active` (also for one that was halted), or `disabled`.
    #[serde(default)]
    status: Option<String>,
    /// `true`: it goes on at once, although the provider has said that a quota is used up.
    #[serde(default)]
    release: bool,
}

/// `null` is something else than nothing.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// A made account.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CreatedAccount {
    /// Its id with us.
    id: Uuid,
    /// How much it may do, in full; absent when it is unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    limits: Option<Value>,
    /// What to think of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// An account.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Account {
    #[serde(flatten)]
    row: Listed,
    /// How much it may do, in full; `null`: nobody has said, and only `min_gap_ms` holds.
    #[schema(value_type = Option<Object>)]
    limits: Option<Value>,
    /// What it has done of that lately.
    allowances: Vec<Allowance>,
}

/// The workspace's accounts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Accounts {
    /// Oldest first.
    accounts: Vec<Account>,
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
            let warnings = if asked.kind.is_none() && asked.limits.is_none() {
                vec![format!(
                    "no kind was given, so that this account is taken for {}, the most careful one: give it the kind that it is, \
                     or unlimited",
                    AccountKind::careful(new.channel)
                )]
            } else {
                Vec::new()
            };
            Ok((StatusCode::CREATED, Json(CreatedAccount { id: id.0, limits: new.limits, warnings })))
        }
        Created::Exists(id) => {
            Err(Problem::conflict("account_exists", "this workspace has that provider account already; see id")
                .with("id", id.to_string()))
        }
    }
}

/// Checks all fields; reports every one that is wrong.
fn check(asked: &CreateAccount) -> std::result::Result<New, Problems> {
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
    let gap = gap(asked.min_gap_ms, &mut problems);
    let wanted = match (&asked.kind, &asked.limits) {
        (Some(kind), None) => Some(json!({ "kind": kind })),
        (Some(_), Some(_)) => {
            problems
                .push(("$.kind".to_owned(), "stands in limits where there are limits: give one of both".to_owned()));
            None
        }
        (None, Some(limits)) => Some(limits.clone()),
        // Nobody has said: an account that is restricted costs more than one that is slow.
        (None, None) => Some(json!({})),
    };
    let wanted = wanted.filter(|_| asked.kind.as_deref() != Some(UNLIMITED));
    let limits = channel.and_then(|channel| limits(wanted?, channel, &mut problems));
    match channel {
        Some(channel) if problems.is_empty() => {
            let provider = asked.provider.clone();
            Ok(New { channel, provider, provider_account_id, name, min_gap_ms: gap, limits })
        }
        _ => Err(problems),
    }
}

fn gap(ms: u32, problems: &mut Problems) -> i32 {
    if ms > MIN_GAP_MS_MAX {
        problems.push(("$.min_gap_ms".to_owned(), format!("is at most {MIN_GAP_MS_MAX} (a day)")));
    }
    i32::try_from(ms).unwrap_or(i32::MAX)
}

/// Limits as they are stored: with every default written out, so that a later program with other defaults changes nothing.
fn limits(wanted: Value, channel: Channel, problems: &mut Problems) -> Option<Value> {
    match budget::parse(&wanted, channel) {
        Ok(budget) => Some(budget::to_json(&budget)),
        Err(found) => {
            let path = |path: &str| format!("$.limits{}", path.strip_prefix('$').unwrap_or(path));
            problems.extend(found.into_iter().map(|p| (path(&p.path), p.message)));
            None
        }
    }
}

/// Lists the workspace's accounts, with what each may do and has done.
#[utoipa::path(get, path = "/v1/accounts", tag = "accounts", responses((status = 200, body = Accounts)))]
pub(crate) async fn list(State(shared): State<Arc<Shared>>, Tenant(workspace): Tenant) -> Result<Json<Accounts>> {
    let rows = account::list(&shared.app.pool, workspace, None).await?;
    let now = shared.app.clock.now();
    Ok(Json(Accounts { accounts: rows.into_iter().map(|row| view(row, now)).collect() }))
}

/// One account.
#[utoipa::path(get, path = "/v1/accounts/{id}", tag = "accounts", params(("id" = Uuid, Path)),
    responses((status = 200, body = Account), (status = 404, body = Document)))]
pub(crate) async fn get(
    State(shared): State<Arc<Shared>>,
    Tenant(workspace): Tenant,
    Id(id): Id,
) -> Result<Json<Account>> {
    let row = find(&shared, workspace, AccountId(id)).await?;
    Ok(Json(view(row, shared.app.clock.now())))
}

/// Changes an account: its name, its limits, whether it sends.
#[utoipa::path(patch, path = "/v1/accounts/{id}", tag = "accounts", params(("id" = Uuid, Path)),
    request_body = ChangeAccount, responses(
    (status = 200, body = Account), (status = 404, body = Document),
    (status = 422, description = "`invalid_fields`", body = Document)))]
pub(crate) async fn change(
    State(shared): State<Arc<Shared>>,
    Tenant(workspace): Tenant,
    Id(id): Id,
    JsonBody(asked): JsonBody<ChangeAccount>,
) -> Result<Json<Account>> {
    let id = AccountId(id);
    let row = find(&shared, workspace, id).await?;
    let channel = Channel::parse(&row.channel).ok_or_else(Problem::internal)?;
    let changes = check_changes(asked, channel).map_err(Problem::invalid)?;
    if !account::update(&shared.app.pool, workspace, id, &changes, shared.app.clock.now()).await? {
        return Err(Problem::not_found("account"));
    }
    shared.app.runtime.accounts_changed();
    if changes.release {
        shared.app.runtime.account_released(id);
    }
    tracing::info!(account.id = %id, "account changed");
    let row = find(&shared, workspace, id).await?;
    Ok(Json(view(row, shared.app.clock.now())))
}

fn check_changes(asked: ChangeAccount, channel: Channel) -> std::result::Result<Changes, Problems> {
    let mut problems = Vec::new();
    let name = asked.name.map(|given| {
        name(&given, 200).unwrap_or_else(|e| {
            problems.push(("$.name".to_owned(), e));
            String::new()
        })
    });
    let min_gap_ms = asked.min_gap_ms.map(|ms| gap(ms, &mut problems));
    let limits = asked.limits.map(|wanted| match wanted {
        Value::Null => None,
        wanted => limits(wanted, channel, &mut problems),
    });
    let status = asked.status.and_then(|status| match AccountStatus::parse(&status) {
        Some(status @ (AccountStatus::Active | AccountStatus::Disabled)) => Some(status),
        _ => {
            problems
                .push(("$.status".to_owned(), "is active or disabled; halted is what the provider says".to_owned()));
            None
        }
    });
    if problems.is_empty() {
        Ok(Changes { name, min_gap_ms, limits, status, release: asked.release })
    } else {
        Err(problems)
    }
}

async fn find(shared: &Shared, workspace: crate::domain::id::WorkspaceId, id: AccountId) -> Result<Listed> {
    let row = account::list(&shared.app.pool, workspace, Some(id)).await?.pop();
    row.ok_or_else(|| Problem::not_found("account"))
}

fn view(row: Listed, now: crate::domain::time::Timestamp) -> Account {
    Account { limits: row.limits.clone(), allowances: allowances(&row, now), row }
}
