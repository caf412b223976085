//! The receivers: the Alertmanagers in the configuration, without duplicates. Pure.

use crate::config::resolved::Remote;

/// Path of API v2, and of v1, which Alertmanager had until 0.27.
const V2: &str = "/api/v2/alerts";
const V1: &str = "/api/v1/alerts";

/// One receiver of alerts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Value of the label `peer`: the URL without the common path.
    pub name: String,
    /// URL that alerts are posted to.
    pub url: String,
}

/// The peers, in the order of the configuration, and remarks about them.
#[must_use]
pub fn peers(remote: &Remote) -> (Vec<Peer>, Vec<String>) {
    let mut notes = Vec::new();
    let mut peers: Vec<Peer> = Vec::new();
    let managers = remote.alert_manager_url.iter().chain(&remote.alertmanagers).map(|url| (url, true));
    for (url, manager) in managers.chain(remote.webhook_url.iter().map(|url| (url, false))) {
        let url = url.trim_end_matches('/');
        let target = if let Some(base) = url.strip_suffix(V1) {
            notes.push(format!("{url} is API v1, which Alertmanager 0.27 removed; using {base}{V2}"));
            format!("{base}{V2}")
        } else if manager && !url.ends_with(V2) {
            format!("{url}{V2}")
        } else {
            url.to_owned()
        };
        let name = target.split_once("://").map_or(target.as_str(), |(_, rest)| rest);
        let name = name.strip_suffix(V2).unwrap_or(name).to_owned();
        if !peers.iter().any(|peer| peer.url == target) {
            peers.push(Peer { name, url: target });
        }
    }
    (peers, notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn of(alerting: &str) -> (Vec<String>, Vec<String>) {
        let text = format!("remote_monitoring: {{enabled: true, dev_ops_server: x, alerting: {{{alerting}}}}}");
        let remote = config::parse("FILE", &text).unwrap().remote.unwrap();
        let (peers, notes) = peers(&remote);
        (peers.into_iter().map(|peer| peer.url).collect(), notes)
    }

    #[test]
    fn the_operators_two_urls_are_one_alertmanager_and_v2() {
        let file = include_str!("../../../tests/fixtures/monitoring-integration.yaml");
        let (peers, notes) = peers(&config::parse("FILE", file).unwrap().remote.unwrap());
        let url = "http://192.168.10.36:9093/api/v2/alerts".to_owned();
        assert_eq!(peers, [Peer { name: "192.168.10.36:9093".to_owned(), url }]);
        assert_eq!(notes.len(), 1);
        assert!(notes[0].contains("0.27 removed"), "{notes:?}");
    }

    #[test]
    fn each_peer_is_there_once_wherever_it_is_named() {
        let (urls, notes) =
            of("alert_manager_url: 'http://a:9093/', alertmanagers: ['http://b/am', 'http://a:9093/api/v2/alerts'], \
             webhook_url: 'http://c/hook'");
        assert_eq!(urls, ["http://a:9093/api/v2/alerts", "http://b/am/api/v2/alerts", "http://c/hook"]);
        assert_eq!(notes, <[String; 0]>::default());
        assert_eq!(of(""), (vec![], vec![]));
    }
}
