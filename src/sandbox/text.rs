//! Small writing: opaque ids, draws that follow from seed and words, wire dates, percent decoding, cursors.

use chrono::SecondsFormat;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::domain::time::Timestamp;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A digest of the seed and some words; a zero byte between words keeps `ab,c` apart from `a,bc`.
pub(super) fn digest(seed: u64, words: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(seed.to_be_bytes());
    for word in words {
        hash.update(word.as_bytes());
        hash.update([0]);
    }
    hash.finalize().into()
}

/// The first eight bytes of a digest as a number.
pub(super) fn number(seed: u64, words: &[&str]) -> u64 {
    let d = digest(seed, words);
    u64::from_be_bytes([d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]])
}

/// A number in 0..1 that follows from the seed and the words.
pub(super) fn unit(seed: u64, words: &[&str]) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit an f64 exactly")]
    let x = (number(seed, words) >> 11) as f64;
    x / 9_007_199_254_740_992.0
}

/// `len` (at most 43) characters of base64url from a digest: the provider's opaque ids have 22.
pub(super) fn opaque(digest: &[u8; 32], len: usize) -> String {
    let bit = |i: usize| digest.get(i / 8).map_or(0, |b| (b >> (7 - i % 8)) & 1);
    (0..len.min(43))
        .map(|c| {
            let index = (0..6).fold(0_usize, |acc, b| (acc << 1) | usize::from(bit(c * 6 + b)));
            char::from(ALPHABET[index])
        })
        .collect()
}

/// ISO 8601 with three digits of milliseconds: the only form the provider writes.
pub(super) fn iso(at: Timestamp) -> String {
    at.to_utc().to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Reads the only form of date the provider accepts, `YYYY-MM-DDTHH:MM:SS.sssZ`.
pub(super) fn parse_iso(text: &str) -> Option<Timestamp> {
    let shape = b"0000-00-00T00:00:00.000Z";
    let fits = text.len() == shape.len()
        && text.bytes().zip(shape).all(|(c, s)| if *s == b'0' { c.is_ascii_digit() } else { c == *s });
    if !fits {
        return None;
    }
    chrono::DateTime::parse_from_rfc3339(text).ok().map(|t| t.to_utc().into())
}

/// Decodes `%40` and its like; what is no valid escape stays.
pub(super) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let escape = (bytes[i] == b'%').then(|| text.get(i + 1..i + 3)).flatten();
        if let Some(byte) = escape.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            out.push(byte);
            i += 3;
        } else {
            out.push(bytes[i]);
            i += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The digits of base64.
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A cursor: JSON as base64, opaque to the client.
pub(super) fn cursor(value: &Value) -> String {
    let json = value.to_string();
    let mut out = String::with_capacity(json.len().div_ceil(3) * 4);
    for three in json.as_bytes().chunks(3) {
        let bits = three.iter().chain(&[0, 0]).take(3).fold(0_usize, |all, b| (all << 8) | usize::from(*b));
        for digit in 0..4 {
            let there = digit <= three.len();
            out.push(if there { char::from(BASE64[(bits >> (18 - 6 * digit)) & 63]) } else { '=' });
        }
    }
    out
}

/// Reads a cursor back.
pub(super) fn parse_cursor(text: &str) -> Option<Value> {
    let digits = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len());
    for four in digits.as_bytes().chunks(4) {
        let mut bits = 0_u32;
        for digit in 0..4 {
            let value = four.get(digit).map_or(Some(0), |d| BASE64.iter().position(|c| c == d))?;
            bits = (bits << 6) | u32::try_from(value).ok()?;
        }
        bytes.extend(bits.to_be_bytes()[1..].iter().take(four.len() - 1));
    }
    serde_json::from_slice(&bytes).ok()
}

/// Takes those of some fields away that are null: the provider does not show them.
pub(super) fn omit_nulls(body: &mut Value, names: &[&str]) {
    if let Some(object) = body.as_object_mut() {
        object.retain(|name, value| !value.is_null() || !names.contains(&name.as_str()));
    }
}

/// A JSON object as a form: texts as they are, everything else as its JSON.
pub(super) fn form_encode(fields: &serde_json::Map<String, Value>) -> String {
    let encode = |text: &str| {
        text.bytes().fold(String::new(), |mut out, b| {
            match b {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(b)),
                b' ' => out.push('+'),
                b => out.push_str(&format!("%{b:02X}")),
            }
            out
        })
    };
    let pairs: Vec<String> = fields
        .iter()
        .map(|(name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            format!("{}={}", encode(name), encode(&value))
        })
        .collect();
    pairs.join("&")
}

/// The web addresses a body links to, in their order.
pub(super) fn links(html: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in html.match_indices("href=") {
        let rest = &html[at + 5..];
        let Some(quote) = rest.chars().next().filter(|c| *c == '"' || *c == '\'') else { continue };
        let url = rest[1..].split(quote).next().unwrap_or_default();
        if url.starts_with("http://") || url.starts_with("https://") {
            found.push(url.replace("&amp;", "&"));
        }
    }
    found
}

/// HTML without its tags, for `body_plain`.
pub(super) fn plain(html: &str) -> String {
    let mut out = String::with_capacity(html.len());
    let mut inside = false;
    for c in html.chars() {
        match c {
            '<' => inside = true,
            '>' => inside = false,
            c if !inside => out.push(c),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dates_with_three_digits_of_milliseconds_are_read() {
        let at = parse_iso("2026-11-23T12:00:00.250Z").unwrap();
        assert_eq!(iso(at), "2026-11-23T12:00:00.250Z");
        for bad in ["2026-11-23T12:00:00Z", "2026-11-23T12:00:00.250+00:00", "2026-13-23T12:00:00.250Z", "", "x"] {
            assert!(parse_iso(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn ids_are_opaque_and_cursors_and_escapes_come_back() {
        assert_eq!(opaque(&digest(1, &["a"]), 22).len(), 22);
        assert_eq!(opaque(&[0; 32], 4), "AAAA");
        for n in [7, 70, 700] {
            let value = serde_json::json!({ "below": n });
            assert_eq!(parse_cursor(&cursor(&value)), Some(value));
        }
        assert_eq!(cursor(&serde_json::json!({ "q": "~~?" })), "eyJxIjoifn4/In0=");
        assert_eq!(percent_decode("336%40s.whatsapp.net%"), "336@s.whatsapp.net%");
        for bad in ["zz", "zz*=", "é===", "====", "=", "eyJi"] {
            assert_eq!(parse_cursor(bad), None, "{bad}");
        }
    }

    #[test]
    fn links_are_found_in_html_and_forms_are_encoded() {
        let html =
            r#"<a href="https://a.example/?x=1&amp;y=2">A</a> <a href='mailto:x@y'>B</a> <a href='http://b/'>C</a>"#;
        assert_eq!(links(html), ["https://a.example/?x=1&y=2", "http://b/"]);
        let fields = serde_json::json!({ "a b": "x&y", "list": [1] });
        assert_eq!(form_encode(fields.as_object().unwrap()), "a+b=x%26y&list=%5B1%5D");
    }
}
