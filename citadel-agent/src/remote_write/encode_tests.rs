//! Both protocols against each other, and records against what they were made of.

use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::metrics::catalogue::models::{CONNECTIONS_OPEN, REQUESTS, TIME_TO_FIRST_TOKEN};
use crate::metrics::family::{Page, Value};
use crate::remote_write::record::Identity;

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

fn form(protocol: Protocol) -> Form {
    Form { protocol, native: true, classic: true }
}

proptest! {
    #[test]
    fn both_protocols_say_the_same_and_the_spool_keeps_it(page in page()) {
        let identity = Identity { labels: vec![("job".to_owned(), "a".to_owned())] };
        let record = Record::new(&page, &[], &identity, 17, 3);
        let kept = Record::from_bytes(&record.to_bytes().unwrap()).unwrap();
        prop_assert_eq!(&kept.symbols, &record.symbols);
        prop_assert_eq!(kept.len() as usize, page.families.iter().map(|family| family.samples.len()).sum::<usize>());
        let [one, two] = [Protocol::V1, Protocol::V2]
            .map(|protocol| decode(&body(&kept, 0..kept.len(), form(protocol)).unwrap(), protocol));
        prop_assert_eq!(&one, &two);
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
        let mut bytes = Record::new(&page, &[], &Identity::default(), 17, 3).encode_to_vec();
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
