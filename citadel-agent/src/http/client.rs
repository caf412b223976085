//! The client of a connection.

use std::net::{IpAddr, Ipv6Addr};

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Client {
    /// What clients are told apart by.
    pub(super) network: IpAddr,
    /// Whether the connection is encrypted.
    pub(super) encrypted: bool,
}

/// Identifies a client: an IPv4 address, or the /64 of an IPv6 address, which a single host can use entirely.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_client_is_an_ipv4_address_or_a_network_of_ipv6() {
        let network = |text: &str| super::network(text.parse().unwrap()).to_string();
        assert_eq!(network("192.0.2.7"), "192.0.2.7");
        assert_eq!(network("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
