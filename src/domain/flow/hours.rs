//! Reads `timezone` and `window`.

use chrono::NaiveDate;
use chrono_tz::{TZ_VARIANTS, Tz};
use serde_json::{Map, Value, json};

use super::super::window::Window;
use super::names::{self, mend_word, nearest, quote};
use super::parse::{Form, Reader, kind};
use super::problem::{Place, Problem, Report};

/// The most holidays of a window.
const HOLIDAYS_MAX: usize = 366;

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
    let holidays = read_holidays(reader, window, &place.key("holidays"));
    Some(Some(Window { zone: zone?, days: days?, from_minute: from?, to_minute: to?, holidays: holidays? }))
}

/// Hours that stand in another document than a flow, under the same keys: `timezone` and `window`.
///
/// # Errors
/// Every problem, with its path.
pub fn hours_from_json(map: &Map<String, Value>) -> Result<Option<Window>, Vec<Problem>> {
    let mut reader = Reader { form: Form::Current, report: Report::default() };
    let window = read(&mut reader, map, &Place::root());
    let problems = reader.report.finish();
    if problems.is_empty() { Ok(window.flatten()) } else { Err(problems) }
}

/// Hours the way they are read: the members `timezone` and `window`.
pub fn hours_to_json(window: &Window) -> Map<String, Value> {
    let days: Vec<&str> = names::DAYS.iter().zip(window.days).filter(|(_, on)| *on).map(|(d, _)| *d).collect();
    let time = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
    let mut inner = json!({"days": days, "from": time(window.from_minute), "to": time(window.to_minute)});
    if let Some(inner) = inner.as_object_mut()
        && !window.holidays.is_empty()
    {
        let dates: Vec<String> = window.holidays.iter().map(ToString::to_string).collect();
        inner.insert("holidays".to_owned(), json!(dates));
    }
    Map::from_iter([("timezone".to_owned(), json!(window.zone.name())), ("window".to_owned(), inner)])
}

/// Dates on which it does not open, sorted; none where nothing is said.
fn read_holidays(reader: &mut Reader, window: &Map<String, Value>, place: &Place) -> Option<Vec<NaiveDate>> {
    let Some(value) = reader.get(window, "holidays") else { return Some(Vec::new()) };
    let Value::Array(items) = value else {
        reader.add(place, format!("must be a list of dates, as in [\"2026-12-25\"], not {}", kind(value)));
        return None;
    };
    if items.len() > HOLIDAYS_MAX {
        reader.add(place, format!("has {} dates: at most {HOLIDAYS_MAX} are allowed", items.len()));
        return None;
    }
    let mut dates = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let text = item.as_str().filter(|t| t.len() == 10);
        match text.and_then(|t| NaiveDate::parse_from_str(t, "%Y-%m-%d").ok()) {
            Some(date) => dates.push(date),
            None => reader.add(&place.index(i), "is no date: write it as in \"2026-12-25\""),
        }
    }
    if dates.len() < items.len() {
        return None;
    }
    dates.sort_unstable();
    dates.dedup();
    Some(dates)
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
