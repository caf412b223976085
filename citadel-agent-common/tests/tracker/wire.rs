//! How the bytes of a conversation travel: cut into segments, in time, some of them more than once.

use std::ops::Range;

use proptest::prelude::*;

use crate::conversation::Conversation;
use crate::recorder::Tracked;

/// Sizes of segments, used in turn.
pub(crate) fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        1 => Just(vec![1]),
        1 => Just(vec![usize::MAX]),
        3 => prop::collection::vec(1usize..12, 1..12),
        3 => prop::collection::vec(prop_oneof![1usize..12, 8usize..400], 1..12),
    ]
}

/// First sequence numbers; half of them so that they wrap around soon.
pub(crate) fn seq() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), (0u32..2000).prop_map(|before| u32::MAX - before)]
}

/// Choices that make a wire out of a conversation. Each list is used in turn, from its beginning again at its end.
#[derive(Clone, Debug)]
pub(crate) struct Choices {
    pub(crate) client_sizes: Vec<usize>,
    pub(crate) server_sizes: Vec<usize>,
    /// Whose turn it is, where both could send.
    pub(crate) client_first: Vec<bool>,
    /// Time from one segment to the next.
    pub(crate) gaps: Vec<u64>,
    /// How many bytes before a segment are sent again with it.
    pub(crate) again: Vec<usize>,
    /// Requests are sent before earlier ones are answered.
    pub(crate) pipelined: bool,
    pub(crate) client_seq: u32,
    pub(crate) server_seq: u32,
}

/// Choices with or without retransmitted bytes.
pub(crate) fn choices(retransmits: bool) -> impl Strategy<Value = Choices> {
    let again = if retransmits { 1usize..300 } else { 0..1 };
    let again = prop::collection::vec(prop_oneof![2 => Just(0), 1 => again], 1..8);
    (
        (sizes(), sizes()),
        prop::collection::vec(any::<bool>(), 1..8),
        prop::collection::vec(1u64..5_000_000, 1..8),
        again,
        any::<bool>(),
        (seq(), seq()),
    )
        .prop_map(|(sizes, client_first, gaps, again, pipelined, seqs)| Choices {
            client_sizes: sizes.0,
            server_sizes: sizes.1,
            client_first,
            gaps,
            again,
            pipelined,
            client_seq: seqs.0,
            server_seq: seqs.1,
        })
}

/// A segment on the wire.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) from_client: bool,
    /// Of the direction's bytes.
    pub(crate) range: Range<usize>,
    pub(crate) now: u64,
    /// Bytes of the other direction that came before.
    acknowledged: usize,
}

/// A conversation on its way.
pub(crate) struct Wire<'a> {
    conversation: &'a Conversation,
    choices: &'a Choices,
    pub(crate) segments: Vec<Segment>,
}

impl<'a> Wire<'a> {
    /// Puts a conversation on the wire: no response before its request, and in order but for bytes that come again.
    pub(crate) fn new(conversation: &'a Conversation, choices: &'a Choices) -> Self {
        let mut segments = Vec::new();
        let mut turns = choices.client_first.iter().cycle();
        let mut gaps = choices.gaps.iter().cycle();
        let mut again = choices.again.iter().cycle();
        let mut sizes = [choices.server_sizes.iter().cycle(), choices.client_sizes.iter().cycle()];
        // Bytes from the server, bytes from the client.
        let mut sent = [0, 0];
        let mut now = 1_000_000_000;
        loop {
            let may = [
                conversation.server_may_send(sent[1]),
                if choices.pipelined { conversation.client.len() } else { conversation.client_may_send(sent[0]) },
            ];
            let from_client = match (may[1] > sent[1], may[0] > sent[0]) {
                (true, true) => *turns.next().unwrap(),
                (false, false) => break,
                (client, _) => client,
            };
            let from = usize::from(from_client);
            let end = sent[from].saturating_add(*sizes[from].next().unwrap()).min(may[from]);
            now += gaps.next().unwrap();
            let back = *again.next().unwrap();
            let begin = sent[from].saturating_sub(back);
            segments.push(Segment { from_client, range: begin..end, now, acknowledged: sent[1 - from] });
            sent[from] = end;
            if back % 3 == 1 {
                // Once more, for nothing.
                segments.push(Segment { from_client, range: begin..end, now: now + 1, acknowledged: sent[1 - from] });
                now += 1;
            }
        }
        let whole = [conversation.server.len(), conversation.client.len()];
        assert_eq!(sent, whole, "the generator made a conversation that cannot end");
        Self { conversation, choices, segments }
    }

    /// Sends some of the segments.
    pub(crate) fn send(&self, tracked: &mut Tracked, segments: Range<usize>) {
        for segment in &self.segments[segments] {
            let Segment { range, now, acknowledged, .. } = segment.clone();
            let (start, acknowledged) = (range.start as u32, acknowledged as u32);
            let Choices { client_seq, server_seq, .. } = *self.choices;
            if segment.from_client {
                tracked.client(client_seq.wrapping_add(start), &self.conversation.client[range], now);
            } else {
                let ack = client_seq.wrapping_add(acknowledged);
                tracked.server(server_seq.wrapping_add(start), &self.conversation.server[range], ack, now);
            }
        }
    }

    /// Sends a segment; if it is the server's, there are not enough steps for all of it.
    pub(crate) fn overrun(&self, tracked: &mut Tracked, at: usize) {
        let Segment { from_client, range, now, .. } = self.segments[at].clone();
        if from_client {
            return self.send(tracked, at..at + 1);
        }
        let seq = self.choices.server_seq.wrapping_add(range.start as u32);
        tracked.overrun::<1>(seq, &self.conversation.server[range], self.choices.client_seq, now);
    }

    /// Sends all of it.
    pub(crate) fn send_all(&self, tracked: &mut Tracked) {
        self.send(tracked, 0..self.segments.len());
    }

    /// When the byte at `position` came first.
    pub(crate) fn time(&self, from_client: bool, position: usize) -> u64 {
        let holds = |segment: &&Segment| segment.from_client == from_client && segment.range.contains(&position);
        self.segments.iter().find(holds).expect("all bytes are sent").now
    }

    /// Bytes sent before segment `index`, from the client and from the server.
    pub(crate) fn sent_before(&self, index: usize) -> [usize; 2] {
        let sent = |from_client| {
            let ours = self.segments[..index].iter().filter(|segment| segment.from_client == from_client);
            ours.map(|segment| segment.range.end).max().unwrap_or(0)
        };
        [sent(true), sent(false)]
    }

    /// The time after everything.
    pub(crate) fn end(&self) -> u64 {
        self.segments.last().map_or(0, |segment| segment.now) + 7
    }
}
