//! How chats, messages and attendees look: on REST, where truths are 0 and 1, and in webhooks, where they are truths.

use serde_json::{Value, json};

use super::options::AccountKind;
use super::people::Person;
use super::talk::{Chat, Message};
use super::text::{self, iso, omit_nulls};
use super::world::{Link, World};

impl World {
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

    /// What LinkedIn calls a member beside their id.
    pub(super) fn member_urn(&self, id: &str) -> String {
        format!("urn:li:member:{}", text::number(self.opts.seed, &[id]) % 1_000_000_000)
    }

    /// What LinkedIn tells of an attendee besides. There is no distance to oneself.
    fn linkedin_specifics(&self, account: usize, person: Option<usize>) -> Value {
        let id = self.sender_id(account, person);
        let mut specifics = json!({ "provider": "LINKEDIN", "member_urn": self.member_urn(id) });
        if let Some(person) = person {
            let related = matches!(self.links.get(&(account, person)), Some(Link::Connected { .. }));
            specifics["occupation"] = json!(self.people[person].headline);
            specifics["network_distance"] = json!(if related { "DISTANCE_1" } else { "DISTANCE_2" });
        }
        specifics
    }

    pub(super) fn webhook_attendee(&self, account: usize, person: Option<usize>) -> Value {
        let id = self.sender_id(account, person);
        let (own, them) = (&self.accounts[account], person.map(|p| &self.people[p]));
        let name = them.map_or_else(|| own.name.clone(), shown_name);
        if own.kind == AccountKind::WhatsApp {
            let digits = them.map_or(own.identity.as_str(), |p| p.identity.as_str());
            return json!({
                "attendee_id": self.attendee_id(account, person), "attendee_provider_id": id, "attendee_name": name,
                "attendee_profile_url": null, "attendee_public_identifier": them.map_or_else(
                    || json!(own.own_id), public_identifier),
                "attendee_specifics": { "provider": "WHATSAPP",
                    "phone_number": them.map_or_else(|| format!("+{digits}"), phone_number),
                    "lid": them.map(|p| p.lid.as_str()) },
            });
        }
        let mut specifics = self.linkedin_specifics(account, person);
        specifics["is_company"] = json!(false);
        json!({
            "attendee_id": self.attendee_id(account, person), "attendee_provider_id": id, "attendee_name": name,
            "attendee_profile_url": format!("https://www.linkedin.com/in/{id}"), "attendee_public_identifier": null,
            "attendee_specifics": specifics,
        })
    }

    /// The envelope of every messaging webhook, as of `message_received`.
    pub(super) fn message_event(&self, m: &Message) -> Value {
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
            "is_sender": m.ours(), "is_group": false, "is_event": 0, "chat_pinned": 0,
            "message_type": self.message_type(m),
            "chat_content_type": if m.inmail { json!("inmail") } else { Value::Null }, "is_forwarded": null,
            "quoted": self.quoted(m), "reply_to": null, "folder": folder(own.kind), "attachments": m.attachments,
            "sender": if m.ours() { self.webhook_attendee(account, None) } else { them.clone() },
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

    fn quoted(&self, m: &Message) -> Value {
        let number = m.quoted.as_ref().and_then(|id| self.message_ids.get(id));
        let Some(quoted) = number.and_then(|n| self.messages.get(*n)) else { return Value::Null };
        let chat = &self.chats[quoted.chat];
        json!({ "provider_id": quoted.provider_id, "text": quoted.text,
            "sender_id": self.sender_id(chat.account, (!quoted.ours()).then_some(chat.person)), "attachments": [] })
    }

    /// A message as REST shows it.
    pub(super) fn message_json(&self, m: &Message) -> Value {
        let chat = &self.chats[m.chat];
        let them = Some(chat.person);
        let who = if m.ours() { None } else { them };
        let reader = self.sender_id(chat.account, them);
        let seen_by = m.seen_at.map_or_else(|| json!({}), |at| json!({ reader: iso(at) }));
        let reactions = m.reaction.as_ref().map(|r| json!({ "value": r, "sender_id": reader, "is_sender": false }));
        let distance = u8::from(matches!(self.links.get(&(chat.account, chat.person)), Some(Link::Connected { .. })));
        json!({
            "object": "Message", "id": m.id, "account_id": self.accounts[chat.account].id, "chat_id": chat.id,
            "chat_provider_id": chat.provider_id, "provider_id": m.provider_id, "text": m.text, "subject": m.subject,
            "timestamp": iso(m.at), "is_sender": u8::from(m.ours()), "sender_id": self.sender_id(chat.account, who),
            "sender_attendee_id": self.attendee_id(chat.account, who), "sender_urn": null,
            "seen": u8::from(m.seen_at.is_some()), "seen_by": seen_by, "delivered": u8::from(m.delivered), "hidden": 0,
            "deleted": u8::from(m.deleted), "edited": u8::from(m.edited), "is_event": 0, "event_type": 0,
            "behavior": null, "original": "", "message_type": self.message_type(m), "attendee_type": "MEMBER",
            "attendee_distance": 2 - distance, "reactions": reactions.into_iter().collect::<Vec<_>>(),
            "attachments": m.attachments, "quoted": self.quoted(m), "reply_to": null,
        })
    }

    /// A chat as REST shows it.
    pub(super) fn chat_json(&self, chat: &Chat) -> Value {
        let (own, them) = (&self.accounts[chat.account], &self.people[chat.person]);
        let whatsapp = own.kind == AccountKind::WhatsApp;
        let first = chat.messages.first().and_then(|n| self.messages.get(*n));
        let inmail = first.is_some_and(|m| m.inmail);
        let mut body = json!({
            "object": "Chat", "id": chat.id, "account_id": own.id, "account_type": own.kind.wire(),
            "provider_id": chat.provider_id, "attendee_provider_id": self.sender_id(chat.account, Some(chat.person)),
            "attendee_public_identifier": if whatsapp { public_identifier(them) } else { Value::Null },
            "name": if whatsapp { json!(shown_name(them)) } else { Value::Null }, "type": 0,
            "timestamp": iso(chat.updated), "unread_count": chat.unread, "archived": 0, "pinned": 0,
            "muted_until": null, "read_only": 0, "subject": first.and_then(|m| m.subject.as_deref()),
            "content_type": if inmail { json!("inmail") } else { Value::Null }, "folder": folder(own.kind),
        });
        omit_nulls(&mut body, &["subject", "content_type"]);
        body
    }

    /// An attendee as REST shows it; `None` is the account itself.
    pub(super) fn attendee_json(&self, account: usize, person: Option<usize>) -> Value {
        let (own, them) = (&self.accounts[account], person.map(|p| &self.people[p]));
        let specifics = match own.kind {
            AccountKind::WhatsApp => {
                let number = them.map_or_else(|| format!("+{}", own.identity), phone_number);
                json!({ "provider": "WHATSAPP", "phone_number": number, "lid": them.map(|p| p.lid.as_str()) })
            }
            _ => {
                let pending = person.and_then(|p| self.links.get(&(account, p)));
                let mut specifics = self.linkedin_specifics(account, person);
                specifics["pending_invitation"] = json!(matches!(pending, Some(Link::Pending { .. })));
                specifics
            }
        };
        let mut body = json!({
            "object": "ChatAttendee", "id": self.attendee_id(account, person),
            "account_id": own.id, "provider_id": self.sender_id(account, person),
            "name": them.map_or_else(|| own.name.clone(), shown_name), "is_self": u8::from(person.is_none()),
            "hidden": 0, "profile_url": them.map_or(Value::Null, Person::profile_url), "specifics": specifics,
        });
        omit_nulls(&mut body, &["profile_url"]);
        body
    }
}

fn folder(kind: AccountKind) -> Value {
    match kind {
        AccountKind::LinkedIn => json!(["INBOX", "INBOX_LINKEDIN_CLASSIC"]),
        _ => json!(["INBOX"]),
    }
}

/// What WhatsApp shows in place of a name: the number, unless that is hidden.
fn shown_name(them: &Person) -> String {
    if them.conduct.lid_only { "Somebody".to_owned() } else { them.full_name() }
}

fn phone_number(them: &Person) -> String {
    if them.conduct.lid_only { "hidden".to_owned() } else { format!("+{}", them.identity) }
}

/// The JID of a phone; of one that hides its number there is none.
fn public_identifier(them: &Person) -> Value {
    if them.conduct.lid_only { Value::Null } else { json!(them.provider_id) }
}
