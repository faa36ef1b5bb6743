//! What counting costs: the flow of the part `flow`, in turn with the metrics' recorder and without.
//!
//! Without means that whatever is looked up counts nothing, as in a process that has no recorder; what reads the clock or
//! asks the database for a gauge does so all the same. In turn, because a machine is not the same a minute later: each pair
//! begins with the other one.

use std::time::Duration;

use super::flow;
use crate::bench::{Bench, Error, Figure, Part, Unit};
use crate::telemetry::{self, Metrics};

/// Of what is done without counting.
const SHARE_MIN: f64 = 0.97;
/// Runs of each.
const PAIRS: u32 = 3;
/// Longest window of a run, in seconds.
const LASTS_MAX: u64 = 20;

/// Counts again when it is dropped: other parts are measured with what a daemon does.
struct Silence(Metrics);

impl Silence {
    fn begin() -> Result<Self, Error> {
        let metrics = telemetry::install().map_err(|e| Error::Refused(e.to_string()))?;
        metrics.set_recording(false);
        Ok(Self(metrics))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        self.0.set_recording(true);
    }
}

/// Measures it.
pub(super) async fn run(bench: &Bench, size: u64) -> Result<Part, Error> {
    let mut part = Part::new("counting", size);
    let lasts = Duration::from_secs(LASTS_MAX.min(bench.settings().seconds));
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        for counts in [pair.is_multiple_of(2), !pair.is_multiple_of(2)] {
            let silence = if counts { None } else { Some(Silence::begin()?) };
            let scratch = bench.scratch("counting").await?;
            let seen = flow::measure(bench, &scratch, size, lasts).await?;
            drop(silence);
            if counts { &mut with } else { &mut without }.push(seen.transitions_per_second);
        }
    }
    let (counting, silent) = (middle(&mut with), middle(&mut without));
    let runs = |runs: &[f64]| runs.iter().map(|n| format!("{n:.0}")).collect::<Vec<_>>().join(", ");
    for (name, rate, all) in [("with metrics", counting, &with), ("without", silent, &without)] {
        let name = format!("durable transitions, {name}");
        part.figures.push(Figure::new(name, rate, Unit::PerSecond).note(format!("the middle of {}", runs(all))));
    }
    part.figures
        .push(Figure::new("with metrics, of what is done without", counting / silent, Unit::Share).at_least(SHARE_MIN));
    part.notes.push(format!(
        "{PAIRS} runs of the flow each, in turn, {} s at most; the difference between runs of a kind says how much of the \
         figure is noise",
        lasts.as_secs()
    ));
    Ok(part)
}

/// The middle one.
fn middle(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}
