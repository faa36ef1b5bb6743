//! `GET /emails`: the mailbox, by filter and by id.

use super::call::Call;
use super::errors::Problem;
use super::mailbox::{Mail, Mailbox};
use super::options::AccountKind;
use super::page::Page;
use super::wire::Answer;
use super::world::World;

fn flag(page: &Page, name: &str) -> bool {
    matches!(page.get(name), Some("true" | "1"))
}

pub(super) fn list(w: &mut World, call: &Call) -> Answer {
    let page = Page::read(call, 100, 250)?;
    let account = w.account(page.get("account_id"), Some(AccountKind::Mail))?;
    let (meta, headers) = (flag(&page, "meta_only"), flag(&page, "include_headers"));
    if meta && headers {
        return Err(Problem::new(400, "invalid_request", "include_headers needs meta_only=false."));
    }
    if page.get("search").is_some()
        && ["from", "to", "any_email", "before", "after"].iter().any(|n| page.get(n).is_some())
    {
        return Err(Problem::new(400, "invalid_request", "search cannot be combined with other filters."));
    }
    let search = page.get("search").map(str::to_lowercase);
    let lower = |name: &str| page.get(name).filter(|v| !v.is_empty()).map(str::to_lowercase);
    let (from, to, any) = (lower("from"), lower("to"), lower("any_email"));
    let is = |m: &Mailbox, address: &str| m.address.eq_ignore_ascii_case(address);
    let sent_to = |m: &Mail, a: &str| m.to.iter().chain(&m.cc).chain(&m.bcc).any(|t| is(t, a));
    let wanted = |m: &&Mail| {
        m.account == account
            && page.holds(m.at)
            && from.as_deref().is_none_or(|a| is(&m.from, a))
            && to.as_deref().is_none_or(|a| sent_to(m, a))
            && any.as_deref().is_none_or(|l| l.split(',').any(|a| is(&m.from, a.trim()) || sent_to(m, a.trim())))
            && page.get("message_id").is_none_or(|id| m.message_id == id)
            && page.get("thread_id").is_none_or(|id| m.thread_id == id)
            && page.get("role").is_none_or(|r| r == "all" || m.role() == r)
            && page.get("folder").is_none_or(|f| m.folder() == f)
            && page.get("exclude_folders").is_none_or(|l| l.split(',').all(|f| m.folder() != f.trim()))
            && search
                .as_deref()
                .is_none_or(|s| m.subject.to_lowercase().contains(s) || m.body.to_lowercase().contains(s))
    };
    let shown = |m: &Mail| (m.number, m.json(&w.accounts[account].id, meta, headers));
    let one = to.as_ref().or(from.as_ref());
    // One address's mails are indexed; anything else walks the mailbox.
    let body = match (one, page.get("message_id")) {
        (Some(address), _) => {
            let numbers = w.mail_by_address.get(&(account, address.clone())).map_or(&[][..], Vec::as_slice);
            let mails = numbers.iter().rev().filter_map(|n| w.mails.get(*n));
            page.list("EmailList", mails.filter(wanted).map(shown))
        }
        (None, Some(id)) => {
            let mail = w.mail(id);
            page.list("EmailList", mail.into_iter().filter(wanted).map(shown))
        }
        (None, None) => page.list("EmailList", w.mails.iter().rev().filter(wanted).map(shown)),
    };
    Ok((200, body))
}

pub(super) fn get(w: &mut World, call: &Call) -> Answer {
    let account = call.query("account_id").map(|a| w.account(Some(a), Some(AccountKind::Mail))).transpose()?;
    let found = w.mail(call.part(1));
    // The provider's id needs the account; ours does not.
    let mail = found
        .filter(|m| account.map_or(m.id == call.part(1), |a| m.account == a))
        .ok_or_else(|| Problem::missing("email"))?;
    w.connected(mail.account)?;
    let headers = call.query_flag("include_headers");
    Ok((200, mail.json(&w.accounts[mail.account].id, false, headers)))
}
