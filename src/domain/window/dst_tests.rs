//! Every hour and every weekday around both changes of the clocks of a year, in five zones, against instants that are found by
//! looking at the wall clock minute by minute.

use std::collections::HashMap;

use chrono::{DateTime, Datelike, Days, Duration, NaiveDate, NaiveDateTime, Offset, TimeZone, Utc};
use chrono_tz::Tz;

use super::Window;
use crate::domain::time::Timestamp;

/// Whole and half hours, no change at all, and changes around a month that moves.
const ZONES: [Tz; 5] =
    [Tz::Europe__Berlin, Tz::America__New_York, Tz::Australia__Lord_Howe, Tz::Asia__Kathmandu, Tz::Africa__Casablanca];
/// Days before and after a change that are looked at.
const AROUND: i64 = 11;

/// The instants of 2026 at which a zone's clocks are changed; for a zone without any, two days of its own.
fn changes(zone: Tz) -> Vec<DateTime<Utc>> {
    let start = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap();
    let offset = |at: DateTime<Utc>| at.with_timezone(&zone).offset().fix().local_minus_utc();
    let minutes = (1..365 * 24 * 2).map(|n| start + Duration::minutes(30 * n));
    let found: Vec<_> = minutes.filter(|at| offset(*at) != offset(*at - Duration::minutes(30))).collect();
    if !found.is_empty() {
        assert_eq!(found.len(), 2, "{zone}: {found:?}");
        return found;
    }
    assert_eq!(zone, Tz::Asia__Kathmandu);
    vec![start + Duration::days(87), start + Duration::days(297)]
}

/// The wall clock around an instant, minute by minute.
struct Clock {
    shown: Vec<(DateTime<Utc>, NaiveDateTime)>,
    known: HashMap<(NaiveDate, u16, bool), DateTime<Utc>>,
}

impl Clock {
    fn around(zone: Tz, change: DateTime<Utc>) -> Self {
        let minutes = AROUND * 24 * 60;
        let shown = (-minutes..minutes)
            .map(|n| change + Duration::minutes(n))
            .map(|at| (at, at.with_timezone(&zone).naive_local()))
            .collect();
        Self { shown, known: HashMap::new() }
    }

    /// The first minute that shows this time or a later one; or the first after the last that shows an earlier one.
    fn instant(&mut self, date: NaiveDate, minute: u16, last: bool) -> DateTime<Utc> {
        let shown = &self.shown;
        *self.known.entry((date, minute, last)).or_insert_with(|| {
            let wanted = date.and_time(chrono::NaiveTime::MIN) + Duration::minutes(i64::from(minute));
            if last {
                shown.iter().rev().find(|(_, local)| *local < wanted).unwrap().0 + Duration::minutes(1)
            } else {
                shown.iter().find(|(_, local)| *local >= wanted).unwrap().0
            }
        })
    }

    /// What the rules in the module's text make of a window.
    fn next_open(&mut self, window: &Window, today: NaiveDate, now: DateTime<Utc>) -> DateTime<Utc> {
        for offset in 0..10 {
            let date = today - Days::new(1) + Days::new(offset);
            let day = window.days[date.weekday().num_days_from_monday() as usize];
            if !day || window.holidays.contains(&date) {
                continue;
            }
            let open = self.instant(date, window.from_minute, false);
            let close = match window.to_minute {
                1440 => self.instant(date + Days::new(1), 0, false),
                minute => self.instant(date, minute, true),
            };
            if open >= close || now >= close {
                continue;
            }
            return open.max(now);
        }
        panic!("it opens within a week");
    }
}

/// The half hours of the two days around a change, and moments that are none.
fn moments(change: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> {
    (-50..50).flat_map(move |n| {
        let at = change + Duration::minutes(30 * n);
        [at, at + Duration::seconds(1799)]
    })
}

fn check(zone: Tz, windows: impl Fn(u16) -> (u16, u16)) -> usize {
    let mut checked = 0;
    for change in changes(zone) {
        let mut clock = Clock::around(zone, change);
        for weekday in 0..7 {
            let mut days = [false; 7];
            days[weekday] = true;
            for hour in 0..24 {
                let (from_minute, to_minute) = windows(hour);
                let window = Window { zone, days, from_minute, to_minute, holidays: Vec::new() };
                for now in moments(change) {
                    let today = now.with_timezone(&zone).date_naive();
                    let expected = clock.next_open(&window, today, now);
                    let got = window.next_open(Timestamp::from(now));
                    assert_eq!(got, Timestamp::from(expected), "{zone}, change {change}, {window:?}, now {now}");
                    checked += 1;
                }
            }
        }
    }
    checked
}

#[test]
fn windows_of_an_hour_open_when_the_wall_clock_says_so() {
    let checked: usize = ZONES.iter().map(|zone| check(*zone, |hour| (hour * 60, hour * 60 + 60))).sum();
    assert_eq!(checked, 5 * 2 * 7 * 24 * 200);
}

#[test]
fn windows_that_begin_or_end_within_a_change_do_as_well() {
    for zone in ZONES {
        check(zone, |hour| (hour * 60 + 15, (hour * 60 + 15 + 195).min(1440)));
        check(zone, |hour| (0, (hour * 60 + 45).max(1)));
    }
}

#[test]
fn holidays_are_passed_over_also_on_the_day_of_a_change() {
    for zone in ZONES {
        for change in changes(zone) {
            let mut clock = Clock::around(zone, change);
            let on = change.with_timezone(&zone).date_naive();
            for holidays in [vec![on], vec![on, on + Days::new(1)], vec![on - Days::new(1), on, on + Days::new(2)]] {
                let window = Window { zone, days: [true; 7], from_minute: 60, to_minute: 240, holidays };
                for now in moments(change) {
                    let today = now.with_timezone(&zone).date_naive();
                    let expected = clock.next_open(&window, today, now);
                    assert_eq!(
                        window.next_open(Timestamp::from(now)),
                        Timestamp::from(expected),
                        "{zone} {window:?} {now}"
                    );
                }
            }
        }
    }
}

#[test]
fn many_holidays_in_a_row_only_make_it_later() {
    let first = NaiveDate::from_ymd_opt(2026, 1, 1).unwrap();
    let mondays = |n: u64| (0..n).map(|week| first + Days::new(4 + week * 7)).collect::<Vec<_>>();
    let days = [true, false, false, false, false, false, false];
    let window = Window { zone: Tz::Europe__Berlin, days, from_minute: 540, to_minute: 600, holidays: mondays(30) };
    let now = Timestamp::from(Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap());
    let expected =
        Tz::Europe__Berlin.from_local_datetime(&(first + Days::new(4 + 30 * 7)).and_hms_opt(9, 0, 0).unwrap());
    assert_eq!(window.next_open(now), Timestamp::from(expected.unwrap().to_utc()));
}
