//! What a sender sends, protocol by protocol: the cases of Prometheus' own compliance suite for remote write
//! (prometheus/compliance, `remotewrite/sender`), and the agent's promises beyond it, against a receiver that records.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use citadel_agent::metrics::catalogue::Kind;
use citadel_agent::metrics::catalogue::agent::{BUILD_INFO, PROCESS_START};
use citadel_agent::metrics::catalogue::models::{CONNECTIONS, CONNECTIONS_OPEN, REQUESTS, TIME_TO_FIRST_TOKEN};
use citadel_agent::metrics::family::{self, Page};
use citadel_agent::metrics::foreign::{Foreign, ForeignSample};
use citadel_agent::metrics::{self, format::Format};
use support::receiver::{Got, Receiver, Reply, Value};
use support::sending::{Sending, always, both, counting, taken};
use support::{NASTY, histogram, page, text};

/// Native histograms in either protocol.
const BOTH: &str = "  histograms: both";

const STALE: u64 = 0x7ff0_0000_0000_0002;

#[test]
fn each_request_has_the_headers_of_its_protocol() {
    both(|more, v2| {
        let receiver = taken();
        let _sending = Sending::to(&receiver.url(), more, counting());
        for request in receiver.wait_for(2) {
            assert_eq!(request.line, "POST /api/v1/write HTTP/1.1");
            assert_eq!(request.header("content-encoding"), "snappy");
            let (content_type, version) = match v2 {
                true => ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0"),
                false => ("application/x-protobuf", "0.1.0"),
            };
            assert_eq!(request.header("content-type"), content_type);
            assert_eq!(request.header("x-prometheus-remote-write-version"), version);
            assert!(request.header("user-agent").starts_with("citadel-agent/"));
            assert_eq!(request.header("host"), receiver.addr.to_string());
        }
    });
}

#[test]
fn symbols_are_unique_and_begin_with_the_empty_one() {
    let receiver = taken();
    let _sending = Sending::to(&receiver.url(), "", always(page(&NASTY)));
    for request in receiver.wait_for(3) {
        assert_eq!(request.symbols[0], "");
        assert_eq!(request.symbols.iter().collect::<BTreeSet<_>>().len(), request.symbols.len());
    }
}

#[test]
fn labels_are_sorted_unique_complete_and_never_empty() {
    both(|more, _| {
        let receiver = taken();
        let labels = "  external_labels: { site: berlin, zone: a, model: outside }";
        let mut page = page(&NASTY);
        page.families.retain(|family| family.desc.name != "citadel_agent_build_info");
        page.add(&BUILD_INFO, ["", "", "1.95"], family::Value::Integer(1));
        let _sending = Sending::with(&receiver.url(), more, labels, always(page));
        let requests = receiver.wait_until("a whole page", |requests| requests.len() >= 4);
        for got in requests.iter().flat_map(|request| &request.samples) {
            assert!(got.labels.windows(2).all(|pair| pair[0].0 < pair[1].0), "{:?}", got.labels);
            assert!(got.labels.iter().all(|(name, value)| !name.is_empty() && !value.is_empty()));
            for (label, value) in [("job", "citadel-agent"), ("instance", "gpu1"), ("site", "berlin"), ("zone", "a")] {
                assert_eq!(got.label(label), Some(value), "{}", got.series());
            }
            if got.name() == "citadel_agent_build_info" {
                assert_eq!((got.label("version"), got.label("rustc")), (None, Some("1.95")));
            }
            if got.name().starts_with("citadel_model") {
                // The label of the target stays, as a Prometheus does it that scrapes.
                assert_eq!(got.label("model"), Some("outside"));
                assert!(NASTY.contains(&got.label("exported_model").unwrap()));
            }
        }
    });
}

/// The page as text 0.0.4 and as what arrived must say the same: series, and the bits of each value.
#[test]
fn every_series_of_the_page_arrives_with_its_value() {
    both(|more, v2| {
        let page = page(&NASTY);
        let receiver = taken();
        let sending = Sending::with(&receiver.url(), more, BOTH, always(page.clone()));
        // The page takes several requests; once a sample of the next collection is there, all of the first is.
        let times = || -> BTreeSet<i64> {
            receiver.requests().iter().flat_map(|request| &request.samples).map(|got| got.timestamp).collect()
        };
        sending.wait("the second collection", |_| times().len() > 1);
        let requests = receiver.requests();
        let first = requests[0].samples[0].timestamp;
        let arrived: Vec<&Got> =
            requests.iter().flat_map(|request| &request.samples).filter(|got| got.timestamp == first).collect();
        let own = |got: &Got| {
            let own = got.labels.iter().filter(|(name, _)| !["__name__", "job", "instance"].contains(&name.as_str()));
            (got.name().to_owned(), own.cloned().collect::<text::Labels>())
        };
        let numbers: BTreeMap<_, _> = (arrived.iter())
            .filter(|got| matches!(got.value, Value::Number(_)))
            .map(|got| (own(got), got.number().to_bits()))
            .collect();
        let exposed = String::from_utf8(metrics::encode(page.clone(), Format::Text).unwrap()).unwrap();
        let exposed: BTreeMap<_, _> =
            text::parse(&exposed).samples.into_iter().map(|(series, value)| (series, value.to_bits())).collect();
        for (series, value) in &exposed {
            assert_eq!(numbers.get(series), Some(value), "{series:?}");
        }
        assert_eq!(exposed.len(), numbers.len(), "more has arrived than the page has");
        // And the histograms as native ones besides.
        let histograms: Vec<_> = arrived.iter().filter(|got| matches!(got.value, Value::Histogram(_))).collect();
        let expected: usize =
            page.families.iter().filter(|f| f.desc.kind == Kind::Histogram).map(|f| f.samples.len()).sum();
        assert_eq!(histograms.len(), expected);
        for got in histograms {
            let Value::Histogram(native) = &got.value else { unreachable!("filtered") };
            assert_eq!((native.count_int, native.schema), (Some(100), 3));
            // Tokens are counted, all else takes time.
            let unit = if got.name().ends_with("_tokens") { 1.0 } else { 1e9 };
            assert_eq!(native.sum, histogram(100).sum_ns() as f64 / unit, "{}", got.name());
            let (mut count, mut total) = (0i64, native.zero_count_int.unwrap());
            for delta in &native.positive_deltas {
                count += delta;
                total += count as u64;
            }
            assert_eq!(total, 100, "the buckets hold every observation");
            let buckets: u32 = native.positive_spans.iter().map(|span| span.length).sum();
            assert_eq!(buckets as usize, native.positive_deltas.len());
        }
        assert_eq!(requests[0].is_v2(), v2);
    });
}

#[test]
fn metadata_and_start_times_go_with_2_0_alone() {
    both(|more, v2| {
        let receiver = taken();
        let mut page = page(&["phi3"]);
        // A reload has replaced what counts these.
        let replaced = page.families.iter_mut().find(|family| family.desc.name == CONNECTIONS.name).unwrap();
        replaced.began = Some(1_700_000_100.5);
        let sending = Sending::to(&receiver.url(), more, always(page));
        sending.wait("acknowledgement", |numbers| numbers.acknowledged > 0);
        let start = if v2 { 1_700_000_000_250 } else { 0 };
        for got in receiver.requests().iter().flat_map(|request| &request.samples) {
            let name = got.name().to_owned();
            let expected = |start: i64| if v2 { (start, start) } else { (0, 0) };
            match name.as_str() {
                "citadel_model_requests_total" => assert_eq!(got.start, expected(start)),
                "citadel_model_connections_total" => assert_eq!(got.start, expected(1_700_000_100_500)),
                "citadel_model_connections_open" => assert_eq!(got.start, (0, 0), "a gauge begins nowhere"),
                _ if name.ends_with("_bucket") || name == TIME_TO_FIRST_TOKEN.name => {
                    assert_eq!(got.start, expected(start), "{name}");
                }
                _ => {}
            }
            assert_eq!(got.metadata.is_some(), v2, "{name}");
            if name == REQUESTS.name && v2 {
                assert_eq!(got.metadata, Some((1, REQUESTS.help.to_owned(), String::new())));
            }
            if name == TIME_TO_FIRST_TOKEN.name && v2 {
                assert_eq!(got.metadata, Some((3, TIME_TO_FIRST_TOKEN.help.to_owned(), "seconds".to_owned())));
            }
        }
    });
}

#[test]
fn histograms_go_out_as_configured() {
    let all = ["auto", "both", "native", "classic"];
    for (section, word) in all.iter().flat_map(|word| [("", word), ("  histograms: classic", word)]) {
        both(|more, v2| {
            let receiver = taken();
            let more = format!("{more}\n      histograms: {word}");
            let _sending = Sending::with(&receiver.url(), &more, section, always(page(&["phi3"])));
            let requests = receiver.wait_for(5);
            let with = |name: &str| requests.iter().filter(|r| r.samples.iter().any(|got| got.name() == name)).count();
            let (native, classic) =
                (with(TIME_TO_FIRST_TOKEN.name), with("citadel_model_time_to_first_token_seconds_bucket"));
            // The first request shows whether the receiver confirms 2.0.
            let wanted = match *word {
                "auto" if v2 => (native > 0 && native < classic, true),
                "auto" | "classic" => (native == 0, true),
                "both" => (native == classic, true),
                _ => (native > 0, false),
            };
            assert_eq!((wanted.0, classic > 0), (true, wanted.1), "{word}, {v2}: {native} and {classic}");
        });
    }
}

/// VictoriaMetrics makes `vmrange` buckets of native histograms, under the same name.
#[test]
fn a_receiver_that_says_it_is_victoria_metrics_gets_classic_histograms() {
    let headers = "X-Prometheus-Remote-Write-Samples-Written: 100000\r\nX-Server-Hostname: vm1\r\n";
    let receiver = Receiver::start(move |_| Reply::Status(204, headers, ""));
    let sending = Sending::to(&receiver.url(), "", always(page(&["phi3"])));
    receiver.wait_for(3);
    assert_eq!(sending.numbers().rejected, 0);
    let got = receiver.requests().into_iter().flat_map(|request| request.samples);
    assert!(got.into_iter().all(|got| matches!(got.value, Value::Number(_))));
}

#[test]
fn times_are_milliseconds_and_grow_in_each_series() {
    both(|more, _| {
        let receiver = taken();
        let _sending = Sending::to(&receiver.url(), more, counting());
        let requests = receiver.wait_for(5);
        let times: Vec<_> = requests.iter().flat_map(|request| &request.samples).map(|got| got.timestamp).collect();
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
        assert!(times.iter().all(|time| (now - 60_000..=now).contains(time)), "{times:?}");
    });
}

#[test]
fn every_float_arrives_as_it_is_and_nan_as_the_ordinary_one() {
    let values = [
        0.0,
        f64::INFINITY,
        f64::NEG_INFINITY,
        -1.5,
        1e-300,
        0.1 + 0.2,
        f64::NAN,
        f64::from_bits(STALE),
        f64::from_bits(u64::MAX),
    ];
    both(|more, _| {
        let mut page = Page::default();
        for (i, value) in values.iter().enumerate() {
            page.add(&CONNECTIONS_OPEN, [&format!("m{i}"), "1"], family::Value::Float(*value));
        }
        let receiver = taken();
        let _sending = Sending::to(&receiver.url(), more, always(page));
        for got in &receiver.wait_for(1)[0].samples {
            let i: usize = got.label("model").unwrap()[1..].parse().unwrap();
            let expected = if values[i].is_nan() { 0x7ff8_0000_0000_0001 } else { values[i].to_bits() };
            assert_eq!(got.value, Value::Number(expected), "{}", values[i]);
        }
    });
}

/// Two models, then one, then none.
fn ending() -> impl FnMut() -> Option<Page> + Send {
    let mut collections = 0;
    move || {
        collections += 1;
        let mut page = Page::default();
        page.add(&PROCESS_START, [], family::Value::Float(1.0));
        for model in ["a", "b"].into_iter().take(if collections > 4 {
            0
        } else if collections > 2 {
            1
        } else {
            2
        }) {
            page.add(&CONNECTIONS_OPEN, [model, "1"], family::Value::Integer(3));
            page.add(&TIME_TO_FIRST_TOKEN, [model, "1", "other"], family::Value::Histogram(Box::new(histogram(5))));
        }
        Some(page)
    }
}

/// How often each series was marked as ended.
fn stale(receiver: &Receiver) -> BTreeMap<String, usize> {
    let mut stale: BTreeMap<String, usize> = BTreeMap::new();
    for got in receiver.requests().iter().flat_map(|request| &request.samples) {
        let marker = match &got.value {
            Value::Number(bits) => *bits == STALE,
            Value::Histogram(histogram) => histogram.sum.to_bits() == STALE,
        };
        if marker {
            *stale.entry(got.series()).or_default() += 1;
        }
    }
    stale
}

/// Pages with a gauge for each of these models.
fn models(names: &'static [&'static str]) -> impl FnMut() -> Option<Page> + Send {
    let mut page = Page::default();
    for name in names {
        page.add(&CONNECTIONS_OPEN, [name, "1"], family::Value::Integer(3));
    }
    always(page)
}

#[test]
fn a_reload_with_other_labels_ends_the_series_under_the_old_ones() {
    both(|more, _| {
        let receiver = taken();
        let mut sending = Sending::to(&receiver.url(), more, models(&["a", "b"]));
        receiver.wait_for(2);
        let label = ("site".to_owned(), "new".to_owned());
        sending.reload(|config| config.remote_write.external_labels.extend([label]), models(&["a", "b"]));
        let before = receiver.requests().len();
        receiver.wait_for(before + 4);
        sending.stop();
        let stale = stale(&receiver);
        assert_eq!(stale.len(), 2, "{stale:?}");
        assert!(stale.iter().all(|(series, &count)| count == 1 && !series.contains("site")), "{stale:?}");
        // In time order, the marker is the last sample of each.
        for series in stale.keys() {
            let requests = receiver.requests();
            let mut all = requests.iter().flat_map(|request| &request.samples).filter(|got| got.series() == *series);
            assert_eq!(all.next_back().expect("it was sent").value, Value::Number(STALE));
        }
    });
}

#[test]
fn a_reload_that_keeps_the_labels_ends_only_what_is_gone_with_it() {
    both(|more, _| {
        let receiver = taken();
        let mut sending = Sending::to(&receiver.url(), more, models(&["a", "b"]));
        receiver.wait_for(2);
        sending.reload(|config| config.remote_write.max_bytes /= 2, models(&["a"]));
        let before = receiver.requests().len();
        receiver.wait_for(before + 4);
        sending.stop();
        let stale = stale(&receiver);
        assert_eq!(stale.values().collect::<Vec<_>>(), [&1], "{stale:?}");
        assert!(stale.keys().all(|series| series.contains("model=\"b\"")), "{stale:?}");
    });
}

#[test]
fn a_series_that_ends_is_marked_once_and_a_planned_stop_marks_nothing() {
    both(|more, _| {
        let receiver = taken();
        let mut sending = Sending::with(&receiver.url(), more, BOTH, ending());
        receiver.wait_for(7);
        sending.stop();
        let stale = stale(&receiver);
        assert!(stale.values().all(|&count| count == 1), "{stale:?}");
        // A gauge, a native histogram, and 38 buckets, sum and count, of two models.
        assert_eq!(stale.len(), 2 * (1 + 1 + 40));
        assert!(!stale.keys().any(|series| series.starts_with("process_start_time_seconds")));
    });
}

#[test]
fn a_large_page_goes_out_in_several_requests_in_order() {
    both(|more, _| {
        let receiver = taken();
        let mut page = Page::default();
        for i in 0..4500 {
            page.add(&CONNECTIONS_OPEN, [&format!("m{i}"), "1"], family::Value::Integer(i));
        }
        let sending = Sending::to(&receiver.url(), more, always(page));
        let numbers = sending.wait("acknowledgement", |numbers| numbers.acknowledged >= 4500);
        assert_eq!(numbers.rejected, 0);
        let requests = receiver.requests();
        assert!(requests.iter().all(|request| request.samples.len() <= 2000));
        let time = requests[0].samples[0].timestamp;
        let first: Vec<_> = requests.iter().flat_map(|r| &r.samples).filter(|got| got.timestamp == time).collect();
        assert_eq!(first.len(), 4500);
        assert_eq!(first.iter().map(|got| got.series()).collect::<BTreeSet<_>>().len(), 4500, "each series once");
    });
}

#[test]
fn an_empty_page_is_no_request() {
    let receiver = taken();
    let mut collections = 0;
    let sending = Sending::to(&receiver.url(), "", move || {
        collections += 1;
        let mut page = Page::default();
        if collections == 5 {
            page.add(&CONNECTIONS_OPEN, ["phi3", "1"], family::Value::Integer(1));
        }
        Some(page)
    });
    // The sample, and the marker that it ended.
    sending.wait("acknowledgement", |numbers| numbers.acknowledged == 2);
    assert_eq!(receiver.requests().len(), 2);
}

#[test]
fn names_and_values_of_any_length_and_alphabet_arrive() {
    both(|more, _| {
        let receiver = taken();
        let long = "模型🦀".repeat(2000);
        let mut page = Page::default();
        page.add(&CONNECTIONS_OPEN, [&long, "1"], family::Value::Integer(1));
        let _sending = Sending::to(&receiver.url(), more, always(page));
        assert_eq!(receiver.wait_for(1)[0].samples[0].label("model"), Some(long.as_str()));
    });
}

/// A model's own metrics are of the page as any other: sent as they are, and marked when they end.
#[test]
fn relayed_metrics_are_sent_and_end() {
    both(|more, _| {
        let receiver = taken();
        let mut collections = 0;
        let _sending = Sending::to(&receiver.url(), more, move || {
            collections += 1;
            let mut page = Page::default();
            page.add(&CONNECTIONS_OPEN, ["phi3", "1"], family::Value::Integer(collections));
            for quantile in ["0.5", "0.99"] {
                let labels = [("model", "phi3"), ("port", "1"), ("quantile", quantile)];
                let sample = ForeignSample {
                    name: "gen_seconds".to_owned(),
                    labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
                    value: collections as f64 / 4.0,
                };
                let new = Foreign { kind: "summary", help: "Time.".to_owned(), samples: vec![] };
                if quantile == "0.5" || collections <= 3 {
                    page.foreign.entry("gen_seconds".to_owned()).or_insert(new).samples.push(sample);
                }
            }
            Some(page)
        });
        receiver.wait_until("end of a series", |_| !stale(&receiver).is_empty());
        let series = r#"gen_seconds{instance="gpu1", job="citadel-agent", model="phi3", port="1", quantile="0.99"}"#;
        assert_eq!(stale(&receiver), BTreeMap::from([(series.to_owned(), 1)]));
        let all = receiver.requests().into_iter().flat_map(|request| request.samples);
        let values: Vec<f64> = all.filter(|got| got.series() == series).map(|got| got.number()).collect();
        assert!(values.len() == 4 && values[..3] == [0.25, 0.5, 0.75], "{values:?}");
    });
}
