//! Both text formats: [OpenMetrics 1.0](https://prometheus.io/docs/specs/om/open_metrics_spec/) and
//! [Prometheus 0.0.4](https://prometheus.io/docs/instrumenting/exposition_formats/).
//!
//! A page of many models is nearly all lines of histograms, so it is they that a scrape waits for: everything goes straight
//! into one buffer, a sample's labels are put together once, and bounds are text to begin with. The tests compare with
//! prometheus-client's encoder, which is at a trait object's mercy for every piece of a line.

use std::borrow::Cow;

use citadel_agent_common::hist::Histogram;
use smol_str::SmolStr;

use super::buckets::{self, Classic};
use super::catalogue::{Desc, Kind, Unit};
use super::family::{Family, Page, Sample, Value};
use super::foreign;

/// Which text format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dialect {
    /// Prometheus 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

/// A sorted page as text.
pub(super) fn encode(page: &Page, dialect: Dialect) -> String {
    let mut text = String::with_capacity(page.families.iter().map(expected_size).sum());
    let mut labels = String::new();
    let start = super::start_seconds(page);
    for family in &page.families {
        let Family { desc, samples, .. } = family;
        write_head(&mut text, desc, dialect);
        let began = super::began(family, start).filter(|_| dialect == Dialect::OpenMetrics).map(Start::new);
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

/// When the agent began to count, as text.
struct Start(String);

impl Start {
    fn new(seconds: f64) -> Self {
        Self(dtoa::Buffer::new().format(seconds).to_owned())
    }
}

/// What OpenMetrics calls a family that has a `_created`: a counter's name has no suffix there, and one by another name (of
/// another exporter) cannot be a counter.
fn base(desc: &Desc) -> Option<&'static str> {
    match desc.kind {
        Kind::Counter => desc.name.strip_suffix("_total"),
        Kind::Histogram => Some(desc.name),
        Kind::Gauge | Kind::Unknown => None,
    }
}

/// About as many bytes as a family takes, so that the buffer is not copied while it grows.
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

/// Replaces `joined` by a sample's labels as they stand between braces.
fn join_labels(joined: &mut String, desc: &Desc, sample: &Sample) {
    joined.clear();
    for (name, value) in desc.labels.iter().zip(&sample.labels) {
        let comma = if joined.is_empty() { "" } else { "," };
        joined.extend([comma, name, "=\"", &escape(value, true), "\""]);
    }
}

/// One line; its name in two parts.
fn write_line(text: &mut String, [name, suffix]: [&str; 2], labels: &str, value: &str) {
    let (open, close) = if labels.is_empty() { ("", " ") } else { ("{", "} ") };
    text.extend([name, suffix, open, labels, close, value, "\n"]);
}

/// The sum, the count and the buckets, which are cumulative.
fn write_histogram(text: &mut String, name: &str, labels: &str, histogram: &Histogram, classic: &Classic) {
    let sum = buckets::sum_seconds(histogram);
    write_line(text, [name, "_sum"], labels, dtoa::Buffer::new().format(sum));
    write_line(text, [name, "_count"], labels, itoa::Buffer::new().format(histogram.count()));
    let before = format!("{name}_bucket{{le=\"");
    let after = format!("\"{}{labels}}} ", if labels.is_empty() { "" } else { "," });
    for (le, count) in classic.le.iter().zip(classic.cumulative(histogram)) {
        text.extend([before.as_str(), le, &after, itoa::Buffer::new().format(count), "\n"]);
    }
}

/// Escapes backslashes, newlines and, where `quotes`, quotes: so in label values and in OpenMetrics' HELP, but in 0.0.4's
/// HELP `\"` would stay as it is.
pub(super) fn escape(text: &str, quotes: bool) -> Cow<'_, str> {
    if !text.contains(['\\', '\n', '"']) {
        return Cow::Borrowed(text);
    }
    let text = text.replace('\\', r"\\").replace('\n', r"\n");
    Cow::Owned(if quotes { text.replace('"', "\\\"") } else { text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_is_escaped_as_each_format_wants_it() {
        let help = "A \"quoted\" back\\slash\nand a line.";
        assert_eq!(escape(help, false), "A \"quoted\" back\\\\slash\\nand a line.");
        assert_eq!(escape(help, true), "A \\\"quoted\\\" back\\\\slash\\nand a line.");
        assert!(matches!(escape("Plain.", true), Cow::Borrowed("Plain.")));
    }
}
