//! How people behave as a crowd: shares and delays. What one person does is in `conduct`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::span;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// How people behave. Shares are 0..=1; durations are of the sandbox's clock. A delay whose shortest time is not given is
/// drawn from zero.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// Share of people who accept an invitation.
    pub accept_share: f64,
    /// Mean of the (exponential) time until somebody accepts.
    #[serde(with = "span::needed")]
    pub accept_mean: Duration,
    /// Longest time until somebody accepts.
    #[serde(with = "span::needed")]
    pub accept_max: Duration,
    /// Of those who do not accept, the share who decline.
    pub decline_share: f64,
    /// Longest time until somebody declines.
    #[serde(with = "span::needed")]
    pub decline_max: Duration,
    /// Share of people who reply, once, to the first message or mail.
    pub reply_share: f64,
    /// Shortest time until a reply.
    #[serde(with = "span::needed")]
    pub reply_min: Duration,
    /// Longest time until a reply.
    #[serde(with = "span::needed")]
    pub reply_max: Duration,
    /// Share of mail addresses that bounce for good (5.1.1).
    pub bounce_share: f64,
    /// Share of mail addresses whose mailbox is full (4.2.2).
    pub soft_bounce_share: f64,
    /// Longest time until a bounce comes back.
    #[serde(with = "span::needed")]
    pub bounce_max: Duration,
    /// Of bounces and mailed replies, the share that carry no `in_reply_to` and start a thread of their own.
    pub unthreaded_share: f64,
    /// Share of mail addresses that answer every mail by themselves: out of office.
    pub out_of_office_share: f64,
    /// Longest time until such an answer.
    #[serde(with = "span::needed")]
    pub out_of_office_max: Duration,
    /// Share of mail addresses that open a mail sent with `tracking_options.opens`.
    pub open_share: f64,
    /// Longest time until a mail is opened.
    #[serde(with = "span::needed")]
    pub open_max: Duration,
    /// Share of mail addresses that follow a link of a mail sent with `tracking_options.links`.
    pub click_share: f64,
    /// Longest time until a link is followed.
    #[serde(with = "span::needed")]
    pub click_max: Duration,
    /// Share of mail addresses that unsubscribe by the one-click header of a mail.
    pub unsubscribe_share: f64,
    /// Longest time until somebody unsubscribes.
    #[serde(with = "span::needed")]
    pub unsubscribe_max: Duration,
    /// Share of mail addresses behind a scanner that asks for the unsubscribe link with GET.
    pub scanner_share: f64,
    /// Longest time until a scanner does.
    #[serde(with = "span::needed")]
    pub scanner_max: Duration,
    /// Share of people who read our messages, with a read receipt.
    pub read_share: f64,
    /// Longest time until a message is read.
    #[serde(with = "span::needed")]
    pub read_max: Duration,
    /// Share of phones that report delivery.
    pub deliver_share: f64,
    /// Longest time until a message is delivered.
    #[serde(with = "span::needed")]
    pub deliver_max: Duration,
    /// Share of people who react to our messages.
    pub react_share: f64,
    /// Share of people who edit their reply.
    pub edit_share: f64,
    /// Share of people who delete their reply.
    pub delete_share: f64,
    /// Longest time until a reaction, an edit or a deletion.
    #[serde(with = "span::needed")]
    pub react_max: Duration,
    /// Share of people to whom the account's owner writes by hand, in the app, after our first message or mail.
    pub by_hand_share: f64,
    /// Longest time until the owner writes.
    #[serde(with = "span::needed")]
    pub by_hand_max: Duration,
    /// Share of phones that are seen as `…@lid` only, with a hidden number.
    pub lid_only_share: f64,
    /// Share of numbers that have no WhatsApp.
    pub unreachable_share: f64,
    /// Share of LinkedIn members with an open profile: `InMail` to them costs nothing.
    pub open_profile_share: f64,
    /// Share of LinkedIn members who take no `InMail`.
    pub no_inmail_share: f64,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            accept_share: 0.45,
            accept_mean: 10 * HOUR,
            accept_max: 60 * HOUR,
            decline_share: 0.0,
            decline_max: 24 * HOUR,
            reply_share: 0.15,
            reply_min: HOUR,
            reply_max: 12 * HOUR,
            bounce_share: 0.04,
            soft_bounce_share: 0.0,
            bounce_max: MINUTE,
            unthreaded_share: 0.0,
            out_of_office_share: 0.0,
            out_of_office_max: 2 * MINUTE,
            open_share: 0.4,
            open_max: HOUR,
            click_share: 0.0,
            click_max: 2 * HOUR,
            unsubscribe_share: 0.0,
            unsubscribe_max: 12 * HOUR,
            scanner_share: 0.0,
            scanner_max: MINUTE,
            read_share: 0.0,
            read_max: 4 * HOUR,
            deliver_share: 0.0,
            deliver_max: MINUTE,
            react_share: 0.0,
            edit_share: 0.0,
            delete_share: 0.0,
            react_max: HOUR,
            by_hand_share: 0.0,
            by_hand_max: 6 * HOUR,
            lid_only_share: 0.0,
            unreachable_share: 0.0,
            open_profile_share: 0.0,
            no_inmail_share: 0.0,
        }
    }
}

impl Behaviour {
    /// People as they are: some of everything.
    pub fn lifelike() -> Self {
        Self {
            decline_share: 0.2,
            soft_bounce_share: 0.01,
            unthreaded_share: 0.2,
            out_of_office_share: 0.05,
            click_share: 0.08,
            unsubscribe_share: 0.02,
            scanner_share: 0.15,
            read_share: 0.6,
            deliver_share: 0.95,
            react_share: 0.05,
            edit_share: 0.02,
            delete_share: 0.01,
            by_hand_share: 0.03,
            lid_only_share: 0.2,
            unreachable_share: 0.08,
            open_profile_share: 0.1,
            no_inmail_share: 0.1,
            ..Self::default()
        }
    }

    /// People who do nothing by themselves, but can be told to.
    pub fn still() -> Self {
        Self { accept_share: 0.0, reply_share: 0.0, bounce_share: 0.0, open_share: 0.0, ..Self::default() }
    }
}
