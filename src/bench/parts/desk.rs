//! The provider of the bench, in the same process: answers at once, with receipts as Unipile gives them, and notes when
//! whom it was asked to contact.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use dashmap::DashMap;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::people::person;
use crate::domain::send::{Action, Receipt};
use crate::domain::time::Timestamp;
use crate::provider::{FindError, Found, Provider, SendFailure, SendRequest};

/// Its name in `accounts.provider`.
pub(super) const NAME: &str = "bench";

/// See the module's text.
pub(super) struct Desk {
    /// How often each person was contacted, by action.
    invited: Vec<AtomicU8>,
    mailed: Vec<AtomicU8>,
    written_to: Vec<AtomicU8>,
    calls: AtomicU64,
    /// Who wants to know when a person is contacted.
    awaited: DashMap<u64, oneshot::Sender<Instant>>,
    /// Told of everybody who was invited.
    accepting: Mutex<Option<mpsc::UnboundedSender<(Instant, u64)>>>,
    /// Calls that were about nobody of the crowd.
    strangers: AtomicU64,
}

impl Desk {
    /// For people `0..crowd`.
    pub(super) fn new(crowd: u64) -> Self {
        let room = || (0..crowd).map(|_| AtomicU8::new(0)).collect();
        Self {
            invited: room(),
            mailed: room(),
            written_to: room(),
            calls: AtomicU64::new(0),
            awaited: DashMap::new(),
            accepting: Mutex::new(None),
            strangers: AtomicU64::new(0),
        }
    }

    /// Calls so far.
    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Relaxed)
    }

    /// Calls that were one too many: the same action for the same person again, or somebody nobody knows.
    pub(super) fn doubled(&self) -> u64 {
        let again =
            |column: &[AtomicU8]| -> u64 { column.iter().map(|n| u64::from(n.load(Relaxed).saturating_sub(1))).sum() };
        again(&self.invited) + again(&self.mailed) + again(&self.written_to) + self.strangers.load(Relaxed)
    }

    /// Hears when a person is contacted next.
    pub(super) fn await_call(&self, person: u64) -> oneshot::Receiver<Instant> {
        let (tell, told) = oneshot::channel();
        self.awaited.insert(person, tell);
        told
    }

    /// From now on, hears of everybody who is invited, at the moment of the call.
    pub(super) fn invitations(&self) -> mpsc::UnboundedReceiver<(Instant, u64)> {
        let (tell, told) = mpsc::unbounded_channel();
        *self.accepting.lock().unwrap_or_else(PoisonError::into_inner) = Some(tell);
        told
    }

    fn note(&self, request: &SendRequest, at: Instant) -> Option<u64> {
        self.calls.fetch_add(1, Relaxed);
        let named = request.recipient.email.as_deref().or(request.recipient.linkedin.as_deref())?;
        let person = person(named)?;
        let column = match request.action {
            Action::SendLinkedinCr => &self.invited,
            Action::SendEmail => &self.mailed,
            Action::SendLinkedinMessage
            | Action::SendLinkedinInmail
            | Action::VisitLinkedinProfile
            | Action::SendWhatsapp
            | Action::Wait => &self.written_to,
        };
        let count = column.get(usize::try_from(person).ok()?)?;
        // Stops at the top instead of beginning anew.
        let _ = count.fetch_update(Relaxed, Relaxed, |n| n.checked_add(1));
        if let Some((_, tell)) = self.awaited.remove(&person) {
            let _ = tell.send(at);
        }
        if request.action == Action::SendLinkedinCr
            && let Some(tell) = &*self.accepting.lock().unwrap_or_else(PoisonError::into_inner)
        {
            let _ = tell.send((at, person));
        }
        Some(person)
    }
}

/// What Unipile hands back for each kind of contact.
fn receipt(request: &SendRequest, person: u64) -> Receipt {
    let send = request.send.0.simple();
    match request.action {
        Action::SendLinkedinCr => Receipt {
            recipient_id: Some(format!("ACoAABench{person}")),
            invitation_id: Some(format!("73{person:017}")),
            ..Receipt::default()
        },
        Action::SendEmail => Receipt {
            message_id: Some(format!("msg_{send}")),
            tracking_id: Some(format!("track_{send}")),
            rfc_message_id: Some(format!("<{send}@mail.example>")),
            thread_id: Some(format!("thread_{send}")),
            ..Receipt::default()
        },
        Action::SendLinkedinMessage
        | Action::SendLinkedinInmail
        | Action::VisitLinkedinProfile
        | Action::SendWhatsapp
        | Action::Wait => Receipt {
            recipient_id: Some(format!("ACoAABench{person}")),
            chat_id: Some(format!("chat_{person:022}")),
            message_id: Some(format!("msg_{send}")),
            ..Receipt::default()
        },
    }
}

impl Provider for Desk {
    fn name(&self) -> &'static str {
        NAME
    }

    fn send<'a>(&'a self, request: &'a SendRequest) -> BoxFuture<'a, Result<Receipt, SendFailure>> {
        let at = Instant::now();
        Box::pin(async move {
            match self.note(request, at) {
                Some(person) => Ok(receipt(request, person)),
                None => {
                    self.strangers.fetch_add(1, Relaxed);
                    Ok(Receipt::default())
                }
            }
        })
    }

    fn find<'a>(&'a self, _: &'a SendRequest, _: Timestamp) -> BoxFuture<'a, Result<Found, FindError>> {
        Box::pin(async { Err(FindError { message: "the bench's provider keeps nothing".to_owned() }) })
    }
}
