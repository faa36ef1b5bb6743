//! The rules of a campaign that deserve a sentence of their own.

use super::table::Stand;
use super::*;

/// Trouble that is not the prospect's.
const ACCOUNTS: [FailureClass; 4] =
    [FailureClass::AccountQuota, FailureClass::AccountBroken, FailureClass::KeyRefused, FailureClass::Unavailable];

fn waits_with(on_timeout: OnTimeout) -> Run {
    let mut flow = seed_flow();
    flow.steps[0].wait_for = wait(WaitTrigger::ConnectionAccepted, 72 * HOUR, on_timeout);
    Run::new(flow).on(Trigger::Due).sent().after(72 * HOUR)
}

// ---- replies and other facts -----------------------------------------------------------------------------------------

#[test]
fn reply_while_executing_cancels_the_send() {
    let run = Run::new(seed_flow()).on(Trigger::Due);
    let send = run.open();
    let run = run.on(Trigger::Reply { channel: Channel::Linkedin });
    assert_eq!(run.effects, [Effect::CancelSend(send)]);
    run.stands(Status::Completed, 4, None);
    assert_eq!(run.execution.exit_reason, Some(ExitReason::Replied));
    assert!(run.execution.linkedin.replied);
    run.refuses(Trigger::Due, Rejected::AlreadyFinal);
}

#[test]
fn outcome_after_early_end_is_still_recorded() {
    let ended = || Run::new(one_step(Action::SendEmail)).on(Trigger::Due).on(Trigger::Stop);
    let run = ended().sent();
    assert_eq!(run.finish().status, SendStatus::Sent);
    assert_eq!((run.execution.email.sent_count, run.execution.open_send), (1, None));
    assert_eq!(run.execution.status, Status::Completed);
    assert_eq!(run.execution.exit_reason, Some(ExitReason::Stopped));

    // What was not sent is not sent any more.
    for outcome in ACCOUNTS.map(failed).into_iter().chain([SendOutcome::NotSent]) {
        let run = ended().ends(outcome);
        assert_eq!(run.finish().status, SendStatus::Cancelled);
        assert_eq!(run.execution.open_send, None);
    }
    // What is unknown stays to be settled, and is cancelled or recorded once it is.
    let run = ended().ends(unknown());
    assert_eq!(run.finish().status, SendStatus::Unknown);
    assert_eq!(run.clone().sent().execution.email.sent_count, 1);
    assert_eq!(run.ends(SendOutcome::NotSent).finish().status, SendStatus::Cancelled);
}

#[test]
fn a_fact_that_arrives_after_the_end_is_recorded_once_and_changes_nothing_else() {
    let ended = Stand::Completed.run();
    let reply = Trigger::Reply { channel: Channel::Email };
    let run = ended.clone().on(reply.clone());
    assert!(run.execution.email.replied);
    let mut same = run.execution.clone();
    same.email.replied = false;
    same.version -= 1;
    assert_eq!(same, ended.execution);
    assert!(run.effects.is_empty());
    run.refuses(reply, Rejected::AlreadyFinal);

    let run = ended.clone().on(Trigger::ConnectionAccepted).on(Trigger::Bounce { status: BounceStatus::Soft });
    assert!(run.execution.is_connected());
    let run = run.on(Trigger::Bounce { status: BounceStatus::Hard });
    assert_eq!(run.execution.email.bounce_status, Some(BounceStatus::Hard));
    assert_eq!(run.execution.exit_reason, Some(ExitReason::Finished));
    run.refuses(Trigger::Bounce { status: BounceStatus::Soft }, Rejected::AlreadyFinal);
}

#[test]
fn acceptance_before_the_invite_result_satisfies_the_wait_at_once() {
    let run = Run::new(seed_flow()).on(Trigger::Due).on(Trigger::ConnectionAccepted).after(HOUR);
    run.stands(Status::Executing, 1, None);
    let run = run.sent();
    run.stands(Status::Pending, 2, Some(at_hour(1)));
    assert!(run.execution.is_connected(), "the invitation's result does not overwrite the acceptance");
    assert_eq!(run.execution.completed_steps, [1]);
}

#[test]
fn a_repeated_fact_is_already_known() {
    let run = Run::new(never_stops());
    for fact in [
        Trigger::ConnectionAccepted,
        Trigger::Reply { channel: Channel::Whatsapp },
        Trigger::Bounce { status: BounceStatus::Soft },
        Trigger::Bounce { status: BounceStatus::Hard },
    ] {
        run.clone().on(fact.clone()).refuses(fact, Rejected::AlreadyKnown);
    }
    let hard = run.on(Trigger::Bounce { status: BounceStatus::Hard });
    hard.refuses(Trigger::Bounce { status: BounceStatus::Soft }, Rejected::AlreadyKnown);
}

#[test]
fn without_stop_on_a_reply_and_a_bounce_are_recorded_and_the_flow_goes_on() {
    let run = Run::new(never_stops())
        .on(Trigger::Reply { channel: Channel::Email })
        .on(Trigger::Bounce { status: BounceStatus::Hard });
    run.stands(Status::Pending, 1, Some(START));
    assert!(run.execution.has_replied());
    // An unsubscription ends it whatever the flow says.
    let run = run.on(Trigger::Unsubscribe);
    assert_eq!(run.execution.exit_reason, Some(ExitReason::Unsubscribed));
}

#[test]
fn a_reply_that_is_waited_for_makes_the_next_step_due_now() {
    let mut flow = never_stops();
    flow.steps[0].wait_for = wait(WaitTrigger::Reply, 72 * HOUR, OnTimeout::Fail);
    let run = Run::new(flow).on(Trigger::Due).sent().after(3 * HOUR);
    let accepted = run.clone().on(Trigger::ConnectionAccepted);
    accepted.stands(Status::WaitingTrigger, 1, Some(at_hour(72)));
    run.on(Trigger::Reply { channel: Channel::Email }).stands(Status::Pending, 2, Some(at_hour(3)));
}

#[test]
fn a_reply_after_a_restart_ends_it_again() {
    let reply = Trigger::Reply { channel: Channel::Email };
    let run = Run::new(seed_flow()).on(reply.clone()).on(Trigger::Restart { step: 1 }).on(reply);
    assert_eq!(run.execution.exit_reason, Some(ExitReason::Replied));
}

// ---- time ------------------------------------------------------------------------------------------------------------

#[test]
fn late_timer_is_a_no_op() {
    let run = Run::new(seed_flow()).on(Trigger::Due);
    run.refuses(Trigger::Due, Rejected::NotWaiting);
    let run = run.sent();
    run.refuses(Trigger::Due, Rejected::NotDue);
    // The timer of the wait fires after the acceptance and the mail: neither is there to wait for.
    let run = run.after(HOUR).on(Trigger::ConnectionAccepted).on(Trigger::Due).sent();
    run.refuses(Trigger::Due, Rejected::NotDue);
    run.refuses(Trigger::CheckDue, Rejected::NotWaiting);
}

#[test]
fn every_wait_counts_its_own_checks_and_every_step_its_own_tries() {
    let mut flow = seed_flow();
    flow.steps[1].wait_for = wait(WaitTrigger::Reply, 24 * HOUR, OnTimeout::Continue);
    let run = Run::new(flow).on(Trigger::Due).sent().after(HOUR).on(Trigger::CheckDue);
    assert_eq!((run.execution.trigger_check_count, run.execution.attempt), (1, 0));
    let run = run.on(Trigger::ConnectionAccepted).on(Trigger::Due).sent();
    assert_eq!(run.execution.waiting_for_trigger, Some(WaitTrigger::Reply));
    assert_eq!((run.execution.trigger_check_count, run.execution.attempt), (0, 0));
}

#[test]
fn on_timeout_goto_jumps_and_records_what_was_jumped_over() {
    let run = waits_with(OnTimeout::Goto(3)).on(Trigger::Due);
    run.stands(Status::Pending, 3, Some(at_hour(72)));
    assert_eq!(
        (run.execution.completed_steps.as_slice(), run.execution.skipped_steps.as_slice()),
        (&[1][..], &[2][..])
    );
}

#[test]
fn on_timeout_complete_ends_it_well() {
    let run = waits_with(OnTimeout::Complete).on(Trigger::Due);
    run.stands(Status::Completed, 4, None);
    assert_eq!(run.execution.exit_reason, Some(ExitReason::Timeout));
    assert_eq!(run.execution.waiting_for_trigger, None);
}

#[test]
fn on_timeout_fail_ends_it_as_failed_where_it_stands() {
    let run = waits_with(OnTimeout::Fail).on(Trigger::Due);
    run.stands(Status::Failed, 1, None);
    assert_eq!(run.execution.exit_reason, Some(ExitReason::Timeout));
    assert_eq!(run.execution.wake_at(), None);
}

#[test]
fn last_step_completes_at_once() {
    let run = Run::new(one_step(Action::SendWhatsapp)).on(Trigger::Due).sent();
    run.stands(Status::Completed, 2, None);
    assert_eq!(run.execution.exit_reason, Some(ExitReason::Finished));
    assert_eq!(run.execution.whatsapp.sent_count, 1);
}

#[test]
fn a_wait_step_contacts_nobody_and_lets_its_delay_pass() {
    let run = Run::new(flow_of(vec![
        plain("rest", Action::Wait, 5 * HOUR),
        plain("mail", Action::SendEmail, Duration::ZERO),
    ]))
    .on(Trigger::Due);
    assert!(run.effects.is_empty());
    run.stands(Status::Pending, 2, Some(at_hour(5)));
    assert_eq!(run.execution.completed_steps, [1]);
}

// ---- failures --------------------------------------------------------------------------------------------------------

#[test]
fn retry_back_off_grows_and_the_step_fails_after_five_tries() {
    let mut run = Run::new(seed_flow());
    let mut waits = Vec::new();
    let mut sends = std::collections::BTreeSet::new();
    for attempt in 1..=retry::ATTEMPTS_MAX {
        run = run.on(Trigger::Due);
        assert_eq!(run.new_sends()[0].attempt, attempt);
        assert!(sends.insert(run.open()), "every try is a send of its own");
        run = run.fails(FailureClass::RetryLater);
        assert_eq!(run.finish().status, SendStatus::Failed);
        let due = run.execution.next_execution_at.unwrap();
        waits.push(due.since(run.now));
        run.now = due;
    }
    let failed_wait = waits.pop().unwrap();
    assert_eq!(waits.len(), 4);
    assert!(waits.is_sorted_by(|a, b| a < b), "{waits:?}");
    // The wait for acceptance is void, and the flow keeps its rhythm: the mail is due when the wait would have run out.
    assert_eq!(failed_wait, 72 * HOUR);
    assert_eq!(run.execution.failed_steps, [1]);
    assert_eq!((run.execution.current_step, run.execution.attempt, run.execution.error_count), (2, 0, 5));
    assert!(run.execution.last_error.is_some());
}

#[test]
fn account_trouble_costs_no_attempt_and_keeps_the_send() {
    for class in ACCOUNTS {
        let before = Run::new(seed_flow()).on(Trigger::Due);
        let mut run = before.clone();
        for _ in 0..20 {
            run = run.fails(class);
            assert_eq!(run.finish().status, SendStatus::Pending);
        }
        assert_eq!(run.execution.open_send, before.execution.open_send);
        assert_eq!((run.execution.attempt, run.execution.error_count), (1, 0));
        assert!(run.execution.last_error.is_some());
        run.sent().stands(Status::WaitingTrigger, 1, Some(at_hour(72)));
    }
}

#[test]
fn a_refused_recipient_fails_the_step_without_another_try() {
    for class in [FailureClass::RecipientPermanent, FailureClass::Rejected] {
        let run = Run::new(seed_flow()).on(Trigger::Due).fails(class);
        run.stands(Status::Pending, 2, Some(at_hour(72)));
        assert_eq!(run.execution.failed_steps, [1]);
        assert_eq!(run.execution.error_count, 1);
    }
}

#[test]
fn an_invitation_refused_for_its_note_is_another_send_at_once_and_fails_where_the_note_is_required() {
    let refused = || Run::new(seed_flow()).on(Trigger::Due).after(HOUR).fails(FailureClass::NoteRefused);
    let run = refused();
    run.stands(Status::Pending, 1, Some(at_hour(1)));
    assert_eq!(
        (run.finish().status, run.execution.open_send, run.execution.error_count),
        (SendStatus::Failed, None, 0)
    );
    assert!(run.execution.last_error.is_some());
    let first = Run::new(seed_flow()).on(Trigger::Due).open();
    let again = run.on(Trigger::Due);
    assert_eq!((again.new_sends()[0].attempt, again.open() == first), (2, false));
    again.sent().stands(Status::WaitingTrigger, 1, Some(at_hour(73)));
    // Whatever a provider says, not for ever.
    let mut run = refused();
    for _ in 1..5 {
        run = run.on(Trigger::Due).fails(FailureClass::NoteRefused);
    }
    run.stands(Status::Pending, 2, Some(at_hour(73)));

    let mut flow = seed_flow();
    flow.steps[0].note_required = true;
    let run = Run::new(flow).on(Trigger::Due).fails(FailureClass::NoteRefused);
    run.stands(Status::Pending, 2, Some(at_hour(72)));
    assert_eq!(run.execution.failed_steps, [1]);
}

#[test]
fn already_connected_counts_as_accepted_and_done() {
    let run = Run::new(seed_flow()).on(Trigger::Due).fails(FailureClass::AlreadyDone);
    run.stands(Status::Pending, 2, Some(START));
    assert!(run.execution.is_connected());
    assert_eq!((run.execution.completed_steps.as_slice(), run.execution.error_count), (&[1][..], 0));
}

#[test]
fn an_unknown_send_stays_open_until_it_is_settled() {
    let run = Run::new(seed_flow()).on(Trigger::Due).ends(unknown());
    run.stands(Status::Executing, 1, None);
    assert_eq!(run.execution.error_count, 0);
    run.clone().sent().stands(Status::WaitingTrigger, 1, Some(at_hour(72)));

    let again = run.clone().ends(SendOutcome::NotSent);
    assert_eq!((again.finish().status, again.open()), (SendStatus::Pending, run.open()));

    let parked = run.ends(unresolved());
    assert!(parked.finish().parked);
    assert_eq!((parked.finish().status, parked.execution.error_count), (SendStatus::Unknown, 1));
    parked.stands(Status::Executing, 1, None);
    // The person who looked may still settle it either way, or pass over the step.
    parked.clone().sent().stands(Status::WaitingTrigger, 1, Some(at_hour(72)));
    parked.on(Trigger::Skip).stands(Status::Pending, 2, Some(START));
}

#[test]
fn what_gets_lost_again_and_again_is_a_persons_to_decide_after_five_calls() {
    let mut run = Run::new(seed_flow()).on(Trigger::Due);
    let send = run.open();
    for _ in 1..retry::ATTEMPTS_MAX {
        run = run.ends(unknown()).ends(SendOutcome::NotSent);
        assert_eq!((run.finish().status, run.open()), (SendStatus::Pending, send));
        assert_eq!(run.execution.error_count, 0);
    }
    let run = run.ends(unknown()).ends(SendOutcome::NotSent);
    assert_eq!((run.finish().status, run.finish().parked, run.open()), (SendStatus::Unknown, true, send));
    assert!(run.finish().error.as_deref().is_some_and(|e| e.contains("5 times")));
    assert_eq!(run.execution.error_count, 1);
    run.stands(Status::Executing, 1, None);
    // A person has it sent again, and then it has its tries again.
    let mut run = run.on(Trigger::SendResolved { send, sent: false, by: "ops".to_owned() });
    for _ in 1..retry::ATTEMPTS_MAX {
        assert_eq!((run.finish().status, run.open()), (SendStatus::Pending, send));
        run = run.ends(unknown()).ends(SendOutcome::NotSent);
    }
    run.sent().stands(Status::WaitingTrigger, 1, Some(at_hour(72)));
}

#[test]
fn it_failed_only_if_no_step_was_done() {
    let two = || {
        Run::new(flow_of(vec![
            plain("a", Action::SendEmail, Duration::ZERO),
            plain("b", Action::SendWhatsapp, Duration::ZERO),
        ]))
        .on(Trigger::Due)
    };
    let no = FailureClass::RecipientPermanent;
    let none = two().fails(no).on(Trigger::Due).fails(no);
    assert_eq!((none.execution.status, none.execution.exit_reason), (Status::Failed, Some(ExitReason::Error)));
    let first = two().sent().on(Trigger::Due).fails(no);
    let second = two().fails(no).on(Trigger::Due).sent();
    for run in [first, second] {
        assert_eq!((run.execution.status, run.execution.exit_reason), (Status::Completed, Some(ExitReason::Finished)));
    }
}

// ---- requires --------------------------------------------------------------------------------------------------------

#[test]
fn a_step_that_requires_a_connection_is_passed_over_without_one() {
    let mut flow = seed_flow();
    flow.steps[2].requires.connected = true;
    let at_step_3 = |run: Run| run.on(Trigger::Due).sent().after(48 * HOUR).on(Trigger::Due);

    let run = at_step_3(Run::new(flow.clone()).on(Trigger::Due).sent().after(72 * HOUR).on(Trigger::Due));
    assert!(run.effects.is_empty());
    run.stands(Status::Completed, 4, None);
    assert_eq!(run.execution.skipped_steps, [3]);

    let run = at_step_3(Run::new(flow).on(Trigger::Due).sent().on(Trigger::ConnectionAccepted));
    run.stands(Status::Executing, 3, None);
}

#[test]
fn a_step_passed_over_keeps_the_rhythm_of_the_flow() {
    let mut flow = seed_flow();
    flow.steps[1].requires.connected = true;
    let run = Run::new(flow).on(Trigger::Due).sent().after(72 * HOUR).on(Trigger::Due).on(Trigger::Due);
    run.stands(Status::Pending, 3, Some(at_hour(120)));
    assert_eq!(run.execution.skipped_steps, [2]);
}

// ---- operators -------------------------------------------------------------------------------------------------------

#[test]
fn pause_and_resume_keep_the_timers() {
    for stand in [Stand::Pending, Stand::PendingLater, Stand::Executing, Stand::Waiting] {
        let before = stand.run();
        let paused = before.clone().on(Trigger::Pause);
        assert_eq!(paused.execution.wake_at(), None);
        let mut resumed = paused.after(500 * HOUR).on(Trigger::Resume).execution;
        resumed.version = before.execution.version;
        assert_eq!(resumed, before.execution);
    }
}

#[test]
fn send_result_while_paused_moves_on_underneath_and_stays_paused() {
    let run = Run::new(seed_flow()).on(Trigger::Due).on(Trigger::Pause).sent();
    assert_eq!((run.execution.status, run.execution.paused_status), (Status::Paused, Some(Status::WaitingTrigger)));
    assert_eq!(run.execution.wake_at(), None);
    run.on(Trigger::Resume).stands(Status::WaitingTrigger, 1, Some(at_hour(72)));

    let last = Run::new(one_step(Action::SendEmail)).on(Trigger::Due).on(Trigger::Pause).sent();
    last.stands(Status::Completed, 2, None);
    assert_eq!(last.execution.paused_status, None);
}

#[test]
fn acceptance_while_paused_ends_the_wait_and_stays_paused() {
    let run = Stand::PausedWaiting.run().after(5 * HOUR).on(Trigger::ConnectionAccepted);
    assert_eq!((run.execution.status, run.execution.paused_status), (Status::Paused, Some(Status::Pending)));
    run.on(Trigger::Resume).stands(Status::Pending, 2, Some(at_hour(5)));
}

#[test]
fn skip_passes_over_the_step_and_the_next_is_due_now() {
    let run = Stand::PendingLater.run().on(Trigger::Skip);
    run.stands(Status::Pending, 3, Some(run.now));
    assert_eq!(run.execution.skipped_steps, [2]);
    run.on(Trigger::Skip).stands(Status::Completed, 4, None);
}

#[test]
fn skip_takes_an_open_send_back_and_the_next_step_waits_for_what_came_of_it() {
    let run = Run::new(seed_flow()).on(Trigger::Due);
    let send = run.open();
    let run = run.on(Trigger::Skip);
    assert_eq!((run.effects.as_slice(), run.execution.open_send), (&[Effect::CancelSend(send)][..], Some(send)));
    assert_eq!(run.execution.wake_at(), None, "no timer may fire over an open send");
    run.refuses(Trigger::Due, Rejected::SendUnderWay);
    run.refuses(Trigger::Restart { step: 1 }, Rejected::SendUnderWay);
    let taken_back = run.clone().ends(SendOutcome::NotSent);
    assert_eq!((taken_back.finish().status, taken_back.execution.open_send), (SendStatus::Cancelled, None));
    taken_back.stands(Status::Pending, 2, Some(taken_back.now));
    // The provider had been called already: the fact counts, the step stays skipped.
    let sent = run.ends(SendOutcome::Sent);
    assert_eq!(sent.execution.linkedin.connection_status, Some(ConnectionStatus::Pending));
    assert_eq!((sent.execution.skipped_steps.as_slice(), sent.execution.open_send), (&[1][..], None));
    assert_eq!(sent.on(Trigger::Due).execution.status, Status::Executing);
}

#[test]
fn a_parked_send_of_a_skipped_step_holds_nothing_up() {
    let run = Run::new(seed_flow()).on(Trigger::Due).on(Trigger::Skip);
    let run = run.ends(SendOutcome::Unresolved { error: "no trace".into() });
    assert_eq!((run.finish().parked, run.execution.open_send), (true, None));
    assert_eq!(run.on(Trigger::Due).execution.status, Status::Executing);
}

#[test]
fn restart_revives_an_ended_execution_and_forgets_the_steps_from_there_on() {
    let run = Stand::Completed.run().on(Trigger::Restart { step: 2 });
    run.stands(Status::Pending, 2, Some(run.now));
    assert_eq!((run.execution.completed_steps.as_slice(), run.execution.exit_reason), (&[1][..], None));
    let send = run.on(Trigger::Due).open();
    assert_ne!(Some(send), Stand::Pending.run().on(Trigger::Due).execution.open_send, "a send of its own");
}

#[test]
fn restart_of_the_step_whose_send_is_under_way_is_refused() {
    for stand in [Stand::Executing, Stand::PausedExecuting] {
        stand.run().refuses(Trigger::Restart { step: 1 }, Rejected::SendUnderWay);
    }
}

#[test]
fn restart_after_an_early_end_is_refused_until_the_send_is_settled() {
    let restart = Trigger::Restart { step: 1 };
    let run = Run::new(seed_flow()).on(Trigger::Due).on(Trigger::Stop);
    run.refuses(restart.clone(), Rejected::SendUnderWay);
    let unsettled = run.clone().ends(unknown());
    unsettled.refuses(restart.clone(), Rejected::SendUnderWay);
    // Taken back in time, or settled: then it can start again.
    for outcome in [SendOutcome::NotSent, SendOutcome::Sent] {
        run.clone().ends(outcome).on(restart.clone()).stands(Status::Pending, 1, Some(START));
    }
}

#[test]
fn stop_ends_it_and_takes_the_send_back() {
    let run = Run::new(seed_flow()).on(Trigger::Due);
    let send = run.open();
    let run = run.on(Trigger::Stop);
    assert_eq!(run.effects, [Effect::CancelSend(send)]);
    assert_eq!(run.execution.exit_reason, Some(ExitReason::Stopped));
}

#[test]
fn quarantine_fails_it_with_the_input_that_crashed_it() {
    let run = Stand::Waiting.run().on(Trigger::Quarantine { input: "check_due: index out of range".to_owned() });
    run.stands(Status::Failed, 1, None);
    assert_eq!(run.execution.exit_reason, Some(ExitReason::Quarantined));
    assert_eq!(run.execution.last_error.as_deref(), Some("check_due: index out of range"));
    assert_eq!(run.execution.error_count, 1);
}

#[test]
fn somebody_who_writes_by_hand_stops_the_rest_until_it_is_resumed() {
    let took_over = Trigger::HumanTookOver { channel: Channel::Linkedin };
    let run = Stand::Waiting.run();
    let before = run.execution.clone();
    let run = run.on(took_over.clone());
    assert_eq!((run.execution.status, run.execution.paused_status), (Status::Paused, Some(Status::WaitingTrigger)));
    let why = run.execution.last_error.clone().unwrap();
    assert!(why.contains("by hand (linkedin)"), "{why}");
    assert_eq!(run.execution.error_count, before.error_count, "nothing went wrong");
    assert_eq!(run.execution.wake_at(), None);
    run.refuses(took_over, Rejected::Paused);
    // What is learnt meanwhile is kept, and going on is where it was left.
    let run = run.on(Trigger::ConnectionAccepted).on(Trigger::Resume);
    assert_eq!((run.execution.status, run.execution.current_step), (Status::Pending, 2));
}

#[test]
fn what_was_seen_is_recorded_once_and_moves_nothing() {
    let seen = |channel, how| Trigger::Seen { channel, how };
    let before = Stand::Waiting.run();
    let run = before.clone().on(seen(Channel::Whatsapp, Sighting::Read)).on(seen(Channel::Email, Sighting::Clicked));
    let e = &run.execution;
    assert!(e.whatsapp.read && e.whatsapp.delivered, "what was read has arrived");
    assert!(e.email.clicked && e.email.opened, "who clicks has opened");
    run.refuses(seen(Channel::Whatsapp, Sighting::Delivered), Rejected::AlreadyKnown);
    run.refuses(seen(Channel::Email, Sighting::Opened), Rejected::AlreadyKnown);
    run.refuses(seen(Channel::Email, Sighting::Read), Rejected::AlreadyKnown);
    let mut same = e.clone();
    (same.whatsapp, same.email, same.version) =
        (before.execution.whatsapp.clone(), before.execution.email.clone(), before.execution.version);
    assert_eq!(same, before.execution, "nothing else changes");
    assert!(!e.has_replied());
}

#[test]
fn an_inmail_counts_as_a_message_and_a_visit_as_nothing() {
    let run = Run::new(one_step(Action::SendLinkedinInmail)).on(Trigger::Due).sent();
    assert_eq!((run.execution.linkedin.message_count, run.execution.status), (1, Status::Completed));
    let run = Run::new(one_step(Action::VisitLinkedinProfile)).on(Trigger::Due).sent();
    assert_eq!((run.execution.linkedin.message_count, run.execution.status), (0, Status::Completed));
    assert_eq!(run.execution.last_executed_at, Some(START));
}
