//! Mails, ours and people's, and how they look on REST and in webhooks.

use serde_json::{Value, json};

use super::text::{iso, plain};
use super::world::{Event, World};
use crate::domain::time::Timestamp;

/// A name and an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mailbox {
    pub(super) name: String,
    pub(super) address: String,
}

impl Mailbox {
    pub(super) fn new(name: impl Into<String>, address: impl Into<String>) -> Self {
        Self { name: name.into(), address: address.into() }
    }

    fn json(&self) -> Value {
        json!({ "display_name": self.name, "identifier": self.address, "identifier_type": "EMAIL_ADDRESS" })
    }
}

/// One mail.
#[derive(Clone, Debug)]
pub(super) struct Mail {
    pub(super) number: u64,
    pub(super) id: String,
    pub(super) provider_id: String,
    pub(super) account: usize,
    /// With the angle brackets.
    pub(super) message_id: String,
    pub(super) thread_id: String,
    pub(super) tracking_id: Option<String>,
    pub(super) label: Option<String>,
    pub(super) at: Timestamp,
    pub(super) ours: bool,
    pub(super) from: Mailbox,
    pub(super) to: Vec<Mailbox>,
    pub(super) cc: Vec<Mailbox>,
    pub(super) bcc: Vec<Mailbox>,
    pub(super) subject: String,
    pub(super) body: String,
    /// RFC id and our id of the mail this one answers.
    pub(super) in_reply_to: Option<(String, String)>,
    pub(super) headers: Vec<(String, String)>,
}

impl Mail {
    fn all(list: &[Mailbox]) -> Value {
        Value::Array(list.iter().map(Mailbox::json).collect())
    }

    pub(super) fn role(&self) -> &'static str {
        if self.ours { "sent" } else { "inbox" }
    }

    /// What REST and webhooks have in common.
    fn shared(&self) -> Value {
        json!({
            "message_id": self.message_id, "provider_id": self.provider_id, "thread_id": self.thread_id,
            "date": iso(self.at), "subject": self.subject, "body": self.body, "body_plain": plain(&self.body),
            "role": self.role(), "folders": [if self.ours { "SENT" } else { "INBOX" }],
            "origin": if self.ours { "unipile" } else { "external" },
            "in_reply_to": self.in_reply_to.as_ref().map(|(m, i)| json!({ "message_id": m, "id": i })),
            "tracking_id": self.tracking_id, "from_attendee": self.from.json(), "to_attendees": Self::all(&self.to),
            "cc_attendees": Self::all(&self.cc), "bcc_attendees": Self::all(&self.bcc), "reply_to_attendees": [],
            "has_attachments": false, "attachments": [], "read_date": null,
        })
    }

    /// As REST shows it.
    pub(super) fn json(&self, account_id: &str, meta_only: bool, headers: bool) -> Value {
        let mut value = self.shared();
        if let Some(object) = value.as_object_mut() {
            let kind = if meta_only { "1_meta" } else { "2_full" };
            let extra = json!({
                "object": "Email", "kind": kind, "id": self.id, "deprecated_id": self.id, "account_id": account_id,
                "type": "GOOGLE_OAUTH", "folderIds": [if self.ours { "SENT" } else { "INBOX" }], "categories": [],
            });
            object.extend(extra.as_object().cloned().unwrap_or_default());
            if meta_only {
                object.insert("body".to_owned(), json!(""));
                object.insert("body_plain".to_owned(), json!(""));
            } else if headers {
                let own = [("Message-ID", self.message_id.as_str()), ("Subject", self.subject.as_str())];
                let all = own.into_iter().chain(self.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())));
                let list = all.map(|(name, value)| json!({ "name": name, "value": value })).collect();
                object.insert("headers".to_owned(), Value::Array(list));
            }
        }
        value
    }
}

impl World {
    /// Puts a mail into its account's mailbox and tells the webhooks. `mail.number` is set here.
    pub(super) fn keep_mail(&mut self, mut mail: Mail) {
        mail.number = self.mails.next();
        let account = mail.account;
        let name = if mail.ours { "mail_sent" } else { "mail_received" };
        let mut body = mail.shared();
        if let Some(object) = body.as_object_mut() {
            object.insert("event".to_owned(), json!(name));
            object.insert("webhook_name".to_owned(), json!(""));
            object.insert("account_id".to_owned(), json!(self.accounts[account].id));
            object.insert("email_id".to_owned(), json!(mail.id));
            object.insert("is_complete".to_owned(), json!(true));
        }
        for id in [&mail.id, &mail.provider_id, &mail.message_id] {
            self.mail_ids.insert(id.clone(), mail.number);
        }
        for address in addresses(&mail) {
            self.mail_by_address.entry((account, address)).or_default().push(mail.number);
        }
        if let Some(old) = self.mails.push(mail) {
            for id in [&old.id, &old.provider_id, &old.message_id] {
                self.mail_ids.remove(id);
            }
            for address in addresses(&old) {
                let key = (old.account, address);
                if let Some(list) = self.mail_by_address.get_mut(&key) {
                    list.retain(|n| *n != old.number);
                    if list.is_empty() {
                        self.mail_by_address.remove(&key);
                    }
                }
            }
        }
        self.emit(Event { source: "email", name, account, body });
    }

    /// A mail that comes in at `account`, in answer to `parent`.
    pub(super) fn mail_in(&mut self, parent: &Mail, from: Mailbox, subject: String, body: String) {
        let (id, message_id) = (self.new_id(), self.new_id());
        let provider_id = format!("{:016x}", super::text::number(self.opts.seed, &[&id]));
        self.keep_mail(Mail {
            number: 0,
            message_id: format!("<{message_id}@people.sandbox>"),
            id,
            provider_id,
            account: parent.account,
            thread_id: parent.thread_id.clone(),
            tracking_id: None,
            label: None,
            at: self.now,
            ours: false,
            from,
            to: vec![parent.from.clone()],
            cc: Vec::new(),
            bcc: Vec::new(),
            subject,
            body,
            in_reply_to: Some((parent.message_id.clone(), parent.id.clone())),
            headers: Vec::new(),
        });
    }

    /// The last mail of ours to an address.
    pub(super) fn last_mail_to(&self, account: usize, address: &str) -> Option<Mail> {
        let list = self.mail_by_address.get(&(account, address.to_owned()))?;
        list.iter().rev().filter_map(|n| self.mails.get(*n)).find(|m| m.ours).cloned()
    }
}

/// Every address a mail names, in lower case, once each.
fn addresses(mail: &Mail) -> Vec<String> {
    let all = std::iter::once(&mail.from).chain(&mail.to).chain(&mail.cc).chain(&mail.bcc);
    let mut list: Vec<String> = all.map(|m| m.address.to_lowercase()).collect();
    list.sort_unstable();
    list.dedup();
    list
}
