//! Reads `timezone` and `window`.

use chrono_tz::{TZ_VARIANTS, Tz};
use serde_json::{Map, Value};

use super::super::window::Window;
use super::names::{self, mend_word, nearest, quote};
use super::parse::{Reader, kind};
use super::problem::Place;

/// The window; `None` after a problem, `Some(None)` when the flow has none.
pub(super) fn read(reader: &mut Reader, map: &Map<String, Value>, root: &Place) -> Option<Option<Window>> {
    let zone = match reader.get(map, "timezone") {
        None => Some(Tz::UTC),
        Some(value) => read_zone(reader, value, &root.key("timezone")),
    };
    let place = root.key("window");
    let window = match reader.get(map, "window") {
        None => return zone.map(|_| None),
        Some(Value::Object(window)) => window,
        Some(other) => {
            reader.add(&place, format!("must be an object with days, from and to, not {}", kind(other)));
            return None;
        }
    };
    reader.unknown_keys(window, &place, names::WINDOW);
    let days = read_days(reader, window, &place.key("days"));
    let from = read_minute(reader, window, &place, "from");
    let to = read_minute(reader, window, &place, "to");
    if let (Some(from), Some(to)) = (from, to)
        && from >= to
    {
        reader.add(&place, "never opens: `from` must be before `to` (a window cannot go over midnight)");
        return None;
    }
    Some(Some(Window { zone: zone?, days: days?, from_minute: from?, to_minute: to? }))
}

fn read_zone(reader: &mut Reader, value: &Value, place: &Place) -> Option<Tz> {
    let Some(name) = value.as_str() else {
        reader.add(place, "must be the name of a time zone, such as \"Europe/Berlin\"");
        return None;
    };
    if let Ok(zone) = name.parse::<Tz>() {
        return Some(zone);
    }
    let hint = match nearest(name, TZ_VARIANTS.iter().map(|z| z.name())) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "use an IANA name such as \"Europe/Berlin\"".to_owned(),
    };
    reader.add(place, format!("unknown time zone `{}`: {hint}", quote(name)));
    None
}

fn read_days(reader: &mut Reader, window: &Map<String, Value>, place: &Place) -> Option<[bool; 7]> {
    let Some(value) = reader.get(window, "days") else {
        reader.add(place, "is missing: say on which days it opens, as in [\"mon\",\"tue\"]");
        return None;
    };
    let Value::Array(items) = value else {
        reader.add(place, format!("must be a list of days, as in [\"mon\",\"tue\"], not {}", kind(value)));
        return None;
    };
    if items.is_empty() {
        reader.add(place, "the window never opens: name at least one day, as in [\"mon\",\"tue\"]");
        return None;
    }
    let mut days = [false; 7];
    let mut good = true;
    for (i, item) in items.iter().enumerate() {
        let word = item.as_str().unwrap_or("");
        match names::DAYS.iter().position(|d| *d == word).and_then(|d| days.get_mut(d)) {
            Some(day) => *day = true,
            None => {
                good = false;
                let found = if item.is_string() { format!("`{}`", quote(word)) } else { kind(item).to_owned() };
                reader.add(&place.index(i), format!("{found} is no day: {}", mend_word(word, names::DAYS)));
            }
        }
    }
    good.then_some(days)
}

fn read_minute(reader: &mut Reader, window: &Map<String, Value>, place: &Place, key: &str) -> Option<u16> {
    let place = place.key(key);
    let Some(value) = reader.get(window, key) else {
        reader.add(&place, "is missing: write a time of day, as in \"09:00\"");
        return None;
    };
    let minute = value.as_str().and_then(minute);
    if minute.is_none() {
        reader.add(
            &place,
            "is no time of day: write hours and minutes, as in \"09:00\" (\"24:00\" is the end of the day)",
        );
    }
    minute
}

/// `HH:MM` to a minute of the day, up to 24:00.
fn minute(text: &str) -> Option<u16> {
    let (h, m) = text.split_once(':')?;
    let number = |s: &str| (s.len() == 2 && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse::<u16>().ok())?;
    let (h, m) = (number(h)?, number(m)?);
    (m < 60 && h * 60 + m <= 1440).then_some(h * 60 + m)
}
