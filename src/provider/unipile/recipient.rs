//! From what a prospect's row says to what the API takes. Pure.

use crate::provider::Recipient;

/// What the API takes as a LinkedIn person in `GET /users/{identifier}`: the last segment of a profile URL, or the text
/// itself when it is a public identifier or a provider id already. `None` when there is nothing usable.
pub(super) fn linkedin_identifier(text: &str) -> Option<String> {
    let text = text.trim();
    let path = text.split(['?', '#']).next().unwrap_or_default();
    let path = path.strip_prefix("https://").or_else(|| path.strip_prefix("http://")).unwrap_or(path);
    let mut segments = path.split('/').filter(|s| !s.is_empty());
    let first = segments.next()?;
    let slug = if first.contains('.') && first.to_ascii_lowercase().ends_with("linkedin.com") {
        // linkedin.com/in/slug, and the older linkedin.com/pub/slug and mobile /mwlite/in/slug.
        let rest: Vec<&str> = segments.collect();
        let at = rest.iter().position(|s| matches!(*s, "in" | "pub"))?;
        *rest.get(at + 1)?
    } else if first == "in" {
        segments.next()?
    } else if segments.next().is_none() && path == text {
        first
    } else {
        return None;
    };
    let slug = percent_decode(slug)?;
    let usable = !slug.is_empty()
        && slug.chars().count() <= 200
        && slug != "."
        && slug != ".."
        && !slug.chars().any(|c| c.is_control() || c.is_whitespace() || matches!(c, '/' | '@'));
    usable.then_some(slug)
}

/// Undoes percent-encoding. `None` when the result is not UTF-8.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = tail.get(..2).filter(|_| byte == b'%').and_then(|h| std::str::from_utf8(h).ok());
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(decoded) => {
                bytes.push(decoded);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

/// The WhatsApp id of a phone number in international notation: `<digits>@s.whatsapp.net`. `None` when the country is
/// missing or it is no number.
pub(super) fn whatsapp_id(phone: &str) -> Option<String> {
    let phone = phone.trim();
    let phone = phone.strip_suffix("@s.whatsapp.net").unwrap_or(phone);
    // +49 (0) 151: the zero is only dialled at home.
    let phone = phone.replace("(0)", "");
    if !phone.chars().all(|c| c.is_ascii_digit() || c.is_whitespace() || "+-./()\u{a0}".contains(c)) {
        return None;
    }
    let digits: String = phone.chars().filter(char::is_ascii_digit).collect();
    let digits = digits.strip_prefix("00").unwrap_or(&digits);
    // E.164: up to 15 digits, none of them a leading zero; fewer than 7 is a local number.
    let usable =
        (7..=15).contains(&digits.len()) && !digits.starts_with('0') && phone.rfind('+').is_none_or(|at| at == 0);
    usable.then(|| format!("{digits}@s.whatsapp.net"))
}

/// A mail address that is worth trying.
pub(super) fn mail_address(text: &str) -> Option<&str> {
    let text = text.trim();
    let (local, domain) = text.rsplit_once('@')?;
    let usable = text.len() <= 254
        && !local.is_empty()
        && domain.contains('.')
        && !domain.starts_with(['.', '-'])
        && !domain.ends_with(['.', '-'])
        && !domain.contains("..")
        && !text.chars().any(|c| c.is_control() || c.is_whitespace() || "<>,;:\"()[]\\".contains(c))
        && !local.contains('@');
    usable.then_some(text)
}

impl Recipient {
    /// The mail address, if there is a usable one.
    pub(super) fn mail(&self) -> Option<&str> {
        self.email.as_deref().and_then(mail_address)
    }

    /// What to look the LinkedIn profile up by.
    pub(super) fn linkedin_identifier(&self) -> Option<String> {
        self.linkedin.as_deref().and_then(linkedin_identifier)
    }

    /// The WhatsApp id: the learnt one, or the phone number's.
    pub(super) fn whatsapp_id(&self) -> Option<String> {
        self.recipient_id.clone().or_else(|| self.phone.as_deref().and_then(whatsapp_id))
    }
}

/// The body of a mail as HTML, which is what the API takes. Plain text is escaped and its line ends become `<br>`; text
/// that has HTML tags in it is sent as it is. (The documented alternative, a `Content-Type: text/plain` header for plain
/// text, would make two kinds of mail out of one.)
pub(super) fn html_body(text: &str) -> String {
    const TAGS: &[&str] = &[
        "<html", "<body", "<p>", "<p ", "</p>", "<br>", "<br/", "<br ", "<div", "<a href", "<table", "<span", "<ul>",
        "<ol>", "<strong>", "<em>", "<b>", "<i>",
    ];
    let lower = text.to_ascii_lowercase();
    if TAGS.iter().any(|tag| lower.contains(tag)) {
        return text.to_owned();
    }
    text.replace("\r\n", "\n").replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\n', "<br>\n")
}

/// Text for comparing: runs of white space count as one space, because providers change them.
pub(super) fn normalised(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linkedin_profile_is_named_by_its_slug() {
        for (text, slug) in [
            ("https://www.linkedin.com/in/jane-doe/", "jane-doe"),
            ("https://www.linkedin.com/in/jane-doe?utm=x/y", "jane-doe"),
            ("linkedin.com/in/jane-doe", "jane-doe"),
            ("http://de.linkedin.com/in/jane-doe/de?x#y", "jane-doe"),
            ("https://www.linkedin.com/in/j%C3%BCrgen-m", "jürgen-m"),
            ("/in/jane-doe/", "jane-doe"),
            (" jane-doe ", "jane-doe"),
            ("ACoAAA1b2", "ACoAAA1b2"),
        ] {
            assert_eq!(linkedin_identifier(text).as_deref(), Some(slug), "{text}");
        }
        for text in [
            "",
            "https://www.linkedin.com/company/acme",
            "https://www.linkedin.com/in/",
            "https://example.test/jane",
            "https://www.linkedin.com/in/..",
            "https://www.linkedin.com/in/%2e%2e",
            "https://www.linkedin.com/in/a%2Fb",
            "jane doe",
            "jane@acme.test",
        ] {
            assert_eq!(linkedin_identifier(text), None, "{text}");
        }
    }

    #[test]
    fn a_phone_number_needs_its_country() {
        for (text, id) in [
            ("+49 (0)151 234-567 89", "4915123456789@s.whatsapp.net"),
            ("0033 6 12 34 56 78", "33612345678@s.whatsapp.net"),
            ("33612345678", "33612345678@s.whatsapp.net"),
            ("33612345678@s.whatsapp.net", "33612345678@s.whatsapp.net"),
        ] {
            assert_eq!(whatsapp_id(text).as_deref(), Some(id), "{text}");
        }
        for text in
            ["", "0151 23456789", "call me", "12345", "+1 555 123 4567 ext 9", "+4912345678901234567", "12+345678"]
        {
            assert_eq!(whatsapp_id(text), None, "{text}");
        }
    }

    #[test]
    fn a_mail_address_that_cannot_be_one_is_not_tried() {
        assert_eq!(mail_address(" jane@acme.test "), Some("jane@acme.test"));
        for text in
            ["", "jane", "@acme.test", "jane@", "jane@acme", "a b@acme.test", "a@b@acme.test", "a@acme.test,b@x.y"]
        {
            assert_eq!(mail_address(text), None, "{text}");
        }
    }

    #[test]
    fn plain_text_becomes_html_and_html_stays() {
        assert_eq!(html_body("a < b & c\r\nd"), "a &lt; b &amp; c<br>\nd");
        assert_eq!(html_body("<p>Hi & bye</p>"), "<p>Hi & bye</p>");
        assert_eq!(normalised(" Hi\r\n  Jane\u{a0}! "), "Hi Jane !");
    }
}
