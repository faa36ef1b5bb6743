//! The rules of budgets, and the property that no window ever holds more than its limit.

use chrono::{NaiveDate, TimeZone};
use chrono_tz::Tz;
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;

const START: Timestamp = Timestamp::from_micros(1_767_603_600_000_000);
const ACCOUNT: AccountId = AccountId(Uuid::from_u128(1));

fn send(n: u128) -> SendId {
    SendId(Uuid::from_u128(n))
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn mailbox(day: u32, week: u32) -> Budget {
    Budget {
        kind: AccountKind::MailImap,
        limits: vec![(Kind::Mail, Limit { day, week })],
        spacing: Spacing { min: seconds(10), max: seconds(20) },
        warm_up: None,
        hours: None,
    }
}

fn decide(budget: &Budget, history: &History, kind: Kind, now: Timestamp) -> Decision {
    budget.decide(history, kind, (ACCOUNT, START), send(1), now)
}

#[track_caller]
fn waits(budget: &Budget, history: &History, kind: Kind, now: Timestamp) -> (Timestamp, Why) {
    match decide(budget, history, kind, now) {
        Decision::Wait { until, why } => (until, why),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_full_day_waits_until_the_oldest_leaves_the_window() {
    let budget = mailbox(2, 100);
    let mut history = History::default();
    history.note(Kind::Mail, START);
    history.note(Kind::Mail, START + seconds(7200));
    let (until, why) = waits(&budget, &history, Kind::Mail, START + seconds(7300));
    assert_eq!(why, Why::DayFull { kind: Kind::Mail, limit: 2 });
    // Its quarter of an hour has to have left as a whole.
    assert_eq!(until, START + DAY + seconds(900));
    assert!(matches!(decide(&budget, &history, Kind::Mail, until - seconds(1)), Decision::Wait { .. }));
    assert!(matches!(decide(&budget, &history, Kind::Mail, until), Decision::Allowed { .. }));
}

#[test]
fn a_full_week_waits_longer_than_a_full_day() {
    let budget = mailbox(2, 3);
    let mut history = History::default();
    for n in 0..3 {
        history.note(Kind::Mail, START + DAY * n);
    }
    let (until, why) = waits(&budget, &history, Kind::Mail, START + DAY * 4);
    assert_eq!((until, why), (START + WEEK + seconds(900), Why::WeekFull { kind: Kind::Mail, limit: 3 }));
}

#[test]
fn a_special_case_uses_up_both_limits_and_no_limit_of_another() {
    let mut budget = Budget::defaults(AccountKind::LinkedinPremium);
    budget.warm_up = None;
    budget.limits = vec![
        (Kind::InviteWithNote, Limit { day: 1, week: 1 }),
        (Kind::Invite, Limit { day: 2, week: 2 }),
        (Kind::Inmail, Limit { day: 0, week: 0 }),
    ];
    let mut history = History::default();
    history.note(Kind::InviteWithNote, START);
    let (_, why) = waits(&budget, &history, Kind::InviteWithNote, START);
    assert_eq!(why, Why::WeekFull { kind: Kind::InviteWithNote, limit: 1 });
    assert!(matches!(decide(&budget, &history, Kind::Invite, START), Decision::Allowed { .. }));
    history.note(Kind::Invite, START);
    let (_, why) = waits(&budget, &history, Kind::Invite, START);
    assert_eq!(why, Why::WeekFull { kind: Kind::Invite, limit: 2 });
    assert!(matches!(decide(&budget, &history, Kind::Message, START), Decision::Allowed { .. }));
    assert_eq!(decide(&budget, &history, Kind::Inmail, START), Decision::Never { kind: Kind::Inmail });
}

#[test]
fn a_new_account_grows_into_its_limits_day_by_day() {
    let ramp = |growth| Budget { warm_up: Some(WarmUp { start: 5, growth }), ..mailbox(20, 1000) };
    for (growth, expected) in [(Growth::PerDay(4), [5, 9, 13, 17, 20, 20]), (Growth::Days(5), [5, 8, 11, 14, 17, 20])] {
        let budget = ramp(growth);
        let got: Vec<u32> = (0..6).map(|day| budget.today(20, START, START + DAY * day + seconds(5))).collect();
        assert_eq!(got, expected, "{growth:?}");
        assert_eq!(budget.today(3, START, START), 3, "never more than the limit");
        assert_eq!(budget.today(20, START, START - DAY), 5, "an account that begins tomorrow");
    }
    // A full first day ends with the second, whose limit is higher, and not only when the window has moved on.
    let budget = ramp(Growth::PerDay(4));
    let mut history = History::default();
    let late = START + seconds(23 * 3600);
    for _ in 0..5 {
        history.note(Kind::Mail, late);
    }
    let (until, why) = waits(&budget, &history, Kind::Mail, late);
    assert_eq!((until, why), (START + DAY, Why::DayFull { kind: Kind::Mail, limit: 5 }));
    assert!(matches!(decide(&budget, &history, Kind::Mail, until), Decision::Allowed { .. }));
}

#[test]
fn brakes_hold_for_their_kind_or_for_all_and_the_later_one_wins() {
    let budget = Budget { warm_up: None, ..Budget::defaults(AccountKind::LinkedinPremium) };
    let mut history = History::default();
    history.brake(Some(Kind::Invite), START + seconds(3600));
    history.brake(Some(Kind::Invite), START + seconds(60));
    let wait = waits(&budget, &history, Kind::InviteWithNote, START);
    assert_eq!(wait, (START + seconds(3600), Why::Resting));
    assert!(matches!(decide(&budget, &history, Kind::Message, START), Decision::Allowed { .. }));
    history.brake(None, START + QUOTA_REST);
    assert_eq!(waits(&budget, &history, Kind::Message, START).0, START + QUOTA_REST);
    assert_eq!(waits(&budget, &history, Kind::Invite, START).0, START + QUOTA_REST);
    history.release();
    assert!(matches!(decide(&budget, &history, Kind::Invite, START), Decision::Allowed { .. }));
    assert_eq!(
        [50, 74, 75, 90, 95, 100].map(rest_after_usage),
        [None, None, Some(seconds(3600)), Some(seconds(21_600)), Some(QUOTA_REST), Some(QUOTA_REST)]
    );
}

#[test]
fn working_hours_and_limits_are_kept_together() {
    let hours = Window {
        zone: Tz::Europe__Berlin,
        days: [true, true, true, true, true, false, false],
        from_minute: 9 * 60,
        to_minute: 17 * 60,
        holidays: vec![NaiveDate::from_ymd_opt(2026, 1, 6).unwrap()],
    };
    let at = |d: u32, h: u32, m: u32| {
        Timestamp::from(Tz::Europe__Berlin.with_ymd_and_hms(2026, 1, d, h, m, 0).unwrap().to_utc())
    };
    let budget = Budget { hours: Some(hours), ..mailbox(1, 100) };
    let mut history = History::default();
    // Monday; Tuesday is a holiday.
    assert_eq!(waits(&budget, &history, Kind::Mail, at(5, 8, 0)), (at(5, 9, 0), Why::Closed));
    history.note(Kind::Mail, at(5, 16, 50));
    let (until, why) = waits(&budget, &history, Kind::Mail, at(5, 16, 55));
    assert_eq!((until, why), (at(7, 9, 0), Why::DayFull { kind: Kind::Mail, limit: 1 }));
}

#[test]
fn the_rest_between_two_sends_is_spread_over_the_whole_range_and_always_the_same() {
    let spacing = Spacing { min: seconds(45), max: seconds(120) };
    let gaps: Vec<u64> = (0..10_000).map(|n| spacing.gap(ACCOUNT, send(n)).as_millis() as u64).collect();
    assert!(gaps.iter().all(|g| (45_000..=120_000).contains(g)));
    for tenth in 0..10 {
        let (from, to) = (45_000 + tenth * 7_500, 45_000 + (tenth + 1) * 7_500);
        let n = gaps.iter().filter(|g| (from..to).contains(*g)).count();
        assert!((800..1200).contains(&n), "{n} of 10000 in tenth {tenth}");
    }
    assert_eq!(spacing.gap(ACCOUNT, send(7)), spacing.gap(ACCOUNT, send(7)));
    let none = Spacing { min: seconds(5), max: seconds(5) };
    assert_eq!(none.gap(ACCOUNT, send(7)), seconds(5));
}

#[test]
fn every_kind_of_account_has_defaults_for_all_it_does() {
    for kind in AccountKind::ALL {
        let budget = Budget::defaults(*kind);
        for what in Kind::ALL.iter().filter(|k| k.channel() == kind.channel()) {
            let limit = budget.limit(*what).unwrap_or_else(|| panic!("{kind} has no limit for {what}"));
            assert!(limit.day <= limit.week, "{kind} {what}");
        }
        assert_eq!(parse(&to_json(&budget), kind.channel()), Ok(budget));
    }
    assert_eq!(parse(&json!({}), Channel::Email), Ok(Budget::defaults(AccountKind::MailGoogle)));
}

#[test]
fn hours_with_holidays_read_back_in_order() {
    let given = json!({"kind": "mail_workspace", "timezone": "Europe/Berlin", "window": {"days": ["mon", "fri"], "from": "09:00",
        "to": "24:00", "holidays": ["2026-12-25", "2026-01-01", "2026-12-25"]}});
    let budget = parse(&given, Channel::Email).unwrap();
    let hours = budget.hours.as_ref().unwrap();
    let dates: Vec<String> = hours.holidays.iter().map(ToString::to_string).collect();
    assert_eq!((dates, hours.to_minute), (vec!["2026-01-01".to_owned(), "2026-12-25".to_owned()], 1440));
    assert_eq!(to_json(&budget)["window"]["holidays"], json!(["2026-01-01", "2026-12-25"]));
    assert_eq!(parse(&to_json(&budget), Channel::Email), Ok(budget));
}

#[test]
fn every_mistake_in_the_limits_is_told_with_its_path() {
    let bad = json!({
        "kind": "mail_imap", "colour": 1,
        "limits": {"invite": {"day": -1, "week": 5, "month": 1}, "mail": {"day": 1}, "message": 5, "inmail": {"day": 9, "week": 2}},
        "spacing": {"min": "2m", "max": "1m"}, "warm_up": {"start": 0, "days": 3, "per_day": 1},
        "timezone": "Europe/Berln", "window": {"days": ["mon"], "from": "9:00", "to": "17:00", "holidays": ["tomorrow"]},
    });
    let problems = parse(&bad, Channel::Linkedin).unwrap_err();
    let paths: Vec<&str> = problems.iter().map(|p| p.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "$.colour",
            "$.kind",
            "$.limits.mail",
            "$.limits.inmail",
            "$.limits.invite.month",
            "$.limits.invite.day",
            "$.limits.invite",
            "$.limits.message",
            "$.spacing",
            "$.warm_up.start",
            "$.warm_up",
            "$.timezone",
            "$.window.from",
            "$.window.holidays[0]",
        ]
    );
    assert!(parse(&Value::Null, Channel::Email).is_err());
    let alone = parse(&json!({"limits": {"mail": {"day": 10}}, "warm_up": null}), Channel::Email).unwrap();
    assert_eq!((alone.limit(Kind::Mail), alone.warm_up), (Some(Limit { day: 10, week: 70 }), None));
}

/// One thing that happens to an account.
#[derive(Clone, Debug)]
enum Event {
    /// Time passes.
    Seconds(u64),
    /// Waits exactly as long as it was told.
    UntilTold,
    /// Asks for one, or for as many as there are.
    Ask(Kind, u8),
    /// The process dies: what was stored is read back.
    Restart,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let kinds = [Kind::InviteWithNote, Kind::Invite, Kind::Message];
    let event = prop_oneof![
        3 => (1_u64..4000).prop_map(Event::Seconds),
        2 => (4000_u64..200_000).prop_map(Event::Seconds),
        4 => Just(Event::UntilTold),
        9 => (prop::sample::select(kinds.to_vec()), 1_u8..20).prop_map(|(kind, n)| Event::Ask(kind, n)),
        1 => Just(Event::Restart),
    ];
    prop::collection::vec(event, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Against the exact times: whatever is allowed, no 24 hours and no 7 days hold more than the limit, wherever they begin; and
    /// whoever is told to wait is not told so for ever.
    #[test]
    fn no_window_ever_holds_more_than_its_limit(
        events in events(), day in 1_u32..8, more in 0_u32..20, note in 1_u32..5, offset in 0_u64..10_000_000_000,
        ramp in prop::option::of((1_u32..4, 1_u32..5)),
    ) {
        let start = START + Duration::from_micros(offset);
        let budget = Budget {
            kind: AccountKind::LinkedinPremium,
            limits: vec![
                (Kind::Invite, Limit { day, week: day + more }),
                (Kind::InviteWithNote, Limit { day: note, week: note * 3 }),
                (Kind::Message, Limit { day: day * 2, week: day * 9 }),
            ],
            spacing: Spacing { min: seconds(1), max: seconds(3) },
            warm_up: ramp.map(|(start, more)| WarmUp { start, growth: Growth::PerDay(more) }),
            hours: None,
        };
        let mut history = History::default();
        let mut done: Vec<(Kind, Timestamp)> = Vec::new();
        let (mut now, mut told) = (start, start);
        for event in events {
            match event {
                Event::Seconds(n) => now = now + seconds(n),
                Event::UntilTold => now = now.max(told),
                Event::Restart => {
                    let stored = history.to_json();
                    history = History::from_json(&serde_json::from_str(&stored.to_string()).unwrap()).unwrap();
                }
                Event::Ask(kind, times) => for n in 0..times {
                    match budget.decide(&history, kind, (ACCOUNT, start), send(u128::from(n)), now) {
                        Decision::Allowed { next_gap } => {
                            history.note(kind, now);
                            done.push((kind, now));
                            now = now + next_gap;
                        }
                        Decision::Wait { until, .. } => {
                            prop_assert!(until > now);
                            // The time that was told holds, and it is not later than it takes the window to pass.
                            prop_assert!(until.since(now) <= WEEK + seconds(900));
                            let then = budget.decide(&history, kind, (ACCOUNT, start), send(1), until);
                            let allowed = matches!(then, Decision::Allowed { .. });
                            prop_assert!(allowed, "told {} and then {:?}", until, then);
                            told = until;
                            break;
                        }
                        Decision::Never { .. } => prop_assert!(false, "no limit is 0"),
                    }
                },
            }
        }
        for (counted, limit) in &budget.limits {
            let times: Vec<Timestamp> =
                done.iter().filter(|(kind, _)| kind.counts_as().contains(counted)).map(|(_, at)| *at).collect();
            // The fullest window ends with a send: each that ends there, `(end - length, end]`.
            for (n, end) in times.iter().enumerate() {
                let within = |length: Duration| times[..=n].iter().filter(|t| **t > *end - length).count();
                let today = budget.today(limit.day, start, *end) as usize;
                prop_assert!(within(DAY) <= today, "{} in the 24 h before {}", counted, end);
                prop_assert!(within(WEEK) <= limit.week as usize, "{} in the week before {}", counted, end);
            }
            let truly = times.iter().filter(|t| **t > now - WEEK).count();
            let noted = history.count(*counted, WEEK, now) as usize;
            prop_assert!(noted >= truly, "{} noted of {}", noted, truly);
        }
        // Small enough to be stored with every send.
        prop_assert!(history.to_json().to_string().len() < 20_000);
    }

    #[test]
    fn no_stored_text_makes_reading_panic(text in "\\PC{0,60}", number in any::<i64>()) {
        for value in [json!(text), json!({"v": number}), json!({"v": 1, "counts": {"invite": [[number, number]]}, "rests": {"all": number}})] {
            let _ = History::from_json(&value);
            let _ = parse(&value, Channel::Linkedin);
            if let Ok(history) = History::from_json(&value) {
                let _ = decide(&Budget::defaults(AccountKind::LinkedinFree), &history, Kind::Invite, START);
            }
        }
    }
}
