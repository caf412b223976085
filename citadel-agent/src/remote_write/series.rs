//! The labels of a series as required by receivers: sorted by name, unique names, no empty values. Pure.

use std::borrow::Cow;

/// Label names and values of a series.
pub type Labels<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// The label with the metric's name.
pub const NAME: &str = "__name__";

/// The source of a label's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// The metric's name.
    Name,
    /// A label of the identity.
    Identity(usize),
    /// A label of the sample.
    Own(usize),
}

/// The labels of a series, sorted by name, and the sources of their values. The iterators yield positions and names
/// without empty values, because to a receiver an empty value means no label.
///
/// As in a Prometheus scrape, a sample's label that has the name of one in the identity (`job`, `instance`) is renamed
/// to `exported_NAME`.
#[must_use]
pub fn layout<'a>(
    identity: impl Iterator<Item = (usize, &'a str)>,
    own: impl Iterator<Item = (usize, &'a str)>,
) -> Vec<(Cow<'a, str>, Slot)> {
    let mut slots: Vec<(Cow<'a, str>, Slot)> = vec![(NAME.into(), Slot::Name)];
    slots.extend(identity.map(|(i, name)| (name.into(), Slot::Identity(i))));
    for (i, name) in own {
        let mut name = Cow::Borrowed(name);
        while slots.iter().any(|(taken, _)| *taken == name) {
            name = Cow::Owned(format!("exported_{name}"));
        }
        slots.push((name, Slot::Own(i)));
    }
    // Byte order, which is what the specifications mean by lexicographical and what Go's sort does.
    slots.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    slots
}

/// Assembles the labels of a series, see [`layout`].
#[must_use]
pub fn labels<'a>(
    identity: &[(&'a str, &'a str)],
    name: &'a str,
    own: impl Iterator<Item = (&'a str, &'a str)>,
) -> Labels<'a> {
    let own: Vec<_> = own.collect();
    let present = |(i, &(name, value)): (usize, &(&'a str, &'a str))| (!value.is_empty()).then_some((i, name));
    let slots = layout(identity.iter().enumerate().filter_map(present), own.iter().enumerate().filter_map(present));
    let value = |slot| match slot {
        Slot::Name => name.into(),
        Slot::Identity(i) => identity[i].1.into(),
        Slot::Own(i) => own[i].1.into(),
    };
    slots.into_iter().map(|(name, slot)| (name, value(slot))).collect()
}

/// A series in PromQL syntax, for the log.
#[must_use]
pub fn display(labels: &Labels<'_>) -> String {
    let mut name = "";
    let mut rest = Vec::new();
    for (label, value) in labels {
        match label == NAME {
            true => name = value,
            false => rest.push(format!("{label}={value:?}")),
        }
    }
    format!("{name}{{{}}}", rest.join(", "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_label_of_the_target_keeps_its_name_and_the_samples_own_is_renamed() {
        let identity = [("job", "citadel-agent"), ("instance", "gpu1")];
        let labels = labels(&identity, "up", [("job", "mine"), ("path", ""), ("exported_job", "x")].into_iter());
        assert_eq!(
            display(&labels),
            r#"up{exported_exported_job="x", exported_job="mine", instance="gpu1", job="citadel-agent"}"#
        );
    }

    proptest! {
        #[test]
        fn sorted_unique_and_never_empty(
            identity in prop::collection::btree_map("[a-c]{1,2}", "[a-b]?", 0..4),
            own in prop::collection::btree_map("(exported_)?[a-c]{1,2}", "[a-b]?", 0..6),
        ) {
            let identity: Vec<_> = identity.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let labels = labels(&identity, "m", own.iter().map(|(n, v)| (n.as_str(), v.as_str())));
            prop_assert!(labels.windows(2).all(|pair| pair[0].0 < pair[1].0), "{:?}", labels);
            prop_assert!(labels.iter().all(|(name, value)| !name.is_empty() && !value.is_empty()));
            let full = |labels: &mut dyn Iterator<Item = &str>| labels.filter(|value| !value.is_empty()).count();
            let expected = 1 + full(&mut identity.iter().map(|(_, value)| *value)) + full(&mut own.values().map(String::as_str));
            prop_assert_eq!(labels.len(), expected);
        }
    }
}
