//! The host's parsers under input that no kernel writes: what is damaged is skipped and counted, and everything else is on the page,
//! with the numbers that it had.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use citadel_agent::host::skipped::Skipped;
use citadel_agent::metrics::encode;
use citadel_agent::metrics::family::{Page, Value};
use citadel_agent::metrics::format::Format;
use citadel_agent::sources::parsers::{PARSERS, Parser};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

/// Where one line that cannot be read takes all: sums and counts, of which a part would be a wrong number.
const SUMS: [&str; 3] = ["udp", "arp", "conntrack"];

/// Where lines are not independent: a protocol's names and values are a pair of lines.
const PAIRS: [&str; 2] = ["snmp", "netstat"];

/// Where a line that is missing makes another document, which says something else.
const CONTEXT: [&str; 6] = ["udp", "arp", "conntrack", "mdstat", "udev", "os-release"];

/// Lines that are in none of the files.
const ODD: [&str; 5] = ["", "odd", "\u{fffd}\u{fffd}\u{1b}[31m x y", "MemTotal", "99999999999999999999999"];

type Series = BTreeMap<(&'static str, Vec<String>), String>;

fn seeds(parser: &Parser) -> Vec<Vec<u8>> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut found = Vec::new();
    for folder in ["parsers", "smartctl"] {
        for file in fs::read_dir(fixtures.join(folder)).unwrap() {
            let file = file.unwrap();
            let name = format!("{folder}/{}", file.file_name().to_str().unwrap());
            if name.starts_with(parser.seeds) && !name.ends_with(".md") {
                found.push(fs::read(file.path()).unwrap());
            }
        }
    }
    let host = fs::read_to_string(fixtures.join("hosts/gpu-host.tree")).unwrap();
    for entry in host.split("==> ").skip(1) {
        let (path, content) = entry.split_once('\n').unwrap();
        if path.starts_with(parser.seeds) && (path == parser.seeds || parser.seeds.ends_with('/')) {
            found.push(content.as_bytes().to_vec());
        }
    }
    assert!(!found.is_empty(), "{} has no fixture", parser.name);
    found
}

/// Parses, and checks what is true of every page.
fn parse(parser: &Parser, bytes: &[u8]) -> (Series, u64) {
    let (mut page, mut skipped) = (Page::default(), Skipped::default());
    parser.parse(bytes, &mut page, &mut skipped);
    page.remove_doubles().iter().for_each(|double| skipped.note("double", double));
    let mut series = Series::new();
    for family in &page.families {
        for sample in &family.samples {
            let value = match sample.value {
                Value::Integer(value) => value.to_string(),
                Value::Float(value) => {
                    assert!(value.is_finite(), "{}: {}", parser.name, family.desc.name);
                    value.to_string()
                }
                Value::Histogram(_) => panic!("{}: a histogram", parser.name),
            };
            let labels = sample.labels.iter().map(ToString::to_string).collect();
            series.insert((family.desc.name, labels), value);
        }
    }
    assert!(encode(page, Format::OpenMetrics).is_ok(), "{}", parser.name);
    (series, skipped.count())
}

fn text_of(parser: &Parser, seed: &[u8]) -> Vec<String> {
    String::from_utf8(seed.to_vec()).unwrap_or_else(|_| panic!("{}", parser.name)).lines().map(str::to_owned).collect()
}

/// Those of lines that have series.
fn of_lines() -> impl Iterator<Item = (&'static Parser, Vec<u8>)> {
    let all = PARSERS.iter().flat_map(|parser| seeds(parser).into_iter().map(move |seed| (parser, seed)));
    all.filter(|(parser, seed)| !parser.name.starts_with("smartctl") && !parse(parser, seed).0.is_empty())
}

fn assert_part_of(part: &Series, whole: &Series, what: &str) {
    for (series, value) in part {
        assert_eq!(whole.get(series), Some(value), "{what}: {series:?}");
    }
}

#[test]
fn what_kernels_write_is_read_whole() {
    for parser in PARSERS {
        for seed in seeds(parser) {
            assert_eq!(parse(parser, &seed).1, 0, "{}", parser.name);
        }
    }
    assert!(of_lines().count() > 20);
}

#[test]
fn an_odd_line_is_skipped_and_counted_and_the_rest_stays() {
    for (parser, seed) in of_lines().filter(|(parser, _)| !["hwmon", "cpu-isolated"].contains(&parser.name)) {
        let whole = parse(parser, &seed).0;
        let lines = text_of(parser, &seed);
        let step = (lines.len() / 40).max(1);
        for at in (0..=lines.len()).step_by(step) {
            for odd in ODD {
                let mut lines = lines.clone();
                lines.insert(at, odd.to_owned());
                let (series, skipped) = parse(parser, (lines.join("\n") + "\n").as_bytes());
                let what = format!("{}: {odd:?} at line {at}", parser.name);
                assert_part_of(&series, &whole, &what);
                // Blank lines are part of these files; of /proc/stat, two sources read a half each.
                let silent =
                    odd.is_empty() && ["mdstat", "os-release"].contains(&parser.name) || parser.name == "stat-cpu";
                assert_eq!(skipped > 0, !silent, "{what}");
                let takes_more = SUMS.contains(&parser.name) || PAIRS.contains(&parser.name) && at % 2 == 1;
                assert!(takes_more || series == whole, "{what}: {} of {} series", series.len(), whole.len());
            }
        }
    }
}

#[test]
fn a_line_that_is_missing_or_cut_takes_only_its_own_series() {
    for (parser, seed) in of_lines().filter(|(parser, _)| !CONTEXT.contains(&parser.name)) {
        let whole = parse(parser, &seed).0;
        let lines = text_of(parser, &seed);
        for at in 0..lines.len() {
            let mut fewer = lines.clone();
            fewer.remove(at);
            assert_part_of(&parse(parser, (fewer.join("\n") + "\n").as_bytes()).0, &whole, parser.name);
            // To its first word.
            let mut cut = lines.clone();
            let end = cut[at].trim_start().find(' ').unwrap_or_default();
            cut[at].truncate(end);
            assert_part_of(&parse(parser, (cut.join("\n") + "\n").as_bytes()).0, &whole, parser.name);
        }
    }
}

/// All leaves of a document, by their paths.
fn leaves(json: &Json, path: &str, found: &mut Vec<String>) {
    match json {
        Json::Object(fields) => {
            fields.iter().for_each(|(name, inner)| leaves(inner, &format!("{path}/{name}"), found));
        }
        Json::Array(items) => {
            items.iter().enumerate().for_each(|(index, inner)| leaves(inner, &format!("{path}/{index}"), found));
        }
        _ => found.push(path.to_owned()),
    }
}

#[test]
fn an_odd_leaf_of_smartctl_takes_only_its_own_series() {
    let parser = PARSERS.iter().find(|parser| parser.name == "smartctl").unwrap();
    for seed in seeds(parser) {
        let document: Json = serde_json::from_slice(&seed).unwrap();
        let whole = parse(parser, &seed).0;
        let values = whole.keys().filter(|(name, _)| *name != "citadel_smart_info").count();
        let mut found = Vec::new();
        leaves(&document, "", &mut found);
        // These say of all the rest whether and to which attribute it belongs.
        for path in found.iter().filter(|path| !path.ends_with("/exit_status") && !path.ends_with("/id")) {
            for odd in [Json::Null, json!("text"), json!([]), json!({})] {
                let mut damaged = document.clone();
                *damaged.pointer_mut(path).unwrap() = odd;
                let series = parse(parser, &serde_json::to_vec(&damaged).unwrap()).0;
                let left = series.iter().filter(|(key, value)| whole.get(*key) == Some(value));
                let left = left.filter(|((name, _), _)| *name != "citadel_smart_info").count();
                assert!(left + 1 >= values, "{path}: {left} of {values} series are left");
                assert!(series.len() <= whole.len(), "{path}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_garbage_makes_a_parser_panic_or_spoils_the_page(
        parser in prop::sample::select(PARSERS.iter().enumerate().map(|(index, _)| index).collect::<Vec<_>>()),
        seed in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in any::<prop::sample::Index>(),
        digits in any::<bool>(),
    ) {
        let parser = &PARSERS[parser];
        let seeds = seeds_once(parser.name);
        let mut bytes = seed.get(seeds).clone();
        if digits {
            bytes = String::from_utf8_lossy(&bytes).replace(|c: char| c.is_ascii_digit(), "9999999999").into_bytes();
        }
        for (at, byte) in damage {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        bytes.truncate(cut.index(bytes.len() + 1).max(bytes.len() / 2));
        parse(parser, &bytes);
    }
}

fn seeds_once(name: &str) -> &'static Vec<Vec<u8>> {
    static SEEDS: std::sync::LazyLock<BTreeMap<&str, Vec<Vec<u8>>>> =
        std::sync::LazyLock::new(|| PARSERS.iter().map(|parser| (parser.name, seeds(parser))).collect());
    &SEEDS[name]
}
