//! A scraped page, and questions to it that read as sentences:
//! `page.counter(REQUESTS).label("code", "200").value()`.
//!
//! The parser takes the Prometheus text format 0.0.4 and is strict: a page that it cannot read is a bug of the agent.

use std::collections::BTreeMap;
use std::fmt;

use crate::names;
use crate::truth::{Span, assert_within, tolerance};

/// One line of a page.
#[derive(Clone, PartialEq, Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// One scrape.
#[derive(Clone, PartialEq, Debug)]
pub struct Page {
    types: BTreeMap<String, String>,
    samples: Vec<Sample>,
}

impl Page {
    /// Parses a page in the text format 0.0.4.
    ///
    /// # Panics
    /// On a line that is not of that format, a sample without `# TYPE`, or a series that occurs twice.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut page = Self { types: BTreeMap::new(), samples: Vec::new() };
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(declaration) = line.strip_prefix("# TYPE ") {
                let (name, kind) = declaration.split_once(' ').unwrap_or_else(|| panic!("TYPE without a type: {line}"));
                let earlier = page.types.insert(name.to_owned(), kind.to_owned());
                assert!(earlier.is_none(), "{name} is declared twice");
            } else if !line.starts_with('#') {
                let sample = parse_sample(line).unwrap_or_else(|| panic!("not a sample line: {line}"));
                let twin = page.samples.iter().find(|other| other.name == sample.name && other.labels == sample.labels);
                assert!(twin.is_none(), "the series occurs twice: {line}");
                page.samples.push(sample);
            }
        }
        for sample in &page.samples {
            assert!(page.type_of(&sample.name).is_some(), "{} has no # TYPE", sample.name);
        }
        page
    }

    fn type_of(&self, sample: &str) -> Option<&str> {
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| sample.strip_suffix(suffix));
        let family = of_histogram.filter(|family| self.types.get(*family).is_some_and(|kind| kind == "histogram"));
        self.types.get(family.unwrap_or(sample)).map(String::as_str)
    }

    fn select(&self, name: &str, kind: &str) -> Selection<'_> {
        // A family without samples may be absent, with its TYPE line.
        if let Some(found) = self.types.get(name) {
            assert_eq!(found, kind, "type of {name}");
        }
        Selection { name: name.to_owned(), samples: self.samples.iter().filter(|sample| sample.name == name).collect() }
    }

    /// The series of a counter.
    ///
    /// # Panics
    /// If the page calls it something else than a counter.
    #[must_use]
    pub fn counter(&self, name: &str) -> Selection<'_> {
        self.select(name, "counter")
    }

    /// The series of a gauge.
    ///
    /// # Panics
    /// If the page calls it something else than a gauge.
    #[must_use]
    pub fn gauge(&self, name: &str) -> Selection<'_> {
        self.select(name, "gauge")
    }

    /// The series of a histogram.
    ///
    /// # Panics
    /// If the page calls it something else than a histogram.
    #[must_use]
    pub fn histogram(&self, name: &str) -> Histogram<'_> {
        if let Some(found) = self.types.get(name) {
            assert_eq!(found, "histogram", "type of {name}");
        }
        let belongs = |sample: &&Sample| {
            sample.name.strip_prefix(name).is_some_and(|rest| ["_bucket", "_sum", "_count"].contains(&rest))
        };
        Histogram { name: name.to_owned(), samples: self.samples.iter().filter(belongs).collect() }
    }

    /// All requests whose response ended.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.counter(names::REQUESTS).value()
    }

    /// Fails if the agent itself says that it lost sight of something: only then are its numbers incomplete.
    ///
    /// # Panics
    /// If `citadel_events_lost_total` is not 0.
    #[track_caller]
    pub fn assert_nothing_lost(&self) {
        let lost = self.counter(names::LOST).by(["reason"]);
        assert!(lost.is_empty(), "the agent lost events: {lost:?}");
    }

    /// Fails unless the page knows of no request at all: ended, aborted, in flight, or timed.
    ///
    /// # Panics
    /// If there is one; the text names the family.
    #[track_caller]
    pub fn assert_no_request_invented(&self) {
        assert_eq!(self.counter(names::REQUESTS).by(["endpoint", "code"]), no_series(), "requests");
        assert_eq!(self.counter(names::ABORTED).by(["side", "phase"]), no_series(), "aborted requests");
        assert_eq!(self.gauge(names::IN_FLIGHT).value(), 0, "requests in flight");
        assert_eq!(self.counter(names::CHUNKS).value(), 0, "chunks");
        for name in [names::DURATION, names::TTFB, names::TTFT, names::INTER_TOKEN] {
            assert_eq!(self.histogram(name).count(), 0, "{name}");
        }
    }
}

fn no_series() -> BTreeMap<String, u64> {
    BTreeMap::new()
}

/// Prints what the models and the agent's losses look like; for failures.
impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = |sample: &&Sample| {
            let interesting = sample.name.starts_with("citadel_model_") || sample.name == names::LOST;
            interesting && sample.value != 0.0 && !sample.name.ends_with("_bucket")
        };
        for sample in self.samples.iter().filter(told) {
            writeln!(f, "  {} {:?} {}", sample.name, sample.labels, sample.value)?;
        }
        Ok(())
    }
}

/// Series of one counter or gauge.
#[derive(Clone, Debug)]
pub struct Selection<'a> {
    name: String,
    samples: Vec<&'a Sample>,
}

impl Selection<'_> {
    /// Only the series whose label has this value.
    #[must_use]
    pub fn label(mut self, label: &str, value: &str) -> Self {
        self.samples.retain(|sample| sample.labels.get(label).is_some_and(|found| found == value));
        self
    }

    /// Whether the page has any such series, be it 0.
    #[must_use]
    pub fn is_present(&self) -> bool {
        !self.samples.is_empty()
    }

    /// Sum of the series, 0 if there is none.
    #[must_use]
    pub fn number(&self) -> f64 {
        self.samples.iter().map(|sample| sample.value).sum()
    }

    /// Likewise, of whole numbers.
    ///
    /// # Panics
    /// If a value is no whole number.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.samples.iter().map(|sample| whole(&self.name, sample.value)).sum()
    }

    /// Sums by the values of labels, several joined by a space; what is 0 is left out, as it may be on the page.
    ///
    /// # Panics
    /// If a series lacks one of the labels or a value is no whole number.
    #[must_use]
    pub fn by<const N: usize>(&self, labels: [&str; N]) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for sample in self.samples.iter().filter(|sample| sample.value != 0.0) {
            let values = labels.map(|label| {
                sample.labels.get(label).unwrap_or_else(|| panic!("{} has no label {label}", self.name)).as_str()
            });
            *sums.entry(values.join(" ")).or_default() += whole(&self.name, sample.value);
        }
        sums
    }
}

fn whole(name: &str, value: f64) -> u64 {
    assert!(value >= 0.0 && value.fract() == 0.0 && value < 2f64.powi(53), "{name} is no exact count: {value}");
    value as u64
}

/// What [`Selection::by`] is compared with: `sums([("models 200", 3)])`.
#[must_use]
pub fn sums<const N: usize>(expected: [(&str, u64); N]) -> BTreeMap<String, u64> {
    expected.into_iter().map(|(labels, count)| (labels.to_owned(), count)).collect()
}

/// Series of one histogram, taken together.
#[derive(Clone, Debug)]
pub struct Histogram<'a> {
    name: String,
    samples: Vec<&'a Sample>,
}

impl Histogram<'_> {
    /// Only the series whose label has this value.
    #[must_use]
    pub fn label(mut self, label: &str, value: &str) -> Self {
        self.samples.retain(|sample| sample.labels.get(label).is_some_and(|found| found == value));
        self
    }

    fn total(&self, suffix: &str) -> f64 {
        self.samples.iter().filter(|sample| sample.name.ends_with(suffix)).map(|sample| sample.value).sum()
    }

    /// Number of observations, 0 if the page has no such series.
    #[must_use]
    pub fn count(&self) -> u64 {
        whole(&self.name, self.total("_count"))
    }

    /// Sum of all observations in seconds.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.total("_sum")
    }

    /// Upper bounds in seconds, and how many observations are not above them.
    ///
    /// # Panics
    /// If an `le` is no number.
    #[must_use]
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        let mut buckets: Vec<(f64, u64)> = Vec::new();
        for sample in self.samples.iter().filter(|sample| sample.name.ends_with("_bucket")) {
            let le = sample.labels.get("le").and_then(|le| parse_number(le)).expect("a bucket has a number as its le");
            let count = whole(&self.name, sample.value);
            match buckets.iter_mut().find(|(bound, _)| *bound == le) {
                Some((_, sum)) => *sum += count,
                None => buckets.push((le, count)),
            }
        }
        buckets.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        buckets
    }

    /// Fails unless the histogram holds one observation per span: as many, with that sum, each in its bucket.
    ///
    /// # Panics
    /// If it does not; the text says which of the three is off, and by how much.
    #[track_caller]
    pub fn assert_holds(&self, truths: &[Span]) {
        let name = &self.name;
        assert_eq!(self.count(), truths.len() as u64, "{name}: number of observations");
        assert_within(&format!("{name}: sum"), self.sum(), truths.iter().copied().sum());
        let buckets = self.buckets();
        let last = buckets.last().unwrap_or_else(|| panic!("{name} has no buckets"));
        assert_eq!(*last, (f64::INFINITY, self.count()), "{name}: the +Inf bucket holds everything");
        for (le, count) in buckets {
            let halves = le.log2() * 2.0;
            let is_bound = le.is_infinite() || (halves - halves.round()).abs() < 1e-9;
            assert!(is_bound, "{name}: le {le} is no power of two, nor half an octave from one");
            let surely = truths.iter().filter(|span| seconds(span.hi + tolerance(span.hi)) <= le).count();
            let at_most =
                truths.iter().filter(|span| seconds(span.lo.saturating_sub(tolerance(span.lo))) <= le).count();
            assert!(
                (surely as u64..=at_most as u64).contains(&count),
                "{name}: {count} observations are not above {le} s, but in truth {surely} to {at_most} are: {truths:?}"
            );
        }
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn parse_number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        _ => text.parse().ok(),
    }
}

/// `name{label="value",...} number [timestamp]`
fn parse_sample(line: &str) -> Option<Sample> {
    let name_end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = parse_quoted(after)?;
            labels.insert(label.to_owned(), value);
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = parse_number(rest.strip_prefix(' ')?.split(' ').next()?)?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// A label value up to its closing quote, unescaped, and what follows.
fn parse_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                escaped @ ('"' | '\\') => escaped,
                _ => return None,
            }),
            _ => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"# HELP citadel_model_requests_total Requests.
# TYPE citadel_model_requests_total counter
citadel_model_requests_total{model="a \"b\" \\ c",port="1",endpoint="models",code="200"} 3
citadel_model_requests_total{model="m",port="2",endpoint="models",code="404"} 1
citadel_model_requests_total{model="m",port="2",endpoint="health",code="200"} 0
# TYPE citadel_model_time_to_first_byte_seconds histogram
citadel_model_time_to_first_byte_seconds_bucket{port="1",le="0.0078125"} 1
citadel_model_time_to_first_byte_seconds_bucket{port="1",le="0.015625"} 2
citadel_model_time_to_first_byte_seconds_bucket{port="1",le="+Inf"} 2
citadel_model_time_to_first_byte_seconds_sum{port="1"} 0.014
citadel_model_time_to_first_byte_seconds_count{port="1"} 2
"#;

    fn about(ms: u64) -> Span {
        Span { lo: ms * 1_000_000, hi: ms * 1_000_000 + 1000 }
    }

    #[test]
    fn counters_are_selected_by_labels_and_summed() {
        let page = Page::parse(PAGE);
        assert_eq!(page.requests(), 4);
        assert_eq!(page.counter(names::REQUESTS).label("code", "200").value(), 3);
        assert_eq!(page.counter(names::REQUESTS).label("model", r#"a "b" \ c"#).value(), 3);
        assert_eq!(
            page.counter(names::REQUESTS).by(["endpoint", "code"]),
            sums([("models 200", 3), ("models 404", 1)])
        );
        assert_eq!(page.counter(names::ABORTED).value(), 0);
        assert!(!page.counter(names::ABORTED).is_present());
    }

    #[test]
    fn a_histogram_holds_what_is_true() {
        Page::parse(PAGE).histogram(names::TTFB).assert_holds(&[about(4), about(10)]);
    }

    #[test]
    #[should_panic(expected = "number of observations")]
    fn a_missing_observation_fails() {
        Page::parse(PAGE).histogram(names::TTFB).assert_holds(&[about(14)]);
    }

    #[test]
    #[should_panic(expected = "sum: measured 0.014000 s")]
    fn a_wrong_sum_fails() {
        Page::parse(PAGE).histogram(names::TTFB).assert_holds(&[about(5), about(10)]);
    }

    #[test]
    #[should_panic(expected = "not above 0.0078125 s")]
    fn a_wrong_bucket_fails() {
        Page::parse(PAGE).histogram(names::TTFB).assert_holds(&[about(7), about(7)]);
    }

    #[test]
    #[should_panic(expected = "type of citadel_model_requests_total")]
    fn a_wrong_type_fails() {
        let _ = Page::parse(PAGE).gauge(names::REQUESTS);
    }

    #[test]
    #[should_panic(expected = "occurs twice")]
    fn a_series_twice_fails() {
        let _ = Page::parse("# TYPE a gauge\na{x=\"1\"} 1\na{x=\"1\"} 2\n");
    }
}
