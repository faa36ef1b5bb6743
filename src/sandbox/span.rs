//! Stretches of time as people write them: `250ms`, `90s`, `15m`, `8h`, `2d`; a bare number is seconds.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

/// Units, largest first, with their length in milliseconds.
const UNITS: [(&str, u64); 4] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];

/// Reads a stretch; `None` for what is none, or is longer than a thousand years.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let ms = match unit.trim() {
        "" => 1000,
        "ms" => 1,
        unit => UNITS.iter().find(|(name, _)| *name == unit)?.1,
    };
    #[expect(clippy::cast_precision_loss, reason = "a unit has at most 27 bits")]
    let seconds = number.parse::<f64>().ok()? * ms as f64 / 1000.0;
    from_seconds(seconds)
}

fn from_seconds(seconds: f64) -> Option<Duration> {
    (0.0..=3.2e10).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

/// Writes a stretch in the largest unit that divides it.
pub(super) fn show(stretch: Duration) -> String {
    let ms = u64::try_from(stretch.as_millis()).unwrap_or(u64::MAX);
    match UNITS.iter().find(|(_, unit)| ms >= *unit && ms.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", ms / unit),
        None => format!("{ms}ms"),
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Raw {
    Seconds(f64),
    Text(String),
}

impl Raw {
    fn read(&self) -> Option<Duration> {
        match self {
            Self::Seconds(seconds) => from_seconds(*seconds),
            Self::Text(text) => parse(text),
        }
    }
}

const EXPECTED: &str = "a stretch of time is a number of seconds or a text like 90s, 15m, 8h or 2d";

/// For fields that always hold one.
pub(super) mod needed {
    use super::{Deserialize, Deserializer, Duration, EXPECTED, Raw, Serializer, show};

    pub(in super::super) fn serialize<S: Serializer>(stretch: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&show(*stretch))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        Raw::deserialize(d).ok().and_then(|r| r.read()).ok_or_else(|| serde::de::Error::custom(EXPECTED))
    }
}

/// For lists of them.
pub(super) mod list {
    use super::{Deserialize, Deserializer, Duration, EXPECTED, Raw, Serializer, show};

    pub(in super::super) fn serialize<S: Serializer>(list: &[Duration], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(list.iter().map(|stretch| show(*stretch)))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Duration>, D::Error> {
        let list = Vec::<Raw>::deserialize(d).ok();
        let list = list.and_then(|list| list.iter().map(Raw::read).collect());
        list.ok_or_else(|| serde::de::Error::custom(format!("a list is expected, in which {EXPECTED}")))
    }
}

/// For fields where `null` and `"never"` mean that it never comes.
pub(super) mod maybe {
    use super::{Deserialize, Deserializer, Duration, EXPECTED, Raw, Serializer, show};

    pub(in super::super) fn serialize<S: Serializer>(stretch: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
        match stretch {
            Some(stretch) => s.serialize_str(&show(*stretch)),
            None => s.serialize_none(),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
        let wrong = || serde::de::Error::custom(EXPECTED);
        match Option::<Raw>::deserialize(d).map_err(|_| wrong())? {
            None => Ok(None),
            Some(Raw::Text(text)) if text == "never" => Ok(None),
            Some(raw) => raw.read().map(Some).ok_or_else(wrong),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_read_in_every_unit_and_written_in_the_largest() {
        for (text, seconds, shown) in [
            ("90s", 90.0, "90s"),
            ("15m", 900.0, "15m"),
            ("48h", 172_800.0, "2d"),
            ("1.5", 1.5, "1500ms"),
            ("0", 0.0, "0ms"),
        ] {
            let read = parse(text).unwrap();
            assert_eq!((read.as_secs_f64(), show(read).as_str()), (seconds, shown), "{text}");
            assert_eq!(parse(&show(read)), Some(read));
        }
        for bad in ["", "h", "-1s", "5 weeks", "1e9d", "9999999999999d"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
