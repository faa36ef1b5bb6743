//! Uploads: people join a campaign. A prospect made here gets its execution row (version 0) in the same commit; the engine picks
//! it up like one that another program inserted.

use std::collections::HashMap;

use serde_json::{Map, Value};
use sqlx::types::Json;
use uuid::Uuid;

use crate::domain::id::{CampaignId, ProspectId, WorkspaceId};
use crate::domain::suppression::{Kind, Reason};
use crate::domain::time::Timestamp;
use crate::store::campaign::new_id;
use crate::store::lease::LeaseView;
use crate::store::{Error, Pool, failed, shard_column};

// Two uploads into one campaign could find each other's people absent. Those of the process that holds the campaign's shard have
// seen to that (`http::turns`) and share the lock: the fence says that no other process can be such a one until this commits.
// Any other upload has the campaign to itself. A table that has not been analysed yet looks as if a key had many rows; for one
// row a key a bitmap costs more than it saves.
const LOCK: &str = "WITH ours AS MATERIALIZED (SELECT FROM shard_lease \
       WHERE shard = $2 AND owner = $3 AND incarnation = $4 AND epoch = $5 FOR SHARE) \
     SELECT CASE WHEN EXISTS (SELECT FROM ours) THEN pg_advisory_xact_lock_shared(k.key)::text \
         ELSE pg_advisory_xact_lock(k.key)::text END, set_config('enable_bitmapscan', 'off', true) \
     FROM (SELECT hashtextextended('campaignd:prospects:' || $1::text, 0) AS key) AS k";

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
/// transaction. A mail address that bounced keeps somebody out only if there is no other way to reach them. The caller has
/// removed duplicates among `people`, has checked that the campaign is the workspace's, and lets no two uploads of this process
/// that have a key in common run at once: with the campaign's shard in `lease` they do not wait for each other here.
///
/// # Errors
/// The database's; then nobody was taken in.
pub async fn import(
    pool: &Pool,
    lease: &LeaseView,
    (workspace, campaign): (WorkspaceId, CampaignId),
    flow_version: Option<i32>,
    people: &[New],
    now: Timestamp,
) -> Result<Vec<Taken>, Error> {
    let mut tx = pool.begin().await.map_err(failed("upload"))?;
    let shard = campaign.shard();
    sqlx::query(LOCK)
        .bind(campaign.0)
        .bind(shard_column(shard))
        .bind(lease.node().id)
        .bind(lease.node().incarnation)
        .bind(lease.epoch(shard))
        .execute(&mut *tx)
        .await
        .map_err(failed("upload: its turn"))?;
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
    tx.commit().await.map_err(failed("upload"))?;
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
        .map_err(failed("upload: who is known"))?;
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
        .map_err(failed("upload: who is not written to"))?;
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
            .map_err(failed("upload: inserting"))?;
        sqlx::query(INSERT_EXECUTIONS)
            .bind(workspace.0)
            .bind(campaign.0)
            .bind(flow_version)
            .bind(now.to_utc())
            .bind(&self.executions)
            .bind(&self.ids)
            .execute(&mut **tx)
            .await
            .map_err(failed("upload: inserting"))?;
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
