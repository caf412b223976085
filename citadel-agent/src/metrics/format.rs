//! Selects the format of a response: proactive negotiation with `Accept`, [RFC 9110, section
//! 12.5.1](https://www.rfc-editor.org/rfc/rfc9110#section-12.5.1).

/// A format of a metrics page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Prometheus text 0.0.4: the default.
    Text,
    /// OpenMetrics text 1.0.0.
    OpenMetrics,
    /// Prometheus' delimited protobuf format.
    Protobuf,
}

impl Format {
    /// All formats, the default first.
    pub const ALL: [Self; 3] = [Self::Text, Self::OpenMetrics, Self::Protobuf];

    /// `Content-Type` of a page. Metric and label names are ASCII, as `escaping=underscores` requires.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8; escaping=underscores",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited; escaping=underscores"
            }
        }
    }

    /// The format with the highest weight in the `Accept` header field; among equals, the one named more specifically,
    /// then the one named first, then the default.
    ///
    /// If none is acceptable, the default: a scraper can do more with it than with a 406.
    #[must_use]
    pub fn negotiate(accept: &str) -> Self {
        let ranges: Vec<Range<'_>> = split(accept, ',').filter_map(Range::parse).collect();
        let mut best = (Self::Text, (0, 0, 0));
        for format in Self::ALL {
            // The most specific range decides, not the one with the highest weight.
            let range = (ranges.iter().rev().enumerate())
                .filter_map(|(from_end, range)| Some((range.specificity(format)?, from_end, range.weight)))
                .max();
            if let Some((specificity, from_end, weight)) = range
                && weight > 0
                && (weight, specificity, from_end) > best.1
            {
                best = (format, (weight, specificity, from_end));
            }
        }
        best.0
    }

    /// Type and subtype, and the parameters that distinguish this format from others of the same type.
    const fn media_type(self) -> (&'static str, &'static str, &'static [(&'static str, &'static str)]) {
        match self {
            Self::Text => ("text", "plain", &[("version", "0.0.4")]),
            Self::OpenMetrics => ("application", "openmetrics-text", &[("version", "1.0.0")]),
            Self::Protobuf => (
                "application",
                "vnd.google.protobuf",
                &[("proto", "io.prometheus.client.MetricFamily"), ("encoding", "delimited")],
            ),
        }
    }
}

/// One media range of an `Accept` field.
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    /// The q value in thousandths.
    weight: u32,
}

impl<'a> Range<'a> {
    /// `None` if it is not a media range.
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = split(text, ';');
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let (mut parameters, mut weight) = (Vec::new(), 1000);
        for part in parts {
            let (name, value) = part.split_once('=')?;
            let (name, value) = (name.trim(), value.trim().trim_matches('"'));
            if name.eq_ignore_ascii_case("q") {
                let q: f64 = value.parse().ok().filter(|q| (0.0..=1.0).contains(q))?;
                weight = (q * 1000.0).round() as u32;
            } else {
                parameters.push((name, value));
            }
        }
        Some(Self { kind, subtype, parameters, weight })
    }

    /// How specifically this range matches `format`; `None` if it does not match.
    fn specificity(&self, format: Format) -> Option<usize> {
        let (kind, subtype, ours) = format.media_type();
        if self.kind == "*" && self.subtype == "*" {
            return Some(0);
        }
        if !self.kind.eq_ignore_ascii_case(kind) {
            return None;
        }
        if self.subtype == "*" {
            return Some(1);
        }
        if !self.subtype.eq_ignore_ascii_case(subtype) {
            return None;
        }
        // Our names satisfy every escaping scheme, and our text is UTF-8.
        let matches = self.parameters.iter().all(|&(name, value)| {
            let escaping = name.eq_ignore_ascii_case("escaping");
            let charset = name.eq_ignore_ascii_case("charset") && value.eq_ignore_ascii_case("utf-8");
            escaping
                || charset
                || ours.iter().any(|(n, v)| n.eq_ignore_ascii_case(name) && v.eq_ignore_ascii_case(value))
        });
        matches.then_some(2 + self.parameters.len())
    }
}

/// Splits at `separator` outside of quotes and trims; empty parts, which the RFC allows in lists, are skipped.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c| {
        quoted ^= c == '"';
        !quoted && c == separator
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PROTOBUF: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";

    #[test]
    fn each_prometheus_gets_what_it_asks_for() {
        // 2.42, without and with native histograms.
        let text = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                    text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::negotiate(text), Format::OpenMetrics);
        let native = format!(
            "{PROTOBUF},application/openmetrics-text;version=1.0.0;q=0.8,\
             application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        );
        assert_eq!(Format::negotiate(&native), Format::Protobuf);
        // 3.x.
        let three = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                     application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
                     text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(Format::negotiate(three), Format::OpenMetrics);
    }

    #[test]
    fn who_asks_for_nothing_we_have_gets_plain_text() {
        for accept in
            ["", "*/*", "text/*", "text/html,*/*;q=0.8", "image/png", "nonsense", "text/plain;version=1.0.0", ",;,"]
        {
            assert_eq!(Format::negotiate(accept), Format::Text, "{accept:?}");
        }
    }

    #[test]
    fn weights_decide_and_zero_forbids() {
        assert_eq!(Format::negotiate("text/plain;q=0.4, application/openmetrics-text;q=0.5"), Format::OpenMetrics);
        assert_eq!(Format::negotiate("text/plain;q=0.5, application/openmetrics-text;q=0.4"), Format::Text);
        assert_eq!(Format::negotiate("text/plain;q=0, */*;q=0.1"), Format::OpenMetrics);
        assert_eq!(
            Format::negotiate("*/*;q=0.9, application/openmetrics-text;q=0.1, text/plain;q=0"),
            Format::Protobuf
        );
    }

    #[test]
    fn of_equals_the_first_named_wins() {
        assert_eq!(Format::negotiate("application/openmetrics-text, text/plain"), Format::OpenMetrics);
        assert_eq!(Format::negotiate("text/plain, application/openmetrics-text"), Format::Text);
        assert_eq!(Format::negotiate("*/*, application/openmetrics-text"), Format::OpenMetrics);
    }

    #[test]
    fn case_space_and_quotes_do_not_matter() {
        assert_eq!(Format::negotiate("Application/OpenMetrics-Text ; Version=\"1.0.0\" ; Q=1"), Format::OpenMetrics);
        assert_eq!(Format::negotiate("text/plain;x=\",application/openmetrics-text\""), Format::Text);
    }

    #[test]
    fn a_range_with_another_version_or_message_is_not_ours() {
        assert_eq!(Format::negotiate("application/openmetrics-text;version=0.0.1"), Format::Text);
        assert_eq!(Format::negotiate("application/vnd.google.protobuf;proto=other;encoding=delimited"), Format::Text);
        assert_eq!(Format::negotiate("application/vnd.google.protobuf"), Format::Protobuf);
    }

    proptest! {
        #[test]
        fn anything_gets_an_answer(accept in "\\PC{0,80}", weird in "[a-z*/;=,q0-9.\" ]{0,80}") {
            let _: Format = Format::negotiate(&accept);
            let _: Format = Format::negotiate(&weird);
        }
    }
}
