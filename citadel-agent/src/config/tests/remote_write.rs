//! The section `remote_write`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;

use super::OPERATORS;
use crate::config::resolved::Access;
use crate::config::resolved::Config;
use crate::config::resolved::remote_write::{Denied, Destination, Histograms, Protocol, RemoteWrite};
use crate::config::{parse, print};

fn mistakes(section: &str) -> Vec<String> {
    let errors = parse("FILE", &format!("remote_write:\n{section}")).expect_err(section);
    errors.mistakes().iter().map(|mistake| format!("{}: {}", mistake.path, mistake.message)).collect()
}

#[test]
fn the_operators_url_is_a_destination_and_its_scrape_interval_the_interval() {
    let config = parse("FILE", OPERATORS).unwrap();
    let destinations = config.destinations();
    assert_eq!(destinations.keys().collect::<Vec<_>>(), ["prometheus"]);
    assert_eq!(destinations["prometheus"].url.as_deref(), Some("http://192.168.10.36:9090/api/v1/write"));
    assert_eq!(config.write_interval(), Duration::from_secs(15));
    assert!(Config::default().destinations().is_empty());
}

#[test]
fn the_operators_destination_takes_credentials_and_others_stand_beside_it() {
    let more = "
remote_write:
  interval: 5s
  destinations:
    prometheus: { username: gpu1, password_file: /etc/citadel-agent/password }
    archive: { url: 'https://archive.example/write', protocol: 1.0, ca_file: /etc/ca.pem }
";
    let config = parse("FILE", &format!("{OPERATORS}{more}")).unwrap();
    let destinations = config.destinations();
    assert_eq!(destinations["prometheus"].access.username.as_deref(), Some("gpu1"));
    assert!(destinations["prometheus"].url.as_ref().unwrap().contains("192.168.10.36"));
    assert_eq!(destinations["archive"].protocol, Protocol::V1);
    assert_eq!(config.write_interval(), Duration::from_secs(5));
}

#[test]
fn mistakes_are_named_with_what_to_write_instead() {
    assert_eq!(mistakes("  destinations: { a: { protocol: 2.0 } }"), ["remote_write.destinations.a: has no url"]);
    let credentials = mistakes("  destinations: { a: { url: 'http://a.test/', username: me, bearer_token_file: /t } }");
    assert_eq!(credentials.len(), 2, "{credentials:?}");
    let unknown = mistakes("  destinations: { a: { url: 'http://a.test/', tokenfile: /t } }");
    assert!(unknown[0].contains("known keys") || unknown[0].contains("did you mean"), "{unknown:?}");
    assert!(mistakes("  histograms: clasic")[0].contains("did you mean classic?"));
    assert!(mistakes("  max_bytes: 1Gib")[0].contains("\"1GiB\""));
    assert!(mistakes("  max_bytes: 100")[0].contains("64KiB"));
    assert!(mistakes("  max_age: 5m")[0].contains("out of range"));
    assert!(mistakes("  external_labels: { job: x }")[0].contains("not job"));
    assert!(mistakes("  destinations: { 'a b': { url: 'http://a.test/' } }")[0].contains("is not a valid name"));
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,9}[^\\pC\\pZ]\\PC{0,9}"
}

fn path() -> impl Strategy<Value = Option<PathBuf>> {
    prop::option::of(text().prop_map(|rest| PathBuf::from(format!("/{rest}"))))
}

fn histograms() -> impl Strategy<Value = Histograms> {
    prop::sample::select(vec![Histograms::Auto, Histograms::Both, Histograms::Native, Histograms::Classic])
}

fn destination() -> impl Strategy<Value = Destination> {
    let protocol = prop::sample::select(vec![Protocol::Auto, Protocol::V1, Protocol::V2]);
    let denied = prop::sample::select(vec![Denied::Park, Denied::Drop]);
    let how = (protocol, denied, prop::option::of(histograms()));
    let more =
        (prop::option::of((path(), path())), prop::collection::btree_map("x-[a-z0-9-]{1,9}", "[!-~]{1,9}", 0..3));
    (how, 1u64..86_400, prop::option::of((text(), path())), path(), path(), more).prop_map(
        |((protocol, denied, histograms), timeout, basic, token, ca_file, (pair, headers))| {
            let pair = pair.and_then(|(certificate, key)| Some((certificate?, key?)));
            let basic = basic.and_then(|(username, file)| Some((username, file?)));
            Destination {
                url: Some("http://a.test/".to_owned()),
                protocol,
                histograms,
                denied,
                timeout: Duration::from_secs(timeout),
                access: Access {
                    bearer_token_file: token.filter(|_| basic.is_none()),
                    username: basic.clone().map(|(username, _)| username),
                    password_file: basic.map(|(_, file)| file),
                    ca_file,
                    cert_file: pair.clone().map(|(certificate, _)| certificate),
                    key_file: pair.map(|(_, key)| key),
                    headers,
                },
            }
        },
    )
}

prop_compose! {
    fn remote_write()(
        interval in prop::option::of(1u64..86_400), directory in path(), job in text(), instance in prop::option::of(text()),
        external_labels in prop::collection::btree_map("[a-dA-D][a-z0-9_]{0,9}", text(), 0..4),
        histograms in histograms(),
        max_bytes in 65_536u64..1 << 60, hours in 1u64..87_600, min_free_bytes in 0u64..1 << 60,
        destinations in prop::collection::btree_map("[a-z][a-z0-9_-]{0,9}", destination(), 0..4),
    ) -> RemoteWrite {
        let destinations: BTreeMap<_, _> = destinations;
        RemoteWrite {
            interval: interval.map(Duration::from_secs), directory, job, instance, external_labels, histograms, max_bytes,
            max_age: Duration::from_secs(hours * 3600), min_free_bytes, destinations,
        }
    }
}

proptest! {
    #[test]
    fn what_is_printed_says_the_same(remote_write in remote_write()) {
        let config = Config { remote_write, ..Config::default() };
        let text = print(&config);
        prop_assert_eq!(parse("FILE", &text), Ok(config), "{}", text);
    }
}
