//! Finding the execution that a fact from a provider is about: by what the provider calls the person, the chat or the
//! mail, or by the person's address.
//!
//! Owns the reads of `identities` and the lookups by address. Rows of `identities` are written by [`super::writer`] from a
//! send's receipt, and by [`learn`] from what a webhook tells besides. Called by `runtime` when it applies the inbox.

use sqlx::Row as _;
use uuid::Uuid;

use super::{Error, Pool, clean, failed};
use crate::domain::account::{Channel, names};
use crate::domain::id::{AccountId, ExecutionId, WorkspaceId};
use crate::domain::time::Timestamp;

names! {
    /// What an identity names (`identities.kind`).
    IdentityKind {
        /// The person: LinkedIn `ACo…`, WhatsApp JID.
        Recipient = "recipient",
        /// The chat with the person.
        Chat = "chat",
        /// A message or mail at the provider.
        Message = "message",
        /// The tracking id of a mail.
        Tracking = "tracking",
        /// The Message-ID of a mail, with angle brackets.
        RfcMessage = "rfc_message",
        /// A mail thread.
        Thread = "thread",
        /// WhatsApp's other name of a person.
        Lid = "lid",
    }
}

/// Open executions first, then the newest identity first.
const FIND: &str = "SELECT i.execution_id, i.kind \
    FROM accounts a \
    JOIN unnest($3::text[], $4::text[]) AS want(kind, value) ON true \
    JOIN identities i ON i.workspace_id = a.workspace_id AND i.kind = want.kind AND i.value = want.value \
        AND i.account_id = a.id \
    LEFT JOIN campaign_prospect_execution_state s ON s.id = i.execution_id \
    WHERE a.workspace_id = $1 AND a.provider_account_id = $2 \
    ORDER BY coalesce(s.status IN ('completed', 'failed'), false), i.created_at DESC, i.execution_id";

const LEARN: &str = "INSERT INTO identities (workspace_id, kind, value, account_id, execution_id, created_at) \
    SELECT $1, $2, $3, $4, e.id, $6 FROM unnest($5::uuid[]) AS e(id) ON CONFLICT DO NOTHING";

/// Invited, by us, and no answer known: by the id that the invitation was sent to, and by public identifier where the
/// outcome of the invitation told no id. The old orchestrator's words for it count.
const INVITED: &str = "WITH want AS MATERIALIZED (SELECT * FROM unnest($3::text[], $4::text[]) AS w(recipient, slug)) \
    SELECT s.id FROM want w \
    JOIN identities i ON i.workspace_id = $1 AND i.kind = 'recipient' AND i.value = w.recipient AND i.account_id = $2 \
    JOIN campaign_prospect_execution_state s ON s.id = i.execution_id \
    WHERE s.linkedin_state ->> 'connection_status' IN ('pending', 'sent', 'invited') \
    UNION SELECT s.id FROM want w \
    JOIN campaign_prospects p ON campaignd_linkedin_slug(p.linkedin_url) = campaignd_linkedin_slug(w.slug) \
    JOIN campaigns c ON c.id = p.campaign_id AND c.workspace_id = $1 \
    JOIN campaign_prospect_execution_state s ON s.prospect_id = p.id AND s.campaign_id = p.campaign_id \
    WHERE s.channel_accounts ->> 'linkedin' = $2::text \
    AND s.linkedin_state ->> 'connection_status' IN ('pending', 'sent', 'invited')";

/// Each by the expression its index is on.
macro_rules! by_address {
    ($match:literal) => {
        concat!(
            "SELECT s.id FROM campaign_prospects p ",
            "JOIN campaigns c ON c.id = p.campaign_id ",
            "JOIN campaign_prospect_execution_state s ON s.prospect_id = p.id AND s.campaign_id = p.campaign_id ",
            "WHERE c.workspace_id = $1 AND ",
            $match,
            " ORDER BY coalesce(s.status IN ('completed', 'failed'), false), s.created_at DESC NULLS LAST, s.id DESC"
        )
    };
}
const BY_EMAIL: &str = by_address!("lower(p.email) = lower($2)");
const BY_LINKEDIN: &str = by_address!("campaignd_linkedin_slug(p.linkedin_url) = campaignd_linkedin_slug($2)");
const BY_PHONE: &str = by_address!("campaignd_phone_digits(p.phone) = campaignd_phone_digits($2)");

/// The executions that any of these identities names, for one account: open ones first, then newest first. `account` is
/// the account's id with the provider. The kind tells which key matched; an execution may appear under several.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn find_executions(
    pool: &Pool,
    workspace: WorkspaceId,
    account: &str,
    keys: &[(IdentityKind, String)],
) -> Result<Vec<(ExecutionId, IdentityKind)>, Error> {
    let what = failed("finding executions by identity");
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(FIND)
        .bind(workspace.0)
        .bind(&*clean(account))
        .bind(keys.iter().map(|(kind, _)| kind.as_str()).collect::<Vec<_>>())
        .bind(keys.iter().map(|(_, value)| clean(value).into_owned()).collect::<Vec<_>>())
        .fetch_all(pool)
        .await
        .map_err(&what)?;
    rows.iter()
        .map(|row| {
            let (id, kind): (Uuid, &str) = (row.try_get(0).map_err(&what)?, row.try_get(1).map_err(&what)?);
            let kind = IdentityKind::parse(kind).ok_or_else(|| Error::Decode {
                what: "identity of execution",
                id: id.to_string(),
                reason: "its kind is not known".to_owned(),
            })?;
            Ok((ExecutionId(id), kind))
        })
        .collect()
}

/// Notes another name of what these executions are about, told by a webhook that was recognised by a name known before.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn learn(
    pool: &Pool,
    workspace: WorkspaceId,
    account: AccountId,
    executions: &[ExecutionId],
    (kind, value): (IdentityKind, &str),
    at: Timestamp,
) -> Result<(), Error> {
    sqlx::query(LEARN)
        .bind(workspace.0)
        .bind(kind.as_str())
        .bind(&*clean(value))
        .bind(account.0)
        .bind(executions.iter().map(|id| id.0).collect::<Vec<_>>())
        .bind(at.to_utc())
        .execute(pool)
        .await
        .map_err(failed("noting an identity"))
        .map(drop)
}

/// Which executions wait for one of these people to accept an invitation of this account. People are given by their id with
/// the provider and their public identifier.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn invited(
    pool: &Pool,
    workspace: WorkspaceId,
    account: AccountId,
    people: &[(String, Option<String>)],
) -> Result<Vec<ExecutionId>, Error> {
    let ids: Vec<Uuid> = sqlx::query_scalar(INVITED)
        .bind(workspace.0)
        .bind(account.0)
        .bind(people.iter().map(|(id, _)| clean(id).into_owned()).collect::<Vec<_>>())
        .bind(people.iter().map(|(_, slug)| slug.as_deref().map(|s| clean(s).into_owned())).collect::<Vec<_>>())
        .fetch_all(pool)
        .await
        .map_err(failed("finding pending invitations"))?;
    Ok(ids.into_iter().map(ExecutionId).collect())
}

/// The executions of the people who have this address on a channel (a mail address; a LinkedIn URL or public identifier; a
/// phone number in any notation), over all campaigns of the workspace: open ones first, then newest first.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn by_address(
    pool: &Pool,
    workspace: WorkspaceId,
    channel: Channel,
    address: &str,
) -> Result<Vec<ExecutionId>, Error> {
    if address.trim().is_empty() {
        return Ok(Vec::new());
    }
    let statement = match channel {
        Channel::Email => BY_EMAIL,
        Channel::Linkedin => BY_LINKEDIN,
        Channel::Whatsapp => BY_PHONE,
    };
    let ids: Vec<Uuid> = sqlx::query_scalar(statement)
        .bind(workspace.0)
        .bind(clean(address.trim()).into_owned())
        .fetch_all(pool)
        .await
        .map_err(failed("finding executions by address"))?;
    Ok(ids.into_iter().map(ExecutionId).collect())
}
