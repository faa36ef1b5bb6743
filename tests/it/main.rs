//! Everything that needs a real Postgres, or more than one room of the program. One binary: it links once.

mod harness;
mod migrate;
mod postgres;
