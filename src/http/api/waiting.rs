//! What a prospect waits for, in words and for programs: the answer to "why does nothing happen?".

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::error::Result;
use super::allowance::Waits;
use crate::domain::account::Channel;
use crate::domain::budget::Kind;
use crate::domain::flow::{self, Step};
use crate::domain::id::{AccountId, CampaignId, WorkspaceId};
use crate::domain::send::Action;
use crate::domain::time::Timestamp;
use crate::runtime::Handle;
use crate::store::account::Listed;
use crate::store::prospect::{self, Execution, OpenSend};
use crate::store::{Pool, account, campaign, identity};

/// What happens next, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct WaitingOn {
    /// `nothing` (over), `time`, `trigger`, `send`, `person` (an operator has to decide), `campaign`, `account`, `engine`.
    kind: &'static str,
    /// One sentence for people.
    text: String,
    /// When the wait ends at the latest, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<DateTime<Utc>>,
    /// The trigger that would end it.
    #[serde(skip_serializing_if = "Option::is_none")]
    trigger: Option<String>,
    /// The next check of a wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_check_at: Option<DateTime<Utc>>,
    /// The open send.
    #[serde(skip_serializing_if = "Option::is_none")]
    send_id: Option<Uuid>,
    /// Its status.
    #[serde(skip_serializing_if = "Option::is_none")]
    send_status: Option<String>,
    /// The account it goes through.
    #[serde(skip_serializing_if = "Option::is_none")]
    account_id: Option<Uuid>,
}

impl WaitingOn {
    fn new(kind: &'static str, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), ..Self::default() }
    }
}

/// Reads what the answer needs and puts it together.
pub(crate) async fn waiting_on(
    pool: &Pool,
    workspace: WorkspaceId,
    campaign: Uuid,
    execution: Option<&Execution>,
    (runtime, now): (&Handle, Timestamp),
) -> Result<WaitingOn> {
    let Some(execution) = execution else {
        return Ok(WaitingOn::new("engine", "has no execution yet; call initialize_execution_state for it"));
    };
    let open = match execution.open_send {
        Some(send) => prospect::open_send(pool, workspace, execution.execution_id(), send).await?,
        None => None,
    };
    let id = CampaignId(campaign);
    let campaign = campaign::get(pool, workspace, id).await?;
    let status = campaign.as_ref().map_or("draft", |c| c.status.as_str());
    let step = match execution.status.as_deref() {
        Some("pending" | "executing") => next_step(pool, workspace, id, campaign.as_ref(), execution).await?,
        _ => None,
    };
    let channel = step.as_ref().and_then(|step| step.action.channel());
    let mut why = Reasons { needs_note: step.as_ref().is_some_and(Step::needs_note), ..Reasons::default() };
    let account = open.as_ref().map(|open| AccountId(open.account_id));
    if let (Some(Channel::Whatsapp), Some(account)) =
        (channel, account.or_else(|| chosen_account(execution, Channel::Whatsapp)))
    {
        why.first = !identity::knows_chat(pool, workspace, execution.execution_id(), account).await?;
    }
    if execution.status.as_deref() == Some("pending")
        && let Some(channel) = channel
    {
        if !account::channels(pool, workspace, id).await?.contains(&channel) {
            why.missing = Some(channel);
        } else if let Some(chosen) =
            chosen_account(execution, channel).or_else(|| runtime.account_drawn(id, execution.execution_id(), channel))
            && let Some(row) = account::list(pool, workspace, Some(chosen)).await?.pop()
            && let Some(kind) = step.and_then(|step| Kind::of(step.action, step.needs_note(), why.first))
        {
            let stopped = row.status_reason.as_ref().map(|why| (format!("it is stopped ({why})"), None));
            let why_not = stopped.or_else(|| Waits::of_account(&row).why(kind, now));
            why.budget = why_not.map(|(text, until)| (row, text, until));
        }
    }
    Ok(explain(execution, open.as_ref(), status, &why, now))
}

/// What else is known about why an execution waits.
#[derive(Default)]
struct Reasons {
    /// The next step's channel, for which there is no account.
    missing: Option<Channel>,
    /// The next step has a text that it does not go without.
    needs_note: bool,
    /// Nothing has gone to this person on the step's channel yet.
    first: bool,
    /// The account that contacts this person, and why it does not send, or has no room for the next step in its budget.
    budget: Option<(Listed, String, Option<DateTime<Utc>>)>,
}

/// The account that contacts this person on a channel, once it was chosen.
fn chosen_account(execution: &Execution, channel: Channel) -> Option<AccountId> {
    let id = execution.channel_accounts.as_ref()?.get(channel.as_str())?.as_str()?;
    id.parse().ok().map(AccountId)
}

/// The current step, as far as the stored flow can be read.
async fn next_step(
    pool: &Pool,
    workspace: WorkspaceId,
    id: CampaignId,
    campaign: Option<&campaign::Campaign>,
    execution: &Execution,
) -> Result<Option<Step>> {
    let pinned = match execution.flow_version {
        Some(version) => campaign::flow_version(pool, workspace, id, version).await?,
        None => None,
    };
    let flow = pinned.as_ref().or_else(|| campaign.map(|c| &c.flow_settings)).and_then(|f| flow::parse(f).ok());
    let position = execution.current_step.and_then(|n| u32::try_from(n).ok());
    Ok(flow.zip(position).and_then(|(flow, n)| flow.step(n).cloned()))
}

fn explain(execution: &Execution, open: Option<&OpenSend>, campaign: &str, why: &Reasons, at: Timestamp) -> WaitingOn {
    let now = at.to_utc();
    let status = execution.status.as_deref().unwrap_or_default();
    if matches!(status, "completed" | "failed") {
        let reason = execution.exit_reason.as_deref().map_or_else(String::new, |r| format!(" ({r})"));
        return WaitingOn::new("nothing", format!("{status}{reason}: nothing more happens by itself"));
    }
    if status == "paused" {
        return WaitingOn::new("person", "paused by an operator: resume it to go on");
    }
    if let (true, Some(open)) = (status == "executing", open) {
        return explain_send(open, campaign, why, at);
    }
    if campaign != "active" {
        let mend = if campaign == "draft" { "start it" } else { "resume it" };
        return WaitingOn::new(
            "campaign",
            format!("the campaign is {campaign}: {mend} to go on; facts are still recorded"),
        );
    }
    match status {
        "waiting_trigger" => explain_wait(execution),
        "pending" => match (why.missing, execution.next_execution_at) {
            (Some(channel), _) => WaitingOn::new(
                "account",
                format!("the next step needs {channel}, and no account for it may be used: add one"),
            ),
            (None, Some(at)) if at > now => WaitingOn {
                until: Some(at),
                ..WaitingOn::new("time", format!("step {} is due at {}", step(execution), shown(at)))
            },
            (None, Some(at)) if let Some((account, text, until)) = &why.budget => WaitingOn {
                until: *until,
                account_id: Some(account.id),
                ..WaitingOn::new(
                    "account",
                    format!(
                        "step {} has been due since {} and waits in line at account '{}': {text}{}",
                        step(execution),
                        shown(at),
                        account.name,
                        until_text(*until)
                    ),
                )
            },
            (None, Some(at)) => WaitingOn {
                until: Some(at),
                ..WaitingOn::new("engine", format!("step {} has been due since {}", step(execution), shown(at)))
            },
            (None, None) => WaitingOn::new("engine", "has no due time: the engine has not taken it up yet"),
        },
        // Executing without a send of ours: a row of the old orchestrator that was not taken up yet.
        _ => WaitingOn::new("engine", format!("is {status}: the engine has not taken it up yet")),
    }
}

fn explain_wait(execution: &Execution) -> WaitingOn {
    let trigger = execution.waiting_for_trigger.clone().unwrap_or_else(|| "a trigger".to_owned());
    let until =
        execution.next_execution_at.map_or_else(String::new, |at| format!(", until {} at the latest", shown(at)));
    let checks = format!("{} of {} checks done", execution.trigger_check_count, execution.trigger_max_checks);
    let next = execution.next_check_at.map_or_else(String::new, |at| format!(", the next at {}", shown(at)));
    WaitingOn {
        until: execution.next_execution_at,
        next_check_at: execution.next_check_at,
        ..WaitingOn::new("trigger", format!("waits for {trigger}{until} ({checks}{next})"))
    }
    .with_trigger(trigger)
}

impl WaitingOn {
    fn with_trigger(mut self, trigger: String) -> Self {
        self.trigger = Some(trigger);
        self
    }
}

fn explain_send(open: &OpenSend, campaign: &str, why: &Reasons, at: Timestamp) -> WaitingOn {
    let now = at.to_utc();
    let (action, account) = (&open.action, &open.account_name);
    let about = WaitingOn {
        send_id: Some(open.id),
        send_status: Some(open.status.clone()),
        account_id: Some(open.account_id),
        ..WaitingOn::default()
    };
    let say = |kind, text: String| WaitingOn { kind, text, ..about.clone() };
    match open.status.as_str() {
        "pending" if open.account_status != "active" => {
            let why = open.status_reason.as_deref().map_or_else(String::new, |r| format!(" ({r})"));
            say("account", format!("{action} waits: account '{account}' is {}{why}", open.account_status))
        }
        // It would send, and something holds it all the same: a key that its provider refuses.
        "pending" if let Some(why) = &open.status_reason => {
            say("account", format!("{action} waits: account '{account}' is held: {why}"))
        }
        "pending" if campaign != "active" => say("campaign", format!("{action} is held: the campaign is {campaign}")),
        "pending" => match open.next_send_at.filter(|at| *at > now) {
            Some(at) => WaitingOn {
                until: Some(at),
                ..say("account", format!("{action} waits its turn: account '{account}' sends again at {}", shown(at)))
            },
            None => match Action::parse(action)
                .and_then(|action| Kind::of(action, why.needs_note, why.first))
                .and_then(|kind| Waits::of_send(open).why(kind, at))
            {
                Some((text, until)) => WaitingOn {
                    until,
                    ..say("account", format!("{action} waits for account '{account}': {text}{}", until_text(until)))
                },
                None => say("send", format!("{action} waits its turn at account '{account}'")),
            },
        },
        "dispatching" => say("send", format!("{action} is with the provider, through account '{account}'")),
        "unknown" if open.parked_at.is_some() => say(
            "person",
            format!("nobody knows whether {action} was sent, and reading back did not tell: an operator has to decide"),
        ),
        "unknown" => {
            say("send", format!("nobody knows whether {action} was sent: it is being read back from the provider"))
        }
        other => say("engine", format!("{action} is {other}: the engine is about to record it")),
    }
}

fn until_text(until: Option<DateTime<Utc>>) -> String {
    until.map_or_else(String::new, |at| format!("; there is room again at {}", shown(at)))
}

fn step(execution: &Execution) -> i32 {
    execution.current_step.unwrap_or(1)
}

fn shown(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use serde_json::json;

    use super::*;

    fn execution(status: &str) -> Execution {
        Execution {
            id: Uuid::nil(),
            campaign_id: Uuid::nil(),
            prospect_id: Uuid::nil(),
            current_step: Some(2),
            status: Some(status.to_owned()),
            completed_steps: Vec::new(),
            failed_steps: Vec::new(),
            skipped_steps: Vec::new(),
            linkedin_state: None,
            email_state: None,
            whatsapp_state: None,
            waiting_for_trigger: None,
            trigger_check_count: 3,
            trigger_max_checks: 168,
            next_check_at: None,
            n8n_execution_id: None,
            last_executed_at: None,
            next_execution_at: None,
            last_error: None,
            error_count: 0,
            flow_version: Some(1),
            version: 1,
            exit_reason: None,
            paused_status: None,
            open_send: None,
            channel_accounts: None,
            updated_at: None,
        }
    }

    fn open(status: &str, account_status: &str) -> OpenSend {
        OpenSend {
            id: Uuid::nil(),
            status: status.to_owned(),
            channel: "email".to_owned(),
            action: "send_email".to_owned(),
            account_id: Uuid::nil(),
            account_name: "Seat".to_owned(),
            account_status: account_status.to_owned(),
            status_reason: (account_status != "active").then(|| "credentials".to_owned()),
            next_send_at: None,
            parked_at: None,
            account_since: DateTime::UNIX_EPOCH,
            limits: None,
            history: None,
            rests: None,
        }
    }

    #[test]
    fn each_standing_has_its_explanation() {
        let at = Timestamp::from(DateTime::<Utc>::UNIX_EPOCH);
        let now = at.to_utc();
        let later = Some(now + TimeDelta::hours(1));
        let due = |at| Execution { next_execution_at: at, ..execution("pending") };
        let waiting = Execution {
            waiting_for_trigger: Some("connection_accepted".to_owned()),
            next_execution_at: later,
            next_check_at: later,
            ..execution("waiting_trigger")
        };
        let executing = execution("executing");
        let parked = OpenSend { parked_at: later, ..open("unknown", "active") };
        let resting = OpenSend { next_send_at: later, ..open("pending", "active") };
        for (execution, open, campaign, missing, kind) in [
            (&execution("completed"), None, "paused", None, "nothing"),
            (&execution("paused"), None, "active", None, "person"),
            (&due(later), None, "draft", None, "campaign"),
            (&due(later), None, "active", None, "time"),
            (&due(Some(now)), None, "active", None, "engine"),
            (&due(None), None, "active", None, "engine"),
            (&due(later), None, "active", Some(Channel::Email), "account"),
            (&waiting, None, "active", None, "trigger"),
            (&executing, None, "active", None, "engine"),
            (&executing, Some(open("pending", "halted")), "active", None, "account"),
            (&executing, Some(open("pending", "active")), "paused", None, "campaign"),
            (&executing, Some(open("pending", "active")), "active", None, "send"),
            (&executing, Some(resting), "active", None, "account"),
            (&executing, Some(open("dispatching", "active")), "active", None, "send"),
            (&executing, Some(open("unknown", "active")), "active", None, "send"),
            (&executing, Some(parked), "active", None, "person"),
        ] {
            let why = Reasons { missing, ..Reasons::default() };
            let said = explain(execution, open.as_ref(), campaign, &why, at);
            assert_eq!(said.kind, kind, "{said:?}");
        }
        let held =
            OpenSend { status_reason: Some("unipile refuses our API key".to_owned()), ..open("pending", "active") };
        let said = explain(&executing, Some(&held), "active", &Reasons::default(), at);
        assert_eq!(
            (said.kind, said.text.as_str()),
            ("account", "send_email waits: account 'Seat' is held: unipile refuses our API key")
        );
        let full = OpenSend {
            limits: Some(json!({"kind": "linkedin_free", "limits": {"message": {"day": 1}}, "warm_up": null})),
            history: Some(json!({"v": 1, "counts": {"message": [[0, 1]]}, "rests": {}})),
            channel: "linkedin".to_owned(),
            action: "send_linkedin_message".to_owned(),
            ..open("pending", "active")
        };
        let said = explain(&executing, Some(&full), "active", &Reasons::default(), at);
        assert_eq!(
            said.text,
            "send_linkedin_message waits for account 'Seat': 1 of message in 24 hours are used up; there is room again at \
             1970-01-02T00:15:00Z"
        );
        let chat = OpenSend {
            limits: Some(json!({"kind": "whatsapp", "limits": {"whatsapp_new_chat": {"day": 1}}, "warm_up": null})),
            history: Some(json!({"v": 1, "counts": {"whatsapp_new_chat": [[0, 1]]}, "rests": {}})),
            channel: "whatsapp".to_owned(),
            action: "send_whatsapp".to_owned(),
            ..open("pending", "active")
        };
        let first = Reasons { first: true, ..Reasons::default() };
        let said = explain(&executing, Some(&chat), "active", &first, at).text;
        assert!(said.contains("1 of whatsapp_new_chat in 24 hours are used up"), "{said}");
        assert_eq!(explain(&executing, Some(&chat), "active", &Reasons::default(), at).kind, "send");
        let said = explain(&waiting, None, "active", &Reasons::default(), at);
        assert_eq!(
            said.text,
            "waits for connection_accepted, until 1970-01-01T01:00:00Z at the latest \
             (3 of 168 checks done, the next at 1970-01-01T01:00:00Z)"
        );
        assert_eq!((said.until, said.trigger.as_deref()), (later, Some("connection_accepted")));
    }
}
