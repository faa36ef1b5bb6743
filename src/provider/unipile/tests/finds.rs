//! Reading back: present, absent, or not known.

use serde_json::{Value, json};

use super::server::{Server, error, golden, to_jane};
use crate::domain::send::Action;
use crate::domain::time::Timestamp;
use crate::provider::{Found, Provider, SendRequest};

/// 2026-07-06T09:02:00.002Z
const SINCE: Timestamp = Timestamp::from_micros(1_783_328_520_002_345);

fn found(outcome: Result<Found, crate::provider::FindError>) -> Option<crate::domain::send::Receipt> {
    match outcome.unwrap() {
        Found::Sent(receipt) => Some(receipt),
        Found::Absent => None,
        other => panic!("{other:?}"),
    }
}

fn in_chat(action: Action) -> SendRequest {
    let mut request = to_jane(action);
    request.recipient.chat_id = Some("chat-1".into());
    request
}

fn list(items: Value) -> (u16, Value) {
    (200, json!({"object": "List", "items": items, "cursor": null}))
}

#[tokio::test]
async fn an_invitation_is_found_in_the_profile_or_on_any_page_of_the_sent_list() {
    let invited = json!({"provider_id": "ACoJane", "invitation": {"type": "SENT", "status": "PENDING"}});
    let (_, unipile) = Server::start(move |_, _| (200, invited.clone())).await;
    let receipt = found(unipile.find(&to_jane(Action::SendLinkedinCr), SINCE).await).unwrap();
    assert_eq!(receipt.recipient_id.as_deref(), Some("ACoJane"));
    let (server, unipile) = Server::start(|call, request| match call {
        "GET /api/v1/users/jane-doe" => (200, json!({"provider_id": "ACoJane"})),
        "GET /api/v1/users/invite/sent" if request["query"].as_array().unwrap().len() == 2 => {
            (200, json!({"items": [{"id": "1", "invited_user_id": null}], "cursor": "next"}))
        }
        _ => list(json!([{"id": 7449, "invited_user_id": "ACoJane"}])),
    })
    .await;
    let receipt = found(unipile.find(&to_jane(Action::SendLinkedinCr), SINCE).await).unwrap();
    assert_eq!(receipt.invitation_id.as_deref(), Some("7449"));
    golden("request_find_invitation", &json!(server.seen()));
}

#[tokio::test]
async fn an_invitation_to_a_connection_is_not_taken_for_one_that_waits() {
    let connected = json!({"provider_id": "ACoJane", "network_distance": "FIRST_DEGREE"});
    let (_, unipile) = Server::start(move |_, _| (200, connected.clone())).await;
    let found = unipile.find(&to_jane(Action::SendLinkedinCr), SINCE).await.unwrap();
    assert!(matches!(found, Found::Connected(receipt) if receipt.recipient_id.as_deref() == Some("ACoJane")));
}

#[tokio::test]
async fn an_invitation_nobody_knows_of_is_absent() {
    let (_, unipile) = Server::start(|call, _| match call {
        "GET /api/v1/users/jane-doe" => {
            (200, json!({"provider_id": "ACoJane", "invitation": {"type": "RECEIVED", "status": "PENDING"}}))
        }
        _ => list(json!([{"id": "1", "invited_user_id": "ACoOther"}])),
    })
    .await;
    assert_eq!(found(unipile.find(&to_jane(Action::SendLinkedinCr), SINCE).await), None);
}

#[tokio::test]
async fn a_message_is_found_by_its_text_among_ours_and_only_since_the_claim() {
    let text = "Hi Jane,\r\n2 < 3 &  \"so\" on — ü ";
    let at = "2026-07-06T09:01:00.000Z";
    for (message, expected) in [
        (json!({"id": "m", "text": text, "is_sender": 1, "timestamp": at}), true),
        (json!({"id": "m", "text": text, "is_sender": true}), true),
        (json!({"id": "m", "text": text, "is_sender": 0, "timestamp": at}), false),
        (json!({"id": "m", "text": "Hi Jane", "is_sender": 1, "timestamp": at}), false),
        (json!({"id": "m", "text": null, "is_sender": 1, "timestamp": at}), false),
        (json!({"id": "m", "text": text, "is_sender": 1, "timestamp": "2026-07-06T08:59:00.000Z"}), false),
    ] {
        let (server, unipile) = Server::start(move |_, _| list(json!([message]))).await;
        let receipt = found(unipile.find(&in_chat(Action::SendLinkedinMessage), SINCE).await);
        assert_eq!(receipt.is_some(), expected);
        assert_eq!(server.seen()[0]["query"][0], json!(["after", "2026-07-06T09:00:00.002Z"]));
    }
}

#[tokio::test]
async fn a_message_is_found_though_its_punctuation_was_changed_and_another_of_ours_leaves_it_open() {
    let later = "2026-07-06T09:02:30.000Z";
    for (text, is_sender, at, expected) in [
        ("hi jane 2 < 3 & 'so' on - ü!", 1, later, "sent"),
        // A shortened link, for all we know.
        ("Hi Jane, https://lnkd.in/x", 1, later, "unclear"),
        ("Hi Jane, https://lnkd.in/x", 0, later, "absent"),
        // Before the call, whatever the clocks say.
        ("Hi Jane, https://lnkd.in/x", 1, "2026-07-06T09:01:59.000Z", "absent"),
        (" ", 1, later, "absent"),
    ] {
        let message = json!({"id": "m", "text": text, "is_sender": is_sender, "timestamp": at});
        for action in [Action::SendLinkedinMessage, Action::SendWhatsapp, Action::SendLinkedinInmail] {
            let message = message.clone();
            let (_, unipile) = Server::start(move |call, _| match call {
                "GET /api/v1/messages" => list(json!([])),
                call if call.ends_with("/chats") => list(json!([{"id": "chat-1", "type": 0}])),
                call if call.ends_with("/messages") => list(json!([message])),
                _ => (200, json!({"provider_id": "ACoJane"})),
            })
            .await;
            for request in [in_chat(action), to_jane(action)] {
                let found = match unipile.find(&request, SINCE).await.unwrap() {
                    Found::Sent(_) => "sent",
                    Found::Unclear => "unclear",
                    Found::Absent => "absent",
                    Found::Connected(_) => "connected",
                };
                assert_eq!(found, expected, "{action}: {text}");
            }
        }
    }
}

#[tokio::test]
async fn an_inmail_is_looked_for_beside_the_known_chat() {
    let (_, unipile) = Server::start(|call, _| match call {
        "GET /api/v1/users/jane-doe" => (200, json!({"provider_id": "ACoJane"})),
        "GET /api/v1/chat_attendees/ACoJane/chats" => {
            list(json!([{"id": "chat-1", "type": 0}, {"id": "chat-7", "type": 0}]))
        }
        "GET /api/v1/chats/chat-1/messages" => list(json!([])),
        "GET /api/v1/chats/chat-7/messages" => {
            list(json!([{"id": "msg-7", "is_sender": 1, "text": "Hi Jane, 2 < 3 & \"so\" on — ü"}]))
        }
        other => panic!("{other}"),
    })
    .await;
    let receipt = found(unipile.find(&in_chat(Action::SendLinkedinInmail), SINCE).await).unwrap();
    assert_eq!(receipt.chat_id.as_deref(), Some("chat-7"));
}

#[tokio::test]
async fn without_a_chat_the_message_is_looked_for_in_the_chats_with_the_person() {
    let text = to_jane(Action::SendWhatsapp).body;
    let (server, unipile) = Server::start(move |call, _| match call {
        "GET /api/v1/chats/chat-1/messages" => error(404, "resource_not_found"),
        "GET /api/v1/chat_attendees/33612345678@s.whatsapp.net/chats" => {
            list(json!([{"id": "group", "type": 1}, {"id": "chat-2", "type": 0}]))
        }
        "GET /api/v1/chats/chat-2/messages" => list(json!([{"id": "m", "is_sender": 1, "text": text}])),
        other => panic!("{other}"),
    })
    .await;
    let receipt = found(unipile.find(&in_chat(Action::SendWhatsapp), SINCE).await).unwrap();
    assert_eq!((receipt.chat_id.as_deref(), receipt.message_id.as_deref()), (Some("chat-2"), Some("m")));
    golden("request_find_message", &json!(server.seen()));
}

#[tokio::test]
async fn a_person_without_a_chat_was_not_written_to() {
    let (_, unipile) = Server::start(|call, _| match call {
        "GET /api/v1/accounts/acc-1" => (200, json!({"id": "acc-1"})),
        "GET /api/v1/messages" => list(json!([])),
        _ => error(404, "resource_not_found"),
    })
    .await;
    for action in [Action::SendWhatsapp, Action::SendLinkedinMessage, Action::SendLinkedinCr] {
        assert_eq!(found(unipile.find(&to_jane(action), SINCE).await), None);
    }
}

#[tokio::test]
async fn a_whatsapp_message_is_found_though_the_person_is_listed_under_a_lid() {
    let jid = "33612345678@s.whatsapp.net";
    for (chat, expected) in [
        (json!({"attendee_provider_id": "140@lid", "attendee_public_identifier": jid}), Some(true)),
        (json!({"attendee_provider_id": "140@lid", "attendee_public_identifier": "49@s.whatsapp.net"}), Some(false)),
        // Whose number is hidden: not to be settled.
        (json!({"attendee_provider_id": "140@lid"}), None),
    ] {
        let text = to_jane(Action::SendWhatsapp).body;
        let (_, unipile) = Server::start(move |call, _| match call {
            "GET /api/v1/chat_attendees/33612345678@s.whatsapp.net/chats" => list(json!([])),
            "GET /api/v1/messages" => {
                list(json!([{"id": "m", "chat_id": "chat-2", "is_sender": 1, "text": text}, {"text": "else"}]))
            }
            "GET /api/v1/chats/chat-2" => (200, chat.clone()),
            other => panic!("{other}"),
        })
        .await;
        let outcome = unipile.find(&to_jane(Action::SendWhatsapp), SINCE).await;
        assert_eq!(outcome.map(|f| f != Found::Absent).ok(), expected);
    }
}

#[tokio::test]
async fn a_mail_is_found_by_our_header_else_by_its_subject() {
    let send = to_jane(Action::SendEmail).send.to_string();
    let ours = json!({"id": "u1", "provider_id": "p1", "message_id": "<a@us.test>", "tracking_id": "t",
        "role": "sent", "subject": "other", "headers": [{"name": "x-campaignd-send", "value": send}]});
    let similar = json!({"id": "u2", "role": "sent", "subject": " A  question", "headers": []});
    let another = json!({"id": "u3", "role": "sent", "subject": "A question",
        "headers": [{"name": "X-Campaignd-Send", "value": "another"}]});
    let theirs = json!({"id": "u4", "role": "inbox", "subject": "A question", "origin": "external"});
    for (items, expected) in [
        (json!([similar, ours]), Some("p1")),
        (json!([theirs, another, similar]), Some("u2")),
        (json!([theirs, another]), None),
    ] {
        let (server, unipile) = Server::start(move |_, _| list(items.clone())).await;
        let receipt = found(unipile.find(&to_jane(Action::SendEmail), SINCE).await);
        assert_eq!(receipt.and_then(|r| r.message_id).as_deref(), expected);
        golden("request_find_mail", &json!(server.seen()));
    }
}

#[tokio::test]
async fn absence_is_never_taken_from_a_read_that_did_not_succeed() {
    for (status, body) in [
        error(500, "unexpected_error"),
        error(401, "disconnected_account"),
        error(429, "too_many_requests"),
        // A 404, but not Unipile's: a proxy, a wrong base URL. Then: the account is gone.
        (404, json!("not found")),
        error(404, "resource_not_found"),
        // A success without a list.
        (200, json!({})),
        (200, json!([])),
    ] {
        let (_, unipile) = Server::start(move |_, _| (status, body.clone())).await;
        for action in [Action::SendLinkedinMessage, Action::SendWhatsapp, Action::SendEmail] {
            let mut request = in_chat(action);
            request.recipient.recipient_id = Some("ACoJane".into());
            assert!(unipile.find(&request, SINCE).await.is_err(), "{action} {status}");
        }
    }
}

#[tokio::test]
async fn an_inmail_is_found_by_its_text_in_a_chat_with_the_person_and_a_visit_leaves_no_trace() {
    let (server, unipile) = Server::start(|call, _| match call {
        "GET /api/v1/users/jane-doe" => (200, json!({"provider_id": "ACoJane"})),
        "GET /api/v1/chat_attendees/ACoJane/chats" => list(json!([{"id": "chat-7", "type": 0}])),
        "GET /api/v1/chats/chat-7/messages" => list(json!([{"id": "msg-7", "is_sender": 1, "message_type": "INMAIL",
            "text": "Hi Jane, 2 < 3 & \"so\" on — ü", "timestamp": "2026-07-06T09:03:00.000Z"}])),
        other => panic!("{other}"),
    })
    .await;
    let receipt = found(unipile.find(&to_jane(Action::SendLinkedinInmail), SINCE).await).unwrap();
    assert_eq!((receipt.chat_id.as_deref(), receipt.message_id.as_deref()), (Some("chat-7"), Some("msg-7")));
    let calls = server.calls().len();
    assert_eq!(found(unipile.find(&to_jane(Action::VisitLinkedinProfile), SINCE).await), None);
    assert_eq!(server.calls().len(), calls, "and nothing is asked");
}
