//! What a source hands to the exposition: families of samples, each tied to its entry in the catalogue.
//!
//! Plain data, without locks or registries: a scrape builds a [`Page`], encodes it and drops it.

use citadel_agent_common::hist::Histogram;

use super::catalogue::Desc;

/// One metric with a value per label set.
#[derive(Clone, Debug)]
pub struct Family {
    /// Name, type, unit, labels and help.
    pub desc: &'static Desc,
    /// One sample a label set; never two with the same labels.
    pub samples: Vec<Sample>,
}

/// One value and the labels that tell it from its siblings.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Label values, in the order of [`Desc::labels`].
    pub labels: Vec<String>,
    /// The value now.
    pub value: Value,
}

/// A sample's value.
#[derive(Clone, Debug)]
pub enum Value {
    /// A whole number: counts and bytes stay exact up to the format's own limit (float64 in every Prometheus format).
    Integer(u64),
    /// Anything else, in the unit that the catalogue names.
    Float(f64),
    /// A latency distribution, in the cells that kernel programs count into.
    Histogram(Box<Histogram>),
}

/// Everything that one scrape answers with, in catalogue order once [`Page::sort`] has run.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The families that have at least one sample.
    pub families: Vec<Family>,
}

impl Page {
    /// Adds one sample to the family of `desc`, which must have as many labels as `labels` has values.
    pub fn add<const N: usize>(&mut self, desc: &'static Desc, labels: [&str; N], value: Value) {
        debug_assert_eq!(desc.labels.len(), N, "{}: label count", desc.name);
        let sample = Sample { labels: labels.map(str::to_owned).into(), value };
        match self.families.iter_mut().rev().find(|family| std::ptr::eq(family.desc, desc)) {
            Some(family) => family.samples.push(sample),
            None => self.families.push(Family { desc, samples: vec![sample] }),
        }
    }
}
