//! A server that speaks the wire of Unipile v1 and plays the people.
//!
//! It owns a small world held in memory: accounts, people, invitations, chats, mails, webhooks, and a ledger of every effect
//! that really happened. `cli` starts it for `campaignd sandbox` and `campaignd demo`; tests start it in their own process. It
//! imports nothing from `provider` and, of `domain`, only the clock's `Timestamp`, so that client and server cannot share a
//! mistake.
//!
//! **Accounts** (see [`options::accounts`] for more of them): [`LINKEDIN_ONE`], [`LINKEDIN_TWO`], [`MAIL_ONE`], [`WHATSAPP_ONE`].
//!
//! **People** exist by being asked for: every public slug `[a-z0-9-]{3,100}`, mail address and phone number is somebody, whose
//! behaviour follows from the seed and the identity. Words inside the slug or the address force it: `always-accepts`,
//! `never-accepts`, `replies`, `never-replies`, `bounces`. Slugs that start with `missing-` are nobody. Phone numbers that
//! end in `99990001` reply, in `99990002` never reply, in `99990003` have no WhatsApp.

mod act;
mod errors;
mod faults;
mod inspect;
mod ledger;
mod mailbox;
mod multipart;
mod net;
pub mod options;
mod page;
mod people;
mod server;
mod talk;
mod text;
mod webhooks;
mod wire;
mod wire_accounts;
mod wire_chats;
mod wire_emails;
mod wire_users;
mod world;

pub use options::{AccountKind, AccountSpec, Behaviour, Options};
pub use options::{LINKEDIN_ONE, LINKEDIN_TWO, MAIL_ONE, WHATSAPP_ONE};
pub use server::{Error, Server, start};
