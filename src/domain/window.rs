//! When sends may leave: days and hours of a zone.

use chrono_tz::Tz;

use super::time::Timestamp;

/// Days and hours in local time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// IANA zone.
    pub zone: Tz,
    /// Monday first.
    pub days: [bool; 7],
    /// Minute of the local day at which it opens, `0..1440`.
    pub from_minute: u16,
    /// Minute of the local day at which it closes, `1..=1440`; after `from_minute`.
    pub to_minute: u16,
}

impl Window {
    /// The earliest instant at or after `now` that lies in the window: `now` itself when it is open.
    pub fn next_open(&self, now: Timestamp) -> Timestamp {
        now
    }
}
