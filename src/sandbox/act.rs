//! What people do when their time has come. `World::run_due` calls this, and `POST /sandbox/act` does directly.

use serde_json::json;

use super::mailbox::Mailbox;
use super::options::AccountKind;
use super::people::Place;
use super::text::{iso, number};
use super::world::{Event, Link, World};

const REPLIES: [&str; 5] = [
    "Thanks for reaching out, tell me more.",
    "Interesting. Can we talk next week?",
    "Not for me right now, maybe later.",
    "Sure, send me the details.",
    "Who else is using this?",
];

/// An act of a person (or of the provider) towards an account.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// Accepts the invitation with this id, if it is still pending.
    Accept { account: usize, person: usize, invitation: String },
    /// Answers the latest message or mail.
    Reply { account: usize, person: usize },
    /// The mail with this number comes back.
    Bounce { mail: u64 },
    /// The mail with this number is opened.
    Open { mail: u64 },
    /// The provider notices a new relation.
    NewRelation { account: usize, person: usize },
}

impl Act {
    pub(super) fn run(self, w: &mut World) {
        match self {
            Self::Accept { account, person, invitation } => {
                if matches!(w.links.get(&(account, person)), Some(Link::Pending { id, .. }) if *id == invitation) {
                    w.accept(account, person);
                }
            }
            Self::Reply { account, person } => {
                w.reply(account, person, None);
            }
            Self::Bounce { mail } => {
                w.bounce(mail);
            }
            Self::Open { mail } => w.open(mail),
            Self::NewRelation { account, person } => w.tell_relation(account, person),
        }
    }
}

impl World {
    /// The person accepts the account's pending invitation. A note becomes the first message of a chat. `false`: none pending.
    pub(super) fn accept(&mut self, account: usize, person: usize) -> bool {
        let number = self.number();
        let at = self.now;
        let Some(link) = self.links.get_mut(&(account, person)) else { return false };
        let Link::Pending { id, note, .. } = link else { return false };
        let (id, note) = (std::mem::take(id), note.take());
        *link = Link::Connected { at, number };
        self.invitations.remove(&id);
        let late = self.chance();
        self.later(self.opts.new_relation_delay_max.mul_f64(late), Act::NewRelation { account, person });
        if note.is_some() {
            let chat = self.chat_with(account, person);
            self.say(chat, true, note, None, false);
        }
        true
    }

    fn tell_relation(&mut self, account: usize, person: usize) {
        let them = &self.people[person];
        let body = json!({
            "event": "new_relation", "account_id": self.accounts[account].id, "account_type": "LINKEDIN",
            "webhook_name": "", "user_full_name": them.full_name(), "user_provider_id": them.provider_id,
            "user_public_identifier": them.identity, "user_profile_url": them.profile_url(), "user_picture_url": null,
        });
        self.emit(Event { source: "users", name: "new_relation", account, body });
    }

    /// The person answers in the chat, or by mail. `false`: nothing to answer.
    pub(super) fn reply(&mut self, account: usize, person: usize, text: Option<String>) -> bool {
        let them = self.people[person].clone();
        let choice = number(self.opts.seed, &[&them.identity, "reply"]) % REPLIES.len() as u64;
        let text = text.unwrap_or_else(|| REPLIES[usize::try_from(choice).unwrap_or(0)].to_owned());
        if them.place == Place::Mail {
            let Some(parent) = self.last_mail_to(account, &them.identity) else { return false };
            let subject = match parent.subject.get(..3) {
                Some(start) if start.eq_ignore_ascii_case("re:") => parent.subject.clone(),
                _ => format!("Re: {}", parent.subject),
            };
            let from = Mailbox::new(them.full_name(), &them.identity);
            self.mail_in(&parent, from, subject, format!("<p>{text}</p>"));
        } else {
            // A relation may write first; a stranger has no chat to write in.
            let related = matches!(self.links.get(&(account, person)), Some(Link::Connected { .. }));
            if !related && !self.chat_of.contains_key(&(account, person)) {
                return false;
            }
            let chat = self.chat_with(account, person);
            self.say(chat, false, Some(text), None, false);
        }
        let them = &mut self.people[person];
        them.reply_set = true;
        them.replied = true;
        true
    }

    /// A mail of ours comes back from the receiver's mail server. `false`: no such mail.
    pub(super) fn bounce(&mut self, mail: u64) -> bool {
        let Some(parent) = self.mails.get(mail).cloned() else { return false };
        let failed = parent.to.first().map(|m| m.address.clone()).unwrap_or_default();
        let body = format!(
            "<p>Address not found</p><p>Your message wasn't delivered to {failed} because the address couldn't be found, \
             or is unable to receive mail.</p><p>The response from the remote server was:</p><p>550 5.1.1 The email \
             account that you tried to reach does not exist. Final-Recipient: rfc822; {failed}</p>"
        );
        let from = Mailbox::new("Mail Delivery Subsystem", "mailer-daemon@googlemail.com");
        self.mail_in(&parent, from, "Delivery Status Notification (Failure)".to_owned(), body);
        true
    }

    fn open(&mut self, mail: u64) {
        let event_id = self.new_id();
        let Some(mail) = self.mails.get(mail) else { return };
        let account = mail.account;
        let body = json!({
            "event": "mail_opened", "event_id": event_id, "webhook_name": "", "tracking_id": mail.tracking_id,
            "date": iso(self.now), "email_id": mail.id, "account_id": self.accounts[account].id,
            "ip": "192.0.2.7", "user_agent": "Mozilla/5.0", "label": mail.label, "custom_domain": null,
        });
        self.emit(Event { source: "email_tracking", name: "mail_opened", account, body });
    }

    /// The accounts of a person's channel (`only` that one, if given), the one last in touch first: for `POST /sandbox/act`.
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
            .filter(|&a| self.accounts[a].kind == kind && only.is_none_or(|o| o == a))
            .collect();
        near.sort_by_key(|a| std::cmp::Reverse(touched(a)));
        near
    }
}
