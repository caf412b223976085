//! Host names under which a browser may open the pages.
//!
//! A foreign web page can point its own domain at this host and have a visitor's browser read the agent's pages (DNS rebinding). Such
//! requests have that domain in `Host`. Requests to an IP address need no name, and with TLS the certificate would not match.

use std::net::IpAddr;
use std::path::Path;

use crate::host::files::read_whole_text;

/// Maximum size of resolv.conf.
const LARGEST: usize = 64 << 10;

/// The names of this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::http) struct Names(Vec<String>);

impl Names {
    /// The host name, alone and in each search domain (resolv.conf(5)).
    pub(in crate::http) fn of_this_host() -> Self {
        let uname = rustix::system::uname();
        let resolver = read_whole_text(Path::new("/etc/resolv.conf"), LARGEST).unwrap_or_default();
        Self::of(&uname.nodename().to_string_lossy(), &resolver)
    }

    fn of(name: &str, resolver: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let mut names = vec!["localhost".to_owned(), name.clone()];
        let short = name.split('.').next().unwrap_or(&name);
        names.push(short.to_owned());
        for line in resolver.lines() {
            let mut words = line.split_ascii_whitespace();
            if matches!(words.next(), Some("search" | "domain")) {
                names.extend(
                    words
                        .filter(|domain| *domain != ".")
                        .map(|domain| format!("{short}.{}", domain.trim_end_matches('.').to_ascii_lowercase())),
                );
            }
        }
        Self(names)
    }

    /// Whether `host`, the value of the header field `Host` (RFC 9110, section 7.2), is a name of this host or one of `more`.
    pub(in crate::http) fn has(&self, host: &str, more: &[String]) -> bool {
        let name = match host.strip_prefix('[') {
            // An IPv6 address in brackets.
            Some(rest) => rest.split(']').next().unwrap_or(rest),
            None => host.split(':').next().unwrap_or(host),
        };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        name.parse::<IpAddr>().is_ok()
            || name.ends_with(".localhost")
            || self.0.contains(&name)
            || more.iter().any(|other| other.trim_end_matches('.').eq_ignore_ascii_case(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_host_and_addresses_are_taken_and_others_are_not() {
        let names =
            Names::of("GPU-1", "# search evil.example\nnameserver 192.0.2.1\nsearch lab.example. corp.example .\n");
        let more = ["metrics.example".to_owned()];
        for host in [
            "gpu-1:8000",
            "gpu-1",
            "GPU-1.lab.example:8000",
            "gpu-1.corp.example.",
            "localhost:8000",
            "a.localhost",
            "192.0.2.7:8000",
            "[2001:db8::1]:8000",
            "[::1]",
            "Metrics.example:8000",
        ] {
            assert!(names.has(host, &more), "{host}");
        }
        for host in
            ["evil.example", "gpu-1.evil.example:8000", "", "[evil.example]", "xgpu-1", "192.0.2.7.evil.example"]
        {
            assert!(!names.has(host, &more), "{host}");
        }
        assert!(!names.has("metrics.example", &[]));
        let whole = Names::of("gpu-1.lab.example", "");
        assert!(whole.has("gpu-1.lab.example", &[]) && whole.has("gpu-1", &[]) && !whole.has("gpu-1.other", &[]));
    }
}
