//! Every status against every trigger.

use super::*;

/// Where an execution of the seed's flow can stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// Step 2 is due.
    Pending,
    /// Step 2 is not due yet.
    PendingLater,
    /// The invitation is under way.
    Executing,
    /// Waits for acceptance, nothing is due.
    Waiting,
    /// Waits for acceptance, a check is due.
    WaitingCheck,
    /// Waits for acceptance, check and deadline are due.
    WaitingDeadline,
    /// Gone through to the end.
    Completed,
    /// Ended by a reply while the invitation was under way.
    CompletedEarly,
    /// Ended by a hard bounce.
    Failed,
    /// Paused from `Pending`.
    PausedPending,
    /// Paused from `Executing`.
    PausedExecuting,
    /// Paused from `Waiting`.
    PausedWaiting,
}

impl Stand {
    const ALL: [Self; 12] = [
        Self::Pending,
        Self::PendingLater,
        Self::Executing,
        Self::Waiting,
        Self::WaitingCheck,
        Self::WaitingDeadline,
        Self::Completed,
        Self::CompletedEarly,
        Self::Failed,
        Self::PausedPending,
        Self::PausedExecuting,
        Self::PausedWaiting,
    ];

    pub(super) fn run(self) -> Run {
        let executing = || Run::new(seed_flow()).on(Trigger::Due);
        let waiting = || executing().sent();
        // Step 2 without an acceptance, so that `ConnectionAccepted` is news in every state.
        let pending = || waiting().after(72 * HOUR).on(Trigger::Due);
        match self {
            Self::Pending => pending(),
            Self::PendingLater => {
                let mut run = pending();
                run.now = run.now - HOUR;
                run
            }
            Self::Executing => executing(),
            Self::Waiting => waiting(),
            Self::WaitingCheck => waiting().after(HOUR),
            Self::WaitingDeadline => waiting().after(72 * HOUR),
            Self::Completed => pending().on(Trigger::Due).sent().after(48 * HOUR).on(Trigger::Due).sent(),
            Self::CompletedEarly => executing().on(Trigger::Reply { channel: Channel::Linkedin }),
            Self::Failed => pending().on(Trigger::Bounce { status: BounceStatus::Hard }),
            Self::PausedPending => pending().on(Trigger::Pause),
            Self::PausedExecuting => executing().on(Trigger::Pause),
            Self::PausedWaiting => waiting().on(Trigger::Pause),
        }
    }

    fn status(self) -> (Status, Option<Status>) {
        match self {
            Self::Pending | Self::PendingLater => (Status::Pending, None),
            Self::Executing => (Status::Executing, None),
            Self::Waiting | Self::WaitingCheck | Self::WaitingDeadline => (Status::WaitingTrigger, None),
            Self::Completed | Self::CompletedEarly => (Status::Completed, None),
            Self::Failed => (Status::Failed, None),
            Self::PausedPending => (Status::Paused, Some(Status::Pending)),
            Self::PausedExecuting => (Status::Paused, Some(Status::Executing)),
            Self::PausedWaiting => (Status::Paused, Some(Status::WaitingTrigger)),
        }
    }
}

/// The trigger after this one in the table. A new variant does not compile until it has its place here.
fn following(trigger: &Trigger, open: SendId) -> Option<Trigger> {
    let finished = |outcome| Some(Trigger::SendFinished { send: open, outcome });
    match trigger {
        Trigger::Adopted => Some(Trigger::Due),
        Trigger::Due => Some(Trigger::CheckDue),
        Trigger::CheckDue => Some(Trigger::ConnectionAccepted),
        Trigger::ConnectionAccepted => Some(Trigger::Reply { channel: Channel::Linkedin }),
        Trigger::Reply { channel } => Some(match channel {
            Channel::Linkedin => Trigger::Reply { channel: Channel::Email },
            Channel::Email => Trigger::Reply { channel: Channel::Whatsapp },
            Channel::Whatsapp => Trigger::Bounce { status: BounceStatus::Hard },
        }),
        Trigger::Bounce { status } => Some(match status {
            BounceStatus::Hard => Trigger::Bounce { status: BounceStatus::Soft },
            BounceStatus::Soft => Trigger::Seen { channel: Channel::ALL[0], how: Sighting::ALL[0] },
        }),
        Trigger::Seen { channel, how } => {
            let all: Vec<_> = Channel::ALL.iter().flat_map(|c| Sighting::ALL.iter().map(|h| (*c, *h))).collect();
            let at = all.iter().position(|seen| seen == &(*channel, *how)).unwrap();
            Some(all.get(at + 1).map_or(Trigger::HumanTookOver { channel: Channel::Email }, |(channel, how)| {
                Trigger::Seen { channel: *channel, how: *how }
            }))
        }
        Trigger::HumanTookOver { .. } => Some(Trigger::Unsubscribe),
        Trigger::Unsubscribe => Some(Trigger::Suppressed { reason: Reason::Manual }),
        Trigger::Suppressed { .. } => Some(resolved(open, true)),
        Trigger::SendResolved { sent: true, .. } => Some(resolved(open, false)),
        Trigger::SendResolved { sent: false, .. } => Some(finished_of_another_send()),
        Trigger::SendFinished { send, .. } if *send != open => finished(SendOutcome::Sent),
        Trigger::SendFinished { outcome, .. } => match outcome {
            SendOutcome::Sent => finished(failed(FailureClass::ALL[0])),
            SendOutcome::Failed { class, .. } => {
                let at = FailureClass::ALL.iter().position(|c| c == class).unwrap();
                finished(FailureClass::ALL.get(at + 1).map_or(unknown(), |class| failed(*class)))
            }
            SendOutcome::Unknown { .. } => finished(SendOutcome::NotSent),
            SendOutcome::NotSent => finished(unresolved()),
            SendOutcome::Unresolved { .. } => Some(Trigger::Pause),
        },
        Trigger::Pause => Some(Trigger::Resume),
        Trigger::Resume => Some(Trigger::Skip),
        Trigger::Skip => Some(Trigger::Restart { step: 1 }),
        Trigger::Restart { step } => Some(if *step <= 3 { Trigger::Restart { step: step + 1 } } else { Trigger::Stop }),
        Trigger::Stop => Some(Trigger::Quarantine { input: "reply: a panic".to_owned() }),
        Trigger::Quarantine { .. } => None,
    }
}

fn resolved(send: SendId, sent: bool) -> Trigger {
    Trigger::SendResolved { send, sent, by: "ops".to_owned() }
}

fn finished_of_another_send() -> Trigger {
    finished(SendId::derive(ExecutionId(uuid::Uuid::from_u128(0xbad)), 1, 1, 1))
}

fn all_triggers(open: SendId) -> Vec<Trigger> {
    std::iter::successors(Some(Trigger::Adopted), |t| following(t, open)).collect()
}

/// A decision in a few words: the reason of a refusal, or where the execution stands now and what is entailed.
fn words(before: &Execution, decision: &Decision) -> String {
    let (next, effects) = match decision {
        Decision::Rejected(why) => return why.as_str().to_owned(),
        Decision::Transition { next, effects } => (next, effects),
    };
    assert_eq!(next.version, before.version + 1);
    let mut text = match (next.paused_status, next.exit_reason) {
        (Some(under), None) => format!("paused({under})@{}", next.current_step),
        (None, Some(why)) => format!("{}({why})@{}", next.status, next.current_step),
        (None, None) => format!("{}@{}", next.status, next.current_step),
        (Some(_), Some(_)) => panic!("paused and ended: {next:?}"),
    };
    for effect in effects {
        text.push_str(&match effect {
            Effect::Send(s) => format!(" +send {}.{} {}", s.step, s.attempt, s.status),
            Effect::CancelSend(_) => " +cancel".to_owned(),
            Effect::FinishSend(f) => format!(" +row {}{}", f.status, if f.parked { " parked" } else { "" }),
        });
    }
    text
}

/// What the table says. No wildcard over triggers, outcomes, classes or stands.
fn expected(stand: Stand, trigger: &Trigger, open: SendId) -> &'static str {
    use Stand::*;
    match trigger {
        Trigger::Adopted => match stand {
            Completed | CompletedEarly | Failed => "already_final",
            Pending | PendingLater | Executing | Waiting | WaitingCheck | WaitingDeadline | PausedPending
            | PausedExecuting | PausedWaiting => "nothing_to_mend",
        },
        Trigger::Due => match stand {
            Pending => "executing@2 +send 2.1 pending",
            PendingLater | Waiting | WaitingCheck => "not_due",
            Executing => "not_waiting",
            WaitingDeadline => "pending@2",
            Completed | CompletedEarly | Failed => "already_final",
            PausedPending | PausedExecuting | PausedWaiting => "paused",
        },
        Trigger::CheckDue => match stand {
            Pending | PendingLater | Executing => "not_waiting",
            Waiting => "not_due",
            WaitingCheck | WaitingDeadline => "waiting_trigger@1",
            Completed | CompletedEarly | Failed => "already_final",
            PausedPending | PausedExecuting | PausedWaiting => "paused",
        },
        Trigger::ConnectionAccepted => match stand {
            Pending | PendingLater => "pending@2",
            Executing => "executing@1",
            Waiting | WaitingCheck | WaitingDeadline => "pending@2",
            Completed => "completed(finished)@4",
            CompletedEarly => "completed(replied)@4",
            Failed => "failed(bounced)@2",
            PausedPending | PausedWaiting => "paused(pending)@2",
            PausedExecuting => "paused(executing)@1",
        },
        Trigger::Reply { channel } => match stand {
            Pending | PendingLater | Waiting | WaitingCheck | WaitingDeadline | PausedPending | PausedWaiting => {
                "completed(replied)@4"
            }
            Executing | PausedExecuting => "completed(replied)@4 +cancel",
            Completed => "completed(finished)@4",
            CompletedEarly => match channel {
                Channel::Linkedin => "already_final",
                Channel::Email | Channel::Whatsapp => "completed(replied)@4",
            },
            Failed => "failed(bounced)@2",
        },
        Trigger::Bounce { status: BounceStatus::Hard } => match stand {
            Pending | PendingLater | PausedPending => "failed(bounced)@2",
            Waiting | WaitingCheck | WaitingDeadline | PausedWaiting => "failed(bounced)@1",
            Executing | PausedExecuting => "failed(bounced)@1 +cancel",
            Completed => "completed(finished)@4",
            CompletedEarly => "completed(replied)@4",
            Failed => "already_final",
        },
        Trigger::Bounce { status: BounceStatus::Soft } => match stand {
            Pending | PendingLater => "pending@2",
            Executing => "executing@1",
            Waiting | WaitingCheck | WaitingDeadline => "waiting_trigger@1",
            Completed => "completed(finished)@4",
            CompletedEarly => "completed(replied)@4",
            Failed => "already_final",
            PausedPending => "paused(pending)@2",
            PausedExecuting => "paused(executing)@1",
            PausedWaiting => "paused(waiting_trigger)@1",
        },
        Trigger::Unsubscribe => match stand {
            Pending | PendingLater | Waiting | WaitingCheck | WaitingDeadline | PausedPending | PausedWaiting => {
                "completed(unsubscribed)@4"
            }
            Executing | PausedExecuting => "completed(unsubscribed)@4 +cancel",
            Completed | CompletedEarly | Failed => "already_final",
        },
        Trigger::Suppressed { .. } => match stand {
            Pending | PendingLater | Waiting | WaitingCheck | WaitingDeadline | PausedPending | PausedWaiting => {
                "completed(suppressed)@4"
            }
            Executing | PausedExecuting => "completed(suppressed)@4 +cancel",
            Completed | CompletedEarly | Failed => "already_final",
        },
        // A person's word about a send counts as what reading back would have found.
        Trigger::SendResolved { send, sent, .. } => {
            let outcome = if *sent { SendOutcome::Sent } else { SendOutcome::NotSent };
            expected(stand, &Trigger::SendFinished { send: *send, outcome }, open)
        }
        Trigger::SendFinished { send, outcome } => match stand {
            Pending | PendingLater | Waiting | WaitingCheck | WaitingDeadline | Completed | Failed | PausedPending
            | PausedWaiting => "late",
            Executing | CompletedEarly | PausedExecuting if *send != open => "late",
            Executing => match outcome {
                SendOutcome::Sent => "waiting_trigger@1 +row sent",
                SendOutcome::Failed { class, .. } => match class {
                    // Already connected: the wait is satisfied as well.
                    FailureClass::AlreadyDone => "pending@2 +row failed",
                    FailureClass::RetryLater | FailureClass::NoteRefused => "pending@1 +row failed",
                    FailureClass::AccountQuota
                    | FailureClass::AccountBroken
                    | FailureClass::KeyRefused
                    | FailureClass::Unavailable => "executing@1 +row pending",
                    FailureClass::RecipientPermanent | FailureClass::Rejected => "pending@2 +row failed",
                },
                SendOutcome::Unknown { .. } => "executing@1 +row unknown",
                SendOutcome::NotSent => "executing@1 +row pending",
                SendOutcome::Unresolved { .. } => "executing@1 +row unknown parked",
            },
            PausedExecuting => match outcome {
                SendOutcome::Sent => "paused(waiting_trigger)@1 +row sent",
                SendOutcome::Failed { class, .. } => match class {
                    FailureClass::AlreadyDone => "paused(pending)@2 +row failed",
                    FailureClass::RetryLater | FailureClass::NoteRefused => "paused(pending)@1 +row failed",
                    FailureClass::AccountQuota
                    | FailureClass::AccountBroken
                    | FailureClass::KeyRefused
                    | FailureClass::Unavailable => "paused(executing)@1 +row pending",
                    FailureClass::RecipientPermanent | FailureClass::Rejected => "paused(pending)@2 +row failed",
                },
                SendOutcome::Unknown { .. } => "paused(executing)@1 +row unknown",
                SendOutcome::NotSent => "paused(executing)@1 +row pending",
                SendOutcome::Unresolved { .. } => "paused(executing)@1 +row unknown parked",
            },
            CompletedEarly => match outcome {
                SendOutcome::Sent => "completed(replied)@4 +row sent",
                SendOutcome::Failed { class, .. } => match class {
                    FailureClass::AccountQuota
                    | FailureClass::AccountBroken
                    | FailureClass::KeyRefused
                    | FailureClass::Unavailable => "completed(replied)@4 +row cancelled",
                    FailureClass::AlreadyDone
                    | FailureClass::RetryLater
                    | FailureClass::RecipientPermanent
                    | FailureClass::Rejected
                    | FailureClass::NoteRefused => "completed(replied)@4 +row failed",
                },
                SendOutcome::Unknown { .. } => "completed(replied)@4 +row unknown",
                SendOutcome::NotSent => "completed(replied)@4 +row cancelled",
                SendOutcome::Unresolved { .. } => "completed(replied)@4 +row unknown parked",
            },
        },
        // What no channel tells is refused; what is told changes nothing but what is known.
        Trigger::Seen { channel, how } => match (channel, how, stand) {
            (Channel::Email, Sighting::Delivered | Sighting::Read, Completed | CompletedEarly | Failed)
            | (
                Channel::Linkedin | Channel::Whatsapp,
                Sighting::Opened | Sighting::Clicked,
                Completed | CompletedEarly | Failed,
            ) => "already_final",
            (Channel::Email, Sighting::Delivered | Sighting::Read, _)
            | (Channel::Linkedin | Channel::Whatsapp, Sighting::Opened | Sighting::Clicked, _) => "already_known",
            (_, _, Pending | PendingLater) => "pending@2",
            (_, _, Executing) => "executing@1",
            (_, _, Waiting | WaitingCheck | WaitingDeadline) => "waiting_trigger@1",
            (_, _, Completed) => "completed(finished)@4",
            (_, _, CompletedEarly) => "completed(replied)@4",
            (_, _, Failed) => "failed(bounced)@2",
            (_, _, PausedPending) => "paused(pending)@2",
            (_, _, PausedExecuting) => "paused(executing)@1",
            (_, _, PausedWaiting) => "paused(waiting_trigger)@1",
        },
        Trigger::Pause | Trigger::HumanTookOver { .. } => match stand {
            Pending | PendingLater => "paused(pending)@2",
            Executing => "paused(executing)@1",
            Waiting | WaitingCheck | WaitingDeadline => "paused(waiting_trigger)@1",
            Completed | CompletedEarly | Failed => "already_final",
            PausedPending | PausedExecuting | PausedWaiting => "paused",
        },
        Trigger::Resume => match stand {
            Pending | PendingLater | Executing | Waiting | WaitingCheck | WaitingDeadline | Completed
            | CompletedEarly | Failed => "not_paused",
            PausedPending => "pending@2",
            PausedExecuting => "executing@1",
            PausedWaiting => "waiting_trigger@1",
        },
        Trigger::Skip => match stand {
            Pending | PendingLater => "pending@3",
            Executing => "pending@2 +cancel",
            Waiting | WaitingCheck | WaitingDeadline => "pending@2",
            Completed | CompletedEarly | Failed => "already_final",
            PausedPending => "paused(pending)@3",
            PausedExecuting => "paused(pending)@2 +cancel",
            PausedWaiting => "paused(pending)@2",
        },
        Trigger::Restart { step: 1 } => match stand {
            Executing | CompletedEarly | PausedExecuting => "send_under_way",
            Pending | PendingLater | Waiting | WaitingCheck | WaitingDeadline | Completed | Failed | PausedPending
            | PausedWaiting => "pending@1",
        },
        Trigger::Restart { step: 2 } => match stand {
            Executing | CompletedEarly | PausedExecuting => "send_under_way",
            Pending | PendingLater | Waiting | WaitingCheck | WaitingDeadline | Completed | Failed | PausedPending
            | PausedWaiting => "pending@2",
        },
        Trigger::Restart { step: 3 } => match stand {
            Executing | CompletedEarly | PausedExecuting => "send_under_way",
            Pending | PendingLater | Waiting | WaitingCheck | WaitingDeadline | Completed | Failed | PausedPending
            | PausedWaiting => "pending@3",
        },
        Trigger::Restart { step: _ } => "no_such_step",
        Trigger::Stop => match stand {
            Pending | PendingLater | Waiting | WaitingCheck | WaitingDeadline | PausedPending | PausedWaiting => {
                "completed(stopped)@4"
            }
            Executing | PausedExecuting => "completed(stopped)@4 +cancel",
            Completed | CompletedEarly | Failed => "already_final",
        },
        Trigger::Quarantine { .. } => match stand {
            Pending | PendingLater | PausedPending => "failed(quarantined)@2",
            Waiting | WaitingCheck | WaitingDeadline | PausedWaiting => "failed(quarantined)@1",
            Executing | PausedExecuting => "failed(quarantined)@1 +cancel",
            Completed | CompletedEarly | Failed => "already_final",
        },
    }
}

#[test]
fn every_status_answers_every_trigger_as_the_table_says() {
    let mut differs = Vec::new();
    let mut cells = 0;
    for stand in Stand::ALL {
        let run = stand.run();
        assert_eq!((run.execution.status, run.execution.paused_status), stand.status(), "{stand:?}");
        let open = run.execution.open_send.unwrap_or(SendId(uuid::Uuid::from_u128(0xabc)));
        for trigger in all_triggers(open) {
            cells += 1;
            let is = words(&run.execution, &run.decide(&trigger));
            let should = expected(stand, &trigger, open);
            if is != should {
                differs.push(format!("{stand:?} x {trigger:?}\n     is {is}\n should {should}"));
            }
        }
    }
    assert!(differs.is_empty(), "{} of {cells} cells differ:\n{}", differs.len(), differs.join("\n"));
    let of_status = |s: &Status| Stand::ALL.iter().any(|stand| stand.status().0 == *s);
    assert!(Status::ALL.iter().all(of_status), "every status has a column");
}

#[test]
fn rejections_have_stable_names_that_differ() {
    let all = [
        Rejected::NotDue,
        Rejected::Late,
        Rejected::AlreadyFinal,
        Rejected::AlreadyKnown,
        Rejected::Paused,
        Rejected::NotPaused,
        Rejected::NotWaiting,
        Rejected::NoSuchStep,
        Rejected::SendUnderWay,
        Rejected::NothingToMend,
    ];
    let names: std::collections::BTreeSet<_> = all.iter().map(|r| r.as_str()).collect();
    assert_eq!(names.len(), all.len());
}
