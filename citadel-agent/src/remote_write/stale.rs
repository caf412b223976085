//! Finds the series that ended between two collections. Pure.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use smol_str::SmolStr;

use super::relayed::{self, Group};
use crate::metrics::catalogue::{self, Desc, Kind};
use crate::metrics::family::{Family, LabelValues, Page, Sample};
use crate::metrics::foreign::Families;

/// Series of a metric that are missing on the newer page.
#[derive(Clone, Debug)]
pub struct Gone {
    /// The metric.
    pub name: Cow<'static, str>,
    /// Names of its labels.
    pub label_names: Vec<Cow<'static, str>>,
    /// Whether it is one of the agent's histograms, which determines the form of the marker.
    pub histogram: bool,
    /// Label values of each series.
    pub labels: Vec<LabelValues>,
}

impl Gone {
    fn of(desc: &'static Desc, labels: Vec<LabelValues>) -> Self {
        let label_names = desc.labels.iter().map(|&name| name.into()).collect();
        Self { name: desc.name.into(), label_names, histogram: desc.kind == Kind::Histogram, labels }
    }
}

/// The difference between the series of two sorted pages.
#[derive(Debug, Default)]
pub struct Change {
    /// Series of the older page that the newer one lacks.
    pub gone: Vec<Gone>,
    /// Whether the newer page has additional series, series that count from another time, or relayed ones in another order.
    pub new: bool,
}

impl Change {
    /// Compares two pages.
    #[must_use]
    pub fn between(older: &Page, newer: &Page) -> Self {
        let mut change = Self::default();
        let mut families = newer.families.iter().peekable();
        for Family { desc, samples, began } in &older.families {
            // Both are in catalogue order.
            let passed = |family: &&Family| catalogue::position(family.desc) < catalogue::position(desc);
            while let Some(family) = families.next_if(passed) {
                change.new |= !family.samples.is_empty();
            }
            let same = families.next_if(|family| std::ptr::eq(family.desc, *desc));
            change.new |= same.is_some_and(|family| family.began != *began);
            change.compare(desc, samples, same.map_or(&[][..], |family| &family.samples));
        }
        change.new |= families.any(|family| !family.samples.is_empty());
        if !relayed::same_series(&older.foreign, &newer.foreign) {
            change.new = true;
            change.compare_relayed(&older.foreign, &newer.foreign);
        }
        change
    }

    /// Compares the relayed series.
    fn compare_relayed(&mut self, older: &Families, newer: &Families) {
        let newer = relayed::groups(newer);
        let mut there: HashMap<(&str, &[&str]), HashSet<&[&str]>> = HashMap::new();
        for Group { name, label_names, samples, .. } in &newer {
            there.entry((name, label_names)).or_default().extend(samples.iter().map(|(values, _)| &values[..]));
        }
        for Group { name, label_names, samples, .. } in relayed::groups(older) {
            let there = there.get(&(name, &label_names[..]));
            let gone = samples.iter().filter(|(values, _)| there.is_none_or(|there| !there.contains(&values[..])));
            let labels: Vec<_> = gone.map(|(values, _)| values.iter().map(SmolStr::new).collect()).collect();
            if !labels.is_empty() {
                let label_names = label_names.into_iter().map(|name| name.to_owned().into()).collect();
                self.gone.push(Gone { name: name.to_owned().into(), label_names, histogram: false, labels });
            }
        }
    }

    /// Whether both pages have the same series.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.gone.is_empty() && !self.new
    }

    /// Both are sorted by labels, so a merge finds the differences.
    fn compare(&mut self, desc: &'static Desc, older: &[Sample], newer: &[Sample]) {
        let mut left = newer.iter().map(|sample| &sample.labels).peekable();
        let mut labels = Vec::new();
        for Sample { labels: series, .. } in older {
            while left.next_if(|other| *other < series).is_some() {
                self.new = true;
            }
            if left.next_if(|other| *other == series).is_none() {
                labels.push(series.clone());
            }
        }
        self.new |= left.next().is_some();
        if !labels.is_empty() {
            self.gone.push(Gone::of(desc, labels));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::metrics::catalogue::models::{CONNECTIONS_OPEN, REQUEST_BYTES};
    use crate::metrics::family::Value;
    use crate::metrics::foreign::{self, PageLimits};

    const LIMITS: PageLimits = PageLimits { samples: 100, labels: 8, text: 100, memory: 1 << 20 };

    fn page(open: &BTreeSet<u8>, bytes: &BTreeSet<u8>) -> Page {
        let mut page = Page::default();
        for (desc, models) in [(&CONNECTIONS_OPEN, open), (&REQUEST_BYTES, bytes)] {
            for model in models {
                page.add(desc, [&model.to_string(), "1"], Value::Integer(1));
            }
        }
        page.sort().unwrap();
        page
    }

    fn flat(gone: &[Gone]) -> BTreeSet<(&str, String)> {
        gone.iter().flat_map(|gone| gone.labels.iter().map(|labels| (&*gone.name, labels[0].to_string()))).collect()
    }

    #[test]
    fn a_relayed_series_that_ends_is_gone_and_another_order_is_a_change_without_any() {
        let page = |text: &str| {
            let families = foreign::parse(text, LIMITS).unwrap().families;
            Page { foreign: families, ..Page::default() }
        };
        let older = page("a{x=\"1\"} 1\na{x=\"2\"} 1\na{y=\"1\"} 1\nb 1\n");
        assert!(Change::between(&older, &page("a{x=\"1\"} 5\na{x=\"2\"} 1\na{y=\"1\"} 1\nb 1\n")).is_none());
        let turned = Change::between(&older, &page("a{x=\"2\"} 1\na{x=\"1\"} 1\na{y=\"1\"} 1\nb 1\n"));
        assert!(turned.new && turned.gone.is_empty());
        let gone = Change::between(&older, &page("a{x=\"2\"} 1\na{x=\"3\"} 1\nb 1\n")).gone;
        let series: Vec<_> =
            gone.iter().map(|gone| (&*gone.name, gone.label_names.join(","), gone.labels.concat())).collect();
        assert_eq!(series, [("a", "x".to_owned(), vec!["1".into()]), ("a", "y".to_owned(), vec!["1".into()])]);
    }

    proptest! {
        #[test]
        fn exactly_the_series_that_are_missing_are_gone_and_new_ones_are_noticed(
            before in prop::array::uniform2(prop::collection::btree_set(0u8..20, 0..12)),
            after in prop::array::uniform2(prop::collection::btree_set(0u8..20, 0..12)),
        ) {
            let change = Change::between(&page(&before[0], &before[1]), &page(&after[0], &after[1]));
            let expected = [CONNECTIONS_OPEN.name, REQUEST_BYTES.name].into_iter().enumerate()
                .flat_map(|(i, name)| before[i].difference(&after[i]).map(move |model| (name, model.to_string())))
                .collect();
            prop_assert_eq!(flat(&change.gone), expected);
            prop_assert_eq!(change.new, (0..2).any(|i| !after[i].is_subset(&before[i])));
            prop_assert_eq!(change.is_none(), before == after);
        }
    }
}
