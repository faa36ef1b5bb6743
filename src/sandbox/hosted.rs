//! The page that a hosted link leads to: a button, and the account is connected.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::account::Account;
use super::options::{AccountKind, AccountSpec};
use super::server::Sandbox;
use super::webhooks::{Delivery, Hook};
use super::world::World;

/// The page; asking for it changes nothing.
pub(super) async fn page(State(sandbox): State<Arc<Sandbox>>, Path(token): Path<String>) -> Response {
    let there = sandbox.with(|w| open(w, &token).is_some());
    if !there {
        return (StatusCode::GONE, Html("<p>This link is used up or too old.</p>")).into_response();
    }
    Html("<form method=\"post\"><button>Connect the account</button></form>").into_response()
}

/// Connects the account.
pub(super) async fn connect(State(sandbox): State<Arc<Sandbox>>, Path(token): Path<String>) -> Response {
    let done = sandbox.with(|w| {
        let page = open(w, &token).cloned()?;
        w.hosted.remove(&token);
        Some(finish(w, &page))
    });
    match done {
        Some(account) => Html(format!("<p>Account {account} is connected.</p>")).into_response(),
        None => (StatusCode::GONE, Html("<p>This link is used up or too old.</p>")).into_response(),
    }
}

fn open<'a>(w: &'a World, token: &str) -> Option<&'a Value> {
    w.hosted.get(token).filter(|p| p["expires"].as_i64().is_some_and(|at| w.now.as_micros() < at))
}

/// Makes the account, or puts it in order, and tells whoever asked; gives its id.
fn finish(w: &mut World, page: &Value) -> String {
    let again = page["account_id"].as_str().filter(|_| page["type"] == "reconnect");
    let (index, status) = match again.and_then(|id| w.account_index(id)) {
        Some(index) => (index, "RECONNECTED"),
        None => {
            let kind = page["provider"].as_str().and_then(AccountKind::of_wire).unwrap_or(AccountKind::LinkedIn);
            let id = w.new_id(&["account", kind.as_str()]);
            let n = w.accounts.len();
            let identity = match kind {
                AccountKind::LinkedIn => format!("sender-{n}-hosted"),
                AccountKind::Mail => format!("sender-{n}-hosted@sender.example"),
                AccountKind::WhatsApp => format!("337{n:08}"),
            };
            let spec = AccountSpec {
                id,
                name: format!("Sender {n}"),
                kind,
                identity,
                premium: kind == AccountKind::LinkedIn,
                aliases: Vec::new(),
            };
            let mut account = Account::new(w.opts.seed, &spec, w.opts.inmail_credits, w.now);
            account.key = w.unique_key(&["account", kind.as_str()]);
            w.accounts.push(account);
            (n, "CREATION_SUCCESS")
        }
    };
    w.set_status(index, status);
    let id = w.accounts[index].id.clone();
    if let Some(url) = page["notify_url"].as_str() {
        let hook = Hook {
            number: 0,
            id: "hosted".to_owned(),
            key: "hosted".to_owned(),
            name: String::new(),
            source: "hosted".to_owned(),
            request_url: url.to_owned(),
            format: "json".to_owned(),
            events: Vec::new(),
            account_ids: Vec::new(),
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            data: Vec::new(),
            enabled: true,
            slots: Semaphore::new(1),
        };
        let body = json!({ "status": status, "account_id": id, "name": page["name"] }).to_string();
        w.outbox.push(Delivery { hook: Arc::new(hook), body, hold: std::time::Duration::ZERO, deed: None });
    }
    id
}
