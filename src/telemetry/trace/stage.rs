//! A stage of a trace: what a trigger went through between two moments, and what came of it.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

use tracing::Instrument;
use uuid::Uuid;

use super::context::{Context, Hex};
use super::sampler::Decision;
use super::{CURRENT, Finished, TARGET, current, finish};

/// What is known about a stage. Only ids, names out of the program and numbers: nothing that a person wrote fits in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// The id of a row.
    Id(Uuid),
    /// A name of an enum.
    Name(&'static str),
    /// The template of a route, which the program has as a string.
    Route(String),
    /// A number.
    Count(i64),
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => f.write_str(name),
            Self::Route(route) => f.write_str(route),
            Self::Count(n) => n.fmt(f),
        }
    }
}

/// Who is on the other side of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Somebody called us.
    Server,
    /// We take up what was stored before.
    Consumer,
    /// We call somebody.
    Client,
    /// Nobody.
    Inside,
}

/// A stage that has begun. It ends when it is dropped; without a trace it is nothing, and costs nothing.
#[derive(Debug)]
#[must_use = "a stage ends when it is dropped"]
pub struct Stage(Option<Box<Open>>);

#[derive(Debug)]
struct Open {
    name: &'static str,
    side: Side,
    context: Context,
    parent: Option<Context>,
    began: Instant,
    known: Vec<(&'static str, Known)>,
    failed: bool,
    /// Puts the trace's id into the log lines of what runs in it.
    span: tracing::Span,
}

impl Stage {
    /// What came in by a door.
    pub fn of(decision: Decision, name: &'static str) -> Self {
        let Some(context) = decision.context else { return Self(None) };
        let span = tracing::info_span!(target: TARGET, "trace", trace_id = %Hex(&context.trace_id()));
        Self::open(name, Side::Server, context, decision.parent, span)
    }

    /// What follows from something in another task, or in another life of the program: `parent` was kept until now.
    pub fn under(parent: Option<Context>, name: &'static str, side: Side) -> Self {
        let Some(parent) = parent else { return Self(None) };
        let span = tracing::info_span!(target: TARGET, "trace", trace_id = %Hex(&parent.trace_id()));
        Self::open(name, side, parent.new_child(), Some(parent), span)
    }

    /// A part of what runs now.
    pub fn within(name: &'static str, side: Side) -> Self {
        match current() {
            Some(parent) => Self::open(name, side, parent.new_child(), Some(parent), tracing::Span::none()),
            None => Self(None),
        }
    }

    fn open(name: &'static str, side: Side, context: Context, parent: Option<Context>, span: tracing::Span) -> Self {
        let (began, known) = (Instant::now(), Vec::new());
        Self(Some(Box::new(Open { name, side, context, parent, began, known, failed: false, span })))
    }

    /// Names the stage to what comes after it. `None` without a trace.
    pub fn context(&self) -> Option<Context> {
        self.0.as_ref().map(|open| open.context)
    }

    /// Notes something about it.
    pub fn note(&mut self, key: &'static str, value: impl FnOnce() -> Known) {
        if let Some(open) = &mut self.0 {
            open.known.push((key, value()));
        }
    }

    /// Notes that it did not end well.
    pub fn fail(&mut self) {
        if let Some(open) = &mut self.0 {
            open.failed = true;
        }
    }

    /// It led to nothing, and will be tried again: nobody is told of it.
    pub fn discard(mut self) {
        self.0 = None;
    }

    /// Runs something in it: stages in there are its children.
    pub fn run<F: Future>(&self, inner: F) -> impl Future<Output = F::Output> + use<F> {
        let span = self.0.as_ref().map_or_else(tracing::Span::none, |open| open.span.clone());
        let context = self.context().or_else(current);
        CURRENT.scope(context, inner.instrument(span))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(open) = self.0.take() {
            finish(Finished {
                name: open.name,
                side: open.side,
                context: open.context,
                parent: open.parent,
                took: open.began.elapsed(),
                known: open.known,
                failed: open.failed,
            });
        }
    }
}

impl Finished {
    /// How long it took.
    pub(super) const fn took(&self) -> Duration {
        self.took
    }

    /// A line of the log.
    pub(super) fn log(&self) {
        let known: Vec<String> = self.known.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let parent = self.parent.map(|parent| Cow::from(Hex(&parent.span_id()).to_string()));
        tracing::info!(
            target: TARGET,
            parent: None,
            trace_id = %Hex(&self.context.trace_id()),
            span_id = %Hex(&self.context.span_id()),
            parent_id = parent.as_deref(),
            stage = self.name,
            failed = self.failed,
            duration_ms = self.took().as_secs_f64() * 1e3,
            known = known.join(" "),
            "stage of a trace"
        );
    }
}
