//! Everything that needs a real Postgres, or more than one room of the program. One binary: it links once.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot set itself up has failed")]

mod api;
mod claim;
mod client;
mod edges;
mod harness;
mod import;
mod lease;
mod migrate;
mod postgres;
mod reads;
mod recovery;

mod sandbox;
mod webhook;
mod writer;
