//! Everything that needs a real Postgres, or more than one room of the program. One binary: it links once.

mod api;
mod client;
mod harness;
mod import;
mod migrate;
mod postgres;
mod webhook;
