//! Both protocols against a page's series put together one by one, and records against what they were made of.

use std::sync::Arc;

use citadel_agent_common::hist;
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::metrics::catalogue::Kind;
use crate::metrics::catalogue::models::{CONNECTIONS_OPEN, REQUESTS, TIME_TO_FIRST_TOKEN};
use crate::metrics::family::{Page, Value};
use crate::metrics::foreign;
use crate::remote_write::record::Identity;
use crate::remote_write::stale::{Change, Gone};
use crate::remote_write::wire::{self, BucketSpan, NAN, STALE, v1, v2};

/// Labels and value of one sample, by its bits.
type Flat = (Vec<(String, String)>, Vec<u64>);

fn page() -> impl Strategy<Value = Page> {
    let value = prop_oneof![any::<u64>().prop_map(Value::Integer), any::<f64>().prop_map(Value::Float)];
    let numbers = prop::collection::btree_map("\\PC{0,6}", value, 0..12);
    let histograms = prop::collection::btree_map("\\PC{0,6}", prop::collection::vec(any::<u32>(), 0..20), 0..4);
    (numbers.clone(), numbers, histograms).prop_map(|(gauges, counters, histograms)| {
        let mut page = Page::default();
        for (model, value) in gauges {
            page.add(&CONNECTIONS_OPEN, [&model, "1"], value);
        }
        for (model, value) in counters {
            page.add(&REQUESTS, [&model, "1", "other", "200"], value);
        }
        for (model, observations) in histograms {
            let mut histogram = hist::Histogram::EMPTY;
            observations.iter().for_each(|&ns| histogram.observe(u64::from(ns)));
            page.add(&TIME_TO_FIRST_TOKEN, [&model, "1", "other"], Value::Histogram(Box::new(histogram)));
        }
        page.sort().unwrap();
        page
    })
}

fn flat(samples: &[wire::Sample], histograms: &[wire::Histogram]) -> Vec<u64> {
    let number = |sample: &wire::Sample| vec![sample.value.to_bits(), sample.timestamp as u64];
    let histogram = |histogram: &wire::Histogram| {
        let of = wire::Histogram { start_timestamp: 0, ..histogram.clone() };
        of.encode_to_vec().into_iter().map(u64::from).collect::<Vec<_>>()
    };
    samples.iter().flat_map(number).chain(histograms.iter().flat_map(histogram)).collect()
}

fn decode(body: &Body, protocol: Protocol) -> Vec<Flat> {
    let bytes = snap::raw::Decoder::new().decompress_vec(&body.bytes).unwrap();
    match protocol {
        Protocol::V1 => v1::WriteRequest::decode(bytes.as_slice())
            .unwrap()
            .timeseries
            .into_iter()
            .map(|series| {
                let values = flat(&series.samples, &series.histograms);
                (series.labels.into_iter().map(|label| (label.name, label.value)).collect(), values)
            })
            .collect(),
        Protocol::V2 => {
            let request = v2::Request::decode(bytes.as_slice()).unwrap();
            let unique: std::collections::BTreeSet<_> = request.symbols.iter().collect();
            assert_eq!(unique.len(), request.symbols.len(), "each string stands once");
            let symbol = |position: u32| request.symbols[position as usize].clone();
            request
                .timeseries
                .iter()
                .map(|series| {
                    let labels = series.labels_refs.chunks(2).map(|pair| (symbol(pair[0]), symbol(pair[1])));
                    (labels.collect(), flat(&series.samples, &series.histograms))
                })
                .collect()
        }
    }
}

/// What a page and series that have gone must become, one series after the other.
fn expected(page: &Page, gone: &[Gone], identity: &Identity, form: Form, time_ms: i64) -> Vec<Flat> {
    let mut all = Vec::new();
    let identity: Vec<_> = identity.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut add = |desc: &Desc, labels: &[smol_str::SmolStr], value: Option<&Value>| {
        let mut push = |suffix: &str, le: Option<&str>, value: Vec<u64>| {
            let own = desc.labels.iter().copied().zip(labels.iter().map(smol_str::SmolStr::as_str));
            let own = own.chain(le.map(|le| ("le", le)));
            let name = format!("{}{suffix}", desc.name);
            let labels = series::labels(&identity, &name, own);
            all.push((labels.into_iter().map(|(n, v)| (n.into_owned(), v.into_owned())).collect(), value));
        };
        let number = |value: f64| vec![if value.is_nan() { NAN } else { value.to_bits() }, time_ms as u64];
        let stale = vec![STALE, time_ms as u64];
        match value {
            Some(Value::Integer(value)) => push("", None, number(*value as f64)),
            Some(Value::Float(value)) => push("", None, number(*value)),
            None if desc.kind != Kind::Histogram => push("", None, stale),
            histogram => {
                let histogram = match histogram {
                    Some(Value::Histogram(histogram)) => Some(&**histogram),
                    _ => None,
                };
                if form.native {
                    push("", None, flat(&[], &[native(desc, histogram, time_ms)]));
                }
                if !form.classic {
                    return;
                }
                let or_stale = |value: Option<f64>| value.map_or_else(|| stale.clone(), number);
                let classic = buckets::classic(Some(desc));
                for (i, le) in classic.le.iter().enumerate() {
                    let upto = histogram.and_then(|histogram| classic.cumulative(histogram).nth(i));
                    push("_bucket", Some(le), or_stale(upto.map(|upto| upto as f64)));
                }
                push("_sum", None, or_stale(histogram.map(|histogram| classic.buckets.sum(histogram))));
                push("_count", None, or_stale(histogram.map(|histogram| histogram.count() as f64)));
            }
        }
    };
    for family in &page.families {
        family.samples.iter().for_each(|sample| add(family.desc, &sample.labels, Some(&sample.value)));
    }
    for gone in gone {
        gone.labels.iter().for_each(|labels| add(CATALOGUE[&*gone.name], labels, None));
    }
    all
}

fn native(desc: &Desc, histogram: Option<&hist::Histogram>, timestamp: i64) -> wire::Histogram {
    let Some(histogram) = histogram else {
        return wire::Histogram { sum: f64::from_bits(STALE), timestamp, ..Default::default() };
    };
    let buckets = desc.buckets.unwrap();
    let (spans, positive_deltas) = buckets::native(buckets, histogram);
    wire::Histogram {
        count_int: Some(histogram.count()),
        sum: buckets.sum(histogram),
        schema: hist::SCHEMA,
        zero_threshold: buckets.zero_threshold(),
        zero_count_int: Some(histogram.cells[0]),
        positive_spans: spans.iter().map(|span| BucketSpan { offset: span.offset, length: span.length }).collect(),
        positive_deltas,
        timestamp,
        start_timestamp: 0,
    }
}

/// Labels of a host, some with names that samples have too, some without a value.
fn identity() -> impl Strategy<Value = Identity> {
    prop::collection::btree_map(
        prop_oneof![Just("job"), Just("le"), Just("model"), Just("port"), Just("Z")],
        "[ab]?",
        0..4,
    )
    .prop_map(|labels| Identity { labels: labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() })
}

fn form(protocol: Protocol) -> Form {
    Form { protocol, native: true, classic: true }
}

proptest! {
    #[test]
    fn each_protocol_says_what_the_page_does_and_the_spool_keeps_it(
        page in page(), before in page(), identity in identity(), (native, classic) in any::<(bool, bool)>(),
    ) {
        let gone = Change::between(&before, &page).gone;
        let record = Record::new(&page, &gone, &identity, 17, 3);
        let kept = Record::from_bytes(&record.to_bytes().unwrap()).unwrap();
        prop_assert_eq!(&kept.shape.symbols, &record.shape.symbols);
        for protocol in [Protocol::V1, Protocol::V2] {
            let form = Form { protocol, native, classic };
            let expected = expected(&page, &gone, &identity, form, 17);
            for record in [&record, &kept] {
                let body = body(record, 0..record.len(), form).unwrap();
                prop_assert_eq!(decode(&body, protocol), &*expected);
                prop_assert_eq!(body.sent.series as usize, expected.len());
                prop_assert_eq!(body.sent.samples, u64::from(record.len()));
            }
        }
    }

    #[test]
    fn a_page_with_the_same_series_gives_the_same_record_with_the_shape_of_the_one_before(page in page(), add in any::<u8>()) {
        let before = Record::new(&page, &[], &Identity::default(), 17, 3);
        let mut next = page.clone();
        for sample in next.families.iter_mut().flat_map(|family| &mut family.samples) {
            if let Value::Integer(value) = &mut sample.value {
                *value = value.wrapping_add(u64::from(add));
            }
        }
        prop_assert!(Change::between(&page, &next).is_none());
        let shared = Record::of(Arc::clone(&before.shape), &next, 18, 3);
        prop_assert_eq!(shared.to_bytes().unwrap(), Record::new(&next, &[], &Identity::default(), 18, 3).to_bytes().unwrap());
    }

    #[test]
    fn records_share_a_request_in_order(one in page(), two in page()) {
        let records = [(&one, 17), (&two, 18)].map(|(page, time)| Record::new(page, &[], &Identity::default(), time, 3));
        for protocol in [Protocol::V1, Protocol::V2] {
            let runs = records.iter().map(|record| (record, 0..record.len()));
            let both = decode(&request(runs, form(protocol), &Refused::default()).unwrap(), protocol);
            let each = records.iter().flat_map(|record| decode(&body(record, 0..record.len(), form(protocol)).unwrap(), protocol));
            prop_assert_eq!(both, each.collect::<Vec<_>>());
        }
    }

    #[test]
    fn pieces_together_are_the_whole(page in page(), cut in 0.0..1.0) {
        let record = Record::new(&page, &[], &Identity::default(), 17, 3);
        let all = record.len();
        let cut = (f64::from(all) * cut) as u32;
        for protocol in [Protocol::V1, Protocol::V2] {
            let part = |range| decode(&body(&record, range, form(protocol)).unwrap(), protocol);
            let mut pieces = part(0..cut);
            pieces.extend(part(cut..all));
            prop_assert_eq!(pieces, part(0..all));
        }
    }

    #[test]
    fn batches_have_at_least_one_sample_cover_the_record_and_stay_small(page in page(), most in prop::option::of(1u64..9)) {
        let record = Record::new(&page, &[], &Identity::default(), 17, 3);
        for protocol in [Protocol::V1, Protocol::V2] {
            let mut from = 0;
            while from < record.len() {
                let end = Room::new(most).take(&record, from, form(protocol));
                prop_assert!(end > from && end <= record.len());
                let body = body(&record, from..end, form(protocol)).unwrap();
                prop_assert!(body.sent.samples <= most.unwrap_or(u64::MAX));
                prop_assert!(body.sent.series <= MAX_SERIES as u64 && body.sent.samples == u64::from(end - from));
                from = end;
            }
        }
    }

    #[test]
    fn what_is_no_record_is_refused_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let compressed = snap::raw::Encoder::new().compress_vec(&bytes).unwrap();
        for bytes in [bytes, compressed] {
            if let Ok(record) = Record::from_bytes(&bytes) {
                _ = body(&record, 0..record.len(), form(Protocol::V2));
            }
        }
    }

    #[test]
    fn a_record_with_a_flipped_bit_is_refused_or_still_consistent(page in page(), at in 0.0..1.0, bit in 0u8..8) {
        let mut bytes = Record::new(&page, &[], &Identity::default(), 17, 3).encode();
        let at = (bytes.len() as f64 * at) as usize;
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << bit;
        }
        let compressed = snap::raw::Encoder::new().compress_vec(&bytes).unwrap();
        if let Ok(record) = Record::from_bytes(&compressed) {
            _ = body(&record, 0..record.len(), form(Protocol::V1));
        }
    }
}

/// Among them: the flag that a family is one of histograms is lost, and its values are histograms.
#[test]
fn whichever_bit_of_a_record_is_flipped_it_is_refused_or_still_consistent() {
    let mut page = Page::default();
    let mut histogram = hist::Histogram::EMPTY;
    histogram.observe(1_000_000);
    page.add(&CONNECTIONS_OPEN, ["phi3", "1"], Value::Integer(2));
    page.add(&TIME_TO_FIRST_TOKEN, ["phi3", "1", "other"], Value::Histogram(Box::new(histogram)));
    let bytes = Record::new(&page, &[], &Identity::default(), 17, 3).encode();
    let mut refused = 0;
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let compressed = snap::raw::Encoder::new().compress_vec(&bytes).unwrap();
        match Record::from_bytes(&compressed) {
            Ok(record) => [Protocol::V1, Protocol::V2].into_iter().for_each(|protocol| {
                _ = body(&record, 0..record.len(), form(protocol));
            }),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > bytes.len(), "{refused}");
}

#[test]
fn relayed_metrics_go_out_as_the_samples_that_they_are() {
    let text = "# HELP vllm:ttft Time to first token.\n# TYPE vllm:ttft histogram\nvllm:ttft_bucket{le=\"0.5\",model=\"m\"} 1\n\
                vllm:ttft_bucket{le=\"+Inf\",model=\"m\"} 3\nvllm:ttft_sum{model=\"m\"} 2.5\nvllm:ttft_count{model=\"m\"} 3\n\
                # TYPE gen summary\ngen{quantile=\"0.5\",job=\"x\"} NaN\ngen_sum 7\n";
    let limits = foreign::PageLimits { samples: 100, labels: 8, text: 100, memory: 1 << 20 };
    let families = foreign::parse(text, limits).unwrap().families;
    let mut page = Page { foreign: families, ..Page::default() };
    page.add(&CONNECTIONS_OPEN, ["phi3", "1"], Value::Integer(2));
    let identity = Identity { labels: vec![("job".to_owned(), "agent".to_owned())] };
    let record = Record::new(&page, &[], &identity, 17, 3);
    let record = Record::from_bytes(&record.to_bytes().unwrap()).unwrap();
    assert_eq!(record.len(), 7);
    let shown = |protocol| {
        let body = body(&record, 0..record.len(), form(protocol)).unwrap();
        let series = decode(&body, protocol).into_iter().map(|(labels, value)| {
            let labels = labels.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect();
            (series::display(&labels), f64::from_bits(value[0]))
        });
        series.collect::<Vec<_>>()
    };
    let expected = [
        (r#"citadel_model_connections_open{job="agent", model="phi3", port="1"}"#, 2.0),
        (r#"gen{exported_job="x", job="agent", quantile="0.5"}"#, f64::NAN),
        (r#"gen_sum{job="agent"}"#, 7.0),
        (r#"vllm:ttft_bucket{job="agent", le="0.5", model="m"}"#, 1.0),
        (r#"vllm:ttft_bucket{job="agent", le="+Inf", model="m"}"#, 3.0),
        (r#"vllm:ttft_sum{job="agent", model="m"}"#, 2.5),
        (r#"vllm:ttft_count{job="agent", model="m"}"#, 3.0),
    ];
    for protocol in [Protocol::V1, Protocol::V2] {
        let shown = shown(protocol);
        let same = |(got, want): (&(String, f64), &(&str, f64))| {
            got.0 == want.0 && got.1.to_bits() == if want.1.is_nan() { NAN } else { want.1.to_bits() }
        };
        assert!(shown.len() == expected.len() && shown.iter().zip(&expected).all(same), "{shown:#?}");
    }
    let bytes = body(&record, 1..record.len(), form(Protocol::V2)).unwrap().bytes;
    let request = v2::Request::decode(snap::raw::Decoder::new().decompress_vec(&bytes).unwrap().as_slice()).unwrap();
    let types = request.timeseries.iter().map(|series| {
        let metadata = series.metadata.unwrap();
        (metadata.r#type(), request.symbols[metadata.help_ref as usize].as_str())
    });
    let (summary, histogram) = (v2::MetricType::Summary, v2::MetricType::Histogram);
    let help = "Time to first token.";
    assert_eq!(types.collect::<Vec<_>>(), [[(summary, ""); 2].as_slice(), &[(histogram, help); 4]].concat());
}
