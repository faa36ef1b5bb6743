//! `POST /v1/campaigns/{id}/prospects`: takes people in, from CSV or JSON.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::super::Shared;
use super::super::auth::Tenant;
use super::super::error::{Document, Problem, Result};
use super::super::extract::{Id, Query, body, content_type, is_json, unsupported};
use super::super::import::{DuplicateRow, ROWS_MAX, RejectedRow, Unreadable, Upload, csv, json};
use super::Made;
use super::campaigns::{channels, find};
use crate::domain::account::Channel;
use crate::domain::flow;
use crate::domain::id::CampaignId;
use crate::store::campaign::Campaign;
use crate::store::upload::{self, New, Taken};

/// What became of an upload. Every row is in `accepted`, `duplicates`, `suppressed` or `rejected`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ImportReport {
    /// Rows that are prospects of the campaign now.
    accepted: usize,
    /// Rows that are somebody already there, or earlier in the upload.
    duplicates: Vec<DuplicateRow>,
    /// Rows that were not taken because the person is on the list of those who are not written to: by address, domain, profile
    /// or phone. An address that only bounced keeps nobody out who can be reached in another way.
    suppressed: Vec<SuppressedRow>,
    /// Rows that were not taken, each with its place and reason.
    rejected: Vec<RejectedRow>,
    /// What the campaign's flow will miss.
    warnings: Vec<String>,
    /// The ids of the new prospects, in the order of the upload; only with `return_ids=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    prospect_ids: Option<Vec<Uuid>>,
}

/// A row whose person is not written to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct SuppressedRow {
    /// As in `rejected`.
    line: u64,
    /// What is on the list: `email`, `domain`, `linkedin_url` or `phone`.
    key: &'static str,
    /// Why: `unsubscribed`, `hard_bounce`, `complaint` or `manual`.
    reason: String,
}

/// How to answer.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ImportOptions {
    /// Whether the answer lists the new prospects' ids.
    #[serde(default)]
    return_ids: bool,
}

/// Takes prospects in: at most 10,000 rows and 25 MiB. The good rows are taken in one transaction, the others reported.
#[utoipa::path(post, path = "/v1/campaigns/{id}/prospects", tag = "prospects",
    params(("id" = Uuid, Path), ImportOptions),
    request_body(description = "An array of prospects, `{\"prospects\": [...]}`, or CSV whose first line names the columns",
        content((Vec<Object> = "application/json"), (String = "text/csv"))),
    responses(
        (status = 201, description = "Rows were taken", body = ImportReport),
        (status = 200, description = "No row was taken; the report says why", body = ImportReport),
        (status = 404, body = Document), (status = 409, description = "`invalid_status`", body = Document),
        (status = 413, description = "`body_too_large` or `too_many_rows`", body = Document),
        (status = 415, body = Document),
        (status = 422, description = "`not_utf8`, `no_contact_column`, `invalid_csv`", body = Document)))]
pub(crate) async fn import(
    State(shared): State<Arc<Shared>>,
    Tenant(workspace): Tenant,
    Id(id): Id,
    Query(options): Query<ImportOptions>,
    request: Request,
) -> Result<Made<ImportReport>> {
    let pool = &shared.app.pool;
    let id = CampaignId(id);
    let campaign = find(pool, workspace, id).await?;
    if campaign.status == "completed" {
        return Err(Problem::conflict("invalid_status", "the campaign is completed; nobody can join it any more"));
    }
    let content_type = content_type(request.headers());
    let reader: fn(&[u8]) -> std::result::Result<Upload, Unreadable> = match content_type.as_str() {
        "text/csv" | "application/csv" => csv::read,
        other if is_json(other) => json::read,
        _ => return Err(unsupported("application/json or text/csv")),
    };
    let body = body(request, &()).await?;
    // Reading 25 MiB takes long enough to hold up other requests of this thread.
    let reading = tokio::task::spawn_blocking(move || reader(&body));
    let (upload, turn) = tokio::join!(reading, shared.uploads.queue(id));
    let upload = upload.map_err(|_| Problem::internal())?;
    let Upload { rows, rejected, mut duplicates } = upload.map_err(|e| refused(&e))?;

    let (lines, people): (Vec<u64>, Vec<New>) = rows.into_iter().unzip();
    let taken = if people.is_empty() {
        Vec::new()
    } else {
        let _inside = turn.enter(people.iter().flat_map(|person| person.keys.iter()).collect()).await;
        let (lease, now) = (shared.app.runtime.lease(), shared.app.clock.now());
        upload::import(pool, lease, (workspace, id), campaign.flow_version, &people, now).await?
    };
    let mut ids = Vec::new();
    let mut joined = Vec::new();
    let mut suppressed = Vec::new();
    for ((line, person), taken) in lines.into_iter().zip(&people).zip(taken) {
        match taken {
            Taken::New(id) => {
                ids.push(id.0);
                joined.push(person);
            }
            Taken::Known { prospect, key } => duplicates.push(DuplicateRow { line, of: prospect.to_string(), key }),
            Taken::Suppressed(why) => suppressed.push(SuppressedRow { line, key: why.key, reason: why.reason }),
        }
    }
    duplicates.sort_by_key(|d| d.line);
    if !ids.is_empty() {
        shared.app.runtime.arrivals();
    }
    tracing::info!(
        campaign.id = %id, accepted = ids.len(), duplicates = duplicates.len(), suppressed = suppressed.len(),
        rejected = rejected.len(), "prospects imported"
    );
    let status = if ids.is_empty() { StatusCode::OK } else { StatusCode::CREATED };
    let report = ImportReport {
        accepted: ids.len(),
        duplicates,
        suppressed,
        rejected,
        warnings: warnings(&campaign, &joined),
        prospect_ids: options.return_ids.then_some(ids),
    };
    Ok((status, Json(report)))
}

/// What the flow needs and the rows do not have.
fn warnings(campaign: &Campaign, joined: &[&New]) -> Vec<String> {
    let Ok(flow) = flow::parse(&campaign.flow_settings) else {
        return vec!["the campaign's flow cannot be run; GET /v1/campaigns/{id} says why".to_owned()];
    };
    let nameless = joined.iter().filter(|p| p.first_name.is_none()).count();
    let names = (nameless > 0 && flow::needs_first_name(&flow)).then(|| {
        let total = joined.len();
        format!("{nameless} of {total} accepted rows have no first_name, which the flow writes without a default: those steps fail for them")
    });
    let needed: BTreeSet<Channel> = channels(&flow);
    let without = |channel: Channel| match channel {
        Channel::Linkedin => ("linkedin_url", joined.iter().filter(|p| p.linkedin_url.is_none()).count()),
        Channel::Email => ("email", joined.iter().filter(|p| p.email.is_none()).count()),
        Channel::Whatsapp => ("phone", joined.iter().filter(|p| p.phone.is_none()).count()),
    };
    needed
        .into_iter()
        .map(|channel| (channel, without(channel)))
        .filter(|(_, (_, count))| *count > 0)
        .map(|(channel, (column, count))| {
            let total = joined.len();
            format!("{count} of {total} accepted rows have no {column}, which the flow's {channel} steps need")
        })
        .chain(names)
        .collect()
}

pub(crate) fn refused(error: &Unreadable) -> Problem {
    let detail = error.to_string();
    let unprocessable = |code| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail.clone());
    match error {
        Unreadable::NotUtf8 { line } => unprocessable("not_utf8").with("line", *line),
        Unreadable::Empty => unprocessable("empty_file"),
        Unreadable::NoContactColumn { .. } => unprocessable("no_contact_column"),
        Unreadable::TooManyRows => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_rows", detail).with("rows_max", ROWS_MAX)
        }
        Unreadable::Json(_, line, column) => {
            Problem::new(StatusCode::BAD_REQUEST, "invalid_json", detail).with("line", *line).with("column", *column)
        }
        Unreadable::Csv { line, .. } => unprocessable("invalid_csv").with("line", *line),
    }
}
