//! The endpoints under `/api/v1`: how each is called, and the operation behind it.

use axum::http::Method;

use super::call::Call;
use super::wire::Answer;
use super::world::World;
use super::{
    wire_accounts as accounts, wire_attendees as attendees, wire_chats as chats, wire_emails as emails,
    wire_invites as invites, wire_mailbox as mailbox, wire_messages as messages, wire_users as users,
    wire_webhooks as webhooks,
};

/// What an endpoint does. A plain function over the world, so that none can hold its lock over an await.
pub(super) type Op = fn(&mut World, &Call) -> Answer;

/// Every endpoint with its name. What is in braces stands for anything, so the literal ones come first.
const ROUTES: [(&str, Op); 31] = [
    ("GET /users/me", users::me),
    ("GET /users/relations", users::relations),
    ("GET /users/invite/sent", invites::sent),
    ("DELETE /users/invite/sent/{invitation_id}", invites::withdraw),
    ("GET /users/invite/received", invites::received),
    ("POST /users/invite/received/{invitation_id}", invites::handle),
    ("POST /users/invite", invites::invite),
    ("GET /users/{identifier}", users::profile),
    ("POST /chats", chats::start),
    ("GET /chats", messages::chats),
    ("GET /chats/{chat_id}", messages::chat),
    ("POST /chats/{chat_id}/messages", chats::send),
    ("GET /chats/{chat_id}/messages", messages::of_chat),
    ("GET /chats/{chat_id}/attendees", attendees::of_chat),
    ("GET /messages", messages::all),
    ("GET /messages/{message_id}", messages::get),
    ("GET /messages/{message_id}/attachments/{attachment_id}", messages::attachment_bytes),
    ("GET /chat_attendees", attendees::list),
    ("GET /chat_attendees/{attendee_id}", attendees::get),
    ("GET /chat_attendees/{attendee_id}/chats", attendees::chats),
    ("GET /chat_attendees/{sender_id}/messages", attendees::messages),
    ("POST /emails", emails::send),
    ("GET /emails", mailbox::list),
    ("GET /emails/{email_id}", mailbox::get),
    ("GET /accounts", accounts::list),
    ("GET /accounts/{id}", accounts::get),
    ("DELETE /accounts/{id}", accounts::delete),
    ("POST /hosted/accounts/link", accounts::hosted_link),
    ("POST /webhooks", webhooks::create),
    ("GET /webhooks", webhooks::list),
    ("DELETE /webhooks/{id}", webhooks::delete),
];

/// The operation behind a method and a path, with the name faults know it by.
pub(super) fn route(method: &Method, path: &[&str]) -> Option<(&'static str, Op)> {
    ROUTES.iter().find(|(label, _)| fits(label, method.as_str(), path)).copied()
}

fn fits(label: &str, method: &str, path: &[&str]) -> bool {
    let Some(pattern) = label.strip_prefix(method).and_then(|rest| rest.strip_prefix(" /")) else { return false };
    let mut parts = pattern.split('/');
    path.iter().all(|part| parts.next().is_some_and(|p| p.starts_with('{') || p == *part)) && parts.next().is_none()
}

/// The name of the endpoint that `POST /users/invite` and its like mean: also with `/api/v1` in front, other names in the
/// braces, or a slash too many or too few. `Err` says what there is.
pub(super) fn endpoint(name: &str) -> Result<&'static str, String> {
    let (method, path) = name.split_once(' ').unwrap_or_default();
    let path: Vec<&str> = path.trim().trim_start_matches("/api/v1").trim_matches('/').split('/').collect();
    let label =
        Method::from_bytes(method.as_bytes()).ok().and_then(|method| route(&method, &path)).map(|(label, _)| label);
    // Somebody's name where any stands would never be met: requests are known by their endpoint.
    let aimed = |label: &str| {
        let parts = label.split('/').skip(1).zip(&path);
        parts.into_iter().any(|(pattern, part)| pattern.starts_with('{') && !part.starts_with('{'))
    };
    label.filter(|label| !aimed(label)).ok_or_else(|| {
        let all: Vec<&str> = ROUTES.iter().map(|(label, _)| *label).collect();
        format!("{name:?} is no endpoint; whom it is about is said by \"about\". There are *, {}", all.join(", "))
    })
}

/// Whether a request changes something outside: those are watched for overlaps.
pub(super) fn changes(label: &str) -> bool {
    !label.starts_with("GET ") && ![" /webhooks", " /accounts", " /hosted"].iter().any(|p| label.contains(p))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_known_by_any_spelling_of_its_name_but_not_by_somebody_in_its_path() {
        for (name, label) in [
            ("POST /chats", "POST /chats"),
            ("POST chats", "POST /chats"),
            ("POST /chats/", "POST /chats"),
            ("POST /api/v1/chats/{id}/messages", "POST /chats/{chat_id}/messages"),
            ("GET /users/{who}", "GET /users/{identifier}"),
            ("GET /users/me", "GET /users/me"),
        ] {
            assert_eq!(endpoint(name), Ok(label), "{name}");
        }
        for name in ["GET /users/jane-doe", "POST /messages/send", "post /chats", "/chats", "", "GET /"] {
            assert!(endpoint(name).unwrap_err().contains("POST /users/invite,"), "{name}");
        }
    }

    #[test]
    fn every_endpoint_is_found_by_its_own_name() {
        for (label, _) in ROUTES {
            assert_eq!(endpoint(label), Ok(label));
        }
    }
}
