//! What people did, in the order they did it: the other half of the truth, beside the ledger of what was sent to them.

use serde::Serialize;

use super::ledger::real_now;
use super::world::World;

/// One thing somebody did.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Deed {
    pub(super) seq: u64,
    /// By the sandbox's clock.
    pub(super) at: String,
    pub(super) real_at: String,
    /// `accept`, `decline`, `invite`, `reply`, `bounce`, `soft_bounce`, `out_of_office`, `open`, `click`, `unsubscribe`,
    /// `scan`, `deliver`, `read`, `react`, `edit`, `delete`; `by_hand` is the account's owner.
    pub(super) kind: &'static str,
    pub(super) account_id: String,
    pub(super) place: &'static str,
    /// Slug, address or digits of the person.
    pub(super) identity: String,
    pub(super) text: Option<String>,
    /// Id of the chat message, RFC id of the mail, or id of the invitation it made or was about.
    pub(super) about: Option<String>,
    pub(super) url: Option<String>,
    /// What that URL answered; null until it has, and when it never did.
    pub(super) status: Option<u16>,
    /// Real microseconds since 1970 at which the first webhook about it was answered 200, or its URL with success.
    pub(super) acknowledged_at: Option<i64>,
}

/// What became of something the courier took away.
pub(super) enum Outcome {
    /// A webhook about this deed was answered 200 at these real microseconds.
    Acknowledged { deed: u64, at: i64 },
    /// The URL of this deed answered.
    Answered { deed: u64, status: u16, at: i64 },
}

impl World {
    /// Writes down that a person did something; gives its number.
    pub(super) fn deed(&mut self, kind: &'static str, account: usize, person: usize, text: Option<String>) -> u64 {
        let number = self.deeds.next();
        let them = &self.people[person];
        self.deeds.push(Deed {
            seq: number + 1,
            at: self.now.to_string(),
            real_at: real_now().to_string(),
            kind,
            account_id: self.accounts[account].id.clone(),
            place: them.place.as_str(),
            identity: them.identity.clone(),
            text,
            about: None,
            url: None,
            status: None,
            acknowledged_at: None,
        });
        number
    }

    /// Adds what a deed made or was about.
    pub(super) fn about(&mut self, deed: u64, about: &str) {
        if let Some(deed) = self.deeds.get_mut(deed) {
            deed.about = Some(about.to_owned());
        }
    }

    pub(super) fn note(&mut self, outcome: &Outcome) {
        match *outcome {
            Outcome::Acknowledged { deed, at } => {
                if let Some(deed) = self.deeds.get_mut(deed) {
                    deed.acknowledged_at.get_or_insert(at);
                }
            }
            Outcome::Answered { deed, status, at } => {
                if let Some(deed) = self.deeds.get_mut(deed) {
                    deed.status = Some(status);
                    if (200..300).contains(&status) {
                        deed.acknowledged_at.get_or_insert(at);
                    }
                }
            }
        }
    }
}
