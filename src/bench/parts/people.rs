//! The crowds that the parts run on: the seed's flow, its accounts, and prospects in the states that matter.
//!
//! Everything about a person follows from a number; [`person`] reads it back off whatever names the person.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::bench::{Bench, Error};
use crate::domain::account::Channel;
use crate::domain::execution::Execution;
use crate::domain::flow;
use crate::domain::id::{AccountId, CampaignId, ExecutionId, ProspectId, SendId};
use crate::domain::send::SendOutcome;
use crate::domain::step::{Decision, step};
use crate::domain::time::Timestamp;
use crate::domain::trigger::Trigger;
use crate::sandbox::{AccountKind, AccountSpec, options};
use crate::service::DEFAULT_WORKSPACE;
use crate::store::bench::people::{self, Cast, Laid, NewAccount, Template};
use crate::store::{Pool, campaign};

/// Where sends are measured there are at least so many accounts, so that none of them is the queue.
const ACCOUNTS_MANY: u32 = 1023;
/// People made by one statement.
const PORTION: i64 = 10_000;
/// Statements at once.
const MAKERS: usize = 2;

/// The seed's campaign: an invitation, a mail once it was accepted, a message. `delay` stands for the seed's two and five
/// days between the steps.
pub(super) fn seed_flow(delay: &str) -> Value {
    json!({
        "schema_version": 1,
        "stop_on": ["reply", "unsubscribe", "hard_bounce"],
        "steps": [
            { "id": "invite", "action": "send_linkedin_cr",
              "message": "Hi {{ first_name }}, I would like to add you to my network.",
              "wait_for": { "trigger": "connection_accepted", "timeout": "72h", "check_every": "1h", "max_checks": 168,
                            "on_timeout": "continue" } },
            { "id": "intro", "action": "send_email", "subject": "An idea for {{ company_name | default('you') }}",
              "message": "Hi {{ first_name }},\n\nmay I show you what we do?\n\nBest,\nAda", "delay": delay },
            { "id": "nudge", "action": "send_linkedin_message",
              "message": "Hi {{ first_name }}, did my mail reach you?", "requires": ["connected"] }
        ]
    })
}

/// Accounts where the sends themselves are measured: what was asked for, else at least a thousand.
pub(super) fn many_accounts(bench: &Bench, prospects: u64) -> u32 {
    let settings = bench.settings();
    settings.accounts.unwrap_or_else(|| settings.accounts(prospects).max(ACCOUNTS_MANY))
}

/// A campaign that runs, and the accounts it sends through.
pub(super) struct Stage {
    /// The campaign.
    pub(super) cast: Cast,
    /// A third each of LinkedIn, mail and WhatsApp.
    pub(super) accounts: Vec<NewAccount>,
    flow: flow::Flow,
}

impl Stage {
    /// Makes both in a scratch database. `accounts` are named as the sandbox names its own.
    pub(super) async fn set(
        pool: &Pool,
        settings: &Value,
        provider: &str,
        accounts: u32,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let parsed = flow::parse(settings).map_err(|problems| {
            Error::Refused(format!(
                "the bench's own flow is not sound: {}",
                problems.first().map_or_else(String::new, ToString::to_string)
            ))
        })?;
        let campaign = campaign::create(pool, DEFAULT_WORKSPACE, "bench", settings, None, now).await?;
        campaign::switch(pool, DEFAULT_WORKSPACE, campaign, campaign::Status::Draft, campaign::Status::Active, now)
            .await?;
        let cast = Cast { workspace: DEFAULT_WORKSPACE, campaign, flow_version: 1, at: now };
        let accounts: Vec<NewAccount> = sandbox_accounts(accounts)
            .into_iter()
            .map(|spec| NewAccount { id: AccountId(Uuid::new_v4()), channel: channel_of(spec.kind), name: spec.id })
            .collect();
        people::make_accounts(pool, &cast, provider, &accounts).await?;
        Ok(Self { cast, accounts, flow: parsed })
    }

    /// The LinkedIn accounts.
    pub(super) fn linkedin(&self) -> Vec<AccountId> {
        self.accounts.iter().filter(|a| a.channel == Channel::Linkedin).map(|a| a.id).collect()
    }

    /// The provider's name of the LinkedIn account through which a person of [`Stage::waiting`] was contacted.
    pub(super) fn contact_of(&self, person: u64) -> &str {
        let accounts: Vec<&NewAccount> = self.accounts.iter().filter(|a| a.channel == Channel::Linkedin).collect();
        let index = usize::try_from(person).unwrap_or_default().checked_rem(accounts.len()).unwrap_or_default();
        accounts.get(index).map_or("", |a| &a.name)
    }

    /// Nobody was contacted yet: the first step is due at `due`. As an upload makes them (version 0).
    pub(super) fn due(&self, due: Timestamp) -> Template {
        let execution = Execution { next_execution_at: Some(due), ..self.fresh() };
        Template { execution, step_id: "invite".to_owned(), laid: Laid::AT_ONCE, accounts: Vec::new() }
    }

    /// Everybody was invited and has not answered: what the engine makes of a person by then, with the next look at `check`
    /// for the first, and for the others as they are laid.
    pub(super) fn waiting(&self, check: Timestamp, laid: Laid) -> Result<Template, Error> {
        let now = self.cast.at;
        let invited = self.after(&self.fresh(), &Trigger::Due, now)?;
        let send = invited.open_send.unwrap_or(SendId(Uuid::nil()));
        let sent = self.after(&invited, &Trigger::SendFinished { send, outcome: SendOutcome::Sent }, now)?;
        if sent.waiting_for_trigger.is_none() {
            return Err(Error::Refused("somebody who was invited does not wait for an answer".to_owned()));
        }
        Ok(Template {
            execution: Execution { next_check_at: Some(check), ..sent },
            step_id: "invite".to_owned(),
            laid,
            accounts: self.linkedin(),
        })
    }

    fn fresh(&self) -> Execution {
        let nobody = (ExecutionId(Uuid::nil()), ProspectId(Uuid::nil()));
        let campaign: CampaignId = self.cast.campaign;
        Execution::new(nobody.0, self.cast.workspace, campaign, nobody.1, self.cast.flow_version, self.cast.at)
    }

    fn after(&self, execution: &Execution, trigger: &Trigger, now: Timestamp) -> Result<Execution, Error> {
        match step(execution, &self.flow, trigger, now) {
            Decision::Transition { next, .. } => Ok(*next),
            Decision::Rejected(why) => Err(Error::Refused(format!("{} is rejected: {}", trigger.name(), why.as_str()))),
        }
    }
}

/// As many accounts as that, a third each of LinkedIn, mail and WhatsApp, as the sandbox has them.
pub(super) fn sandbox_accounts(accounts: u32) -> Vec<AccountSpec> {
    let accounts = usize::try_from(accounts).unwrap_or(usize::MAX).max(3);
    let third = accounts / 3;
    options::accounts(accounts - 2 * third, third, third)
}

const fn channel_of(kind: AccountKind) -> Channel {
    match kind {
        AccountKind::LinkedIn => Channel::Linkedin,
        AccountKind::Mail => Channel::Email,
        AccountKind::WhatsApp => Channel::Whatsapp,
    }
}

/// Makes people `from..to` with their executions, and shows how far it is.
pub(super) async fn enrol(
    bench: &Bench,
    pool: &Pool,
    stage: &Stage,
    template: &Template,
    from: u64,
    to: u64,
) -> Result<(), Error> {
    let progress = bench.progress("enrolling prospects", to.saturating_sub(from));
    people::expect_people(pool).await?;
    let (from, to) = (signed(from), signed(to));
    let next = Arc::new(AtomicI64::new(from));
    let (mut makers, template) = (JoinSet::new(), Arc::new(template.clone()));
    for _ in 0..MAKERS {
        let (pool, cast, next, template) = (pool.clone(), stage.cast, Arc::clone(&next), Arc::clone(&template));
        let progress = progress.clone();
        makers.spawn(async move {
            loop {
                let first = next.fetch_add(PORTION, Relaxed);
                if first >= to {
                    return Ok(());
                }
                let last = to.min(first + PORTION);
                people::make_people(&pool, &cast, &template, first, last).await?;
                progress.add(u64::try_from(last - first).unwrap_or_default());
            }
        });
    }
    loop {
        tokio::select! {
            // Dropping the others ends their transactions.
            () = bench.cancelled() => return Err(Error::Cancelled),
            made = makers.join_next() => match made {
                Some(Ok(made)) => made.map_err(|error: crate::store::Error| Error::Store(error))?,
                Some(Err(crash)) => return Err(Error::Refused(format!("enrolling prospects crashed: {crash}"))),
                None => break,
            },
        }
    }
    crate::store::bench::settle(pool).await?;
    Ok(())
}

/// A count as Postgres has it.
pub(super) fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The number of a person in a mail address, a profile or a provider's id: the digits at the end of the local part.
pub(super) fn person(text: &str) -> Option<u64> {
    let local = text.split('@').next().unwrap_or_default();
    let digits = local.len() - local.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    local.get(local.len() - digits..)?.parse().ok()
}

/// Spreads wake-ups evenly over a stretch of time.
pub(super) fn spread(over: Duration, people: u64) -> Laid {
    let within_us = i64::try_from(over.as_micros()).unwrap_or(i64::MAX).max(1);
    Laid { first: 0, every_us: (within_us / signed(people.max(1))).max(1), within_us }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_found_in_whatever_names_the_person() {
        assert_eq!(person("person.42@people.example"), Some(42));
        assert_eq!(person("https://www.linkedin.com/in/person-7"), Some(7));
        assert_eq!(person("ACoAABench1000"), Some(1000));
        assert_eq!(person("ada@people.example"), None);
    }

    #[test]
    fn a_stage_has_a_third_of_its_accounts_on_each_channel() {
        let accounts = sandbox_accounts(17);
        assert_eq!(accounts.len(), 17);
        assert_eq!(accounts.iter().filter(|a| a.kind == AccountKind::Mail).count(), 5);
    }
}
