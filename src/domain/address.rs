//! Addresses of people: what is one, and the form in which two spellings of one meet.
//!
//! The same rules stand in the migrations as `campaignd_linkedin_slug` and `campaignd_phone_digits`. Called by uploads, by the
//! list of those who are not written to, and where a send is put together.

use std::borrow::Cow;

/// Longest mail address, in bytes.
const EMAIL_MAX: usize = 254;
/// Longest LinkedIn URL, in characters.
const URL_MAX: usize = 500;

/// An address of the plain `local@domain.tld` kind: what mail servers take everywhere. The case is left as it is.
///
/// # Errors
/// What is wrong with it.
pub fn email(text: &str) -> Result<&str, String> {
    let no = |why: &str| Err(format!("is not a mail address: {why}"));
    if text.len() > EMAIL_MAX {
        return no("longer than 254 characters");
    }
    let Some((local, domain)) = text.rsplit_once('@') else { return no("no @") };
    let local_ok = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&b);
    if local.is_empty() || local.len() > 64 || !local.bytes().all(local_ok) {
        return no("the part before the @ is empty, too long or holds a character it cannot have");
    }
    if local.starts_with('.') || local.ends_with('.') || local.contains("..") {
        return no("a dot at an end or two in a row before the @");
    }
    if !is_domain(domain) {
        return no("the part after the @ is no domain");
    }
    Ok(text)
}

/// Whether this is a domain that mail can be sent to: two labels or more, the last of them not a number.
pub fn is_domain(text: &str) -> bool {
    let labels: Vec<&str> = text.split('.').collect();
    let label_ok = |l: &&str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    let digits_only = |l: &str| l.bytes().all(|b| b.is_ascii_digit());
    text.len() <= 253
        && labels.len() >= 2
        && labels.iter().all(label_ok)
        && !labels.last().is_some_and(|l| digits_only(l))
}

/// Six to fifteen digits, with `+` where it was given (`00` counts as one), without the usual separators.
///
/// # Errors
/// What is wrong with it.
pub fn phone(text: &str) -> Result<String, String> {
    let (plus, rest) = match text.strip_prefix('+') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if let Some(c) = rest.chars().find(|c| !c.is_ascii_digit() && !" -./()\u{a0}".contains(*c)) {
        return Err(format!("is not a phone number: holds {c:?}"));
    }
    let mut digits: String = rest.chars().filter(char::is_ascii_digit).collect();
    let international = plus || digits.starts_with("00");
    if !plus && international {
        digits.drain(..2);
    }
    if !(6..=15).contains(&digits.len()) || digits.bytes().all(|b| b == b'0') {
        return Err(format!("is not a phone number: {} digits; 6 to 15", digits.len()));
    }
    Ok(if international { format!("+{digits}") } else { digits })
}

/// Whether a slug is a LinkedIn member id, whose case carries meaning.
pub fn is_member_id(slug: &str) -> bool {
    let tail = slug.strip_prefix("ACo").or_else(|| slug.strip_prefix("ACw"));
    tail.is_some_and(|t| t.len() >= 10 && t.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'))
}

/// The slug of `linkedin.com/in/<slug>`, of any sub-domain and with or without `https://`; or a bare slug or provider id. The
/// case is left as it is.
///
/// # Errors
/// What is wrong with it.
pub fn linkedin_slug(text: &str) -> Result<&str, String> {
    let length = text.chars().count();
    if length > URL_MAX {
        return Err(format!("is {length} characters long; at most {URL_MAX}"));
    }
    let expected = || "is not a LinkedIn profile: expected https://www.linkedin.com/in/<name>".to_owned();
    let bare = without_scheme(text);
    let slug = match bare.split_once('/') {
        Some((host, path)) => {
            if !is_linkedin(host) {
                return Err(expected());
            }
            let rest = path.strip_prefix("in/").ok_or_else(expected)?;
            rest.split(['/', '?', '#']).next().unwrap_or_default()
        }
        None => bare,
    };
    // Slugs are written in any script, percent-encoded or not.
    let slug_ok = |c: char| c.is_alphanumeric() || "-_%".contains(c);
    if slug.is_empty() || slug.chars().count() > 200 || !slug.chars().all(slug_ok) {
        return Err(expected());
    }
    Ok(slug)
}

/// Whether this is the address of a page of LinkedIn.
pub fn is_linkedin_url(text: &str) -> bool {
    without_scheme(text).split_once('/').is_some_and(|(host, _)| is_linkedin(host))
}

fn without_scheme(text: &str) -> &str {
    let lower = text.to_ascii_lowercase();
    ["https://", "http://"].iter().find_map(|s| lower.starts_with(s).then(|| &text[s.len()..])).unwrap_or(text)
}

fn is_linkedin(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    host == "linkedin.com" || host.ends_with(".linkedin.com")
}

/// Whether a text may stand in a header of a mail or in a request as one value: it holds no line break and no other control
/// character, and so cannot add a header of its own.
pub fn is_one_line(text: &str) -> bool {
    !text.chars().any(breaks_line)
}

/// A name as it may stand in a header of a mail: what breaks lines becomes a space, and spaces at the ends go.
pub fn one_line(text: &str) -> Cow<'_, str> {
    if is_one_line(text) {
        return Cow::Borrowed(text.trim());
    }
    let spaced: String = text.chars().map(|c| if breaks_line(c) { ' ' } else { c }).collect();
    Cow::Owned(spaced.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "))
}

/// Whether a character may not stand in a single line.
pub(crate) fn breaks_line(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_addresses_are_told_from_other_text() {
        for good in ["a@b.co", "first.last+tag@sub.example.com", "o'brien@example.ie"] {
            assert_eq!(email(good), Ok(good));
        }
        for bad in [
            "",
            "a",
            "a@",
            "@b.co",
            "a@b",
            "a b@c.de",
            "a@b..de",
            ".a@b.de",
            "a@-b.de",
            "a@b.de\nBcc: x@y.z",
            "a@1.2.3.4",
            "a@b@c.de",
        ] {
            assert!(email(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn phone_numbers_lose_their_separators_only() {
        assert_eq!(phone("+49 (30) 123-456"), Ok("+4930123456".to_owned()));
        assert_eq!(phone("0049 30 123456"), Ok("+4930123456".to_owned()));
        assert_eq!(phone("030/123456"), Ok("030123456".to_owned()));
        for bad in ["12345", "1234567890123456", "call me", "+", "000000"] {
            assert!(phone(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn linkedin_profiles_of_every_spelling_have_one_slug() {
        for good in [
            "https://www.linkedin.com/in/Ada-L/",
            "http://de.linkedin.com/in/Ada-L?trk=x",
            "linkedin.com/in/Ada-L",
            "HTTPS://LinkedIn.com/in/Ada-L#top",
            "Ada-L",
        ] {
            assert_eq!(linkedin_slug(good), Ok("Ada-L"), "{good}");
        }
        for bad in [
            "https://www.linkedin.com/company/acme",
            "https://evil.com/in/ada",
            "https://notlinkedin.com/in/ada",
            "linkedin.com/in/",
            "a b",
        ] {
            assert!(linkedin_slug(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_cannot_add_a_header() {
        for (given, kept) in [
            ("Ada Lovelace", "Ada Lovelace"),
            (" Ada\r\nBcc: spy@example.org", "Ada Bcc: spy@example.org"),
            ("A\u{0}d\u{7f}a\u{2028}L\u{85}", "A d a L"),
            ("\r\n", ""),
        ] {
            let line = one_line(given);
            assert_eq!(line, kept);
            assert!(is_one_line(&line));
        }
        assert!(!is_one_line("ada@example.org\nBcc: spy@example.org"));
    }
}
