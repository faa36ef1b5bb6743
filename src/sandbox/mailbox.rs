//! Mails, ours and people's, and how they look on REST and in webhooks.

use serde_json::{Value, json};

use super::options::AccountKind;
use super::text::{digest, iso, number, omit_nulls, opaque, plain};
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

    /// `Jane <jane@example.com>`, or the address alone.
    fn parse(text: &str) -> Self {
        match text.trim().strip_suffix('>').and_then(|t| t.rsplit_once('<')) {
            Some((name, address)) => Self::new(name.trim().trim_matches('"'), address.trim()),
            None => Self::new("", text.trim()),
        }
    }

    fn json(&self) -> Value {
        json!({ "display_name": self.name, "identifier": self.address, "identifier_type": "EMAIL_ADDRESS" })
    }
}

/// What a mail sent over the API is watched for.
#[derive(Clone, Debug, Default)]
pub(super) struct Tracking {
    pub(super) id: String,
    pub(super) opens: bool,
    pub(super) links: bool,
    pub(super) label: Option<String>,
    pub(super) custom_domain: Option<String>,
}

/// One mail.
#[derive(Clone, Debug)]
pub(super) struct Mail {
    pub(super) number: u64,
    pub(super) id: String,
    /// The same in every run.
    pub(super) key: String,
    pub(super) provider_id: String,
    pub(super) account: usize,
    /// With the angle brackets.
    pub(super) message_id: String,
    pub(super) thread_id: String,
    pub(super) tracking: Option<Tracking>,
    pub(super) at: Timestamp,
    pub(super) ours: bool,
    /// Sent over the API, not written in the app.
    pub(super) by_api: bool,
    pub(super) from: Mailbox,
    pub(super) to: Vec<Mailbox>,
    pub(super) cc: Vec<Mailbox>,
    pub(super) bcc: Vec<Mailbox>,
    pub(super) subject: String,
    pub(super) body: String,
    /// RFC id and our id of the mail this one answers.
    pub(super) in_reply_to: Option<(String, String)>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) attachments: Vec<Value>,
}

impl Mail {
    fn all(list: &[Mailbox]) -> Value {
        Value::Array(list.iter().map(Mailbox::json).collect())
    }

    pub(super) fn role(&self) -> &'static str {
        if self.ours { "sent" } else { "inbox" }
    }

    /// The provider's id of the folder it lies in.
    pub(super) fn folder(&self) -> &'static str {
        if self.ours { "SENT" } else { "INBOX" }
    }

    /// The value of a header, whatever the case of its name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// Where people who answer it write to.
    pub(super) fn answered_to(&self) -> Mailbox {
        self.header("Reply-To").map_or_else(|| self.from.clone(), Mailbox::parse)
    }

    fn body_plain(&self) -> String {
        let is_plain = self.header("Content-Type").is_some_and(|t| t.trim_start().starts_with("text/plain"));
        if is_plain { self.body.clone() } else { plain(&self.body) }
    }

    /// What REST and webhooks have in common.
    fn shared(&self) -> Value {
        json!({
            "message_id": self.message_id, "provider_id": self.provider_id, "thread_id": self.thread_id,
            "date": iso(self.at), "subject": self.subject, "body": self.body, "body_plain": self.body_plain(),
            "role": self.role(), "folders": [self.folder()],
            "origin": if self.by_api { "unipile" } else { "external" },
            "in_reply_to": self.in_reply_to.as_ref().map(|(m, i)| json!({ "message_id": m, "id": i })),
            "tracking_id": self.tracking.as_ref().map(|t| t.id.as_str()), "from_attendee": self.from.json(), "to_attendees": Self::all(&self.to),
            "cc_attendees": Self::all(&self.cc), "bcc_attendees": Self::all(&self.bcc),
            "reply_to_attendees": self.header("Reply-To").map(|a| Mailbox::parse(a).json()).into_iter().collect::<Vec<_>>(),
            "has_attachments": !self.attachments.is_empty(), "attachments": self.attachments, "read_date": null,
        })
    }

    /// As REST shows it.
    pub(super) fn json(&self, account_id: &str, meta_only: bool, headers: bool) -> Value {
        let mut value = self.shared();
        omit_nulls(&mut value, &["in_reply_to", "tracking_id"]);
        if let Some(object) = value.as_object_mut() {
            let kind = if meta_only { "1_meta" } else { "2_full" };
            let extra = json!({
                "object": "Email", "kind": kind, "id": self.id, "deprecated_id": self.id, "account_id": account_id,
                "type": "GOOGLE_OAUTH", "folderIds": [self.folder()], "categories": [],
            });
            object.extend(extra.as_object().cloned().unwrap_or_default());
            if meta_only {
                object.insert("body".to_owned(), json!(""));
                object.insert("body_plain".to_owned(), json!(""));
            } else if headers {
                let shown = |m: &Mailbox| format!("{} <{}>", m.name, m.address).trim().to_owned();
                let to: Vec<String> = self.to.iter().map(shown).collect();
                let mut all = vec![
                    ("Message-ID", self.message_id.clone()),
                    ("Subject", self.subject.clone()),
                    ("From", shown(&self.from)),
                    ("To", to.join(", ")),
                    ("Date", self.at.to_utc().to_rfc2822()),
                ];
                if let Some((parent, _)) = &self.in_reply_to {
                    all.extend([("In-Reply-To", parent.clone()), ("References", parent.clone())]);
                }
                all.extend(self.headers.iter().map(|(n, v)| (n.as_str(), v.clone())));
                let list = all.into_iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
                object.insert("headers".to_owned(), Value::Array(list));
            }
        }
        value
    }
}

/// A mail in answer to another.
pub(super) struct Answering {
    pub(super) from: Mailbox,
    pub(super) to: Mailbox,
    pub(super) subject: String,
    pub(super) body: String,
    /// Whether it shows what it answers.
    pub(super) threaded: bool,
    pub(super) headers: Vec<(String, String)>,
    pub(super) deed: u64,
}

impl World {
    /// Puts a mail into its account's mailbox and tells the webhooks. Its number is set here, and answered.
    pub(super) fn keep_mail(&mut self, mut mail: Mail, deed: Option<u64>) -> u64 {
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
        let (number, key) = (mail.number, mail.key.clone());
        for id in [&mail.id, &mail.provider_id, &mail.message_id] {
            self.mail_ids.insert(id.clone(), number);
        }
        if let Some(deed) = deed {
            self.about(deed, &mail.message_id);
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
        self.emit(Event { source: "email", name, account, body, key, deed });
        number
    }

    /// A mail that comes in, in answer to `parent`. One to an address that none of our accounts has comes in nowhere.
    pub(super) fn mail_in(&mut self, parent: &Mail, answer: Answering) {
        let Answering { from, to, subject, body, threaded, headers, deed } = answer;
        let Some(account) = self.mailbox_of(parent.account, &to.address) else { return };
        let mut mail = self.blank_mail(parent, &from.address, "people.sandbox");
        mail.account = account;
        (mail.from, mail.to) = (from, vec![to]);
        (mail.subject, mail.body, mail.headers) = (subject, body, headers);
        if !threaded || account != parent.account {
            mail.thread_id.clone_from(&mail.provider_id);
        }
        if !threaded {
            mail.in_reply_to = None;
        }
        self.keep_mail(mail, Some(deed));
    }

    /// The account that has an address, whatever is added to it after a `+`; `first` before others.
    fn mailbox_of(&self, first: usize, address: &str) -> Option<usize> {
        let bare = |address: &str| {
            let (user, host) = address.split_once('@').unwrap_or((address, ""));
            format!("{}@{host}", user.split('+').next().unwrap_or(user)).to_lowercase()
        };
        let has = |a: &usize| {
            let own = &self.accounts[*a];
            let mut addresses = std::iter::once(&own.identity).chain(&own.aliases);
            own.kind == AccountKind::Mail && !own.deleted && addresses.any(|one| bare(one) == bare(address))
        };
        std::iter::once(first).chain(0..self.accounts.len()).find(has)
    }

    /// A mail that the account's owner writes in the app to somebody `parent` went to.
    pub(super) fn mail_by_hand(&mut self, parent: &Mail, to: Mailbox, subject: String, body: String, deed: u64) {
        let mut mail = self.blank_mail(parent, &to.address, "mail.gmail.com");
        mail.ours = true;
        mail.from = parent.from.clone();
        mail.to = vec![to];
        (mail.subject, mail.body) = (subject, body);
        self.keep_mail(mail, Some(deed));
    }

    /// A mail in the thread of `parent` that says nothing yet.
    fn blank_mail(&mut self, parent: &Mail, address: &str, host: &str) -> Mail {
        let (own, own_key) = (self.accounts[parent.account].id.clone(), self.accounts[parent.account].key.clone());
        let id = self.new_id(&["mail", &own, address, host]);
        let key = self.unique_key(&["mail of", &own_key, address, host]);
        let part = |what: &str, len| opaque(&digest(self.opts.seed, &[what, &id]), len);
        Mail {
            number: 0,
            message_id: format!("<{}@{host}>", part("rfc", 22)),
            provider_id: format!("{:016x}", number(self.opts.seed, &["provider", &id])),
            id,
            key,
            account: parent.account,
            thread_id: parent.thread_id.clone(),
            tracking: None,
            at: self.now,
            ours: false,
            by_api: false,
            from: parent.from.clone(),
            to: Vec::new(),
            cc: Vec::new(),
            bcc: Vec::new(),
            subject: String::new(),
            body: String::new(),
            in_reply_to: Some((parent.message_id.clone(), parent.id.clone())),
            headers: Vec::new(),
            attachments: Vec::new(),
        }
    }

    /// The last mail of ours to an address.
    pub(super) fn last_mail_to(&self, account: usize, address: &str) -> Option<Mail> {
        let list = self.mail_by_address.get(&(account, address.to_owned()))?;
        let mails = list.iter().rev().filter_map(|n| self.mails.get(*n));
        // Of those sent by the API: what a hand wrote is in nobody's sequence.
        mails.into_iter().find(|m| m.by_api).cloned()
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
