//! How much of an account's budget is used up, and why something waits for it: read from the rows, decided by the core.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::domain::account::Channel;
use crate::domain::budget::{self, Budget, DAY, Decision, History, Kind, WEEK, Why};
use crate::domain::id::{AccountId, SendId};
use crate::domain::time::Timestamp;
use crate::store::account::Listed;
use crate::store::prospect::OpenSend;

/// One kind of action of an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Allowance {
    /// For example `invite`, `message`, `mail`.
    kind: &'static str,
    /// Done in the last 24 hours, or a few more: rounded up to whole quarters of an hour.
    day_used: u32,
    /// Most in any 24 hours, as it is today (a new account grows into it).
    day_limit: u32,
    /// Done in the last 7 days, likewise.
    week_used: u32,
    /// Most in any 7 days.
    week_limit: u32,
    /// None before that: the provider has said that its quota is used up.
    #[serde(skip_serializing_if = "Option::is_none")]
    rests_until: Option<DateTime<Utc>>,
}

/// What an account may do and has done; none for an account without a budget, or whose rows cannot be read.
pub(crate) fn allowances(row: &Listed, now: Timestamp) -> Vec<Allowance> {
    let Some((budget, history)) = standing(&row.channel, row.limits.as_ref(), row.history.as_ref(), row.rests.as_ref())
    else {
        return Vec::new();
    };
    let since = Timestamp::from(row.created_at);
    budget
        .limits
        .iter()
        .map(|(kind, limit)| Allowance {
            kind: kind.as_str(),
            day_used: history.count(*kind, DAY, now),
            day_limit: budget.today(limit.day, since, now),
            week_used: history.count(*kind, WEEK, now),
            week_limit: limit.week,
            rests_until: history.rests_until(*kind).filter(|at| *at > now).map(Timestamp::to_utc),
        })
        .collect()
}

fn standing(
    channel: &str,
    limits: Option<&Value>,
    history: Option<&Value>,
    rests: Option<&Value>,
) -> Option<(Budget, History)> {
    let budget = budget::parse(limits?, Channel::parse(channel)?).ok()?;
    Some((budget, History::of_gate(history, rests).ok()?))
}

/// The account that something waits for, as far as its budget goes.
pub(crate) struct Waits<'a> {
    channel: &'a str,
    account: AccountId,
    since: DateTime<Utc>,
    limits: Option<&'a Value>,
    history: Option<&'a Value>,
    rests: Option<&'a Value>,
}

impl<'a> Waits<'a> {
    /// Of an account.
    pub(crate) fn of_account(row: &'a Listed) -> Self {
        Self {
            channel: &row.channel,
            account: AccountId(row.id),
            since: row.created_at,
            limits: row.limits.as_ref(),
            history: row.history.as_ref(),
            rests: row.rests.as_ref(),
        }
    }

    /// Of the account of an open send.
    pub(crate) fn of_send(row: &'a OpenSend) -> Self {
        Self {
            channel: &row.channel,
            account: AccountId(row.account_id),
            since: row.account_since,
            limits: row.limits.as_ref(),
            history: row.history.as_ref(),
            rests: row.rests.as_ref(),
        }
    }

    /// Why the budget lets nothing of this kind go now, for people, and until when.
    pub(crate) fn why(&self, kind: Kind, now: Timestamp) -> Option<(String, Option<DateTime<Utc>>)> {
        let (budget, history) = standing(self.channel, self.limits, self.history, self.rests)?;
        let none = SendId(uuid::Uuid::nil());
        match budget.decide(&history, kind, (self.account, self.since.into()), none, now) {
            Decision::Allowed { .. } => None,
            Decision::Never { kind } => {
                Some((format!("its limit of {kind} is 0, and it does none until that is changed"), None))
            }
            Decision::Wait { until, why } => {
                let why = match why {
                    Why::Resting => format!("the provider says that its quota of {kind} is used up"),
                    Why::Closed => "it is outside of its working hours".to_owned(),
                    Why::DayFull { kind, limit } => format!("{limit} of {kind} in 24 hours are used up"),
                    Why::WeekFull { kind, limit } => format!("{limit} of {kind} in 7 days are used up"),
                };
                Some((why, Some(until.to_utc())))
            }
        }
    }
}
