//! A request of the wire, read: what it says, and whom it is about.

use serde_json::{Map, Value};

use super::errors::Problem;
use super::options::AccountKind;
use super::page;
use super::wire_attendees::chats_of;
use super::world::World;

/// A request, read.
pub(super) struct Call {
    pub(super) path: Vec<String>,
    pub(super) query: Vec<(String, String)>,
    pub(super) body: Map<String, Value>,
    pub(super) idempotency_key: Option<String>,
    /// Where this sandbox is reached, for links to itself.
    pub(super) origin: String,
}

impl Call {
    /// The `i`th part of the path, decoded.
    pub(super) fn part(&self, i: usize) -> &str {
        self.path.get(i).map_or("", String::as_str)
    }

    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A truth of the query: `true` or 1.
    pub(super) fn query_flag(&self, name: &str) -> bool {
        matches!(self.query(name), Some("true" | "1"))
    }

    /// A truth of the body, however it is written.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        self.body.get(name).and_then(truth)
    }

    /// Whom or what it is about: for faults and refusals.
    pub(super) fn about(&self) -> String {
        self.words(|_, part| part.to_owned()).join(" ")
    }

    /// The same without what changes with the word of a run or with an address of ours, for draws.
    pub(super) fn key(&self, w: &World) -> String {
        let invitation = self.part(0) == "users" && self.part(1) == "invite";
        let key = |i: usize, part: &str| match w.invitations.get(part) {
            Some(&(account, person)) => w.pair(account, person),
            // Settled ones are not remembered.
            None if invitation && i == 3 => "settled".to_owned(),
            None => part.split(',').map(|id| w.key_of(id.trim())).collect::<Vec<_>>().join(","),
        };
        let accounts = self.accounts(w).into_iter().map(|a| w.accounts[a].key.clone());
        accounts.chain(self.words(key)).collect::<Vec<_>>().join(" ")
    }

    fn words(&self, part: impl Fn(usize, &str) -> String) -> Vec<String> {
        let path = self.path.iter().enumerate().skip(1);
        let mut words: Vec<String> = path.map(|(i, text)| part(i, text)).collect();
        for field in ["provider_id", "attendees_ids", "to"] {
            match self.body.get(field) {
                None => {}
                Some(Value::String(text)) => words.push(text.clone()),
                Some(value) => words.push(value.to_string()),
            }
        }
        words
    }

    /// The accounts it is about: those it names, also in the query that its cursor carries; else those whose account, chat,
    /// message, mail or attendee its path names.
    pub(super) fn accounts(&self, w: &World) -> Vec<usize> {
        let carried = self.query("cursor").and_then(page::carried).map(|(query, _)| query);
        let query = carried.as_ref().unwrap_or(&self.query);
        let asked = query.iter().find(|(n, _)| n == "account_id").map(|(_, v)| v.as_str());
        let named = self.text("account_id").or(asked).filter(|list| !list.is_empty());
        let ids = self.part(1).split(',').map(str::trim);
        let mut accounts: Vec<usize> = match (named, self.part(0)) {
            (Some(list), _) => list.split(',').filter_map(|id| w.account_index(id.trim())).collect(),
            (None, "accounts") => ids.filter_map(|id| w.account_index(id)).collect(),
            (None, "chats") => ids.filter_map(|id| w.chat_ids.get(id)).map(|c| w.chats[*c].account).collect(),
            (None, "messages") => ids.filter_map(|id| w.message(id)).map(|m| w.chats[m.chat].account).collect(),
            (None, "emails") => ids.filter_map(|id| w.mail(id)).map(|m| m.account).collect(),
            (None, "chat_attendees") => {
                let all: Vec<usize> = (0..w.accounts.len()).collect();
                chats_of(w, self.part(1), &all).into_iter().map(|c| w.chats[c].account).collect()
            }
            (None, _) => Vec::new(),
        };
        accounts.sort_unstable();
        accounts.dedup();
        accounts
    }

    /// A text of the body.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.body.get(name).and_then(Value::as_str)
    }

    /// A field of the body that says something: not null, and not empty.
    pub(super) fn said(&self, name: &str) -> Option<&Value> {
        self.body.get(name).filter(|value| match value {
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            Value::Array(list) => !list.is_empty(),
            _ => true,
        })
    }

    /// A field of the body that holds JSON: as it is, or as text of a form field.
    pub(super) fn json(&self, name: &str) -> Result<Option<Value>, Problem> {
        match self.body.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => serde_json::from_str(text)
                .map(Some)
                .map_err(|_| Problem::invalid(format!("{name} must be JSON in its form field."))),
            Some(value) => Ok(Some(value.clone())),
        }
    }

    /// The account of a read, named in the query.
    pub(super) fn query_account(&self, w: &World, kind: Option<AccountKind>) -> Result<usize, Problem> {
        w.account(self.query("account_id"), kind)
    }

    /// The account of a change, named in the body.
    pub(super) fn body_account(&self, w: &World, kind: Option<AccountKind>) -> Result<usize, Problem> {
        w.account(self.text("account_id"), kind)
    }
}

/// What a client means by `true`, `"true"`, `1` and `"1"`, and by their opposites.
pub(super) fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::Number(n) => n.as_u64().filter(|n| *n < 2).map(|n| n == 1),
        Value::String(text) => match text.as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}
