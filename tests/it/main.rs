//! Everything that needs a real Postgres, or more than one room of the program. One binary: it links once.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot set itself up has failed")]

mod adopted;
mod api;
mod arrivals;
mod backlog;
mod bench;
mod catch_up;
mod claim;
mod client;
mod crash;
mod edges;
mod facts;
mod fake;
mod guest;
mod harness;
mod hot;
mod import;
mod lease;
mod migrate;
mod operator;
mod park;
mod pipeline;
mod postgres;
mod pressure;
mod reads;
mod recovery;
mod sandbox;
mod scan;
mod shutdown;
mod storm;
mod tidy;
mod webhook;
mod writer;
