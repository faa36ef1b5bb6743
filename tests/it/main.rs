//! Everything that needs a real Postgres, or more than one room of the program. One binary: it links once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod api;
mod client;
mod harness;
mod import;
mod migrate;
mod postgres;
mod webhook;
