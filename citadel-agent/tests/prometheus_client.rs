//! OpenMetrics pages are what prometheus-client, the Prometheus project's own library, writes of the same samples.

mod support;

use std::fmt;

use citadel_agent::metrics::catalogue::{Desc, Kind, Unit};
use citadel_agent::metrics::encode;
use citadel_agent::metrics::family::{Family, Page, Value};
use citadel_agent::metrics::format::Format;
use citadel_agent_common::hist::Histogram;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode as encode_reference;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{self, Registry};
use smol_str::SmolStr;
use support::{NASTY, page};

/// A sorted page in the shape that prometheus-client takes.
#[derive(Debug)]
struct Reference(Page);

impl Collector for Reference {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Family { desc, samples, .. } in &self.0.families {
            let counter = desc.name.strip_suffix("_total").filter(|_| desc.kind == Kind::Counter);
            let (kind, name) = match (desc.kind, counter) {
                (Kind::Counter, Some(name)) => (MetricType::Counter, name),
                (Kind::Counter, None) | (Kind::Unknown, _) => (MetricType::Unknown, desc.name),
                (Kind::Gauge, _) => (MetricType::Gauge, desc.name),
                (Kind::Histogram, _) => (MetricType::Histogram, desc.name),
            };
            // It appends the unit, and a counter's `_total`, by itself.
            let unit = (desc.unit != Unit::None).then(|| registry::Unit::Other(desc.unit.name().to_owned()));
            let name = unit.as_ref().map_or(name, |unit| &name[..name.len() - unit.as_str().len() - 1]);
            // HELP is the one thing that it does not escape.
            let help = desc.help.replace('\\', r"\\").replace('\n', r"\n").replace('"', "\\\"");
            let mut metric = encoder.encode_descriptor(name, &help, unit.as_ref(), kind)?;
            for sample in samples {
                let labels: Vec<(&str, &str)> =
                    desc.labels.iter().copied().zip(sample.labels.iter().map(SmolStr::as_str)).collect();
                if labels.is_empty() {
                    write_value(&mut metric, desc, &sample.value)?;
                } else {
                    write_value(&mut metric.encode_family(&labels)?, desc, &sample.value)?;
                }
            }
        }
        Ok(())
    }
}

fn write_value(metric: &mut MetricEncoder<'_>, desc: &Desc, value: &Value) -> fmt::Result {
    let counter = desc.kind == Kind::Counter && desc.name.ends_with("_total");
    const NO_EXEMPLAR: Option<&Exemplar<NoLabelSet, f64>> = None;
    match value {
        Value::Integer(value) if counter => metric.encode_counter(value, NO_EXEMPLAR),
        Value::Float(value) if counter => metric.encode_counter(value, NO_EXEMPLAR),
        Value::Integer(value) => metric.encode_gauge(value),
        Value::Float(value) => metric.encode_gauge(value),
        Value::Histogram(histogram) => {
            let buckets = desc.buckets.expect("a histogram has buckets");
            let (sum, count) = (buckets.sum(histogram), histogram.count());
            metric.encode_histogram::<NoLabelSet>(sum, count, &classic(desc, histogram), None)
        }
    }
}

/// The classic buckets of a metric, not cumulative.
fn classic(desc: &Desc, histogram: &Histogram) -> Vec<(f64, u64)> {
    let mut below = 0;
    let buckets = desc.buckets.expect("a histogram has buckets");
    let pairs = buckets.bounds().iter().map(|&bound| {
        let count = buckets.cumulative_to(histogram, bound) - below;
        below += count;
        (bound, count)
    });
    pairs.collect()
}

/// The lines of a page, the bounds of buckets in one spelling: Prometheus' own is another than the library's.
fn lines(page: &str) -> Vec<String> {
    let line = |line: &str| match line.split_once("{le=\"").and_then(|(name, rest)| Some((name, rest.split_once('"')?)))
    {
        Some((name, (bound, rest))) => format!("{name}{{le=\"{}\"{rest}", bound.parse::<f64>().unwrap()),
        None => line.to_owned(),
    };
    page.lines().map(line).collect()
}

#[test]
fn pages_are_as_prometheus_client_writes_them() {
    let mut page = page(&NASTY);
    page.foreign.clear();
    let ours = String::from_utf8(encode(page.clone(), Format::OpenMetrics).unwrap()).unwrap();
    page.sort().unwrap();
    let (mut registry, mut reference) = (Registry::default(), String::new());
    registry.register_collector(Box::new(Reference(page)));
    encode_reference(&mut reference, &registry).unwrap();
    let (mut ours, reference) = (lines(&ours), lines(&reference));
    // The library does not write when a series began.
    ours.retain(|line| !line.split(['{', ' ']).next().is_some_and(|name| name.ends_with("_created")));
    for (ours, reference) in ours.iter().zip(&reference) {
        assert_eq!(ours, reference);
    }
    assert_eq!(ours.len(), reference.len());
    assert!(ours.iter().any(|line| line.contains("_bucket{le=")), "buckets are among what was compared");
}
