//! `campaignd`: a runtime for multi-channel outreach campaigns.

pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod http;
pub mod postgres;
pub mod provider;
pub mod runtime;
pub mod sandbox;
pub mod service;
pub mod store;
pub mod telemetry;
