//! Models: counts of the `net` programs per port, with the models' names.

use std::iter;

use citadel_agent_common::abi::{EndpointStats, Latency, ModelStats, Phase, Protocol, Side, TokenStats, counter};

use super::{Origin, Outcome, Reading};
use crate::discovery::inventory::Model;
use crate::ebpf::families::Families;
use crate::ebpf::family::Family;
use crate::ebpf::in_flight::{Ages, InFlight};
use crate::ebpf::mapped::MapEntry;
use crate::metrics::catalogue::models::{
    CONNECTIONS, CONNECTIONS_OPEN, INTER_TOKEN_LATENCY, LONGEST_WAIT, OLDEST_REQUEST, RECEIVE_QUEUE, REQUEST_BYTES,
    REQUEST_COMPLETION_TOKENS, REQUEST_DURATION, REQUEST_PROMPT_TOKENS, REQUESTS, REQUESTS_ABORTED, REQUESTS_IN_FLIGHT,
    REQUESTS_WITH_USAGE, REQUESTS_WITHOUT_USAGE, RESPONSE_BYTES, STREAM_CHUNKS, STREAM_EVENTS, STREAM_UNSEEN_BYTES,
    STREAMS_UNREAD, TCP_RETRANSMITS, TCP_RTT, TIME_TO_FIRST_BYTE, TIME_TO_FIRST_CHUNK, TIME_TO_FIRST_TOKEN, TOKENS,
};
use crate::metrics::family::{Page, Value};

pub(super) const PROTOCOLS: [(Protocol, &str); 5] = [
    (Protocol::Http1, "http1"),
    (Protocol::Http2, "http2"),
    (Protocol::Other, "other"),
    (Protocol::Tls, "tls"),
    (Protocol::Upgraded, "upgraded"),
];

pub(super) fn read(origin: &mut Origin<'_>, page: &mut Page) -> Reading {
    page.began = origin.families.began(Family::Net);
    let Families { net: Some(net), slots, .. } = origin.families else { return Ok(Outcome::Absent) };
    // Without them the rest is as true.
    let (ages, failed) = match net.in_flight().map(InFlight::ages).transpose() {
        Ok(ages) => (ages, None),
        Err(error) => (None, Some(error)),
    };
    for Model { name: model, port, .. } in origin.inventory.in_page_order() {
        let port = *port;
        let Some(slot) = slots.get(port) else { continue };
        let Some(stats) = net.model(slot) else { continue };
        let port_label = port.to_string();
        add_model(page, [model, &port_label], stats, net.older_connections(port));
        if let Some(ages) = &ages {
            let Ages { oldest_ns, longest_wait_ns } = ages.get(&slot).copied().unwrap_or_default();
            page.add(&OLDEST_REQUEST, [model, &port_label], Value::Float(oldest_ns as f64 * 1e-9));
            page.add(&LONGEST_WAIT, [model, &port_label], Value::Float(longest_wait_ns as f64 * 1e-9));
        }
        if let Some(histogram) = net.receive_queue(slot) {
            page.add(&RECEIVE_QUEUE, [model, &port_label], Value::Histogram(histogram));
        }
        if stats.counter(counter::BEGUN) > 0 {
            if let Some(tokens) = net.tokens(slot) {
                add_tokens(page, [model, &port_label], stats, tokens);
            }
            for (endpoint, stats) in net.endpoints(slot)? {
                add_endpoint(page, [model, &port_label, endpoint.label()], stats);
            }
        }
    }
    match failed {
        Some(error) => Ok(Outcome::Partly(format!("cannot read the requests in flight: {error}").into())),
        None => Ok(Outcome::Read),
    }
}

/// Metrics that a model has even without requests.
fn add_model(page: &mut Page, labels: [&str; 2], stats: MapEntry<'_, ModelStats>, older_connections: u64) {
    let count = |index: usize| stats.counter(index);
    // The two numbers are read one after the other while both grow: never negative.
    let difference = |more: usize, less: usize| count(more).saturating_sub(count(less));
    page.add(&REQUESTS_IN_FLIGHT, labels, Value::Integer(difference(counter::BEGUN, counter::ENDED)));
    page.add(&REQUEST_BYTES, labels, Value::Integer(count(counter::REQUEST_BYTES)));
    page.add(&RESPONSE_BYTES, labels, Value::Integer(count(counter::RESPONSE_BYTES)));
    let open = difference(counter::OPENED, counter::CLOSED) + older_connections;
    page.add(&CONNECTIONS_OPEN, labels, Value::Integer(open));
    page.add(&TCP_RETRANSMITS, labels, Value::Integer(count(counter::RETRANSMITS)));
    let [model, port] = labels;
    for (protocol, name) in PROTOCOLS {
        page.add(&CONNECTIONS, [model, port, name], Value::Integer(count(counter::PROTOCOLS + protocol as usize)));
    }
    if let Some(histogram) = stats.rtt() {
        page.add(&TCP_RTT, labels, Value::Histogram(histogram));
    }
}

/// What responses stated about their tokens, as far as any did.
fn add_tokens(page: &mut Page, labels: [&str; 2], stats: MapEntry<'_, ModelStats>, tokens: MapEntry<'_, TokenStats>) {
    let [model, port] = labels;
    for (desc, index) in
        [(&REQUESTS_WITH_USAGE, counter::USAGE_STATED), (&REQUESTS_WITHOUT_USAGE, counter::USAGE_MISSING)]
    {
        let count = stats.counter(index);
        if count > 0 {
            page.add(desc, labels, Value::Integer(count));
        }
    }
    let kinds = [
        ("prompt", &REQUEST_PROMPT_TOKENS, tokens.prompt()),
        ("completion", &REQUEST_COMPLETION_TOKENS, tokens.completion()),
    ];
    for (kind, desc, histogram) in kinds {
        let Some(histogram) = histogram else { continue };
        page.add(&TOKENS, [model, port, kind], Value::Integer(histogram.sum()));
        page.add(desc, labels, Value::Histogram(histogram));
    }
    if stats.counter(counter::CACHED_STATED) > 0 {
        page.add(&TOKENS, [model, port, "cached"], Value::Integer(stats.counter(counter::CACHED_TOKENS)));
    }
}

/// Metrics of an endpoint after its first request.
fn add_endpoint(page: &mut Page, labels: [&str; 3], stats: MapEntry<'_, EndpointStats>) {
    let [model, port, endpoint] = labels;
    for code in iter::once(EndpointStats::SWITCHING).chain(EndpointStats::CODES) {
        let count = stats.counter(EndpointStats::requests(code));
        if count > 0 {
            page.add(&REQUESTS, [model, port, endpoint, &code.to_string()], Value::Integer(count));
        }
    }
    let invalid = stats.counter(EndpointStats::requests(0));
    if invalid > 0 {
        page.add(&REQUESTS, [model, port, endpoint, "invalid"], Value::Integer(invalid));
    }
    for side in Side::ALL {
        for phase in Phase::ALL {
            let count = stats.counter(EndpointStats::aborted(side as u32, phase as u32));
            if count > 0 {
                let labels = [model, port, endpoint, side.label(), phase.label()];
                page.add(&REQUESTS_ABORTED, labels, Value::Integer(count));
            }
        }
    }
    let chunks = stats.counter(EndpointStats::CHUNKS);
    if chunks > 0 {
        page.add(&STREAM_CHUNKS, labels, Value::Integer(chunks));
    }
    let events = [(EndpointStats::EVENTS_WITH_OUTPUT, "content"), (EndpointStats::EVENTS_WITHOUT, "other")];
    for (index, kind) in events {
        let count = stats.counter(index);
        if count > 0 {
            page.add(&STREAM_EVENTS, [model, port, endpoint, kind], Value::Integer(count));
        }
    }
    let unread = stats.counter(EndpointStats::UNREAD);
    if unread > 0 {
        page.add(&STREAMS_UNREAD, labels, Value::Integer(unread));
    }
    let unseen = stats.counter(EndpointStats::UNSEEN_BYTES);
    if unseen > 0 {
        page.add(&STREAM_UNSEEN_BYTES, labels, Value::Integer(unseen));
    }
    for (latency, response) in [(Latency::FirstByte, "plain"), (Latency::FirstByteOfStream, "stream")] {
        if let Some(histogram) = stats.latency(latency) {
            page.add(&TIME_TO_FIRST_BYTE, [model, port, endpoint, response], Value::Histogram(histogram));
        }
    }
    for (latency, outcome) in [
        (Latency::Duration, "success"),
        (Latency::DurationOfClientError, "client_error"),
        (Latency::DurationOfServerError, "server_error"),
    ] {
        if let Some(histogram) = stats.latency(latency) {
            page.add(&REQUEST_DURATION, [model, port, endpoint, outcome], Value::Histogram(histogram));
        }
    }
    for (latency, desc) in [
        (Latency::FirstChunk, &TIME_TO_FIRST_CHUNK),
        (Latency::FirstToken, &TIME_TO_FIRST_TOKEN),
        (Latency::InterToken, &INTER_TOKEN_LATENCY),
    ] {
        if let Some(histogram) = stats.latency(latency) {
            page.add(desc, labels, Value::Histogram(histogram));
        }
    }
}
