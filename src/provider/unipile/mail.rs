//! What an incoming mail is: an answer, a bounce or a machine. Unipile has no event for bounces, so it is read off the
//! mail itself. Pure, and total on any text.

use serde_json::Value;

use super::wire::clean;

/// How much of a body is looked at, in characters. Bounces say what they are at the top.
const SCAN_CHARS: usize = 64 * 1024;

/// Most failed addresses taken from one bounce.
const FAILED_MAX: usize = 20;

/// What an incoming mail is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MailKind {
    /// Written by a person.
    Reply,
    /// A mail of ours could not be delivered.
    Bounce {
        /// The addresses it names, lower case. May hold some that have nothing to do with it.
        failed: Vec<String>,
        /// For good; `false` while delivery is only delayed.
        hard: bool,
    },
    /// Sent by a machine: out of office, receipt of a ticket. Not an answer.
    AutoReply,
    /// In the mailbox because we sent or drafted it.
    Ours,
}

/// Names machines send undeliverable mail from.
const DAEMONS: &[&str] =
    &["mailer-daemon", "mailerdaemon", "mail-daemon", "mdaemon", "microsoftexchange329e71ec88ae4615bbc36ab6ce41109e"];

/// How the subject of a bounce begins.
const BOUNCE_SUBJECTS: &[&str] = &[
    "undeliver",
    "delivery status notification",
    "delivery failure",
    "delivery has failed",
    "delivery notification",
    "delivery incomplete",
    "delivery delayed",
    "delayed mail",
    "warning: could not send",
    "warning: message",
    "mail delivery fail",
    "mail delivery system",
    "message delivery fail",
    "mail system error",
    "message not delivered",
    "failure notice",
    "failed delivery",
    "returned mail",
    "returned to sender",
    "could not be delivered",
    "unzustellbar",
    "nicht zustellbar",
    "unzustellbare",
    "zustellung fehlgeschlagen",
    "fehler bei der zustellung",
    "non remis",
    "échec de la remise",
    "échec de remise",
    "message non distribu",
    "no se puede entregar",
    "no se ha podido entregar",
    "correo no entregado",
    "impossibile recapitare",
    "mancato recapito",
    "não foi possível entregar",
    "falha na entrega",
    "niet bezorgd",
    "onbestelbaar",
    "kan niet worden bezorgd",
    "det går inte att leverera",
    "niedostarczalne",
];

/// Words of a delivery that is still being tried.
const DELAYED: &[&str] = &[
    "delayed",
    "delivery incomplete",
    "will retry",
    "will keep trying",
    "will be retried",
    "still being attempted",
    "no need to resend",
    "do not need to resend",
    "verzögert",
    "retardé",
    "en retard",
    "retrasad",
    "in ritardo",
    "vertraagd",
];

/// Subjects of automatic answers.
const AUTO_SUBJECTS: &[&str] = &[
    "automatic reply",
    "automated reply",
    "automated response",
    "automatic response",
    "auto reply",
    "autoreply",
    "auto-reply",
    "auto response",
    "autoresponse",
    "auto-response",
    "autoresponder",
    "out of office",
    "out of the office",
    "out-of-office",
    "ooo:",
    "[ooo]",
    "away from the office",
    "on annual leave",
    "on parental leave",
    "on maternity leave",
    "on vacation",
    "vacation notice",
    "automatische antwort",
    "automatische rückantwort",
    "autom. antwort",
    "abwesenheit",
    "abwesend",
    "nicht im büro",
    "außer haus",
    "réponse automatique",
    "réponse d'absence",
    "message d'absence",
    "absence du bureau",
    "absent du bureau",
    "respuesta automática",
    "fuera de la oficina",
    "fuera de oficina",
    "resposta automática",
    "resposta automàtica",
    "fora do escritório",
    "risposta automatica",
    "fuori sede",
    "fuori ufficio",
    "automatisch antwoord",
    "automatisch bericht",
    "niet aanwezig",
    "afwezig",
    "autosvar",
    "automatiskt svar",
    "automatisk svar",
    "frånvarande",
    "fraværende",
    "automaattinen vastaus",
    "poissa toimistosta",
    "odpowiedź automatyczna",
    "automatyczna odpowiedź",
    "poza biurem",
    "automatická odpověď",
    "automatické odpovědi",
    "răspuns automat",
    "automatikus válasz",
    "otomatik yanıt",
    "автоматический ответ",
    "автоответ",
    "автоматична відповідь",
    "自動返信",
    "自动回复",
    "自動回覆",
    "자동 회신",
    "자동 응답",
    "부재중",
];

/// How the subject of an answer written by a person may begin.
const ANSWER_PREFIXES: &[&str] =
    &["re:", "re :", "aw:", "sv:", "rv:", "ref:", "antw:", "odp:", "vs:", "回复:", "回复："];

/// Sorts a `mail_received` body.
pub(super) fn kind(mail: &Value) -> MailKind {
    let role = mail.get("role").and_then(Value::as_str).unwrap_or_default();
    let origin = mail.get("origin").and_then(Value::as_str).unwrap_or_default();
    if matches!(role, "sent" | "drafts" | "draft") || origin == "unipile" {
        return MailKind::Ours;
    }
    let subject = text(mail, "subject").to_lowercase();
    let subject = subject.trim();
    let from = from_address(mail).unwrap_or_default();
    let local = from.split('@').next().unwrap_or_default();
    let is_answer = ANSWER_PREFIXES.iter().any(|p| subject.starts_with(p));
    let bounce_subject = !is_answer && BOUNCE_SUBJECTS.iter().any(|p| subject.starts_with(p));
    let daemon = DAEMONS.iter().any(|d| local.starts_with(d));
    let postmaster = local == "postmaster";
    if daemon || bounce_subject || postmaster {
        let body = body(mail);
        let status = status_class(&body);
        if daemon || bounce_subject || status.is_some() {
            let delayed = DELAYED.iter().any(|w| subject.contains(w) || body.contains(w));
            let hard = match status {
                Some(class) => class == '5',
                None => !delayed,
            };
            return MailKind::Bounce { failed: failed_addresses(mail, &from, &body), hard };
        }
        return MailKind::AutoReply;
    }
    if auto_submitted(mail) || (!is_answer && AUTO_SUBJECTS.iter().any(|p| subject.contains(p))) {
        return MailKind::AutoReply;
    }
    MailKind::Reply
}

/// The sender's address, lower case.
pub(super) fn from_address(mail: &Value) -> Option<String> {
    mail.get("from_attendee").and_then(|a| a.get("identifier")).and_then(clean).map(|a| a.to_lowercase())
}

/// A Message-ID with its angle brackets, which some providers leave out.
pub(super) fn message_id(text: &str) -> Option<String> {
    let bare = text.trim().trim_start_matches('<').trim_end_matches('>').trim();
    (!bare.is_empty()).then(|| format!("<{bare}>"))
}

fn text<'a>(mail: &'a Value, name: &str) -> &'a str {
    mail.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The body, lower case, the plain one where there is one.
fn body(mail: &Value) -> String {
    let plain = text(mail, "body_plain");
    let body = if plain.trim().is_empty() { text(mail, "body") } else { plain };
    body.chars().take(SCAN_CHARS).flat_map(char::to_lowercase).collect()
}

/// Whether a header says that a machine wrote it. Deliveries carry headers only where the tenant was set up for it.
fn auto_submitted(mail: &Value) -> bool {
    let headers = mail.get("headers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    headers.iter().any(|header| {
        let (name, value) = (text(header, "name").to_ascii_lowercase(), text(header, "value").to_ascii_lowercase());
        match name.as_str() {
            "auto-submitted" => !value.trim().is_empty() && value.trim() != "no",
            "x-autoreply" | "x-autorespond" => true,
            _ => false,
        }
    })
}

/// The class of the delivery status the body reports: `'5'` for good, `'4'` for now. Takes the `Status:` line of the
/// report before any number in the text, and for good before for now.
fn status_class(body: &str) -> Option<char> {
    if let Some(line) = body.lines().find_map(|l| l.trim().strip_prefix("status:")) {
        let class = line.trim().chars().next();
        if matches!(class, Some('4' | '5')) {
            return class;
        }
    }
    let mut soft = false;
    for word in body.split(|c: char| !(c.is_ascii_digit() || c == '.')) {
        let parts: Vec<&str> = word.trim_matches('.').split('.').collect();
        let [class, subject, detail] = parts[..] else { continue };
        if !(1..=3).contains(&subject.len()) || !(1..=3).contains(&detail.len()) {
            continue;
        }
        match class {
            "5" => return Some('5'),
            "4" => soft = true,
            _ => {}
        }
    }
    soft.then_some('4')
}

/// The addresses a bounce names, the mailbox it came to and the daemon itself left out.
fn failed_addresses(mail: &Value, from: &str, body: &str) -> Vec<String> {
    let mut own: Vec<String> = Vec::new();
    for field in ["to_attendees", "cc_attendees"] {
        for attendee in mail.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default() {
            own.extend(attendee.get("identifier").and_then(clean).map(|a| a.to_lowercase()));
        }
    }
    let reported: Vec<&str> = body
        .lines()
        .map(str::trim)
        .filter(|l| {
            ["final-recipient:", "original-recipient:", "x-failed-recipients:"].iter().any(|p| l.starts_with(p))
        })
        .collect();
    let reported = reported.join("\n");
    let mut failed: Vec<String> = Vec::new();
    for place in [reported.as_str(), body] {
        for word in place.split(|c: char| c.is_whitespace() || "<>()[]\"',;:=&|*".contains(c)) {
            let Some(address) = super::recipient::mail_address(word.trim_matches('.')) else { continue };
            let skip = address == from || own.iter().any(|o| o == address) || failed.iter().any(|f| f == address);
            let daemon = DAEMONS.iter().any(|d| address.starts_with(d)) || address.starts_with("postmaster@");
            if !skip && !daemon && failed.len() < FAILED_MAX {
                failed.push(address.to_owned());
            }
        }
        if !failed.is_empty() {
            break;
        }
    }
    failed
}
