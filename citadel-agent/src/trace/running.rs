//! Requests in flight as clients of the control socket and the page get them. Pure.

use std::net::SocketAddr;

use citadel_agent_common::abi::{Endpoint, Phase};
use serde::{Deserialize, Serialize};

use super::request::{NS, Request, socket_address};
use crate::ebpf::in_flight::InFlightRequest;

/// Requests in flight that are listed of a model: the oldest.
const LISTED: usize = 20;

/// Single requests of a model.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ModelRequests {
    /// Name of the model.
    pub model: String,
    /// Its port.
    pub port: u16,
    /// How many are in flight. `None`: not measured.
    pub in_flight: Option<usize>,
    /// The oldest of them, the oldest first; at most 20.
    pub running: Vec<RunningRequest>,
    /// The slowest finished requests of the last hour, the slowest first; at most 10. Aborted ones and errors of the server are not
    /// among them.
    pub slowest: Vec<Request>,
}

/// A request in flight. Durations are in seconds.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RunningRequest {
    /// The client's address, unless `ebpf.client_addresses` is false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<SocketAddr>,
    /// As the label `endpoint` of the metrics.
    pub endpoint: String,
    /// How far it is, as the label `phase` of `citadel_model_requests_aborted_total`: `request` while it arrives, `waiting` for the
    /// first byte of the response, then `headers`, `streaming`, `body` or `error`.
    pub phase: String,
    /// Since its first byte arrived.
    pub elapsed: f64,
    /// Since the last byte of the response, or of the request if there is none yet. `None` while the request arrives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<f64>,
    /// Events with output that were sent so far. `None` if the response is not streamed, or has not begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<u32>,
}

impl RunningRequest {
    pub(super) fn of(request: &InFlightRequest, addresses: bool) -> Self {
        let InFlightRequest { running, client, now_ns } = request;
        let since = |ns: u64| now_ns.saturating_sub(ns) as f64 * NS;
        let streamed = matches!(running.phase, Phase::Streaming | Phase::Error);
        Self {
            client: addresses.then(|| socket_address(client.address, client.port)).flatten(),
            endpoint: Endpoint::ALL
                .get(running.endpoint as usize)
                .copied()
                .unwrap_or(Endpoint::Other)
                .label()
                .to_owned(),
            phase: running.phase.label().to_owned(),
            elapsed: since(running.first_ns),
            waiting: running.waits_since_ns.map(since),
            events: streamed.then_some(running.outputs),
        }
    }
}

/// The oldest requests of a model, and how many there are.
#[derive(Debug, Default)]
pub(super) struct Oldest {
    count: usize,
    /// The oldest first.
    requests: Vec<InFlightRequest>,
}

impl Oldest {
    pub(super) fn add(&mut self, request: &InFlightRequest) {
        self.count += 1;
        let at = self.requests.partition_point(|other| other.running.first_ns <= request.running.first_ns);
        if at < LISTED {
            self.requests.insert(at, *request);
            self.requests.truncate(LISTED);
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn requests(&self, addresses: bool) -> Vec<RunningRequest> {
        self.requests.iter().map(|request| RunningRequest::of(request, addresses)).collect()
    }
}

impl ModelRequests {
    /// Without what may identify a person: addresses of clients, and the IDs that they sent.
    pub(super) fn anonymous(mut self) -> Self {
        for request in &mut self.running {
            request.client = None;
        }
        for request in &mut self.slowest {
            (request.client, request.trace_id, request.request_id) = (None, None, None);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use citadel_agent_common::connection::Client;
    use citadel_agent_common::http::conn::Running;

    use super::*;
    use crate::trace::request::tests::ended;

    fn in_flight(first_ns: u64, phase: Phase, waits_since_ns: Option<u64>, outputs: u32) -> InFlightRequest {
        let endpoint = Endpoint::ChatCompletions as u32;
        let v4 = [0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes([10, 1, 2, 3])];
        InFlightRequest {
            running: Running { first_ns, waits_since_ns, endpoint, phase, outputs },
            client: Client::new(v4, 51234),
            now_ns: 10_000_000_000,
        }
    }

    #[test]
    fn each_phase_has_what_is_known_in_it() {
        let arriving = RunningRequest::of(&in_flight(9_000_000_000, Phase::Request, None, 0), true);
        assert_eq!((arriving.elapsed, arriving.waiting, arriving.events), (1.0, None, None));
        assert_eq!(arriving.client, Some("10.1.2.3:51234".parse().unwrap()));
        let waiting = RunningRequest::of(&in_flight(0, Phase::Waiting, Some(2_000_000_000), 0), false);
        assert_eq!((waiting.elapsed, waiting.waiting, waiting.events), (10.0, Some(8.0), None));
        assert_eq!((waiting.client, waiting.phase.as_str()), (None, "waiting"));
        let streaming = RunningRequest::of(&in_flight(0, Phase::Streaming, Some(11_000_000_000), 7), true);
        assert_eq!((streaming.waiting, streaming.events), (Some(0.0), Some(7)), "a byte after the clock was read");
    }

    #[test]
    fn the_oldest_are_listed_and_all_are_counted() {
        let mut oldest = Oldest::default();
        for n in 0..1000 {
            oldest.add(&in_flight(n * 37 % 1000, Phase::Waiting, None, 0));
        }
        let firsts: Vec<_> = oldest.requests.iter().map(|request| request.running.first_ns).collect();
        assert_eq!((oldest.count(), firsts), (1000, (0..20).collect()));
    }

    #[test]
    fn nothing_of_the_clients_is_left() {
        let mut slow = Request::of(&ended(1, 2, 200), "m");
        slow.trace_id = Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned());
        slow.request_id = Some("alice".to_owned());
        let requests = ModelRequests {
            running: vec![RunningRequest::of(&in_flight(0, Phase::Waiting, None, 0), true)],
            slowest: vec![slow],
            ..ModelRequests::default()
        };
        let text = serde_json::to_string(&requests.anonymous()).unwrap();
        for part in ["10.1.2.3", "client", "alice", "4bf9", "_id"] {
            assert!(!text.contains(part), "{part} in {text}");
        }
    }
}
