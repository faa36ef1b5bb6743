//! The flow language by example, and its properties.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::domain::window::Window;

macro_rules! golden {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/flows/", $name))
    };
}

fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 3600)
}

fn parse_text(text: &str) -> Result<Flow, Vec<Problem>> {
    parse(&serde_json::from_str(text).unwrap())
}

/// A flow of these steps in the current form.
fn flow(steps: Value) -> Value {
    json!({"schema_version": 1, "steps": steps})
}

fn problems(value: &Value) -> Vec<String> {
    parse(value).expect_err("a problem").iter().map(ToString::to_string).collect()
}

/// The flow has exactly one problem, here, that says this.
#[track_caller]
fn one(value: Value, path: &str, part: &str) {
    let found = problems(&value);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with(&format!("{path}: ")) && found[0].contains(part), "{found:#?}");
}

fn mail() -> Value {
    json!({"id": "mail", "action": "send_email", "subject": "s", "message": "m"})
}

/// A mail with members changed or added.
fn mail_with(members: Value) -> Value {
    let mut step = mail();
    step.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    flow(json!([step]))
}

fn invite(wait: Value) -> Value {
    json!({"id": "invite", "action": "send_linkedin_cr", "wait_for": wait})
}

#[test]
fn the_seeds_example_is_read_in_the_current_form() {
    let flow = parse_text(golden!("seed_current.json")).unwrap();
    assert_eq!(flow.window.as_ref().unwrap().days, [true, true, true, true, true, false, false]);
    assert_eq!(flow.stop_on, StopOn::ALL);
    let wait = flow.steps[0].wait_for.clone().unwrap();
    assert_eq!((wait.timeout, wait.check_every, wait.max_checks), (hours(72), hours(1), 168));
    assert_eq!((flow.steps[0].delay, flow.steps[1].delay, flow.steps[2].delay), (hours(0), hours(48), hours(120)));
    assert!(flow.steps[2].requires.connected);
    assert_eq!(parse(&to_json(&flow)), Ok(flow));
}

#[test]
fn the_seeds_example_is_read_in_the_old_form_and_written_in_the_current() {
    let flow = parse_text(golden!("seed_legacy.json")).unwrap();
    assert_eq!(
        to_json(&flow),
        json!({
            "schema_version": 1, "stop_on": ["reply", "unsubscribe", "hard_bounce"],
            "steps": [
                {"id": "step_1", "action": "send_linkedin_cr", "message": "Hi {{first_name}}, may we connect?",
                 "wait_for": {"trigger": "connection_accepted", "timeout": "72h", "check_every": "1h", "max_checks": 168,
                              "on_timeout": "continue"}},
                {"id": "step_2", "action": "send_email", "subject": "A word, {{first_name}}", "message": "Hello {{first_name}}",
                 "delay": "48h"},
                {"id": "step_3", "action": "send_linkedin_message", "message": "Did you see my mail, {{first_name}}?",
                 "delay": "120h", "requires": ["connected"]}
            ]
        })
    );
    assert_eq!(parse(&to_json(&flow)), Ok(flow));
}

#[test]
fn six_mistakes_are_told_in_one_answer_and_in_order() {
    let found = problems(&serde_json::from_str(golden!("six_mistakes.json")).unwrap());
    assert_eq!(found.join("\n"), golden!("six_mistakes.txt").trim_end());
    assert_eq!(found.len(), 6);
}

#[test]
fn what_is_no_flow_is_refused() {
    for value in [json!(null), json!(1), json!("x"), json!(true)] {
        one(value, "$", "must be an object");
    }
    one(json!([]), "$", "at least one step");
    one(json!({}), "$.steps", "at least one step");
    one(flow(json!([])), "$.steps", "at least one step");
    one(flow(json!({})), "$.steps", "must be a list");
    one(flow(Value::Array(vec![mail(); 101])), "$.steps", "at most 100");
    one(flow(json!([1])), "$.steps[0]", "must be an object");
    one(json!({"schema_version": 2, "steps": [mail()]}), "$.schema_version", "write 1");
}

#[test]
fn an_unknown_key_gets_the_nearest_known_one() {
    one(mail_with(json!({"dealy": "1h"})), "$.steps[0].dealy", "did you mean `delay`?");
    one(mail_with(json!({"delay_hours": 1})), "$.steps[0].delay_hours", "write `delay` with a unit");
    one(mail_with(json!({"a b": 1})), "$.steps[0][\"a b\"]", "unknown key");
    one(json!({"schema_version": 1, "stopon": [], "steps": [mail()]}), "$.stopon", "`stop_on`");
    one(flow(json!([{"id": "a", "type": "wait"}])), "$.steps[0].type", "write `action`");
}

#[test]
fn what_is_known_and_not_built_is_told_apart_from_what_is_unknown() {
    for action in names::ACTIONS_LATER {
        one(flow(json!([{"id": "a", "action": action, "cases": []}])), "$.steps[0].action", "not built yet");
    }
    one(flow(json!([{"id": "a", "action": "send_fax"}])), "$.steps[0].action", "unknown action `send_fax`");
    one(mail_with(json!({"variants": [{"weight": 1}]})), "$.steps[0].variants", "not built yet");
    one(
        mail_with(json!({"wait_for": {"trigger": "email_opened", "timeout": "1h"}})),
        "$.steps[0].wait_for.trigger",
        "not built",
    );
    one(
        mail_with(json!({"wait_for": {"trigger": "rain", "timeout": "1h"}})),
        "$.steps[0].wait_for.trigger",
        "unknown trigger",
    );
    one(mail_with(json!({"requires": ["replied"]})), "$.steps[0].requires[0]", "not built yet");
    one(mail_with(json!({"requires": ["rich"]})), "$.steps[0].requires[0]", "unknown entry");
    one(json!({"schema_version": 1, "stop_on": ["rply"], "steps": [mail()]}), "$.stop_on[0]", "did you mean `reply`?");
}

#[test]
fn weights_that_sum_to_zero_are_told_too() {
    let found = problems(&mail_with(json!({"variants": [{"weight": 0}, {"weight": 0}]})));
    assert!(found.len() == 2 && found[1].contains("sum to zero"), "{found:#?}");
}

#[test]
fn ids_are_there_well_formed_and_unique() {
    one(flow(json!([{"action": "wait"}])), "$.steps[0].id", "is missing");
    for id in [json!(""), json!("a b"), json!("é"), json!("x".repeat(65)), json!(1), json!(null)] {
        one(flow(json!([{"id": id, "action": "wait"}])), "$.steps[0].id", "1 to 64");
    }
    one(flow(json!([mail(), mail()])), "$.steps[1].id", "already the id of step 1");
}

#[test]
fn durations_are_checked() {
    for (delay, part) in [
        (json!("-1h"), "negative"),
        (json!("soon"), "no duration"),
        (json!(5), "no unit"),
        (json!([]), "must be"),
        (json!("3651d"), "3650d"),
    ] {
        one(mail_with(json!({"delay": delay})), "$.steps[0].delay", part);
    }
}

#[test]
fn waits_are_checked() {
    let wait = |members: Value| {
        let mut w = json!({"trigger": "reply", "timeout": "72h"});
        w.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        mail_with(json!({"wait_for": w}))
    };
    assert!(parse(&wait(json!({}))).is_ok());
    one(wait(json!({"timeout": "0h"})), "$.steps[0].wait_for.timeout", "zero");
    one(wait(json!({"check_every": "59s"})), "$.steps[0].wait_for.check_every", "too short");
    for n in [json!(0), json!(10_001), json!(-1), json!(1.5), json!("1")] {
        one(wait(json!({"max_checks": n})), "$.steps[0].wait_for.max_checks", "from 1 to 10000");
    }
    one(wait(json!({"on_timeout": "explode"})), "$.steps[0].wait_for.on_timeout", "goto");
    one(wait(json!({"on_timeout": {"goto": "nobody"}})), "$.steps[0].wait_for.on_timeout", "no step `nobody`");
    one(wait(json!({"on_timeout": "goto mail"})), "$.steps[0].wait_for.on_timeout", "cycle without bound");
    one(mail_with(json!({"wait_for": {"trigger": "reply"}})), "$.steps[0].wait_for.timeout", "without a timeout");
    one(mail_with(json!({"wait_for": "reply"})), "$.steps[0].wait_for", "without a timeout");
    one(mail_with(json!({"wait_for": {"timeout": "1h"}})), "$.steps[0].wait_for.trigger", "is missing");
    one(mail_with(json!({"wait_for": 7})), "$.steps[0].wait_for", "must be an object");
    one(
        mail_with(json!({"delay": "1h", "wait_for": {"trigger": "reply", "timeout": "2h"}})),
        "$.steps[0].delay",
        "delay (1h) and wait_for.timeout (2h) both given: drop delay",
    );
    one(
        mail_with(json!({"wait_for": {"trigger": "connection_accepted", "timeout": "2h"}})),
        "$.steps[0].wait_for",
        "no send_linkedin_cr",
    );
}

#[test]
fn the_plain_wait_takes_the_delay_as_its_deadline() {
    let flow = parse(&mail_with(json!({"delay": "5h", "wait_for": "reply"}))).unwrap();
    assert_eq!(flow.steps[0].wait_for.as_ref().unwrap().timeout, hours(5));
    assert_eq!(flow.steps[0].delay, Duration::ZERO);
}

#[test]
fn a_goto_names_its_target_in_both_spellings() {
    for target in [json!("goto last"), json!({"goto": "last"})] {
        let value = flow(json!([
            invite(json!({"trigger": "connection_accepted", "timeout": "1h", "on_timeout": target})),
            mail(),
            {"id": "last", "action": "wait"}
        ]));
        assert_eq!(parse(&value).unwrap().steps[0].wait_for.as_ref().unwrap().on_timeout, OnTimeout::Goto(3));
    }
}

#[test]
fn a_step_after_an_end_that_nothing_goes_to_is_unreachable() {
    let found = problems(&flow(json!([{"id": "e", "action": "end"}, mail()])));
    assert!(found.len() == 2 && found[1].starts_with("$.steps[1]: can never be reached"), "{found:#?}");
}

#[test]
fn a_linkedin_message_needs_a_connection_on_every_way_to_it() {
    let message = json!({"id": "m", "action": "send_linkedin_message", "message": "hi"});
    let with = |on_timeout: &str| {
        let wait = json!({"trigger": "connection_accepted", "timeout": "1h", "on_timeout": on_timeout});
        flow(json!([invite(wait), mail(), message]))
    };
    assert!(parse(&with("complete")).is_ok());
    assert!(parse(&with("fail")).is_ok());
    one(with("continue"), "$.steps[2]", "without a connection");
    one(with("goto m"), "$.steps[2]", "without a connection");
    one(flow(json!([message])), "$.steps[0]", "without a connection");
    // An invitation that is passed over is not waited for.
    let mut passed_over = with("fail");
    passed_over["steps"][0]["requires"] = json!(["connected"]);
    one(passed_over, "$.steps[2]", "without a connection");
}

#[test]
fn texts_are_checked() {
    let note = |text: String| flow(json!([{"id": "i", "action": "send_linkedin_cr", "message": text}]));
    assert!(parse(&note(format!("{}{{{{ first_name }}}}", "é".repeat(300)))).is_ok());
    one(note("é".repeat(301)), "$.steps[0].message", "at most 300 characters, this one 301");
    one(note("{{ firstname }}".into()), "$.steps[0].message", "did you mean `first_name`?");
    one(note("{{ shoe_size }}".into()), "$.steps[0].message", "default");
    one(note("{{ data.role }}".into()), "$.steps[0].message", "default");
    one(note("{{ data.a.b | default('x') }}".into()), "$.steps[0].message", "field of a field");
    assert!(parse(&note("{{ data.role | default('x') }}".into())).is_ok());
    one(note("{{ first_name ".into()), "$.steps[0].message", "never closed");
    one(note("{% if %}".into()), "$.steps[0].message", "does not compile");
    one(note(" ".into()), "$.steps[0].message", "empty");
    one(flow(json!([{"id": "e", "action": "send_email", "message": "m"}])), "$.steps[0].subject", "needs a subject");
    one(mail_with(json!({"subject": "a\r\nBcc: b"})), "$.steps[0].subject", "one line");
    one(flow(json!([{"id": "w", "action": "send_whatsapp"}])), "$.steps[0].message", "needs a message");
    one(
        flow(json!([{"id": "w", "action": "send_whatsapp", "message": "a".repeat(8001)}])),
        "$.steps[0].message",
        "8000",
    );
    one(
        flow(json!([{"id": "w", "action": "send_whatsapp", "message": "a", "subject": "s"}])),
        "$.steps[0].subject",
        "no subject",
    );
    one(flow(json!([{"id": "w", "action": "wait", "message": "a"}])), "$.steps[0].message", "sends nothing");
    one(mail_with(json!({"message": "a".repeat(100_001)})), "$.steps[0].message", "100001 bytes");
    one(mail_with(json!({"message": 5})), "$.steps[0].message", "must be a text");
}

#[test]
fn hours_are_checked() {
    let with = |timezone: Value, window: Value| json!({"schema_version": 1, "timezone": timezone, "window": window, "steps": [mail()]});
    let days = json!({"days": ["mon"], "from": "09:00", "to": "18:00"});
    assert!(parse(&with(json!("Asia/Kolkata"), days.clone())).is_ok());
    one(with(json!("Europe/Berln"), days.clone()), "$.timezone", "did you mean `Europe/Berlin`?");
    one(with(json!(1), days), "$.timezone", "must be the name");
    let utc = |window: Value| with(json!("UTC"), window);
    one(utc(json!({"days": [], "from": "09:00", "to": "18:00"})), "$.window.days", "never opens");
    one(utc(json!({"days": ["mon"], "from": "18:00", "to": "18:00"})), "$.window", "never opens");
    one(utc(json!({"days": ["monday"], "from": "09:00", "to": "18:00"})), "$.window.days[0]", "no day");
    one(utc(json!({"days": ["mon"], "from": "9", "to": "24:00"})), "$.window.from", "no time of day");
    one(utc(json!({"days": ["mon"], "from": "09:00", "to": "24:01"})), "$.window.to", "no time of day");
    one(utc(json!({"from": "09:00", "to": "10:00"})), "$.window.days", "is missing");
    one(utc(json!([])), "$.window", "must be an object");
    let no_zone =
        json!({"schema_version": 1, "window": {"days": ["sun"], "from": "00:00", "to": "24:00"}, "steps": [mail()]});
    assert_eq!(parse(&no_zone).unwrap().window.unwrap().zone, chrono_tz::Tz::UTC);
}

#[test]
fn the_old_forms_are_read() {
    let list =
        parse(&json!([{"action": "send_linkedin_cr", "wait_for": "connection_accepted", "message": "", "order": 1}]))
            .unwrap();
    assert_eq!(list.steps[0].id, "step_1");
    assert_eq!(list.steps[0].message, None);
    assert_eq!(list.steps[0].wait_for.as_ref().unwrap().timeout, hours(168));
    let odd =
        parse(&json!({"steps": [{"id": 7, "type": "wait", "delay_days": 1, "delay_hours": 1.5, "x": {}}], "y": 1}))
            .unwrap();
    assert_eq!((odd.steps[0].id.as_str(), odd.steps[0].delay), ("7", Duration::from_secs(91_800)));
    one(json!([{"type": "send_email", "message": "m"}]), "$[0].subject", "needs a subject");
    one(json!([{"type": "wait", "delay_hours": -1}]), "$[0].delay_hours", "not negative");
    one(json!([{"type": "wait", "delay_hours": 1e300}]), "$[0].delay_hours", "too long");
    one(json!([{"type": "send_fax"}]), "$[0].type", "unknown action");
}

#[test]
fn an_empty_stop_on_stops_on_nothing() {
    let flow = parse(&json!({"schema_version": 1, "stop_on": [], "name": "n", "description": "d", "steps": [mail()]}))
        .unwrap();
    assert_eq!(flow.stop_on, StopOn { reply: false, unsubscribe: false, hard_bounce: false });
}

fn any_json() -> impl Strategy<Value = Value> {
    let words = [
        "schema_version",
        "timezone",
        "window",
        "stop_on",
        "steps",
        "days",
        "from",
        "to",
        "id",
        "type",
        "action",
        "subject",
        "message",
        "delay",
        "wait_for",
        "trigger",
        "timeout",
        "check_every",
        "max_checks",
        "on_timeout",
        "requires",
        "variants",
        "send_email",
        "send_linkedin_cr",
        "send_linkedin_message",
        "wait",
        "end",
        "reply",
        "connection_accepted",
        "goto a",
        "a",
        "connected",
        "delay_hours",
        "1h",
        "mon",
        "09:00",
        "{{ first_name }}",
        "weight",
        "goto",
        "é",
    ];
    let word = prop_oneof![3 => prop::sample::select(words.to_vec()).prop_map(str::to_owned), 1 => "\\PC{0,8}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(json!(1)),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::vec((word.clone(), inner), 0..8).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

#[test]
fn only_an_invitation_with_a_note_can_require_it() {
    let invite = |members: Value| {
        let mut step = json!({"id": "a", "action": "send_linkedin_cr", "message": "m"});
        step.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        flow(json!([step]))
    };
    let read = parse(&invite(json!({"note_required": true}))).unwrap();
    assert!(read.steps[0].note_required && !read.steps[0].goes_without_note());
    assert_eq!(parse(&to_json(&read)), Ok(read));
    let read = parse(&invite(json!({"note_required": false}))).unwrap();
    assert!(read.steps[0].goes_without_note() && to_json(&read)["steps"][0].get("note_required").is_none());
    one(invite(json!({"note_required": "yes"})), "$.steps[0].note_required", "true or false");
    one(mail_with(json!({"note_required": true})), "$.steps[0].note_required", "there is no note here");
    let bare = flow(json!([{"id": "a", "action": "send_linkedin_cr", "note_required": true}]));
    one(bare, "$.steps[0].note_required", "there is no note here");
    assert!(!parse(&flow(json!([{"id": "a", "action": "send_linkedin_cr"}]))).unwrap().steps[0].goes_without_note());
}

prop_compose! {
    fn any_step()(
        action in prop::sample::select(Action::ALL), subject in "[a-z]{1,9}", message in "[a-zA-Z é.]{0,20}x", note in any::<bool>(),
        delay in 0u64..10_000_000_000, waits in any::<bool>(), timeout in 1u64..10_000_000_000, every in 60_000u64..1_000_000_000,
        max_checks in 1u32..=10_000, on_timeout in 0u8..4, jump in 1u32..4, connected in any::<bool>(),
    ) -> (Step, u32) {
        let trigger = if action == Action::SendLinkedinCr { WaitTrigger::ConnectionAccepted } else { WaitTrigger::Reply };
        let ms = Duration::from_millis;
        let on_timeout = match on_timeout {
            0 => OnTimeout::Continue,
            1 => OnTimeout::Complete,
            2 => OnTimeout::Fail,
            _ => OnTimeout::Goto(0),
        };
        (Step {
            id: String::new(),
            action,
            in_thread: false,
            note_required: action == Action::SendLinkedinCr && note && connected,
            track: if action == Action::SendEmail { Track { opens: connected, links: !connected } } else { Track::default() },
            subject: matches!(action, Action::SendEmail | Action::SendLinkedinInmail).then_some(subject),
            message: match action {
                Action::Wait | Action::VisitLinkedinProfile => None,
                Action::SendLinkedinCr => note.then_some(message),
                _ => Some(message),
            },
            delay: if waits { Duration::ZERO } else { ms(delay) },
            wait_for: waits.then(|| WaitFor { trigger, timeout: ms(timeout), check_every: ms(every), max_checks, on_timeout }),
            requires: Requires { connected: connected || action == Action::SendLinkedinMessage },
        }, jump)
    }
}

prop_compose! {
    fn any_flow()(
        steps in prop::collection::vec(any_step(), 1..8), stop_on in any::<[bool; 3]>(), has_window in any::<bool>(),
        zone in prop::sample::select(chrono_tz::TZ_VARIANTS.to_vec()),
        days in any::<[bool; 7]>().prop_filter("a day", |d| d.contains(&true)), from in 0u16..1440, length in 1u16..1440,
    ) -> Flow {
        let count = u32::try_from(steps.len()).unwrap();
        let steps = (1u32..).zip(steps).map(|(position, (mut step, jump))| {
            step.id = format!("s{position}");
            if let Some(wait) = &mut step.wait_for && wait.on_timeout == OnTimeout::Goto(0) {
                let target = position + jump;
                wait.on_timeout = if target <= count { OnTimeout::Goto(target) } else { OnTimeout::Fail };
            }
            step
        }).collect();
        Flow {
            window: has_window.then_some(Window {
                zone,
                days,
                from_minute: from,
                to_minute: (from + length).min(1440),
                holidays: Vec::new(),
            }),
            stop_on: StopOn { reply: stop_on[0], unsubscribe: stop_on[1], hard_bounce: stop_on[2] },
            steps,
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(flow in any_flow()) {
        prop_assert_eq!(parse(&to_json(&flow)), Ok(flow));
    }

    #[test]
    fn no_json_panics_and_a_refusal_says_why(value in any_json()) {
        match parse(&value) {
            Ok(flow) => prop_assert_eq!(parse(&to_json(&flow)), Ok(flow)),
            Err(problems) => prop_assert!(!problems.is_empty()),
        }
    }

    #[test]
    fn no_steps_panic(steps in prop::collection::vec(any_json(), 0..4), current in any::<bool>()) {
        let value = if current { flow(Value::Array(steps)) } else { Value::Array(steps) };
        match parse(&value) {
            Ok(flow) => prop_assert_eq!(parse(&to_json(&flow)), Ok(flow)),
            Err(problems) => prop_assert!(!problems.is_empty()),
        }
    }
}

#[test]
fn a_variable_in_single_braces_is_refused_because_people_would_read_the_braces() {
    let mail = |text: &str| json!({"steps": [{"id": "a", "action": "send_email", "subject": "Hi", "message": text}]});
    for good in ["Hi {{ first_name }}", "Hi {{first_name}}", "a {b} c", "{}"] {
        assert!(parse(&mail(good)).is_ok(), "{good}");
    }
    let found = problems(&mail("Hi {first_name}, {{ company_name }}"));
    assert_eq!(found, ["$.steps[0].message: `{first_name}` would be sent as it stands: write {{ first_name }}"]);
}

#[test]
fn an_inmail_has_a_subject_and_a_visit_has_nothing_to_say() {
    let inmail = |members: Value| {
        let mut step = json!({"id": "a", "action": "send_linkedin_inmail", "subject": "s", "message": "m"});
        step.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        flow(json!([step]))
    };
    let read = parse(&inmail(json!({}))).unwrap();
    assert_eq!((read.steps[0].action, read.steps[0].subject.as_deref()), (Action::SendLinkedinInmail, Some("s")));
    assert_eq!(parse(&to_json(&read)), Ok(read));
    one(inmail(json!({"subject": null})), "$.steps[0].subject", "must be a text");
    one(inmail(json!({"subject": "x".repeat(201)})), "$.steps[0].subject", "longer than 200");
    one(inmail(json!({"message": "x".repeat(1901)})), "$.steps[0].message", "an InMail has at most 1900 characters");
    one(
        flow(json!([{"id": "a", "action": "send_linkedin_inmail", "message": "m"}])),
        "$.steps[0].subject",
        "needs a subject",
    );
    let visit = flow(json!([{"id": "a", "action": "visit_linkedin_profile", "delay": "1d"}]));
    let read = parse(&visit).unwrap();
    assert_eq!((read.steps[0].action, read.steps[0].message.as_deref()), (Action::VisitLinkedinProfile, None));
    assert_eq!(parse(&to_json(&read)), Ok(read));
    for key in ["message", "subject"] {
        let step = json!({"id": "a", "action": "visit_linkedin_profile", key: "x"});
        one(flow(json!([step])), &format!("$.steps[0].{key}"), "remove");
    }
    // Nobody has to be a connection for either.
    assert!(
        parse(&flow(json!([{"id": "a", "action": "visit_linkedin_profile"}, {"id": "b",
        "action": "send_linkedin_inmail", "subject": "s", "message": "m"}])))
        .is_ok()
    );
}

#[test]
fn a_mail_goes_on_in_the_thread_of_one_before_it() {
    let again = json!({"id": "again", "action": "send_email", "message": "m", "in_thread": true});
    let read = parse(&flow(json!([mail(), again]))).unwrap();
    assert_eq!((read.steps[1].in_thread, read.steps[1].subject.as_deref()), (true, None));
    assert_eq!(parse(&to_json(&read)), Ok(read));
    one(flow(json!([again])), "$.steps[0].in_thread", "no send_email comes before");
    one(mail_with(json!({"in_thread": "yes"})), "$.steps[0].in_thread", "true or false");
    one(
        flow(json!([{"id": "a", "action": "send_whatsapp", "message": "m", "in_thread": true}])),
        "$.steps[0].in_thread",
        "only send_email",
    );
    one(mail_with(json!({"reply_to": "x"})), "$.steps[0].reply_to", "in_thread");
    assert!(!parse(&flow(json!([mail()]))).unwrap().steps[0].in_thread);
}

#[test]
fn a_mail_is_tracked_for_what_its_step_names() {
    let read = parse(&mail_with(json!({"track": ["links"]}))).unwrap();
    assert_eq!(read.steps[0].track, Track { opens: false, links: true });
    assert_eq!(parse(&to_json(&read)), Ok(read));
    assert_eq!(parse(&flow(json!([mail()]))).unwrap().steps[0].track, Track::default());
    one(mail_with(json!({"track": ["clicks"]})), "$.steps[0].track[0]", "links");
    one(mail_with(json!({"track": true})), "$.steps[0].track", "must be a list");
    one(mail_with(json!({"tracking": true})), "$.steps[0].tracking", "track");
    one(
        flow(json!([{"id": "a", "action": "send_whatsapp", "message": "m", "track": ["opens"]}])),
        "$.steps[0].track",
        "only send_email",
    );
}
