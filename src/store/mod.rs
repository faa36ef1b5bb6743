//! All SQL.

pub mod migrate;
