//! Traces: one trigger followed from the door to the provider's call, also over a restart.
//!
//! What is sampled at a door has a [`Context`] of 24 bytes; what is not has none, and everything here does nothing then. In a
//! task the context is ambient ([`Stage::run`], [`current`]), so that the rooms on the way need not hand it on; between tasks
//! it travels with what is in flight, and in the inbox row. A finished [`Stage`] is a span: a line of the log, or with the
//! feature `otel` and `trace.otlp` an OTLP span. Its values are ids, names of enums and numbers by their type: no
//! text that a person wrote fits in.

mod context;
#[cfg(feature = "otel")]
mod otlp;
mod sampler;
mod stage;

use std::time::Duration;

pub use self::context::{Context, Incoming};
#[cfg(feature = "otel")]
pub use self::otlp::{Error, export_to, flush};
pub use self::sampler::{Decision, Sampler, Share};
pub use self::stage::{Known, Side, Stage};

/// The header in which a trace travels.
pub const HEADER: &str = "traceparent";
/// Under this name stages are logged.
const TARGET: &str = "campaignd::trace";

tokio::task_local! {
    /// The stage that runs in this task.
    static CURRENT: Option<Context>;
}

/// The trace that whatever runs here belongs to.
pub fn current() -> Option<Context> {
    CURRENT.try_with(|context| *context).ok().flatten()
}

/// Runs something as a part of a trace, or of none.
pub fn scope<F: Future>(context: Option<Context>, inner: F) -> impl Future<Output = F::Output> + use<F> {
    CURRENT.scope(context, inner)
}

/// A stage that has ended.
#[derive(Debug)]
struct Finished {
    name: &'static str,
    #[cfg_attr(not(feature = "otel"), expect(dead_code, reason = "OTLP tells it, the log does not"))]
    side: Side,
    context: Context,
    parent: Option<Context>,
    took: Duration,
    known: Vec<(&'static str, Known)>,
    failed: bool,
}

fn finish(stage: Finished) {
    #[cfg(feature = "otel")]
    let Some(stage) = otlp::take(stage) else { return };
    stage.log();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stages_in_a_task_are_children_of_the_one_around_them_and_without_a_trace_there_are_none() {
        assert_eq!(current(), None);
        assert_eq!(Stage::within("inner", Side::Inside).context(), None);
        let outer = Stage::of(Sampler::new(Share::of(1.0)).decide(std::iter::empty(), true), "outer");
        let inner = outer.run(async {
            let mut inner = Stage::within("inner", Side::Inside);
            inner.note("n", || Known::Count(7));
            inner.run(async { current() }).await
        });
        let (inner, outer) = (inner.await.unwrap(), outer.context().unwrap());
        assert_eq!(inner.trace_id(), outer.trace_id());
        assert_ne!(inner.span_id(), outer.span_id());
        let none = Stage::under(None, "none", Side::Consumer);
        assert_eq!(none.run(async { current() }).await, None);
        assert_eq!(size_of::<Stage>(), 8);
    }
}
