//! What a message of an account's own owner is: the echo of a send of ours, the note of an invitation that was accepted, or
//! a person at the keyboard. Providers deliver all three alike, so it is told by what was sent.
//!
//! Called by `runtime` for facts that say "the account's owner wrote this".

use std::time::Duration;

use super::account::Channel;
use super::id::{AccountId, ExecutionId, SendId};
use super::send::{Action, SendStatus};
use super::time::Timestamp;

/// How far the provider's clock may be behind ours.
const SKEW: Duration = Duration::from_secs(120);

/// A send to the person, as its row has it. Only sends that were claimed: before that nobody can have echoed them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Which.
    pub send: SendId,
    /// Through which account.
    pub account: AccountId,
    /// When it was decided.
    pub decided_at: Timestamp,
    /// Whether the provider has told what it calls it.
    pub named: bool,
    /// Whose send it is.
    pub execution: ExecutionId,
    /// What was done.
    pub action: Action,
    /// Where it stands.
    pub status: SendStatus,
    /// Whether a person is asked what became of it.
    pub parked: bool,
    /// The subject, as it was handed to the provider.
    pub subject: Option<String>,
    /// The text, as it was handed to the provider.
    pub text: Option<String>,
}

/// A message that the account's owner wrote.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// Where.
    pub channel: Channel,
    /// Through which account.
    pub account: AccountId,
    /// The send it is, where it says so.
    pub send: Option<SendId>,
    /// When it was written.
    pub at: Option<Timestamp>,
    /// Its subject.
    pub subject: Option<&'a str>,
    /// Its text.
    pub text: Option<&'a str>,
}

/// What such a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// A send of ours.
    Ours,
    /// This send of ours, of which nobody knew whether it happened: it did.
    Settles {
        /// Whose.
        execution: ExecutionId,
        /// Which.
        send: SendId,
        /// What it did.
        action: Action,
    },
    /// The note of our invitation: a chat that begins with it begins when the invitation is accepted. With the executions
    /// that had sent it.
    NoteAccepted(Vec<ExecutionId>),
    /// A send to this person has no outcome yet, and this may be its echo: ask again later.
    Wait,
    /// A person wrote it.
    ByHand,
}

/// Judges a message by what was sent to the person, over all campaigns.
pub fn judge(own: Own<'_>, said: &[Said]) -> Ruling {
    let of_channel = || said.iter().filter(|s| s.action.channel() == Some(own.channel));
    let texts = || of_channel().filter(|s| s.action != Action::SendLinkedinCr);
    let echoed: Vec<&Said> = texts().filter(|s| is_echo(own, s)).collect();
    if !echoed.is_empty() {
        return of_ours(own, &echoed);
    }
    let noted: Vec<ExecutionId> = of_channel()
        .filter(|s| s.action == Action::SendLinkedinCr && alike(own.text, s.text.as_deref()))
        .map(|s| s.execution)
        .collect();
    if !noted.is_empty() {
        return Ruling::NoteAccepted(noted);
    }
    let open = |s: &Said| matches!(s.status, SendStatus::Dispatching | SendStatus::Unknown) && !s.parked;
    // Providers change texts now and then (links, emoji): while something is under way its echo may be this.
    if texts().any(open) { Ruling::Wait } else { Ruling::ByHand }
}

/// Which of the sends it is the echo of: one without outcome, unless it may be that of another whose name was not told.
fn of_ours(own: Own<'_>, echoed: &[&Said]) -> Ruling {
    let in_time = |s: &Said| own.at.is_none_or(|at| at + SKEW >= s.decided_at);
    let mut candidates: Vec<&Said> =
        echoed.iter().copied().filter(|s| s.account == own.account && in_time(s)).collect();
    candidates.sort_by_key(|s| (s.decided_at, s.send));
    // The call is still running: its answer tells more than its echo.
    if candidates.iter().any(|s| s.status == SendStatus::Dispatching) {
        return Ruling::Wait;
    }
    if candidates.iter().any(|s| s.status == SendStatus::Sent && !s.named) {
        return Ruling::Ours;
    }
    let open = candidates.iter().find(|s| matches!(s.status, SendStatus::Unknown | SendStatus::Pending));
    let settles = |s: &&Said| Ruling::Settles { execution: s.execution, send: s.send, action: s.action };
    open.map_or(Ruling::Ours, settles)
}

/// Whether a message could be the echo of this send, or of its note.
pub fn resembles(own: Own<'_>, said: &Said) -> bool {
    said.action.channel() == Some(own.channel) && is_echo(own, said)
}

fn is_echo(own: Own<'_>, said: &Said) -> bool {
    if let Some(send) = own.send {
        return send == said.send;
    }
    match own.channel {
        Channel::Linkedin | Channel::Whatsapp => alike(own.text, said.text.as_deref()),
        // An answer by hand may have the same subject and quotes our text: so ours must be what it begins with.
        Channel::Email => {
            let (theirs, ours) = (letters(own.text), letters(said.text.as_deref()));
            letters(own.subject) == letters(said.subject.as_deref()) && !ours.is_empty() && theirs.starts_with(&ours)
        }
    }
}

/// Whether two texts say the same: white space, punctuation and symbols are passed over, because providers change them. Two
/// texts without a letter or digit are compared as they are.
pub fn alike(a: Option<&str>, b: Option<&str>) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return false };
    match (letters(Some(a)), letters(Some(b))) {
        (a_letters, b_letters) if a_letters.is_empty() && b_letters.is_empty() => {
            let (a, b) = (a.trim(), b.trim());
            !a.is_empty() && a == b
        }
        (a, b) => a == b,
    }
}

/// The letters and digits of a text, lower case, tags left out.
fn letters(text: Option<&str>) -> String {
    let mut tag = false;
    let visible = text.unwrap_or_default().chars().filter(|c| {
        let shown = !tag && *c != '<';
        tag = if tag { *c != '>' } else { *c == '<' };
        shown
    });
    visible.filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(action: Action, status: SendStatus, text: &str) -> Said {
        Said {
            send: SendId(uuid::Uuid::from_u128(1)),
            account: ACCOUNT,
            decided_at: AT,
            named: status == SendStatus::Sent,
            execution: ExecutionId(uuid::Uuid::from_u128(7)),
            action,
            status,
            parked: false,
            subject: None,
            text: Some(text.to_owned()),
        }
    }

    fn own(channel: Channel, text: &str) -> Own<'_> {
        Own { channel, account: ACCOUNT, send: None, at: None, subject: None, text: Some(text) }
    }

    const ACCOUNT: AccountId = AccountId(uuid::Uuid::from_u128(3));
    const AT: Timestamp = Timestamp::from_micros(1_767_603_600_000_000);

    #[test]
    fn the_echo_of_a_send_without_outcome_settles_it_also_when_it_was_given_up_or_is_to_be_sent_again() {
        let text = "Hi Jane, how are you?";
        let open = said(Action::SendLinkedinMessage, SendStatus::Unknown, text);
        let settles = Ruling::Settles { execution: open.execution, send: open.send, action: open.action };
        let echo = own(Channel::Linkedin, "Hi Jane - how are you");
        for (status, parked) in
            [(SendStatus::Unknown, false), (SendStatus::Unknown, true), (SendStatus::Pending, false)]
        {
            assert_eq!(judge(echo, &[Said { status, parked, ..open.clone() }]), settles, "{status}");
        }
        // What is being called now is about to tell by itself.
        assert_eq!(judge(echo, &[Said { status: SendStatus::Dispatching, ..open.clone() }]), Ruling::Wait);
        // Written before the send was thought of, or by another account.
        let before = Own { at: Some(AT - SKEW - Duration::from_secs(1)), ..echo };
        assert_eq!(judge(before, std::slice::from_ref(&open)), Ruling::Ours);
        assert_eq!(judge(Own { at: Some(AT - SKEW), ..echo }, std::slice::from_ref(&open)), settles);
        let elsewhere = Own { account: AccountId(uuid::Uuid::from_u128(4)), ..echo };
        assert_eq!(judge(elsewhere, std::slice::from_ref(&open)), Ruling::Ours);
        // It may be that of another with this text, unless that one's name is known and so is not this.
        let other = SendId(uuid::Uuid::from_u128(2));
        let sent = |named| Said { send: other, named, status: SendStatus::Sent, ..open.clone() };
        assert_eq!(judge(echo, &[sent(false), open.clone()]), Ruling::Ours);
        assert_eq!(judge(echo, &[sent(true), open.clone()]), settles);
        // Of two the first.
        let later = Said { send: other, decided_at: AT + SKEW, ..open.clone() };
        assert_eq!(judge(echo, &[later, open]), settles);
    }

    #[test]
    fn a_mail_that_carries_our_header_is_that_send_whatever_it_says() {
        let open = Said { subject: Some("A".to_owned()), ..said(Action::SendEmail, SendStatus::Unknown, "Hi") };
        let other = Said { send: SendId(uuid::Uuid::from_u128(2)), ..open.clone() };
        let mail = Own { send: Some(other.send), ..own(Channel::Email, "something else") };
        let ruling = judge(mail, &[open, other.clone()]);
        assert!(matches!(ruling, Ruling::Settles { send, .. } if send == other.send), "{ruling:?}");
    }

    #[test]
    fn an_equal_text_is_ours_whatever_became_of_its_white_space() {
        let sends = [said(Action::SendLinkedinMessage, SendStatus::Sent, "Hi Jane,\n\nhow are  you? 🙂")];
        assert_eq!(judge(own(Channel::Linkedin, "hi jane, how are you?"), &sends), Ruling::Ours);
        let sends = [said(Action::SendWhatsapp, SendStatus::Sent, "👍")];
        assert_eq!(judge(own(Channel::Whatsapp, " 👍 "), &sends), Ruling::Ours);
        assert_eq!(judge(own(Channel::Whatsapp, "🎉"), &sends), Ruling::ByHand);
    }

    #[test]
    fn another_text_is_somebody_typing_unless_a_send_is_under_way() {
        for (status, parked, expected) in [
            (SendStatus::Sent, false, Ruling::ByHand),
            (SendStatus::Dispatching, false, Ruling::Wait),
            (SendStatus::Unknown, false, Ruling::Wait),
            (SendStatus::Unknown, true, Ruling::ByHand),
        ] {
            let sends = [Said { parked, ..said(Action::SendLinkedinMessage, status, "Hi Jane") }];
            assert_eq!(judge(own(Channel::Linkedin, "Sorry, wrong person"), &sends), expected, "{status}");
            // What is under way elsewhere is not echoed here.
            assert_eq!(judge(own(Channel::Whatsapp, "Sorry, wrong person"), &sends), Ruling::ByHand);
        }
        assert_eq!(judge(own(Channel::Linkedin, "Hello"), &[]), Ruling::ByHand);
        let nothing = Own { text: None, ..own(Channel::Linkedin, "") };
        assert_eq!(judge(nothing, &[said(Action::SendLinkedinMessage, SendStatus::Sent, "Hi")]), Ruling::ByHand);
    }

    #[test]
    fn a_notes_echo_is_an_acceptance_and_an_open_invitation_holds_nothing_up() {
        let noted = said(Action::SendLinkedinCr, SendStatus::Sent, "Hi Jane, I saw your talk");
        let accepted = Ruling::NoteAccepted(vec![noted.execution]);
        assert_eq!(judge(own(Channel::Linkedin, "Hi Jane, I saw your talk"), std::slice::from_ref(&noted)), accepted);
        assert_eq!(judge(own(Channel::Linkedin, "Thanks!"), &[noted]), Ruling::ByHand);
        let open = said(Action::SendLinkedinCr, SendStatus::Unknown, "Hi Jane");
        assert_eq!(judge(own(Channel::Linkedin, "Thanks!"), &[open]), Ruling::ByHand);
    }

    #[test]
    fn a_mail_is_ours_when_it_begins_with_our_text_and_an_answer_that_quotes_it_is_not() {
        let sent = said(Action::SendEmail, SendStatus::Sent, "Hi Jane,\nhow are you?");
        let mail = |subject, text| Own { subject: Some(subject), ..own(Channel::Email, text) };
        let sends = [Said { subject: Some("A question".to_owned()), ..sent }];
        assert_eq!(judge(mail("A question", "<p>Hi Jane,<br>how are you?</p><p>-- Ada</p>"), &sends), Ruling::Ours);
        assert_eq!(judge(mail("Re: A question", "Never mind. > Hi Jane, how are you?"), &sends), Ruling::ByHand);
    }
}
