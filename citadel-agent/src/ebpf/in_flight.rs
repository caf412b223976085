//! The `in_flight` family in userspace: reads the connections with outstanding requests from the kernel, by a BPF iterator.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use aya::EbpfLoader;
use citadel_agent_common::connection::{Client, Listed};
use citadel_agent_common::http::conn::Running;

use super::family::Family;
use super::handles::Handles;
use super::link;
use crate::clock::monotonic_ns;
use crate::host::kernel_types::Layout;

/// Tells the iterator where the client's address is in a socket.
pub(super) fn know<'a>(loader: &mut EbpfLoader<'a>, layout: &'a Layout) {
    loader
        .override_global("PEER_V4", &layout.peer_v4, true)
        .override_global("PEER_V6", &layout.peer_v6, true)
        .override_global("PEER_PORT", &layout.peer_port, true)
        .override_global("SOCK_FAMILY", &layout.sock_family, true);
}

/// The iterator over the connections.
#[derive(Debug)]
pub struct InFlight {
    link: OwnedFd,
}

/// A request in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InFlightRequest {
    /// The request.
    pub running: Running,
    /// Whose it is.
    pub client: Client,
    /// When the list was read, in nanoseconds of `CLOCK_MONOTONIC`.
    pub now_ns: u64,
}

/// The requests of a model that are in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ages {
    /// Age of the oldest one in nanoseconds.
    pub oldest_ns: u64,
    /// Longest time in nanoseconds for which one has been waiting for the next byte of its response.
    pub longest_wait_ns: u64,
}

impl InFlight {
    /// Reads through the iterator's link; `None` if it has none.
    ///
    /// # Errors
    /// The descriptor cannot be duplicated.
    pub(super) fn of(handles: &Handles) -> io::Result<Option<Arc<Self>>> {
        let link = Family::InFlight.programs().iter().find_map(|program| handles.link(program.name));
        link.map(|link| Ok(Arc::new(Self { link: link.try_clone_to_owned()? }))).transpose()
    }

    /// The ages of the requests in flight, by slot; a model without any is missing.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn ages(&self) -> io::Result<BTreeMap<u32, Ages>> {
        let mut ages = BTreeMap::new();
        self.requests(|slot, request| add(&mut ages, slot, &request.running, request.now_ns))?;
        Ok(ages)
    }

    /// Calls `each` with each request in flight and its slot. The kernel goes through all connections.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn requests(&self, each: impl FnMut(u32, &InFlightRequest)) -> io::Result<()> {
        let now = monotonic_ns();
        read(&mut File::from(link::iterate(self.link.as_fd())?), now, each)
    }
}

/// Pure.
fn add(ages: &mut BTreeMap<u32, Ages>, slot: u32, running: &Running, now: u64) {
    let since = |ns: u64| now.saturating_sub(ns);
    let known = ages.entry(slot).or_default();
    known.oldest_ns = known.oldest_ns.max(since(running.first_ns));
    known.longest_wait_ns = known.longest_wait_ns.max(running.waits_since_ns.map_or(0, since));
}

const SIZE: usize = size_of::<Listed>();

/// Passes each request of a list of connections that is running at time `now`, with its slot.
fn read(list: &mut impl Read, now: u64, mut each: impl FnMut(u32, &InFlightRequest)) -> io::Result<()> {
    // The kernel's own buffer has eight pages.
    let mut buffer = vec![0; 32 * 1024];
    let mut filled = 0;
    loop {
        let count = match list.read(&mut buffer[filled..]) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        filled += count;
        let whole = filled / SIZE * SIZE;
        for bytes in buffer[..whole].chunks_exact(SIZE) {
            // SAFETY: the length is that of an element, which consists of integers only.
            let Listed { client, connection } = unsafe { bytes.as_ptr().cast::<Listed>().read_unaligned() };
            if let Some(running) = connection.conn.running(now) {
                each(connection.slot, &InFlightRequest { running, client, now_ns: now });
            }
        }
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
}

#[cfg(test)]
mod tests {
    use citadel_agent_common::abi::Phase;

    use super::*;

    #[test]
    fn the_oldest_and_the_longest_waiting_request_may_be_different_ones() {
        let mut ages = BTreeMap::new();
        let request = |first_ns, waits_since_ns| Running {
            first_ns,
            waits_since_ns,
            endpoint: 1,
            phase: Phase::Waiting,
            outputs: 0,
        };
        for running in [request(100, Some(900)), request(500, Some(600)), request(50, None)] {
            add(&mut ages, 3, &running, 1000);
        }
        // One that began after the clock was read.
        add(&mut ages, 4, &request(1001, Some(1002)), 1000);
        assert_eq!(ages[&3], Ages { oldest_ns: 950, longest_wait_ns: 400 });
        assert_eq!(ages[&4], Ages::default());
    }

    #[test]
    fn connections_without_requests_and_parts_of_connections_are_no_requests() {
        struct Pieces(Vec<u8>);
        impl Read for Pieces {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let count = self.0.len().min(1000).min(buffer.len());
                buffer[..count].copy_from_slice(&self.0[..count]);
                self.0.drain(..count);
                Ok(count)
            }
        }
        let mut seen = 0;
        read(&mut Pieces(vec![0; 40 * SIZE + 7]), 1, |_, _| seen += 1).unwrap();
        assert_eq!(seen, 0);
    }
}
