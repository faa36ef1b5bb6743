//! When sends may leave: days and hours of a zone.
//!
//! Owns what a window means on the two odd days of a year. A window is, for each of its days, one interval without holes:
//! from the first instant at which the local clock shows the opening time to the last at which it reaches the closing time.
//! * Clocks go forward over the opening (or closing) time: that time does not exist, and the first instant after the gap
//!   stands for it. A window that lies wholly in the gap does not open on that day.
//! * Clocks go back over the opening time: the earlier of the two opens. Over the closing time: the later one closes.
//! * A day ends (`to` 24:00) when the next date first begins.

use chrono::{DateTime, Datelike, Days, Duration, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Utc};
use chrono_tz::Tz;

use super::time::Timestamp;

/// Minutes of a day.
const DAY_MINUTES: u16 = 1440;

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
    /// Local dates on which it does not open, in order.
    pub holidays: Vec<NaiveDate>,
}

impl Window {
    /// The earliest instant at or after `now` that lies in the window: `now` itself when it is open. Also `now` for a
    /// window that never opens (which no flow can hold) and beyond the years 1 to 9998.
    pub fn next_open(&self, now: Timestamp) -> Timestamp {
        let utc = now.to_utc();
        if !(2..9998).contains(&utc.year()) {
            return now;
        }
        let today = utc.with_timezone(&self.zone).date_naive();
        // A day earlier: clocks that go back over midnight show yesterday again. Two weeks are more than any gap takes away, and
        // each holiday takes a week away at most.
        for offset in 0..=15 + 7 * self.holidays.len() as u64 {
            let Some(date) = today.checked_add_days(Days::new(offset)).and_then(|d| d.checked_sub_days(Days::new(1)))
            else {
                continue;
            };
            let Some((open, close)) = self.interval(date) else { continue };
            if now < open {
                return open;
            }
            if now < close {
                return now;
            }
        }
        now
    }

    /// The interval of one local date, `[open, close)`; `None` when it does not open on that date.
    fn interval(&self, date: NaiveDate) -> Option<(Timestamp, Timestamp)> {
        let day = usize::try_from(date.weekday().num_days_from_monday()).ok()?;
        if !*self.days.get(day)? || self.holidays.binary_search(&date).is_ok() {
            return None;
        }
        let open = self.instant(local(date, self.from_minute)?, Fold::Earlier)?;
        let fold = if self.to_minute >= DAY_MINUTES { Fold::Earlier } else { Fold::Later };
        let close = self.instant(local(date, self.to_minute)?, fold)?;
        (open < close).then_some((open, close))
    }

    /// The instant at which the local clock shows `at`.
    fn instant(&self, at: NaiveDateTime, fold: Fold) -> Option<Timestamp> {
        match self.zone.from_local_datetime(&at) {
            LocalResult::Single(t) => Some(t.to_utc()),
            LocalResult::Ambiguous(a, b) => Some(match fold {
                Fold::Earlier => a.min(b).to_utc(),
                // Coming from an earlier time: clocks that go back to exactly this time have shown what comes before it once.
                Fold::Later => {
                    let (first, last) = (a.min(b).to_utc(), a.max(b).to_utc());
                    let before = (last - Duration::seconds(1)).with_timezone(&self.zone).naive_local();
                    if before < at { last } else { first }
                }
            }),
            LocalResult::None => self.after_gap(at),
        }
        .map(Timestamp::from)
    }

    /// The first instant after the gap that `at` lies in.
    fn after_gap(&self, at: NaiveDateTime) -> Option<DateTime<Utc>> {
        // The longest gap there was is a day (Apia, 2011-12-30).
        let mut late = (1..=2 * i64::from(DAY_MINUTES)).find_map(|minutes| {
            let later = at.checked_add_signed(Duration::minutes(minutes))?;
            self.zone.from_local_datetime(&later).earliest().map(|t| t.to_utc())
        })?;
        // The gap ended within the minute before `late`, as a rule a whole minute before or at it.
        let mut early = late - Duration::minutes(1);
        while (late - early).num_seconds() > 1 {
            let middle = early + Duration::seconds((late - early).num_seconds() / 2);
            if middle.with_timezone(&self.zone).naive_local() >= at {
                late = middle;
            } else {
                early = middle;
            }
        }
        Some(if early.with_timezone(&self.zone).naive_local() >= at { early } else { late })
    }
}

/// Which of two instants with the same local time is meant.
#[derive(Clone, Copy)]
enum Fold {
    Earlier,
    Later,
}

/// A minute of a date as local time; minute 1440 is the next midnight.
fn local(date: NaiveDate, minute: u16) -> Option<NaiveDateTime> {
    date.and_time(NaiveTime::MIN).checked_add_signed(Duration::minutes(i64::from(minute)))
}

#[cfg(test)]
mod dst_tests;

#[cfg(test)]
mod tests {
    use chrono::Timelike;
    use proptest::prelude::*;

    use super::*;

    const WORKDAYS: [bool; 7] = [true, true, true, true, true, false, false];
    const ALL: [bool; 7] = [true; 7];

    fn ts(text: &str) -> Timestamp {
        DateTime::parse_from_rfc3339(text).unwrap().to_utc().into()
    }

    fn window(zone: Tz, days: [bool; 7], from: (u16, u16), to: (u16, u16)) -> Window {
        Window { zone, days, from_minute: from.0 * 60 + from.1, to_minute: to.0 * 60 + to.1, holidays: Vec::new() }
    }

    #[track_caller]
    fn check(window: &Window, rows: &[(&str, &str)]) {
        for (now, expected) in rows {
            assert_eq!(window.next_open(ts(now)), ts(expected), "from {now}");
        }
    }

    #[test]
    fn an_open_window_lets_through_now_and_a_closed_one_waits_for_the_next_working_day() {
        check(
            &window(Tz::Europe__Berlin, WORKDAYS, (9, 0), (18, 0)),
            &[
                // Monday 2026-11-23, winter time.
                ("2026-11-23T07:59:59Z", "2026-11-23T08:00:00Z"),
                ("2026-11-23T08:00:00Z", "2026-11-23T08:00:00Z"),
                ("2026-11-23T16:59:59.999999Z", "2026-11-23T16:59:59.999999Z"),
                ("2026-11-23T17:00:00Z", "2026-11-24T08:00:00Z"),
                ("2026-11-27T17:00:00Z", "2026-11-30T08:00:00Z"),
            ],
        );
    }

    #[test]
    fn berlin_the_weekend_of_a_change_keeps_local_hours() {
        let w = window(Tz::Europe__Berlin, WORKDAYS, (9, 0), (18, 0));
        check(
            &w,
            &[("2026-03-27T20:00:00Z", "2026-03-30T07:00:00Z"), ("2026-10-23T20:00:00Z", "2026-10-26T08:00:00Z")],
        );
    }

    #[test]
    fn berlin_forward_an_opening_time_that_does_not_exist_is_the_first_instant_after_the_gap() {
        // 2026-03-29 02:00 -> 03:00 local, at 01:00 UTC.
        let w = window(Tz::Europe__Berlin, ALL, (2, 30), (4, 0));
        check(
            &w,
            &[
                ("2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z"),
                ("2026-03-29T01:59:59Z", "2026-03-29T01:59:59Z"),
                ("2026-03-29T02:00:00Z", "2026-03-30T00:30:00Z"),
            ],
        );
    }

    #[test]
    fn berlin_forward_a_window_inside_the_gap_does_not_open_that_day() {
        let w = window(Tz::Europe__Berlin, ALL, (2, 10), (2, 50));
        check(&w, &[("2026-03-29T00:00:00Z", "2026-03-30T00:10:00Z")]);
    }

    #[test]
    fn berlin_back_opens_at_the_earlier_and_closes_at_the_later_of_two_equal_times() {
        // 2026-10-25 03:00 -> 02:00 local, at 01:00 UTC; 02:30 local is 00:30 and 01:30 UTC.
        let opens = window(Tz::Europe__Berlin, ALL, (2, 30), (4, 0));
        check(
            &opens,
            &[
                ("2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z"),
                ("2026-10-25T01:10:00Z", "2026-10-25T01:10:00Z"),
                ("2026-10-25T03:00:00Z", "2026-10-26T01:30:00Z"),
            ],
        );
        let closes = window(Tz::Europe__Berlin, ALL, (1, 0), (2, 30));
        check(
            &closes,
            &[
                ("2026-10-25T00:45:00Z", "2026-10-25T00:45:00Z"),
                ("2026-10-25T01:29:59Z", "2026-10-25T01:29:59Z"),
                ("2026-10-25T01:30:00Z", "2026-10-26T00:00:00Z"),
            ],
        );
    }

    #[test]
    fn a_zone_half_an_hour_off_and_ahead_of_utc_opens_on_its_own_date() {
        check(
            &window(Tz::Asia__Kolkata, WORKDAYS, (9, 0), (18, 0)),
            &[
                // Sunday 20:00 UTC is already Monday there.
                ("2026-11-22T20:00:00Z", "2026-11-23T03:30:00Z"),
                ("2026-11-27T12:30:00Z", "2026-11-30T03:30:00Z"),
            ],
        );
    }

    #[test]
    fn auckland_opens_while_utc_has_the_day_before() {
        check(
            &window(Tz::Pacific__Auckland, WORKDAYS, (9, 0), (18, 0)),
            &[
                // Summer time, +13: Monday 09:00 is Sunday 20:00 UTC.
                ("2026-11-22T10:00:00Z", "2026-11-22T20:00:00Z"),
                // 2026-04-05 03:00 -> 02:00: Monday 09:00 is +12.
                ("2026-04-03T06:00:00Z", "2026-04-05T21:00:00Z"),
                // 2026-09-27 02:00 -> 03:00: Monday 09:00 is +13.
                ("2026-09-25T07:00:00Z", "2026-09-27T20:00:00Z"),
            ],
        );
    }

    #[test]
    fn a_window_to_midnight_joins_the_next_day() {
        let w = window(Tz::UTC, ALL, (0, 0), (24, 0));
        check(&w, &[("2026-11-23T23:59:59.999999Z", "2026-11-23T23:59:59.999999Z")]);
    }

    #[test]
    fn a_date_that_a_zone_left_out_has_no_window() {
        // Apia went from 2011-12-29 24:00 (-10) to 2011-12-31 00:00 (+14).
        let w = window(Tz::Pacific__Apia, ALL, (9, 0), (18, 0));
        check(&w, &[("2011-12-30T06:00:00Z", "2011-12-30T19:00:00Z")]);
    }

    #[test]
    fn the_ends_of_time_are_no_panic() {
        let w = window(Tz::Pacific__Auckland, WORKDAYS, (9, 0), (18, 0));
        for t in [i64::MIN, i64::MAX, 0] {
            let t = Timestamp::from_micros(t);
            assert!(w.next_open(t) >= t);
        }
    }

    fn zones() -> impl Strategy<Value = Tz> {
        prop::sample::select(chrono_tz::TZ_VARIANTS.to_vec())
    }

    proptest! {
        #[test]
        fn the_answer_is_not_before_now_is_open_and_stays(
            zone in zones(),
            days in prop::array::uniform7(any::<bool>()).prop_filter("a day", |d| d.contains(&true)),
            from in 0u16..1440, length in 1u16..1440, seconds in 0i64..4_102_444_800, micros in 0i64..1_000_000,
        ) {
            let to = (from + length).min(1440);
            let w = Window { zone, days, from_minute: from, to_minute: to, holidays: Vec::new() };
            let now = Timestamp::from_micros(seconds * 1_000_000 + micros);
            let open = w.next_open(now);
            prop_assert!(open >= now);
            prop_assert_eq!(w.next_open(open), open);
            // By the wall clock too, wherever the zone's clock does not jump around that time: open then, closed before.
            let shown = |t: Timestamp| {
                use chrono::Offset;
                let at = t.to_utc();
                let offset = |hours: i64| (at + Duration::hours(hours)).with_timezone(&zone).offset().fix().local_minus_utc();
                (-25..=25).all(|h| offset(h) == offset(0)).then(|| {
                    let local = at.with_timezone(&zone);
                    let minute = local.hour() * 60 + local.minute();
                    days[local.weekday().num_days_from_monday() as usize] && (u32::from(from)..u32::from(to)).contains(&minute)
                })
            };
            prop_assert_ne!(shown(open), Some(false));
            let wait = open.since(now);
            for part in 0..8 {
                if wait > wait * part / 8 {
                    prop_assert_ne!(shown(now + wait * part / 8), Some(true));
                }
            }
        }
    }
}
