//! Which series ended between two collections. Pure.

use crate::metrics::catalogue::Desc;
use crate::metrics::family::{LabelValues, Page};

/// Series of one metric that the newer page lacks.
#[derive(Clone, Debug)]
pub struct Gone {
    /// The metric.
    pub desc: &'static Desc,
    /// The label values of each.
    pub labels: Vec<LabelValues>,
}

/// The series of the collection before: labels only, because values do not matter here.
#[derive(Debug, Default)]
pub struct Series {
    families: Vec<Gone>,
}

impl Series {
    /// Takes the labels out of a sorted page.
    #[must_use]
    pub fn of(page: &Page) -> Self {
        let families = (page.families.iter())
            .map(|family| Gone {
                desc: family.desc,
                labels: family.samples.iter().map(|sample| sample.labels.clone()).collect(),
            })
            .collect();
        Self { families }
    }

    /// What is here and not in `page`, which is sorted too.
    #[must_use]
    pub fn gone(&self, page: &Page) -> Vec<Gone> {
        let mut gone = Vec::new();
        for Gone { desc, labels } in &self.families {
            let family = page.families.iter().find(|family| std::ptr::eq(family.desc, *desc));
            let samples = family.map_or(&[][..], |family| &family.samples);
            let mut left = samples.iter().map(|sample| &sample.labels).peekable();
            let mut missing = Vec::new();
            for labels in labels {
                // Both are sorted by labels, so one walk over both finds what is missing.
                while left.next_if(|other| *other < labels).is_some() {}
                if left.next_if(|other| *other == labels).is_none() {
                    missing.push(labels.clone());
                }
            }
            if !missing.is_empty() {
                gone.push(Gone { desc, labels: missing });
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::metrics::catalogue::models::{CONNECTIONS_OPEN, REQUEST_BYTES};
    use crate::metrics::family::Value;

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

    fn flat(gone: &[Gone]) -> BTreeSet<(&'static str, String)> {
        gone.iter().flat_map(|gone| gone.labels.iter().map(|labels| (gone.desc.name, labels[0].to_string()))).collect()
    }

    proptest! {
        #[test]
        fn exactly_the_series_that_are_missing_are_gone(
            before in prop::array::uniform2(prop::collection::btree_set(0u8..20, 0..12)),
            after in prop::array::uniform2(prop::collection::btree_set(0u8..20, 0..12)),
        ) {
            let gone = Series::of(&page(&before[0], &before[1])).gone(&page(&after[0], &after[1]));
            let expected = [CONNECTIONS_OPEN.name, REQUEST_BYTES.name].into_iter().enumerate()
                .flat_map(|(i, name)| before[i].difference(&after[i]).map(move |model| (name, model.to_string())))
                .collect();
            prop_assert_eq!(flat(&gone), expected);
        }
    }
}
