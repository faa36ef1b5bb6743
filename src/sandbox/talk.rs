//! Chats and their messages, LinkedIn and WhatsApp alike, and how they look on REST and in webhooks.

use serde_json::{Value, json};

use super::act::Act;
use super::options::AccountKind;
use super::text::{self, iso};
use super::world::{Event, World};
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
}

/// One message.
pub(super) struct Message {
    pub(super) number: u64,
    pub(super) id: String,
    pub(super) provider_id: String,
    pub(super) chat: usize,
    pub(super) ours: bool,
    pub(super) text: Option<String>,
    pub(super) subject: Option<String>,
    pub(super) at: Timestamp,
    pub(super) inmail: bool,
}

impl World {
    /// The chat of an account with a person, made when there is none.
    pub(super) fn chat_with(&mut self, account: usize, person: usize) -> usize {
        if let Some(&chat) = self.chat_of.get(&(account, person)) {
            return chat;
        }
        let id = self.new_id();
        let whatsapp = self.accounts[account].kind == AccountKind::WhatsApp;
        let provider_id = if whatsapp {
            self.people[person].lid.clone()
        } else {
            let words = [self.accounts[account].id.as_str(), self.people[person].identity.as_str(), "thread"];
            format!("2-{}", text::opaque(&text::digest(self.opts.seed, &words), 40))
        };
        let chat = self.chats.len();
        self.chat_ids.insert(id.clone(), chat);
        // A WhatsApp thread is named after the person, so only one account's can be found by it.
        self.chat_ids.entry(provider_id.clone()).or_insert(chat);
        self.chat_of.insert((account, person), chat);
        self.attendees.insert(self.attendee_id(account, Some(person)), (account, person));
        self.chats.push(Chat { id, provider_id, account, person, updated: self.now, messages: Vec::new() });
        chat
    }

    /// Adds a message to a chat and tells the webhooks; ours may set the person off. Gives the message's id.
    pub(super) fn say(
        &mut self,
        chat: usize,
        ours: bool,
        text: Option<String>,
        subject: Option<String>,
        inmail: bool,
    ) -> String {
        let id = self.new_id();
        let provider_id = format!("2-{}", self.new_id());
        let number = self.messages.next();
        let message = Message { number, id: id.clone(), provider_id, chat, ours, text, subject, at: self.now, inmail };
        let body = self.message_event(&message);
        self.message_ids.insert(id.clone(), number);
        if let Some(old) = self.messages.push(message) {
            self.message_ids.remove(&old.id);
            let list = &mut self.chats[old.chat].messages;
            if list.first() == Some(&old.number) {
                list.remove(0);
            }
        }
        self.chats[chat].messages.push(number);
        self.chats[chat].updated = self.now;
        let (account, person) = (self.chats[chat].account, self.chats[chat].person);
        self.emit(Event { source: "messaging", name: "message_received", account, body });
        if ours {
            self.maybe_reply(account, person);
        }
        id
    }

    /// Sets off a person's one reply, if it is in their nature.
    pub(super) fn maybe_reply(&mut self, account: usize, person: usize) {
        let somebody = &mut self.people[person];
        if let (Some(after), false) = (somebody.replies, somebody.reply_set) {
            somebody.reply_set = true;
            self.later(after, Act::Reply { account, person });
        }
    }

    pub(super) fn attendee_id(&self, account: usize, person: Option<usize>) -> String {
        let who = person.map_or("self", |p| self.people[p].provider_id.as_str());
        text::opaque(&text::digest(self.opts.seed, &["attendee", &self.accounts[account].id, who]), 22)
    }

    /// The id a person's messages carry: on WhatsApp a LID, not the number we sent to.
    pub(super) fn sender_id(&self, account: usize, person: Option<usize>) -> &str {
        match person {
            None => &self.accounts[account].own_id,
            Some(p) if self.people[p].lid.is_empty() => &self.people[p].provider_id,
            Some(p) => &self.people[p].lid,
        }
    }

    fn webhook_attendee(&self, account: usize, person: Option<usize>) -> Value {
        let id = self.sender_id(account, person);
        let (own, them) = (&self.accounts[account], person.map(|p| &self.people[p]));
        let name = them.map_or_else(|| own.name.clone(), super::people::Person::full_name);
        if own.kind == AccountKind::WhatsApp {
            let digits = them.map_or(own.identity.as_str(), |p| p.identity.as_str());
            return json!({
                "attendee_id": self.attendee_id(account, person), "attendee_provider_id": id, "attendee_name": name,
                "attendee_profile_url": null, "attendee_public_identifier": format!("{digits}@s.whatsapp.net"),
                "attendee_specifics": { "provider": "WHATSAPP", "phone_number": format!("+{digits}"),
                    "lid": them.map(|p| p.lid.as_str()) },
            });
        }
        json!({
            "attendee_id": self.attendee_id(account, person), "attendee_provider_id": id, "attendee_name": name,
            "attendee_profile_url": format!("https://www.linkedin.com/in/{id}"), "attendee_public_identifier": null,
            "attendee_specifics": { "provider": "LINKEDIN",
                "member_urn": format!("urn:li:member:{}", text::number(self.opts.seed, &[id]) % 1_000_000_000),
                "occupation": them.map(|p| p.headline.as_str()), "is_company": false,
                "network_distance": if them.is_some() { "DISTANCE_1" } else { "SELF" } },
        })
    }

    fn message_event(&self, m: &Message) -> Value {
        let chat = &self.chats[m.chat];
        let (account, person) = (chat.account, chat.person);
        let own = &self.accounts[account];
        let linkedin = own.kind == AccountKind::LinkedIn;
        let info = if linkedin {
            json!({ "type": "LINKEDIN", "feature": "classic", "user_id": own.own_id })
        } else {
            json!({ "type": "WHATSAPP", "phone_number": format!("+{}", own.identity) })
        };
        let them = self.webhook_attendee(account, Some(person));
        json!({
            "event": "message_received", "event_type": null, "webhook_name": "",
            "account_id": own.id, "account_type": own.kind.wire(), "account_info": info,
            "chat_id": chat.id, "provider_chat_id": chat.provider_id,
            "message_id": m.id, "provider_message_id": m.provider_id,
            "message": m.text, "subject": m.subject, "timestamp": iso(m.at),
            "is_sender": m.ours, "is_group": false, "is_event": 0, "chat_pinned": 0,
            "message_type": self.message_type(m), "chat_content_type": null, "is_forwarded": null,
            "quoted": null, "reply_to": null,
            "folder": if linkedin { json!(["INBOX", "INBOX_LINKEDIN_CLASSIC"]) } else { json!(["INBOX"]) },
            "attachments": [],
            "sender": if m.ours { self.webhook_attendee(account, None) } else { them.clone() },
            "attendees": [them],
        })
    }

    fn message_type(&self, m: &Message) -> Value {
        match (self.accounts[self.chats[m.chat].account].kind, m.inmail) {
            (AccountKind::WhatsApp, _) => Value::Null,
            (_, true) => json!("INMAIL"),
            (_, false) => json!("MESSAGE"),
        }
    }

    /// A message as REST shows it: truths are 0 and 1.
    pub(super) fn message_json(&self, m: &Message) -> Value {
        let chat = &self.chats[m.chat];
        let who = (!m.ours).then_some(chat.person);
        json!({
            "object": "Message", "id": m.id, "account_id": self.accounts[chat.account].id, "chat_id": chat.id,
            "chat_provider_id": chat.provider_id, "provider_id": m.provider_id, "text": m.text, "subject": m.subject,
            "timestamp": iso(m.at), "is_sender": u8::from(m.ours), "sender_id": self.sender_id(chat.account, who),
            "sender_attendee_id": self.attendee_id(chat.account, who), "sender_urn": null, "seen": 0, "seen_by": {},
            "delivered": 1, "hidden": 0, "deleted": 0, "edited": 0, "is_event": 0, "event_type": 0, "behavior": null,
            "original": "", "message_type": self.message_type(m), "attendee_type": "MEMBER", "attendee_distance": 1,
            "reactions": [], "attachments": [], "quoted": null, "reply_to": null,
        })
    }

    /// A chat as REST shows it.
    pub(super) fn chat_json(&self, chat: &Chat) -> Value {
        let (own, them) = (&self.accounts[chat.account], &self.people[chat.person]);
        let whatsapp = own.kind == AccountKind::WhatsApp;
        json!({
            "object": "Chat", "id": chat.id, "account_id": own.id, "account_type": own.kind.wire(),
            "provider_id": chat.provider_id, "attendee_provider_id": self.sender_id(chat.account, Some(chat.person)),
            "attendee_public_identifier": whatsapp.then_some(&them.provider_id),
            "name": if whatsapp { json!(them.full_name()) } else { Value::Null }, "type": 0,
            "timestamp": iso(chat.updated), "unread_count": 0, "archived": 0, "pinned": 0, "muted_until": null,
            "read_only": 0, "subject": null,
            "folder": if whatsapp { json!(["INBOX"]) } else { json!(["INBOX", "INBOX_LINKEDIN_CLASSIC"]) },
        })
    }

    /// An attendee as REST shows it.
    pub(super) fn attendee_json(&self, account: usize, person: usize) -> Value {
        let them = &self.people[person];
        let specifics = match self.accounts[account].kind {
            AccountKind::WhatsApp => {
                json!({ "provider": "WHATSAPP", "phone_number": format!("+{}", them.identity), "lid": them.lid })
            }
            _ => json!({ "provider": "LINKEDIN", "occupation": them.headline, "network_distance": "DISTANCE_1" }),
        };
        json!({
            "object": "ChatAttendee", "id": self.attendee_id(account, Some(person)),
            "account_id": self.accounts[account].id, "provider_id": self.sender_id(account, Some(person)),
            "name": them.full_name(), "is_self": 0, "hidden": 0, "picture_url": null,
            "profile_url": them.profile_url(), "specifics": specifics,
        })
    }
}
