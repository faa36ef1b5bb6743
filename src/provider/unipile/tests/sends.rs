//! Sending: what goes over the wire, and what comes of each answer.

use std::time::Duration;

use serde_json::{Value, json};

use super::server::{Server, client, error, golden, nobody, raw, to_jane};
use crate::domain::flow::Track;
use crate::domain::send::{Action, FailureClass, Receipt};
use crate::provider::{Provider, SendFailure, SendRequest};

const PROFILE: &str = "GET /api/v1/users/jane-doe";
const PROFILE_BY_ID: &str = "GET /api/v1/users/ACoJane";
const INVITE: &str = "POST /api/v1/users/invite";
const START_CHAT: &str = "POST /api/v1/chats";
const IN_CHAT: &str = "POST /api/v1/chats/chat-1/messages";
const MAIL: &str = "POST /api/v1/emails";

fn profile() -> Value {
    json!({"object": "UserProfile", "provider_id": "ACoJane", "is_relationship": 0, "network_distance": "SECOND_DEGREE"})
}

fn jane() -> Option<String> {
    Some("ACoJane".into())
}

/// Class and code of a refusal.
fn class_of(failure: &SendFailure) -> (FailureClass, &str) {
    match failure {
        SendFailure::Refused { class, code, .. } => (*class, code),
        SendFailure::Unknown { message, .. } => panic!("unknown: {message}"),
        SendFailure::Conflict { message } => panic!("conflict: {message}"),
    }
}

#[tokio::test]
async fn an_invitation_resolves_the_person_and_goes_out_as_documented() {
    let (server, unipile) = Server::start(|call, _| match call {
        PROFILE => (200, profile()),
        INVITE => (200, json!({"object": "UserInvitationSent", "invitation_id": 7449, "usage": 75})),
        other => panic!("{other}"),
    })
    .await;
    let receipt = unipile.send(&to_jane(Action::SendLinkedinCr)).await.unwrap();
    assert_eq!(
        receipt,
        Receipt {
            recipient_id: jane(),
            invitation_id: Some("7449".into()),
            usage_percent: Some(75),
            ..Receipt::default()
        }
    );
    golden("request_invite", &json!(server.seen()));
}

#[tokio::test]
async fn an_invitation_to_a_known_person_is_one_request_and_needs_no_note() {
    let (server, unipile) = Server::start(|_, _| (200, json!({}))).await;
    let mut request = to_jane(Action::SendLinkedinCr);
    request.recipient.recipient_id = jane();
    request.body = Some("  ".into());
    unipile.send(&request).await.unwrap();
    assert_eq!(server.calls(), [INVITE]);
    assert_eq!(server.seen()[0]["json"], json!({"account_id": "acc-1", "provider_id": "ACoJane"}));
}

#[tokio::test]
async fn a_connection_is_not_invited_again() {
    for distance in [json!({"is_relationship": true}), json!({"network_distance": "FIRST_DEGREE"})] {
        let mut profile = distance;
        profile["provider_id"] = "ACoJane".into();
        let (server, unipile) = Server::start(move |_, _| (200, profile.clone())).await;
        let failure = unipile.send(&to_jane(Action::SendLinkedinCr)).await.unwrap_err();
        assert_eq!(class_of(&failure).0, FailureClass::AlreadyDone);
        assert!(matches!(failure, SendFailure::Refused { learnt, .. } if learnt.recipient_id == jane()));
        assert_eq!(server.calls(), [PROFILE]);
    }
}

#[tokio::test]
async fn an_invitation_that_is_pending_already_counts_as_sent() {
    let (server, unipile) = Server::start(|_, _| {
        (200, json!({"provider_id": "ACoJane", "invitation": {"type": "SENT", "status": "PENDING"}}))
    })
    .await;
    let receipt = unipile.send(&to_jane(Action::SendLinkedinCr)).await.unwrap();
    assert_eq!(receipt.recipient_id, jane());
    assert_eq!(server.calls(), [PROFILE]);
}

#[tokio::test]
async fn a_refusal_for_an_earlier_invitation_is_settled_by_the_profile_and_the_sent_invitations() {
    let (nobody, jane_too) = (json!([]), json!([{"id": "7449", "invited_user_id": "ACoJane"}]));
    for (invitation, pending, expected) in [
        (json!({"type": "SENT", "status": "PENDING"}), &nobody, Ok(())),
        (json!({"type": "SENT", "status": "WITHDRAWN"}), &nobody, Err(FailureClass::RecipientPermanent)),
        (json!("something new"), &nobody, Err(FailureClass::RecipientPermanent)),
        // The profile is behind.
        (Value::Null, &jane_too, Ok(())),
    ] {
        let pending = pending.clone();
        let (_, unipile) = Server::start(move |call, _| match call {
            INVITE => error(422, "already_invited_recently"),
            PROFILE_BY_ID => (200, json!({"provider_id": "ACoJane", "invitation": invitation})),
            "GET /api/v1/users/invite/sent" => (200, json!({"items": pending, "cursor": null})),
            other => panic!("{other}"),
        })
        .await;
        let mut request = to_jane(Action::SendLinkedinCr);
        request.recipient.recipient_id = jane();
        let outcome = unipile.send(&request).await;
        assert_eq!(outcome.map(|r| assert_eq!(r.recipient_id, jane())).map_err(|f| class_of(&f).0), expected);
    }
}

#[tokio::test]
async fn an_invitation_may_be_refused_for_its_note_and_one_without_a_note_never() {
    use FailureClass::{AccountQuota, NoteRefused, Rejected};
    for (status, kind, with_note, without) in [
        (400, "too_many_characters", NoteRefused, Rejected),
        (422, "cannot_resend_yet", NoteRefused, AccountQuota),
        (422, "limit_exceeded", AccountQuota, AccountQuota),
    ] {
        let (_, unipile) = Server::start(move |_, _| error(status, kind)).await;
        let mut request = to_jane(Action::SendLinkedinCr);
        request.recipient.recipient_id = jane();
        assert_eq!(class_of(&unipile.send(&request).await.unwrap_err()).0, with_note, "{kind}");
        request.body = Some(" ".into());
        assert_eq!(class_of(&unipile.send(&request).await.unwrap_err()).0, without, "{kind}");
    }
    // Nobody knows what became of that one.
    let (_, unipile) = Server::start(|_, _| error(500, "cannot_resend_yet")).await;
    let mut request = to_jane(Action::SendLinkedinCr);
    request.recipient.recipient_id = jane();
    assert!(matches!(unipile.send(&request).await, Err(SendFailure::Unknown { .. })));
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_without_a_request() {
    use FailureClass::{RecipientPermanent, Rejected};
    let (server, unipile) = Server::start(|call, _| panic!("{call}")).await;
    let mut note = to_jane(Action::SendLinkedinCr);
    note.body = Some("ü".repeat(301));
    let mut inmail = to_jane(Action::SendLinkedinInmail);
    inmail.subject = Some("s".repeat(201));
    let mut visit = to_jane(Action::VisitLinkedinProfile);
    visit.recipient.linkedin = None;
    let mut no_profile = to_jane(Action::SendLinkedinCr);
    no_profile.recipient.linkedin = Some("https://www.linkedin.com/company/acme".into());
    let mut no_mail = to_jane(Action::SendEmail);
    no_mail.recipient.email = Some("jane at acme".into());
    let mut no_phone = to_jane(Action::SendWhatsapp);
    no_phone.recipient.phone = None;
    let mut no_text = to_jane(Action::SendLinkedinMessage);
    no_text.body = None;
    for (request, expected) in [
        (note, (Rejected, "text_too_long")),
        (inmail, (Rejected, "text_too_long")),
        (visit, (RecipientPermanent, "no_linkedin")),
        (no_profile, (RecipientPermanent, "no_linkedin")),
        (no_mail, (RecipientPermanent, "no_email")),
        (no_phone, (RecipientPermanent, "no_phone")),
        (no_text, (Rejected, "empty_text")),
    ] {
        assert_eq!(class_of(&unipile.send(&request).await.unwrap_err()), expected);
    }
    assert!(server.calls().is_empty());
}

#[tokio::test]
async fn a_first_linkedin_message_starts_a_chat_whose_ids_may_be_missing() {
    let (server, unipile) = Server::start(|call, _| match call {
        PROFILE => (200, profile()),
        START_CHAT => (201, json!({"object": "ChatStarted", "chat_id": null, "message_id": null})),
        other => panic!("{other}"),
    })
    .await;
    let receipt = unipile.send(&to_jane(Action::SendLinkedinMessage)).await.unwrap();
    assert_eq!(receipt, Receipt { recipient_id: jane(), ..Receipt::default() });
    golden("request_start_chat", &json!(server.seen()));
}

#[tokio::test]
async fn a_message_in_a_known_chat_names_the_account_as_a_guard() {
    let (server, unipile) = Server::start(|_, _| (201, json!({"object": "MessageSent", "message_id": "msg-1"}))).await;
    let mut request = to_jane(Action::SendLinkedinMessage);
    request.recipient.chat_id = Some("chat-1".into());
    let receipt = unipile.send(&request).await.unwrap();
    assert_eq!((receipt.chat_id.as_deref(), receipt.message_id.as_deref()), (Some("chat-1"), Some("msg-1")));
    golden("request_send_in_chat", &json!(server.seen()));
}

#[tokio::test]
async fn a_chat_that_is_gone_is_started_anew() {
    let (server, unipile) = Server::start(|call, _| match call {
        IN_CHAT => error(404, "resource_not_found"),
        START_CHAT => (201, json!({"chat_id": "chat-2", "message_id": "msg-2"})),
        other => panic!("{other}"),
    })
    .await;
    let mut request = to_jane(Action::SendWhatsapp);
    request.recipient.chat_id = Some("chat-1".into());
    let receipt = unipile.send(&request).await.unwrap();
    assert_eq!(receipt.chat_id.as_deref(), Some("chat-2"));
    assert_eq!(receipt.recipient_id.as_deref(), Some("33612345678@s.whatsapp.net"));
    assert_eq!(server.calls(), [IN_CHAT, START_CHAT]);
}

#[tokio::test]
async fn a_mail_carries_the_send_id_everywhere_and_learns_its_message_id() {
    let (server, unipile) = Server::start(|call, _| match call {
        MAIL => (201, json!({"object": "EmailSent", "tracking_id": "JRek", "provider_id": "prov/1"})),
        "GET /api/v1/emails/prov%2F1" => (200, json!({"message_id": "a1@us.test", "thread_id": "thread-1"})),
        other => panic!("{other}"),
    })
    .await;
    let receipt = unipile.send(&to_jane(Action::SendEmail)).await.unwrap();
    assert_eq!(
        receipt,
        Receipt {
            message_id: Some("prov/1".into()),
            tracking_id: Some("JRek".into()),
            rfc_message_id: Some("<a1@us.test>".into()),
            thread_id: Some("thread-1".into()),
            ..Receipt::default()
        }
    );
    golden("request_email", &json!(server.seen()));
}

#[tokio::test]
async fn a_mail_is_sent_even_if_its_message_id_cannot_be_learnt() {
    let (_, unipile) = Server::start(|call, _| match call {
        MAIL => (201, json!({"tracking_id": "JRek", "provider_id": "prov-1"})),
        _ => error(500, "unexpected_error"),
    })
    .await;
    let receipt = unipile.send(&to_jane(Action::SendEmail)).await.unwrap();
    assert_eq!((receipt.message_id.as_deref(), receipt.rfc_message_id), (Some("prov-1"), None));
}

#[tokio::test]
async fn a_mail_whose_key_was_used_for_another_request_is_neither_refused_nor_lost() {
    let (_, unipile) = Server::start(|_, _| error(409, "resource_already_used")).await;
    let failure = unipile.send(&to_jane(Action::SendEmail)).await.unwrap_err();
    assert!(matches!(&failure, SendFailure::Conflict { message } if message.contains("409")), "{failure:?}");
}

#[tokio::test]
async fn an_account_that_is_gone_is_not_blamed_on_the_person() {
    for (account_exists, expected) in [
        (true, (FailureClass::RecipientPermanent, "errors/resource_not_found")),
        (false, (FailureClass::AccountBroken, "account_not_found")),
    ] {
        let (_, unipile) = Server::start(move |call, _| match call {
            "GET /api/v1/accounts/acc-1" if account_exists => (200, json!({"id": "acc-1"})),
            _ => error(404, "resource_not_found"),
        })
        .await;
        let failure = unipile.send(&to_jane(Action::SendLinkedinCr)).await.unwrap_err();
        assert_eq!(class_of(&failure), expected);
    }
}

#[tokio::test]
async fn a_read_that_fails_before_the_send_is_nobodys_fault() {
    for (status, kind) in [(500, "unexpected_error"), (503, "network_down"), (504, "request_timeout")] {
        let (_, unipile) = Server::start(move |_, _| error(status, kind)).await;
        let failure = unipile.send(&to_jane(Action::SendLinkedinCr)).await.unwrap_err();
        assert_eq!(class_of(&failure).0, FailureClass::Unavailable);
    }
    let unipile = client(&raw(Some(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{")).await, Duration::from_secs(30));
    let failure = unipile.send(&to_jane(Action::SendLinkedinCr)).await.unwrap_err();
    assert_eq!(class_of(&failure), (FailureClass::Unavailable, "unreadable_answer"));
    // Unless it is the person's profile that has no id.
    let (_, unipile) = Server::start(|_, _| (200, json!({"object": "UserProfile"}))).await;
    let failure = unipile.send(&to_jane(Action::SendLinkedinCr)).await.unwrap_err();
    assert_eq!(class_of(&failure), (FailureClass::RetryLater, "unreadable_answer"));
}

#[tokio::test]
async fn what_was_never_written_is_refused_and_what_may_have_been_is_unknown() {
    let mut request = to_jane(Action::SendLinkedinCr);
    request.recipient.recipient_id = jane();
    let wait = Duration::from_secs(30);
    let failure = client(&nobody().await, wait).send(&request).await.unwrap_err();
    assert_eq!(class_of(&failure), (FailureClass::Unavailable, "unreachable"));
    for answer in [
        Some(&b""[..]),
        Some(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"invitation_id\":"),
        Some(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n<ok>"),
        Some(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 4\r\n\r\n<ok>"),
        Some(b"HTTP/1.1 500 Oops\r\ncontent-length: 99\r\n\r\n{"),
        Some(b"HTTP/1.1 307 Moved\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"),
        None,
    ] {
        let wait = if answer.is_none() { Duration::from_millis(300) } else { wait };
        let outcome = client(&raw(answer).await, wait).send(&request).await;
        let Err(SendFailure::Unknown { learnt, message }) = outcome else { panic!("{answer:?}: {outcome:?}") };
        assert_eq!(learnt.recipient_id, jane());
        assert!(!message.contains("127.0.0.1"), "the address may name people: {message}");
    }
}

#[tokio::test]
async fn an_inmail_goes_by_person_with_its_subject_and_bracketed_options() {
    let (server, unipile) = Server::start(|call, _| match call {
        PROFILE => (200, profile()),
        START_CHAT => (201, json!({"object": "ChatStarted", "chat_id": "chat-7", "message_id": "msg-7"})),
        other => panic!("{other}"),
    })
    .await;
    let mut request = to_jane(Action::SendLinkedinInmail);
    // A known chat is not used: an InMail has a conversation of its own.
    request.recipient.chat_id = Some("chat-1".into());
    request.subject = Some("A\r\nquestion".into());
    let receipt = unipile.send(&request).await.unwrap();
    assert_eq!((receipt.chat_id.as_deref(), receipt.message_id.as_deref()), (Some("chat-7"), Some("msg-7")));
    golden("request_inmail", &json!(server.seen()));
}

#[tokio::test]
async fn an_inmail_without_credits_fails_its_step_and_not_the_account() {
    for (status, kind) in [
        (422, "insufficient_credits"),
        (422, "not_allowed_inmail"),
        (403, "subscription_required"),
        (403, "feature_not_subscribed"),
    ] {
        let (_, unipile) = Server::start(move |_, _| error(status, kind)).await;
        let mut request = to_jane(Action::SendLinkedinInmail);
        request.recipient.recipient_id = jane();
        assert_eq!(class_of(&unipile.send(&request).await.unwrap_err()).0, FailureClass::Rejected, "{kind}");
    }
}

#[tokio::test]
async fn a_visit_is_a_profile_read_that_its_owner_is_told_of() {
    let (server, unipile) = Server::start(|_, _| (200, profile())).await;
    let receipt = unipile.send(&to_jane(Action::VisitLinkedinProfile)).await.unwrap();
    assert_eq!(receipt, Receipt { recipient_id: jane(), ..Receipt::default() });
    golden("request_visit", &json!(server.seen()));
}

#[tokio::test]
async fn a_visit_whose_answer_is_lost_may_be_made_again() {
    let wait = Duration::from_secs(30);
    for answer in
        [&b""[..], b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"]
    {
        let outcome = client(&raw(Some(answer)).await, wait).send(&to_jane(Action::VisitLinkedinProfile)).await;
        assert_eq!(class_of(&outcome.unwrap_err()).0, FailureClass::Unavailable);
    }
    let (_, unipile) = Server::start(|_, _| error(422, "limit_exceeded")).await;
    let failure = unipile.send(&to_jane(Action::VisitLinkedinProfile)).await.unwrap_err();
    assert_eq!(class_of(&failure).0, FailureClass::AccountQuota, "what the provider refuses is no different");
}

#[tokio::test]
async fn a_follow_up_answers_the_mail_before_it_and_offers_to_unsubscribe() {
    let (server, unipile) = Server::start(|call, _| match call {
        MAIL => (201, json!({"object": "EmailSent", "tracking_id": "JRek", "provider_id": null})),
        other => panic!("{other}"),
    })
    .await;
    unipile.send(&follow_up()).await.unwrap();
    golden("request_email_in_thread", &json!(server.seen()));
}

#[tokio::test]
async fn a_tenant_that_refuses_the_standard_header_gets_the_documented_one_and_is_not_asked_again() {
    let (server, unipile) = Server::start(|_, request| {
        let headers = part(request, "custom_headers").unwrap();
        if headers.contains("List-Unsubscribe") {
            error(422, "invalid_headers")
        } else {
            (201, json!({"tracking_id": "t"}))
        }
    })
    .await;
    unipile.send(&follow_up()).await.unwrap();
    unipile.send(&follow_up()).await.unwrap();
    let seen = server.seen();
    let keys: Vec<_> = seen.iter().map(|r| r["headers"]["idempotency-key"].as_str().unwrap()).collect();
    let send = follow_up().send.to_string();
    assert_eq!(
        keys,
        [send.clone(), format!("{send}-h"), format!("{send}-h")],
        "a form of its own has a key of its own"
    );
    golden("request_email_documented_header", &seen[1]);
}

#[tokio::test]
async fn a_mail_whose_parent_is_gone_is_sent_beside_the_thread() {
    let (server, unipile) = Server::start(|_, request| match part(request, "reply_to") {
        Some(_) => error(422, "parent_mail_not_found"),
        None => (201, json!({"tracking_id": "t"})),
    })
    .await;
    unipile.send(&follow_up()).await.unwrap();
    assert_eq!(server.calls(), [MAIL, MAIL]);
    assert_eq!(part(&server.seen()[1], "subject").as_deref(), Some("Re: A question"));
}

#[tokio::test]
async fn a_refusal_that_stays_is_reported_and_not_tried_for_ever() {
    for kind in ["invalid_headers", "parent_mail_not_found"] {
        let (server, unipile) = Server::start(move |_, _| error(422, kind)).await;
        assert_eq!(class_of(&unipile.send(&follow_up()).await.unwrap_err()).0, FailureClass::Rejected);
        assert_eq!(server.calls().len(), 2, "{kind}");
    }
    let (server, unipile) = Server::start(|_, _| error(422, "invalid_headers")).await;
    assert!(unipile.send(&to_jane(Action::SendEmail)).await.is_err());
    assert_eq!(server.calls(), [MAIL], "without an unsubscribe header there is nothing to spell otherwise");
}

#[tokio::test]
async fn a_mail_is_tracked_for_what_it_is_asked_to_be() {
    for (opens, links) in [(false, false), (true, false), (false, true)] {
        let (server, unipile) = Server::start(|_, _| (201, json!({"tracking_id": "t"}))).await;
        let request = SendRequest { track: Track { opens, links }, ..to_jane(Action::SendEmail) };
        unipile.send(&request).await.unwrap();
        let options = part(&server.seen()[0], "tracking_options").unwrap();
        assert_eq!(options, json!({"opens": opens, "links": links, "label": request.send.to_string()}).to_string());
    }
}

/// The value of a form field.
fn part(request: &Value, name: &str) -> Option<String> {
    let parts = request["parts"].as_array()?;
    parts.iter().find(|p| p[0] == name).map(|p| p[1].as_str().unwrap().to_owned())
}

fn follow_up() -> SendRequest {
    let mut request = to_jane(Action::SendEmail);
    request.subject = Some("Re: A question".into());
    request.reply_to = Some("prov/1".into());
    request.unsubscribe_url = Some("https://us.test/u/abc?x=1".into());
    request
}
