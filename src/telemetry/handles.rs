//! Handles that are looked up once: for what is counted so often that looking it up would cost more than counting it.

use std::collections::HashMap;

use metrics::{Counter, Histogram};

use super::Metric;

/// The values of a metric's only label.
fn values(name: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let labels = Metric::find(name).map_or(&[][..], |m| m.labels);
    labels.iter().take(1).flat_map(|label| label.values.iter().map(|value| (label.name, *value)))
}

/// The counters of a metric with one label, by its value.
#[derive(Debug)]
pub struct Counters(HashMap<&'static str, Counter>);

impl Counters {
    /// Of a metric of the catalogue.
    pub fn of(name: &'static str) -> Self {
        Self(values(name).map(|(label, value)| (value, metrics::counter!(name, label => value))).collect())
    }

    /// Adds to the one of a value; one that the catalogue does not list is not counted.
    pub fn add(&self, value: &str, n: u64) {
        if let Some(counter) = self.0.get(value) {
            counter.increment(n);
        }
    }
}

/// The histograms of a metric with one label, by its value.
#[derive(Debug)]
pub struct Histograms(HashMap<&'static str, Histogram>);

impl Histograms {
    /// Of a metric of the catalogue.
    pub fn of(name: &'static str) -> Self {
        Self(values(name).map(|(label, value)| (value, metrics::histogram!(name, label => value))).collect())
    }

    /// Records a sample at a value; one that the catalogue does not list is not recorded.
    pub fn record(&self, value: &str, sample: f64) {
        if let Some(histogram) = self.0.get(value) {
            histogram.record(sample);
        }
    }
}
