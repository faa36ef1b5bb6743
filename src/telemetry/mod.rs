//! What an engineer sees: the metrics catalogue and logging. Names live here only.
//!
//! Rooms count with `metrics::counter!(telemetry::SENDS, "channel" => .., "outcome" => ..)`, or on hot paths with handles looked
//! up once ([`Counters`], [`Histograms`]). The constants of `names` are the names; [`CATALOG`] says what each one is, and
//! descriptions, buckets, zeroes, `docs/metrics.md` ([`markdown`]) and the check of the dashboards are made from it. Label values
//! are names of enums, never ids or texts, so that the number of series does not grow with the number of prospects. `serve`
//! installs the recorder, renders it at `/metrics` and tidies it up; [`watch`] samples the async runtime meanwhile.

mod catalog;
mod handles;
mod logging;
mod markdown;
mod metrics;
mod names;
mod process;
mod tasks;
pub mod trace;

pub use self::catalog::{CATALOG, Kind, Label, Metric};
pub use self::handles::{Counters, Handles, Histograms};
pub use self::logging::init_logging;
pub use self::markdown::markdown;
pub use self::metrics::{Error, Metrics, install};
pub use self::names::*;
pub use self::tasks::watch;
