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

/// Open executions first, then the newest identity first. OFFSET 0 keeps each look-up by its whole key, see `super::send`.
const FIND: &str = "SELECT w.n, i.execution_id, i.kind \
    FROM unnest($1::integer[], $2::uuid[], $3::uuid[], $4::text[], $5::text[]) \
        AS w(n, workspace_id, account_id, kind, value) \
    CROSS JOIN LATERAL (SELECT i.execution_id, i.kind, i.created_at FROM identities i \
        WHERE i.workspace_id = w.workspace_id AND i.kind = w.kind AND i.value = w.value \
        AND i.account_id = w.account_id OFFSET 0) i \
    LEFT JOIN campaign_prospect_execution_state s ON s.id = i.execution_id \
    ORDER BY w.n, coalesce(s.status IN ('completed', 'failed'), false), i.created_at DESC, i.execution_id";

const LEARN: &str = "INSERT INTO identities (workspace_id, kind, value, account_id, execution_id, created_at) \
    SELECT $1, n.kind, n.value, $4, e.id, $6 FROM unnest($2::text[], $3::text[]) AS n(kind, value) \
    CROSS JOIN unnest($5::uuid[]) AS e(id) ON CONFLICT DO NOTHING";

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

/// The plan goes by the three indexes above, from the few that are given. OFFSET 0 keeps it so, also when it was made while the
/// tables were empty.
const OF_SAME_PEOPLE: &str = "SELECT DISTINCT s.id \
    FROM unnest($2::uuid[]) AS w (id) \
    JOIN campaign_prospect_execution_state f ON f.id = w.id \
    JOIN campaign_prospects p ON p.id = f.prospect_id \
    CROSS JOIN LATERAL ( \
        SELECT q.id, q.campaign_id FROM campaign_prospects q WHERE lower(q.email) = lower(p.email) \
        UNION SELECT q.id, q.campaign_id FROM campaign_prospects q \
            WHERE campaignd_linkedin_slug(q.linkedin_url) = campaignd_linkedin_slug(p.linkedin_url) \
        UNION SELECT q.id, q.campaign_id FROM campaign_prospects q \
            WHERE campaignd_phone_digits(q.phone) = campaignd_phone_digits(p.phone) OFFSET 0) AS same \
    JOIN campaigns c ON c.id = same.campaign_id AND c.workspace_id = $1 \
    JOIN campaign_prospect_execution_state s ON s.prospect_id = same.id AND s.campaign_id = same.campaign_id";

const KNOWS_CHAT: &str = "SELECT EXISTS (SELECT FROM identities \
    WHERE workspace_id = $1 AND execution_id = $2 AND account_id = $3 AND kind = 'chat')";

/// Whose executions are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The tenant.
    pub workspace: WorkspaceId,
    /// The accounts that may have learnt it; an identity is known through one account only.
    pub accounts: Vec<AccountId>,
    /// Any of these.
    pub keys: Vec<(IdentityKind, String)>,
}

/// The executions that a fact may be about, and by which key each was found. One may appear under several.
pub type Found = Vec<(ExecutionId, IdentityKind)>;

/// The executions that these identities name, an answer for each of `wanted`: open ones first, then newest first.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn find_executions(pool: &Pool, wanted: &[Wanted]) -> Result<Vec<Found>, Error> {
    let what = failed("finding executions by identity");
    let mut found = vec![Vec::new(); wanted.len()];
    let (mut places, mut workspaces, mut accounts) = (Vec::new(), Vec::new(), Vec::new());
    let (mut kinds, mut values) = (Vec::new(), Vec::new());
    for (n, one) in wanted.iter().enumerate() {
        for (account, (kind, value)) in one.accounts.iter().flat_map(|a| one.keys.iter().map(move |key| (a, key))) {
            places.push(i32::try_from(n).unwrap_or(i32::MAX));
            workspaces.push(one.workspace.0);
            accounts.push(account.0);
            kinds.push(kind.as_str());
            values.push(clean(value).into_owned());
        }
    }
    if places.is_empty() {
        return Ok(found);
    }
    let query = sqlx::query(FIND).bind(places).bind(workspaces).bind(accounts).bind(kinds).bind(values);
    for row in query.fetch_all(pool).await.map_err(&what)? {
        let (n, id): (i32, Uuid) = (row.try_get(0).map_err(&what)?, row.try_get(1).map_err(&what)?);
        let kind: &str = row.try_get(2).map_err(&what)?;
        let kind = IdentityKind::parse(kind).ok_or_else(|| Error::Decode {
            what: "identity of execution",
            id: id.to_string(),
            reason: "its kind is not known".to_owned(),
        })?;
        if let Some(answer) = usize::try_from(n).ok().and_then(|n| found.get_mut(n)) {
            answer.push((ExecutionId(id), kind));
        }
    }
    Ok(found)
}

/// Notes other names of what these executions are about, told by a webhook that was recognised by a name known before.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn learn(
    pool: &Pool,
    workspace: WorkspaceId,
    account: AccountId,
    executions: &[ExecutionId],
    names: &[(IdentityKind, &str)],
    at: Timestamp,
) -> Result<(), Error> {
    if names.is_empty() || executions.is_empty() {
        return Ok(());
    }
    sqlx::query(LEARN)
        .bind(workspace.0)
        .bind(names.iter().map(|(kind, _)| kind.as_str()).collect::<Vec<_>>())
        .bind(names.iter().map(|(_, value)| clean(value).into_owned()).collect::<Vec<_>>())
        .bind(account.0)
        .bind(executions.iter().map(|id| id.0).collect::<Vec<_>>())
        .bind(at.to_utc())
        .execute(pool)
        .await
        .map_err(failed("noting an identity"))
        .map(drop)
}

/// All executions of the people that these are about, over all campaigns of the workspace: whoever has an address in common
/// with one of them is the same.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn of_same_people(
    pool: &Pool,
    workspace: WorkspaceId,
    executions: &[ExecutionId],
) -> Result<Vec<ExecutionId>, Error> {
    let ids: Vec<Uuid> = sqlx::query_scalar(OF_SAME_PEOPLE)
        .bind(workspace.0)
        .bind(executions.iter().map(|id| id.0).collect::<Vec<_>>())
        .fetch_all(pool)
        .await
        .map_err(failed("finding the executions of the same people"))?;
    Ok(ids.into_iter().map(ExecutionId).collect())
}

/// Whether an account has a chat with the person of an execution.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn knows_chat(
    pool: &Pool,
    workspace: WorkspaceId,
    execution: ExecutionId,
    account: AccountId,
) -> Result<bool, Error> {
    sqlx::query_scalar(KNOWS_CHAT)
        .bind(workspace.0)
        .bind(execution.0)
        .bind(account.0)
        .fetch_one(pool)
        .await
        .map_err(failed("looking for a chat"))
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

/// Before the first send it is open which account it will be. The old orchestrator wrote down none.
const NOT_OF_OTHERS: &str = "SELECT s.id FROM unnest($1::uuid[]) WITH ORDINALITY AS w (id, n) \
    JOIN campaign_prospect_execution_state s ON s.id = w.id \
    WHERE s.channel_accounts ->> 'linkedin' = $2::text OR s.channel_accounts ->> 'linkedin' IS NULL AND \
        ($3 OR s.linkedin_state ->> 'connection_status' IN ('pending', 'sent', 'invited')) \
    ORDER BY w.n";

/// Those of these executions whose person this LinkedIn account contacts, in their order. `is_only`: there is no other, so it will
/// be the one also where none was chosen yet.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn not_of_others(
    pool: &Pool,
    executions: &[ExecutionId],
    account: AccountId,
    is_only: bool,
) -> Result<Vec<ExecutionId>, Error> {
    if executions.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = sqlx::query_scalar(NOT_OF_OTHERS)
        .bind(executions.iter().map(|id| id.0).collect::<Vec<_>>())
        .bind(account.0.to_string())
        .bind(is_only)
        .fetch_all(pool)
        .await
        .map_err(failed("finding executions of an account"))?;
    Ok(ids.into_iter().map(ExecutionId).collect())
}
