//! The labels of a series as receivers want them: sorted by name, each name once, no empty value. Pure.

use std::borrow::Cow;

/// Names and values of one series' labels.
pub type Labels<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// The label that holds the metric's name.
pub const NAME: &str = "__name__";

/// Puts a series' labels together.
///
/// Where a sample has a label of the identity itself (`job`, `instance`), its own is renamed to `exported_NAME`, as a
/// Prometheus does that scrapes; an empty value is the same as no label, and is left out.
#[must_use]
pub fn labels<'a>(
    identity: &[(&'a str, &'a str)],
    name: Cow<'a, str>,
    own: impl Iterator<Item = (&'a str, &'a str)>,
) -> Labels<'a> {
    let mut labels: Labels<'a> = vec![(NAME.into(), name)];
    let present = |(_, value): &(&str, &str)| !value.is_empty();
    labels.extend(identity.iter().filter(|label| present(label)).map(|&(name, value)| (name.into(), value.into())));
    for (name, value) in own.filter(present) {
        let mut name = Cow::Borrowed(name);
        while labels.iter().any(|(taken, _)| *taken == name) {
            name = Cow::Owned(format!("exported_{name}"));
        }
        labels.push((name, value.into()));
    }
    // Byte order, which is what the specifications mean by lexicographical and what Go's sort does.
    labels.sort_unstable();
    labels
}

/// A series as PromQL writes it, for the log.
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
        let labels = labels(&identity, "up".into(), [("job", "mine"), ("path", ""), ("exported_job", "x")].into_iter());
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
            let labels = labels(&identity, "m".into(), own.iter().map(|(n, v)| (n.as_str(), v.as_str())));
            prop_assert!(labels.windows(2).all(|pair| pair[0].0 < pair[1].0), "{:?}", labels);
            prop_assert!(labels.iter().all(|(name, value)| !name.is_empty() && !value.is_empty()));
            let full = |labels: &mut dyn Iterator<Item = &str>| labels.filter(|value| !value.is_empty()).count();
            let expected = 1 + full(&mut identity.iter().map(|(_, value)| *value)) + full(&mut own.values().map(String::as_str));
            prop_assert_eq!(labels.len(), expected);
        }
    }
}
