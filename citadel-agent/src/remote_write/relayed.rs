//! The models' own metrics in a record: series with the same name and label names are contiguous. Pure.
//!
//! A histogram or summary consists of the series on its page: one per bucket or quantile, its sum and its count.

use std::collections::BTreeMap;

use crate::metrics::foreign::{Families, ForeignSample};

/// Series with the same name and the same label names.
#[derive(Debug)]
pub(super) struct Group<'a> {
    /// The name, for a bucket with the suffix `_bucket`.
    pub(super) name: &'a str,
    /// Type of the metric, as in the text formats.
    pub(super) kind: &'a str,
    pub(super) help: &'a str,
    pub(super) label_names: Vec<&'a str>,
    /// Label values and value of each series.
    pub(super) samples: Vec<(Vec<&'a str>, f64)>,
}

/// Groups the series of these families. The order depends only on the order in the page.
pub(super) fn groups(families: &Families) -> Vec<Group<'_>> {
    let mut groups = Vec::new();
    for family in families.values() {
        let mut places: BTreeMap<(&str, Vec<&str>), usize> = BTreeMap::new();
        for sample in &family.samples {
            let label_names: Vec<&str> = sample.labels.keys().map(String::as_str).collect();
            let place = *places.entry((sample.name.as_str(), label_names)).or_insert(groups.len());
            if place == groups.len() {
                groups.push(Group {
                    name: &sample.name,
                    kind: family.kind,
                    help: &family.help,
                    label_names: sample.labels.keys().map(String::as_str).collect(),
                    samples: Vec::new(),
                });
            }
            groups[place].samples.push((sample.labels.values().map(String::as_str).collect(), sample.value));
        }
    }
    groups
}

/// Whether both have the same series in the same order.
pub(super) fn same_series(older: &Families, newer: &Families) -> bool {
    older.len() == newer.len()
        && older.iter().zip(newer).all(|((older_name, older), (newer_name, newer))| {
            let same = |(a, b): (&ForeignSample, &ForeignSample)| a.name == b.name && a.labels == b.labels;
            older_name == newer_name
                && older.samples.len() == newer.samples.len()
                && older.samples.iter().zip(&newer.samples).all(same)
        })
}
