//! The truth about what was really sent: append-only, written at the moment of the effect, before the answer.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use super::ring::Ring;
use crate::clock::Clock;
use crate::domain::time::Timestamp;

/// One effect.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Entry {
    pub(super) seq: u64,
    /// By the sandbox's clock.
    pub(super) at: String,
    /// The same in microseconds since 1970.
    pub(super) at_us: i64,
    pub(super) real_at: String,
    /// `invite`, `withdraw`, `accept_received`, `decline_received`, `visit`, `message`, `inmail`, `whatsapp` or `email`.
    pub(super) kind: &'static str,
    pub(super) account_id: String,
    /// Provider id, JID or address.
    pub(super) recipient: String,
    /// Slug, digits or address.
    pub(super) recipient_public: String,
    /// The other receivers of a mail: to, cc and bcc.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) also: Vec<String>,
    /// What an invitation said of the receiver's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user_email: Option<String>,
    pub(super) text: Option<String>,
    pub(super) subject: Option<String>,
    pub(super) message_id: Option<String>,
    pub(super) chat_id: Option<String>,
    pub(super) invitation_id: Option<String>,
    pub(super) tracking_label: Option<String>,
    /// The `X-` and `List-` headers of a mail.
    pub(super) headers: Vec<(String, String)>,
    pub(super) idempotency_key: Option<String>,
    /// Real microseconds since 1970 at which the request was read.
    pub(super) started_at: i64,
    /// Real microseconds at which its answer was ready; null while it is under way (and always in the file).
    pub(super) finished_at: Option<i64>,
    /// Whether another changing request of the same account was in flight during this one.
    pub(super) overlaps: bool,
}

/// A changing request that was let in.
#[derive(Clone, Copy)]
pub(super) struct Ticket {
    number: u64,
    /// Real microseconds since 1970 at which it was read.
    started: i64,
}

/// A changing request whose client waits for it.
struct Flight {
    account: String,
    overlapped: bool,
    entries: Vec<u64>,
}

/// See the module.
pub(super) struct Ledger {
    pub(super) entries: Ring<Entry>,
    pub(super) overlapping: u64,
    file: Option<File>,
    flights: HashMap<u64, Flight>,
    tickets: u64,
    /// The request whose effects are being written now.
    pub(super) current: Option<Ticket>,
}

impl Ledger {
    pub(super) fn open(limit: usize, path: Option<&Path>) -> io::Result<Self> {
        let file = path.map(|p| OpenOptions::new().create(true).append(true).open(p)).transpose()?;
        let entries = Ring::new(limit);
        Ok(Self { entries, overlapping: 0, file, flights: HashMap::new(), tickets: 0, current: None })
    }

    /// A changing request of `account` begins; gives its ticket.
    pub(super) fn begin(&mut self, account: &str) -> Ticket {
        self.tickets += 1;
        let mut overlapped = false;
        for flight in self.flights.values_mut().filter(|f| f.account == account) {
            flight.overlapped = true;
            overlapped = true;
        }
        let flight = Flight { account: account.to_owned(), overlapped, entries: Vec::new() };
        self.flights.insert(self.tickets, flight);
        Ticket { number: self.tickets, started: real_now().as_micros() }
    }

    /// The request of `ticket` is over, or its client has given up.
    pub(super) fn finish(&mut self, ticket: Ticket) {
        let Some(flight) = self.flights.remove(&ticket.number) else { return };
        let now = real_now().as_micros();
        for seq in flight.entries {
            if let Some(entry) = self.entries.get_mut(seq - 1) {
                entry.finished_at = Some(now);
                if flight.overlapped && !entry.overlaps {
                    entry.overlaps = true;
                    self.overlapping += 1;
                }
            }
        }
    }

    /// Writes an effect down. `entry` comes with what is known of it; the rest is filled in here.
    pub(super) fn write(&mut self, at: Timestamp, mut entry: Entry) {
        let real = real_now();
        entry.seq = self.entries.next() + 1;
        entry.at = at.to_string();
        entry.at_us = at.as_micros();
        entry.real_at = real.to_string();
        entry.started_at = real.as_micros();
        if let Some(ticket) = self.current {
            entry.started_at = ticket.started;
            if let Some(flight) = self.flights.get_mut(&ticket.number) {
                flight.entries.push(entry.seq);
                entry.overlaps = flight.overlapped;
                self.overlapping += u64::from(flight.overlapped);
            } else {
                // Its client has given up: nobody waits for an answer.
                entry.finished_at = Some(real.as_micros());
            }
        }
        if let Some(file) = &mut self.file {
            let line = serde_json::to_string(&entry).unwrap_or_default() + "\n";
            if let Err(error) = file.write_all(line.as_bytes()) {
                tracing::error!(%error, seq = entry.seq, "the sandbox's ledger file cannot be written; going on without it");
                self.file = None;
            }
        }
        self.entries.push(entry);
    }
}

/// The wall clock, whatever the sandbox's clock is.
pub(super) fn real_now() -> Timestamp {
    Clock::System.now()
}
