//! The command line.

pub mod account;
pub mod campaign;
pub mod client;
pub mod output;
pub mod prospect;
pub mod prospects;
