//! What a part of the bench found: figures with their units and targets, latencies, and what it saw over time.

use super::Latencies;

/// What a value counts. Values are stored in the plain unit (seconds, bytes); how they are shown is for the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds; shown as s, ms or µs.
    Seconds,
    /// Things in a second.
    PerSecond,
    /// Bytes; shown as B, KB, MB or GB (of 1,000).
    Bytes,
    /// A share: 1.0 is 100 %.
    Share,
    /// A multiple of something else.
    Times,
    /// Things.
    Count,
}

impl Unit {
    /// The name in `report.json`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::PerSecond => "1/s",
            Self::Bytes => "B",
            Self::Share => "share",
            Self::Times => "x",
            Self::Count => "count",
        }
    }

    /// A value for people: three digits or so, in a unit that fits.
    pub fn show(self, value: f64) -> String {
        let scaled = |steps: &[(f64, &str)]| {
            let (size, name) =
                steps.iter().find(|(size, _)| value.abs() >= *size).or(steps.last()).copied().unwrap_or((1.0, ""));
            format!("{} {name}", digits(value / size))
        };
        match self {
            Self::Seconds => scaled(&[(1.0, "s"), (1e-3, "ms"), (1e-6, "µs")]),
            // Bytes of one thing are compared to the byte.
            Self::Bytes if value.abs() < 1e4 => format!("{} B", digits(value.round())),
            Self::Bytes => scaled(&[(1e9, "GB"), (1e6, "MB"), (1e3, "KB")]),
            Self::PerSecond => format!("{}/s", digits(value)),
            Self::Share => format!("{} %", digits(value * 100.0)),
            Self::Times => format!("{} x", digits(value)),
            Self::Count => digits(value),
        }
    }
}

/// About three digits, with the thousands apart.
fn digits(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 99.95 || v == v.trunc() => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), ""), |(whole, rest)| (whole, rest));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |w| ("-", w));
    let mut out = sign.to_owned();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if !rest.is_empty() {
        out.push('.');
        out.push_str(rest);
    }
    out
}

/// On which side of its target a value has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Not above.
    AtMost,
    /// Not below.
    AtLeast,
}

/// What a value has to reach.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The side.
    pub bound: Bound,
    /// In the figure's unit.
    pub value: f64,
    /// How it follows from a floor, for example `12x the one-row commit's p99 (1.1 ms)`; `None`: a fixed target.
    pub from: Option<String>,
}

impl Target {
    /// For people: `≥ 21,000/s`.
    pub fn show(&self, unit: Unit) -> String {
        let sign = match self.bound {
            Bound::AtMost => "≤",
            Bound::AtLeast => "≥",
        };
        format!("{sign} {}", unit.show(self.value))
    }
}

/// One measured value.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Short, unique in its part, for example `react p99, idle`.
    pub name: String,
    /// In [`Figure::unit`]; `None`: not measured, and [`Figure::note`] says why.
    pub value: Option<f64>,
    /// What it counts.
    pub unit: Unit,
    /// What it has to reach, if anything.
    pub target: Option<Target>,
    /// For people: how it was measured, or what to keep in mind.
    pub note: Option<String>,
}

impl Figure {
    /// A value without a target.
    pub fn new(name: impl Into<String>, value: f64, unit: Unit) -> Self {
        Self { name: name.into(), value: Some(value), unit, target: None, note: None }
    }

    /// A value that could not be measured, and why.
    pub fn unmeasured(name: impl Into<String>, unit: Unit, why: impl Into<String>) -> Self {
        Self { name: name.into(), value: None, unit, target: None, note: Some(why.into()) }
    }

    /// It must not be above `limit`.
    #[must_use]
    pub fn at_most(self, limit: f64) -> Self {
        self.bounded(Bound::AtMost, limit, None)
    }

    /// It must not be below `limit`.
    #[must_use]
    pub fn at_least(self, limit: f64) -> Self {
        self.bounded(Bound::AtLeast, limit, None)
    }

    /// It must not be above `factor` times a floor. Without that floor there is no target.
    #[must_use]
    pub fn at_most_times(self, factor: f64, floor: Option<f64>, of: &str) -> Self {
        self.times(Bound::AtMost, factor, floor, of)
    }

    /// It must not be below `factor` times a floor. Without that floor there is no target.
    #[must_use]
    pub fn at_least_times(self, factor: f64, floor: Option<f64>, of: &str) -> Self {
        self.times(Bound::AtLeast, factor, floor, of)
    }

    /// Adds a remark.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        let note = note.into();
        self.note = Some(match self.note.take() {
            Some(before) => format!("{before}; {note}"),
            None => note,
        });
        self
    }

    /// Whether the target is met; `None` without a target or a value.
    pub fn is_met(&self) -> Option<bool> {
        let (value, target) = (self.value?, self.target.as_ref()?);
        Some(match target.bound {
            Bound::AtMost => value <= target.value,
            Bound::AtLeast => value >= target.value,
        })
    }

    fn times(self, bound: Bound, factor: f64, floor: Option<f64>, of: &str) -> Self {
        match floor {
            Some(floor) => {
                let from = Some(format!("{factor} x {of}"));
                self.bounded(bound, factor * floor, from)
            }
            None => self.note(format!("no target: {of} was not measured")),
        }
    }

    fn bounded(mut self, bound: Bound, value: f64, from: Option<String>) -> Self {
        self.target = Some(Target { bound, value, from });
        self
    }
}

/// A value over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What it is, for example `transitions`.
    pub name: String,
    /// Of its values.
    pub unit: Unit,
    /// Seconds since the beginning, and the value.
    pub points: Vec<(f64, f64)>,
}

/// What one part found at one size.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its name on the command line.
    pub name: &'static str,
    /// Prospects.
    pub size: u64,
    /// In the order in which they are shown; the same names at every size.
    pub figures: Vec<Figure>,
    /// Whole distributions by name, for the plots.
    pub latencies: Vec<(String, Latencies)>,
    /// What it saw over time, for the plots.
    pub series: Vec<Series>,
    /// For people: how it was measured and what it does not show.
    pub notes: Vec<String>,
}

impl Part {
    /// A part that has found nothing yet.
    pub const fn new(name: &'static str, size: u64) -> Self {
        Self { name, size, figures: Vec::new(), latencies: Vec::new(), series: Vec::new(), notes: Vec::new() }
    }

    /// Adds a distribution, and its p50, p90, p99, p99.9 and largest value as figures named `<name> p50` and so on.
    pub fn distribution(&mut self, name: &str, latencies: Latencies) {
        for (label, value) in latencies.percentiles() {
            self.figures.push(Figure::new(format!("{name} {label}"), value.as_secs_f64(), Unit::Seconds));
        }
        self.latencies.push((name.to_owned(), latencies));
    }

    /// The figure of that name, to be given a target or a remark.
    pub fn figure_mut(&mut self, name: &str) -> Option<&mut Figure> {
        self.figures.iter_mut().find(|f| f.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_in_a_unit_that_fits() {
        for (unit, value, text) in [
            (Unit::Seconds, 0.000_312, "312 µs"),
            (Unit::Seconds, 0.012_34, "12.3 ms"),
            (Unit::Seconds, 61.5, "61.5 s"),
            (Unit::Seconds, 0.0, "0 µs"),
            (Unit::Bytes, 7_345.0, "7,345 B"),
            (Unit::Bytes, 12_345.0, "12.3 KB"),
            (Unit::Bytes, 9.1e9, "9.10 GB"),
            (Unit::PerSecond, 1_234_567.8, "1,234,568/s"),
            (Unit::Share, 0.0317, "3.17 %"),
            (Unit::Times, 0.7, "0.70 x"),
            (Unit::Count, 1_000_000.0, "1,000,000"),
        ] {
            assert_eq!(unit.show(value), text);
        }
        let target = Target { bound: Bound::AtLeast, value: 20_000.0, from: None };
        assert_eq!(target.show(Unit::PerSecond), "≥ 20,000/s");
    }

    #[test]
    fn a_target_is_met_on_its_side_and_absent_without_its_floor() {
        let figure = Figure::new("x", 2.0, Unit::Seconds);
        assert_eq!(figure.clone().is_met(), None);
        assert_eq!(figure.clone().at_most(2.0).is_met(), Some(true));
        assert_eq!(figure.clone().at_least(2.1).is_met(), Some(false));
        assert_eq!(figure.clone().at_most_times(3.0, Some(0.5), "a commit").is_met(), Some(false));
        let without = figure.at_most_times(3.0, None, "a commit").note("and more");
        assert_eq!((without.is_met(), without.target), (None, None));
        assert_eq!(without.note.as_deref(), Some("no target: a commit was not measured; and more"));
        assert_eq!(Figure::unmeasured("x", Unit::Count, "why").at_most(1.0).is_met(), None);
    }
}
