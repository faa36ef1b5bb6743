//! Every documented error type, and what it means.

use serde_json::json;

use super::super::errors::{ApiError, Error, Meaning};
use crate::domain::send::FailureClass;

fn meaning(status: u16, kind: &str) -> Meaning {
    let body = json!({"title": "T", "type": format!("errors/{kind}"), "status": status}).to_string();
    ApiError::read(status, body.as_bytes()).meaning()
}

/// One line a status and meaning: every type of the catalogue.
const TABLE: &[(u16, &str, &[&str])] = &[
    (
        400,
        "rejected",
        &[
            "invalid_parameters",
            "missing_parameters",
            "invalid_request",
            "malformed_request",
            "content_too_large",
            "invalid_url",
            "too_many_characters",
            "unescaped_characters",
            "limit_too_high",
            "invalid_action",
            "invalid_label",
        ],
    ),
    (401, "key_refused", &["missing_credentials", "invalid_credentials"]),
    (
        401,
        "account_broken",
        &[
            "expired_credentials",
            "disconnected_account",
            "disconnected_feature",
            "multiple_sessions",
            "wrong_account",
            "insufficient_privileges",
            "checkpoint_error",
            "invalid_checkpoint_solution",
            "expired_link",
            "captcha_not_supported",
            "invalid_imap_configuration",
            "invalid_smtp_configuration",
            "invalid_proxy_credentials",
            "invalid_credentials_but_valid_account_imap",
            "something_new",
        ],
    ),
    (
        403,
        "account_broken",
        &[
            "account_restricted",
            "action_required",
            "insufficient_permissions",
            "session_mismatch",
            "unknown_authentication_context",
        ],
    ),
    (
        403,
        "rejected",
        &[
            "account_mismatch",
            "feature_not_subscribed",
            "subscription_required",
            "resource_access_restricted",
            "something_new",
        ],
    ),
    (404, "recipient_permanent", &["resource_not_found", "invalid_resource_identifier"]),
    (409, "unknown", &["something_new"]),
    (415, "rejected", &["unsupported_media_type"]),
    (422, "already_done", &["already_connected"]),
    (
        422,
        "account_quota",
        &["cannot_resend_yet", "cannot_resend_within_24hrs", "limit_exceeded", "connection_limit_reached"],
    ),
    (
        422,
        "recipient_permanent",
        &[
            "invalid_recipient",
            "no_connection_with_recipient",
            "blocked_recipient",
            "user_unreachable",
            "cannot_invite_attendee",
            "recipient_rejected",
            "already_invited_recently",
        ],
    ),
    (
        422,
        "account_broken",
        &["invalid_account", "account_configuration_error", "unauthorized", "sender_rejected", "ip_rejected_by_server"],
    ),
    (422, "retry_later", &["provider_unreachable", "realtime_client_not_initialized"]),
    (
        422,
        "rejected",
        &[
            "unprocessable_entity",
            "action_already_performed",
            "invalid_message",
            "invalid_post",
            "not_allowed_inmail",
            "insufficient_credits",
            "payment_error",
            "parent_mail_not_found",
            "invalid_reply_subject",
            "invalid_headers",
            "send_as_denied",
            "invalid_folder",
            "invalid_thread",
            "limit_too_high",
            "cant_send_message",
            "something_new",
        ],
    ),
    (429, "account_quota", &["too_many_requests"]),
    (500, "unknown", &["unexpected_error", "provider_error", "authentication_intent_error"]),
    (501, "rejected", &["feature_not_implemented"]),
    (503, "account_broken", &["no_client_session"]),
    (503, "unknown", &["no_channel", "no_handler", "network_down", "service_unavailable"]),
    (504, "unknown", &["request_timeout"]),
    (408, "unknown", &["request_timeout"]),
];

#[test]
fn every_documented_error_type_has_its_meaning() {
    for (status, expected, kinds) in TABLE {
        let expected = FailureClass::parse(expected).map_or(Meaning::Unknown, Meaning::Refused);
        for kind in *kinds {
            assert_eq!(meaning(*status, kind), expected, "{status} {kind}");
        }
    }
}

#[test]
fn an_error_that_is_not_unipiles_blames_neither_person_nor_request() {
    let refused = |status, body: &[u8]| ApiError::read(status, body).meaning();
    for status in [403, 404, 405] {
        assert_eq!(refused(status, b"<html>"), Meaning::Refused(FailureClass::Unavailable), "{status}");
    }
    for status in [302, 408, 500, 502, 504, 520, 599] {
        assert_eq!(refused(status, b"\xff"), Meaning::Unknown, "{status}");
    }
    assert_eq!(refused(401, b""), Meaning::Refused(FailureClass::KeyRefused));
    assert_eq!(refused(429, b"[1]"), Meaning::Refused(FailureClass::AccountQuota));
}

#[test]
fn a_429_is_a_matter_of_pace_whoever_says_so_unless_it_names_a_quota() {
    let code = |kind: &str| {
        let body = json!({"type": kind}).to_string();
        Error::Api(ApiError::read(429, body.as_bytes())).code()
    };
    for kind in ["errors/too_many_requests", "errors/something_new", ""] {
        assert_eq!(code(kind), "errors/too_many_requests", "{kind}");
    }
    assert_eq!(code("errors/limit_exceeded"), "errors/limit_exceeded");
}

#[test]
fn an_error_says_what_was_answered_in_bounded_words() {
    let body = json!({"title": "Not found", "detail": "x".repeat(5000), "type": "errors/resource_not_found"});
    let error = ApiError::read(404, body.to_string().as_bytes());
    assert!(error.to_string().starts_with("404 resource_not_found: Not found (xxx"), "{error}");
    assert!(error.to_string().len() < 400);
    assert_eq!(ApiError::read(502, b"").to_string(), "502 without a type");
}
