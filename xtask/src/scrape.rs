//! Reads a metrics page: just enough of the Prometheus text format to show it.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// The body at `path` from a server on this host; any status but 200 is an error.
pub(crate) fn get(port: u16, path: &str) -> Result<String> {
    let limit = Some(Duration::from_secs(5));
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).with_context(|| format!("port {port}"))?;
    stream.set_read_timeout(limit)?;
    stream.set_write_timeout(limit)?;
    // HTTP/1.0: the body then is not chunked and ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost:{port}\r\nAccept: text/plain\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("reading port {port} {path}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP response")?;
    if head.split_whitespace().nth(1) != Some("200") {
        bail!("port {port} {path} answered {}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}

/// A metrics page.
pub(crate) struct Page(Vec<Sample>);

struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Page {
    /// Parses a page; lines that are not samples are skipped.
    pub(crate) fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(Sample::parse).collect())
    }

    /// The sum over all series of `name` with these labels; `None` when there is no such series.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.series(name, labels).map(|sample| sample.value).reduce(|a, b| a + b)
    }

    /// Mean of a histogram in its own unit; `None` before the first observation.
    pub(crate) fn mean(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let count = self.sum(&format!("{name}_count"), labels).filter(|count| *count > 0.0)?;
        Some(self.sum(&format!("{name}_sum"), labels)? / count)
    }

    /// Median of a classic histogram, interpolated linearly within its bucket like PromQL's `histogram_quantile`.
    pub(crate) fn median(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for sample in self.series(&format!("{name}_bucket"), labels) {
            let bound = sample.label("le")?.parse().ok()?;
            match buckets.iter_mut().find(|(other, _)| *other == bound) {
                Some((_, count)) => *count += sample.value,
                None => buckets.push((bound, sample.value)),
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let half = buckets.last().filter(|(_, all)| *all > 0.0)?.1 / 2.0;
        let at = buckets.iter().position(|(_, count)| *count >= half)?;
        let (low, below) = if at == 0 { (0.0, 0.0) } else { buckets[at - 1] };
        let (high, upto) = buckets[at];
        Some(if high.is_finite() { low + (high - low) * (half - below) / (upto - below) } else { low })
    }

    /// The labels of each series of `name`, as a function from label name to value, empty where the label is missing.
    pub(crate) fn labels_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = impl Fn(&str) -> &'a str> {
        self.series(name, &[]).map(|sample| move |label: &str| sample.label(label).unwrap_or_default())
    }

    /// The distinct values of a label among the series of `name`, in order.
    pub(crate) fn values(&self, name: &str, label: &str) -> Vec<&str> {
        let series = self.0.iter().filter(|sample| sample.name == name);
        let mut values: Vec<_> = series.filter_map(|sample| sample.label(label)).collect();
        values.sort_unstable();
        values.dedup();
        values
    }

    fn series<'a>(&'a self, name: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| {
            sample.name == name && labels.iter().all(|(key, value)| sample.label(key) == Some(value))
        })
    }
}

impl Sample {
    fn parse(line: &str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        let end = line.find(['{', ' '])?;
        let (name, mut rest) = line.split_at(end);
        let mut labels = Vec::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            while let Some((key, after)) = rest.split_once("=\"").filter(|_| !rest.starts_with('}')) {
                let (value, after) = unquote(after)?;
                labels.push((key.to_owned(), value));
                rest = after.strip_prefix(',').unwrap_or(after);
            }
            rest = rest.strip_prefix('}')?;
        }
        let value = rest.split_whitespace().next()?.parse().ok()?;
        Some(Self { name: name.to_owned(), labels, value })
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The text up to the closing quote, unescaped, and the rest.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"# HELP a Something.
# TYPE a counter
a{model="x",port="1"} 3
a{model="x",port="2"} 4 1700000000
a{model="q\"uote}, \\n"} 9
h_bucket{model="x",endpoint="p",le="0.5"} 1
h_bucket{model="x",endpoint="p",le="1"} 3
h_bucket{model="x",endpoint="p",le="+Inf"} 4
h_bucket{model="x",endpoint="q",le="0.5"} 0
h_bucket{model="x",endpoint="q",le="1"} 0
h_bucket{model="x",endpoint="q",le="+Inf"} 0
h_sum{model="x"} 6
h_count{model="x"} 4
plain 1.5
"#;

    #[test]
    fn series_are_summed_over_the_labels_that_were_not_asked_for() {
        let page = Page::parse(PAGE);
        assert_eq!(page.sum("a", &[("model", "x")]), Some(7.0));
        assert_eq!(page.sum("a", &[("model", "x"), ("port", "2")]), Some(4.0));
        assert_eq!(page.sum("a", &[("model", "q\"uote}, \\n")]), Some(9.0));
        assert_eq!(page.sum("plain", &[]), Some(1.5));
        assert_eq!(page.sum("a", &[("model", "y")]), None);
    }

    #[test]
    fn mean_and_median_of_a_histogram() {
        let page = Page::parse(PAGE);
        assert_eq!(page.mean("h", &[("model", "x")]), Some(1.5));
        assert_eq!(page.median("h", &[("model", "x")]), Some(0.75));
        assert_eq!(page.median("h", &[("model", "x"), ("endpoint", "q")]), None);
    }
}
