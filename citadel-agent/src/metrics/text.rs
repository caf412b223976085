//! Both text formats: [OpenMetrics 1.0](https://prometheus.io/docs/specs/om/open_metrics_spec/) and [Prometheus
//! 0.0.4](https://prometheus.io/docs/instrumenting/exposition_formats/).
//!
//! Nearly all lines of a page with many models belong to histograms, so they dominate the time of a scrape: everything
//! is written directly into one buffer, the labels of a sample are formatted once, and bounds are stored as text. The
//! tests compare with prometheus-client's encoder, which calls a trait object for every part of a line.

use citadel_agent_common::hist::Histogram;
use smol_str::SmolStr;

use super::buckets::{self, Classic};
use super::catalogue::{Desc, Kind, Unit};
use super::dialect::{Dialect, escape};
use super::family::{self, Family, Page, Sample, Value};
use super::foreign;

/// A sorted page as text.
pub(super) fn encode(page: &Page, dialect: Dialect) -> String {
    let mut text = String::with_capacity(page.families.iter().map(expected_size).sum());
    let mut labels = String::new();
    let start = page.start_seconds();
    for family in &page.families {
        let Family { desc, samples, .. } = family;
        write_head(&mut text, desc, dialect);
        let began = family::began(family, start).filter(|_| dialect == Dialect::OpenMetrics).map(Start::new);
        let classic = buckets::classic(Some(desc));
        for sample in samples {
            join_labels(&mut labels, desc, sample);
            match &sample.value {
                Value::Integer(value) => {
                    write_line(&mut text, [desc.name, ""], &labels, itoa::Buffer::new().format(*value));
                }
                Value::Float(value) => {
                    write_line(&mut text, [desc.name, ""], &labels, dtoa::Buffer::new().format(*value));
                }
                Value::Histogram(histogram) => write_histogram(&mut text, desc.name, &labels, histogram, classic),
            }
            if let (Some(start), Some(base)) = (&began, base(desc)) {
                write_line(&mut text, [base, "_created"], &labels, &start.0);
            }
        }
    }
    foreign::blocks::write(&page.foreign, dialect, &mut text);
    if dialect == Dialect::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

/// The agent's start as text.
struct Start(String);

impl Start {
    fn new(seconds: f64) -> Self {
        Self(dtoa::Buffer::new().format(seconds).to_owned())
    }
}

/// The name of a family with `_created` in OpenMetrics: a counter's name without its suffix. A counter with another
/// name (of another exporter) cannot be a counter there.
fn base(desc: &Desc) -> Option<&'static str> {
    match desc.kind {
        Kind::Counter => desc.name.strip_suffix("_total"),
        Kind::Histogram => Some(desc.name),
        Kind::Gauge | Kind::Unknown => None,
    }
}

/// Approximate size of a family in bytes, to avoid reallocating the buffer.
fn expected_size(Family { desc, samples, .. }: &Family) -> usize {
    let lines = desc.buckets.map_or(1, |buckets| buckets.classic().series()) + usize::from(desc.counts_since_start());
    let names: usize = desc.labels.iter().map(|name| name.len() + r#"="","#.len()).sum();
    let values: usize = samples.iter().flat_map(|sample| &sample.labels).map(SmolStr::len).sum();
    let line = desc.name.len() + names + r#"_bucket{le="0.0013810679320049757"} 123456789"#.len();
    500 + desc.help.len() + lines * (samples.len() * line + values)
}

/// HELP, TYPE and UNIT.
fn write_head(text: &mut String, desc: &Desc, dialect: Dialect) {
    let open = dialect == Dialect::OpenMetrics;
    let (name, kind) = match (desc.kind, base(desc)) {
        (Kind::Counter, Some(base)) if open => (base, "counter"),
        (Kind::Counter, None) if open => (desc.name, "unknown"),
        (Kind::Counter, _) => (desc.name, "counter"),
        (Kind::Gauge, _) => (desc.name, "gauge"),
        (Kind::Histogram, _) => (desc.name, "histogram"),
        (Kind::Unknown, _) => (desc.name, if open { "unknown" } else { "untyped" }),
    };
    text.extend(["# HELP ", name, " ", &escape(desc.help, open), "\n# TYPE ", name, " ", kind, "\n"]);
    if open && desc.unit != Unit::None {
        text.extend(["# UNIT ", name, " ", desc.unit.name(), "\n"]);
    }
}

/// Replaces `joined` with the labels of a sample, as between braces.
fn join_labels(joined: &mut String, desc: &Desc, sample: &Sample) {
    joined.clear();
    for (name, value) in desc.labels.iter().zip(&sample.labels) {
        let comma = if joined.is_empty() { "" } else { "," };
        joined.extend([comma, name, "=\"", &escape(value, true), "\""]);
    }
}

/// Writes one line; the name is in two parts.
fn write_line(text: &mut String, [name, suffix]: [&str; 2], labels: &str, value: &str) {
    let (open, close) = if labels.is_empty() { ("", " ") } else { ("{", "} ") };
    text.extend([name, suffix, open, labels, close, value, "\n"]);
}

/// Writes the sum, the count and the cumulative buckets.
fn write_histogram(text: &mut String, name: &str, labels: &str, histogram: &Histogram, classic: &Classic) {
    let sum = classic.buckets.sum(histogram);
    write_line(text, [name, "_sum"], labels, dtoa::Buffer::new().format(sum));
    write_line(text, [name, "_count"], labels, itoa::Buffer::new().format(histogram.count()));
    let before = format!("{name}_bucket{{le=\"");
    let after = format!("\"{}{labels}}} ", if labels.is_empty() { "" } else { "," });
    for (le, count) in classic.le.iter().zip(classic.cumulative(histogram)) {
        text.extend([before.as_str(), le, &after, itoa::Buffer::new().format(count), "\n"]);
    }
}
