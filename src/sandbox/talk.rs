//! Chats and their messages, LinkedIn and WhatsApp alike: how they come about and what happens to them. How they look is in
//! `talk_json`.

use serde_json::{Value, json};

use super::act::{Act, MessageAct};
use super::options::AccountKind;
use super::text;
use super::world::{Event, Link, World};
use crate::domain::time::Timestamp;

/// A conversation of one account with one person.
pub(super) struct Chat {
    pub(super) id: String,
    pub(super) provider_id: String,
    pub(super) account: usize,
    pub(super) person: usize,
    pub(super) updated: Timestamp,
    /// Numbers of its messages, oldest first.
    pub(super) messages: Vec<u64>,
    /// Theirs since we last wrote.
    pub(super) unread: u32,
    /// Whether they have ever written in it.
    pub(super) answered: bool,
    /// `InMail`s of ours they have not answered.
    pub(super) inmails_open: u32,
}

/// Who wrote a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum By {
    /// The API, or the note of an invitation that was sent by it.
    #[default]
    Us,
    /// The account's owner, in the app.
    Hand,
    /// The person.
    Them,
}

/// What is said.
#[derive(Default)]
pub(super) struct Words {
    pub(super) by: By,
    pub(super) text: Option<String>,
    pub(super) subject: Option<String>,
    pub(super) inmail: bool,
    pub(super) attachments: Vec<Value>,
    /// Id of the message being quoted.
    pub(super) quoted: Option<String>,
    pub(super) deed: Option<u64>,
}

impl Words {
    pub(super) fn of(by: By, text: Option<String>) -> Self {
        Self { by, text, ..Self::default() }
    }
}

/// One message.
pub(super) struct Message {
    pub(super) number: u64,
    pub(super) id: String,
    /// The same in every run.
    pub(super) key: String,
    pub(super) provider_id: String,
    pub(super) chat: usize,
    pub(super) by: By,
    pub(super) text: Option<String>,
    pub(super) subject: Option<String>,
    pub(super) at: Timestamp,
    pub(super) inmail: bool,
    pub(super) attachments: Vec<Value>,
    pub(super) quoted: Option<String>,
    pub(super) seen_at: Option<Timestamp>,
    pub(super) delivered: bool,
    pub(super) edited: bool,
    pub(super) deleted: bool,
    pub(super) reaction: Option<String>,
}

impl Message {
    pub(super) fn ours(&self) -> bool {
        self.by != By::Them
    }
}

impl World {
    /// The chat of an account with a person, made when there is none.
    pub(super) fn chat_with(&mut self, account: usize, person: usize) -> usize {
        if let Some(&chat) = self.chat_of.get(&(account, person)) {
            return chat;
        }
        let (own, who) = (self.accounts[account].id.clone(), self.people[person].provider_id.clone());
        let id = self.new_id(&["chat", &own, &who]);
        let whatsapp = self.accounts[account].kind == AccountKind::WhatsApp;
        let provider_id = if whatsapp {
            self.people[person].lid.clone()
        } else {
            format!("2-{}", text::opaque(&text::digest(self.opts.seed, &["thread", &own, &who]), 40))
        };
        let chat = self.chats.len();
        self.chat_ids.insert(id.clone(), chat);
        // A WhatsApp thread is named after the person, so only one account's can be found by it.
        self.chat_ids.entry(provider_id.clone()).or_insert(chat);
        self.chat_of.insert((account, person), chat);
        for who in [Some(person), None] {
            self.attendees.insert(self.attendee_id(account, who), (account, who));
        }
        self.chats.push(Chat {
            id,
            provider_id,
            account,
            person,
            updated: self.now,
            messages: Vec::new(),
            unread: 0,
            answered: false,
            inmails_open: 0,
        });
        chat
    }

    /// Whether a plain message may be written to somebody: WhatsApp always, LinkedIn to relations and to those who answered.
    pub(super) fn may_write(&self, account: usize, person: usize) -> bool {
        self.accounts[account].kind == AccountKind::WhatsApp
            || matches!(self.links.get(&(account, person)), Some(Link::Connected { .. }))
            || self.chat_of.get(&(account, person)).is_some_and(|c| self.chats[*c].answered)
    }

    /// Adds a message to a chat and tells the webhooks; one of ours may set the person off. Gives the message's number.
    pub(super) fn say(&mut self, chat: usize, words: Words) -> u64 {
        let (account, person) = (self.chats[chat].account, self.chats[chat].person);
        let pair = self.pair(account, person);
        let chat_id = self.chats[chat].id.clone();
        let (id, key) = (self.new_id(&["message", &chat_id]), self.unique_key(&["message of", &pair]));
        let provider_id = format!("2-{}", text::opaque(&text::digest(self.opts.seed, &["provider", &id]), 40));
        let number = self.messages.next();
        let Words { by, text, subject, inmail, attachments, quoted, deed } = words;
        let message = Message {
            number,
            id: id.clone(),
            key,
            provider_id,
            chat,
            by,
            text,
            subject,
            at: self.now,
            inmail,
            attachments,
            quoted,
            seen_at: None,
            delivered: self.accounts[account].kind == AccountKind::LinkedIn,
            edited: false,
            deleted: false,
            reaction: None,
        };
        if let Some(deed) = deed {
            self.about(deed, &id);
        }
        self.message_ids.insert(id, number);
        if let Some(old) = self.messages.push(message) {
            self.message_ids.remove(&old.id);
            let list = &mut self.chats[old.chat].messages;
            if list.first() == Some(&old.number) {
                list.remove(0);
            }
        }
        let talk = &mut self.chats[chat];
        talk.messages.push(number);
        talk.updated = self.now;
        if by == By::Them {
            talk.unread += 1;
            talk.answered = true;
            // LinkedIn gives the credit of an answered InMail back.
            let back = std::mem::take(&mut talk.inmails_open);
            self.accounts[account].credits += back;
        } else {
            talk.unread = 0;
            talk.inmails_open += u32::from(inmail);
        }
        self.tell_message("message_received", number, &json!({}), deed);
        if by == By::Us {
            self.message_sets_off(account, person, number);
        }
        number
    }

    /// Tells webhooks of something that happened to a message; `more` is added to its envelope.
    pub(super) fn tell_message(&mut self, name: &'static str, number: u64, more: &Value, deed: Option<u64>) {
        let Some(message) = self.messages.get(number) else { return };
        let (mut body, key) = (self.message_event(message), message.key.clone());
        let account = self.chats[message.chat].account;
        body["event"] = json!(name);
        super::settings::merge(&mut body, more);
        self.emit(Event { source: "messaging", name, account, body, key, deed });
    }

    /// What a message of ours makes its receiver, and their phone, do.
    fn message_sets_off(&mut self, account: usize, person: usize, message: u64) {
        let conduct = &self.people[person].conduct;
        let acts = [
            (conduct.deliver_after, MessageAct::Deliver),
            (conduct.read_after, MessageAct::Read),
            (conduct.react_after, MessageAct::React),
        ];
        for (after, what) in acts {
            if let Some(after) = after {
                self.later(after, Act::Message { what, message });
            }
        }
        self.contact_sets_off(account, person);
    }

    /// What any message or mail of ours sets off: a reply, as often as is in their nature, and once the owner's own hand.
    pub(super) fn contact_sets_off(&mut self, account: usize, person: usize) {
        let them = &mut self.people[person];
        let plan = them.plan;
        let reply = them.conduct.reply_after.filter(|_| them.replies_set < them.conduct.replies_max);
        let hand = them.conduct.by_hand_after.filter(|_| !them.hand_set);
        them.replies_set += u32::from(reply.is_some());
        them.hand_set |= hand.is_some();
        if let Some(after) = reply {
            self.later(after, Act::Reply { account, person, plan });
        }
        if let Some(after) = hand {
            self.later(after, Act::ByHand { account, person, plan });
        }
    }

    /// Something happens to a message. `false`: there is nothing it could happen to.
    pub(super) fn message_act(&mut self, what: MessageAct, number: u64, text: Option<String>) -> bool {
        let now = self.now;
        let Some(message) = self.messages.get_mut(number) else { return false };
        let ours = message.ours();
        let fits = match what {
            MessageAct::Deliver => ours && !message.delivered,
            MessageAct::Read => ours && message.seen_at.is_none(),
            MessageAct::React => ours,
            MessageAct::Edit | MessageAct::Delete => !ours && !message.deleted,
        };
        if !fits {
            return false;
        }
        let (name, kind) = match what {
            MessageAct::Deliver => {
                message.delivered = true;
                ("message_delivered", "deliver")
            }
            MessageAct::Read => {
                message.delivered = true;
                message.seen_at = Some(now);
                ("message_read", "read")
            }
            MessageAct::React => {
                message.reaction = Some(text.unwrap_or_else(|| "👍".to_owned()));
                ("message_reaction", "react")
            }
            MessageAct::Edit => {
                let old = message.text.take().unwrap_or_default();
                message.text = Some(text.unwrap_or_else(|| format!("{old} (edited)")));
                message.edited = true;
                ("message_edited", "edit")
            }
            MessageAct::Delete => {
                message.text = None;
                message.deleted = true;
                ("message_deleted", "delete")
            }
        };
        let (id, said, reaction) = (message.id.clone(), message.text.clone(), message.reaction.clone());
        let (account, person) = (self.chats[message.chat].account, self.chats[message.chat].person);
        let deed = self.deed(kind, account, person, if what == MessageAct::React { reaction.clone() } else { said });
        self.about(deed, &id);
        let who = self.webhook_attendee(account, Some(person));
        let more = match what {
            MessageAct::Read => json!({ "read_by": who }),
            MessageAct::React => json!({ "reaction": reaction, "reaction_sender": who }),
            _ => json!({}),
        };
        self.tell_message(name, number, &more, Some(deed));
        true
    }
}
