//! What is under way: a bar on a terminal, a line now and then elsewhere. On standard error; the report goes to standard
//! output.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Least time between two lines of one thing where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The bars of a run.
pub(super) struct Group {
    bars: MultiProgress,
    terminal: bool,
}

impl Group {
    pub(super) fn new() -> Self {
        Self { bars: MultiProgress::new(), terminal: std::io::stderr().is_terminal() }
    }

    pub(super) fn start(&self, what: &str, total: u64) -> Progress {
        let bar = if self.terminal {
            let bar = self.bars.add(ProgressBar::new(total));
            // A template that is wrong leaves the default style.
            if let Ok(style) =
                ProgressStyle::with_template("  {msg:44} {wide_bar} {human_pos}/{human_len} {elapsed:>4}")
            {
                bar.set_style(style);
            }
            bar.set_message(what.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            Some(bar)
        } else {
            eprintln!("  {what}");
            None
        };
        Progress(Arc::new(Shown {
            what: what.to_owned(),
            total,
            done: AtomicU64::new(0),
            started: Instant::now(),
            line: Mutex::new(Instant::now()),
            bar,
        }))
    }
}

/// One thing that is under way. Cheap to clone; it is over when the last clone is dropped.
#[derive(Clone)]
pub struct Progress(Arc<Shown>);

struct Shown {
    what: String,
    total: u64,
    done: AtomicU64,
    started: Instant,
    /// The last line that was written.
    line: Mutex<Instant>,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// So many steps are done.
    pub fn set(&self, done: u64) {
        self.0.done.store(done, Relaxed);
        self.0.show(done);
    }

    /// So many more steps are done.
    pub fn add(&self, steps: u64) {
        let done = self.0.done.fetch_add(steps, Relaxed) + steps;
        self.0.show(done);
    }
}

impl Shown {
    fn show(&self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            return;
        }
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if line.elapsed() >= LINE_EVERY {
            *line = Instant::now();
            eprintln!("  {}: {done} of {} after {} s", self.what, self.total, self.started.elapsed().as_secs());
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
