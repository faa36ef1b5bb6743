//! The API, the webhook receiver, health and metrics.
