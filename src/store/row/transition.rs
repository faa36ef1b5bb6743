//! The codec between a [`Trigger`] and a transition's `trigger` + `detail`, and of a send's receipt.

use serde_json::{Map, Value, json};

use super::short;
use super::state::Object;
use crate::domain::account::Channel;
use crate::domain::execution::BounceStatus;
use crate::domain::send::{FailureClass, Receipt, SendOutcome};
use crate::domain::suppression::Reason;
use crate::domain::trigger::{Sighting, Trigger};
use crate::store::clean;

/// The `detail` of a transition: a trigger's arguments, `None` when it has none. Its name is [`Trigger::name`].
pub fn trigger_detail(trigger: &Trigger) -> Option<Value> {
    match trigger {
        Trigger::Adopted
        | Trigger::Due
        | Trigger::CheckDue
        | Trigger::ConnectionAccepted
        | Trigger::Unsubscribe
        | Trigger::Pause
        | Trigger::Resume
        | Trigger::Skip
        | Trigger::Stop => None,
        Trigger::Reply { channel } | Trigger::Seen { channel, .. } | Trigger::HumanTookOver { channel } => {
            Some(json!({ "channel": channel.as_str() }))
        }
        Trigger::Bounce { status } => Some(json!({ "status": status.as_str() })),
        Trigger::Suppressed { reason } => Some(json!({ "reason": reason.as_str() })),
        Trigger::SendResolved { send, sent, by } => {
            let outcome = if *sent { SendOutcome::Sent } else { SendOutcome::NotSent };
            Some(json!({ "send": send.to_string(), "outcome": outcome.as_str(), "by": clean(by) }))
        }
        Trigger::Restart { step } => Some(json!({ "step": step })),
        Trigger::Quarantine { input } => Some(json!({ "input": clean(input) })),
        Trigger::SendFinished { send, outcome } => {
            let mut map = Map::new();
            map.insert("send".to_owned(), send.to_string().into());
            map.insert("outcome".to_owned(), outcome.as_str().into());
            match outcome {
                SendOutcome::Sent | SendOutcome::NotSent => {}
                SendOutcome::Failed { class, error } => {
                    map.insert("class".to_owned(), class.as_str().into());
                    map.insert("error".to_owned(), clean(error).into());
                }
                SendOutcome::Unknown { error } | SendOutcome::Unresolved { error } => {
                    map.insert("error".to_owned(), clean(error).into());
                }
            }
            Some(Value::Object(map))
        }
    }
}

/// The trigger that a transition's row holds: the way back from [`trigger_detail`].
///
/// # Errors
/// A sentence about what cannot be read.
pub fn trigger(name: &str, detail: Option<&Value>) -> Result<Trigger, String> {
    let o = Object::new("detail", detail)?;
    let need = |key: &'static str| o.text(key)?.ok_or_else(|| o.wrong(key));
    let channel = || Channel::parse(need("channel")?).ok_or_else(|| o.wrong("channel"));
    Ok(match name {
        "adopted" => Trigger::Adopted,
        "due" => Trigger::Due,
        "check_due" => Trigger::CheckDue,
        "connection_accepted" => Trigger::ConnectionAccepted,
        "unsubscribe" => Trigger::Unsubscribe,
        "pause" => Trigger::Pause,
        "resume" => Trigger::Resume,
        "skip" => Trigger::Skip,
        "stop" => Trigger::Stop,
        "reply" => Trigger::Reply { channel: channel()? },
        "message_delivered" => Trigger::Seen { channel: channel()?, how: Sighting::Delivered },
        "message_read" => Trigger::Seen { channel: channel()?, how: Sighting::Read },
        "mail_opened" => Trigger::Seen { channel: channel()?, how: Sighting::Opened },
        "mail_clicked" => Trigger::Seen { channel: channel()?, how: Sighting::Clicked },
        "human_took_over" => Trigger::HumanTookOver { channel: channel()? },
        "bounce" => Trigger::Bounce { status: BounceStatus::parse(need("status")?).ok_or_else(|| o.wrong("status"))? },
        "suppressed" => {
            Trigger::Suppressed { reason: Reason::parse(need("reason")?).ok_or_else(|| o.wrong("reason"))? }
        }
        "send_resolved" => Trigger::SendResolved {
            send: need("send")?.parse().map_err(|_| o.wrong("send"))?,
            sent: match need("outcome")? {
                "sent" => true,
                "not_sent" => false,
                _ => return Err(o.wrong("outcome")),
            },
            by: need("by")?.to_owned(),
        },
        "restart" => Trigger::Restart { step: o.count("step")? },
        "quarantine" => Trigger::Quarantine { input: need("input")?.to_owned() },
        "send_finished" => Trigger::SendFinished {
            send: need("send")?.parse().map_err(|_| o.wrong("send"))?,
            outcome: match need("outcome")? {
                "sent" => SendOutcome::Sent,
                "not_sent" => SendOutcome::NotSent,
                "failed" => SendOutcome::Failed {
                    class: FailureClass::parse(need("class")?).ok_or_else(|| o.wrong("class"))?,
                    error: need("error")?.to_owned(),
                },
                "unknown" => SendOutcome::Unknown { error: need("error")?.to_owned() },
                "unresolved" => SendOutcome::Unresolved { error: need("error")?.to_owned() },
                _ => return Err(o.wrong("outcome")),
            },
        },
        _ => return Err(format!("trigger '{}' is not known", short(name))),
    })
}

/// A receipt as column `receipt` holds it: only what is known. `None` when none is.
pub fn receipt_json(receipt: &Receipt) -> Option<Value> {
    let ids = [
        ("recipient_id", &receipt.recipient_id),
        ("chat_id", &receipt.chat_id),
        ("message_id", &receipt.message_id),
        ("invitation_id", &receipt.invitation_id),
        ("tracking_id", &receipt.tracking_id),
        ("rfc_message_id", &receipt.rfc_message_id),
        ("thread_id", &receipt.thread_id),
    ];
    let mut map: Map<String, Value> =
        ids.iter().filter_map(|(k, v)| v.as_deref().map(|v| ((*k).to_owned(), clean(v).into()))).collect();
    if let Some(percent) = receipt.usage_percent {
        map.insert("usage_percent".to_owned(), percent.into());
    }
    (!map.is_empty()).then_some(Value::Object(map))
}
