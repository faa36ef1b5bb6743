//! Rows of other programs: what they lack is mended, what they hold is kept.

use super::*;

fn adopted(change: impl FnOnce(&mut Execution)) -> Run {
    let mut run = Run::new(seed_flow());
    change(&mut run.execution);
    assert!(needs_mending(&run.execution, &run.flow));
    let run = run.after(HOUR).on(Trigger::Adopted);
    assert!(!needs_mending(&run.execution, &run.flow), "mended once: {:?}", run.execution);
    run
}

#[test]
fn a_row_as_the_function_makes_it_needs_no_mending() {
    let run = Run::new(seed_flow());
    assert!(!needs_mending(&run.execution, &run.flow));
    run.refuses(Trigger::Adopted, Rejected::NothingToMend);
}

#[test]
fn a_row_in_executing_without_a_send_of_ours_gets_an_unknown_send_to_be_read_back() {
    let run = adopted(|e| {
        e.status = Status::Executing;
        e.current_step = 2;
    });
    run.stands(Status::Executing, 2, None);
    let sends = run.new_sends();
    assert_eq!((sends[0].status, sends[0].action, sends[0].attempt), (SendStatus::Unknown, Action::SendEmail, 1));
    assert_eq!(run.execution.open_send, Some(sends[0].id));
}

#[test]
fn a_row_in_executing_on_a_step_that_contacts_nobody_is_due_now() {
    let mut run = Run::new(one_step(Action::Wait));
    run.execution.status = Status::Executing;
    run.on(Trigger::Adopted).stands(Status::Pending, 1, Some(START));
}

#[test]
fn a_pending_row_without_a_due_time_is_due_now() {
    adopted(|e| e.next_execution_at = None).stands(Status::Pending, 1, Some(at_hour(1)));
}

#[test]
fn a_row_at_position_zero_starts_at_the_first_step() {
    adopted(|e| e.current_step = 0).stands(Status::Pending, 1, Some(START));
}

#[test]
fn a_row_past_the_end_is_completed() {
    for status in [Status::Pending, Status::Executing, Status::WaitingTrigger, Status::Paused] {
        let run = adopted(|e| {
            e.status = status;
            e.current_step = 9;
        });
        run.stands(Status::Completed, 4, None);
    }
}

#[test]
fn a_waiting_row_gets_the_wake_ups_it_lacks_and_keeps_those_it_has() {
    let run = adopted(|e| {
        e.status = Status::WaitingTrigger;
        e.next_execution_at = Some(at_hour(30));
    });
    run.stands(Status::WaitingTrigger, 1, Some(at_hour(30)));
    assert_eq!(run.execution.waiting_for_trigger, Some(WaitTrigger::ConnectionAccepted));
    assert_eq!(run.execution.next_check_at, Some(at_hour(2)));
}

#[test]
fn a_waiting_row_without_a_number_of_checks_gets_its_flows() {
    let run = adopted(|e| {
        e.status = Status::WaitingTrigger;
        e.waiting_for_trigger = Some(WaitTrigger::ConnectionAccepted);
        e.next_execution_at = Some(at_hour(30));
        e.next_check_at = Some(at_hour(1));
        e.trigger_max_checks = 0;
    });
    assert_eq!(run.execution.trigger_max_checks, MAX_CHECKS_DEFAULT);
    run.on(Trigger::CheckDue).stands(Status::WaitingTrigger, 1, Some(at_hour(30)));
}

#[test]
fn a_waiting_row_whose_fact_is_already_recorded_goes_on_at_its_next_wake_up() {
    for (trigger, hour) in [(Trigger::CheckDue, 2), (Trigger::Due, 30)] {
        let mut run = adopted(|e| {
            e.status = Status::WaitingTrigger;
            e.linkedin.connection_status = Some(ConnectionStatus::Accepted);
            e.next_execution_at = Some(at_hour(30));
        });
        // A deadline that has passed does not count against a person who has accepted.
        run.flow.steps[0].wait_for = wait(WaitTrigger::ConnectionAccepted, 72 * HOUR, OnTimeout::Fail);
        run.now = at_hour(hour);
        run.on(trigger).stands(Status::Pending, 2, Some(at_hour(hour)));
    }
}

#[test]
fn a_waiting_row_waits_for_what_its_column_says_also_where_the_flow_says_otherwise() {
    let mut run = Run::new(never_stops());
    run.execution.status = Status::WaitingTrigger;
    run.execution.waiting_for_trigger = Some(WaitTrigger::Reply);
    run.execution.linkedin.connection_status = Some(ConnectionStatus::Accepted);
    run.execution.next_check_at = Some(START);
    run.execution.next_execution_at = Some(at_hour(72));
    let run = run.on(Trigger::CheckDue);
    run.stands(Status::WaitingTrigger, 1, Some(at_hour(72)));
    assert_eq!(run.execution.next_check_at, Some(at_hour(1)), "the next check lies ahead");
    run.on(Trigger::Reply { channel: Channel::Email }).stands(Status::Pending, 2, Some(START));
}

#[test]
fn a_paused_row_becomes_on_resume_what_its_columns_say_it_was() {
    let run = adopted(|e| e.status = Status::Paused).on(Trigger::Resume);
    run.stands(Status::Pending, 1, Some(START));
    let run = adopted(|e| {
        e.status = Status::Paused;
        e.waiting_for_trigger = Some(WaitTrigger::ConnectionAccepted);
        e.next_execution_at = Some(at_hour(30));
    });
    assert_eq!(run.execution.status, Status::Paused);
    run.on(Trigger::Resume).stands(Status::WaitingTrigger, 1, Some(at_hour(30)));
}

#[test]
fn an_ended_row_of_another_program_is_left_alone() {
    for status in [Status::Completed, Status::Failed] {
        let mut run = Run::new(seed_flow());
        run.execution.status = status;
        run.refuses(Trigger::Adopted, Rejected::AlreadyFinal);
    }
}

#[test]
fn a_row_that_was_changed_before_it_was_mended_can_still_be_mended() {
    let mut run = Run::new(seed_flow());
    run.execution.next_execution_at = None;
    let run = run.on(Trigger::Pause).on(Trigger::ConnectionAccepted).on(Trigger::Adopted).on(Trigger::Resume);
    assert!(run.execution.wake_at().is_some());
}

#[test]
fn an_outcome_for_a_position_the_flow_does_not_have_is_recorded_and_ends_it() {
    let mut run = Run::new(seed_flow()).on(Trigger::Due);
    run.execution.current_step = 9;
    let run = run.sent();
    assert_eq!(run.finish().status, SendStatus::Sent);
    assert_eq!((run.execution.status, run.execution.open_send), (Status::Completed, None));
}

#[test]
fn an_outcome_for_a_row_that_a_hand_put_back_is_recorded_once() {
    let mut run = Run::new(seed_flow()).on(Trigger::Due);
    let send = run.open();
    run.execution.status = Status::Pending;
    let run = run.on(finished(send));
    assert_eq!((run.finish().status, run.execution.open_send), (SendStatus::Sent, None));
    run.refuses(finished(send), Rejected::Late);
}
