//! Durations as people write them: `72h`, `30m`, `1h30m`, `5d`.
//!
//! Owns the text form and its bounds. Called by the flow language and by the configuration.

use std::time::Duration;

/// The longest duration that is read: 3650 days, in milliseconds.
const MAX_MS: u64 = 3650 * DAY_MS;
const SECOND_MS: u64 = 1000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
/// From here on whole days are written as days. Below it the flows that people wrote speak of hours (`72h`, `120h`).
const DAYS_FROM_MS: u64 = 6 * DAY_MS;

/// Reads `<number><unit>` groups, units `d h m s ms`, each at most once, largest first or not. `None` for anything else,
/// also for more than 3650 days.
pub fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total: u64 = 0;
    let mut seen: Vec<u64> = Vec::new();
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, tail) = tail.split_at(letters);
        let unit = match unit {
            "d" => DAY_MS,
            "h" => HOUR_MS,
            "m" => MINUTE_MS,
            "s" => SECOND_MS,
            "ms" => 1,
            _ => return None,
        };
        if seen.contains(&unit) {
            return None;
        }
        seen.push(unit);
        // An empty number fails here.
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(unit)?)?;
        rest = tail;
    }
    (!seen.is_empty() && total <= MAX_MS).then(|| Duration::from_millis(total))
}

/// Writes a duration the way [`parse`] reads it, to the millisecond (what is finer is cut off).
pub fn format(d: Duration) -> String {
    let mut left = u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    if left == 0 {
        return "0s".to_owned();
    }
    if left >= DAYS_FROM_MS && left.is_multiple_of(DAY_MS) {
        return format!("{}d", left / DAY_MS);
    }
    let mut text = String::new();
    for (unit, name) in [(HOUR_MS, "h"), (MINUTE_MS, "m"), (SECOND_MS, "s"), (1, "ms")] {
        if left >= unit {
            text.push_str(&format!("{}{name}", left / unit));
            left %= unit;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_forms_people_write_are_read() {
        for (text, ms) in [
            ("72h", 72 * HOUR_MS),
            ("30m", 30 * MINUTE_MS),
            ("5d", 5 * DAY_MS),
            ("1h30m", 90 * MINUTE_MS),
            ("90s", 90 * SECOND_MS),
            ("500ms", 500),
            ("0h", 0),
            ("30m1h", 90 * MINUTE_MS),
            ("3650d", MAX_MS),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            " ",
            "1",
            "h",
            "-1h",
            "+1h",
            "1.5h",
            "1 h",
            "1h ",
            "1w",
            "1H",
            "3651d",
            "1h1h",
            "99999999999999999999h",
            "18446744073709551615d",
            "٣h",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn hours_stay_hours_up_to_five_days() {
        for text in ["72h", "120h", "48h", "30d", "1h30m", "500ms", "0s", "145h"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(ms in 0..=MAX_MS) {
            let d = Duration::from_millis(ms);
            prop_assert_eq!(parse(&format(d)), Some(d));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = parse(&text);
        }
    }
}
