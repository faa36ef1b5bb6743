//! Everything that needs a real Postgres, or more than one room of the program. One binary: it links once.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot set itself up has failed")]

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says where")]

mod harness;
mod migrate;
mod postgres;
mod sandbox;
