//! The output of a source: families of samples, each tied to its entry in the catalogue.
//!
//! Plain data without locks or registries: a scrape builds a [`Page`], encodes it and drops it.

use citadel_agent_common::hist::Histogram;
use smol_str::SmolStr;

use super::catalogue::agent::PROCESS_START;
use super::catalogue::{self, Desc, Kind};
use super::foreign::{self, Families};

/// One metric with a value per label set.
#[derive(Clone, Debug)]
pub struct Family {
    /// Name, type, unit, labels and help.
    pub desc: &'static Desc,
    /// One sample per label set; label sets are unique.
    pub samples: Vec<Sample>,
    /// When the values were 0, in seconds since 1970, if not at the agent's start.
    pub began: Option<f64>,
}

/// Label values of a series, in the order of [`Desc::labels`].
pub type LabelValues = Vec<SmolStr>;

/// A value and the labels that distinguish it from the others.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Label values.
    pub labels: LabelValues,
    /// Current value.
    pub value: Value,
}

/// A sample's value.
#[derive(Clone, Debug)]
pub enum Value {
    /// A whole number. Counts and bytes are exact up to the limit of the format (float64 in every Prometheus format).
    Integer(u64),
    /// Any other number, in the unit given in the catalogue.
    Float(f64),
    /// A latency distribution, with the cells of the kernel programs.
    Histogram(Box<Histogram>),
}

impl Value {
    /// As a number, which all values are in the Prometheus formats but histograms; of those, the number of observations.
    pub(crate) fn number(&self) -> f64 {
        match self {
            Self::Integer(value) => *value as f64,
            Self::Float(value) => *value,
            Self::Histogram(histogram) => histogram.count() as f64,
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            _ => false,
        }
    }
}

/// The content of a response to one scrape, in catalogue order after [`Page::sort`].
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The families that have at least one sample.
    pub families: Vec<Family>,
    /// Relayed metrics of other programs.
    pub foreign: Families,
    /// [`Family::began`] of families added from now on.
    pub began: Option<f64>,
}

/// When a family's values were 0, if known: at the agent's start (`start`, of [`Page::start_seconds`]), or when its kernel programs
/// were attached.
pub(crate) fn began(family: &Family, start: Option<f64>) -> Option<f64> {
    if !family.desc.counts_since_start() {
        return None;
    }
    family.began.or(start)
}

impl Page {
    /// The agent's start, from the page itself, in seconds since the epoch.
    pub(crate) fn start_seconds(&self) -> Option<f64> {
        let family = self.families.iter().find(|family| std::ptr::eq(family.desc, &PROCESS_START))?;
        match family.samples.first()?.value {
            Value::Float(seconds) => Some(seconds),
            Value::Integer(seconds) => Some(seconds as f64),
            Value::Histogram(_) => None,
        }
    }

    /// Adds one sample to the family of `desc`, which must have as many labels as `labels` has values.
    pub fn add<const N: usize>(&mut self, desc: &'static Desc, labels: [&str; N], value: Value) {
        self.push(desc, labels.map(SmolStr::new).into(), value);
    }

    /// Like [`Page::add`], for a number of labels known only at run time.
    pub fn push(&mut self, desc: &'static Desc, labels: LabelValues, value: Value) {
        debug_assert_eq!(desc.labels.len(), labels.len(), "{}: label count", desc.name);
        let sample = Sample { labels, value };
        match self.families.iter_mut().rev().find(|family| std::ptr::eq(family.desc, desc)) {
            Some(family) => family.samples.push(sample),
            None => self.families.push(Family { desc, samples: vec![sample], began: self.began }),
        }
    }

    /// Removes duplicate series and returns their names: the first is kept if the values are equal, else neither can be
    /// trusted. For pages with external names; the agent's own series are never duplicated.
    pub fn remove_doubles(&mut self) -> Vec<String> {
        let mut doubles = Vec::new();
        for Family { desc, samples, .. } in &mut self.families {
            samples.sort_by(|a, b| a.labels.cmp(&b.labels));
            if samples.windows(2).all(|pair| pair[0].labels != pair[1].labels) {
                continue;
            }
            let groups = samples.chunk_by(|a, b| a.labels == b.labels);
            let kept = groups.filter_map(|group| {
                if group.len() > 1 {
                    doubles.push(format!("{}{{{}}}", desc.name, group[0].labels.join(", ")));
                }
                let same = group.iter().all(|sample| sample.value.is_same(&group[0].value));
                same.then(|| group[0].clone())
            });
            *samples = kept.collect();
        }
        self.families.retain(|family| !family.samples.is_empty());
        doubles
    }

    /// Adds the families of another page, which must not be on this one.
    pub fn append(&mut self, other: Self) {
        self.families.extend(other.families);
        foreign::merge(&mut self.foreign, other.foreign);
    }

    /// Sorts the page (families as in the catalogue, samples by labels) and validates it.
    ///
    /// # Errors
    /// If two samples of a family have the same labels, or a sample does not match its entry in the catalogue.
    /// Prometheus would reject such a page, or worse, keep one of the two values.
    pub fn sort(&mut self) -> Result<(), PageError> {
        self.families.sort_by_cached_key(|family| catalogue::position(family.desc));
        for Family { desc, samples, .. } in &mut self.families {
            // A stable sort is fast on sorted input, and most sources add in this order.
            samples.sort_by(|a, b| a.labels.cmp(&b.labels));
            if let Some(twice) = samples.windows(2).find(|pair| pair[0].labels == pair[1].labels) {
                return Err(PageError::Duplicate { name: desc.name, labels: twice[0].labels.join(", ") });
            }
            if let Some(sample) = samples.iter().find(|sample| sample.labels.len() != desc.labels.len()) {
                let (want, got) = (desc.labels.len(), sample.labels.len());
                return Err(PageError::LabelCount { name: desc.name, want, got });
            }
            let histogram = desc.kind == Kind::Histogram;
            if samples.iter().any(|sample| matches!(sample.value, Value::Histogram(_)) != histogram) {
                return Err(PageError::Kind { name: desc.name, kind: desc.kind });
            }
        }
        Ok(())
    }
}

/// Why a page cannot be exposed. Always a bug in the agent.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PageError {
    /// Two samples with the same labels.
    #[error("{name} has two samples with the labels ({labels})")]
    Duplicate {
        /// The family.
        name: &'static str,
        /// Duplicated label values.
        labels: String,
    },
    /// A sample whose number of label values differs from the catalogue.
    #[error("{name} has a sample with {got} label values but {want} labels")]
    LabelCount {
        /// The family.
        name: &'static str,
        /// Labels in the catalogue.
        want: usize,
        /// Values in the sample.
        got: usize,
    },
    /// A histogram in a family of numbers, or the reverse.
    #[error("{name} is a {kind:?} but has a sample of another type")]
    Kind {
        /// The family.
        name: &'static str,
        /// Expected type.
        kind: Kind,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::catalogue::agent::PROCESS_RSS;
    use crate::metrics::catalogue::models::{CONNECTIONS_OPEN, REQUEST_BYTES, TCP_RTT};

    #[test]
    fn a_page_is_sorted_like_the_catalogue_and_by_labels() {
        let mut page = Page::default();
        page.add(&PROCESS_RSS, [], Value::Integer(1));
        page.add(&CONNECTIONS_OPEN, ["b", "11401"], Value::Integer(2));
        page.add(&CONNECTIONS_OPEN, ["a", "11400"], Value::Integer(3));
        page.add(&REQUEST_BYTES, ["a", "11400"], Value::Integer(4));
        page.sort().unwrap();
        let names: Vec<_> = page.families.iter().map(|family| family.desc.name).collect();
        assert_eq!(names, [REQUEST_BYTES.name, CONNECTIONS_OPEN.name, PROCESS_RSS.name]);
        assert_eq!(page.families[1].samples[0].labels, ["a", "11400"]);
    }

    #[test]
    fn two_samples_with_the_same_labels_are_an_error_that_names_them() {
        let mut page = Page::default();
        page.add(&CONNECTIONS_OPEN, ["phi3", "11403"], Value::Integer(2));
        page.add(&CONNECTIONS_OPEN, ["phi3", "11403"], Value::Integer(3));
        let error = page.sort().unwrap_err().to_string();
        assert!(error.contains("citadel_model_connections_open") && error.contains("phi3, 11403"), "{error}");
    }

    #[test]
    fn of_series_that_are_there_twice_only_what_agrees_is_kept() {
        let mut page = Page::default();
        for (name, value) in [("a", 1), ("b", 2), ("c", 3), ("b", 2), ("c", 4)] {
            page.add(&CONNECTIONS_OPEN, [name, "1"], Value::Integer(value));
        }
        let doubles = page.remove_doubles();
        assert_eq!(doubles, ["citadel_model_connections_open{b, 1}", "citadel_model_connections_open{c, 1}"]);
        page.sort().unwrap();
        let names: Vec<_> = page.families[0].samples.iter().map(|sample| sample.labels[0].as_str()).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn a_sample_must_fit_its_entry_in_the_catalogue() {
        let mut page = Page::default();
        page.add(&TCP_RTT, ["phi3", "11403"], Value::Integer(2));
        assert_eq!(page.sort(), Err(PageError::Kind { name: TCP_RTT.name, kind: Kind::Histogram }));

        let samples = vec![Sample { labels: vec![], value: Value::Integer(1) }];
        let mut page =
            Page { families: vec![Family { desc: &CONNECTIONS_OPEN, samples, began: None }], ..Page::default() };
        assert_eq!(page.sort(), Err(PageError::LabelCount { name: CONNECTIONS_OPEN.name, want: 2, got: 0 }));
    }
}
