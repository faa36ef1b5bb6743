//! `campaignd`: a runtime for multi-channel outreach campaigns.

pub mod clock;
pub mod domain;
pub mod provider;
pub mod sandbox;
pub mod store;
