//! A server that speaks the wire of Unipile v1 and plays the people.
//!
//! It owns a small world held in memory: accounts, people, invitations, chats, mails, webhooks, and a ledger of every effect
//! that really happened. `cli` starts it for `campaignd sandbox` and `campaignd demo`; tests start it in their own process. It
//! imports nothing from `provider` and, of `domain`, only the clock's `Timestamp`, so that client and server cannot share a
//! mistake.
//!
//! **Accounts** (see [`options::accounts`] for more of them): [`LINKEDIN_ONE`], [`LINKEDIN_TWO`], [`MAIL_ONE`], [`WHATSAPP_ONE`].
//!
//! **People** exist by being asked for: every public slug of 3 to 100 letters, mail address and phone number is somebody, whose
//! conduct follows from the seed and the identity, from words in it (`jane-accepts-at-once`, `jane+bounces@example.com`), or
//! from what the control API sets. Slugs that start with `missing-` are nobody. docs/sandbox.md teaches all of it.
//!
//! **Chance**: everything that is drawn is drawn from the seed and from what it is about, never from a shared generator, so
//! that the same requests have the same answers and consequences whatever else happens in between.

mod account;
mod act;
mod behaviour;
mod broken;
mod call;
mod calls;
mod conduct;
mod control;
mod deeds;
mod dial;
mod errors;
mod faults;
mod handling;
mod hosted;
mod inspect;
mod keys;
mod ledger;
mod mail_acts;
mod mailbox;
mod multipart;
mod net;
pub mod options;
mod orders;
mod page;
mod people;
mod quota;
mod ring;
mod routes;
mod server;
mod settings;
mod span;
mod summary;
mod talk;
mod talk_json;
mod text;
mod webhooks;
mod wire;
mod wire_accounts;
mod wire_attendees;
mod wire_chats;
mod wire_emails;
mod wire_invites;
mod wire_mailbox;
mod wire_messages;
mod wire_users;
mod wire_webhooks;
mod world;

pub use behaviour::Behaviour;
pub use options::{AccountKind, AccountSpec, Options};
pub use options::{LINKEDIN_ONE, LINKEDIN_TWO, MAIL_ONE, WHATSAPP_ONE};
pub use quota::{Quota, recommended};
pub use server::{Error, Server, start};
