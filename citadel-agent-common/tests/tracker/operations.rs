//! Anything that can happen to a connection, in any order. The fuzz target uses this file too.

use citadel_agent_common::abi::Side;

use crate::recorder::Tracked;

/// Something that happens.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    /// A segment from the client, so many bytes after (or before) what it has sent so far.
    Client { offset: i16, bytes: Vec<u8> },
    /// A segment from the server; what it acknowledges lies so many bytes after what the client has sent so far.
    Server { offset: i16, ack: i16, bytes: Vec<u8> },
    /// The same, but the programs have steps for a part of it only.
    Overrun { offset: i16, ack: i16, bytes: Vec<u8> },
    /// The client sends FIN or RST.
    ClientEnds,
    /// The connection ends.
    Close { orderly: bool, otherwise: Side },
}

/// How the connection begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beginning {
    pub(crate) client_seq: u32,
    pub(crate) server_seq: u32,
    /// It was open before anyone looked.
    pub(crate) joined: bool,
    /// The handshake was seen.
    pub(crate) handshake: bool,
}

/// Sequence numbers that one direction has used, counted from its first.
#[derive(Default)]
struct Sent {
    end: i64,
    /// What the tracker takes as the beginning.
    first: Option<i64>,
}

impl Sent {
    fn place(&mut self, offset: i16, len: usize) -> u32 {
        let start = self.end + i64::from(offset);
        self.first.get_or_insert(start);
        self.end = self.end.max(start + len as i64);
        start as u32
    }

    fn most(&self) -> u64 {
        self.first.map_or(0, |first| (self.end - first).try_into().expect("the end is not before the first"))
    }
}

/// Lets all of it happen.
///
/// # Panics
/// If what holds of every connection does not.
pub(crate) fn perform(beginning: Beginning, operations: &[Operation]) -> Tracked {
    let Beginning { client_seq, server_seq, joined, handshake } = beginning;
    let mut tracked = if joined { Tracked::joined() } else { Tracked::new() };
    let (mut client, mut server) = (Sent::default(), Sent::default());
    if handshake {
        tracked.expect_first(client_seq);
        client.first = Some(0);
    }
    let mut closed = false;
    for (now, operation) in (1u64..).zip(operations) {
        match operation {
            // See `findings` for a server that sends after the end.
            Operation::Server { .. } | Operation::Overrun { .. } if closed => {}
            Operation::Client { bytes, .. } | Operation::Server { bytes, .. } | Operation::Overrun { bytes, .. }
                if bytes.is_empty() => {}
            Operation::Client { offset, bytes } => {
                let seq = client_seq.wrapping_add(client.place(*offset, bytes.len()));
                tracked.client(seq, bytes, now);
            }
            Operation::Server { offset, ack, bytes } => {
                let ack = client_seq.wrapping_add((client.end + i64::from(*ack)) as u32);
                let seq = server_seq.wrapping_add(server.place(*offset, bytes.len()));
                tracked.server(seq, bytes, ack, now);
            }
            Operation::Overrun { offset, ack, bytes } => {
                let ack = client_seq.wrapping_add((client.end + i64::from(*ack)) as u32);
                let seq = server_seq.wrapping_add(server.place(*offset, bytes.len()));
                tracked.overrun::<1>(seq, bytes, ack, now);
            }
            Operation::ClientEnds => tracked.client_ends(),
            Operation::Close { orderly, otherwise } => {
                closed = true;
                tracked.close(*orderly, *otherwise, now);
                assert_eq!(tracked.under_way(), 0, "nothing is under way on a closed connection");
            }
        }
        tracked.check();
        let counted = tracked.bytes();
        let most = [client.most(), server.most()];
        assert!(counted[0] <= most[0] && counted[1] <= most[1], "counted {counted:?} of {most:?} bytes");
    }
    tracked
}
