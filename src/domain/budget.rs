//! How much an account may do: kinds of action, limits in any 24 hours and in any 7 days, a ramp for new accounts, spacing,
//! working hours, and brakes.
//!
//! Pure: what was done is a [`History`], the time is an argument, and what looks random derives from ids. The limits hold for
//! every window, wherever it begins: no 24 hours and no 7 days ever see more than the limit (a property in `tests`, against the
//! exact times). [`Budget`]s are made by [`parse`] from an account's `limits`, or are the [`defaults`](Budget::defaults) of its
//! kind. Called by the runtime before a claim.

use std::time::Duration;

use super::account::{Channel, names};
use super::id::{AccountId, SendId};
use super::send::Action;
use super::time::Timestamp;
use super::window::Window;

mod defaults;
mod history;
mod json;
#[cfg(test)]
mod tests;

pub use history::History;
pub use json::{parse, to_json};

/// A day, as limits and ramps count it.
pub const DAY: Duration = Duration::from_secs(24 * 3600);
/// A week, as limits count it.
pub const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
/// A used-up quota makes the account rest this long.
pub const QUOTA_REST: Duration = DAY;

names! {
    /// What an account is at its provider: its defaults follow from it.
    AccountKind {
        /// LinkedIn without a subscription.
        LinkedinFree = "linkedin_free",
        /// LinkedIn Premium.
        LinkedinPremium = "linkedin_premium",
        /// LinkedIn Sales Navigator.
        LinkedinSalesNavigator = "linkedin_sales_navigator",
        /// A mailbox of gmail.com.
        MailGoogle = "mail_google",
        /// A mailbox of Google Workspace.
        MailWorkspace = "mail_workspace",
        /// Any other mailbox.
        MailImap = "mail_imap",
        /// A WhatsApp number.
        Whatsapp = "whatsapp",
    }
}

impl AccountKind {
    /// What it sends.
    pub const fn channel(self) -> Channel {
        match self {
            Self::LinkedinFree | Self::LinkedinPremium | Self::LinkedinSalesNavigator => Channel::Linkedin,
            Self::MailGoogle | Self::MailWorkspace | Self::MailImap => Channel::Email,
            Self::Whatsapp => Channel::Whatsapp,
        }
    }

    /// The most careful kind of a channel, for an account of which nothing is known.
    pub const fn careful(channel: Channel) -> Self {
        match channel {
            Channel::Linkedin => Self::LinkedinFree,
            Channel::Email => Self::MailGoogle,
            Channel::Whatsapp => Self::Whatsapp,
        }
    }
}

names! {
    /// What is counted.
    Kind {
        /// A LinkedIn invitation with a note. Counts as an invitation as well.
        InviteWithNote = "invite_with_note",
        /// A LinkedIn invitation, with a note or without.
        Invite = "invite",
        /// A LinkedIn message.
        Message = "message",
        /// A LinkedIn InMail.
        Inmail = "inmail",
        /// A look at a LinkedIn profile.
        ProfileVisit = "profile_visit",
        /// A mail.
        Mail = "mail",
        /// The first WhatsApp message to somebody. Counts as a message as well.
        WhatsappNewChat = "whatsapp_new_chat",
        /// A WhatsApp message, the first or another.
        WhatsappMessage = "whatsapp_message",
    }
}

impl Kind {
    /// The kinds whose limits this one uses up: its own, and of what it is a special case.
    pub const fn counts_as(self) -> &'static [Self] {
        match self {
            Self::InviteWithNote => &[Self::InviteWithNote, Self::Invite],
            Self::Invite => &[Self::Invite],
            Self::Message => &[Self::Message],
            Self::Inmail => &[Self::Inmail],
            Self::ProfileVisit => &[Self::ProfileVisit],
            Self::Mail => &[Self::Mail],
            Self::WhatsappNewChat => &[Self::WhatsappNewChat, Self::WhatsappMessage],
            Self::WhatsappMessage => &[Self::WhatsappMessage],
        }
    }

    /// What it is sent through.
    pub const fn channel(self) -> Channel {
        match self {
            Self::InviteWithNote | Self::Invite | Self::Message | Self::Inmail | Self::ProfileVisit => {
                Channel::Linkedin
            }
            Self::Mail => Channel::Email,
            Self::WhatsappNewChat | Self::WhatsappMessage => Channel::Whatsapp,
        }
    }

    /// Of an action that contacts somebody; `None` for one that does not. `has_text`: an invitation carries a note.
    /// `first`: nothing went to this person on the channel before.
    pub const fn of(action: Action, has_text: bool, first: bool) -> Option<Self> {
        match action {
            Action::SendLinkedinCr if has_text => Some(Self::InviteWithNote),
            Action::SendLinkedinCr => Some(Self::Invite),
            Action::SendLinkedinMessage => Some(Self::Message),
            Action::SendLinkedinInmail => Some(Self::Inmail),
            Action::VisitLinkedinProfile => Some(Self::ProfileVisit),
            Action::SendEmail => Some(Self::Mail),
            Action::SendWhatsapp if first => Some(Self::WhatsappNewChat),
            Action::SendWhatsapp => Some(Self::WhatsappMessage),
            Action::Wait => None,
        }
    }
}

/// How often something may be done. 0: not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// In any 24 hours.
    pub day: u32,
    /// In any 7 days.
    pub week: u32,
}

/// The least and the most time between two sends; which one in between derives from account and send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spacing {
    /// The least.
    pub min: Duration,
    /// The most.
    pub max: Duration,
}

/// How a new account grows into its daily limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WarmUp {
    /// What it may do of each kind on its first day, at least 1.
    pub start: u32,
    /// How it goes on.
    pub growth: Growth,
}

/// How a daily limit grows, day by day from the account's first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// By this much a day.
    PerDay(u32),
    /// Evenly, to be full after this many days.
    Days(u32),
}

/// What an account may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// What it is.
    pub kind: AccountKind,
    /// By kind; one that is missing has no limit of its own.
    pub limits: Vec<(Kind, Limit)>,
    /// Between two sends.
    pub spacing: Spacing,
    /// While it is new; `None`: the limits hold from the start.
    pub warm_up: Option<WarmUp>,
    /// When it works; `None`: always.
    pub hours: Option<Window>,
}

/// Whether something may be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes; note it in the history.
    Allowed {
        /// After it the account rests this long.
        next_gap: Duration,
    },
    /// Not now. It is worth asking again then, and not before, unless something is taken back.
    Wait {
        /// The earliest time at which it may be allowed; after now.
        until: Timestamp,
        /// Which rule says so.
        why: Why,
    },
    /// Not until the limits are changed: one of them is 0.
    Never {
        /// The kind with that limit.
        kind: Kind,
    },
}

/// Why something has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A brake: the provider said that a quota is used up or nearly so.
    Resting,
    /// It is not working time.
    Closed,
    /// As much was done in the last 24 hours as may be.
    DayFull {
        /// Of which kind.
        kind: Kind,
        /// The limit as it is today.
        limit: u32,
    },
    /// As much was done in the last 7 days as may be.
    WeekFull {
        /// Of which kind.
        kind: Kind,
        /// The limit.
        limit: u32,
    },
}

impl Budget {
    /// Whether an action of this kind may be done at `now`. `since` is when the account began, for its ramp.
    ///
    /// The answer is the same for the same arguments. What is allowed has to be noted by [`History::note`] in the commit that
    /// authorises it.
    pub fn decide(
        &self,
        history: &History,
        kind: Kind,
        (account, since): (AccountId, Timestamp),
        send: SendId,
        now: Timestamp,
    ) -> Decision {
        if let Some(kind) = kind.counts_as().iter().find(|k| self.limit(**k).is_some_and(|l| l.day == 0 || l.week == 0))
        {
            return Decision::Never { kind: *kind };
        }
        // Each rule only ever moves the time ahead, and none is broken by going later; so they are asked in turn until all agree.
        let (mut at, mut first) = (now, None);
        while let Some((later, why)) = self.obstacle(history, kind, since, at) {
            first.get_or_insert(why);
            if later <= at {
                // Cannot be: an obstacle ends after it began.
                break;
            }
            at = later;
        }
        match first {
            None => Decision::Allowed { next_gap: self.spacing.gap(account, send) },
            Some(why) => Decision::Wait { until: at, why },
        }
    }

    /// What stands in the way at a time, and when that is over as far as it can be told.
    fn obstacle(&self, history: &History, kind: Kind, since: Timestamp, at: Timestamp) -> Option<(Timestamp, Why)> {
        if let Some(until) = history.rests_until(kind).filter(|until| *until > at) {
            return Some((until, Why::Resting));
        }
        if let Some(open) = self.hours.as_ref().map(|w| w.next_open(at)).filter(|open| *open > at) {
            return Some((open, Why::Closed));
        }
        for kind in kind.counts_as() {
            let Some(limit) = self.limit(*kind) else { continue };
            if let Some(until) = history.room_in(*kind, WEEK, limit.week, at) {
                return Some((until, Why::WeekFull { kind: *kind, limit: limit.week }));
            }
            let today = self.today(limit.day, since, at);
            if let Some(mut until) = history.room_in(*kind, DAY, today, at) {
                if today < limit.day {
                    until = until.min(next_day(since, at));
                }
                return Some((until, Why::DayFull { kind: *kind, limit: today }));
            }
        }
        None
    }

    /// The limit of a kind; `None`: it has none.
    pub fn limit(&self, kind: Kind) -> Option<Limit> {
        self.limits.iter().find(|(k, _)| *k == kind).map(|(_, limit)| *limit)
    }

    /// The share that is left of the daily limit that is used up most, from 1 to 0; a kind that rests has nothing left. 1 for a
    /// budget without limits.
    pub fn left(&self, history: &History, since: Timestamp, at: Timestamp) -> f64 {
        let left = |(kind, limit): &(Kind, Limit)| {
            let today = self.today(limit.day, since, at);
            if history.rests_until(*kind).is_some_and(|until| until > at) {
                return 0.0;
            }
            f64::from(today.saturating_sub(history.count(*kind, DAY, at))) / f64::from(today)
        };
        // What an account never does is not used up.
        self.limits.iter().filter(|(_, limit)| limit.day > 0).map(left).fold(1.0, f64::min)
    }

    /// A daily limit on the day of `at`, counted in whole days from the account's first.
    pub fn today(&self, full: u32, since: Timestamp, at: Timestamp) -> u32 {
        let Some(warm_up) = self.warm_up else { return full };
        let day = u32::try_from(at.since(since).as_secs() / DAY.as_secs()).unwrap_or(u32::MAX);
        let start = warm_up.start.max(1).min(full);
        let grown = match warm_up.growth {
            Growth::PerDay(more) => start.saturating_add(more.saturating_mul(day)),
            Growth::Days(days) if day >= days => full,
            // In between: `day < days`, so days is not 0.
            Growth::Days(days) => {
                let part = u64::from(full - start) * u64::from(day) / u64::from(days.max(1));
                start.saturating_add(u32::try_from(part).unwrap_or(u32::MAX))
            }
        };
        grown.min(full)
    }
}

/// When the account's next day begins.
fn next_day(since: Timestamp, at: Timestamp) -> Timestamp {
    let days = u32::try_from(at.since(since).as_secs() / DAY.as_secs()).unwrap_or(u32::MAX);
    if at < since { since + DAY } else { since + DAY.saturating_mul(days.saturating_add(1)) }
}

impl Spacing {
    /// The rest after a send: the same for the same arguments, spread evenly over the range between others.
    pub fn gap(&self, account: AccountId, send: SendId) -> Duration {
        let range = self.max.saturating_sub(self.min);
        // FNV-1a over the arguments, as in `retry`, and one more mixing: of FNV's own bits the high ones alone are good.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in account.0.as_bytes().iter().chain(send.0.as_bytes()) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let millis = u64::try_from(range.as_millis()).unwrap_or(u64::MAX - 1);
        self.min + Duration::from_millis((hash >> 8) % (millis + 1))
    }
}

/// What the provider's word about the used part of a limit means, in percent (it tells 50, 75, 90 and 95): how long to rest.
/// `None`: go on.
pub fn rest_after_usage(percent: u32) -> Option<Duration> {
    match percent {
        0..75 => None,
        75..90 => Some(Duration::from_secs(3600)),
        90..95 => Some(Duration::from_secs(6 * 3600)),
        _ => Some(QUOTA_REST),
    }
}
