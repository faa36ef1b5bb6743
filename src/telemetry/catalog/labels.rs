//! The labels of metrics, and all values of each.

use super::Label;

pub(super) const CHANNEL: Label = Label { name: "channel", values: &["linkedin", "email", "whatsapp"] };
/// What contacts somebody; `wait` does not.
pub(super) const ACTION: Label = Label {
    name: "action",
    values: &[
        "send_linkedin_cr",
        "send_linkedin_message",
        "send_linkedin_inmail",
        "visit_linkedin_profile",
        "send_email",
        "send_whatsapp",
    ],
};
pub(super) const TRIGGER: Label = Label {
    name: "trigger",
    values: &[
        "adopted",
        "due",
        "check_due",
        "connection_accepted",
        "reply",
        "bounce",
        "message_delivered",
        "message_read",
        "mail_opened",
        "mail_clicked",
        "human_took_over",
        "unsubscribe",
        "suppressed",
        "send_finished",
        "send_resolved",
        "pause",
        "resume",
        "skip",
        "restart",
        "stop",
        "quarantine",
    ],
};
pub(super) const LIST: Label = Label { name: "list", values: &["messages", "relations"] };
/// Whatever a provider calls it: what is not known is `unknown`.
pub(super) const EVENT: Label = Label {
    name: "event",
    values: &[
        "new_relation",
        "message_received",
        "message_delivered",
        "message_read",
        "message_reaction",
        "message_edited",
        "message_deleted",
        "mail_received",
        "mail_sent",
        "mail_opened",
        "mail_link_clicked",
        "account_status",
        "unknown",
        "unreadable",
    ],
};
/// Why a send was put off. `window`: its flow's; `hours`, `day`, `week`, `rest`: its account's budget; `gap`: the account's
/// spacing; `busy`: the account, or another send of the person; `quota`, `throttled`: the provider says so; `unavailable`: it
/// is not up to calls.
pub(super) const DEFERRAL: Label = Label {
    name: "reason",
    values: &[
        "window",
        "hours",
        "day",
        "week",
        "rest",
        "gap",
        "busy",
        "campaign",
        "account",
        "quota",
        "throttled",
        "unavailable",
    ],
};
/// Connections to the database that are shared.
pub(super) const POOLS: Label = Label { name: "pool", values: &["api", "facts", "engine"] };
/// The parts of a reaction, each by what ends it.
pub(super) const STAGE: Label = Label { name: "stage", values: &["stored", "found", "taken", "committed", "called"] };
/// Why an execution has ended.
pub(super) const EXIT: Label = Label {
    name: "reason",
    values: &[
        "finished",
        "replied",
        "unsubscribed",
        "suppressed",
        "bounced",
        "timeout",
        "stopped",
        "error",
        "quarantined",
    ],
};
/// Classes of Postgres' errors, by SQLSTATE.
pub(super) const CLASS: Label = Label {
    name: "class",
    values: &["connection", "serialization", "constraint", "resources", "timeout", "shutdown", "other"],
};

pub(super) const fn label(name: &'static str, values: &'static [&'static str]) -> Label {
    Label { name, values }
}
