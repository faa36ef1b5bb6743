//! The link in a mail by which a person unsubscribes: a page with a button, and what the button does. Needs no key, because the
//! token can be made by nobody else (`domain::link`).
//!
//! Nothing happens on GET, which mail scanners and previews send as well. POST is the button, or the one click of a mail
//! program (RFC 8058). Who it is about is never shown.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::Shared;
use super::error::{Problem, Result};
use super::extract::body;
use crate::domain::id::{ExecutionId, InboxId};
use crate::domain::link::{self, LinkSecret};
use crate::domain::suppression::Reason;
use crate::store::inbox::{self, NewInbox};
use crate::store::{campaign, execution, link_secret, suppression};
use crate::telemetry::trace::{Side, Stage};

/// Largest body, in bytes: one field.
pub(crate) const BODY_MAX: usize = 4 << 10;
/// The inbox source of these facts.
const SOURCE: &str = "link";
/// Within this time the same link makes no second fact; the list is looked after each time.
const SAME_FACT_SECONDS: i64 = 3600;
/// What the button sends.
const BUTTON: &[u8] = b"unsubscribe=yes";
/// What a mail program sends, as a form.
const ONE_CLICK: &[u8] = b"List-Unsubscribe=One-Click";
/// The same as a part of a multipart form, which RFC 8058 allows as well.
const ONE_CLICK_PART: (&[u8], &[u8]) = (b"name=\"List-Unsubscribe\"", b"One-Click");

/// Shows the page with the button. Changes nothing.
#[utoipa::path(get, path = "/u/{token}", tag = "unsubscribe", security(()),
    params(("token" = String, Path, description = "From the link in a mail")), responses(
    (status = 200, description = "A page with a button", body = String, content_type = "text/html"),
    (status = 404, description = "A page: no such link", body = String, content_type = "text/html")))]
pub(crate) async fn page(State(shared): State<Arc<Shared>>, Path(token): Path<String>) -> Result<Response> {
    Ok(match link::execution_of(shared.link_secret().await?, &token) {
        Some(_) => html(
            StatusCode::OK,
            "Unsubscribe",
            "<p>Press the button, and we will not write to you any more.</p>\n\
             <form method=\"post\"><input type=\"hidden\" name=\"unsubscribe\" value=\"yes\">\
             <button type=\"submit\">Unsubscribe</button></form>",
        ),
        None => unknown(),
    })
}

/// Unsubscribes. Durable when it is answered; the same again changes nothing.
#[utoipa::path(post, path = "/u/{token}", tag = "unsubscribe", security(()),
    params(("token" = String, Path, description = "From the link in a mail")),
    request_body(description = "`List-Unsubscribe=One-Click` (RFC 8058), or the form of the page",
        content_type = "application/x-www-form-urlencoded", content = String),
    responses(
    (status = 200, description = "A page: it is done", body = String, content_type = "text/html"),
    (status = 400, description = "A page: neither the button nor one click", body = String, content_type = "text/html"),
    (status = 404, description = "A page: no such link", body = String, content_type = "text/html"),
    (status = 503, description = "Not done; try again", body = super::error::Document)))]
pub(crate) async fn confirm(
    State(shared): State<Arc<Shared>>,
    Path(token): Path<String>,
    request: Request,
) -> Result<Response> {
    let Some(execution) = link::execution_of(shared.link_secret().await?, &token) else { return Ok(unknown()) };
    let body = body(request, &()).await?;
    if !is_meant(&body) {
        return Ok(html(
            StatusCode::BAD_REQUEST,
            "Nothing was changed",
            "<p>Please open the link again and press the button.</p>",
        ));
    }
    if !unsubscribe(&shared, execution).await? {
        return Ok(unknown());
    }
    Ok(html(StatusCode::OK, "You are unsubscribed", "<p>We will not write to you any more.</p>"))
}

fn is_meant(body: &[u8]) -> bool {
    let holds = |part: &[u8]| body.windows(part.len()).any(|w| w == part);
    holds(BUTTON) || holds(ONE_CLICK) || (holds(ONE_CLICK_PART.0) && holds(ONE_CLICK_PART.1))
}

/// Puts the person on the list and the fact into the inbox, from where it is applied; false when there is no such person any
/// more. The list first: from then on nothing is sent, whatever becomes of the rest.
async fn unsubscribe(shared: &Shared, execution: ExecutionId) -> Result<bool> {
    let pool = &shared.limits.facts;
    let now = shared.app.clock.now();
    let Some((workspace, prospect)) = execution::person_of(pool, execution).await? else { return Ok(false) };
    suppression::add_people(pool, &[execution], Reason::Unsubscribed, now).await?;
    let fact = json!({ "execution_id": execution.0, "prospect_id": prospect.0, "trigger": "unsubscribe" });
    let period = now.as_micros().div_euclid(SAME_FACT_SECONDS * 1_000_000);
    let new = NewInbox {
        workspace,
        id: InboxId(campaign::new_id(now)),
        source: SOURCE.to_owned(),
        dedupe_key: format!("{SOURCE}:{execution}:{period}"),
        headers: None,
        body: fact.to_string().into_bytes(),
        received_at: now,
        shard: Some(execution.shard()),
    };
    Stage::within("store", Side::Inside).run(inbox::store(pool, &new)).await?;
    shared.app.runtime.inbox();
    tracing::info!(execution.id = %execution, "unsubscribed by link");
    Ok(true)
}

impl Shared {
    /// The key of the links. Read once; made by the first call of an installation.
    async fn link_secret(&self) -> Result<&LinkSecret> {
        let read = || link_secret::unsubscribe(&self.limits.facts, self.app.clock.now());
        self.link_secret.get_or_try_init(read).await.map_err(Problem::from)
    }
}

/// One answer for every link that is none of ours.
fn unknown() -> Response {
    html(StatusCode::NOT_FOUND, "This link does not work", "<p>Please open the link from the mail once more.</p>")
}

/// A page that needs no script and loads nothing.
fn html(status: StatusCode, title: &str, content: &str) -> Response {
    let page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"robots\" content=\"noindex\">\n<title>{title}</title>\n\
         <style>body{{font:1.125rem/1.5 system-ui,sans-serif;max-width:32rem;margin:4rem auto;padding:0 1rem;color:#111;\
         background:#fff}}button{{font:inherit;padding:.75rem 1.5rem;border:0;border-radius:.25rem;background:#0b57d0;\
         color:#fff;cursor:pointer}}button:focus-visible{{outline:.2rem solid #111;outline-offset:.2rem}}</style>\n\
         </head>\n<body>\n<main>\n<h1>{title}</h1>\n{content}\n</main>\n</body>\n</html>\n"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        ),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    let mut response = (status, page).into_response();
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_button_and_both_forms_of_one_click_are_meant_and_nothing_else() {
        for meant in [
            "unsubscribe=yes",
            "List-Unsubscribe=One-Click",
            "List-Unsubscribe=One-Click&x=1",
            "--b\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n--b--\r\n",
        ] {
            assert!(is_meant(meant.as_bytes()), "{meant}");
        }
        for other in ["", "List-Unsubscribe", "One-Click", "unsubscribe=no"] {
            assert!(!is_meant(other.as_bytes()), "{other}");
        }
    }
}
