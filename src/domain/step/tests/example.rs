//! The seed's worked example, line by line, against `tests/golden/seed_example.txt`; and what happens when nobody accepts.

use std::fmt::{Debug, Write as _};

use super::*;

/// Set to write the golden file instead of comparing with it.
const UPDATE: &str = "CAMPAIGND_UPDATE_GOLDEN";

fn or_null<T: std::fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(|| "null".to_owned(), |v| v.to_string())
}

/// A time as people read it: the distance from now in hours.
fn offset(at: Option<Timestamp>, now: Timestamp) -> String {
    or_null(at.map(|at| if at >= now { hours("+", at.since(now)) } else { hours("-", now.since(at)) }))
}

fn hours(sign: &str, d: Duration) -> String {
    assert_eq!(d.as_secs() % 3600, 0, "whole hours only");
    format!("{sign}{}h", d.as_secs() / 3600)
}

/// The fields of a Debug struct that differ from the default, as the state columns hold them.
fn object(pairs: &[(&str, Option<String>)]) -> String {
    let set: Vec<String> = pairs.iter().filter_map(|(k, v)| v.as_ref().map(|v| format!("{k}: {v}"))).collect();
    if set.is_empty() { "null".to_owned() } else { format!("{{ {} }}", set.join(", ")) }
}

fn if_not<T: PartialEq + Debug>(value: T, default: T) -> Option<String> {
    (value != default).then(|| format!("{value:?}"))
}

fn row(run: &Run) -> String {
    let e = &run.execution;
    let (li, mail, wa) = (&e.linkedin, &e.email, &e.whatsapp);
    let mut out = String::new();
    let mut field = |name: &str, value: String| writeln!(out, "    {name}: {value}").unwrap();
    field("current_step", e.current_step.to_string());
    field("status", e.status.to_string());
    field("waiting_for_trigger", or_null(e.waiting_for_trigger));
    field("trigger_check_count", format!("{} of {}", e.trigger_check_count, e.trigger_max_checks));
    field("next_check_at", offset(e.next_check_at, run.now));
    field("next_execution_at", offset(e.next_execution_at, run.now));
    field("last_executed_at", offset(e.last_executed_at, run.now));
    field("completed_steps", format!("{:?}", e.completed_steps));
    field("failed_steps", format!("{:?}", e.failed_steps));
    field("skipped_steps", format!("{:?}", e.skipped_steps));
    field(
        "linkedin_state",
        object(&[
            ("connection_status", li.connection_status.map(|s| s.to_string())),
            ("last_message_at", li.last_message_at.map(|at| offset(Some(at), run.now))),
            ("message_count", if_not(li.message_count, 0)),
            ("replied", if_not(li.replied, false)),
        ]),
    );
    field(
        "email_state",
        object(&[
            ("sent_count", if_not(mail.sent_count, 0)),
            ("opened", if_not(mail.opened, false)),
            ("replied", if_not(mail.replied, false)),
            ("last_sent_at", mail.last_sent_at.map(|at| offset(Some(at), run.now))),
            ("bounce_status", mail.bounce_status.map(|s| s.to_string())),
        ]),
    );
    field("whatsapp_state", object(&[("sent_count", if_not(wa.sent_count, 0))]));
    field("exit_reason", or_null(e.exit_reason));
    field("open_send", if e.open_send.is_some() { "set" } else { "null" }.to_owned());
    field("version", e.version.to_string());
    out
}

/// Applies triggers and notes each with what it entails.
fn drive(out: &mut String, run: &mut Run, triggers: &[&str]) {
    for name in triggers {
        let trigger = match *name {
            "due" => Trigger::Due,
            "connection_accepted" => Trigger::ConnectionAccepted,
            "send_finished" => finished(run.open()),
            other => panic!("unknown trigger {other}"),
        };
        run.apply(&trigger);
        let mut effects = Vec::new();
        for effect in &run.effects {
            effects.push(match effect {
                Effect::Send(s) => format!("send {} of step {} ({}), {}", s.attempt, s.step, s.action, s.status),
                Effect::CancelSend(_) => "take the send back".to_owned(),
                Effect::FinishSend(f) => format!("the send is {}", f.status),
            });
        }
        let effects = if effects.is_empty() { "nothing to do".to_owned() } else { effects.join("; ") };
        writeln!(out, "  {name} -> {} [{effects}]", run.execution.status).unwrap();
    }
}

#[test]
fn every_line_of_the_seeds_worked_example_is_what_the_row_holds() {
    let lines: [(&str, u32, &[&str]); 5] = [
        ("Time 0:   { current_step: 1, status: 'pending', next_execution_at: 'NOW' }", 0, &[]),
        (
            "Time 0:   Execute Step 1 (LinkedIn CR)\n          { current_step: 1, status: 'waiting_trigger', waiting_for: 'connection_accepted', next_check_at: '+1 hour' }",
            0,
            &["due", "send_finished"],
        ),
        (
            "Time 12h: Connection accepted!\n          { current_step: 2, status: 'pending', linkedin_state: { connection_status: 'accepted' }, next_execution_at: 'NOW' }",
            12,
            &["connection_accepted"],
        ),
        (
            "Time 12h: Execute Step 2 (Email)\n          { current_step: 3, status: 'pending', email_state: { sent_count: 1 }, next_execution_at: '+48 hours' }",
            12,
            &["due", "send_finished"],
        ),
        (
            "Time 60h: Execute Step 3 (LinkedIn message)\n          { current_step: 4, status: 'completed', linkedin_state: { message_count: 1 } }",
            60,
            &["due", "send_finished"],
        ),
    ];
    let mut run = Run::new(seed_flow());
    let mut out = String::from(
        "The worked example of the orchestrator that campaignd replaces, line by line, and the row after each line.\n\
         Times are distances from the line's own time. Written by `step::tests::example`.\n",
    );
    for (line, hour, triggers) in lines {
        if hour == 60 {
            assert_eq!(run.execution.wake_at(), Some(at_hour(60)), "the row itself says when the last step is due");
        }
        run.now = at_hour(hour);
        writeln!(out, "\n{line}").unwrap();
        drive(&mut out, &mut run, triggers);
        out.push_str(&row(&run));
    }

    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/seed_example.txt");
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(path, &out).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    assert_eq!(golden, out, "if the change is meant, run again with {UPDATE}=1 and review the file");
}

/// Lets time pass as the timer wheel does, until the execution is no longer waiting. Returns the checks that were made.
fn wait_out(run: &mut Run) -> u32 {
    let mut checks = 0;
    while run.execution.status == Status::WaitingTrigger {
        run.now = run.execution.wake_at().unwrap();
        let deadline = run.execution.next_execution_at.is_some_and(|at| at <= run.now);
        run.apply(if deadline { &Trigger::Due } else { &Trigger::CheckDue });
        checks += u32::from(!deadline);
    }
    checks
}

#[test]
fn without_an_acceptance_the_wait_ends_at_its_deadline_of_72_hours_long_before_168_checks() {
    let mut run = Run::new(seed_flow()).on(Trigger::Due).sent();
    assert_eq!(run.execution.trigger_max_checks, 168);
    run.stands(Status::WaitingTrigger, 1, Some(at_hour(72)));
    assert_eq!(wait_out(&mut run), 71);
    assert_eq!(run.now, at_hour(72));
    run.stands(Status::Pending, 2, Some(at_hour(72)));
    assert_eq!(run.execution.completed_steps, [1]);

    // Nobody accepted: the mail goes out all the same, and the last step too, as it does not ask for a connection.
    let mut run = run.on(Trigger::Due).sent();
    run.stands(Status::Pending, 3, Some(at_hour(120)));
    run.now = at_hour(120);
    let run = run.on(Trigger::Due).sent();
    run.stands(Status::Completed, 4, None);
    assert_eq!(run.execution.exit_reason, Some(ExitReason::Finished));
}

#[test]
fn a_wait_longer_than_seven_days_ends_after_168_checks() {
    let mut flow = seed_flow();
    flow.steps[0].wait_for = wait(WaitTrigger::ConnectionAccepted, 240 * HOUR, OnTimeout::Continue);
    let mut run = Run::new(flow).on(Trigger::Due).sent();
    assert_eq!(wait_out(&mut run), 168);
    assert_eq!(run.now, at_hour(168));
    run.stands(Status::Pending, 2, Some(at_hour(168)));
    assert_eq!(run.execution.trigger_check_count, 168);
}

#[test]
fn checks_that_were_missed_while_nothing_ran_are_not_made_up_for() {
    let run = Run::new(seed_flow()).on(Trigger::Due).sent().after(10 * HOUR + HOUR / 2).on(Trigger::CheckDue);
    assert_eq!(run.execution.trigger_check_count, 1);
    assert_eq!(run.execution.next_check_at, Some(run.now + HOUR));
    run.refuses(Trigger::CheckDue, Rejected::NotDue);
}
