//! The log: to stderr, for people or as JSON.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::util::SubscriberInitExt;

/// What is logged unless `RUST_LOG` says otherwise.
const FILTER: &str = "campaignd=info,ractor=warn,sqlx=warn";
/// Likewise, for commands that have something better to show than a log.
const QUIET: &str = "warn,sqlx=error";

/// Sends the log to stderr: one JSON object a line, or text for people, in colour if that is wanted and stderr is a terminal.
/// `quiet` logs warnings only; `RUST_LOG` chooses what is logged whatever is said here. Does nothing when the process logs already.
pub fn init_logging(json: bool, colour: bool, quiet: bool) {
    let wanted = std::env::var("RUST_LOG").ok().filter(|text| !text.trim().is_empty());
    // Lossy: a slip in the variable costs one directive (and a line that says so), not the log.
    let filter = EnvFilter::builder().parse_lossy(wanted.as_deref().unwrap_or(if quiet { QUIET } else { FILTER }));
    let log = fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colour && io::stderr().is_terminal());
    // An error means that there is a subscriber: a test's, or ours.
    let _ = if json {
        log.json().flatten_event(true).with_current_span(false).finish().try_init()
    } else {
        log.finish().try_init()
    };
}
