//! The pure core: what a campaign means. No await, no clock, no randomness, no SQL.
//!
//! Everything that decides is here and takes time as an argument; the rest of the program carries the decisions out.
//! Called by `store` (which turns these types into rows), `provider` (which carries a [`send`] out) and `runtime`.

pub mod account;
pub mod address;
pub mod budget;
pub mod duration;
pub mod echo;
pub mod execution;
pub mod flow;
pub mod id;
pub mod limits;
pub mod link;
pub mod preview;
pub mod retry;
pub mod rhythm;
pub mod send;
pub mod step;
pub mod suppression;
pub mod template;
pub mod time;
pub mod trigger;
pub mod window;
