//! The models' own metrics, as a record keeps them: series of one name with the same labels stand together. Pure.
//!
//! A histogram or summary of theirs is what its page says: a series for each bucket or quantile, its sum and its count.

use std::collections::BTreeMap;

use crate::metrics::foreign::{Families, ForeignSample};

/// Series of one name whose labels have the same names.
#[derive(Debug)]
pub(super) struct Group<'a> {
    /// The name, of a bucket with `_bucket`.
    pub(super) name: &'a str,
    /// What kind of metric they are of, as the text formats call it.
    pub(super) kind: &'a str,
    /// Its HELP.
    pub(super) help: &'a str,
    /// Names of the labels.
    pub(super) label_names: Vec<&'a str>,
    /// The labels' values and the value of each.
    pub(super) samples: Vec<(Vec<&'a str>, f64)>,
}

/// All series of these families, in an order that depends on the order in which they stand there and on nothing else.
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
