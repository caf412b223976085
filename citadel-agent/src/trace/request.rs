//! A finished request as clients of the control socket get it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use citadel_agent_common::abi::{Endpoint, Phase, Side};
use citadel_agent_common::trace::{COMPLETED, ID, Record, UNKNOWN, flag};
use serde::{Deserialize, Serialize};

use crate::printable::escaped;

/// A record with what only userspace knows.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Kept {
    /// The record.
    pub(super) record: Record,
    /// The model's port.
    pub(super) port: u16,
    /// When it ended, in milliseconds since 1970.
    pub(super) ended_ms: i64,
}

impl Kept {
    /// Duration in nanoseconds.
    pub(super) const fn duration_ns(&self) -> u64 {
        self.record.ended_ns.saturating_sub(self.record.first_ns)
    }

    /// Whether it was aborted, or the response is an error of the server.
    pub(super) const fn failed(&self) -> bool {
        self.record.ended_by != COMPLETED || self.record.code >= 500
    }

    /// Whether it was aborted, or the response is an error.
    pub(super) const fn is_error(&self) -> bool {
        self.record.ended_by != COMPLETED || self.record.code >= 400
    }

    /// The client's address; `None` if it is not kept.
    pub(super) fn client(&self) -> Option<SocketAddr> {
        socket_address(self.record.client, self.record.client_port)
    }

    /// Forgets the client's address.
    pub(super) const fn without_client(mut self) -> Self {
        self.record.client = [0; 4];
        self.record.client_port = 0;
        self
    }

    pub(super) fn endpoint(&self) -> &'static str {
        let endpoint = Endpoint::ALL.get(self.record.endpoint as usize);
        endpoint.copied().unwrap_or(Endpoint::Other).label()
    }
}

/// A finished request. Durations are in seconds; what is absent is not known or did not happen.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Request {
    /// When it ended, in milliseconds since 1970.
    pub ended_ms: i64,
    /// Name of the model.
    pub model: String,
    /// Its port.
    pub port: u16,
    /// The client's address, unless `ebpf.client_addresses` is false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<SocketAddr>,
    /// As the label `endpoint` of the metrics.
    pub endpoint: String,
    /// Status code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u32>,
    /// If it was aborted: by whom, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aborted: Option<Ending>,
    /// From the first byte of the request to its end.
    pub duration: f64,
    /// From the last byte of the request to the first of the response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_to_first_byte: Option<f64>,
    /// Time in the receive queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive_queue: Option<f64>,
    /// Its events, if the response is streamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Events>,
    /// Bytes of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_bytes: Option<u32>,
    /// Bytes of the response that were sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_bytes: Option<u32>,
    /// TCP segments that the server's host sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retransmits: Option<u32>,
    /// Trace ID from the header `traceparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// The header `X-Request-Id`, if there is no trace ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// By whom a request was aborted, and when: as the labels `side` and `phase` of `citadel_model_requests_aborted_total`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ending {
    /// `client` or `server`.
    pub side: String,
    /// The phase.
    pub phase: String,
}

/// The events with output of a streamed response.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Events {
    /// How many.
    pub count: u32,
    /// From the last byte of the request to the first event.
    pub time_to_first_token: f64,
    /// The longest time between two of them.
    pub longest_gap: f64,
    /// When it ended: seconds after the first byte of the request. 0 if there was only one event.
    pub longest_gap_at: f64,
}

/// An answer to [`Order::Trace`](crate::control::Order::Trace).
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Requests {
    /// The requests, in the order in which they ended.
    pub requests: Vec<Request>,
    /// What to ask for next: `since` of the next order.
    pub next: u64,
    /// Requests that had been dropped from the agent's memory before they were asked for.
    pub missed: u64,
    /// Requests that the kernel could not record since the agent started, because the ring buffer was full.
    pub lost: u64,
}

/// Seconds.
pub(super) const NS: f64 = 1e-9;

/// An address as the programs write it; `None` if it is not known.
pub(super) fn socket_address(address: [u32; 4], port: u32) -> Option<SocketAddr> {
    let bytes = address.map(u32::to_ne_bytes).concat();
    let address = Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?);
    let port = u16::try_from(port).ok()?;
    (!address.is_unspecified()).then(|| SocketAddr::new(IpAddr::V6(address).to_canonical(), port))
}

impl Request {
    /// The request of a record.
    pub(super) fn of(kept: &Kept, model: &str) -> Self {
        let record = &kept.record;
        let seconds = |from: u64, to: u64| to.saturating_sub(from) as f64 * NS;
        let detailed = record.flags & flag::DETAILS != 0;
        let known = |value: u32| detailed.then_some(value);
        let id = (detailed && record.id_len > 0).then(|| id(record));
        let traced = record.flags & flag::TRACE_ID != 0;
        let streamed = detailed && record.flags & flag::EVENTS != 0;
        Self {
            ended_ms: kept.ended_ms,
            model: model.to_owned(),
            port: kept.port,
            client: kept.client(),
            endpoint: kept.endpoint().to_owned(),
            code: (record.code > 0).then_some(record.code),
            aborted: (record.ended_by != COMPLETED).then(|| Ending {
                side: Side::ALL.get(record.ended_by as usize - 1).map_or("", |side| side.label()).to_owned(),
                phase: Phase::ALL.get(record.phase as usize).map_or("", |phase| phase.label()).to_owned(),
            }),
            duration: kept.duration_ns() as f64 * NS,
            time_to_first_byte: (record.answered_ns > 0).then(|| seconds(record.complete_ns, record.answered_ns)),
            receive_queue: (detailed && record.queued_ns != UNKNOWN).then_some(record.queued_ns as f64 * NS),
            events: streamed.then(|| Events {
                count: record.events,
                time_to_first_token: record.token_ns as f64 * NS,
                longest_gap: record.gap_ns as f64 * NS,
                longest_gap_at: if record.gap_at_ns > 0 { seconds(record.first_ns, record.gap_at_ns) } else { 0.0 },
            }),
            request_bytes: known(record.request_bytes),
            response_bytes: known(record.response_bytes),
            retransmits: known(record.retransmits),
            trace_id: id.clone().filter(|id| traced && is_trace_id(id)),
            request_id: id.filter(|id| !traced && !id.is_empty()),
        }
    }
}

/// The ID as text: it comes from a client.
fn id(record: &Record) -> String {
    let bytes = record.id.map(u64::to_le_bytes).concat();
    let length = (record.id_len as usize).min(ID);
    escaped(String::from_utf8_lossy(&bytes[..length]).trim()).into_owned()
}

/// W3C Trace Context, section 3.2.2.3: lower-case hexadecimal, not all zero.
fn is_trace_id(id: &str) -> bool {
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    id.len() == 32 && id.bytes().all(hex) && id.bytes().any(|byte| byte != b'0')
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A request that took this long and ended at this time with this code.
    pub(in crate::trace) fn ended(ended_ms: i64, duration_ns: u64, code: u32) -> Kept {
        let first_ns = 1_000_000_000_000;
        let record = Record {
            ended_ns: first_ns + duration_ns,
            first_ns,
            complete_ns: first_ns,
            answered_ns: first_ns + duration_ns,
            token_ns: 0,
            gap_ns: 0,
            gap_at_ns: 0,
            queued_ns: UNKNOWN,
            request_bytes: 0,
            response_bytes: 0,
            retransmits: 0,
            events: 0,
            id: [0; ID / 8],
            id_len: 0,
            flags: 0,
            client: [0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes([10, 1, 2, 3])],
            client_port: 51234,
            slot: 0,
            endpoint: Endpoint::ChatCompletions as u32,
            code,
            ended_by: COMPLETED,
            phase: 0,
        };
        Kept { record, port: 11401, ended_ms }
    }

    #[test]
    fn what_is_not_known_is_absent() {
        let mut kept = ended(5, 2_000_000_000, 200);
        // Left over in the ring buffer.
        (kept.record.request_bytes, kept.record.id_len, kept.record.events) = (7, 9, 3);
        let request = Request::of(&kept, "m");
        assert_eq!((request.duration, request.time_to_first_byte), (2.0, Some(2.0)));
        assert_eq!(
            (request.request_bytes, request.events, request.request_id, request.receive_queue),
            (None, None, None, None)
        );
        assert_eq!(request.client, Some("10.1.2.3:51234".parse().unwrap()));
        assert_eq!(Request::of(&kept.without_client(), "m").client, None);
    }

    #[test]
    fn an_id_from_a_client_is_shown_without_what_could_harm_a_terminal() {
        let mut kept = ended(5, 1, 200);
        kept.record.flags = flag::DETAILS;
        let mut with = |bytes: &[u8]| {
            kept.record.id = [0; ID / 8];
            for (i, byte) in bytes.iter().enumerate() {
                kept.record.id[i / 8] |= u64::from(*byte) << (i % 8 * 8);
            }
            kept.record.id_len = bytes.len() as u32;
            Request::of(&kept, "m")
        };
        assert_eq!(with(b"abc-1").request_id.unwrap(), "abc-1");
        assert_eq!(with(b"a\x1b[2Jb\r").request_id.unwrap(), "a\\u{1b}[2Jb");
        assert_eq!(with(b"\xff").request_id.unwrap(), "\u{fffd}");
        assert_eq!(with(b" ").request_id, None);
        kept.record.flags |= flag::TRACE_ID;
        for (id, is) in [("4bf92f3577b34da6a3ce929d0e0e4736", true), ("4BF92F3577B34DA6A3CE929D0E0E4736", false)] {
            kept.record.id = std::array::from_fn(|i| {
                id.as_bytes().get(i * 8..i * 8 + 8).map_or(0, |word| u64::from_le_bytes(word.try_into().unwrap()))
            });
            kept.record.id_len = 32;
            assert_eq!(Request::of(&kept, "m").trace_id.is_some(), is);
        }
    }
}
