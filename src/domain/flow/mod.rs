//! A flow: the steps of a campaign, checked. Later code holds a `&Flow` and checks nothing again.

use std::time::Duration;

use super::execution::WaitTrigger;
use super::send::Action;
use super::template;
use super::window::Window;

mod check;
mod fields;
mod hours;
mod json;
mod legacy;
mod names;
mod parse;
mod problem;
mod steps;
mod text;
mod wait;

#[cfg(test)]
mod tests;

pub use fields::{missing_fields, needs_first_name};
pub use hours::{hours_from_json, hours_to_json};
pub use json::to_json;
pub use parse::parse;
pub use problem::Problem;

/// `trigger_max_checks` where a flow does not say: seven days of hourly checks.
pub const MAX_CHECKS_DEFAULT: u32 = 168;
/// `check_every` where a flow does not say.
pub const CHECK_EVERY_DEFAULT: Duration = Duration::from_secs(3600);
/// The schema version that is written.
pub const SCHEMA_VERSION: u64 = 1;

/// A checked flow. Made by [`parse`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// When sends may leave; `None` = always.
    pub window: Option<Window>,
    /// What ends an execution early.
    pub stop_on: StopOn,
    /// At least one.
    pub steps: Vec<Step>,
}

impl Flow {
    /// The step at a 1-based position.
    pub fn step(&self, position: u32) -> Option<&Step> {
        self.steps.get(usize::try_from(position).ok()?.checked_sub(1)?)
    }

    /// The number of steps.
    pub fn len(&self) -> u32 {
        u32::try_from(self.steps.len()).unwrap_or(u32::MAX)
    }

    /// Never: a flow has at least one step.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The 1-based position of a step by its id.
    pub fn position(&self, id: &str) -> Option<u32> {
        self.steps.iter().position(|s| s.id == id).and_then(|i| u32::try_from(i + 1).ok())
    }
}

/// Which facts end an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopOn {
    /// An answer on any channel.
    pub reply: bool,
    /// An unsubscription.
    pub unsubscribe: bool,
    /// A mail that bounced for good.
    pub hard_bounce: bool,
}

impl StopOn {
    /// All of them: what a flow gets that does not say.
    pub const ALL: Self = Self { reply: true, unsubscribe: true, hard_bounce: true };
}

/// One element of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Stable id, unique in the flow.
    pub id: String,
    /// What it does.
    pub action: Action,
    /// The subject template of a mail or an InMail. `None` for the others, and for a mail that goes on in its thread under the
    /// subject that the thread has.
    pub subject: Option<String>,
    /// The message template; `None` for `wait`, for a visit and for an invitation without a note.
    pub message: Option<String>,
    /// For a mail: whether it answers our last mail to the person, in the same thread.
    pub in_thread: bool,
    /// For an invitation with a note: whether it is not sent without the note when the provider refuses that.
    pub note_required: bool,
    /// For a mail: what of it is tracked.
    pub track: Track,
    /// After this step, before the next. Without a wait: from success. With one: see `wait_for`.
    pub delay: Duration,
    /// Waits for a trigger once the send has succeeded.
    pub wait_for: Option<WaitFor>,
    /// What must be true when the step is due; otherwise it is passed over.
    pub requires: Requires,
}

impl Step {
    /// Whether it is sent again without its note when the provider refuses that.
    pub fn goes_without_note(&self) -> bool {
        self.action == Action::SendLinkedinCr && self.message.is_some() && !self.note_required
    }

    /// Whether what it sends uses up the account's notes: an invitation that goes without when there are none does not wait for
    /// them.
    pub fn needs_note(&self) -> bool {
        self.message.is_some() && !self.goes_without_note()
    }

    /// Whether one of its texts uses a variable, with or without a default.
    pub fn writes(&self, variable: &str) -> bool {
        [&self.subject, &self.message].into_iter().flatten().any(|text| {
            // A text that does not compile was refused when the flow was saved.
            template::check(text).is_ok_and(|found| found.iter().any(|v| v.name == variable))
        })
    }
}

/// What a mail is tracked for: the provider tells when it happens. By software of theirs as well as by people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Track {
    /// That it is opened: a picture is put into it.
    pub opens: bool,
    /// That its links are followed: they lead over the provider.
    pub links: bool,
}

/// Conditions of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requires {
    /// The person is a LinkedIn connection.
    pub connected: bool,
}

/// A wait for a trigger. The next step is due the moment the trigger arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitFor {
    /// What is waited for.
    pub trigger: WaitTrigger,
    /// The deadline, counted from the send's success.
    pub timeout: Duration,
    /// Time between two checks.
    pub check_every: Duration,
    /// The wait ends after this many checks, if the deadline does not come first.
    pub max_checks: u32,
    /// What happens when the wait ends without the trigger.
    pub on_timeout: OnTimeout,
}

/// What happens when a wait ends without its trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnTimeout {
    /// The next step is due now.
    Continue,
    /// That step (1-based position) is due now.
    Goto(u32),
    /// The execution completes (`exit_reason` timeout).
    Complete,
    /// The execution fails (`exit_reason` timeout).
    Fail,
}
