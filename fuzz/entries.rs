//! What the fuzz targets feed, and `tests/it/fuzz.rs` in bounded runs: each takes any bytes and panics on what must not be.

use campaignd::domain::template;
use campaignd::domain::time::Timestamp;
use campaignd::provider::unipile::webhook;
use serde_json::json;

/// A delivery of the provider: any bytes mean something, or are kept as unreadable; the same bytes always mean the same.
pub(crate) fn webhook(bytes: &[u8]) {
    let now = Timestamp::from_micros(1_767_603_600_000_000);
    let first = webhook::parse(bytes, now);
    let again = webhook::parse(bytes, now);
    assert!(!first.dedupe_key.is_empty(), "a fact without a key is stored once and never again");
    assert_eq!(first.dedupe_key, again.dedupe_key, "the same delivery twice is two facts");
    assert!(first.dedupe_key.len() <= 300, "a key of {} bytes", first.dedupe_key.len());
}

/// A message template: it is refused, or it is filled in within its limits; one line stays one line.
pub(crate) fn template(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let person = json!({"first_name": "Ada\r\nBcc: spy@example.org", "company": "", "title": null,
        "data": {"role": "countess", "tags": ["a", "b"], "deep": {"er": 1}}});
    let checked = template::check(&text);
    if let Ok(filled) = template::render(&text, &person) {
        assert!(checked.is_ok(), "filled in what was refused");
        assert!(filled.len() <= template::OUTPUT_MAX_BYTES, "{} bytes", filled.len());
    }
    if let Ok(line) = template::render_line(&text, &person) {
        assert!(!line.chars().any(|c| c.is_control()), "a line that is not one");
    }
    assert!(template::static_length(&text) <= text.chars().count(), "more than there is");
}
