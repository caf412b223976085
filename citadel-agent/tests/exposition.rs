//! Pages in all three formats: nothing is lost, nothing is invented, and Prometheus' own linter is content.

mod support;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use citadel_agent::metrics::catalogue::agent::{PROCESS_CPU, SOURCE_DURATION};
use citadel_agent::metrics::catalogue::models::{REQUEST_BYTES, REQUEST_DURATION, REQUESTS_IN_FLIGHT};
use citadel_agent::metrics::catalogue::{self, Kind, Unit};
use citadel_agent::metrics::encode;
use citadel_agent::metrics::family::{Page, PageError, Value};
use citadel_agent::metrics::format::Format;
use citadel_agent::metrics::protobuf::{MetricFamily, MetricType};
use proptest::prelude::*;
use prost::Message;
use support::text::{Parsed, parse};
use support::{NASTY, assert_golden, histogram, page};

/// Whether a metric's name is ours to choose: dcgm-exporter's are not.
fn is_ours(desc: &catalogue::Desc) -> bool {
    !desc.name.starts_with("DCGM_")
}

fn text(page: &Page, format: Format) -> String {
    String::from_utf8(encode(page.clone(), format).unwrap()).unwrap()
}

fn families(page: &Page) -> Vec<MetricFamily> {
    let bytes = encode(page.clone(), Format::Protobuf).unwrap();
    let mut rest = bytes.as_slice();
    let mut families = Vec::new();
    while !rest.is_empty() {
        families.push(MetricFamily::decode_length_delimited(&mut rest).unwrap());
    }
    families
}

/// What a page in protobuf says, in the terms of the text formats.
fn as_text(families: &[MetricFamily]) -> Parsed {
    let mut parsed = Parsed::default();
    for family in families {
        let name = &family.name;
        parsed.order.push(name.clone());
        parsed.help.insert(name.clone(), family.help.clone());
        parsed.kind.insert(name.clone(), format!("{:?}", family.r#type()).to_lowercase());
        if let Some(unit) = &family.unit {
            parsed.unit.insert(name.clone(), unit.clone());
        }
        for metric in &family.metric {
            let labels: BTreeMap<_, _> = metric.label.iter().map(|l| (l.name.clone(), l.value.clone())).collect();
            let mut add = |name: String, le: Option<f64>, value: f64| {
                let mut labels = labels.clone();
                if let Some(le) = le {
                    labels.insert("le".to_owned(), le.to_string());
                }
                assert_eq!(parsed.samples.insert((name, labels), value), None);
            };
            match (&metric.counter, &metric.gauge, &metric.untyped, &metric.histogram) {
                (Some(counter), None, None, None) => add(name.clone(), None, counter.value),
                (None, Some(gauge), None, None) => add(name.clone(), None, gauge.value),
                (None, None, Some(untyped), None) => add(name.clone(), None, untyped.value),
                (None, None, None, Some(histogram)) => {
                    add(format!("{name}_count"), None, histogram.sample_count as f64);
                    add(format!("{name}_sum"), None, histogram.sample_sum);
                    for bucket in &histogram.bucket {
                        add(format!("{name}_bucket"), Some(bucket.upper_bound), bucket.cumulative_count as f64);
                    }
                }
                _ => panic!("not one value: {metric:?}"),
            }
        }
    }
    parsed
}

/// Bounds as numbers, to compare them with those of protobuf.
fn with_numeric_bounds(mut parsed: Parsed) -> Parsed {
    parsed.samples = std::mem::take(&mut parsed.samples)
        .into_iter()
        .map(|((name, mut labels), value)| {
            if let Some(le) = labels.get_mut("le") {
                *le = le.parse::<f64>().unwrap().to_string();
            }
            ((name, labels), value)
        })
        .collect();
    parsed
}

#[test]
fn all_formats_say_the_same() {
    let page = page(&NASTY);
    let plain = parse(&text(&page, Format::Text));
    let mut open = parse(&text(&page, Format::OpenMetrics));
    let protobuf = as_text(&families(&page));
    open.samples.retain(|(name, _), _| !name.ends_with("_created"));
    assert_eq!(plain.samples, open.samples);
    let plain = with_numeric_bounds(plain);
    assert_eq!(plain.samples, protobuf.samples);
    assert_eq!((&plain.help, &plain.kind, &plain.order), (&protobuf.help, &protobuf.kind, &protobuf.order));
    assert!(plain.unit.is_empty() && !plain.eof, "0.0.4 has neither UNIT nor EOF");
    assert!(open.eof);
}

/// Where the agent knows when a series was 0: in OpenMetrics as a sample beside it, in protobuf as a field.
#[test]
fn counters_that_begin_with_the_agent_say_when() {
    let page = page(&NASTY);
    let open = parse(&text(&page, Format::OpenMetrics));
    let mut created = open.samples.iter().filter(|((name, _), _)| name.ends_with("_created"));
    assert!(created.clone().all(|(_, &value)| value == 1_700_000_000.25));
    let mut expected = BTreeSet::new();
    for family in families(&page) {
        for metric in &family.metric {
            let labels: BTreeMap<_, _> = metric.label.iter().map(|l| (l.name.clone(), l.value.clone())).collect();
            let counter = metric.counter.as_ref().and_then(|counter| counter.created_timestamp.as_ref());
            let histogram = metric.histogram.as_ref().and_then(|histogram| histogram.created_timestamp.as_ref());
            if let Some(at) = counter.or(histogram) {
                assert_eq!((at.seconds, at.nanos), (1_700_000_000, 250_000_000));
                let base = family.name.strip_suffix("_total").unwrap_or(&family.name);
                assert!(expected.insert((format!("{base}_created"), labels)));
            }
        }
    }
    assert!(expected.len() > 2 * NASTY.len() && created.by_ref().map(|(series, _)| series).eq(expected.iter()));
    // A gauge has no beginning, nor has a counter of the kernel's, nor any page that does not say when the agent began.
    for name in ["citadel_model_connections_open_created", "node_cpu_seconds_created"] {
        assert!(!expected.iter().any(|(created, _)| created == name));
    }
    let mut silent = page.clone();
    silent.families.retain(|family| family.desc.name != "process_start_time_seconds");
    assert!(!text(&silent, Format::OpenMetrics).contains("_created"));
    assert!(!text(&page, Format::Text).contains("_created"));
}

#[test]
fn what_a_reload_replaced_began_later() {
    let mut page = page(&["phi3"]);
    let later = ["citadel_model_requests_total", "citadel_model_request_duration_seconds", "node_cpu_seconds_total"];
    for family in &mut page.families {
        family.began = later.contains(&family.desc.name).then_some(1_700_000_100.5);
    }
    let open = text(&page, Format::OpenMetrics);
    let created =
        |name: &str| open.lines().find(|line| line.starts_with(name)).and_then(|line| line.rsplit(' ').next());
    assert_eq!(created("citadel_model_requests_created{"), Some("1700000100.5"));
    assert_eq!(created("citadel_model_request_duration_seconds_created{"), Some("1700000100.5"));
    assert_eq!(created("citadel_model_request_bytes_created{"), Some("1700000000.25"));
    assert_eq!(created("node_cpu_seconds_created{"), None, "the kernel's counts are older");
    let family = families(&page).into_iter().find(|family| family.name == later[0]).unwrap();
    let counter = family.metric[0].counter.as_ref().unwrap();
    assert_eq!(counter.created_timestamp.as_ref().map(|at| (at.seconds, at.nanos)), Some((1_700_000_100, 500_000_000)));
}

#[test]
fn open_metrics_names_families_without_total() {
    let page = page(&["phi3"]);
    let open = parse(&text(&page, Format::OpenMetrics));
    for desc in catalogue::all() {
        let counter = desc.kind == Kind::Counter;
        let name = if counter { desc.name.strip_suffix("_total").unwrap_or(desc.name) } else { desc.name };
        assert!(open.kind.contains_key(name), "{name}");
        assert_eq!(open.unit.contains_key(name), desc.unit != Unit::None, "unit of {name}");
    }
}

#[test]
fn families_come_in_the_order_of_the_catalogue() {
    let parsed = parse(&text(&page(&["b", "a"]), Format::Text));
    let order: Vec<&str> = catalogue::all().map(|desc| desc.name).collect();
    assert_eq!(parsed.order, order);
}

#[test]
fn values_are_those_of_the_page() {
    let mut page = Page::default();
    page.add(&REQUEST_BYTES, ["phi3", "11403"], Value::Integer(u64::from(u32::MAX) + 1));
    page.add(&SOURCE_DURATION, ["models"], Value::Float(1.5e-7));
    page.add(&PROCESS_CPU, [], Value::Float(0.25));
    for format in [Format::Text, Format::OpenMetrics] {
        let parsed = parse(&text(&page, format));
        let model = [("model", "phi3"), ("port", "11403")];
        assert_eq!(parsed.value("citadel_model_request_bytes_total", &model), Some(4_294_967_296.0));
        assert_eq!(parsed.value("citadel_source_duration_seconds", &[("source", "models")]), Some(1.5e-7));
        assert_eq!(parsed.value("process_cpu_seconds_total", &[]), Some(0.25));
    }
}

#[test]
fn bounds_have_one_spelling_in_every_text_format() {
    let mut page = Page::default();
    page.add(&REQUEST_DURATION, ["phi3", "11403", "other", "success"], Value::Histogram(Box::new(histogram(10))));
    for format in [Format::Text, Format::OpenMetrics] {
        let parsed = parse(&text(&page, format));
        let bounds: HashSet<&str> =
            parsed.samples.keys().filter_map(|(_, labels)| Some(labels.get("le")?.as_str())).collect();
        assert_eq!(bounds.len(), 38);
        for bound in ["6.103515625e-05", "0.000244140625", "0.5", "0.7071067811865476", "1.0", "1024.0", "+Inf"] {
            assert!(bounds.contains(bound), "{bound} in {format:?}: {bounds:?}");
        }
    }
}

#[test]
fn native_and_classic_buckets_hold_the_same_observations() {
    for family in families(&page(&["phi3"])).iter().filter(|family| family.r#type() == MetricType::Histogram) {
        let histogram = family.metric[0].histogram.as_ref().unwrap();
        // Tokens are counted, all else takes time: a microsecond.
        let smallest = if family.name.ends_with("_tokens") { 1.0 } else { 2f64.powi(-20) };
        assert_eq!((histogram.schema, histogram.zero_threshold), (3, smallest), "{}", family.name);
        let mut count = 0i64;
        let native: i64 = (histogram.positive_delta.iter())
            .map(|delta| {
                count += delta;
                count
            })
            .sum();
        assert_eq!(native as u64 + histogram.zero_count, 100);
        assert_eq!(histogram.sample_count, 100);
        assert_eq!(histogram.bucket.last().map(|bucket| bucket.cumulative_count), Some(100));
        let created = histogram.created_timestamp.unwrap();
        assert_eq!((created.seconds, created.nanos), (1_700_000_000, 250_000_000));
    }
}

#[test]
fn only_what_counts_since_the_agent_started_says_that_it_does() {
    let created = |name: &str| {
        let families = families(&page(&["phi3"]));
        let family = families.iter().find(|family| family.name == name).unwrap();
        family.metric[0].counter.as_ref().unwrap().created_timestamp
    };
    assert!(created("citadel_model_request_bytes_total").is_some());
    assert_eq!(created("node_disk_read_bytes_total"), None);
}

#[test]
fn a_duplicate_is_an_error_in_every_format() {
    let mut page = Page::default();
    page.add(&REQUESTS_IN_FLIGHT, ["phi3", "11403"], Value::Integer(1));
    page.add(&REQUESTS_IN_FLIGHT, ["phi3", "11403"], Value::Integer(2));
    for format in Format::ALL {
        assert!(matches!(encode(page.clone(), format), Err(PageError::Duplicate { .. })));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_model_name_comes_back(models in prop::collection::btree_map(any::<String>(), any::<u32>(), 0..8)) {
        let mut page = Page::default();
        for (model, &value) in &models {
            page.add(&REQUEST_BYTES, [model, "1"], Value::Integer(value.into()));
            page.add(&REQUEST_DURATION, [model, "1", model, "success"], Value::Histogram(Box::new(histogram(value % 16))));
        }
        let plain = parse(&text(&page, Format::Text));
        prop_assert_eq!(&plain.samples, &parse(&text(&page, Format::OpenMetrics)).samples);
        prop_assert_eq!(with_numeric_bounds(plain).samples, as_text(&families(&page)).samples);
        let parsed = parse(&text(&page, Format::Text));
        for (model, &value) in &models {
            let labels = [("model", model.as_str()), ("port", "1")];
            prop_assert_eq!(parsed.value("citadel_model_request_bytes_total", &labels), Some(f64::from(value)));
        }
        prop_assert_eq!(parsed.samples.len(), models.len() * (1 + 40));
    }
}

#[test]
fn the_catalogue_keeps_to_the_naming_rules() {
    // node_exporter takes over the kernel's names as they are.
    let valid = |name: &str| {
        let letter = |c: char| c.is_ascii_lowercase() || (c.is_ascii_uppercase() && name.starts_with("node_"));
        name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit() || c == '_')
    };
    let mut names = HashSet::new();
    for desc in catalogue::all().filter(|desc| is_ours(desc)) {
        let name = desc.name;
        assert!(valid(name), "{name}: lower case, digits and underscores only");
        let base = name.strip_suffix("_total");
        assert_eq!(base.is_some(), desc.kind == Kind::Counter, "{name}: counters, and only they, end in _total");
        let base = base.unwrap_or(name);
        assert!(names.insert(base), "{name}: twice");
        assert!(base.ends_with(desc.unit.name()), "{name}: ends with its unit");
        for suffix in ["_bucket", "_sum", "_count", "_created"] {
            assert!(!base.ends_with(suffix), "{name}: {suffix} is for parts of a histogram");
        }
        assert!(
            desc.help.ends_with('.') && !desc.help.contains('\n'),
            "{name}: help is a line that ends with a period"
        );
        let labels: HashSet<_> = desc.labels.iter().collect();
        assert_eq!(labels.len(), desc.labels.len(), "{name}: a label twice");
        for label in desc.labels {
            let reserved = ["le", "quantile", "job", "instance"].contains(label);
            assert!(valid(label) && !reserved, "{name}: label {label}");
        }
    }
}

#[test]
fn promtool_finds_nothing_wrong() {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is needed: apt-get install prometheus (cargo xtask test does it)");
    let mut page = page(&NASTY);
    page.families.retain(|family| is_ours(family.desc));
    promtool.stdin.take().unwrap().write_all(text(&page, Format::Text).as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    // 3: the page is well-formed, and a name is not to promtool's taste, as node_exporter's are not either.
    assert!(matches!(output.status.code(), Some(0 | 3)), "promtool: {}\n{said}", output.status);
    let ours: Vec<_> = said.lines().filter(|line| !line.starts_with("node_")).collect();
    assert!(ours.is_empty(), "promtool: {ours:#?}");
}

/// Small enough that a person reads each difference: a family of each kind, with and without labels. The other tests compare
/// whole pages with each other and with the catalogue.
#[test]
fn a_small_page_is_the_golden_one_in_every_format() {
    let mut page = page(&["mixtral", NASTY[0]]);
    let shown = ["citadel_model_connections_open", REQUEST_BYTES.name, REQUEST_DURATION.name, "node_vmstat_pgfault"];
    page.families
        .retain(|family| shown.contains(&family.desc.name) || family.desc.name == "process_start_time_seconds");
    for family in &mut page.families {
        family.samples.truncate(2);
    }
    assert_eq!(page.families.len(), shown.len() + 1);
    assert_golden("page.prom", &text(&page, Format::Text));
    assert_golden("page.openmetrics", &text(&page, Format::OpenMetrics));
    let mut decoded = String::new();
    for MetricFamily { name, help, r#type, unit, metric } in families(&page) {
        writeln!(decoded, "{name} type {type} unit {unit:?} help {help:?}").unwrap();
        for metric in metric {
            writeln!(decoded, "  {metric:?}").unwrap();
        }
    }
    assert_golden("page.protobuf.txt", &decoded);
}
