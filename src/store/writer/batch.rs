//! The arrays of a batch, and which statement they are given to.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use super::{Change, statement};
use crate::domain::send::{Receipt, SendStatus};
use crate::store::identity::IdentityKind;
use crate::store::lease::LeaseView;
use crate::store::row::{self, Columns};
use crate::store::{Error, clean, failed, int, json_text, shard_column};

/// Longest identity that is stored: an index entry must stay below a third of a page, and no provider's id comes near.
const IDENTITY_MAX: usize = 1000;

/// A query that is being given a batch's parameters.
pub(in crate::store) type BatchQuery<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// What the statement did.
#[derive(Debug, Default)]
pub(in crate::store) struct Outcome {
    /// The executions that are changed.
    pub(in crate::store) moved: HashSet<Uuid>,
    /// The shards that are still ours.
    pub(super) shards: HashSet<u16>,
}

/// The arrays of a batch, ready to be sent (again).
#[derive(Debug, Default)]
pub(in crate::store) struct Batch {
    owner: Uuid,
    incarnation: i64,
    shards: Vec<i16>,
    epochs: Vec<i64>,
    change: Changes,
    transition: Moves,
    send: Sends,
    cancel: (Vec<Uuid>, Vec<Uuid>),
    finish: Finishes,
    identity: Identities,
}

/// One entry a change.
#[derive(Debug, Default)]
struct Changes {
    id: Vec<Uuid>,
    version: Vec<i64>,
    shard: Vec<i16>,
    workspace: Vec<Uuid>,
    flow_version: Vec<i32>,
    status: Vec<&'static str>,
    paused_status: Vec<Option<&'static str>>,
    current_step: Vec<i32>,
    completed: Vec<String>,
    failed: Vec<String>,
    skipped: Vec<String>,
    linkedin: Vec<Option<String>>,
    email: Vec<Option<String>>,
    whatsapp: Vec<Option<String>>,
    waiting: Vec<Option<&'static str>>,
    checks: Vec<i32>,
    checks_max: Vec<i32>,
    next_check_at: Vec<Option<DateTime<Utc>>>,
    last_executed_at: Vec<Option<DateTime<Utc>>>,
    next_execution_at: Vec<Option<DateTime<Utc>>>,
    last_error: Vec<Option<String>>,
    error_count: Vec<i32>,
    exit_reason: Vec<Option<&'static str>>,
    attempt: Vec<i32>,
    send_sequence: Vec<i32>,
    open_send: Vec<Option<Uuid>>,
    accounts: Vec<Option<String>>,
    step_id: Vec<Option<String>>,
    at: Vec<DateTime<Utc>>,
    moves: Vec<i32>,
}

/// One entry a transition.
#[derive(Debug, Default)]
struct Moves {
    execution: Vec<Uuid>,
    version: Vec<i64>,
    trigger: Vec<&'static str>,
    detail: Vec<Option<String>>,
    from_status: Vec<&'static str>,
    to_status: Vec<&'static str>,
    from_step: Vec<i32>,
    to_step: Vec<i32>,
}

/// One entry a new send.
#[derive(Debug, Default)]
struct Sends {
    execution: Vec<Uuid>,
    id: Vec<Uuid>,
    created_at: Vec<DateTime<Utc>>,
    step: Vec<i32>,
    step_id: Vec<String>,
    action: Vec<&'static str>,
    channel: Vec<Option<&'static str>>,
    attempt: Vec<i32>,
    account: Vec<Uuid>,
    account_shard: Vec<i16>,
    status: Vec<&'static str>,
}

/// One entry an outcome.
#[derive(Debug, Default)]
struct Finishes {
    execution: Vec<Uuid>,
    send: Vec<Uuid>,
    status: Vec<&'static str>,
    parked: Vec<bool>,
    class: Vec<Option<&'static str>>,
    error: Vec<Option<String>>,
    receipt: Vec<Option<String>>,
    account: Vec<Option<Uuid>>,
    rest_until: Vec<Option<DateTime<Utc>>>,
    open_gate: Vec<bool>,
    brake: Vec<Option<&'static str>>,
    brake_until: Vec<Option<i64>>,
}

/// One entry a name that a provider gave something.
#[derive(Debug, Default)]
struct Identities {
    execution: Vec<Uuid>,
    kind: Vec<&'static str>,
    value: Vec<String>,
    account: Vec<Uuid>,
}

impl Batch {
    /// Turns changes (at most one an execution) into arrays.
    pub(in crate::store) fn new(lease: &LeaseView, changes: &[&Change]) -> Self {
        let node = lease.node();
        let mut batch = Self { owner: node.id, incarnation: node.incarnation, ..Self::default() };
        let shards: BTreeMap<u16, i64> =
            changes.iter().map(|c| c.next.id.shard()).map(|s| (s, lease.epoch(s))).collect();
        batch.shards = shards.keys().map(|s| shard_column(*s)).collect();
        batch.epochs = shards.values().copied().collect();
        for change in changes {
            batch.change.push(change);
            batch.transition.push(change);
            batch.push_sends(change);
            batch.push_finishes(change);
        }
        batch
    }

    fn push_sends(&mut self, change: &Change) {
        let execution = change.next.id.0;
        for new in &change.sends {
            let (intent, s) = (&new.intent, &mut self.send);
            s.execution.push(execution);
            s.id.push(intent.id.0);
            s.created_at.push(intent.created_at.to_utc());
            s.step.push(int(intent.step));
            s.step_id.push(clean(&intent.step_id).into_owned());
            s.action.push(intent.action.as_str());
            // NULL for an action that contacts nobody: the table refuses it, and so it should.
            s.channel.push(intent.action.channel().map(|c| c.as_str()));
            s.attempt.push(int(intent.attempt));
            s.account.push(new.account.0);
            s.account_shard.push(shard_column(new.account.shard()));
            s.status.push(intent.status.as_str());
        }
        // One statement cannot change a row twice; an outcome says more than a cancellation.
        for send in change.cancel.iter().filter(|c| change.finish.iter().all(|f| f.send != **c)) {
            self.cancel.0.push(execution);
            self.cancel.1.push(send.0);
        }
    }

    fn push_finishes(&mut self, change: &Change) {
        let execution = change.next.id.0;
        for finish in &change.finish {
            let f = &mut self.finish;
            f.execution.push(execution);
            f.send.push(finish.send.0);
            f.status.push(finish.status.as_str());
            f.parked.push(finish.parked && finish.status == SendStatus::Unknown);
            f.class.push(finish.class.map(|c| c.as_str()));
            f.error.push(finish.error.as_deref().map(|t| clean(t).into_owned()));
            f.receipt.push(finish.receipt.as_ref().and_then(row::receipt_json).map(|v| json_text(&v)));
            f.account.push(finish.account.map(|a| a.0));
            f.rest_until.push(finish.rest_until.map(|t| t.to_utc()));
            f.open_gate.push(finish.open_gate);
            f.brake.push(finish.brake.map(|(kind, _)| kind));
            f.brake_until.push(finish.brake.map(|(_, until)| until.as_micros()));
            if let (Some(receipt), Some(account)) = (&finish.receipt, finish.account) {
                for (kind, value) in identities(receipt) {
                    self.identity.execution.push(execution);
                    self.identity.kind.push(kind.as_str());
                    self.identity.value.push(value);
                    self.identity.account.push(account.0);
                }
            }
        }
    }

    /// The statement with all parts, and so with all parameters.
    pub(in crate::store) const WHOLE: &'static str = statement::ALL;

    /// The smallest statement that writes this batch; [`Batch::bind`] gives it its parameters.
    pub(in crate::store) fn statement(&self) -> &'static str {
        match (self.decides(), self.finishes()) {
            (false, false) => statement::MOVE,
            (true, false) => statement::DECIDE,
            (false, true) => statement::FINISH,
            (true, true) => statement::ALL,
        }
    }

    /// The transitions in it.
    pub(in crate::store) const fn transitions(&self) -> usize {
        self.transition.execution.len()
    }

    const fn decides(&self) -> bool {
        !self.send.id.is_empty()
    }

    const fn finishes(&self) -> bool {
        !self.cancel.1.is_empty() || !self.finish.send.is_empty()
    }

    /// Binds what [`Batch::statement`] takes, `$1` first.
    pub(in crate::store) fn bind<'q>(&'q self, query: BatchQuery<'q>) -> BatchQuery<'q> {
        let (c, t, s, f, i) = (&self.change, &self.transition, &self.send, &self.finish, &self.identity);
        let mut query = query
            .bind(self.owner)
            .bind(self.incarnation)
            .bind(&self.shards)
            .bind(&self.epochs)
            .bind(&c.id)
            .bind(&c.version)
            .bind(&c.shard)
            .bind(&c.workspace)
            .bind(&c.flow_version)
            .bind(&c.status)
            .bind(&c.paused_status)
            .bind(&c.current_step)
            .bind(&c.completed)
            .bind(&c.failed)
            .bind(&c.skipped)
            .bind(&c.linkedin)
            .bind(&c.email)
            .bind(&c.whatsapp)
            .bind(&c.waiting)
            .bind(&c.checks)
            .bind(&c.checks_max)
            .bind(&c.next_check_at)
            .bind(&c.last_executed_at)
            .bind(&c.next_execution_at)
            .bind(&c.last_error)
            .bind(&c.error_count)
            .bind(&c.exit_reason)
            .bind(&c.attempt)
            .bind(&c.send_sequence)
            .bind(&c.open_send)
            .bind(&c.accounts)
            .bind(&c.step_id)
            .bind(&c.at)
            .bind(&c.moves)
            .bind(&t.execution)
            .bind(&t.version)
            .bind(&t.trigger)
            .bind(&t.detail)
            .bind(&t.from_status)
            .bind(&t.to_status)
            .bind(&t.from_step)
            .bind(&t.to_step);
        if self.decides() || self.finishes() {
            query = query
                .bind(&s.execution)
                .bind(&s.id)
                .bind(&s.created_at)
                .bind(&s.step)
                .bind(&s.step_id)
                .bind(&s.action)
                .bind(&s.channel)
                .bind(&s.attempt)
                .bind(&s.account)
                .bind(&s.account_shard)
                .bind(&s.status);
        }
        if self.finishes() {
            query = query
                .bind(&self.cancel.0)
                .bind(&self.cancel.1)
                .bind(&f.execution)
                .bind(&f.send)
                .bind(&f.status)
                .bind(&f.parked)
                .bind(&f.class)
                .bind(&f.error)
                .bind(&f.receipt)
                .bind(&f.account)
                .bind(&f.rest_until)
                .bind(&f.open_gate)
                .bind(&i.execution)
                .bind(&i.kind)
                .bind(&i.value)
                .bind(&i.account)
                .bind(&f.brake)
                .bind(&f.brake_until);
        }
        query
    }

    /// Writes the batch and commits it.
    pub(in crate::store) async fn run(&self, connection: &mut PgConnection) -> Result<Outcome, Error> {
        let what = failed("writing transitions");
        let query = self.bind(sqlx::query(self.statement()));
        let row = query.fetch_one(connection).await.map_err(&what)?;
        let moved: Option<Vec<Uuid>> = row.try_get(0).map_err(&what)?;
        let shards: Option<Vec<i16>> = row.try_get(1).map_err(&what)?;
        Ok(Outcome {
            moved: moved.unwrap_or_default().into_iter().collect(),
            shards: shards.unwrap_or_default().into_iter().filter_map(|s| u16::try_from(s).ok()).collect(),
        })
    }
}

impl Changes {
    fn push(&mut self, change: &Change) {
        let e = &change.next;
        let columns = Columns::encode(e);
        let json = |v: &Option<serde_json::Value>| v.as_ref().map(json_text);
        self.id.push(e.id.0);
        self.version.push(e.version);
        self.shard.push(shard_column(e.id.shard()));
        self.workspace.push(e.workspace.0);
        self.flow_version.push(e.flow_version);
        self.status.push(e.status.as_str());
        self.paused_status.push(e.paused_status.map(|s| s.as_str()));
        self.current_step.push(int(e.current_step));
        self.completed.push(positions(&e.completed_steps));
        self.failed.push(positions(&e.failed_steps));
        self.skipped.push(positions(&e.skipped_steps));
        self.linkedin.push(json(&columns.linkedin_state));
        self.email.push(json(&columns.email_state));
        self.whatsapp.push(json(&columns.whatsapp_state));
        self.waiting.push(e.waiting_for_trigger.map(|t| t.as_str()));
        self.checks.push(int(e.trigger_check_count));
        self.checks_max.push(int(e.trigger_max_checks));
        self.next_check_at.push(columns.next_check_at);
        self.last_executed_at.push(columns.last_executed_at);
        self.next_execution_at.push(columns.next_execution_at);
        self.error_count.push(int(e.error_count));
        self.exit_reason.push(e.exit_reason.map(|r| r.as_str()));
        self.attempt.push(int(e.attempt));
        self.send_sequence.push(int(e.send_sequence));
        self.open_send.push(e.open_send.map(|s| s.0));
        self.accounts.push(json(&columns.channel_accounts));
        self.last_error.push(columns.last_error);
        self.step_id.push(change.step_id.as_deref().map(|t| clean(t).into_owned()));
        self.at.push(change.at.to_utc());
        self.moves.push(i32::try_from(change.moves.len()).unwrap_or(i32::MAX));
    }
}

impl Moves {
    fn push(&mut self, change: &Change) {
        for (made, after) in change.moves.iter().zip(change.first_version()..) {
            self.execution.push(change.next.id.0);
            self.version.push(after);
            self.trigger.push(made.trigger.name());
            self.detail.push(row::trigger_detail(&made.trigger).as_ref().map(json_text));
            self.from_status.push(made.from_status.as_str());
            self.to_status.push(made.to_status.as_str());
            self.from_step.push(int(made.from_step));
            self.to_step.push(int(made.to_step));
        }
    }
}

/// Positions as the text of an `integer[]`.
fn positions(steps: &[u32]) -> String {
    let inner: Vec<String> = steps.iter().map(|s| int(*s).to_string()).collect();
    format!("{{{}}}", inner.join(","))
}

/// The names a receipt holds, by kind. An invitation's id names nothing that a webhook ever mentions.
fn identities(receipt: &Receipt) -> impl Iterator<Item = (IdentityKind, String)> {
    [
        (IdentityKind::Recipient, &receipt.recipient_id),
        (IdentityKind::Chat, &receipt.chat_id),
        (IdentityKind::Message, &receipt.message_id),
        (IdentityKind::Tracking, &receipt.tracking_id),
        (IdentityKind::RfcMessage, &receipt.rfc_message_id),
        (IdentityKind::Thread, &receipt.thread_id),
    ]
    .into_iter()
    .filter_map(|(kind, value)| value.as_deref().map(|v| (kind, clean(v).into_owned())))
    .filter(|(_, value)| !value.is_empty() && value.len() <= IDENTITY_MAX)
}
