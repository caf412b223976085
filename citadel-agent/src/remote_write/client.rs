//! A remote-write receiver: headers of requests, and interpretation of responses.

use bytes::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName};

use super::encode::Protocol;
use super::sender::{ReceiverAnswer, Written};
use crate::config::resolved::remote_write::Destination;
use crate::outbound;
pub use crate::outbound::UrlError;

/// Protocol version of the body.
const VERSION: HeaderName = HeaderName::from_static("x-prometheus-remote-write-version");

/// Maximum size of a JSON response: Prometheus' configuration with thousands of targets.
const LONGEST_JSON: usize = 4 << 20;

/// A receiver.
pub struct Client(outbound::Client);

impl Client {
    /// A client for `destination`, which has a URL.
    ///
    /// # Errors
    /// See [`UrlError`].
    pub fn new(destination: &Destination) -> Result<Self, UrlError> {
        let url = destination.url.as_deref().unwrap_or_default();
        outbound::Client::new(url, &destination.access, destination.timeout).map(Self)
    }

    /// Posts `body` and returns the outcome, including failures.
    pub async fn post(&mut self, body: Bytes, protocol: Protocol) -> ReceiverAnswer {
        let headers =
            [(CONTENT_ENCODING, "snappy"), (CONTENT_TYPE, protocol.content_type()), (VERSION, protocol.version())];
        let reply = self.0.post(&headers, body).await;
        let (written, classic_only) = (written(&reply.headers), classic_only(&reply.headers));
        ReceiverAnswer {
            status: reply.status,
            words: reply.words,
            retry_after: reply.retry_after,
            written,
            classic_only,
        }
    }
}

impl Client {
    /// Gets another path on the same server as JSON; `None` if that fails.
    pub async fn get_json(&mut self, path: &str) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.0.get(path, LONGEST_JSON).await?).ok()
    }
}

/// The number of samples and histograms that a 2.0 receiver reports as written; `None` if it reports none.
fn written(headers: &HeaderMap) -> Option<Written> {
    let count = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
    let samples = count("x-prometheus-remote-write-samples-written");
    let histograms = count("x-prometheus-remote-write-histograms-written");
    let exemplars = count("x-prometheus-remote-write-exemplars-written");
    samples.or(histograms).or(exemplars)?;
    Some(Written { samples, histograms })
}

/// Whether the receiver identifies itself as one that converts native histograms: VictoriaMetrics stores them as its
/// own `vmrange` buckets with the same name, and InfluxDB does not support them.
fn classic_only(headers: &HeaderMap) -> bool {
    headers.contains_key("x-server-hostname") || headers.contains_key("x-influxdb-version")
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn any_of_the_three_headers_says_that_the_receiver_knows_2_0() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs.iter().map(|&(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
        };
        let (samples, histograms) =
            ("x-prometheus-remote-write-samples-written", "x-prometheus-remote-write-histograms-written");
        assert_eq!(written(&headers(&[])), None);
        assert_eq!(written(&headers(&[(samples, "x")])), None);
        let said = |samples, histograms| Some(Written { samples, histograms });
        assert_eq!(written(&headers(&[(samples, "3"), (histograms, "2")])), said(Some(3), Some(2)));
        assert_eq!(written(&headers(&[("x-prometheus-remote-write-exemplars-written", "0")])), said(None, None));
        assert!(!classic_only(&headers(&[(samples, "3")])));
        assert!(classic_only(&headers(&[("X-Server-Hostname", "vm1")])));
        assert!(classic_only(&headers(&[("X-Influxdb-Version", "v2.7.1")])));
    }
}
