//! What people do when their time has come. `World::run_due` calls this, and the control API does directly (`orders`).

use std::time::Duration;

use serde_json::json;

use super::conduct::Bounce;
use super::mailbox::{Answering, Mailbox};
use super::options::AccountKind;
use super::people::Place;
use super::talk::{By, Words};
use super::text::{number, opaque, unit};
use super::webhooks::Delivery;
use super::world::{Event, Link, World};

const REPLIES: [&str; 5] = [
    "Thanks for reaching out, tell me more.",
    "Interesting. Can we talk next week?",
    "Not for me right now, maybe later.",
    "Sure, send me the details.",
    "Who else is using this?",
];

/// Something that happens to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageAct {
    /// To one of ours.
    Deliver,
    /// To one of ours.
    Read,
    /// To one of ours.
    React,
    /// To one of theirs.
    Edit,
    /// To one of theirs.
    Delete,
}

/// Something that comes of a mail of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MailAct {
    Bounce(Bounce),
    OutOfOffice,
    Open,
    Click,
    Unsubscribe,
    Scan,
}

/// An act of a person (or of the provider) towards an account. `plan` is that of the person when it was set off: if they
/// were given another since, it does not happen.
pub(super) enum Act {
    /// Accepts the invitation with this id, if it is still pending.
    Accept { account: usize, person: usize, invitation: String, plan: u32 },
    /// Declines it.
    Decline { account: usize, person: usize, invitation: String, plan: u32 },
    /// Answers the latest message or mail.
    Reply { account: usize, person: usize, plan: u32 },
    /// The account's owner writes to them in the app.
    ByHand { account: usize, person: usize, plan: u32 },
    /// Something comes of the mail with this number to a person.
    Mail { what: MailAct, mail: u64, person: usize },
    /// Something happens to the message with this number.
    Message { what: MessageAct, message: u64 },
    /// The provider notices a new relation.
    NewRelation { account: usize, person: usize, deed: Option<u64> },
    /// A disconnected account is back.
    Reconnect { account: usize },
    /// A webhook that was held on the clock.
    Deliver(Delivery),
}

impl Act {
    pub(super) fn run(self, w: &mut World) {
        match self {
            Self::Accept { account, person, invitation, plan } => {
                if w.is_pending(account, person, &invitation) && w.people[person].plan == plan {
                    w.accept(account, person);
                }
            }
            Self::Decline { account, person, invitation, plan } => {
                if w.is_pending(account, person, &invitation) && w.people[person].plan == plan {
                    w.decline(account, person);
                }
            }
            Self::Reply { account, person, plan } => {
                if w.people[person].plan == plan {
                    w.reply(account, person, None);
                }
            }
            Self::ByHand { account, person, plan } => {
                if w.people[person].plan == plan {
                    w.by_hand(account, person, None);
                }
            }
            Self::Mail { what, mail, person } => {
                w.mail_act(what, mail, person, None);
            }
            Self::Message { what, message } => {
                w.message_act(what, message, None);
            }
            Self::NewRelation { account, person, deed } => w.tell_relation(account, person, deed),
            Self::Reconnect { account } => {
                w.set_status(account, "OK");
            }
            Self::Deliver(delivery) => w.outbox.push(delivery),
        }
    }
}

impl World {
    fn is_pending(&self, account: usize, person: usize, invitation: &str) -> bool {
        matches!(self.links.get(&(account, person)), Some(Link::Pending { id, .. }) if id == invitation)
    }

    /// An invitation has reached somebody: what they will do about it, so long after `ago`.
    pub(super) fn invitation_sets_off(&mut self, account: usize, person: usize, invitation: &str, ago: Duration) {
        let them = &self.people[person];
        let (conduct, plan) = (&them.conduct, them.plan);
        let (accept, decline) = (conduct.accept_after, conduct.decline_after);
        let invitation = invitation.to_owned();
        if let Some(after) = accept {
            self.later(after.saturating_sub(ago), Act::Accept { account, person, invitation, plan });
        } else if let Some(after) = decline {
            self.later(after.saturating_sub(ago), Act::Decline { account, person, invitation, plan });
        }
    }

    /// The person accepts the account's pending invitation. A note becomes the first message of a chat. `false`: none pending.
    pub(super) fn accept(&mut self, account: usize, person: usize) -> bool {
        let Some(Link::Pending { id, note, .. }) = self.links.get_mut(&(account, person)) else { return false };
        let (id, note) = (std::mem::take(id), note.take());
        let deed = self.deed("accept", account, person, None);
        self.about(deed, &id);
        self.connect(account, person, &id, Some(deed));
        if note.is_some() {
            let chat = self.chat_with(account, person);
            self.say(chat, Words { deed: Some(deed), ..Words::of(By::Us, note) });
            self.about(deed, &id);
        }
        true
    }

    /// Two become relations; the provider notices some time later.
    pub(super) fn connect(&mut self, account: usize, person: usize, invitation: &str, deed: Option<u64>) {
        let number = self.number();
        self.links.insert((account, person), Link::Connected { at: self.now, number });
        self.invitations.remove(invitation);
        let late = unit(self.opts.seed, &["relation delay", &self.pair(account, person)]);
        self.later(self.opts.new_relation_delay_max.mul_f64(late), Act::NewRelation { account, person, deed });
    }

    /// The person declines it: it vanishes. `false`: none pending.
    pub(super) fn decline(&mut self, account: usize, person: usize) -> bool {
        let Some(Link::Pending { id, .. }) = self.links.get(&(account, person)) else { return false };
        let id = id.clone();
        let deed = self.deed("decline", account, person, None);
        self.about(deed, &id);
        self.links.insert((account, person), Link::Declined { at: self.now });
        self.invitations.remove(&id);
        true
    }

    /// A stranger invites the account. `false`: they are no strangers.
    pub(super) fn invited_by(&mut self, account: usize, person: usize, note: Option<String>) -> bool {
        let stranger = !matches!(
            self.links.get(&(account, person)),
            Some(Link::Pending { .. } | Link::Received { .. } | Link::Connected { .. })
        );
        if !stranger || self.people[person].place != Place::LinkedIn {
            return false;
        }
        let (own, who) = (self.accounts[account].id.clone(), self.people[person].provider_id.clone());
        let id = self.invitation_id(&["received", &own, &who]);
        let secret = opaque(&super::text::digest(self.opts.seed, &["secret", &id]), 8);
        let deed = self.deed("invite", account, person, note.clone());
        self.about(deed, &id);
        let number = self.number();
        self.invitations.insert(id.clone(), (account, person));
        self.links.insert((account, person), Link::Received { id, number, at: self.now, note, secret });
        true
    }

    /// A number like LinkedIn's: 19 digits.
    pub(super) fn invitation_id(&mut self, words: &[&str]) -> String {
        let d = self.unique(words);
        let number = u64::from_be_bytes([d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]);
        (7_400_000_000_000_000_000 + number % 90_000_000_000_000_000).to_string()
    }

    fn tell_relation(&mut self, account: usize, person: usize, deed: Option<u64>) {
        let pair = self.pair(account, person);
        let key = self.unique_key(&["new_relation", &pair]);
        let them = &self.people[person];
        let body = json!({
            "event": "new_relation", "account_id": self.accounts[account].id, "account_type": "LINKEDIN",
            "webhook_name": "", "user_full_name": them.full_name(), "user_provider_id": them.provider_id,
            "user_public_identifier": them.identity, "user_profile_url": them.profile_url(), "user_picture_url": null,
        });
        self.emit(Event { source: "users", name: "new_relation", account, body, key, deed });
    }

    /// The person answers in the chat, or by mail. `false`: nothing to answer.
    pub(super) fn reply(&mut self, account: usize, person: usize, text: Option<String>) -> bool {
        let them = self.people[person].clone();
        let choice = number(self.opts.seed, &[&them.identity, "reply"]) % REPLIES.len() as u64;
        let text = text
            .or_else(|| them.conduct.reply_text.clone())
            .unwrap_or_else(|| REPLIES[usize::try_from(choice).unwrap_or(0)].to_owned());
        let deed;
        if them.place == Place::Mail {
            let Some(parent) = self.last_mail_to(account, &them.identity) else { return false };
            deed = self.deed("reply", account, person, Some(text.clone()));
            let answer = Answering {
                from: Mailbox::new(them.full_name(), &them.identity),
                to: parent.answered_to(),
                subject: re(&parent.subject),
                body: format!("<p>{text}</p>"),
                threaded: them.conduct.threaded,
                headers: Vec::new(),
                deed,
            };
            self.mail_in(&parent, answer);
        } else {
            // A relation may write first; a stranger has no chat to write in.
            let related = matches!(self.links.get(&(account, person)), Some(Link::Connected { .. }));
            if !related && !self.chat_of.contains_key(&(account, person)) {
                return false;
            }
            deed = self.deed("reply", account, person, Some(text.clone()));
            let chat = self.chat_with(account, person);
            let message = self.say(chat, Words { deed: Some(deed), ..Words::of(By::Them, Some(text)) });
            for (after, what) in
                [(them.conduct.edit_after, MessageAct::Edit), (them.conduct.delete_after, MessageAct::Delete)]
            {
                if let Some(after) = after {
                    self.later(after, Act::Message { what, message });
                }
            }
        }
        self.people[person].replied = true;
        true
    }

    /// The account's owner writes to the person in the app, not over the API. `false`: there is no way to.
    pub(super) fn by_hand(&mut self, account: usize, person: usize, text: Option<String>) -> bool {
        let them = self.people[person].clone();
        let text = text.unwrap_or_else(|| format!("Hi {}, it is me in person.", them.first_name));
        if them.place == Place::Mail {
            let Some(parent) = self.last_mail_to(account, &them.identity) else { return false };
            let deed = self.deed("by_hand", account, person, Some(text.clone()));
            let to = Mailbox::new(them.full_name(), &them.identity);
            self.mail_by_hand(&parent, to, re(&parent.subject), format!("<p>{text}</p>"), deed);
        } else {
            if !self.may_write(account, person) {
                return false;
            }
            let deed = self.deed("by_hand", account, person, Some(text.clone()));
            let chat = self.chat_with(account, person);
            self.say(chat, Words { deed: Some(deed), ..Words::of(By::Hand, Some(text)) });
        }
        self.people[person].hand_wrote = true;
        true
    }

    /// The accounts of a person's channel (`only` that one, if given), the one last in touch first: for orders.
    pub(super) fn accounts_near(&self, person: usize, only: Option<usize>) -> Vec<usize> {
        let them = &self.people[person];
        let kind = match them.place {
            Place::LinkedIn => AccountKind::LinkedIn,
            Place::Mail => AccountKind::Mail,
            Place::Phone => AccountKind::WhatsApp,
        };
        let touched = |a: &usize| match them.place {
            Place::Mail => self.last_mail_to(*a, &them.identity).map(|m| m.at),
            _ => self.chat_of.get(&(*a, person)).map(|&c| self.chats[c].updated),
        };
        let mut near: Vec<usize> = (0..self.accounts.len())
            .filter(|&a| self.accounts[a].kind == kind && !self.accounts[a].deleted && only.is_none_or(|o| o == a))
            .collect();
        near.sort_by_key(|a| std::cmp::Reverse(touched(a)));
        near
    }
}

/// The subject of an answer.
pub(super) fn re(subject: &str) -> String {
    match subject.get(..3) {
        Some(start) if start.eq_ignore_ascii_case("re:") => subject.to_owned(),
        _ => format!("Re: {subject}"),
    }
}
