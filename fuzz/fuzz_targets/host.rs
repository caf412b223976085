//! Fuzzes one of the parsers of host data, selected by the variable `CITADEL_PARSER`.
//!
//! Whatever the input, it must not panic, and what it adds to a page must be valid. With `CITADEL_PARSERS` the target
//! lists the parsers and the location of their examples, and exits.

#![no_main]

use std::sync::LazyLock;

use citadel_agent::host::skipped::Skipped;
use citadel_agent::metrics::encode;
use citadel_agent::metrics::family::{Page, Value};
use citadel_agent::metrics::format::Format;
use citadel_agent::sources::parsers::{PARSERS, Parser};
use libfuzzer_sys::fuzz_target;

static PARSER: LazyLock<&Parser> = LazyLock::new(|| {
    let name = std::env::var("CITADEL_PARSER").expect("CITADEL_PARSER names no parser: cargo xtask fuzz sets it");
    PARSERS.iter().find(|parser| parser.name == name).unwrap_or_else(|| panic!("there is no parser {name:?}"))
});

fn list() {
    if std::env::var_os("CITADEL_PARSERS").is_some() {
        for parser in PARSERS {
            println!("{}\t{}", parser.name, parser.seeds);
        }
        std::process::exit(0);
    }
}

fuzz_target!(init: list(), |bytes: &[u8]| {
    let (mut page, mut skipped) = (Page::default(), Skipped::default());
    PARSER.parse(bytes, &mut page, &mut skipped);
    assert!(skipped.summary().len() < 10_000, "an example is not short");
    page.remove_doubles();
    for sample in page.families.iter().flat_map(|family| &family.samples) {
        assert!(!matches!(sample.value, Value::Float(value) if !value.is_finite()), "{sample:?}");
    }
    encode(page, Format::OpenMetrics).expect("the page can be exposed");
});
