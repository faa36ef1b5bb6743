//! Prospects as the API takes them in, lists and shows them. A prospect made here gets its execution row (version 0) in the
//! same commit; the engine picks it up like one that another program inserted.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::types::Json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::campaign::new_id;
use super::{Error, Pool, failed};
use crate::domain::execution::Status;
use crate::domain::id::{CampaignId, ExecutionId, ProspectId, WorkspaceId};
use crate::domain::suppression::{Kind, Reason};
use crate::domain::time::Timestamp;

// Two uploads into one campaign take turns: otherwise both could find the other's people absent. A table that has not been
// analysed yet looks as if a key had many rows; for one row a key a bitmap costs more than it saves.
const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended('campaignd:prospects:' || $1::text, 0)), \
       set_config('enable_bitmapscan', 'off', true)";

// A person is known by mail address, LinkedIn slug or phone digits; the expressions are the indexed ones. OFFSET 0 keeps the
// planner from reading the whole campaign instead, which takes seconds at 400,000 people.
const KNOWN: &str = "WITH i AS ( \
       SELECT n, lower(email) AS email, campaignd_linkedin_slug(linkedin_url) AS linkedin, campaignd_phone_digits(phone) AS phone \
       FROM unnest($3::int4[], $4::text[], $5::text[], $6::text[]) AS u (n, email, linkedin_url, phone)) \
     SELECT i.n, p.id, 'email' AS key FROM i CROSS JOIN LATERAL \
       (SELECT p.id, p.campaign_id FROM campaign_prospects p WHERE lower(p.email) = i.email OFFSET 0) p \
       JOIN campaigns c ON c.id = p.campaign_id WHERE c.workspace_id = $1 AND p.campaign_id = $2 \
     UNION ALL \
     SELECT i.n, p.id, 'linkedin_url' FROM i CROSS JOIN LATERAL \
       (SELECT p.id, p.campaign_id FROM campaign_prospects p WHERE campaignd_linkedin_slug(p.linkedin_url) = i.linkedin OFFSET 0) p \
       JOIN campaigns c ON c.id = p.campaign_id WHERE c.workspace_id = $1 AND p.campaign_id = $2 \
     UNION ALL \
     SELECT i.n, p.id, 'phone' FROM i CROSS JOIN LATERAL \
       (SELECT p.id, p.campaign_id FROM campaign_prospects p WHERE campaignd_phone_digits(p.phone) = i.phone OFFSET 0) p \
       JOIN campaigns c ON c.id = p.campaign_id WHERE c.workspace_id = $1 AND p.campaign_id = $2";

// As campaignd_suppressed does for a claim, but told by what. A workspace without a list has nothing to look up.
const SUPPRESSED: &str = "SELECT u.n, k.kind, s.reason \
     FROM unnest($2::int4[], $3::text[], $4::text[], $5::text[]) AS u (n, email, linkedin_url, phone) \
     CROSS JOIN LATERAL (VALUES ('address', u.email), ('profile', u.linkedin_url), ('phone', u.phone) UNION ALL \
         SELECT 'domain', d FROM unnest(campaignd_domains(split_part(lower(btrim(u.email)), '@', -1))) AS d) AS k (kind, given) \
     CROSS JOIN LATERAL (SELECT s.reason FROM suppressions s WHERE s.workspace_id = $1 AND s.kind = k.kind \
         AND s.value = campaignd_suppression_value(k.kind, k.given) OFFSET 0) AS s \
     WHERE EXISTS (SELECT FROM suppressions WHERE workspace_id = $1)";

const INSERT_PROSPECTS: &str = "INSERT INTO campaign_prospects \
       (id, campaign_id, workspace_id, first_name, last_name, email, phone, linkedin_url, company_name, title, data, created_at) \
     SELECT i.id, $2, $1, i.first_name, i.last_name, i.email, i.phone, i.linkedin_url, i.company_name, i.title, i.data, $3 \
     FROM unnest($4::uuid[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::jsonb[]) \
       AS i (id, first_name, last_name, email, phone, linkedin_url, company_name, title, data)";

const INSERT_EXECUTIONS: &str = "INSERT INTO campaign_prospect_execution_state \
       (id, campaign_id, prospect_id, workspace_id, flow_version, current_step, status, next_execution_at, version, created_at, updated_at) \
     SELECT i.id, $2, i.prospect_id, $1, $3, 1, 'pending', $4, 0, $4, $4 \
     FROM unnest($5::uuid[], $6::uuid[]) AS i (id, prospect_id)";

// Walks the unique index on (campaign_id, prospect_id).
const LIST: &str = "SELECT p.id, p.first_name, p.last_name, p.email, p.phone, p.linkedin_url, p.company_name, p.title, p.created_at, \
       e.status, e.current_step, e.exit_reason, e.next_execution_at \
     FROM campaign_prospect_execution_state e \
     JOIN campaigns c ON c.id = e.campaign_id \
     JOIN campaign_prospects p ON p.id = e.prospect_id \
     WHERE c.workspace_id = $1 AND e.campaign_id = $2 AND ($3::uuid IS NULL OR e.prospect_id > $3) \
       AND ($4::text IS NULL OR e.status = $4) \
     ORDER BY e.prospect_id LIMIT $5";

const GET: &str = "SELECT p.id, p.campaign_id, p.first_name, p.last_name, p.email, p.phone, p.linkedin_url, p.company_name, p.title, \
       coalesce(p.data, '{}') AS data, p.created_at \
     FROM campaign_prospects p JOIN campaigns c ON c.id = p.campaign_id WHERE c.workspace_id = $1 AND p.id = $2";

const EXECUTION: &str = "SELECT e.id, e.campaign_id, e.prospect_id, e.current_step, e.status, \
       coalesce(e.completed_steps, '{}') AS completed_steps, coalesce(e.failed_steps, '{}') AS failed_steps, \
       coalesce(e.skipped_steps, '{}') AS skipped_steps, e.linkedin_state, e.email_state, e.whatsapp_state, \
       e.waiting_for_trigger, coalesce(e.trigger_check_count, 0) AS trigger_check_count, \
       coalesce(e.trigger_max_checks, 168) AS trigger_max_checks, e.next_check_at, e.n8n_execution_id, e.last_executed_at, \
       e.next_execution_at, e.last_error, coalesce(e.error_count, 0) AS error_count, \
       coalesce(e.flow_version, c.flow_version) AS flow_version, e.version, e.exit_reason, e.paused_status, e.open_send, \
       e.channel_accounts, e.updated_at \
     FROM campaign_prospect_execution_state e JOIN campaigns c ON c.id = e.campaign_id \
     WHERE c.workspace_id = $1 AND e.prospect_id = $2";

const OPEN_SEND: &str = "SELECT s.id, s.status, s.channel, s.action, s.account_id, a.name AS account_name, a.status AS account_status, \
       a.status_reason, g.next_send_at, s.parked_at, a.created_at AS account_since, a.limits, g.history, g.rests \
     FROM sends s \
     JOIN accounts a ON a.workspace_id = s.workspace_id AND a.id = s.account_id \
     LEFT JOIN account_gate g ON g.workspace_id = s.workspace_id AND g.account_id = s.account_id \
     WHERE s.workspace_id = $1 AND s.execution_id = $2 AND s.id = $3 ORDER BY s.created_at DESC LIMIT 1";

/// A person to be taken in, already checked. The keys are what duplicates are found by.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct New {
    /// Given name.
    pub first_name: Option<String>,
    /// Family name.
    pub last_name: Option<String>,
    /// Mail address.
    pub email: Option<String>,
    /// Phone number: digits, with a leading `+` where it was given.
    pub phone: Option<String>,
    /// `https://www.linkedin.com/in/<slug>`.
    pub linkedin_url: Option<String>,
    /// Employer.
    pub company_name: Option<String>,
    /// Job title.
    pub title: Option<String>,
    /// Every other column.
    pub data: Map<String, Value>,
    /// What identifies the person.
    pub keys: Keys,
}

/// What identifies a person within a campaign. Two with one key in common are the same person.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// The mail address in lower case.
    pub email: Option<String>,
    /// The slug of the LinkedIn URL, in lower case unless it is a member id.
    pub linkedin: Option<String>,
    /// The phone number's digits.
    pub phone: Option<String>,
}

impl Keys {
    /// The keys that are there, with their column's name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [("email", &self.email), ("linkedin_url", &self.linkedin), ("phone", &self.phone)]
            .into_iter()
            .filter_map(|(name, value)| value.as_deref().map(|v| (name, v)))
    }
}

/// What became of one person of an upload, in the order of the upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Taken in.
    New(ProspectId),
    /// In the campaign already.
    Known {
        /// Who it is.
        prospect: ProspectId,
        /// The column that tells.
        key: &'static str,
    },
    /// Not taken in: on the list of those who are not written to.
    Suppressed(Suppressed),
}

/// Why somebody is not taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppressed {
    /// The column whose value is on the list; `domain` when the mail address's domain is.
    pub key: &'static str,
    /// The reason's name.
    pub reason: String,
}

/// Takes people into a campaign, all that are not in it already and are not on the list of those who are not written to, in one
/// transaction. A mail address that bounced keeps somebody out only if there is no other way to reach them. The caller has removed duplicates
/// among `people`, and has checked that the campaign is the workspace's.
///
/// # Errors
/// The database's; then nobody was taken in.
pub async fn import(
    pool: &Pool,
    workspace: WorkspaceId,
    campaign: CampaignId,
    flow_version: Option<i32>,
    people: &[New],
    now: Timestamp,
) -> Result<Vec<Taken>, Error> {
    let mut tx = pool.begin().await.map_err(failed("prospect: import"))?;
    sqlx::query(LOCK).bind(campaign.0).execute(&mut *tx).await.map_err(failed("prospect: import"))?;
    let known = known(&mut tx, workspace, campaign, people).await?;
    let suppressed = suppressed(&mut tx, workspace, people).await?;

    let mut taken = Vec::with_capacity(people.len());
    let mut columns = Columns::default();
    // One context for all ids, so that they sort in the order of the upload.
    let context = uuid::ContextV7::new();
    for (n, person) in people.iter().enumerate() {
        if let Some((prospect, key)) = known.get(&n) {
            taken.push(Taken::Known { prospect: *prospect, key });
            continue;
        }
        if let Some(suppressed) = suppressed.get(&n) {
            taken.push(Taken::Suppressed(suppressed.clone()));
            continue;
        }
        let id = ordered_id(&context, now);
        columns.push(id, new_id(now), person);
        taken.push(Taken::New(ProspectId(id)));
    }
    if !columns.ids.is_empty() {
        columns.insert(&mut tx, workspace, campaign, flow_version, now).await?;
    }
    tx.commit().await.map_err(failed("prospect: import"))?;
    Ok(taken)
}

/// Who of `people` is in the campaign already: position -> the prospect and the column that tells.
async fn known(
    tx: &mut sqlx::Transaction<'_, sqlx::Postgres>,
    workspace: WorkspaceId,
    campaign: CampaignId,
    people: &[New],
) -> Result<HashMap<usize, (ProspectId, &'static str)>, Error> {
    let positions: Vec<i32> = (0..people.len()).map(|n| i32::try_from(n).unwrap_or(i32::MAX)).collect();
    let column = |of: fn(&New) -> Option<&str>| people.iter().map(of).collect::<Vec<_>>();
    let rows: Vec<(i32, Uuid, String)> = sqlx::query_as(KNOWN)
        .bind(workspace.0)
        .bind(campaign.0)
        .bind(positions)
        .bind(column(|p| p.email.as_deref()))
        .bind(column(|p| p.linkedin_url.as_deref()))
        .bind(column(|p| p.phone.as_deref()))
        .fetch_all(&mut **tx)
        .await
        .map_err(failed("prospect: known"))?;
    let mut known = HashMap::new();
    for (n, id, key) in rows {
        let key = match key.as_str() {
            "email" => "email",
            "phone" => "phone",
            _ => "linkedin_url",
        };
        known.entry(usize::try_from(n).unwrap_or_default()).or_insert((ProspectId(id), key));
    }
    Ok(known)
}

/// Who of `people` is on the list: position -> why. A workspace without a list is not looked through.
async fn suppressed(
    tx: &mut sqlx::Transaction<'_, sqlx::Postgres>,
    workspace: WorkspaceId,
    people: &[New],
) -> Result<HashMap<usize, Suppressed>, Error> {
    let positions: Vec<i32> = (0..people.len()).map(|n| i32::try_from(n).unwrap_or(i32::MAX)).collect();
    let column = |of: fn(&New) -> Option<&str>| people.iter().map(of).collect::<Vec<_>>();
    let rows: Vec<(i32, String, String)> = sqlx::query_as(SUPPRESSED)
        .bind(workspace.0)
        .bind(positions)
        .bind(column(|p| p.email.as_deref()))
        .bind(column(|p| p.linkedin_url.as_deref()))
        .bind(column(|p| p.phone.as_deref()))
        .fetch_all(&mut **tx)
        .await
        .map_err(failed("prospect: suppressed"))?;
    let mut found = HashMap::new();
    for (n, kind, reason) in rows {
        let n = usize::try_from(n).unwrap_or_default();
        let key = match Kind::parse(&kind) {
            Some(Kind::Domain) => "domain",
            Some(Kind::Profile) => "linkedin_url",
            Some(Kind::Phone) => "phone",
            Some(Kind::Address) | None => "email",
        };
        let elsewhere = people.get(n).is_some_and(|p| p.linkedin_url.is_some() || p.phone.is_some());
        if Reason::parse(&reason).is_none_or(Reason::holds_everywhere) || !elsewhere {
            found.entry(n).or_insert(Suppressed { key, reason });
        }
    }
    Ok(found)
}

/// The arrays of the two inserts.
#[derive(Default)]
struct Columns<'a> {
    ids: Vec<Uuid>,
    executions: Vec<Uuid>,
    first_names: Vec<Option<&'a str>>,
    last_names: Vec<Option<&'a str>>,
    emails: Vec<Option<&'a str>>,
    phones: Vec<Option<&'a str>>,
    linkedin_urls: Vec<Option<&'a str>>,
    company_names: Vec<Option<&'a str>>,
    titles: Vec<Option<&'a str>>,
    data: Vec<Json<&'a Map<String, Value>>>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, id: Uuid, execution: Uuid, person: &'a New) {
        self.ids.push(id);
        self.executions.push(execution);
        self.first_names.push(person.first_name.as_deref());
        self.last_names.push(person.last_name.as_deref());
        self.emails.push(person.email.as_deref());
        self.phones.push(person.phone.as_deref());
        self.linkedin_urls.push(person.linkedin_url.as_deref());
        self.company_names.push(person.company_name.as_deref());
        self.titles.push(person.title.as_deref());
        self.data.push(Json(&person.data));
    }

    async fn insert(
        &self,
        tx: &mut sqlx::Transaction<'_, sqlx::Postgres>,
        workspace: WorkspaceId,
        campaign: CampaignId,
        flow_version: Option<i32>,
        now: Timestamp,
    ) -> Result<(), Error> {
        sqlx::query(INSERT_PROSPECTS)
            .bind(workspace.0)
            .bind(campaign.0)
            .bind(now.to_utc())
            .bind(&self.ids)
            .bind(&self.first_names)
            .bind(&self.last_names)
            .bind(&self.emails)
            .bind(&self.phones)
            .bind(&self.linkedin_urls)
            .bind(&self.company_names)
            .bind(&self.titles)
            .bind(&self.data)
            .execute(&mut **tx)
            .await
            .map_err(failed("prospect: insert"))?;
        sqlx::query(INSERT_EXECUTIONS)
            .bind(workspace.0)
            .bind(campaign.0)
            .bind(flow_version)
            .bind(now.to_utc())
            .bind(&self.executions)
            .bind(&self.ids)
            .execute(&mut **tx)
            .await
            .map_err(failed("prospect: insert"))?;
        Ok(())
    }
}

/// As many UUIDv7 at `now`, in order.
pub(super) fn ordered_ids(n: usize, now: Timestamp) -> Vec<Uuid> {
    let context = uuid::ContextV7::new();
    (0..n).map(|_| ordered_id(&context, now)).collect()
}

/// A UUIDv7 at `now` that sorts after the ones the same context made before.
fn ordered_id(context: &uuid::ContextV7, now: Timestamp) -> Uuid {
    let micros = now.as_micros().max(0).unsigned_abs();
    let nanos = (micros % 1_000_000) as u32 * 1000;
    Uuid::new_v7(uuid::Timestamp::from_unix(context, micros / 1_000_000, nanos))
}

/// A prospect in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema, sqlx::FromRow)]
#[schema(as = ProspectSummary)]
pub struct Listed {
    /// Its id.
    pub id: Uuid,
    /// Given name.
    pub first_name: Option<String>,
    /// Family name.
    pub last_name: Option<String>,
    /// Mail address.
    pub email: Option<String>,
    /// Phone number.
    pub phone: Option<String>,
    /// LinkedIn profile.
    pub linkedin_url: Option<String>,
    /// Employer.
    pub company_name: Option<String>,
    /// Job title.
    pub title: Option<String>,
    /// When the person was taken in.
    pub created_at: Option<DateTime<Utc>>,
    /// Where the execution stands.
    pub status: Option<String>,
    /// 1-based; number of steps + 1 when completed.
    pub current_step: Option<i32>,
    /// Why it ended.
    pub exit_reason: Option<String>,
    /// When the current step is due, or the deadline of a wait.
    pub next_execution_at: Option<DateTime<Utc>>,
}

/// A prospect.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema, sqlx::FromRow)]
#[schema(as = ProspectRow)]
pub struct Prospect {
    /// Its id.
    pub id: Uuid,
    /// The campaign it is in.
    pub campaign_id: Uuid,
    /// Given name.
    pub first_name: Option<String>,
    /// Family name.
    pub last_name: Option<String>,
    /// Mail address.
    pub email: Option<String>,
    /// Phone number.
    pub phone: Option<String>,
    /// LinkedIn profile.
    pub linkedin_url: Option<String>,
    /// Employer.
    pub company_name: Option<String>,
    /// Job title.
    pub title: Option<String>,
    /// Every other column of the upload.
    pub data: Value,
    /// When the person was taken in.
    pub created_at: Option<DateTime<Utc>>,
}

/// The execution row as it stands in the table, with the table's column names.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema, sqlx::FromRow)]
#[schema(as = ExecutionRow)]
pub struct Execution {
    /// The row's id.
    pub id: Uuid,
    /// The campaign.
    pub campaign_id: Uuid,
    /// The person.
    pub prospect_id: Uuid,
    /// 1-based; number of steps + 1 when completed.
    pub current_step: Option<i32>,
    /// `pending`, `executing`, `waiting_trigger`, `completed`, `failed` or `paused`.
    pub status: Option<String>,
    /// Positions of the steps that were done.
    pub completed_steps: Vec<i32>,
    /// Positions of the steps that failed.
    pub failed_steps: Vec<i32>,
    /// Positions of the steps that were passed over.
    pub skipped_steps: Vec<i32>,
    /// LinkedIn facts.
    pub linkedin_state: Option<Value>,
    /// Mail facts.
    pub email_state: Option<Value>,
    /// WhatsApp facts.
    pub whatsapp_state: Option<Value>,
    /// What a wait waits for.
    pub waiting_for_trigger: Option<String>,
    /// Checks done in this wait.
    pub trigger_check_count: i32,
    /// Checks after which the wait ends.
    pub trigger_max_checks: i32,
    /// When the next check is due.
    pub next_check_at: Option<DateTime<Utc>>,
    /// The n8n workflow a step was handed to.
    pub n8n_execution_id: Option<String>,
    /// When the last step was carried out.
    pub last_executed_at: Option<DateTime<Utc>>,
    /// When the current step is due, or the deadline of a wait.
    pub next_execution_at: Option<DateTime<Utc>>,
    /// The last error.
    pub last_error: Option<String>,
    /// Errors so far.
    pub error_count: i32,
    /// The flow version it is pinned to.
    pub flow_version: Option<i32>,
    /// +1 per transition.
    pub version: i64,
    /// Why it ended.
    pub exit_reason: Option<String>,
    /// While paused: what it was.
    pub paused_status: Option<String>,
    /// The send that has no outcome yet.
    pub open_send: Option<Uuid>,
    /// Which account contacts this person on each channel.
    pub channel_accounts: Option<Value>,
    /// When the row was last changed.
    pub updated_at: Option<DateTime<Utc>>,
}

impl Execution {
    /// Its id in the engine's type.
    pub fn execution_id(&self) -> ExecutionId {
        ExecutionId(self.id)
    }
}

/// The open send of an execution and the account it goes through.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct OpenSend {
    /// The send.
    pub id: Uuid,
    /// The send status' name.
    pub status: String,
    /// The channel's name.
    pub channel: String,
    /// What it does.
    pub action: String,
    /// The account it goes through.
    pub account_id: Uuid,
    /// The account's name.
    pub account_name: String,
    /// The account's status.
    pub account_status: String,
    /// Why the account is halted.
    pub status_reason: Option<String>,
    /// The account sends nothing before this.
    pub next_send_at: Option<DateTime<Utc>>,
    /// Set when reading back was given up.
    pub parked_at: Option<DateTime<Utc>>,
    /// When the account was made.
    pub account_since: DateTime<Utc>,
    /// How much the account may do (`domain::budget`).
    pub limits: Option<Value>,
    /// What it has done lately.
    pub history: Option<Value>,
    /// What the provider has said about its quotas.
    pub rests: Option<Value>,
}

/// Prospects of a campaign in the order they were taken in, after the one of id `after`.
///
/// # Errors
/// The database's.
pub async fn list(
    pool: &Pool,
    workspace: WorkspaceId,
    campaign: CampaignId,
    after: Option<Uuid>,
    status: Option<Status>,
    limit: i64,
) -> Result<Vec<Listed>, Error> {
    sqlx::query_as(LIST)
        .bind(workspace.0)
        .bind(campaign.0)
        .bind(after)
        .bind(status.map(Status::as_str))
        .bind(limit)
        .fetch_all(pool)
        .await
        .map_err(failed("prospect: list"))
}

/// A prospect of the workspace.
///
/// # Errors
/// The database's.
pub async fn get(pool: &Pool, workspace: WorkspaceId, id: ProspectId) -> Result<Option<Prospect>, Error> {
    sqlx::query_as(GET).bind(workspace.0).bind(id.0).fetch_optional(pool).await.map_err(failed("prospect: get"))
}

/// The execution of a prospect; `None` when there is no such prospect, or no execution was made for it yet.
///
/// # Errors
/// The database's.
pub async fn execution(pool: &Pool, workspace: WorkspaceId, prospect: ProspectId) -> Result<Option<Execution>, Error> {
    sqlx::query_as(EXECUTION)
        .bind(workspace.0)
        .bind(prospect.0)
        .fetch_optional(pool)
        .await
        .map_err(failed("prospect: execution"))
}

/// The open send of an execution.
///
/// # Errors
/// The database's.
pub async fn open_send(
    pool: &Pool,
    workspace: WorkspaceId,
    execution: ExecutionId,
    send: Uuid,
) -> Result<Option<OpenSend>, Error> {
    sqlx::query_as(OPEN_SEND)
        .bind(workspace.0)
        .bind(execution.0)
        .bind(send)
        .fetch_optional(pool)
        .await
        .map_err(failed("prospect: open send"))
}
