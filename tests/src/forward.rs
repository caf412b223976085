//! A network between two namespaces that loses, doubles and reorders exactly the segments it is told to.
//!
//! Each namespace has a TUN device; a thread carries the packets from one to the other. Unlike `tc netem` it needs no
//! kernel module and chance has no part in it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::netns::Namespace;
use crate::peer::{Peer, Server};
use crate::truth::monotonic_ns;
use crate::tun;

const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

/// How long a segment waits to be overtaken before it goes on all the same, in nanoseconds.
const LONGEST_HOLD: u64 = 50_000_000;

/// Which way a segment goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From the client: requests.
    ToServer,
    /// From the server: answers.
    ToClient,
}

/// A TCP segment with payload that is seen for the first time. Everything else passes unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment<'a> {
    /// Its way.
    pub way: Way,
    /// Its place among the new segments of its way, from 1.
    pub nth: u64,
    /// What it carries.
    pub payload: &'a [u8],
}

/// What becomes of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It arrives.
    Passes,
    /// It is lost; TCP will send it again, and that passes.
    IsLost,
    /// It arrives twice.
    ComesTwice,
    /// That many later packets of its way arrive before it.
    IsOvertakenBy(u32),
}

/// How many segments were tampered with so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tally {
    /// Lost segments.
    pub lost: u64,
    /// Doubled segments.
    pub doubled: u64,
    /// Segments held back.
    pub overtaken: u64,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    lost: AtomicU64,
    doubled: AtomicU64,
    overtaken: AtomicU64,
}

/// A server's and a client's namespace, and the network between them.
#[derive(Debug)]
pub struct Network {
    server: Namespace,
    client: Namespace,
    shared: Arc<Shared>,
    carrier: Option<JoinHandle<()>>,
}

impl Network {
    /// A network whose packets take `delay_ms` each way and whose new data segments meet the fate that `rule` says.
    ///
    /// # Panics
    /// Without root.
    #[must_use]
    pub fn new(delay_ms: u64, rule: impl FnMut(Segment<'_>) -> Fate + Send + 'static) -> Self {
        let (server, client) = (Namespace::new(), Namespace::new());
        let devices = [server.enter(|| tun::open(SERVER)), client.enter(|| tun::open(CLIENT))];
        let shared = Arc::new(Shared::default());
        let mut carrier = Carrier {
            devices,
            delay: delay_ms * 1_000_000,
            rule,
            lanes: [Lane::default(), Lane::default()],
            shared: Arc::clone(&shared),
        };
        let carrier = thread::spawn(move || carrier.run());
        Self { server, client, shared, carrier: Some(carrier) }
    }

    /// A server on a free port in its namespace.
    #[must_use]
    pub fn bind(&self) -> Server {
        self.server.enter(|| Server::bind_to((SERVER, 0)))
    }

    /// A connection from the client's namespace.
    #[must_use]
    pub fn connect(&self, server: &Server) -> Peer {
        let address = SocketAddr::from((SERVER, server.port()));
        self.client.enter(|| Peer::connect(address))
    }

    /// What was done to the segments.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally {
            lost: self.shared.lost.load(Ordering::Relaxed),
            doubled: self.shared.doubled.load(Ordering::Relaxed),
            overtaken: self.shared.overtaken.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(carrier) = self.carrier.take() {
            // Its panic has already been printed.
            let _ = carrier.join();
        }
    }
}

/// A packet that waits for others to overtake it.
#[derive(Debug)]
struct Held {
    packet: Vec<u8>,
    overtakers: u32,
    deadline: u64,
}

/// One way of the network.
#[derive(Debug, Default)]
struct Lane {
    /// Where each connection's new data begins, by the ports of its segments.
    next: BTreeMap<[u8; 4], u32>,
    /// New data segments so far.
    nth: u64,
    held: Vec<Held>,
    /// Packets under way by when they arrive, and their order.
    under_way: BTreeMap<(u64, u64), Vec<u8>>,
    order: u64,
}

impl Lane {
    fn send(&mut self, packet: Vec<u8>, arrives: u64) {
        self.order += 1;
        self.under_way.insert((arrives, self.order), packet);
    }

    /// Sends held packets that were overtaken often enough or wait too long.
    fn release(&mut self, now: u64, delay: u64, overtaken: bool) {
        for held in &mut self.held {
            held.overtakers = held.overtakers.saturating_sub(u32::from(overtaken));
        }
        let ready = self.held.extract_if(.., |held| held.overtakers == 0 || held.deadline <= now);
        for held in ready.collect::<Vec<_>>() {
            self.send(held.packet, now + delay);
        }
    }
}

struct Carrier<R> {
    /// The server's and the client's.
    devices: [File; 2],
    delay: u64,
    rule: R,
    /// To the server, to the client.
    lanes: [Lane; 2],
    shared: Arc<Shared>,
}

impl<R: FnMut(Segment<'_>) -> Fate> Carrier<R> {
    fn run(&mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            let came = self.wait();
            if came[0] {
                self.take(Way::ToClient);
            }
            if came[1] {
                self.take(Way::ToServer);
            }
            self.deliver();
        }
    }

    /// Waits for a packet, or until something is due; which devices have one.
    fn wait(&self) -> [bool; 2] {
        let now = monotonic_ns();
        let due = self.lanes.iter().flat_map(|lane| {
            lane.under_way.keys().map(|(arrives, _)| *arrives).take(1).chain(lane.held.iter().map(|held| held.deadline))
        });
        let wait = due.min().map_or(20_000_000, |due| due.saturating_sub(now)).min(20_000_000);
        let timeout = Timespec { tv_sec: 0, tv_nsec: wait as i64 };
        let mut fds = self.devices.each_ref().map(|device| PollFd::from_borrowed_fd(device.as_fd(), PollFlags::IN));
        poll(&mut fds, Some(&timeout)).expect("wait for packets");
        fds.map(|fd| fd.revents().contains(PollFlags::IN))
    }

    fn take(&mut self, way: Way) {
        let from = usize::from(way == Way::ToServer);
        let mut packet = vec![0; tun::MTU];
        let length = self.devices[from].read(&mut packet).expect("read a packet from the TUN device");
        packet.truncate(length);
        let now = monotonic_ns();
        let lane = &mut self.lanes[usize::from(way == Way::ToClient)];
        let fate = match lane.new_data(&packet) {
            Some(payload) => (self.rule)(Segment { way, nth: lane.nth, payload }),
            None => Fate::Passes,
        };
        match fate {
            Fate::Passes => lane.send(packet, now + self.delay),
            Fate::IsLost => {
                self.shared.lost.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Fate::ComesTwice => {
                self.shared.doubled.fetch_add(1, Ordering::Relaxed);
                lane.send(packet.clone(), now + self.delay);
                lane.send(packet, now + self.delay);
            }
            Fate::IsOvertakenBy(overtakers) => {
                self.shared.overtaken.fetch_add(1, Ordering::Relaxed);
                lane.held.push(Held { packet, overtakers, deadline: now + LONGEST_HOLD });
                return;
            }
        }
        lane.release(now, self.delay, true);
    }

    fn deliver(&mut self) {
        let now = monotonic_ns();
        for (lane, device) in self.lanes.iter_mut().zip(&mut self.devices) {
            lane.release(now, self.delay, false);
            while let Some(due) = lane.under_way.first_entry().filter(|entry| entry.key().0 <= now) {
                let packet = due.remove();
                device.write_all(&packet).expect("write a packet to the TUN device");
            }
        }
    }
}

impl Lane {
    /// The TCP payload of an IPv4 packet, if it was not seen before; counts it if so.
    fn new_data<'a>(&mut self, packet: &'a [u8]) -> Option<&'a [u8]> {
        let segment = parse(packet)?;
        let end = segment.seq.wrapping_add(segment.payload.len() as u32);
        let next = self.next.entry(segment.ports).or_insert(segment.seq);
        // Sequence numbers wrap: RFC 9293, section 3.4.
        if segment.payload.is_empty() || end.wrapping_sub(*next) as i32 <= 0 {
            return None;
        }
        *next = end;
        self.nth += 1;
        Some(segment.payload)
    }
}

#[derive(PartialEq, Eq, Debug)]
struct Tcp<'a> {
    ports: [u8; 4],
    seq: u32,
    payload: &'a [u8],
}

/// Reads the headers of an IPv4 packet (RFC 791) with a TCP segment (RFC 9293) inside.
fn parse(packet: &[u8]) -> Option<Tcp<'_>> {
    let first = usize::from(*packet.first()?);
    if first >> 4 != 4 || i32::from(*packet.get(9)?) != libc::IPPROTO_TCP {
        return None;
    }
    let tcp = (first & 15) * 4;
    let data = tcp + usize::from(*packet.get(tcp + 12)? >> 4) * 4;
    let seq = u32::from_be_bytes(packet.get(tcp + 4..tcp + 8)?.try_into().ok()?);
    Some(Tcp { ports: packet.get(tcp..tcp + 4)?.try_into().ok()?, seq, payload: packet.get(data..)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::truth::Stamp;
    use crate::tun::tcp_info;

    /// Sends 300 KB each way and takes what the server's kernel says of the connection.
    fn exchange(network: &Network) -> libc::tcp_info {
        let bytes: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
        let server = network.bind();
        let expected = bytes.clone();
        let playing = server.serve(move |mut peer| {
            assert_eq!(peer.read(expected.len()).bytes, expected);
            peer.write(&expected);
            peer.read_through("thanks");
            tcp_info(&peer)
        });
        let mut client = network.connect(&server);
        client.write(&bytes);
        assert_eq!(client.read(bytes.len()).bytes, bytes);
        client.write("thanks");
        playing.truth()
    }

    #[test]
    fn a_gentle_network_carries_bytes_unchanged() {
        let network = Network::new(0, |_| Fate::Passes);
        let _ = exchange(&network);
        assert_eq!(network.tally(), Tally { lost: 0, doubled: 0, overtaken: 0 });
    }

    #[test]
    fn a_rough_network_carries_bytes_unchanged_with_retransmits() {
        let network = Network::new(0, |segment| match segment.nth % 10 {
            3 => Fate::IsLost,
            5 => Fate::ComesTwice,
            7 => Fate::IsOvertakenBy(3),
            _ => Fate::Passes,
        });
        let info = exchange(&network);
        let Tally { lost, doubled, overtaken } = network.tally();
        assert!(lost > 10 && doubled > 10 && overtaken > 10, "{:?}", network.tally());
        assert!(u64::from(info.tcpi_total_retrans) >= lost / 3, "some of the lost were the server's");
    }

    #[test]
    fn a_slow_network_takes_its_time() {
        let network = Network::new(10, |_| Fate::Passes);
        let (info, at) = Stamp::of(|| exchange(&network));
        assert!(at.after - at.before > 40_000_000, "a handshake and two ways take at least 40 ms");
        assert!((20_000..100_000).contains(&info.tcpi_rtt), "20 ms there and back: {} us", info.tcpi_rtt);
    }
}
