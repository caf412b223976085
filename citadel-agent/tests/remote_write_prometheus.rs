//! Real receivers: Prometheus 2.42, which knows remote write 1.0, and 3.x, which knows 2.0.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use citadel_agent::metrics::catalogue::agent::PROCESS_START;
use citadel_agent::metrics::catalogue::models::{CONNECTIONS_OPEN, REQUESTS, TIME_TO_FIRST_TOKEN};
use citadel_agent::metrics::family::{Page, Value};
use citadel_agent::metrics::{self, format::Format};
use citadel_agent::remote_write::record::Record;
use citadel_agent::remote_write::spool::{Spool, SpoolLimits};
use citadel_agent::remote_write::{self, ledger};
use support::prometheus::{Prometheus, Version};
use support::sending::{Sending, always, counting};
use support::{NASTY, histogram, page, text};

const NATIVE: &[&str] = &["--enable-feature=native-histograms"];

/// The 50th of the 100 observations in each of the page's histograms, in seconds: `1e-6 * 10^(8 * 49 / 100)`.
const MEDIAN: f64 = 0.008_318;

fn both(flags: &[&str], test: impl Fn(&Prometheus, Version)) {
    for version in [Version::Old, Version::New] {
        test(&Prometheus::receiving(version, flags), version);
    }
}

/// Every series that Prometheus has, without what the target adds: name, labels, bits of the value.
fn stored(prometheus: &Prometheus) -> BTreeMap<(String, text::Labels), u64> {
    let series = prometheus.wait_for("{job=\"citadel-agent\"}");
    let mut all = BTreeMap::new();
    for (labels, value) in series {
        let mut labels: text::Labels =
            labels.as_object().unwrap().iter().map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned())).collect();
        labels.retain(|name, _| !matches!(name.as_str(), "job" | "instance"));
        let name = labels.remove("__name__").unwrap();
        assert!(all.insert((name, labels), value.to_bits()).is_none());
    }
    all
}

fn assert_close(got: f64, want: f64, ratio: f64) {
    assert!(got / want < ratio && want / got < ratio, "{got} is not within a factor of {ratio} of {want}");
}

#[test]
fn every_series_is_there_with_the_value_of_the_scrape() {
    both(NATIVE, |prometheus, version| {
        let page = page(&NASTY);
        // Each has some 20,000 series: a slow machine sends no ten of them a second.
        let mut pages = vec![page.clone(); 3];
        let sending = Sending::to(&prometheus.url(), "", move || pages.pop());
        sending.wait("acknowledgement", |numbers| numbers.acknowledged > 0 && numbers.pending == 0);
        let stored = stored(prometheus);
        let exposed = String::from_utf8(metrics::encode(page, Format::Text).unwrap()).unwrap();
        let exposed = text::parse(&exposed).samples;
        for (series, value) in &exposed {
            assert_eq!(stored.get(series), Some(&value.to_bits()), "{version:?}: {series:?}");
        }
        assert_eq!(stored.len(), exposed.len());
        assert_eq!(sending.numbers().rejected, 0);
        assert_eq!(sending.numbers().dropped, []);
        let mut sending = sending;
        sending.stop();
        // 2.42 answers 204 to 2.0 and keeps nothing; that this was noticed shows in all of the above.
        assert_eq!(sending.ledger().receiver.only_v1_ms.is_some(), version == Version::Old);
    });
}

#[test]
fn native_histograms_give_quantiles() {
    both(NATIVE, |prometheus, _| {
        let sending = Sending::with(&prometheus.url(), "", "  histograms: native", always(page(&["phi3"])));
        sending.wait("acknowledgement", |numbers| numbers.acknowledged > 0);
        let name = "citadel_model_time_to_first_token_seconds";
        assert_eq!(prometheus.value(&format!("histogram_count({name})")), 100.0);
        assert_close(
            prometheus.value(&format!("histogram_sum({name})")),
            histogram(100).sum_ns() as f64 / 1e9,
            1.000_001,
        );
        // A native bucket is 9 % wide; between two observations, where 0.5 would be, versions choose differently.
        assert_close(prometheus.value(&format!("histogram_quantile(0.495, {name})")), MEDIAN, 1.1);
    });
}

#[test]
fn a_prometheus_without_native_histograms_gets_classic_ones_and_misses_nothing() {
    both(&[], |prometheus, version| {
        let mut sending = Sending::with(&prometheus.url(), "", "  histograms: both", always(page(&["phi3"])));
        let numbers = sending.wait("acknowledgement", |numbers| numbers.acknowledged > 0);
        assert_eq!((numbers.rejected, numbers.dropped.len()), (0, 0), "{version:?}");
        let name = "citadel_model_time_to_first_token_seconds";
        assert_close(prometheus.value(&format!("histogram_quantile(0.5, {name}_bucket)")), MEDIAN, 2.0);
        sending.stop();
        assert!(sending.ledger().receiver.no_native_ms.is_some());
    });
}

/// Times and values of a series in the last minutes.
fn points(prometheus: &Prometheus, series: &str) -> Vec<(f64, f64)> {
    points_of(prometheus, series, "10m")
}

/// Times and values of a series in the last so much time.
fn points_of(prometheus: &Prometheus, series: &str, range: &str) -> Vec<(f64, f64)> {
    let escaped: String = format!("{series}[{range}]").bytes().map(|byte| format!("%{byte:02x}")).collect();
    let answer = prometheus.get(&format!("/api/v1/query?query={escaped}")).expect("an answer");
    let results = answer["data"]["result"].as_array().unwrap();
    let values = results.iter().flat_map(|series| series["values"].as_array().unwrap());
    values.map(|pair| (pair[0].as_f64().unwrap(), pair[1].as_str().unwrap().parse().unwrap())).collect()
}

#[test]
fn each_collection_arrives_once_and_in_order_over_a_restart_of_the_sender() {
    both(NATIVE, |prometheus, _| {
        let mut sending = Sending::to(&prometheus.url(), "", counting());
        sending.wait("acknowledgement", |numbers| numbers.acknowledged >= 10);
        sending.stop();
        sending.start(counting());
        let before = sending.ledger().acknowledged;
        let numbers = sending.wait("acknowledgement", |numbers| numbers.acknowledged >= before + 10);
        assert_eq!(numbers.rejected, 0);
        sending.stop();
        let ledger = sending.ledger();
        let points = points(prometheus, CONNECTIONS_OPEN.name);
        assert!(points.len() as u64 >= ledger.acknowledged, "{} of {}", points.len(), ledger.acknowledged);
        assert!(points.windows(2).all(|pair| pair[1].1 == pair[0].1 + 1.0 || pair[1].1 == 1.0), "{points:?}");
        assert_eq!(points.iter().filter(|(_, value)| *value == 1.0).count(), 2);
    });
}

#[test]
fn what_was_collected_while_prometheus_was_down_is_in_it_afterwards() {
    for version in [Version::Old, Version::New] {
        let mut prometheus = Prometheus::receiving(version, NATIVE);
        let mut sending = Sending::to(&prometheus.url(), "", counting());
        sending.wait("acknowledgement", |numbers| numbers.acknowledged >= 5);
        prometheus.kill();
        sending.wait("backlog", |numbers| numbers.pending >= 15);
        // The sender is restarted in the middle of it, too.
        sending.stop();
        sending.start(counting());
        sending.wait("backlog", |numbers| numbers.pending >= 25);
        prometheus.start_again();
        let numbers = sending.wait("acknowledgement", |numbers| numbers.pending <= 1);
        assert_eq!((numbers.rejected, numbers.dropped.len()), (0, 0), "{version:?}");
        sending.stop();
        let ledger = sending.ledger();
        let points = points(&prometheus, CONNECTIONS_OPEN.name);
        assert!(points.len() as u64 >= ledger.acknowledged, "{} of {}", points.len(), ledger.acknowledged);
        assert!(points.windows(2).all(|pair| pair[1].1 == pair[0].1 + 1.0 || pair[1].1 == 1.0), "{points:?}");
    }
}

/// A night's collections, five minutes apart, in the spool of a sender that has sent none of them.
fn night(sending: &Sending) -> u64 {
    let limits = SpoolLimits { max_bytes: 1 << 30, max_age: Duration::from_secs(1 << 30), min_free: 0, memory: 0 };
    let mut spool = Spool::open(sending.dir.path(), limits, 0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as i64;
    for minutes in (5..=12 * 60).rev().step_by(5) {
        let mut page = Page::default();
        page.add(&CONNECTIONS_OPEN, ["night", "1"], Value::Integer(minutes));
        let identity = remote_write::identity(&sending.config);
        let time = now - minutes as i64 * 60_000;
        let record = Record::new(&page, &[], &identity, time, 0);
        spool.append(record.len(), time, record.to_bytes().unwrap());
    }
    spool.sync().unwrap();
    ledger::write(&sending.dir.path().join("prometheus.ledger"), &ledger::Ledger::new(0)).unwrap();
    spool.end()
}

/// While it was down Prometheus got nothing; when it is back, it has newer samples of something else at once. What is older
/// than an hour by then it takes only within its out-of-order window, as docs/remote-write.md says.
#[test]
fn a_whole_night_arrives_within_the_out_of_order_window_and_is_counted_as_rejected_without_it() {
    for version in [Version::Old, Version::New] {
        for (yaml, window) in [("storage: {tsdb: {out_of_order_time_window: 1d}}\n", true), ("global: {}\n", false)] {
            let prometheus = Prometheus::receiving_with(version, yaml, &[]);
            let other = Sending::to(&prometheus.url(), "", always(page(&["now"])));
            other.wait("acknowledgement", |numbers| numbers.acknowledged > 0);
            let mut sending = Sending::idle(&prometheus.url(), "", "");
            let collected = night(&sending);
            sending.start(counting());
            let numbers = sending.wait("end of the backlog", |numbers| {
                numbers.collected > collected + 5 && numbers.acknowledged + numbers.rejected > collected
            });
            let escaped = "citadel_model_connections_open{model=\"night\"}";
            let arrived = points_of(&prometheus, escaped, "13h");
            if window {
                assert_eq!((numbers.rejected, arrived.len() as u64), (0, collected), "{version:?}");
                assert!(arrived.windows(2).all(|pair| pair[1].1 == pair[0].1 - 5.0), "{arrived:?}");
            } else {
                // Some of it is young enough.
                assert!(numbers.rejected >= collected - 14, "{version:?}: {numbers:?}");
                assert_eq!(arrived.len() as u64, collected - numbers.rejected);
            }
        }
    }
}

#[test]
fn a_series_that_ends_is_gone_at_once() {
    both(NATIVE, |prometheus, _| {
        let mut collections = 0;
        let sending = Sending::to(&prometheus.url(), "", move || {
            collections += 1;
            let mut page = Page::default();
            page.add(&REQUESTS, ["stays", "1", "other", "200"], Value::Integer(collections));
            if collections < 10 {
                page.add(&REQUESTS, ["goes", "2", "other", "200"], Value::Integer(collections));
                page.add(&TIME_TO_FIRST_TOKEN, ["goes", "2", "other"], Value::Histogram(Box::new(histogram(9))));
            }
            Some(page)
        });
        let all = "count({job=\"citadel-agent\"})";
        prometheus.wait_for(all);
        sending.wait("end of the series", |numbers| numbers.acknowledged > 40);
        let left: BTreeSet<String> = (prometheus.wait_for("{job=\"citadel-agent\"}").iter())
            .map(|(labels, _)| labels["model"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(left, BTreeSet::from(["stays".to_owned()]));
        assert_eq!(prometheus.value("count(citadel_model_requests_total)"), 1.0);
        assert!(!points(prometheus, "citadel_model_requests_total{model=\"goes\"}").is_empty(), "it was there before");
    });
}

#[test]
fn a_receiver_of_2_0_learns_when_counters_began() {
    let prometheus =
        Prometheus::receiving(Version::New, &["--enable-feature=created-timestamp-zero-ingestion,native-histograms"]);
    let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap() - Duration::from_secs(20);
    let mut page = Page::default();
    page.add(&REQUESTS, ["phi3", "1", "other", "200"], Value::Integer(5));
    page.add(&PROCESS_START, [], Value::Float(began.as_secs_f64()));
    let sending = Sending::to(&prometheus.url(), "", always(page));
    sending.wait("acknowledgement", |numbers| numbers.acknowledged >= 4);
    let first = points(&prometheus, REQUESTS.name)[0];
    assert_eq!(first.1, 0.0);
    assert!((first.0 - began.as_secs_f64()).abs() < 0.01, "{first:?}, {began:?}");
}
