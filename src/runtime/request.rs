//! What a send hands to the provider: whom, and which texts.

use serde_json::Value;

use super::roster::FlowError;
use super::shared::Shared;
use super::{note, thread};
use crate::domain::account::Account;
use crate::domain::flow::Track;
use crate::domain::template::{self, fields};
use crate::domain::{address, limits};
use crate::provider::{Recipient, SendRequest};
use crate::store::send::Dispatch;

/// What is handed to the provider: the row's texts once it has been claimed, else the flow's, rendered now. Takes the
/// prospect out of the row.
pub(super) async fn of(shared: &Shared, account: &Account, row: &mut Dispatch) -> Result<SendRequest, FlowError> {
    let unfit = FlowError::Unrunnable;
    let recipient = recipient(row);
    let link = shared.unsubscribing.url(row.send.action, row.send.execution);
    if row.dispatch_count > 0 {
        let (subject, body) = (row.subject.clone(), row.body.clone());
        let reply_to = thread::of_row(shared, row).await.and_then(|t| t.message_id);
        let track = thread::track_of_row(shared, row).await;
        return Ok(SendRequest { reply_to, track, ..request_of(account, row, recipient, (subject, body), link) });
    }
    let flow = shared.roster.flow(row.send.campaign, row.send.flow_version).await?;
    let step = flow.step(row.send.step).ok_or_else(|| unfit(format!("the flow has no step {}", row.send.step)))?;
    let thread = thread::of_step(shared, row, step).await?;
    let mut variables = fields::of_prospect(row.prospect.take());
    if let (Some(object), Some(link)) = (variables.as_object_mut(), &link) {
        object.insert(template::UNSUBSCRIBE_URL.into(), link.as_str().into());
    }
    let render = |what: &str, text: &Option<String>| {
        text.as_deref()
            .map(|t| template::render(t, &variables))
            .transpose()
            .map_err(|e| unfit(format!("cannot render the {what} of step `{}`: {e}", step.id)))
    };
    let subject = step
        .subject
        .as_deref()
        .map(|t| template::render_line(t, &variables))
        .transpose()
        .map_err(|e| unfit(format!("cannot render the subject of step `{}`: {e}", step.id)))?;
    let subject = thread::subject(step, thread.as_ref(), subject).map_err(unfit)?;
    let left_out = note::is_left_out(shared, row, step).await?;
    let body = if left_out { None } else { render("message", &step.message)? };
    let check = |body: &Option<String>| {
        let kind = account.budget.as_ref().map(|b| b.kind);
        limits::check_for(kind, step.action, subject.as_deref(), body.as_deref())
            .map_err(|e| unfit(format!("step `{}`: {e}", step.id)))
    };
    let body = match check(&body) {
        // Too long for this account alone: it would be refused, and have used up a note.
        Err(_) if step.goes_without_note() && limits::check(step.action, None, body.as_deref()).is_ok() => None,
        fits => fits.map(|()| body)?,
    };
    let reply_to = thread.and_then(|t| t.message_id);
    Ok(SendRequest { reply_to, track: step.track, ..request_of(account, row, recipient, (subject, body), link) })
}

fn request_of(
    account: &Account,
    row: &Dispatch,
    recipient: Recipient,
    (subject, body): (Option<String>, Option<String>),
    unsubscribe_url: Option<String>,
) -> SendRequest {
    SendRequest {
        send: row.send.id,
        provider_account_id: account.provider_account_id.clone(),
        action: row.send.action,
        recipient,
        subject,
        body,
        reply_to: None,
        track: Track::default(),
        unsubscribe_url,
    }
}

/// The first of these that has a value. One with a line break is none: it could add a header to a mail.
fn text(prospect: &Value, keys: &[&str]) -> Option<String> {
    let value = |key: &&str| prospect.get(*key)?.as_str().map(str::trim).filter(|t| !t.is_empty());
    keys.iter().filter_map(value).find(|t| address::is_one_line(t)).map(str::to_owned)
}

/// Column names differ between databases that are taken over: the usual ones are tried in order.
fn recipient(row: &Dispatch) -> Recipient {
    let prospect = &row.prospect;
    let learnt = (row.learnt.recipient_id.clone(), row.learnt.chat_id.clone());
    // Whoever it went to, and not who the prospect has become since.
    if let Some(claimed) = row.recipient.as_ref().filter(|_| row.dispatch_count > 0) {
        let told = |key: &str| claimed.get(key).and_then(Value::as_str).map(str::to_owned);
        return Recipient {
            name: if claimed.get("name").is_some() { told("name") } else { fields::person_name(prospect) },
            linkedin: told("linkedin"),
            email: told("email"),
            phone: told("phone"),
            recipient_id: told("recipient_id").or(learnt.0),
            chat_id: told("chat_id").or(learnt.1),
        };
    }
    Recipient {
        name: fields::person_name(prospect),
        linkedin: text(prospect, &["linkedin_url", "linkedin_profile_url", "linkedin", "linkedin_id"]),
        email: text(prospect, &["email", "email_address"]),
        phone: text(prospect, &["phone", "phone_number", "whatsapp"]),
        recipient_id: learnt.0,
        chat_id: learnt.1,
    }
}

pub(super) fn recipient_json(recipient: &Recipient) -> Value {
    serde_json::json!({
        "name": recipient.name, "linkedin": recipient.linkedin, "email": recipient.email, "phone": recipient.phone,
        "recipient_id": recipient.recipient_id, "chat_id": recipient.chat_id,
    })
}
