//! Round trips of the codec, without a database.

use proptest::option::of;
use proptest::prelude::*;

use serde_json::json;

use super::*;
use crate::domain::account::{Channel, ChannelAccounts};
use crate::domain::execution::{BounceStatus, ConnectionStatus, EmailState, LinkedinState, WhatsappState};
use crate::domain::id::AccountId;
use crate::domain::send::{FailureClass, SendOutcome};
use crate::domain::suppression::Reason;
use crate::domain::trigger::{Sighting, Trigger};

/// Instants that Postgres and RFC 3339 both hold: 1970 to 2100.
fn instant() -> impl Strategy<Value = Timestamp> {
    (0_i64..4_102_444_800_000_000).prop_map(Timestamp::from_micros)
}

fn id() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn one<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    prop::sample::select(all)
}

fn steps() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(1_u32..200, 0..6)
}

fn n() -> impl Strategy<Value = u32> {
    0_u32..=0x7fff_ffff
}

fn text() -> impl Strategy<Value = String> {
    "[^\\x00]{0,20}"
}

fn channels() -> impl Strategy<Value = (LinkedinState, EmailState, WhatsappState, ChannelAccounts)> {
    let linkedin = (of(one(ConnectionStatus::ALL)), of(instant()), n(), any::<[bool; 3]>()).prop_map(
        |(connection_status, last_message_at, message_count, [replied, delivered, read])| LinkedinState {
            connection_status,
            last_message_at,
            message_count,
            delivered,
            read,
            replied,
        },
    );
    let email = (n(), any::<[bool; 3]>(), of(instant()), of(one(BounceStatus::ALL))).prop_map(
        |(sent_count, [opened, clicked, replied], last_sent_at, bounce_status)| EmailState {
            sent_count,
            opened,
            clicked,
            replied,
            last_sent_at,
            bounce_status,
        },
    );
    let whatsapp = (n(), any::<bool>(), any::<bool>(), any::<bool>(), of(instant())).prop_map(
        |(sent_count, delivered, read, replied, last_sent_at)| WhatsappState {
            sent_count,
            delivered,
            read,
            replied,
            last_sent_at,
        },
    );
    let accounts = (of(id()), of(id()), of(id())).prop_map(|(l, e, w)| ChannelAccounts {
        linkedin: l.map(AccountId),
        email: e.map(AccountId),
        whatsapp: w.map(AccountId),
    });
    (linkedin, email, whatsapp, accounts)
}

fn execution() -> impl Strategy<Value = Execution> {
    let keys = (id(), id(), id(), id(), 1_i32..1000);
    let place = (one(Status::ALL), of(one(Status::ALL)), n(), steps(), steps(), steps());
    let wait = (of(one(WaitTrigger::ALL)), n(), n(), of(instant()), of(instant()), of(instant()));
    let rest = (of(text()), n(), of(one(ExitReason::ALL)), 0..i64::MAX, n(), n(), of(id()));
    (keys, place, wait, rest, channels()).prop_map(|(k, p, w, r, c)| Execution {
        id: ExecutionId(k.0),
        workspace: WorkspaceId(k.1),
        campaign: CampaignId(k.2),
        prospect: ProspectId(k.3),
        flow_version: k.4,
        status: p.0,
        paused_status: p.1,
        current_step: p.2,
        completed_steps: p.3,
        failed_steps: p.4,
        skipped_steps: p.5,
        linkedin: c.0,
        email: c.1,
        whatsapp: c.2,
        waiting_for_trigger: w.0,
        trigger_check_count: w.1,
        trigger_max_checks: w.2,
        next_check_at: w.3,
        last_executed_at: w.4,
        next_execution_at: w.5,
        last_error: r.0,
        error_count: r.1,
        exit_reason: r.2,
        version: r.3,
        attempt: r.4,
        send_sequence: r.5,
        open_send: r.6.map(SendId),
        accounts: c.3,
    })
}

fn outcome() -> impl Strategy<Value = SendOutcome> {
    prop_oneof![
        Just(SendOutcome::Sent),
        Just(SendOutcome::NotSent),
        (one(FailureClass::ALL), text()).prop_map(|(class, error)| SendOutcome::Failed { class, error }),
        text().prop_map(|error| SendOutcome::Unknown { error }),
        text().prop_map(|error| SendOutcome::Unresolved { error }),
    ]
}

fn any_trigger() -> impl Strategy<Value = Trigger> {
    prop_oneof![
        Just(Trigger::Adopted),
        Just(Trigger::Due),
        Just(Trigger::CheckDue),
        Just(Trigger::ConnectionAccepted),
        Just(Trigger::Unsubscribe),
        Just(Trigger::Pause),
        Just(Trigger::Resume),
        Just(Trigger::Skip),
        Just(Trigger::Stop),
        (one(Channel::ALL), one(Sighting::ALL)).prop_map(|(channel, how)| Trigger::Seen { channel, how }),
        one(Channel::ALL).prop_map(|channel| Trigger::HumanTookOver { channel }),
        one(Channel::ALL).prop_map(|channel| Trigger::Reply { channel }),
        one(BounceStatus::ALL).prop_map(|status| Trigger::Bounce { status }),
        any::<u32>().prop_map(|step| Trigger::Restart { step }),
        text().prop_map(|input| Trigger::Quarantine { input }),
        one(Reason::ALL).prop_map(|reason| Trigger::Suppressed { reason }),
        (id(), any::<bool>(), text()).prop_map(|(send, sent, by)| Trigger::SendResolved {
            send: SendId(send),
            sent,
            by
        }),
        (id(), outcome()).prop_map(|(send, outcome)| Trigger::SendFinished { send: SendId(send), outcome }),
    ]
}

proptest! {
    #[test]
    fn what_is_stored_of_an_execution_reads_back_the_same(e in execution()) {
        prop_assert_eq!(Columns::encode(&e).decode(), Ok(e));
    }

    #[test]
    fn what_is_stored_of_a_trigger_reads_back_the_same(t in any_trigger()) {
        let detail = trigger_detail(&t);
        prop_assert_eq!(trigger(t.name(), detail.as_ref()), Ok(t));
    }
}

fn foreign() -> Columns {
    Columns {
        id: Uuid::from_u128(1),
        workspace_id: Some(Uuid::from_u128(2)),
        campaign_id: Some(Uuid::from_u128(3)),
        prospect_id: Some(Uuid::from_u128(4)),
        flow_version: Some(1),
        ..Columns::default()
    }
}

#[test]
fn a_row_of_nulls_is_a_fresh_execution() {
    let e = foreign().decode().unwrap();
    assert_eq!((e.status, e.current_step, e.version), (Status::Pending, 1, 0));
    assert_eq!(e.trigger_max_checks, MAX_CHECKS_DEFAULT);
    assert_eq!(e.linkedin, LinkedinState::default());
    assert!(e.completed_steps.is_empty());
}

#[test]
fn nothing_on_a_channel_yet_stays_null() {
    let columns = Columns::encode(&foreign().decode().unwrap());
    assert_eq!((columns.linkedin_state, columns.email_state, columns.whatsapp_state), (None, None, None));
}

#[test]
fn other_programs_spellings_of_a_channel_state_are_understood() {
    let e = Columns {
        linkedin_state: Some(json!({"connection_status": "accepted", "message_count": null, "extra": [1]})),
        email_state: Some(json!({"sent_count": 1, "last_sent_at": "2025-11-15 12:00:00+00", "bounce_status": null})),
        whatsapp_state: Some(json!({"last_sent_at": "2025-11-15 12:00:00.5"})),
        ..foreign()
    }
    .decode()
    .unwrap();
    assert!(e.is_connected());
    assert_eq!(e.email.last_sent_at, Some(Timestamp::from_micros(1_763_208_000_000_000)));
    assert_eq!(e.whatsapp.last_sent_at, Some(Timestamp::from_micros(1_763_208_000_500_000)));
}

#[test]
fn an_unknown_status_is_an_error_that_names_the_column() {
    let error = Columns { status: Some("runing".to_owned()), ..foreign() }.decode().unwrap_err();
    assert_eq!(error, "status is 'runing'");
}

#[test]
fn a_nul_never_reaches_a_detail() {
    let detail = trigger_detail(&Trigger::Quarantine { input: "a\0b".to_owned() });
    assert_eq!(detail, Some(json!({"input": "ab"})));
}
