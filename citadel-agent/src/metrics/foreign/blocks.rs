//! Writes relayed families in the text formats, so that even a strict parser accepts the page.
//!
//! OpenMetrics has rules that 0.0.4 does not have: names of a type's samples, a name belongs to only one family,
//! samples of a label set are contiguous, buckets are complete and increasing. A family that satisfies them keeps its
//! type. Any other loses its type, never a sample: each of its names becomes a family without a type.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use super::{Families, Foreign, ForeignSample};
use crate::metrics::dialect::{Dialect, escape};

/// Writes families in one of the text formats.
pub(in crate::metrics) fn write(families: &Families, dialect: Dialect, out: &mut String) {
    let mut claims: BTreeMap<String, usize> = BTreeMap::new();
    let typed: BTreeMap<&String, Option<Vec<&ForeignSample>>> =
        families.iter().map(|(name, family)| (name, in_order(name, family))).collect();
    for (name, family) in families {
        for claim in claimed(name, family, typed[name].is_some()) {
            *claims.entry(claim).or_default() += 1;
        }
    }
    let mut untyped: BTreeMap<&str, Vec<&ForeignSample>> = BTreeMap::new();
    for (name, family) in families {
        let alone = || claimed(name, family, true).iter().all(|claim| claims[claim] == 1);
        match &typed[name] {
            Some(samples) if alone() => write_typed(name, family, samples, dialect, out),
            _ => {
                for sample in &family.samples {
                    untyped.entry(&sample.name).or_default().push(sample);
                }
            }
        }
    }
    let kind = if dialect == Dialect::OpenMetrics { "unknown" } else { "untyped" };
    for (name, samples) in untyped {
        let help = families.get(name).map_or("", |family| &family.help);
        write_head(name, kind, help, dialect, out);
        samples.iter().for_each(|sample| write_sample(sample, out));
    }
}

/// The name of a counter's family in OpenMetrics.
fn base(name: &str) -> &str {
    name.strip_suffix("_total").unwrap_or(name)
}

/// The names that no other family may have: those that its type could use, or those of its samples.
fn claimed(name: &str, family: &Foreign, typed: bool) -> Vec<String> {
    let with = |base: &str, suffixes: &[&str]| suffixes.iter().map(|suffix| format!("{base}{suffix}")).collect();
    match family.kind {
        "counter" if typed => with(base(name), &["", "_total", "_created"]),
        "gauge" if typed => vec![name.to_owned()],
        "histogram" if typed => with(name, &["", "_bucket", "_count", "_sum", "_created"]),
        "summary" if typed => with(name, &["", "_count", "_sum", "_created"]),
        _ => {
            let mut names: Vec<_> = family.samples.iter().map(|sample| sample.name.clone()).collect();
            names.sort();
            names.dedup();
            names
        }
    }
}

/// A family's samples in the order of the formats; `None` if it violates the rules of its type.
fn in_order<'a>(name: &str, family: &'a Foreign) -> Option<Vec<&'a ForeignSample>> {
    match family.kind {
        "gauge" => family.samples.iter().all(|sample| sample.name == name).then(|| family.samples.iter().collect()),
        "counter" if base(name) != name => {
            let groups = groups(family, None);
            let fits = |sample: &&ForeignSample| {
                (sample.name == name || is_part(sample, base(name), "_created")) && sample.value >= 0.0
            };
            groups.values().flatten().all(fits).then(|| groups.into_values().flatten().collect())
        }
        "histogram" => {
            let groups = groups(family, Some("le"));
            groups.into_values().map(|group| histogram(name, group)).collect::<Option<Vec<_>>>().map(|all| all.concat())
        }
        "summary" => {
            let groups = groups(family, Some("quantile"));
            groups.into_values().map(|group| summary(name, group)).collect::<Option<Vec<_>>>().map(|all| all.concat())
        }
        _ => None,
    }
}

/// Groups the samples by their labels except one; within a group in page order, `_created` last.
fn groups<'a>(family: &'a Foreign, without: Option<&str>) -> BTreeMap<Vec<(&'a str, &'a str)>, Vec<&'a ForeignSample>> {
    let mut groups: BTreeMap<_, Vec<&ForeignSample>> = BTreeMap::new();
    for sample in &family.samples {
        let labels = sample.labels.iter().filter(|(name, _)| Some(name.as_str()) != without);
        let key: Vec<(&str, &str)> = labels.map(|(name, value)| (name.as_str(), value.as_str())).collect();
        groups.entry(key).or_default().push(sample);
    }
    for group in groups.values_mut() {
        group.sort_by_key(|sample| sample.name.ends_with("_created"));
    }
    groups
}

fn is_part(sample: &ForeignSample, base: &str, suffix: &str) -> bool {
    sample.name.strip_suffix(suffix) == Some(base)
}

/// Buckets increasing to `+Inf`, the count equal to the last bucket, the sum.
fn histogram<'a>(name: &str, group: Vec<&'a ForeignSample>) -> Option<Vec<&'a ForeignSample>> {
    let (buckets, rest): (Vec<_>, Vec<_>) = group.into_iter().partition(|sample| is_part(sample, name, "_bucket"));
    let mut bounded = Vec::with_capacity(buckets.len());
    for bucket in buckets {
        let le = bucket.labels.get("le")?;
        let bound: f64 = le.parse().ok().filter(|bound: &f64| !bound.is_nan())?;
        if bound == f64::INFINITY && le != "+Inf" {
            return None;
        }
        bounded.push((bound, bucket));
    }
    bounded.sort_by(|a, b| a.0.total_cmp(&b.0));
    let rises = bounded.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1.value <= pair[1].1.value);
    let (last, whole) = bounded.last()?;
    let [count, sum] = ["_count", "_sum"].map(|part| rest.iter().find(|sample| is_part(sample, name, part)));
    let only = rest.iter().all(|sample| ["_count", "_sum", "_created"].iter().any(|part| is_part(sample, name, part)));
    // With a bound below zero the sum could decrease.
    let fits = *last == f64::INFINITY && bounded[0].0 >= 0.0 && bounded[0].1.value >= 0.0 && rises && only;
    let counts = count.is_some_and(|count| count.value == whole.value) && sum.is_some_and(|sum| sum.value >= 0.0);
    (fits && counts).then(|| bounded.iter().map(|(_, bucket)| *bucket).chain(rest).collect())
}

/// Quantiles, the count, the sum.
fn summary<'a>(name: &str, group: Vec<&'a ForeignSample>) -> Option<Vec<&'a ForeignSample>> {
    let fits = |sample: &&ForeignSample| {
        let quantile = sample.labels.get("quantile").map(|text| text.parse::<f64>());
        match quantile {
            Some(Ok(quantile)) => {
                sample.name == name && (0.0..=1.0).contains(&quantile) && (sample.value >= 0.0 || sample.value.is_nan())
            }
            Some(Err(_)) => false,
            None => {
                ["_count", "_sum", "_created"].iter().any(|part| is_part(sample, name, part)) && sample.value >= 0.0
            }
        }
    };
    group.iter().all(fits).then_some(group)
}

fn write_typed(name: &str, family: &Foreign, samples: &[&ForeignSample], dialect: Dialect, out: &mut String) {
    let open = dialect == Dialect::OpenMetrics;
    let head = if open && family.kind == "counter" { base(name) } else { name };
    write_head(head, family.kind, &family.help, dialect, out);
    // In 0.0.4, `_created` is a separate gauge.
    let is_created = |sample: &&&ForeignSample| family.kind != "gauge" && sample.name.ends_with("_created");
    samples.iter().filter(|sample| open || !is_created(sample)).for_each(|sample| write_sample(sample, out));
    let mut created = samples.iter().filter(is_created).filter(|_| !open).peekable();
    if let Some(first) = created.peek() {
        write_head(&first.name, "gauge", "", dialect, out);
    }
    created.for_each(|sample| write_sample(sample, out));
}

fn write_head(name: &str, kind: &str, help: &str, dialect: Dialect, out: &mut String) {
    if !help.is_empty() {
        _ = writeln!(out, "# HELP {name} {}", escape(help, dialect == Dialect::OpenMetrics));
    }
    _ = writeln!(out, "# TYPE {name} {kind}");
}

fn write_sample(sample: &ForeignSample, out: &mut String) {
    out.push_str(&sample.name);
    for (i, (label, value)) in sample.labels.iter().enumerate() {
        _ = write!(out, "{}{label}=\"{}\"", if i == 0 { '{' } else { ',' }, escape(value, true));
    }
    _ = writeln!(out, "{} {}", if sample.labels.is_empty() { "" } else { "}" }, Number(sample.value));
}

/// A float in the syntax of both text formats.
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            value if value.is_nan() => f.write_str("NaN"),
            value if value.is_infinite() => f.write_str(if value > 0.0 { "+Inf" } else { "-Inf" }),
            value => write!(f, "{value}"),
        }
    }
}
