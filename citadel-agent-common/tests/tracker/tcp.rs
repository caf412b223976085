//! Segments as TCP delivers them: out of order and more than once, until all have come.

use proptest::collection::vec;
use proptest::prelude::*;

use citadel_agent_common::abi::{Lost, Side};

use crate::conversation::{Bodies, Conversation, conversations, uploads};
use crate::recorder::{Observation, Tracked};
use crate::reference::{Request, requests, responses, truth};
use crate::wire::{seq, sizes};

/// Ranges that came early and that a connection is to remember.
const EARLY: usize = 4;

/// Delivers a conversation without pipelining, the client's segments in any order.
struct Delivery<'a> {
    conversation: &'a Conversation,
    tracked: Tracked,
    seqs: [u32; 2],
    now: u64,
    /// When each byte of the client had come together with all before it; `None` past the first gap.
    client_times: Vec<Option<u64>>,
    client_has: Vec<bool>,
    server_times: Vec<u64>,
}

impl<'a> Delivery<'a> {
    fn new(conversation: &'a Conversation, seqs: [u32; 2]) -> Self {
        let mut tracked = Tracked::new();
        tracked.expect_first(seqs[0]);
        let client = conversation.client.len();
        let (client_times, client_has) = (vec![None; client], vec![false; client]);
        Self { conversation, tracked, seqs, now: 1000, client_times, client_has, server_times: vec![] }
    }

    fn client(&mut self, from: usize, to: usize) {
        self.now += 3;
        self.tracked.client(self.seqs[0].wrapping_add(from as u32), &self.conversation.client[from..to], self.now);
        self.client_has[from..to].fill(true);
        let together = self.client_has.iter().take_while(|has| **has).count();
        for time in &mut self.client_times[..together] {
            time.get_or_insert(self.now);
        }
        self.tracked.check();
    }

    fn server(&mut self, from: usize, to: usize, acknowledged: usize) {
        self.now += 5;
        let [client, server] = self.seqs;
        let ack = client.wrapping_add(acknowledged as u32);
        self.tracked.server(server.wrapping_add(from as u32), &self.conversation.server[from..to], ack, self.now);
        self.server_times.resize(to, self.now);
        self.tracked.check();
    }

    /// Whether the tracker surely has room for one more of the segments that came: each can take a place of its own (see
    /// `findings`) until all before it has come.
    fn has_room(&self, came: &[(usize, usize)]) -> bool {
        let next = self.client_times.iter().position(Option::is_none).unwrap_or(self.client_times.len());
        came.iter().filter(|&&(_, to)| to > next).count() < EARLY
    }

    /// Delivers segments, `order` says which of those left comes next; never more early ranges than are remembered.
    fn shuffled(&mut self, segments: &[(usize, usize)], order: &mut impl Iterator<Item = usize>) {
        let mut left = segments.to_vec();
        let mut came = vec![];
        while !left.is_empty() {
            let choice = order.next().expect("endless");
            if choice.is_multiple_of(4) && !came.is_empty() && self.has_room(&came) {
                // A retransmission of what had come.
                let (from, to) = came[choice / 4 % came.len()];
                self.client(from, to);
                came.push((from, to));
            }
            let at = if self.has_room(&came) { choice % left.len() } else { 0 };
            let segment = left.remove(at);
            self.client(segment.0, segment.1);
            came.push(segment);
        }
    }

    fn time(&self, from_client: bool, at: usize) -> u64 {
        if from_client { self.client_times[at].expect("all has come") } else { self.server_times[at] }
    }
}

/// Segments of `range` of these sizes; none begins inside a request line, whose rest could be one.
fn segments(range: std::ops::Range<usize>, sizes: &[usize], requests: &[Request]) -> Vec<(usize, usize)> {
    let mut segments = vec![];
    let mut from = range.start;
    for size in sizes.iter().cycle() {
        if from == range.end {
            break;
        }
        let to = from.saturating_add(*size).min(range.end);
        let line = requests.iter().find(|request| request.start < to && to < request.line_end);
        let to = line.map_or(to, |request| request.line_end);
        segments.push((from, to));
        from = to;
    }
    segments
}

fn order() -> impl Strategy<Value = Vec<usize>> {
    vec(0usize..64, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_body_of_known_length_may_come_in_any_order(
        conversation in uploads(3, 1..600),
        sizes in vec(10usize..200, 1..8),
        order in order(),
        seqs in [seq(), seq()],
    ) {
        let requests = requests(&conversation.client);
        let responses = responses(&conversation.server, &requests);
        let mut order = order.into_iter().cycle();
        let mut delivery = Delivery::new(&conversation, seqs);
        for exchange in &conversation.exchanges {
            delivery.client(exchange.request.start, exchange.request_head_end);
            delivery.shuffled(&segments(exchange.request_head_end..exchange.request.end, &sizes, &[]), &mut order);
            delivery.server(exchange.response.start, exchange.response.end, exchange.request.end);
        }
        let expected = truth(|client, at| delivery.time(client, at), &conversation.server, &requests, &responses, 0);
        prop_assert_eq!(delivery.tracked.by_direction(), expected);
        let sent = [conversation.client.len() as u64, conversation.server.len() as u64];
        prop_assert_eq!(delivery.tracked.bytes(), sent);
    }

    #[test]
    fn out_of_order_anywhere_loses_requests_but_invents_none(
        conversation in conversations(4, Bodies::Bland),
        sizes in sizes(),
        order in order(),
        seqs in [seq(), seq()],
    ) {
        let requests = requests(&conversation.client);
        let responses = responses(&conversation.server, &requests);
        let mut order = order.into_iter().cycle();
        let mut delivery = Delivery::new(&conversation, seqs);
        let lost = |tracked: &Tracked| tracked.lost(Lost::RequestFraming) + tracked.lost(Lost::ResponseFraming);
        // The request before was read to its end: what is lost while nothing is read is not counted again, and before the
        // first request nothing is known to be HTTP (see `findings`).
        let mut in_step = false;
        for (index, exchange) in conversation.exchanges.iter().enumerate() {
            let before = (delivery.tracked.observed().count(), lost(&delivery.tracked));
            delivery.shuffled(&segments(exchange.request.clone(), &sizes, &requests), &mut order);
            delivery.server(exchange.response.start, exchange.response.end, exchange.request.end);
            if responses[index].until_close {
                delivery.tracked.close(true, Side::Server, delivery.now);
            }
            let new: Vec<_> = delivery.tracked.observed().skip(before.0).collect();
            let ended: Vec<_> = new.iter().filter(|seen| matches!(seen, Observation::Completed { .. })).copied().collect();
            let begun = new.iter().filter(|seen| **seen == Observation::Begun).count();
            let right = Observation::Completed { endpoint: requests[index].endpoint, code: responses[index].code };
            match begun {
                0 => prop_assert!(
                    ended.is_empty() && (!in_step || lost(&delivery.tracked) > before.1),
                    "a lost request is said to be lost: {new:?}"
                ),
                1 => prop_assert_eq!(ended, [right]),
                _ => prop_assert!(false, "invented: {:?}", new),
            }
            in_step = begun == 1 && lost(&delivery.tracked) == before.1;
            prop_assert_eq!(delivery.tracked.under_way(), 0);
        }
        let sent = [conversation.client.len() as u64, conversation.server.len() as u64];
        prop_assert_eq!(delivery.tracked.bytes(), sent);
    }
}

#[test]
fn what_the_server_acknowledges_has_come_although_nobody_saw_it() {
    let head = b"POST /v1/embeddings HTTP/1.1\r\nContent-Length: 1000\r\n\r\n";
    let next = u32::MAX - 500;
    let body = next.wrapping_add(head.len() as u32);
    let mut tracked = Tracked::new();
    tracked.client(next, head, 10);
    tracked.client(body, &[b'x'; 300], 20);
    // 300 bytes are never seen.
    tracked.client(body.wrapping_add(600), &[b'x'; 400], 30);
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    tracked.server(7, response, body.wrapping_add(1000), 40);
    let second = b"GET /health HTTP/1.1\r\n\r\n";
    tracked.client(body.wrapping_add(1000), second, 50);
    tracked.server(7 + response.len() as u32, response, body.wrapping_add(1024), 60);
    tracked.check();
    assert_eq!((tracked.begun(), tracked.under_way()), (2, 0));
    let lost = [Lost::RequestFraming, Lost::ResponseFraming].map(|why| tracked.lost(why));
    assert_eq!(lost, [0, 0]);
    assert_eq!(tracked.bytes()[0], (head.len() + 1000 + second.len()) as u64);
}
