//! How far back a list of sends reads in one request: in stretches of time, each as long as there are few rows in it.
//!
//! Nothing leads from a status to its sends (each claim and outcome would have to write it), so what is rare is looked for
//! among all. The work of a request is bounded by rows, not by time: a stretch is counted, up to a limit, before it is read.

use chrono::{DateTime, TimeDelta, Utc};

/// Most rows of one stretch.
pub(super) const ROWS_MAX: i64 = 10_000;
/// Rows of one request, after which the page ends: at most one stretch more.
const REQUEST_ROWS_MAX: i64 = 20_000;
/// Stretches that are counted for one request.
const COUNTED_MAX: u32 = 32;
/// The first stretch.
const FIRST: TimeDelta = TimeDelta::seconds(60);
/// A stretch this short is read whatever is in it.
const LEAST: TimeDelta = TimeDelta::milliseconds(250);

/// Whether there is more to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Onward {
    /// Yes, now.
    Further,
    /// Yes, with the next page.
    NextPage,
    /// No.
    Through,
}

/// A walk back in time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk {
    from: DateTime<Utc>,
    length: TimeDelta,
    rows: i64,
    counted: u32,
}

impl Walk {
    /// Begins there: what is newer belongs to the first stretch.
    pub(super) const fn from(from: DateTime<Utc>) -> Self {
        Self { from, length: FIRST, rows: 0, counted: 0 }
    }

    /// Where the stretch begins.
    pub(super) fn since(&self) -> DateTime<Utc> {
        self.from.checked_sub_signed(self.length).unwrap_or(DateTime::UNIX_EPOCH).max(DateTime::UNIX_EPOCH)
    }

    /// Whether a stretch with so many rows is too much to read; then the next is shorter.
    pub(super) fn is_too_far(&mut self, rows: i64) -> bool {
        self.counted += 1;
        let too_far = rows > ROWS_MAX && self.length > LEAST;
        if too_far {
            self.length = (self.length / 4).max(LEAST);
        }
        too_far
    }

    /// A stretch with so many rows was read.
    pub(super) fn on(&mut self, rows: i64) -> Onward {
        self.from = self.since();
        self.rows += rows;
        if self.from <= DateTime::UNIX_EPOCH {
            return Onward::Through;
        }
        if self.rows >= REQUEST_ROWS_MAX || self.counted >= COUNTED_MAX {
            return Onward::NextPage;
        }
        let longer = match rows {
            0..50 => 100,
            50..500 => 10,
            500..3000 => 2,
            _ => 1,
        };
        self.length = self.length.checked_mul(longer).unwrap_or(TimeDelta::MAX);
        Onward::Further
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    /// Walks over sends at these seconds; answers how many rows and counts each page took.
    fn pages(now: i64, sends: &[i64]) -> Vec<(i64, u32)> {
        let (mut from, mut to, mut pages) = (at(now), at(now + 1), Vec::new());
        loop {
            let mut walk = Walk::from(from);
            let onward = loop {
                let since = walk.since();
                let inside = |t: i64| at(t) > since && at(t) <= to;
                let rows = i64::try_from(sends.iter().filter(|t| inside(**t)).count()).unwrap();
                if walk.is_too_far(rows.min(ROWS_MAX + 1)) {
                    continue;
                }
                match walk.on(rows) {
                    Onward::Further => to = since,
                    over => break over,
                }
            };
            pages.push((walk.rows, walk.counted));
            if onward == Onward::Through {
                return pages;
            }
            (from, to) = (walk.from, walk.from);
        }
    }

    #[test]
    fn nothing_is_left_out_and_no_page_reads_much_more_than_it_may() {
        let now = 1_767_603_600;
        let month = 30 * 86_400;
        let quiet: Vec<i64> = (0..1000).map(|n| now - n * 2500).collect();
        // A busy day a month ago, and everything within one minute.
        let burst: Vec<i64> = (0..90_000).map(|n| now - month - n % 86_400).collect();
        let minute: Vec<i64> = (0..50_000).map(|n| now - 100 - n % 60).collect();
        for (sends, most) in [(vec![], 1), (quiet, 1), (burst, 12), (minute, 4)] {
            let pages = pages(now, &sends);
            assert_eq!(pages.iter().map(|(rows, _)| rows).sum::<i64>(), i64::try_from(sends.len()).unwrap());
            assert!(pages.len() <= most, "{pages:?}");
            assert!(
                pages.iter().all(|(rows, counted)| *rows < REQUEST_ROWS_MAX + ROWS_MAX && *counted <= COUNTED_MAX + 20)
            );
        }
    }
}
