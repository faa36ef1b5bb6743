//! The moves a decision is made of. Each keeps the invariants of an execution's fields together.

use std::time::Duration;

use super::{Decision, Effect, FinishSend, Rejected};
use crate::domain::account::Channel;
use crate::domain::execution::{Execution, ExitReason, Status, WaitTrigger};
use crate::domain::flow::{CHECK_EVERY_DEFAULT, Flow, MAX_CHECKS_DEFAULT, OnTimeout, Step, WaitFor};
use crate::domain::id::SendId;
use crate::domain::send::{Action, SendIntent, SendStatus};
use crate::domain::time::Timestamp;
use crate::domain::trigger::Sighting;

/// The execution being changed, and what its change entails.
pub(super) struct Moves<'f> {
    pub(super) next: Execution,
    pub(super) effects: Vec<Effect>,
    pub(super) flow: &'f Flow,
    pub(super) now: Timestamp,
}

impl<'f> Moves<'f> {
    pub(super) fn new(execution: &Execution, flow: &'f Flow, now: Timestamp) -> Self {
        let mut next = execution.clone();
        next.version = next.version.saturating_add(1);
        Self { next, effects: Vec::new(), flow, now }
    }

    pub(super) fn into_decision(self) -> Decision {
        Decision::Transition { next: Box::new(self.next), effects: self.effects }
    }

    pub(super) const fn unless_final(&self) -> Result<(), Rejected> {
        if self.next.status.is_final() { Err(Rejected::AlreadyFinal) } else { Ok(()) }
    }

    /// Why a fact that is recorded already changes nothing.
    pub(super) const fn known(&self) -> Rejected {
        if self.next.status.is_final() { Rejected::AlreadyFinal } else { Rejected::AlreadyKnown }
    }

    /// An absent time counts as reached: nothing may sleep for ever because a column was empty.
    pub(super) fn reached(&self, at: Option<Timestamp>) -> Result<(), Rejected> {
        if at.is_some_and(|at| self.now < at) { Err(Rejected::NotDue) } else { Ok(()) }
    }

    /// Runs a move on what the execution would be if it were not paused, and pauses it again unless that ended it.
    pub(super) fn while_unpaused(&mut self, run: impl FnOnce(&mut Self)) {
        if self.next.status != Status::Paused {
            return run(self);
        }
        self.next.status = self.next.paused_status.take().unwrap_or(Status::Pending);
        run(self);
        if !self.next.status.is_final() {
            self.next.paused_status = Some(self.next.status);
            self.next.status = Status::Paused;
        }
    }

    pub(super) fn current(&self) -> Option<&'f Step> {
        self.flow.step(self.next.current_step)
    }

    /// The wait of the current step; for a row whose flow has none there (adopted), the defaults. What is waited for is
    /// what the row says, also where an adopted row and its flow differ: every decision about a wait asks here.
    pub(super) fn wait(&self) -> WaitFor {
        let mut wait = self.current().and_then(|s| s.wait_for.clone()).unwrap_or(WaitFor {
            trigger: WaitTrigger::ConnectionAccepted,
            timeout: Duration::ZERO,
            check_every: CHECK_EVERY_DEFAULT,
            max_checks: MAX_CHECKS_DEFAULT,
            on_timeout: OnTimeout::Continue,
        });
        if let Some(trigger) = self.next.waiting_for_trigger {
            wait.trigger = trigger;
        }
        wait
    }

    pub(super) fn holds(&self, trigger: WaitTrigger) -> bool {
        match trigger {
            WaitTrigger::ConnectionAccepted => self.next.is_connected(),
            WaitTrigger::Reply => self.next.has_replied(),
        }
    }

    pub(super) const fn replied(&mut self, channel: Channel) -> &mut bool {
        match channel {
            Channel::Linkedin => &mut self.next.linkedin.replied,
            Channel::Email => &mut self.next.email.replied,
            Channel::Whatsapp => &mut self.next.whatsapp.replied,
        }
    }

    /// Records what was seen on a channel; whether that is new. What was read has arrived, and who followed a link has
    /// opened the mail, whether or not that was told as well.
    pub(super) fn seen(&mut self, channel: Channel, how: Sighting) -> bool {
        let next = &mut self.next;
        let facts: [&mut bool; 2] = match (channel, how) {
            (Channel::Linkedin, Sighting::Read) => [&mut next.linkedin.read, &mut next.linkedin.delivered],
            (Channel::Whatsapp, Sighting::Read) => [&mut next.whatsapp.read, &mut next.whatsapp.delivered],
            (Channel::Email, Sighting::Clicked) => [&mut next.email.clicked, &mut next.email.opened],
            (Channel::Linkedin, Sighting::Delivered) => return !std::mem::replace(&mut next.linkedin.delivered, true),
            (Channel::Whatsapp, Sighting::Delivered) => return !std::mem::replace(&mut next.whatsapp.delivered, true),
            (Channel::Email, Sighting::Opened) => return !std::mem::replace(&mut next.email.opened, true),
            // No column holds it, and no provider says it.
            (Channel::Email, Sighting::Delivered | Sighting::Read)
            | (Channel::Linkedin | Channel::Whatsapp, Sighting::Opened | Sighting::Clicked) => return false,
        };
        let before = facts.map(|fact| std::mem::replace(fact, true));
        before.contains(&false)
    }

    /// Stops it until somebody resumes it.
    pub(super) fn pause(&mut self) -> Result<(), Rejected> {
        self.unless_final()?;
        if self.next.status == Status::Paused {
            return Err(Rejected::Paused);
        }
        self.next.paused_status = Some(self.next.status);
        self.next.status = Status::Paused;
        Ok(())
    }

    pub(super) fn error(&mut self, text: &str) {
        self.next.last_error = Some(text.to_owned());
        self.next.error_count = self.next.error_count.saturating_add(1);
    }

    /// Carries out the current step: decides a send, or passes over a step that needs none or may not run.
    pub(super) fn execute(&mut self) {
        let Some(step) = self.current() else { return self.finish() };
        if step.requires.connected && !self.next.is_connected() {
            push(&mut self.next.skipped_steps, self.next.current_step);
            return self.wait_is_void(step);
        }
        match step.action {
            Action::Wait => {
                self.next.last_executed_at = Some(self.now);
                self.succeeded(step);
            }
            Action::SendLinkedinCr
            | Action::SendLinkedinMessage
            | Action::SendLinkedinInmail
            | Action::VisitLinkedinProfile
            | Action::SendEmail
            | Action::SendWhatsapp => {
                self.send(step, SendStatus::Pending);
            }
        }
    }

    pub(super) fn send(&mut self, step: &Step, status: SendStatus) {
        let next = &mut self.next;
        next.attempt = next.attempt.saturating_add(1);
        next.send_sequence = next.send_sequence.saturating_add(1);
        let id = SendId::derive(next.id, next.current_step, next.attempt, next.send_sequence);
        next.status = Status::Executing;
        next.open_send = Some(id);
        next.next_execution_at = None;
        next.next_check_at = None;
        self.effects.push(Effect::Send(SendIntent {
            id,
            step: next.current_step,
            step_id: step.id.clone(),
            action: step.action,
            attempt: next.attempt,
            created_at: self.now,
            status,
        }));
    }

    /// The current step has done what it does: wait for its trigger, or go on after its delay.
    pub(super) fn succeeded(&mut self, step: &Step) {
        match &step.wait_for {
            Some(wait) if !self.holds(wait.trigger) => {
                let next = &mut self.next;
                next.status = Status::WaitingTrigger;
                next.attempt = 0;
                next.waiting_for_trigger = Some(wait.trigger);
                next.trigger_check_count = 0;
                next.trigger_max_checks = wait.max_checks;
                next.next_check_at = Some(self.now + wait.check_every);
                next.next_execution_at = Some(self.now + wait.timeout);
            }
            Some(_) => self.done_then(self.next.current_step.saturating_add(1), Duration::ZERO),
            None => self.done_then(self.next.current_step.saturating_add(1), step.delay),
        }
    }

    /// A trigger has arrived: if it is waited for, the next step is due now.
    pub(super) fn trigger_arrived(&mut self, trigger: WaitTrigger) {
        if self.next.status == Status::WaitingTrigger && self.wait().trigger == trigger {
            self.done_then(self.next.current_step.saturating_add(1), Duration::ZERO);
        }
    }

    /// The wait of the current step is over: as if its trigger had come, where that is recorded already (an adopted row),
    /// else as the flow says.
    pub(super) fn wait_ends(&mut self) {
        let wait = self.wait();
        if self.holds(wait.trigger) {
            return self.trigger_arrived(wait.trigger);
        }
        match wait.on_timeout {
            OnTimeout::Continue => self.done_then(self.next.current_step.saturating_add(1), Duration::ZERO),
            OnTimeout::Goto(to) => self.done_then(to, Duration::ZERO),
            OnTimeout::Complete => {
                push(&mut self.next.completed_steps, self.next.current_step);
                self.complete(ExitReason::Timeout);
            }
            OnTimeout::Fail => {
                push(&mut self.next.completed_steps, self.next.current_step);
                self.fail(ExitReason::Timeout);
            }
        }
    }

    /// The current step failed for good: it is recorded and the flow goes on.
    pub(super) fn step_failed(&mut self, step: &Step) {
        push(&mut self.next.failed_steps, self.next.current_step);
        self.wait_is_void(step);
    }

    /// The current step did not happen, so its wait cannot be met. The rhythm of the flow is kept: the next step is not
    /// due earlier than it would have been without an answer.
    fn wait_is_void(&mut self, step: &Step) {
        let following = self.next.current_step.saturating_add(1);
        match &step.wait_for {
            None => self.go_to(following, step.delay),
            Some(wait) => match wait.on_timeout {
                OnTimeout::Continue => self.go_to(following, wait.timeout),
                OnTimeout::Goto(to) => self.go_to(to, wait.timeout),
                OnTimeout::Complete => self.complete(ExitReason::Timeout),
                OnTimeout::Fail => self.fail(ExitReason::Error),
            },
        }
    }

    fn done_then(&mut self, to: u32, delay: Duration) {
        push(&mut self.next.completed_steps, self.next.current_step);
        self.go_to(to, delay);
    }

    /// Pending at a step, due after `delay`. Steps jumped over are recorded as skipped; past the last one it is finished.
    fn go_to(&mut self, to: u32, delay: Duration) {
        for passed in self.next.current_step.saturating_add(1)..to.min(self.flow.len().saturating_add(1)) {
            push(&mut self.next.skipped_steps, passed);
        }
        self.clear();
        if to > self.flow.len() {
            return self.finish();
        }
        self.next.current_step = to;
        self.next.status = Status::Pending;
        self.next.next_execution_at = Some(self.now + delay);
    }

    /// `open_send` stays: the provider may have been called already, and the next step waits for what comes of it.
    pub(super) fn skip_now(&mut self) {
        self.cancel_open();
        push(&mut self.next.skipped_steps, self.next.current_step);
        self.go_to(self.next.current_step.saturating_add(1), Duration::ZERO);
    }

    pub(super) fn restart(&mut self, step: u32) {
        for steps in [&mut self.next.completed_steps, &mut self.next.failed_steps, &mut self.next.skipped_steps] {
            steps.retain(|s| *s < step);
        }
        self.next.current_step = step;
        self.clear();
        self.next.exit_reason = None;
        self.next.paused_status = None;
        self.next.status = Status::Pending;
        self.next.next_execution_at = Some(self.now);
    }

    /// All steps have been gone through. It failed only if some step failed and none was done.
    pub(super) fn finish(&mut self) {
        if self.next.completed_steps.is_empty() && !self.next.failed_steps.is_empty() {
            self.fail(ExitReason::Error);
        } else {
            self.complete(ExitReason::Finished);
        }
    }

    pub(super) fn complete(&mut self, reason: ExitReason) {
        self.end(Status::Completed, reason);
        self.next.current_step = self.flow.len().saturating_add(1);
    }

    pub(super) fn fail(&mut self, reason: ExitReason) {
        self.end(Status::Failed, reason);
    }

    /// `open_send` stays: the provider may have been called already, and then the outcome is still recorded.
    fn end(&mut self, status: Status, reason: ExitReason) {
        self.cancel_open();
        self.clear();
        self.next.status = status;
        self.next.paused_status = None;
        self.next.exit_reason = Some(reason);
    }

    fn cancel_open(&mut self) {
        if let Some(send) = self.next.open_send {
            self.effects.push(Effect::CancelSend(send));
        }
    }

    fn clear(&mut self) {
        self.next.attempt = 0;
        self.next.waiting_for_trigger = None;
        self.next.next_check_at = None;
        self.next.next_execution_at = None;
    }

    pub(super) fn finish_send(&mut self, finish: FinishSend) {
        self.effects.push(Effect::FinishSend(finish));
    }
}

fn push(steps: &mut Vec<u32>, position: u32) {
    if !steps.contains(&position) {
        steps.push(position);
    }
}
