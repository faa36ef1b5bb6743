//! `/accounts`, and the link to a hosted page where a person connects one.

use serde_json::{Value, json};

use super::account::Account;
use super::call::Call;
use super::errors::Problem;
use super::options::AccountKind;
use super::page::Page;
use super::text::{iso, parse_iso};
use super::wire::Answer;
use super::world::World;

fn account_json(account: &Account) -> Value {
    let params = match account.kind {
        AccountKind::LinkedIn => json!({ "im": { "id": account.own_id, "publicIdentifier": account.identity,
            "username": account.name, "premiumId": account.premium.then_some(&account.own_id),
            "premiumFeatures": if account.premium { json!(["premium"]) } else { json!([]) }, "premiumContractId": null,
            "connection_method": "credentials", "organizations": [], "proxy": null } }),
        AccountKind::WhatsApp => json!({ "im": { "phone_number": account.identity } }),
        AccountKind::Mail => json!({ "mail": { "id": account.identity, "username": account.identity } }),
    };
    let source = if account.kind == AccountKind::Mail { "MAILS" } else { "MESSAGING" };
    json!({
        "object": "Account", "id": account.id, "name": account.name, "type": account.kind.wire(),
        "created_at": iso(account.created_at), "connection_params": params, "signatures": [], "groups": [],
        "sources": [{ "id": format!("{}_{source}", account.id), "status": account.status }],
    })
}

pub(super) fn list(w: &mut World, call: &Call) -> Answer {
    let page = Page::read(call, 100, 250)?;
    let there = w.accounts.iter().enumerate().rev().filter(|(_, a)| !a.deleted);
    let items = there.map(|(n, a)| (n as u64, account_json(a)));
    Ok((200, page.list("AccountList", items)))
}

/// Also of a disconnected account: that is how one finds out.
pub(super) fn get(w: &mut World, call: &Call) -> Answer {
    let index = w.account_index(call.part(1)).ok_or_else(|| Problem::missing("account"))?;
    Ok((200, account_json(&w.accounts[index])))
}

/// Works for a disconnected account, too.
pub(super) fn delete(w: &mut World, call: &Call) -> Answer {
    let index = w.account_index(call.part(1)).ok_or_else(|| Problem::missing("account"))?;
    w.delete_account(index);
    Ok((200, json!({ "object": "AccountDeleted" })))
}

/// What a page offers: of a list the first that the sandbox has; whoever may choose freely, chooses LinkedIn.
fn provider_of(call: &Call) -> Option<AccountKind> {
    // A wildcard is no JSON; a list may be, in a form field.
    if let Ok(Some(Value::Array(list))) = call.json("providers") {
        return list.iter().filter_map(Value::as_str).find_map(AccountKind::of_wire);
    }
    match call.text("providers") {
        None | Some("" | "*" | "*:MESSAGING") => Some(AccountKind::LinkedIn),
        Some("*:MAILING") => Some(AccountKind::Mail),
        Some(other) => AccountKind::of_wire(other),
    }
}

/// The address of a page where a person connects an account, or reconnects one.
pub(super) fn hosted_link(w: &mut World, call: &Call) -> Answer {
    let kind = call.text("type").unwrap_or_default();
    if !["create", "reconnect"].contains(&kind) {
        return Err(Problem::invalid("type must be create or reconnect."));
    }
    let expires = call
        .text("expiresOn")
        .and_then(parse_iso)
        .ok_or_else(|| Problem::invalid("expiresOn must be an ISO 8601 date of the form YYYY-MM-DDTHH:MM:SS.sssZ."))?;
    let account = call.text("reconnect_account");
    if kind == "reconnect" && account.and_then(|a| w.account_index(a)).is_none() {
        return Err(Problem::missing("account to reconnect"));
    }
    let provider = provider_of(call);
    if kind == "create" && provider.is_none() {
        return Err(Problem::new(
            501,
            "feature_not_implemented",
            "The sandbox has LinkedIn, WhatsApp and Google accounts.",
        ));
    }
    let token = w.new_id(&["hosted", kind, call.text("name").unwrap_or_default()]);
    let page = json!({ "type": kind, "provider": provider.map(AccountKind::wire), "account_id": account, "name": call.text("name"),
        "notify_url": call.text("notify_url"), "expires": expires.as_micros() });
    w.hosted.insert(token.clone(), page);
    Ok((201, json!({ "object": "HostedAuthUrl", "url": format!("{}/sandbox/hosted/{token}", call.origin) })))
}
