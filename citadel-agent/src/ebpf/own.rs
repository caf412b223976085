//! The agent's own connections to models: announced to the `net` programs before they are opened, so that they are not
//! measured.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::Pod;
use aya::maps::{HashMap, MapData};
use citadel_agent_common::connection::Tuple;

/// A connection's addresses, for aya.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Key(pub(super) Tuple);
// SAFETY: `repr(C)` of integers without padding.
unsafe impl Pod for Key {}

/// The map that the programs read.
pub(super) type OwnMap = HashMap<MapData, Key, u32>;

/// Announces connections. Clones share the map; without a map, announcing does nothing.
#[derive(Clone, Default)]
pub struct OwnConnections {
    map: Arc<Mutex<Option<OwnMap>>>,
}

impl std::fmt::Debug for OwnConnections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnConnections").field("attached", &self.map().is_some()).finish()
    }
}

/// A connection is announced for as long as this lives: until the server's socket exists, that is until a response
/// arrived, because a listener may defer the socket until the first data.
#[derive(Debug)]
pub struct Announced {
    own: OwnConnections,
    tuple: Tuple,
}

impl OwnConnections {
    /// Announces a connection before it is opened.
    ///
    /// # Errors
    /// The map is full or cannot be written: the connection must not be opened, because it would be measured.
    pub fn announce(&self, client: SocketAddr, server: SocketAddr) -> io::Result<Announced> {
        let tuple = Tuple {
            remote: words(client.ip()),
            local: words(server.ip()),
            remote_port: u32::from(client.port()),
            local_port: u32::from(server.port()),
        };
        if let Some(map) = self.map().as_mut() {
            map.insert(Key(tuple), 1, 0).map_err(io::Error::other)?;
        }
        Ok(Announced { own: self.clone(), tuple })
    }

    /// Announces to these programs from now on.
    pub(super) fn attach(&self, map: OwnMap) {
        *self.map() = Some(map);
    }

    fn map(&self) -> MutexGuard<'_, Option<OwnMap>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        if let Some(map) = self.own.map().as_mut() {
            // It may be gone together with the programs that it was announced to.
            _ = map.remove(&Key(self.tuple));
        }
    }
}

/// Removes all announced connections.
pub(super) fn clear(map: &mut OwnMap) {
    let keys: Vec<Key> = map.keys().filter_map(Result::ok).collect();
    for key in &keys {
        // One that is gone already is no failure.
        _ = map.remove(key);
    }
}

/// An address in the form of [`Tuple`].
fn words(address: IpAddr) -> [u32; 4] {
    let address = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    let bytes = address.octets();
    std::array::from_fn(|i| u32::from_ne_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_words_in_network_order() {
        let bytes = |text: &str| words(text.parse().unwrap()).map(u32::to_ne_bytes).concat();
        assert_eq!(bytes("127.0.0.1"), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1]);
        assert_eq!(bytes("1:2::3"), [0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
    }
}
