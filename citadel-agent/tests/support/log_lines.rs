//! What a request of logs has, in the order of the request.

use std::io::Read as _;

use citadel_agent::logs::export::Parser;
use citadel_agent::logs::wire::{loki, otlp};
use prost::Message as _;

use super::receiver::Request;

/// One line as it arrived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// What says whose it is: OTLP's resource, Loki's labels, the journal's unit.
    pub stream: String,
    pub text: String,
    /// What else is known of it.
    pub about: Vec<(String, String)>,
}

impl Line {
    pub fn about(&self, name: &str) -> Option<&str> {
        self.about.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// The lines of a request, whatever its format.
pub fn lines(request: &Request) -> Vec<Line> {
    match (request.header("content-type"), request.header("content-encoding")) {
        ("application/vnd.fdo.journal", "") => of_journal(&request.body),
        ("application/x-protobuf", "gzip") => of_otlp(&request.body),
        ("application/x-protobuf", "") => of_loki(&request.body),
        other => panic!("{other:?}"),
    }
}

fn of_journal(body: &[u8]) -> Vec<Line> {
    let (mut parser, mut bytes, mut lines) = (Parser::default(), body, Vec::new());
    while let Some(entry) = parser.next(&mut bytes).unwrap() {
        let text = |name| entry.get(name).map(|value| String::from_utf8_lossy(value).into_owned());
        let about = ["__CURSOR", "__REALTIME_TIMESTAMP", "_PID", "CUSTOM"];
        lines.push(Line {
            stream: text("_SYSTEMD_UNIT").unwrap_or_default(),
            text: text("MESSAGE").unwrap_or_default(),
            about: about.iter().filter_map(|name| Some(((*name).to_owned(), text(name)?))).collect(),
        });
    }
    lines
}

fn of_otlp(body: &[u8]) -> Vec<Line> {
    let mut message = Vec::new();
    flate2::read::GzDecoder::new(body).read_to_end(&mut message).unwrap();
    let request = otlp::Request::decode(message.as_slice()).unwrap();
    let text = |value: Option<otlp::AnyValue>| match value.and_then(|value| value.value) {
        Some(otlp::Value::Text(text)) => text,
        Some(otlp::Value::Integer(number)) => number.to_string(),
        None => String::new(),
    };
    let mut lines = Vec::new();
    for resource in request.resource_logs {
        let attributes = resource.resource.unwrap().attributes;
        let unit = attributes.iter().find(|pair| pair.key.ends_with(".unit") || pair.key == "container.name").unwrap();
        let stream = text(unit.value.clone());
        for record in resource.scope_logs.into_iter().flat_map(|scope| scope.log_records) {
            let mut about: Vec<_> = record.attributes.into_iter().map(|pair| (pair.key, text(pair.value))).collect();
            about.push(("severity".to_owned(), record.severity_text));
            lines.push(Line { stream: stream.clone(), text: text(record.body), about });
        }
    }
    lines
}

fn of_loki(body: &[u8]) -> Vec<Line> {
    let message = snap::raw::Decoder::new().decompress_vec(body).unwrap();
    let push = loki::Push::decode(message.as_slice()).unwrap();
    let of = |stream: loki::Stream| {
        let labels = stream.labels;
        stream.entries.into_iter().map(move |entry| Line {
            stream: labels.clone(),
            text: entry.line,
            about: entry.structured_metadata.into_iter().map(|pair| (pair.name, pair.value)).collect(),
        })
    };
    push.streams.into_iter().flat_map(of).collect()
}
