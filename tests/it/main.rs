//! Everything that needs a real Postgres, or more than one room of the program. One binary: it links once.

mod claim;
mod harness;
mod lease;
mod migrate;
mod postgres;
mod reads;
mod writer;
