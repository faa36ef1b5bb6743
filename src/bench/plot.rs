//! Plots as SVG, drawn by hand: latencies by percentile, growth over the sizes, and what was seen over time.
//!
//! Colours come from a style sheet in the file that follows the reader's light or dark scheme.

use std::fmt::Write as _;

use super::markdown::rows;
use super::{Figure, Latencies, Part, Series, Unit};

/// A plot with its place in the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plot {
    /// The part it belongs to.
    pub part: &'static str,
    /// For people.
    pub title: String,
    /// The file's name.
    pub file: String,
    /// Its text.
    pub svg: String,
}

/// Lines in one plot at most: more cannot be told apart.
const LINES_MAX: usize = 6;
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 40.0;
/// The lowest line of the axis; below it stand its numbers and the legend.
const BOTTOM: f64 = 296.0;

const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#333}.title{font-size:14px;font-weight:600}\
    .grid{stroke:#ddd;stroke-width:1}.target{stroke-dasharray:5 4;stroke-width:1.5;fill:none}\
    .line{fill:none;stroke-width:2}.c0{stroke:#0969da}.c1{stroke:#bc4c00}.c2{stroke:#1a7f37}.c3{stroke:#8250df}\
    .c4{stroke:#bf3989}.c5{stroke:#6e7781}.f0{fill:#0969da}.f1{fill:#bc4c00}.f2{fill:#1a7f37}.f3{fill:#8250df}\
    .f4{fill:#bf3989}.f5{fill:#6e7781}.back{fill:#fff}\
    @media(prefers-color-scheme:dark){text{fill:#ccc}.grid{stroke:#3a3f46}.back{fill:#0d1117}.c0{stroke:#58a6ff}\
    .c1{stroke:#f0883e}.c2{stroke:#3fb950}.c3{stroke:#bc8cff}.c4{stroke:#f778ba}.c5{stroke:#8b949e}.f0{fill:#58a6ff}\
    .f1{fill:#f0883e}.f2{fill:#3fb950}.f3{fill:#bc8cff}.f4{fill:#f778ba}.f5{fill:#8b949e}}";

/// The plots of these parts: of each part its latencies at the largest size, its growth where there are several sizes, and
/// what it saw over time at the largest.
pub(super) fn all(parts: &[&Part]) -> Vec<Plot> {
    let mut plots = Vec::new();
    let mut names: Vec<&'static str> = Vec::new();
    for part in parts {
        if !names.contains(&part.name) {
            names.push(part.name);
        }
    }
    for name in names {
        let mut of: Vec<&Part> = parts.iter().copied().filter(|p| p.name == name).collect();
        of.sort_by_key(|p| p.size);
        let Some(largest) = of.last() else { continue };
        let size = Unit::Count.show(approximate(largest.size));
        for (n, latencies) in largest.latencies.chunks(LINES_MAX).enumerate() {
            let title = format!("{name}: latencies by percentile, {size} prospects");
            let svg = by_percentile(&title, latencies);
            plots.push(Plot { part: name, title, file: numbered(name, "latency", n), svg });
        }
        if of.len() > 1 {
            for (n, (unit, lines)) in growing(&of).into_iter().enumerate() {
                let title = format!("{name}: growth over the number of prospects");
                let svg = growth(&title, unit, &lines);
                plots.push(Plot { part: name, title, file: numbered(name, "growth", n), svg });
            }
        }
        let mut units: Vec<Unit> = Vec::new();
        for series in &largest.series {
            if !units.contains(&series.unit) {
                units.push(series.unit);
            }
        }
        for (n, unit) in units.into_iter().enumerate() {
            let series: Vec<&Series> = largest.series.iter().filter(|s| s.unit == unit).take(LINES_MAX).collect();
            let title = format!("{name}: over time, {size} prospects");
            let svg = over_time(&title, unit, &series);
            plots.push(Plot { part: name, title, file: numbered(name, "time", n), svg });
        }
    }
    plots
}

fn numbered(name: &str, kind: &str, n: usize) -> String {
    if n == 0 { format!("{name}-{kind}.svg") } else { format!("{name}-{kind}-{}.svg", n + 1) }
}

/// A line of a plot: its name, its points, and a limit that it is held against.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
    limit: Vec<(f64, f64)>,
}

/// The figures with targets by unit, else those of the part's first unit: as many as can be told apart.
fn growing(parts: &[&Part]) -> Vec<(Unit, Vec<Line>)> {
    let rows = rows(parts);
    let is_bound = |figures: &[Option<&Figure>]| figures.iter().flatten().any(|f| f.target.is_some());
    let any_bound = rows.iter().any(|(_, figures)| is_bound(figures));
    let mut plots: Vec<(Unit, Vec<Line>)> = Vec::new();
    for (name, figures) in rows {
        let Some(unit) = figures.iter().flatten().map(|f| f.unit).next() else { continue };
        if any_bound && !is_bound(&figures) {
            continue;
        }
        let at = |value: &dyn Fn(&Figure) -> Option<f64>| -> Vec<(f64, f64)> {
            let sized = parts.iter().zip(&figures);
            sized.filter_map(|(part, figure)| Some((approximate(part.size), value(figure.as_ref()?)?))).collect()
        };
        let line = Line {
            name: name.to_owned(),
            points: at(&|f| f.value.filter(|v| *v > 0.0)),
            limit: at(&|f| f.target.as_ref().map(|t| t.value)),
        };
        if line.points.is_empty() {
            continue;
        }
        match plots.iter_mut().find(|(of, _)| *of == unit) {
            Some((_, lines)) if lines.len() < LINES_MAX => lines.push(line),
            Some(_) => {}
            None => plots.push((unit, vec![line])),
        }
    }
    plots
}

/// Latencies by percentile: to the right one digit more of "all but one in ..".
fn by_percentile(title: &str, latencies: &[(String, Latencies)]) -> String {
    const LAST: f64 = 4.0;
    let lines: Vec<Line> = latencies
        .iter()
        .map(|(name, latencies)| {
            let steps = (0..=80).map(|i| f64::from(i) / 80.0 * LAST);
            let at = |digits: f64| latencies.percentile(100.0 * (1.0 - 10_f64.powf(-digits))).as_secs_f64();
            let points = steps.map(|digits| (digits, at(digits))).filter(|(_, v)| *v > 0.0).collect();
            Line { name: name.clone(), points, limit: Vec::new() }
        })
        .collect();
    let marks = [(0.0, "0 %"), (0.301, "50 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"), (4.0, "99.99 %")];
    let x = Axis {
        low: 0.0,
        high: LAST,
        logarithmic: false,
        marks: marks.map(|(at, text)| (at, text.to_owned())).to_vec(),
    };
    draw(title, &x, Unit::Seconds, true, &lines)
}

fn growth(title: &str, unit: Unit, lines: &[Line]) -> String {
    let sizes = lines.iter().flat_map(|l| &l.points).map(|(size, _)| *size);
    let (low, high) = bounds(sizes).unwrap_or((1.0, 10.0));
    let mut marks: Vec<(f64, String)> = Vec::new();
    for (size, _) in lines.iter().flat_map(|l| &l.points) {
        if marks.iter().all(|(at, _)| at != size) {
            marks.push((*size, Unit::Count.show(*size)));
        }
    }
    draw(title, &Axis { low, high, logarithmic: true, marks }, unit, true, lines)
}

fn over_time(title: &str, unit: Unit, series: &[&Series]) -> String {
    let line = |s: &&Series| Line { name: s.name.clone(), points: s.points.clone(), limit: Vec::new() };
    let lines: Vec<Line> = series.iter().map(line).collect();
    let times = lines.iter().flat_map(|l| &l.points).map(|(at, _)| *at);
    let (low, high) = bounds(times).unwrap_or((0.0, 1.0));
    let marks = even(low, high).into_iter().map(|at| (at, format!("{} s", Unit::Count.show(at)))).collect();
    draw(title, &Axis { low, high, logarithmic: false, marks }, unit, false, &lines)
}

/// One direction of a plot.
struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    marks: Vec<(f64, String)>,
}

impl Axis {
    /// Up: by powers of ten, with marks at 1, 2 and 5, or from zero in even steps.
    fn up(values: impl Iterator<Item = f64>, unit: Unit, logarithmic: bool) -> Self {
        let (low, high) = bounds(values.filter(|v| v.is_finite())).unwrap_or((1.0, 10.0));
        if !logarithmic {
            let marks: Vec<(f64, String)> =
                even(0.0, high.max(f64::MIN_POSITIVE)).into_iter().map(|v| (v, unit.show(v))).collect();
            let top = marks.last().map_or(high, |(v, _)| v.max(high));
            return Self { low: 0.0, high: top, logarithmic, marks };
        }
        let (low, high) = (10_f64.powf((low.log10() - 0.05).floor()), 10_f64.powf((high.log10() + 0.05).ceil()));
        let steps: &[f64] = if (high / low).log10() <= 3.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let mut marks = Vec::new();
        let mut power = low;
        while power <= high * 1.001 {
            marks.extend(steps.iter().map(|s| s * power).filter(|v| *v <= high * 1.001).map(|v| (v, unit.show(v))));
            power *= 10.0;
        }
        Self { low, high, logarithmic, marks }
    }

    /// Where a value lies, 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let place = |v: f64| if self.logarithmic { v.max(f64::MIN_POSITIVE).log10() } else { v };
        let (low, high) = (place(self.low), place(self.high));
        if high > low { ((place(value) - low) / (high - low)).clamp(0.0, 1.0) } else { 0.5 }
    }
}

fn bounds(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |bounds, v| Some(bounds.map_or((v, v), |(low, high): (f64, f64)| (low.min(v), high.max(v)))))
}

/// About six even marks at round values.
fn even(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 5.0;
    if rough.is_nan() || rough <= 0.0 {
        return vec![low];
    }
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|s| s * power).find(|s| *s >= rough).unwrap_or(rough);
    let mut marks = Vec::new();
    let mut at = (low / step).floor() * step;
    while at < high + step * 0.999 && marks.len() < 12 {
        marks.push(at);
        at += step;
    }
    marks
}

// Writing to a String cannot fail; so in this whole function.
fn draw(title: &str, x: &Axis, unit: Unit, logarithmic: bool, lines: &[Line]) -> String {
    let values = lines.iter().flat_map(|l| l.points.iter().chain(&l.limit)).map(|(_, v)| *v);
    let y = Axis::up(values, unit, logarithmic);
    let across = |v: f64| LEFT + x.place(v) * (WIDTH - LEFT - RIGHT);
    let up = |v: f64| BOTTOM - y.place(v) * (BOTTOM - TOP);
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         role=\"img\" aria-label=\"{0}\"><style>{STYLE}</style><rect class=\"back\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\
         <text class=\"title\" x=\"16\" y=\"22\">{0}</text>",
        escaped(title)
    );
    for (at, text) in &y.marks {
        let place = up(*at);
        let _ = write!(
            out,
            "<path class=\"grid\" d=\"M{LEFT} {place:.1}H{:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            place + 4.0,
            escaped(text)
        );
    }
    for (at, text) in x.marks.iter().filter(|(at, _)| (x.low..=x.high).contains(at)) {
        let place = across(*at);
        let _ = write!(
            out,
            "<path class=\"grid\" d=\"M{place:.1} {TOP}V{BOTTOM}\"/><text x=\"{place:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            BOTTOM + 18.0,
            escaped(text)
        );
    }
    for (n, line) in lines.iter().enumerate() {
        let path = |points: &[(f64, f64)]| {
            points.iter().enumerate().fold(String::new(), |mut path, (i, (at, value))| {
                let _ = write!(path, "{}{:.1} {:.1}", if i == 0 { 'M' } else { 'L' }, across(*at), up(*value));
                path
            })
        };
        if line.limit.len() > 1 {
            let _ = write!(out, "<path class=\"target c{n}\" d=\"{}\"/>", path(&line.limit));
        }
        let _ = write!(out, "<path class=\"line c{n}\" d=\"{}\"/>", path(&line.points));
        if line.points.len() <= 12 {
            for (at, value) in &line.points {
                let _ =
                    write!(out, "<circle class=\"f{n}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>", across(*at), up(*value));
            }
        }
        let (column, row) = (n % 3, n / 3);
        let left = LEFT + approximate(column as u64) * (WIDTH - LEFT - RIGHT) / 3.0;
        let top = BOTTOM + 38.0 + approximate(row as u64) * 18.0;
        let limit = if line.limit.len() > 1 { " (dashed: target)" } else { "" };
        let _ = write!(
            out,
            "<rect class=\"f{n}\" x=\"{left:.1}\" y=\"{:.1}\" width=\"10\" height=\"10\" rx=\"2\"/>\
             <text x=\"{:.1}\" y=\"{top:.1}\">{}{limit}</text>",
            top - 9.0,
            left + 15.0,
            escaped(&line.name)
        );
    }
    out.push_str("</svg>\n");
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[expect(clippy::cast_precision_loss, reason = "for a picture")]
const fn approximate(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Whether every element is closed in its order, every attribute quoted, and nothing stands raw that may not.
    fn is_well_formed(xml: &str) -> bool {
        let mut open: Vec<String> = Vec::new();
        let mut rest = xml.trim();
        while let Some(at) = rest.find('<') {
            let text = &rest[..at];
            if text.contains('>')
                || text.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "").replace("&quot;", "").contains('&')
            {
                return false;
            }
            let Some(end) = rest.find('>') else { return false };
            let tag = &rest[at + 1..end];
            rest = &rest[end + 1..];
            if tag.contains('<') || !tag.matches('"').count().is_multiple_of(2) {
                return false;
            }
            if let Some(name) = tag.strip_prefix('/') {
                if open.pop().as_deref() != Some(name) {
                    return false;
                }
            } else if !tag.ends_with('/') {
                open.push(tag.split_whitespace().next().unwrap_or_default().to_owned());
            }
        }
        open.is_empty() && rest.is_empty()
    }

    fn part(size: u64) -> Part {
        let mut part = Part::new("flow", size);
        let latencies = Latencies::new();
        for i in 1..2000 {
            latencies.record(Duration::from_micros(i * size / 1000));
        }
        part.distribution("a <commit> & \"more\"", latencies);
        part.figures
            .push(Figure::new("transitions", 20_000.0 - size as f64 / 100.0, Unit::PerSecond).at_least(15_000.0));
        part.series.push(Series {
            name: "transitions".to_owned(),
            unit: Unit::PerSecond,
            points: (0..60).map(|s| (f64::from(s), 18_000.0 + f64::from(s % 7) * 300.0)).collect(),
        });
        part
    }

    #[test]
    fn every_plot_is_well_formed_whatever_it_is_called() {
        let parts = [part(10_000), part(100_000)];
        let plots = all(&parts.iter().collect::<Vec<_>>());
        let files: Vec<&str> = plots.iter().map(|p| p.file.as_str()).collect();
        assert_eq!(files, ["flow-latency.svg", "flow-growth.svg", "flow-time.svg"]);
        for plot in &plots {
            assert!(is_well_formed(&plot.svg), "{}", plot.svg);
            assert!(!plot.svg.contains("NaN") && !plot.svg.contains("inf"), "{}", plot.svg);
        }
        assert!(!is_well_formed("<svg><path d=\"x\"></svg>") && !is_well_formed("<svg>a & b</svg>"));
    }

    #[test]
    fn plots_of_nothing_and_of_one_value_can_be_drawn() {
        let mut empty = Part::new("spawn", 10);
        empty.latencies.push(("none".to_owned(), Latencies::new()));
        empty.series.push(Series { name: "none".to_owned(), unit: Unit::Count, points: Vec::new() });
        let mut one = Part::new("wal", 10);
        one.series.push(Series { name: "one".to_owned(), unit: Unit::Bytes, points: vec![(0.0, 0.0)] });
        for plot in all(&[&empty, &one]) {
            assert!(is_well_formed(&plot.svg) && !plot.svg.contains("NaN"), "{}", plot.svg);
        }
    }

    #[test]
    fn marks_stand_at_round_values() {
        assert_eq!(even(0.0, 60.0), [0.0, 20.0, 40.0, 60.0]);
        let axis = Axis::up([0.000_3, 0.02].into_iter(), Unit::Seconds, true);
        let marks: Vec<&str> = axis.marks.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(marks, ["100 µs", "200 µs", "500 µs", "1 ms", "2 ms", "5 ms", "10 ms", "20 ms", "50 ms", "100 ms"]);
        assert!((axis.place(0.001) - 1.0 / 3.0).abs() < 1e-9);
    }
}
