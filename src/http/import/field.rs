//! Checks one value at a time, and puts a row together from its values.

use serde_json::Value;

use super::RejectedRow;
use super::columns::Column;
use crate::store::prospect::New;

/// Longest names, in characters.
const NAME_MAX: usize = 200;
/// Longest company name or title, in characters.
const TEXT_MAX: usize = 300;
/// Longest LinkedIn URL, in characters.
const URL_MAX: usize = 500;
/// Longest value of an unknown column, in characters.
pub(crate) const DATA_MAX: usize = 10_000;
/// Most unknown columns of one row.
pub(crate) const DATA_COLUMNS_MAX: usize = 100;

/// Sets one column of `row` from its text; empty text leaves it unset.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn set(row: &mut New, column: Column, text: &str) -> Result<(), String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(());
    }
    match column {
        Column::FirstName => row.first_name = Some(plain(text, NAME_MAX)?),
        Column::LastName => row.last_name = Some(plain(text, NAME_MAX)?),
        Column::Company => row.company_name = Some(plain(text, TEXT_MAX)?),
        Column::Title => row.title = Some(plain(text, TEXT_MAX)?),
        Column::Email => {
            let email = email(text)?;
            row.keys.email = Some(email.to_lowercase());
            row.email = Some(email);
        }
        Column::Phone => {
            let phone = phone(text)?;
            row.keys.phone = Some(phone.trim_start_matches('+').to_owned());
            row.phone = Some(phone);
        }
        Column::Linkedin => {
            let slug = linkedin_slug(text)?;
            // The case of a member id carries meaning; that of a name does not.
            row.keys.linkedin = Some(if is_member_id(&slug) { slug.clone() } else { slug.to_lowercase() });
            row.linkedin_url = Some(format!("https://www.linkedin.com/in/{slug}"));
        }
    }
    Ok(())
}

/// Checks a whole row.
///
/// # Errors
/// A row that names nobody we could contact.
pub(crate) fn check(line: u64, row: &New) -> Result<(), RejectedRow> {
    if row.email.is_none() && row.linkedin_url.is_none() && row.phone.is_none() {
        return Err(RejectedRow::new(line, None, "needs at least one of email, linkedin_url, phone"));
    }
    if row.data.len() > DATA_COLUMNS_MAX {
        return Err(RejectedRow::new(line, None, format!("has more than {DATA_COLUMNS_MAX} columns of its own")));
    }
    Ok(())
}

/// Text on one line, within a length.
fn plain(text: &str, max: usize) -> Result<String, String> {
    if text.chars().any(char::is_control) {
        return Err("holds a control character or a line break".to_owned());
    }
    within(text, max)?;
    Ok(text.to_owned())
}

fn within(text: &str, max: usize) -> Result<(), String> {
    let length = text.chars().count();
    if length > max { Err(format!("is {length} characters long; at most {max}")) } else { Ok(()) }
}

/// Checks a value for `data`: text within a length, and no NUL anywhere (Postgres cannot store one).
///
/// # Errors
/// What is wrong with it.
pub(crate) fn data(value: &Value) -> Result<(), String> {
    if has_nul(value) {
        return Err("holds a NUL character".to_owned());
    }
    match value {
        Value::String(text) => within(text, DATA_MAX),
        Value::Array(_) | Value::Object(_) => within(&value.to_string(), DATA_MAX),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// Whether a NUL character stands anywhere in a JSON value.
pub(crate) fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(map) => map.iter().any(|(key, value)| key.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// An address of the plain `local@domain.tld` kind: what mail servers take everywhere.
fn email(text: &str) -> Result<String, String> {
    let no = |why: &str| Err(format!("is not a mail address: {why}"));
    if text.len() > 254 {
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
    let labels: Vec<&str> = domain.split('.').collect();
    let label_ok = |l: &&str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    let digits_only = |l: &str| l.bytes().all(|b| b.is_ascii_digit());
    if labels.len() < 2 || !labels.iter().all(label_ok) || labels.last().is_some_and(|l| digits_only(l)) {
        return no("the part after the @ is no domain");
    }
    Ok(text.to_owned())
}

/// Six to fifteen digits, with `+` where it was given (`00` counts as one), without the usual separators.
fn phone(text: &str) -> Result<String, String> {
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

/// Whether a slug is a LinkedIn member id. The same rule stands in the migrations, in `campaignd_linkedin_slug`.
fn is_member_id(slug: &str) -> bool {
    let tail = slug.strip_prefix("ACo").or_else(|| slug.strip_prefix("ACw"));
    tail.is_some_and(|t| t.len() >= 10 && t.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'))
}

/// The slug of `linkedin.com/in/<slug>`, of any sub-domain and with or without `https://`; or a bare slug or provider id.
fn linkedin_slug(text: &str) -> Result<String, String> {
    within(text, URL_MAX)?;
    let expected = || "is not a LinkedIn profile: expected https://www.linkedin.com/in/<name>".to_owned();
    let lower = text.to_ascii_lowercase();
    let bare =
        ["https://", "http://"].iter().find_map(|s| lower.starts_with(s).then(|| &text[s.len()..])).unwrap_or(text);
    let slug = match bare.split_once('/') {
        Some((host, path)) => {
            let host = host.to_ascii_lowercase();
            if host != "linkedin.com" && !host.ends_with(".linkedin.com") {
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
    Ok(slug.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_addresses_are_told_from_other_text() {
        for good in ["a@b.co", "first.last+tag@sub.example.com", "o'brien@example.ie"] {
            assert_eq!(email(good), Ok(good.to_owned()));
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
            assert_eq!(linkedin_slug(good), Ok("Ada-L".to_owned()), "{good}");
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
    fn a_nul_is_found_wherever_it_hides() {
        assert!(has_nul(&serde_json::json!({"a": [{"b": "x\0"}]})));
        assert!(!has_nul(&serde_json::json!({"a": [1, null, "x"]})));
    }
}
