//! How long a text may be. The templates of a flow are held to it when they are saved, without their variables; what was
//! made of them is held to it again before anybody is called, because a long name can make a text too long.
//!
//! Lengths are counted in characters, as the provider does. Called by `flow` and by whoever renders.

use super::budget::AccountKind;
use super::send::Action;

/// LinkedIn's longest invitation note.
const NOTE_MAX: usize = 300;
/// The same of an account without a subscription. What the provider refuses has used up one of its few notes.
const FREE_NOTE_MAX: usize = 200;
/// LinkedIn's longest message.
const LINKEDIN_MAX: usize = 8000;
/// LinkedIn's longest InMail.
const INMAIL_MAX: usize = 1900;
/// LinkedIn's longest subject of an InMail.
const INMAIL_SUBJECT_MAX: usize = 200;
/// The longest WhatsApp message we send. The app takes more; flows never did.
const WHATSAPP_MAX: usize = 8000;
/// The longest subject of a mail: a header line (RFC 5322).
const MAIL_SUBJECT_MAX: usize = 998;

/// The longest text of an action; `None` where there is no limit, or no text.
pub const fn text_max(action: Action) -> Option<usize> {
    match action {
        Action::SendLinkedinCr => Some(NOTE_MAX),
        Action::SendLinkedinMessage => Some(LINKEDIN_MAX),
        Action::SendLinkedinInmail => Some(INMAIL_MAX),
        Action::SendWhatsapp => Some(WHATSAPP_MAX),
        Action::SendEmail | Action::VisitLinkedinProfile | Action::Wait => None,
    }
}

/// The longest subject of an action; `None` for those that have none.
pub const fn subject_max(action: Action) -> Option<usize> {
    match action {
        Action::SendEmail => Some(MAIL_SUBJECT_MAX),
        Action::SendLinkedinInmail => Some(INMAIL_SUBJECT_MAX),
        Action::SendLinkedinCr
        | Action::SendLinkedinMessage
        | Action::VisitLinkedinProfile
        | Action::SendWhatsapp
        | Action::Wait => None,
    }
}

/// What the text of an action is called, for messages to people.
pub const fn text_name(action: Action) -> &'static str {
    match action {
        Action::SendLinkedinCr => "an invitation note",
        Action::SendLinkedinMessage => "a LinkedIn message",
        Action::SendLinkedinInmail => "an InMail",
        Action::SendEmail => "a mail",
        Action::SendWhatsapp => "a WhatsApp message",
        Action::VisitLinkedinProfile | Action::Wait => "this action",
    }
}

/// Checks what is about to be handed to the provider.
///
/// # Errors
/// A sentence for people: what is too long, by how much.
pub fn check(action: Action, subject: Option<&str>, text: Option<&str>) -> Result<(), String> {
    let over = |what: &str, text: &str, most: usize| {
        let length = text.chars().count();
        if length <= most {
            return Ok(());
        }
        Err(format!("{what} has at most {most} characters, this one has {length} with its variables: shorten it"))
    };
    if let (Some(text), Some(most)) = (text, text_max(action)) {
        // Blanks around a text are not sent.
        over(text_name(action), text.trim(), most)?;
    }
    if let (Some(subject), Some(most)) = (subject, subject_max(action)) {
        over("a subject", subject.trim(), most)?;
    }
    Ok(())
}

/// The same, when it is known what the account is.
///
/// # Errors
/// As [`check`].
pub fn check_for(
    kind: Option<AccountKind>,
    action: Action,
    subject: Option<&str>,
    text: Option<&str>,
) -> Result<(), String> {
    check(action, subject, text)?;
    let length = text.map_or(0, |text| text.trim().chars().count());
    if (kind, action) == (Some(AccountKind::LinkedinFree), Action::SendLinkedinCr) && length > FREE_NOTE_MAX {
        return Err(format!(
            "a note of a LinkedIn account without a subscription has at most {FREE_NOTE_MAX} characters, this one has {length} \
             with its variables: shorten it, or say in the account's limits which `kind` it is"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_the_last_length_passes_and_one_more_character_does_not() {
        for action in Action::ALL {
            if let Some(most) = text_max(*action) {
                assert_eq!(check(*action, None, Some(&"ü".repeat(most))), Ok(()), "{action}");
                let error = check(*action, None, Some(&"ü".repeat(most + 1))).unwrap_err();
                assert!(error.contains(&format!("{most} characters, this one has {}", most + 1)), "{error}");
            }
            if let Some(most) = subject_max(*action) {
                assert_eq!(check(*action, Some(&"s".repeat(most)), None), Ok(()), "{action}");
                assert!(check(*action, Some(&"s".repeat(most + 1)), None).is_err(), "{action}");
            }
        }
    }

    #[test]
    fn a_free_account_has_shorter_notes() {
        let (free, paid) = (Some(AccountKind::LinkedinFree), Some(AccountKind::LinkedinPremium));
        let check = |kind, length: usize| check_for(kind, Action::SendLinkedinCr, None, Some(&"n".repeat(length)));
        assert!(check(free, 200).is_ok() && check(paid, 300).is_ok() && check(None, 300).is_ok());
        let error = check(free, 201).unwrap_err();
        assert!(error.contains("at most 200 characters, this one has 201"), "{error}");
        assert!(check(paid, 301).is_err());
        assert_eq!(check_for(free, Action::SendLinkedinMessage, None, Some(&"m".repeat(300))), Ok(()));
    }

    #[test]
    fn a_mail_is_as_long_as_it_is_and_what_is_not_there_is_not_too_long() {
        assert_eq!(check(Action::SendEmail, Some("Hi"), Some(&"x".repeat(100_000))), Ok(()));
        assert_eq!(check(Action::SendLinkedinCr, None, None), Ok(()));
        assert_eq!(check(Action::SendLinkedinCr, None, Some(&format!(" {} \n", "n".repeat(300)))), Ok(()));
    }
}
