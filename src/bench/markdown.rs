//! `report.md`: a table a part, the sizes side by side, targets beside the figures.

use std::fmt::Write as _;

use super::plot::Plot;
use super::report::Report;
use super::{Figure, Part, Unit};

/// Writes the report for people.
pub(super) fn write(report: &Report, plots: &[Plot]) -> String {
    let mut out = String::new();
    let (met, missed) = report.score();
    let (program, machine, postgres) = (&report.program, &report.machine, &report.postgres);
    // Writing to a String cannot fail; so in this whole file.
    let _ = writeln!(
        out,
        "# campaignd bench\n\ncampaignd {} ({}, {}, {}), {} cores of {}, {} of memory, {}. Begun {}, {} s.\n",
        program.version,
        program.commit,
        program.profile,
        program.rustc,
        machine.cores,
        machine.cpu,
        Unit::Bytes.show(approximate(machine.memory)),
        machine.kernel,
        report.started,
        report.took.as_secs(),
    );
    if program.profile != "release" {
        let _ = writeln!(out, "**This is a {} build: its figures say nothing about the program.**\n", program.profile);
    }
    let whose = if postgres.private { "a private cluster of this run" } else { "the server of DATABASE_URL" };
    let settings: Vec<String> = postgres.settings.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let _ = writeln!(out, "Postgres {} ({whose}): {}.\n", postgres.version, settings.join(", "));
    let _ = writeln!(out, "Targets: {met} met, {missed} missed.");
    let mut names: Vec<&str> = Vec::new();
    for entry in &report.entries {
        if !names.contains(&entry.name) {
            names.push(entry.name);
        }
    }
    for name in names {
        let parts: Vec<&Part> = report.parts().filter(|p| p.name == name).collect();
        let _ = writeln!(out, "\n## {name}\n");
        if !parts.is_empty() {
            table(&mut out, &parts);
        }
        for entry in report.entries.iter().filter(|e| e.name == name) {
            if let Err(why) = &entry.found {
                let _ = writeln!(
                    out,
                    "\nNot measured with {} prospects: {}",
                    Unit::Count.show(approximate(entry.size)),
                    cell(why)
                );
            }
        }
        notes(&mut out, &parts);
        for plot in plots.iter().filter(|p| p.part == name) {
            let _ = writeln!(out, "\n![{}]({})", cell(&plot.title), plot.file);
        }
    }
    out
}

/// The figures of a part by name, at every size.
pub fn rows<'a>(parts: &[&'a Part]) -> Vec<(&'a str, Vec<Option<&'a Figure>>)> {
    let mut names: Vec<&str> = Vec::new();
    for figure in parts.iter().flat_map(|p| &p.figures) {
        if !names.contains(&figure.name.as_str()) {
            names.push(&figure.name);
        }
    }
    let at = |name: &str| parts.iter().map(|p| p.figures.iter().find(|f| f.name == name)).collect();
    names.into_iter().map(|name| (name, at(name))).collect()
}

/// What a target is, for a row over all sizes: how it derives from a floor, else the limit itself.
pub fn target(figures: &[Option<&Figure>]) -> String {
    let with = figures.iter().flatten().find_map(|f| f.target.as_ref().map(|t| (f.unit, t)));
    match with {
        Some((unit, target)) => match &target.from {
            Some(from) => format!("{} {from}", if target.bound == super::Bound::AtMost { "≤" } else { "≥" }),
            None => target.show(unit),
        },
        None => String::new(),
    }
}

/// A value with what a derived target comes to.
pub fn value(figure: &Figure) -> String {
    let Some(value) = figure.value else { return "not measured".to_owned() };
    let value = figure.unit.show(value);
    match &figure.target {
        Some(target) if target.from.is_some() => format!("{value} ({})", target.show(figure.unit)),
        _ => value,
    }
}

fn table(out: &mut String, parts: &[&Part]) {
    let sizes: Vec<String> = parts.iter().map(|p| Unit::Count.show(approximate(p.size))).collect();
    let _ = writeln!(out, "| | {} | target |\n|---|{}---|", sizes.join(" | "), "---:|".repeat(sizes.len()));
    for (name, figures) in rows(parts) {
        let cells: Vec<String> = figures
            .iter()
            .map(|figure| match figure {
                Some(figure) => match figure.is_met() {
                    Some(true) => format!("{} ✓", value(figure)),
                    Some(false) => format!("**{} ✗**", value(figure)),
                    None => value(figure),
                },
                None => String::new(),
            })
            .collect();
        let _ = writeln!(out, "| {} | {} | {} |", cell(name), cells.join(" | "), cell(&target(&figures)));
    }
}

/// Each note once, with the sizes it belongs to if not all.
fn notes(out: &mut String, parts: &[&Part]) {
    let mut notes: Vec<(String, Vec<u64>)> = Vec::new();
    for part in parts {
        let of_figures = part.figures.iter().filter_map(|f| f.note.as_ref().map(|n| format!("{}: {n}", f.name)));
        for note in part.notes.iter().cloned().chain(of_figures) {
            match notes.iter_mut().find(|(text, _)| *text == note) {
                Some((_, sizes)) => sizes.push(part.size),
                None => notes.push((note, vec![part.size])),
            }
        }
    }
    for (i, (note, sizes)) in notes.iter().enumerate() {
        let gap = if i == 0 { "\n" } else { "" };
        let of: Vec<String> = sizes.iter().map(|n| Unit::Count.show(approximate(*n))).collect();
        let of = if sizes.len() == parts.len() { String::new() } else { format!(" ({})", of.join(", ")) };
        let _ = writeln!(out, "{gap}- {}{of}", note.replace('\n', " "));
    }
}

/// Text that stays in its cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
const fn approximate(n: u64) -> f64 {
    n as f64
}
