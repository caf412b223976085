//! The JSON Schema: a validator takes what the agent takes, and marks what a person is likely to write wrongly.

use boon::{Compiler, SchemaIndex, Schemas};
use proptest::prelude::*;
use serde_json::{Map, Value as Json};

use super::OPERATORS;
use super::documented::nested;
use super::properties::config;
use crate::config::mistakes::Mistakes;
use crate::config::tree::{self, Node, Value};
use crate::config::value::{Kind, kind};
use crate::config::{json_schema, keys, parse, print};

struct Schema {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Schema {
    fn new() -> Self {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.add_resource("schema.json", json_schema()).unwrap();
        let index = compiler.compile("schema.json", &mut schemas).unwrap_or_else(|error| panic!("{error:#}"));
        Self { schemas, index }
    }

    fn accepts(&self, text: &str) -> Result<(), String> {
        let mut mistakes = Mistakes::new(Vec::new);
        let root = tree::parse(text, &mut mistakes).flatten();
        let value = root.as_ref().map_or(Json::Null, json);
        self.schemas.validate(&value, self.index).map_err(|error| format!("{text}\n{error:#}"))
    }
}

/// The value as a YAML 1.2 reader sees it.
fn json(node: &Node) -> Json {
    match &node.value {
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(entries) => {
            entries.iter().map(|entry| (entry.key.clone(), json(&entry.value))).collect::<Map<_, _>>().into()
        }
        _ => match kind(node) {
            Kind::Bool(value) => value.into(),
            Kind::Int(text) => text.parse::<i64>().unwrap_or(i64::MAX).into(),
            Kind::Float(text) => text.parse::<f64>().map_or(Json::Null, Json::from),
            Kind::Str(text) => text.into(),
            _ => Json::Null,
        },
    }
}

/// What a person may write for some key, and what no key takes.
const WRITTEN: &[&str] = &[
    "0",
    "1",
    "60",
    "65536",
    "'15s'",
    "500ms",
    "1h 30m",
    "' 15 s '",
    "'0'",
    "12h",
    "1.0",
    "2.0",
    "auto",
    "raw_tp",
    "4.8",
    "'4.9'",
    "true",
    "false",
    "null",
    "none",
    "None",
    "11400",
    "'11400 - 11401'",
    "0x10-0x20",
    "'+5'",
    "1GiB",
    "1 GiB",
    "1B",
    "1MB",
    "/a",
    "/a/b.c",
    "/",
    "a",
    "a/b",
    "http://a",
    "HTTPS://a/",
    "ftp://a",
    "[]",
    "{}",
    "[/a]",
    "[a, a]",
    "[http://a/]",
    "{a: 1}",
    "{a: b}",
    "{x-a: b}",
    "'::1'",
    "10.0.0.1",
    "host.example",
    "INFO",
    "Warning",
    "info",
    "critical",
    "park",
    "native",
    "[read]",
    "[reed]",
    "[model]",
    "0.5",
    "-1",
    "1.5",
    "citadel_model_requests_total",
    "' citadel_model_requests_total {code=\"200\"} '",
    "'*.service'",
    "[nginx.service]",
    "A.b:c-d",
    "'two words'",
    "''",
    "~",
];

#[test]
fn what_the_agent_accepts_the_schema_accepts() {
    let schema = Schema::new();
    let (mut accepted, mut marked) = (0, 0);
    for key in keys() {
        for written in WRITTEN {
            let text = nested(&key.path, written);
            let verdict = schema.accepts(&text);
            // In a list of rules or a named section other keys are missing: only mistakes of this key count.
            let own = key
                .path
                .replace("[]", "[0]")
                .replace('*', "example")
                .replace("override.example", "override.ModelErrors");
            let right = match parse("FILE", &text) {
                Ok(_) => true,
                Err(errors) => !errors.mistakes().iter().any(|mistake| mistake.path.starts_with(&own)),
            };
            let at = format!("at '/{}", own.replace(['.', '['], "/").replace(']', ""));
            let refused =
                verdict.as_ref().is_err_and(|error| error.contains(&at) || error.contains("additionalProperties"));
            assert!(!(right && refused), "{}: {}", key.path, verdict.unwrap_err());
            accepted += usize::from(right);
            marked += usize::from(!right && refused);
        }
    }
    // The schema is worth having: most of what the agent refuses is marked.
    assert!(accepted > 500 && marked > 3000, "{accepted} accepted, {marked} marked");
}

#[test]
fn files_and_slips() {
    let schema = Schema::new();
    schema.accepts(OPERATORS).unwrap();
    schema.accepts("").unwrap();
    schema.accepts("ebpf:\n  # net: false\n").unwrap();
    for slip in [
        "locl_collection: {}",
        "local_collection: {metrcs_port: 1}",
        "local_collection: {metrics_port: '8000'}",
        "local_collection: {metrics_port: 0}",
        "local_collection: {log_level: loud}",
        "local_collection: {collection_interval: soon}",
        "model_monitoring: {health_endpoints: [health]}",
        "remote_monitoring: {prometheus: {url: x}}",
        "remote_write: {destinations: {a: {tokenfile: /t}}}",
        "remote_write: {histograms: clasic}",
        "ebpf: {syscall_names: []}",
        "ebpf: {syscall_names: [reed]}",
        "alerts: {rules: [{alert: A, metric: citadel_model_requests_total, above: 1}]}",
        "alerts: {rules: [{alert: A, metric: m, above: 1, severity: bad}]}",
        "alerts: {override: {ModelErrors: {sevrity: info}}}",
    ] {
        assert!(schema.accepts(slip).is_err(), "{slip}");
        assert!(parse("FILE", slip).is_err(), "{slip}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_printed_is_accepted(config in config()) {
        prop_assert_eq!(Schema::new().accepts(&print(&config)), Ok(()));
    }
}
