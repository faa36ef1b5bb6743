//! Everything that needs a real Postgres, or more than one room of the program. One binary: it links once.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot set itself up has failed")]

mod adopted;
mod api;
mod arrivals;
mod claim;
mod client;
mod crash;
mod edges;
mod fake;
mod harness;
mod hot;
mod import;
mod lease;
mod migrate;
mod operator;
mod pipeline;
mod postgres;
mod reads;
mod recovery;
mod sandbox;
mod scan;
mod shutdown;
mod storm;
mod tidy;
mod webhook;
mod writer;
