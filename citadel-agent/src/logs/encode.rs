//! Encodes entries as the body of a request, in each format. Pure.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use prost::Message as _;

use super::select::Record;
use super::wire::{loki, otlp};
use crate::config::resolved::logs::Format;
use crate::metrics::protobuf::Timestamp;

/// Headers of a request.
type Headers = &'static [(HeaderName, &'static str)];

/// What all entries of this host have in common.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The host, equal to the label `instance` of the metrics.
    pub host: String,
    /// The label `job` of the metrics.
    pub job: String,
}

/// Headers for the body.
#[must_use]
pub fn headers(format: Format) -> Headers {
    match format {
        Format::Otlp => &[(CONTENT_TYPE, "application/x-protobuf"), (CONTENT_ENCODING, "gzip")],
        Format::Loki => &[(CONTENT_TYPE, "application/x-protobuf")],
        Format::Journal => &[(CONTENT_TYPE, "application/vnd.fdo.journal")],
    }
}

/// Encodes the entries.
///
/// # Errors
/// They cannot be compressed.
pub fn body(records: &[Record], format: Format, identity: &Identity) -> io::Result<Vec<u8>> {
    match format {
        Format::Otlp => {
            let message = otlp_request(records, identity).encode_to_vec();
            let mut gzip = GzEncoder::new(Vec::with_capacity(message.len() / 4), Compression::fast());
            gzip.write_all(&message)?;
            gzip.finish()
        }
        Format::Loki => {
            let message = loki_push(records, identity).encode_to_vec();
            snap::raw::Encoder::new().compress_vec(&message).map_err(io::Error::other)
        }
        Format::Journal => {
            let mut body = Vec::new();
            records.iter().for_each(|record| record.entry.fields.write(&mut body));
            Ok(body)
        }
    }
}

/// Attributes of an entry besides its text and its origin, with OpenTelemetry's names where they exist.
fn attributes(record: &Record) -> Vec<(&'static str, String)> {
    let field = |name| record.entry.fields.text(name).map(str::to_owned);
    let mut all = Vec::with_capacity(10);
    let mut add = |name, value: Option<String>| all.extend(value.map(|value| (name, value)));
    add("model", record.model.as_ref().map(|label| label.model.clone()));
    add("server.port", record.model.as_ref().map(|label| label.port.to_string()));
    // By the values that the labels `gpu` and `index` of the metrics have.
    let id = record.gpu.as_ref().and_then(|gpu| gpu.id.as_deref());
    add("gpu", id.map(|id| id.uuid.clone()));
    add("gpu.index", id.map(|id| id.index.to_string()));
    add("gpu.pci", record.gpu.as_ref().map(|gpu| gpu.pci.clone()));
    add("process.pid", record.entry.pid().map(|pid| pid.to_string()));
    add("process.executable.name", field("_COMM"));
    add("syslog.identifier", field("SYSLOG_IDENTIFIER"));
    add("syslog.priority", record.entry.priority().map(|priority| priority.to_string()));
    add("host.boot.id", field("_BOOT_ID"));
    add("log.record.uid", Some(record.entry.cursor.clone()));
    all
}

/// Attributes with numeric values.
const NUMBERS: [&str; 4] = ["gpu.index", "server.port", "process.pid", "syslog.priority"];

fn otlp_request(records: &[Record], identity: &Identity) -> otlp::Request {
    let text = |text: String| Some(otlp::AnyValue { value: Some(otlp::Value::Text(text)) });
    let pair = |(key, value): (&str, String)| {
        let number = NUMBERS.contains(&key).then(|| value.parse().ok()).flatten();
        let value = match number {
            Some(number) => Some(otlp::AnyValue { value: Some(otlp::Value::Integer(number)) }),
            None => text(value),
        };
        otlp::KeyValue { key: key.to_owned(), value }
    };
    let observed = crate::clock::wall_ms().unsigned_abs() * 1_000_000;
    let mut resources: Vec<otlp::ResourceLogs> = Vec::new();
    let mut places = HashMap::new();
    for record in records {
        let key = (Arc::clone(&record.unit), record.container, record.model.clone());
        let place: usize = *places.entry(key).or_insert_with(|| {
            let service = record.model.as_ref().map_or_else(|| record.unit.to_string(), |label| label.model.clone());
            let kind = if record.container { "container.name" } else { "systemd.unit" };
            let attributes = [
                ("service.name", service),
                ("service.namespace", identity.job.clone()),
                ("host.name", identity.host.clone()),
                (kind, record.unit.to_string()),
            ];
            let scope = otlp::Scope { name: "citadel-agent".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
            resources.push(otlp::ResourceLogs {
                resource: Some(otlp::Resource { attributes: attributes.map(pair).into() }),
                scope_logs: vec![otlp::ScopeLogs { scope: Some(scope), log_records: Vec::new() }],
            });
            resources.len() - 1
        });
        resources[place].scope_logs[0].log_records.push(otlp::LogRecord {
            time_unix_nano: record.entry.time_us.saturating_mul(1000),
            severity_number: record.severity.number(),
            severity_text: record.severity.label().to_owned(),
            body: text(record.entry.message().into_owned()),
            attributes: attributes(record).into_iter().map(pair).collect(),
            observed_time_unix_nano: observed,
        });
    }
    otlp::Request { resource_logs: resources }
}

fn loki_push(records: &[Record], identity: &Identity) -> loki::Push {
    let mut streams: Vec<loki::Stream> = Vec::new();
    let mut places = HashMap::new();
    for record in records {
        let key = (Arc::clone(&record.unit), record.container, record.severity);
        let place: usize = *places.entry(key).or_insert_with(|| {
            let kind = if record.container { "container" } else { "unit" };
            let labels = [
                ("host", identity.host.as_str()),
                ("job", &identity.job),
                (kind, &record.unit),
                ("severity", record.severity.label()),
            ];
            streams.push(loki::Stream { labels: selector(&labels), entries: Vec::new() });
            streams.len() - 1
        });
        let time = record.entry.time_us;
        let timestamp = Timestamp {
            seconds: i64::try_from(time / 1_000_000).unwrap_or(i64::MAX),
            nanos: (time % 1_000_000) as i32 * 1000,
        };
        // Loki's names have no dots.
        let pair = |(name, value): (&str, String)| loki::Pair { name: name.replace('.', "_"), value };
        streams[place].entries.push(loki::Line {
            timestamp: Some(timestamp),
            line: record.entry.message().into_owned(),
            structured_metadata: attributes(record).into_iter().map(pair).collect(),
        });
    }
    loki::Push { streams }
}

/// Labels in Loki's syntax: values are Go string literals.
fn selector(labels: &[(&str, &str)]) -> String {
    let mut text = String::from("{");
    for (i, (name, value)) in labels.iter().enumerate() {
        text.push_str(if i > 0 { ", " } else { "" });
        _ = write!(text, "{name}=\"");
        for c in value.chars() {
            match c {
                '"' | '\\' => text.extend(['\\', c]),
                c if c.is_control() => _ = write!(text, "\\u{:04x}", c as u32),
                c => text.push(c),
            }
        }
        text.push('"');
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::super::entry::tests::entry;
    use super::super::known::{Label, NamedGpu};
    use super::super::severity::Severity;
    use super::*;
    use crate::gpu::sample::Identity as GpuId;

    fn record(unit: &str, message: &str, model: Option<&str>) -> Record {
        Record {
            entry: entry(&[("MESSAGE", message), ("_PID", "7"), ("PRIORITY", "6"), ("_COMM", "python3")]),
            unit: unit.into(),
            container: false,
            severity: Severity::Info,
            model: model.map(|model| Arc::new(Label { model: model.to_owned(), port: 11403 })),
            gpu: None,
        }
    }

    fn identity() -> Identity {
        Identity { host: "gpu\"1".to_owned(), job: "citadel-agent".to_owned() }
    }

    #[test]
    fn otlp_has_a_resource_for_each_unit_and_the_order_of_the_journal() {
        let records = [
            record("a.service", "one", Some("phi3")),
            record("b.service", "x", None),
            record("a.service", "two", Some("phi3")),
        ];
        let mut records = records;
        let id = GpuId { uuid: "GPU-1".to_owned(), index: 1, ..Default::default() };
        records[0].gpu = Some(NamedGpu { pci: "0000:3b:00.0".to_owned(), id: Some(Arc::new(id)) });
        let body = body(&records, Format::Otlp, &identity()).unwrap();
        let mut message = Vec::new();
        flate2::read::GzDecoder::new(body.as_slice()).read_to_end(&mut message).unwrap();
        let request = otlp::Request::decode(message.as_slice()).unwrap();
        let value = |pairs: &[otlp::KeyValue], key: &str| {
            pairs.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.clone()?.value)
        };
        let text = |text: &str| Some(otlp::Value::Text(text.to_owned()));
        assert_eq!(request.resource_logs.len(), 2);
        let phi3 = &request.resource_logs[0];
        let resource = &phi3.resource.as_ref().unwrap().attributes;
        assert_eq!(value(resource, "service.name"), text("phi3"));
        assert_eq!(value(resource, "systemd.unit"), text("a.service"));
        assert_eq!(value(resource, "host.name"), text("gpu\"1"));
        let lines = &phi3.scope_logs[0].log_records;
        let said: Vec<_> = lines.iter().map(|line| line.body.clone().unwrap().value).collect();
        assert_eq!(said, [text("one"), text("two")]);
        assert_eq!((lines[0].time_unix_nano, lines[0].severity_number), (1_700_000_000_000_000_000, 9));
        assert_eq!(value(&lines[0].attributes, "model"), text("phi3"));
        assert_eq!(value(&lines[0].attributes, "server.port"), Some(otlp::Value::Integer(11403)));
        assert_eq!(value(&lines[0].attributes, "gpu"), text("GPU-1"));
        assert_eq!(value(&lines[0].attributes, "gpu.index"), Some(otlp::Value::Integer(1)));
        assert_eq!(value(&lines[0].attributes, "gpu.pci"), text("0000:3b:00.0"));
        assert_eq!(value(&lines[1].attributes, "gpu"), None);
        assert_eq!(value(&lines[0].attributes, "log.record.uid"), text("s=ab;i=1f;b=cd;m=1;t=2;x=3"));
        assert_eq!(
            value(&request.resource_logs[1].resource.as_ref().unwrap().attributes, "service.name"),
            text("b.service")
        );
    }

    #[test]
    fn loki_has_a_stream_for_each_unit_and_severity() {
        let mut records = vec![
            record("a.service", "one", Some("phi3")),
            record("a.service", "bad", None),
            record("a.service", "two", None),
        ];
        records[1].severity = Severity::Error;
        let body = body(&records, Format::Loki, &identity()).unwrap();
        let push = loki::Push::decode(snap::raw::Decoder::new().decompress_vec(&body).unwrap().as_slice()).unwrap();
        let labels: Vec<_> = push.streams.iter().map(|stream| stream.labels.as_str()).collect();
        let with = |severity: &str| {
            format!("{{host=\"gpu\\\"1\", job=\"citadel-agent\", unit=\"a.service\", severity=\"{severity}\"}}")
        };
        assert_eq!(labels, [with("info"), with("error")]);
        let lines: Vec<_> = push.streams[0].entries.iter().map(|line| line.line.as_str()).collect();
        assert_eq!(lines, ["one", "two"]);
        let first = &push.streams[0].entries[0];
        assert_eq!(first.timestamp, Some(Timestamp { seconds: 1_700_000_000, nanos: 0 }));
        assert!(
            first
                .structured_metadata
                .contains(&loki::Pair { name: "server_port".to_owned(), value: "11403".to_owned() })
        );
        // By which the dashboard finds a model's lines.
        assert!(first.structured_metadata.contains(&loki::Pair { name: "model".to_owned(), value: "phi3".to_owned() }));
    }

    #[test]
    fn the_journals_format_is_the_entry_as_it_is() {
        let records = [record("a.service", "two\nlines", None)];
        let body = body(&records, Format::Journal, &identity()).unwrap();
        let read = super::super::export::Parser::default().next(&mut body.as_slice()).unwrap().unwrap();
        assert_eq!(read, records[0].entry.fields);
    }
}
