//! Handles that are looked up once: for what is counted so often that looking it up would cost more than counting it.

use std::collections::HashMap;

use metrics::{Counter, Histogram};

use super::Metric;

/// The handles of a metric with one label, by the values that the catalogue lists.
#[derive(Debug)]
pub struct Handles<H>(HashMap<&'static str, H>);

/// The counters of a metric with one label.
pub type Counters = Handles<Counter>;

/// The histograms of a metric with one label.
pub type Histograms = Handles<Histogram>;

impl<H> Handles<H> {
    /// `look_up` is given the label's name and each of its values.
    fn with(name: &'static str, look_up: impl Fn(&'static str, &'static str) -> H) -> Self {
        let label = Metric::find(name).and_then(|metric| metric.labels.first());
        let values = label.into_iter().flat_map(|label| label.values.iter().map(|value| (label.name, *value)));
        Self(values.map(|(label, value)| (value, look_up(label, value))).collect())
    }
}

impl Counters {
    /// Of a metric of the catalogue.
    pub fn of(name: &'static str) -> Self {
        Self::with(name, |label, value| metrics::counter!(name, label => value))
    }

    /// Adds to the one of a value; one that the catalogue does not list is not counted.
    pub fn add(&self, value: &str, n: u64) {
        if let Some(counter) = self.0.get(value) {
            counter.increment(n);
        }
    }
}

impl Histograms {
    /// Of a metric of the catalogue.
    pub fn of(name: &'static str) -> Self {
        Self::with(name, |label, value| metrics::histogram!(name, label => value))
    }

    /// Records a sample at a value; one that the catalogue does not list is not recorded.
    pub fn record(&self, value: &str, sample: f64) {
        if let Some(histogram) = self.0.get(value) {
            histogram.record(sample);
        }
    }
}
