//! Which requests are asked for.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use citadel_agent_common::abi::Endpoint;
use serde::{Deserialize, Serialize};

use super::request::Kept;

/// Which requests are asked for: those that meet all conditions.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Those that took at least this long, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slower_than_ms: Option<u64>,
    /// Those that were aborted, or whose response is an error.
    #[serde(default)]
    pub errors: bool,
    /// Those of an endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Those of clients in a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Network>,
}

impl Filter {
    pub(super) fn wants(&self, kept: &Kept) -> bool {
        let slow = self.slower_than_ms.is_none_or(|ms| kept.duration_ns() >= ms.saturating_mul(1_000_000));
        let network = |network: Network| kept.client().is_some_and(|client| network.contains(client.ip()));
        slow && (!self.errors || kept.is_error())
            && self.endpoint.as_ref().is_none_or(|endpoint| endpoint == kept.endpoint())
            && self.client.is_none_or(network)
    }
}

/// The endpoint of this name.
///
/// # Errors
/// There is none; the text names all.
pub(super) fn endpoint(name: &str) -> Result<String, String> {
    let labels = || Endpoint::ALL.into_iter().map(Endpoint::label);
    match labels().find(|label| *label == name) {
        Some(label) => Ok(label.to_owned()),
        None => Err(format!("use one of {}", labels().collect::<Vec<_>>().join(", "))),
    }
}

/// An address or a network: `10.1.2.3`, `10.0.0.0/8`, `fd00::/8`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        let same = |one: u128, other: u128, length: u32| {
            let shift = length - u32::from(self.bits).min(length);
            // All bits of 128 differ in nothing.
            (one ^ other).checked_shr(shift).unwrap_or(0) == 0
        };
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(one), IpAddr::V4(other)) => same(one.to_bits().into(), other.to_bits().into(), 32),
            (IpAddr::V6(one), IpAddr::V6(other)) => same(one.to_bits(), other.to_bits(), 128),
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "use an address or a network, such as 10.1.2.3 or 10.0.0.0/8".to_owned();
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.parse().map_err(|_| wrong()))?;
        if bits > most { Err(wrong()) } else { Ok(Self { address, bits }) }
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::request::tests::ended;

    #[test]
    fn a_network_has_the_addresses_with_its_bits() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("fd00::/8", "fdff::1", "fe80::1"),
            ("::1", "::1", "::2"),
            ("0.0.0.0/0", "203.0.113.9", "::1"),
            ("::/0", "fe80::1", "10.0.0.1"),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert!(
                parsed.contains(inside.parse().unwrap()) && !parsed.contains(outside.parse().unwrap()),
                "{network}"
            );
            assert_eq!(serde_json::from_value::<Network>(serde_json::to_value(parsed).unwrap()).unwrap(), parsed);
        }
        for wrong in ["", "10.0.0.0/33", "10.0.0", "::/129", "10.0.0.0/-1", "a/8"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn all_conditions_have_to_be_met() {
        let (fast, error) = (ended(0, 5_000_000, 200), ended(0, 5_000_000, 404));
        let wants = |filter: &Filter| [filter.wants(&fast), filter.wants(&error)];
        assert_eq!(wants(&Filter::default()), [true, true]);
        assert_eq!(wants(&Filter { errors: true, ..Filter::default() }), [false, true]);
        assert_eq!(wants(&Filter { slower_than_ms: Some(5), ..Filter::default() }), [true, true]);
        assert_eq!(wants(&Filter { slower_than_ms: Some(6), errors: true, ..Filter::default() }), [false, false]);
        let of = |endpoint: &str| Filter { endpoint: Some(endpoint.to_owned()), ..Filter::default() };
        assert_eq!([wants(&of("chat_completions")), wants(&of("models"))], [[true, true], [false, false]]);
        let from = |network: &str| Filter { client: Some(network.parse().unwrap()), ..Filter::default() };
        assert_eq!([wants(&from("10.1.0.0/16")), wants(&from("10.2.0.0/16"))], [[true, true], [false, false]]);
        assert!(!from("10.1.0.0/16").wants(&fast.without_client()), "whose address is not known");
    }

    #[test]
    fn a_name_that_is_no_endpoint_is_told_from_those_that_are() {
        assert_eq!(endpoint("embeddings").unwrap(), "embeddings");
        assert!(endpoint("embedding").unwrap_err().contains("embeddings, rerank"));
    }
}
