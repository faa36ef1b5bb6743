//! The list of those who are not written to.
//!
//! Owns table `suppressions`. Entries are made by people (API, CLI) and by facts: whoever unsubscribes or whose mail bounces
//! for good is put on the list *before* the fact is handed to an execution, in a commit of its own. So nobody is forgotten
//! when the process dies in between (the fact is applied again), nor when there is no execution left to move. The list is
//! read when people are taken in ([`super::upload::import`]) and by each claim, through `campaignd_suppressed` in 0010.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Error, Pool, failed};
use crate::domain::id::{CampaignId, ExecutionId, ProspectId, WorkspaceId};
use crate::domain::suppression::{Key, Kind, Reason};
use crate::domain::time::Timestamp;

// An entry that holds everywhere takes the place of one that holds for mail alone; every other entry that is there stays.
const ADD: &str = "WITH given AS ( \
       SELECT DISTINCT ON (g.kind, v.value) g.id, g.kind, v.value, g.reason, g.campaign_id, g.prospect_id \
       FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::uuid[], $7::uuid[]) \
           AS g (id, kind, given, reason, campaign_id, prospect_id) \
       CROSS JOIN LATERAL (SELECT campaignd_suppression_value(g.kind, g.given) AS value) v \
       WHERE length(v.value) BETWEEN 1 AND 500 \
       ORDER BY g.kind, v.value, g.reason = 'hard_bounce'), \
     made AS ( \
       INSERT INTO suppressions AS s (workspace_id, kind, value, id, reason, campaign_id, prospect_id, created_at) \
       SELECT $1, kind, value, id, reason, campaign_id, prospect_id, $8 FROM given ORDER BY kind, value \
       ON CONFLICT (workspace_id, kind, value) DO UPDATE SET reason = excluded.reason, campaign_id = excluded.campaign_id, \
           prospect_id = excluded.prospect_id \
       WHERE s.reason = 'hard_bounce' AND excluded.reason <> 'hard_bounce' \
       RETURNING 1) \
     SELECT count(*) FROM made";

const LIST: &str = "SELECT id, kind, value, reason, campaign_id, prospect_id, created_at FROM suppressions \
     WHERE workspace_id = $1 AND ($2::uuid IS NULL OR id < $2) AND ($3::text IS NULL OR kind = $3) \
       AND ($4::text IS NULL OR reason = $4) ORDER BY id DESC LIMIT $5";

const FIND: &str = "SELECT s.id, s.kind, s.value, s.reason, s.campaign_id, s.prospect_id, s.created_at \
     FROM unnest($2::text[], $3::text[]) AS w (kind, given) \
     JOIN suppressions s ON s.workspace_id = $1 AND s.kind = w.kind AND s.value = campaignd_suppression_value(w.kind, w.given) \
     ORDER BY s.id DESC";

const REMOVE: &str = "DELETE FROM suppressions WHERE workspace_id = $1 AND id = $2";

// What the row says and what providers were handed: in a table that was taken over, addresses may stand in columns of other
// names, and the sends know them all the same.
const PEOPLE: &str = "SELECT c.workspace_id, e.campaign_id, e.prospect_id, to_jsonb(p) AS person, \
       (SELECT jsonb_agg(DISTINCT s.recipient) FROM sends s WHERE s.execution_id = e.id AND s.recipient IS NOT NULL) AS handed \
     FROM campaign_prospect_execution_state e \
     JOIN campaigns c ON c.id = e.campaign_id \
     JOIN campaign_prospects p ON p.id = e.prospect_id \
     WHERE e.id = ANY ($1)";

/// An entry to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct New {
    /// What it names.
    pub key: Key,
    /// Why.
    pub reason: Reason,
    /// The campaign it comes from.
    pub campaign: Option<CampaignId>,
    /// The person it comes from.
    pub prospect: Option<ProspectId>,
}

/// An entry of the list.
#[derive(Clone, PartialEq, Eq, Serialize, ToSchema, sqlx::FromRow)]
#[schema(as = Suppression)]
pub struct Listed {
    /// Its id.
    pub id: Uuid,
    /// `address`, `domain`, `profile` or `phone`.
    pub kind: String,
    /// The value in its usual form.
    pub value: String,
    /// `unsubscribed`, `hard_bounce`, `complaint` or `manual`.
    pub reason: String,
    /// The campaign it comes from; null where somebody made it by hand.
    pub campaign_id: Option<Uuid>,
    /// The prospect it comes from.
    pub prospect_id: Option<Uuid>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

// The value is somebody's address: it is never printed.
impl std::fmt::Debug for Listed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Suppression")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

/// Which part of the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Behind the entry with this id.
    pub before: Option<Uuid>,
    /// Of this kind only.
    pub kind: Option<Kind>,
    /// With this reason only.
    pub reason: Option<Reason>,
}

/// Puts entries on the list and answers how many changed it: those that are new, and those that held for mail alone before
/// and hold everywhere now. The same again changes nothing.
///
/// # Errors
/// The database's; then none was made.
pub async fn add(pool: &Pool, workspace: WorkspaceId, entries: &[New], now: Timestamp) -> Result<u64, Error> {
    if entries.is_empty() {
        return Ok(0);
    }
    let ids = super::upload::ordered_ids(entries.len(), now);
    let made: i64 = sqlx::query_scalar(ADD)
        .bind(workspace.0)
        .bind(ids)
        .bind(entries.iter().map(|e| e.key.kind().as_str()).collect::<Vec<_>>())
        .bind(entries.iter().map(|e| e.key.value()).collect::<Vec<_>>())
        .bind(entries.iter().map(|e| e.reason.as_str()).collect::<Vec<_>>())
        .bind(entries.iter().map(|e| e.campaign.map(|c| c.0)).collect::<Vec<_>>())
        .bind(entries.iter().map(|e| e.prospect.map(|p| p.0)).collect::<Vec<_>>())
        .bind(now.to_utc())
        .fetch_one(pool)
        .await
        .map_err(failed("suppressions: add"))?;
    Ok(made.max(0).unsigned_abs())
}

/// Entries, newest first.
///
/// # Errors
/// The database's.
pub async fn list(pool: &Pool, workspace: WorkspaceId, filter: Filter, limit: i64) -> Result<Vec<Listed>, Error> {
    sqlx::query_as(LIST)
        .bind(workspace.0)
        .bind(filter.before)
        .bind(filter.kind.map(Kind::as_str))
        .bind(filter.reason.map(Reason::as_str))
        .bind(limit)
        .fetch_all(pool)
        .await
        .map_err(failed("suppressions: list"))
}

/// The entries with exactly these values, newest first.
///
/// # Errors
/// The database's.
pub async fn find(pool: &Pool, workspace: WorkspaceId, keys: &[Key]) -> Result<Vec<Listed>, Error> {
    sqlx::query_as(FIND)
        .bind(workspace.0)
        .bind(keys.iter().map(|k| k.kind().as_str()).collect::<Vec<_>>())
        .bind(keys.iter().map(Key::value).collect::<Vec<_>>())
        .fetch_all(pool)
        .await
        .map_err(failed("suppressions: find"))
}

/// Takes an entry off the list. False: the workspace has no such entry.
///
/// # Errors
/// The database's.
pub async fn remove(pool: &Pool, workspace: WorkspaceId, id: Uuid) -> Result<bool, Error> {
    let done =
        sqlx::query(REMOVE).bind(workspace.0).bind(id).execute(pool).await.map_err(failed("suppressions: remove"))?;
    Ok(done.rows_affected() > 0)
}

/// Puts the people of these executions on the list, each in its own workspace: with all their addresses, or for a bounce with
/// the mail address alone. Answers how many entries changed the list; the same again changes nothing.
///
/// # Errors
/// The database's: the fact must not count as applied.
pub async fn add_people(pool: &Pool, executions: &[ExecutionId], reason: Reason, now: Timestamp) -> Result<u64, Error> {
    let mut made = 0;
    for person in people(pool, executions).await? {
        let new = |key: Key| New { key, reason, campaign: Some(person.campaign), prospect: Some(person.prospect) };
        let keys = person.keys.into_iter().filter(|k| reason.holds_everywhere() || k.kind() == Kind::Address);
        made += add(pool, person.workspace, &keys.map(new).collect::<Vec<_>>(), now).await?;
    }
    Ok(made)
}

/// The entries that keep the person of this execution from being written to on every channel, newest first: those of the
/// person's addresses and of the domains that cover them, without bounces.
///
/// # Errors
/// The database's.
pub async fn of_execution(pool: &Pool, execution: ExecutionId) -> Result<Vec<Listed>, Error> {
    let Some(person) = people(pool, &[execution]).await?.into_iter().next() else { return Ok(Vec::new()) };
    let domains: Vec<Key> = person.keys.iter().flat_map(Key::domains).collect();
    let keys: Vec<Key> = person.keys.into_iter().chain(domains).collect();
    let mut found = find(pool, person.workspace, &keys).await?;
    found.retain(|entry| Reason::parse(&entry.reason).is_none_or(Reason::holds_everywhere));
    Ok(found)
}

/// A person as the list knows them.
struct Person {
    workspace: WorkspaceId,
    campaign: CampaignId,
    prospect: ProspectId,
    keys: Vec<Key>,
}

async fn people(pool: &Pool, executions: &[ExecutionId]) -> Result<Vec<Person>, Error> {
    type Row = (Uuid, Uuid, Uuid, Value, Option<Value>);
    let rows: Vec<Row> = sqlx::query_as(PEOPLE)
        .bind(executions.iter().map(|e| e.0).collect::<Vec<_>>())
        .fetch_all(pool)
        .await
        .map_err(failed("suppressions: people"))?;
    Ok(rows
        .into_iter()
        .map(|(workspace, campaign, prospect, person, handed)| {
            let handed = handed.as_ref().and_then(Value::as_array);
            let mut keys: Vec<Key> = keys(&person).collect();
            keys.extend(handed.into_iter().flatten().flat_map(keys_of_recipient));
            keys.sort_by(|a, b| (a.kind(), a.value()).cmp(&(b.kind(), b.value())));
            keys.dedup();
            Person {
                workspace: WorkspaceId(workspace),
                campaign: CampaignId(campaign),
                prospect: ProspectId(prospect),
                keys,
            }
        })
        .collect())
}

/// Of a row of `campaign_prospects`.
fn keys(person: &Value) -> impl Iterator<Item = Key> + '_ {
    [(Kind::Address, "email"), (Kind::Profile, "linkedin_url"), (Kind::Phone, "phone")]
        .into_iter()
        .filter_map(|(kind, column)| Key::of_row(kind, person.get(column)?.as_str()?))
}

/// Of what a claim stored for the provider. A `recipient_id` is LinkedIn's id of the person only if it has that shape.
fn keys_of_recipient(recipient: &Value) -> impl Iterator<Item = Key> + '_ {
    [(Kind::Address, "email"), (Kind::Profile, "linkedin"), (Kind::Profile, "recipient_id"), (Kind::Phone, "phone")]
        .into_iter()
        .filter_map(|(kind, name)| {
            let text = recipient.get(name)?.as_str()?;
            let usable = name != "recipient_id" || crate::domain::address::is_member_id(text);
            usable.then(|| Key::of_row(kind, text)).flatten()
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_that_reaches_a_person_is_a_key_and_a_whatsapp_id_is_no_profile() {
        let row = json!({"email": " Ada@Example.org", "linkedin_url": null, "phone": "+49 30 1"});
        let found: Vec<_> = keys(&row).map(|k| (k.kind(), k.value().to_owned())).collect();
        assert_eq!(found, [(Kind::Address, "ada@example.org".to_owned()), (Kind::Phone, "49301".to_owned())]);
        let handed =
            json!({"linkedin": "https://www.linkedin.com/in/Ada", "recipient_id": "ACoAAAbCdEfGhIjKl", "email": ""});
        let found: Vec<_> = keys_of_recipient(&handed).map(|k| k.value().to_owned()).collect();
        assert_eq!(found, ["ada", "ACoAAAbCdEfGhIjKl"]);
        assert_eq!(keys_of_recipient(&json!({"recipient_id": "4930@s.whatsapp.net"})).count(), 0);
    }
}
