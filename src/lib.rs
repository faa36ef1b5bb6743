//! `campaignd`: a runtime for multi-channel outreach campaigns (LinkedIn, mail, WhatsApp).
//!
//! Every prospect who is under way is a supervised actor that owns its step state machine and its wake-up. Every change
//! of it is one commit in Postgres, made before anything is done about it, and the actor is rebuilt from its row after a
//! restart. One channel actor a sending account keeps that account to one send at a time.
//!
//! # Words
//!
//! One meaning each, the same in types, tables, routes, metrics and pages.
//!
//! - *Workspace*: the tenant; every row belongs to one.
//! - *Campaign*, *flow*, *step*: a campaign has numbered, immutable versions of its flow; a step is one element of it, with
//!   a stable id; `current_step` is its 1-based position in the version an execution is pinned to.
//! - *Prospect*: one person in one campaign. *Execution*: the state of one prospect, its row in
//!   `campaign_prospect_execution_state`.
//! - *Trigger*: a fact that may move an execution (time, an acceptance, a reply, a bounce, a send's outcome, a command).
//!   *Transition*: one durable change of an execution, with the trigger that caused it.
//! - *Send*: the intent to contact somebody once, with an id derived from execution, step and attempt. Its row is the truth
//!   about whether it happened.
//! - *Channel*: linkedin, email, whatsapp. *Account*: a sending identity on one channel. *Provider*: what carries it.
//! - *Resident*: an execution with a live actor.
//!
//! Verbs: `step` decides, the writer *commits*, `deliver` hands over, a channel *claims* a send, reading back *settles* one.
//!
//! # How a trigger travels
//!
//! ```text
//! webhook, POST /v1/triggers ─▶ inbox row ─┐
//! operator command, timer ─────────────────┴▶ runtime: deliver ─▶ shard supervisor ─▶ prospect actor
//!     prospect actor: domain::step ─▶ store::writer ─▶ COMMIT ─▶ adopts the new state, hints the channel actor
//!     channel actor: claims the send ─▶ COMMIT ─▶ provider call ─▶ deliver (send finished) ─▶ and round again
//! ```
//!
//! Persist, then adopt, then act. One door in (`deliver`), one door out (table `sends`), one door to time ([`clock`]).
//! A message to an actor is a hint; the row is the truth.
//!
//! # Floors
//!
//! A file imports from lower floors only, and rooms on one floor do not import each other.
//!
//! | floor | rooms |
//! |---|---|
//! | 5 | [`cli`], [`config`], [`service`], [`bench`], `main` |
//! | 4 | [`http`], [`sandbox`] (which shares no types with the provider's client) |
//! | 3 | [`runtime`]: the actors; the only room that knows the actor framework |
//! | 2 | [`store`]: all SQL. [`provider`]: the clients of those who carry sends |
//! | 1 | [`clock`], [`telemetry`], [`postgres`] |
//! | 0 | [`domain`]: the rules; no IO, no clock, no chance |
//!
//! ARCHITECTURE.md has the tables, the invariants, and what happens when a reply arrives, a timer fires or a node dies.

pub mod bench;
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod http;
pub mod postgres;
pub mod provider;
pub mod runtime;
pub mod sandbox;
pub mod service;
pub mod store;
pub mod telemetry;
