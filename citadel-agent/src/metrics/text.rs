//! Both text formats, through prometheus-client's encoder:
//! [OpenMetrics 1.0](https://prometheus.io/docs/specs/om/open_metrics_spec/) and
//! [Prometheus 0.0.4](https://prometheus.io/docs/instrumenting/exposition_formats/).
//!
//! The library writes OpenMetrics only, and does not escape HELP. What 0.0.4 wants is said through the same calls: names
//! as the catalogue has them, no unit, and a counter's value without a suffix.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{self, Registry};

use super::buckets::{self, BOUNDS, LE};
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
pub(super) fn encode(mut page: Page, dialect: Dialect) -> Result<String, fmt::Error> {
    let foreign = std::mem::take(&mut page.foreign);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Collected { page, dialect }));
    let mut lines = Lines { dialect, text: String::new(), start: 0, bucket: 0 };
    encode_registry(&mut lines, &registry)?;
    foreign::write(&foreign, dialect, &mut lines.text);
    if dialect == Dialect::OpenMetrics {
        encode_eof(&mut lines)?;
    }
    Ok(lines.text)
}

/// A page in the shape that prometheus-client takes: a collector that is asked once.
#[derive(Debug)]
struct Collected {
    page: Page,
    dialect: Dialect,
}

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Family { desc, samples } in &self.page.families {
            let unit = self.unit(desc);
            let name = self.base_name(desc, unit.as_ref());
            let help = escape(desc.help, self.dialect == Dialect::OpenMetrics);
            let mut metric = encoder.encode_descriptor(name, &help, unit.as_ref(), self.metric_type(desc))?;
            for sample in samples {
                if sample.labels.is_empty() {
                    self.sample(&mut metric, desc, &sample.value)?;
                } else {
                    let labels = Labels::new(desc, sample);
                    self.sample(&mut metric.encode_family(&labels)?, desc, &sample.value)?;
                }
            }
        }
        Ok(())
    }
}

impl Collected {
    /// The unit to announce; the encoder then appends it to the name. 0.0.4 knows none.
    fn unit(&self, desc: &Desc) -> Option<registry::Unit> {
        let announced = self.dialect == Dialect::OpenMetrics && desc.unit != Unit::None;
        announced.then(|| registry::Unit::Other(desc.unit.name().to_owned()))
    }

    /// The name without what the encoder appends by itself: in OpenMetrics a counter's `_total` and the unit.
    fn base_name(&self, desc: &Desc, unit: Option<&registry::Unit>) -> &'static str {
        let mut name = desc.name;
        if self.dialect == Dialect::OpenMetrics && desc.kind == Kind::Counter {
            name = name.strip_suffix("_total").unwrap_or(name);
        }
        if let Some(unit) = unit {
            name = name.strip_suffix(unit.as_str()).and_then(|name| name.strip_suffix('_')).unwrap_or(name);
        }
        name
    }

    /// A counter by another name than `..._total` (of another exporter) cannot be one in OpenMetrics.
    fn metric_type(&self, desc: &Desc) -> MetricType {
        match desc.kind {
            Kind::Counter if self.dialect == Dialect::OpenMetrics && !desc.name.ends_with("_total") => {
                MetricType::Unknown
            }
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
            Kind::Unknown => MetricType::Unknown,
        }
    }

    fn sample(&self, metric: &mut MetricEncoder<'_>, desc: &Desc, value: &Value) -> fmt::Result {
        // The library appends `_total` to a counter whose 0.0.4 name has it already, but appends nothing to a gauge.
        let counter = self.dialect == Dialect::OpenMetrics && matches!(self.metric_type(desc), MetricType::Counter);
        match value {
            Value::Integer(value) if counter => metric.encode_counter(value, NO_EXEMPLAR),
            Value::Float(value) if counter => metric.encode_counter(value, NO_EXEMPLAR),
            Value::Integer(value) => metric.encode_gauge(value),
            Value::Float(value) => metric.encode_gauge(value),
            Value::Histogram(histogram) => {
                let counts = buckets::classic(histogram);
                let mut pairs = [(0.0, 0); buckets::CLASSIC];
                for (pair, (bound, count)) in pairs.iter_mut().zip(BOUNDS.iter().zip(counts)) {
                    *pair = (*bound, count);
                }
                let (sum, count) = (buckets::sum_seconds(histogram), histogram.count());
                metric.encode_histogram::<NoLabelSet>(sum, count, &pairs, None)
            }
        }
    }
}

/// The agent keeps no exemplars: it looks at no trace ids.
const NO_EXEMPLAR: Option<&Exemplar<NoLabelSet, f64>> = None;

/// Escapes backslashes, newlines and, where `quotes`, quotes: so in label values and in OpenMetrics' HELP, but in 0.0.4's
/// HELP `\"` would stay as it is.
pub(super) fn escape(text: &str, quotes: bool) -> Cow<'_, str> {
    if !text.contains(['\\', '\n', '"']) {
        return Cow::Borrowed(text);
    }
    let text = text.replace('\\', r"\\").replace('\n', r"\n");
    Cow::Owned(if quotes { text.replace('"', "\\\"") } else { text })
}

/// A sample's labels as text. The encoder asks for them on each of a histogram's 34 lines, and letting it put them
/// together every time would take half of a scrape; so they are made once, and given to it in one piece.
struct Labels(String);

impl Labels {
    fn new(desc: &Desc, sample: &Sample) -> Self {
        let mut text = String::new();
        for (name, value) in desc.labels.iter().zip(&sample.labels) {
            let comma = if text.is_empty() { "" } else { "," };
            text.extend([comma, name, "=\"", &escape(value, true), "\""]);
        }
        Self(text)
    }
}

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        // A key is the part that goes out as it is.
        encoder.encode_label().encode_label_key()?.write_str(&self.0)
    }
}

/// Takes the encoder's output line by line, gives the buckets' bounds the text that [`LE`] says, and an unknown type the
/// name that it has in 0.0.4.
struct Lines {
    dialect: Dialect,
    /// All finished lines.
    text: String,
    /// Where the line under way begins.
    start: usize,
    /// Buckets seen of the histogram under way.
    bucket: usize,
}

impl fmt::Write for Lines {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.text.push_str(part);
        // Newlines of labels and help are escaped, so that this one ends a line.
        if part.ends_with('\n') {
            self.end_line();
        }
        Ok(())
    }
}

impl Lines {
    /// What stands between the name of a bucket and its bound; names have no brace, and no label is called `le`.
    const BEFORE_BOUND: &[u8] = b"{le=\"";

    /// How the encoder ends the TYPE line of a metric of unknown type.
    const UNKNOWN: &[u8] = b" unknown\n";

    fn end_line(&mut self) {
        let line = &self.text.as_bytes()[self.start..];
        if self.dialect == Dialect::Prometheus && line.starts_with(b"# TYPE ") && line.ends_with(Self::UNKNOWN) {
            self.text.truncate(self.text.len() - Self::UNKNOWN.len());
            self.text.push_str(" untyped\n");
            self.start = self.text.len();
            return;
        }
        let bound = (line.iter().position(|&byte| byte == b'{'))
            .filter(|&brace| line[brace..].starts_with(Self::BEFORE_BOUND))
            .map(|brace| self.start + brace + Self::BEFORE_BOUND.len());
        match (bound, LE.get(self.bucket)) {
            (Some(from), Some(le)) => {
                let to = self.text[from..].find('"').map_or(from, |quote| from + quote);
                if self.text[from..to] != **le {
                    self.text.replace_range(from..to, le);
                }
                self.bucket += 1;
            }
            _ => self.bucket = 0,
        }
        self.start = self.text.len();
    }
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
