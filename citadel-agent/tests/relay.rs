//! The models' own metrics, passed on: within limits, under the agent's names for nobody else, and readable for strict readers.

mod support;

use std::io::Write as _;
use std::process::{Command, Stdio};

use citadel_agent::metrics::family::Page;
use citadel_agent::metrics::foreign::{self, Families, ForeignError, PageLimits, Reason};
use citadel_agent::metrics::format::Format;
use proptest::prelude::*;
use support::origin::text;
use support::text::parse;

const LIMITS: PageLimits = PageLimits { samples: 5, labels: 2, text: 20, memory: 1 << 20 };

/// Those of the agent.
const USUAL: PageLimits = PageLimits { samples: 10_000, labels: 64, text: 4096, memory: 4 << 20 };

/// The page on which the families of these servers are, each with its port.
fn together(servers: &[&str]) -> Page {
    let mut whole = Page::default();
    for (index, page) in servers.iter().enumerate() {
        let mut families = foreign::parse(page, USUAL).unwrap().families;
        foreign::label(&mut families, "model", "m");
        foreign::label(&mut families, "port", &(11400 + index).to_string());
        foreign::merge(&mut whole.foreign, families);
    }
    whole
}

fn dropped(page: &str, limits: PageLimits) -> Vec<(String, Reason)> {
    foreign::parse(page, limits).unwrap().dropped.into_iter().collect()
}

fn names(families: &Families) -> Vec<&str> {
    families.keys().map(String::as_str).collect()
}

#[test]
fn what_goes_beyond_a_limit_costs_its_family_and_not_the_page() {
    for (page, reason) in [
        ("a 1\na{b=\"1\",c=\"2\",d=\"3\"} 1\nb 2\n", Reason::Labels),
        ("a{b=\"123456789012345678901\"} 1\nb 2\n", Reason::Text),
        ("# HELP a 123456789012345678901\na 1\nb 2\n", Reason::Text),
        ("a 1\nb 2\na 3\n", Reason::Duplicate),
        ("a{x=\"1\"} 1\na{x=\"2\"} 1\na{x=\"3\"} 1\na{x=\"4\"} 1\na{x=\"5\"} 1\na{x=\"6\"} 1\nb 2\n", Reason::Samples),
        ("a{__name__=\"up\"} 1\nb 2\n", Reason::Label),
    ] {
        assert_eq!(dropped(page, LIMITS), [("a".to_owned(), reason)], "{page}");
        assert_eq!(names(&foreign::parse(page, LIMITS).unwrap().families), ["b"], "{page}");
    }
    assert_eq!(dropped("a12345678901234567890 1\n", LIMITS)[0].1, Reason::Text);
}

#[test]
fn the_widest_family_of_vllm_is_passed_on() {
    let page = include_str!("fixtures/engines/vllm-0.32.0.txt");
    let parsed = foreign::parse(page, USUAL).unwrap();
    assert_eq!(parsed.families["vllm:cache_config_info"].samples[0].labels.len(), 37);
    // What the agent has itself, and nothing else.
    assert!(parsed.dropped.iter().all(|(name, reason)| name.starts_with("process_") && *reason == Reason::Name));
    // With less allowed, it alone is missing.
    let parsed = foreign::parse(page, PageLimits { labels: 32, ..USUAL }).unwrap();
    assert_eq!(parsed.dropped["vllm:cache_config_info"], Reason::Labels);
    assert!(parsed.families.contains_key("vllm:num_requests_running"));
}

#[test]
fn nobody_else_speaks_in_the_agents_or_prometheus_name() {
    let page = "\
# TYPE citadel_model_request_duration_seconds histogram
citadel_model_request_duration_seconds_bucket{le=\"+Inf\"} 1
citadel_model_request_duration_seconds_count 1
citadel_model_up 1
citadel_of_tomorrow 1
process_cpu_seconds_total 1
node_load1 1
node_memory_MemTotal_bytes_sum 1
up 1
scrape_samples_scraped 1
ALERTS 1
mine 1
";
    let parsed = foreign::parse(page, USUAL).unwrap();
    assert_eq!(names(&parsed.families), ["mine"]);
    assert!(parsed.dropped.values().all(|reason| *reason == Reason::Name));
}

#[test]
fn what_is_no_page_is_refused_whole() {
    let error = |page: &str| foreign::parse(page, LIMITS).unwrap_err();
    for line in [
        "a",
        "a x",
        "1a 1",
        "a{b=1} 1",
        "a{b=\"1\" 1",
        "a{b=\"1\"c=\"2\"} 1",
        "a{b=\"1\",b=\"2\"} 1",
        "{} 1",
        "a{b=\"\\",
        "a 1 soon",
        "a 0x",
        "\u{feff}",
    ] {
        assert_eq!(error(&format!("b 1\n{line}\n")), ForeignError::Syntax { line: 2 }, "{line}");
    }
    for line in [
        "a 1 1600000000",
        "a{} 1",
        "a{b=\"1\",} 1",
        "a 1 # {trace=\"x\"} 2",
        "a NaN",
        "a +Inf",
        "a -Inf",
        "# a comment",
    ] {
        assert!(foreign::parse(line, LIMITS).is_ok(), "{line}");
    }
}

#[test]
fn a_renamed_label_never_makes_two_series_one() {
    let page = "a{model=\"x\"} 1\na{exported_model=\"x\"} 2\na{exported_exported_model=\"x\"} 3\n";
    for format in [Format::Text, Format::OpenMetrics] {
        let parsed = parse(&text(together(&[page]), format));
        let labels = |own: &[(&'static str, &'static str)]| [&[("model", "m"), ("port", "11400")][..], own].concat();
        assert_eq!(parsed.value("a", &labels(&[("exported_exported_exported_model", "x")])), Some(1.0));
        assert_eq!(parsed.value("a", &labels(&[("exported_model", "x")])), Some(2.0));
        assert_eq!(parsed.value("a", &labels(&[("exported_exported_model", "x")])), Some(3.0));
    }
}

#[test]
fn characters_that_nobody_sees_are_not_passed_on_and_make_no_two_series_one() {
    let page = "# HELP a rtl \u{202e}help\\nmore\na{b=\"x\u{200b}y\u{202e}\"} 1\nb{c=\"1\"} 1\nb{c=\"1\u{200b}\"} 2\n";
    let parsed = foreign::parse(page, USUAL).unwrap();
    let family = &parsed.families["a"];
    assert_eq!((family.help.as_str(), family.samples[0].labels["b"].as_str()), ("rtl help\nmore", "xy"));
    assert_eq!(dropped(page, USUAL), [("b".to_owned(), Reason::Duplicate)]);
}

/// Pages that each break a rule of OpenMetrics in another way.
const LAX: &[&str] = &[
    // Two types, and a type that two servers see differently.
    "# TYPE a counter\n# TYPE a gauge\na 1\n# TYPE b_total counter\nb_total 1\n",
    "# TYPE b_total gauge\nb_total 1\n# TYPE a_total counter\na_total 1\n",
    // Names of one family that another has.
    "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 1\nh_count 1\nh_sum 1\n# TYPE h_created gauge\nh_created 9\n",
    "# TYPE h_bucket gauge\nh_bucket 3\n# TYPE h_sum counter\nh_sum 4\n",
    // Buckets that fall, that do not end, that are no numbers, out of order, with a count that is another.
    "# TYPE i histogram\ni_bucket{le=\"2\"} 3\ni_bucket{le=\"10\"} 2\ni_bucket{le=\"+Inf\"} 3\ni_count 3\ni_sum 1\n",
    "# TYPE j histogram\nj_bucket{le=\"1\"} 3\nj_count 3\nj_sum 1\n",
    "# TYPE k histogram\nk_bucket{le=\"one\"} 3\nk_bucket{le=\"+Inf\"} 3\nk_count 3\nk_sum 1\n",
    "# TYPE l histogram\nl_bucket{le=\"+Inf\"} 3\nl_bucket{le=\"10\"} 2\nl_bucket{le=\"2\"} 1\nl_sum 1\nl_count 3\n",
    "# TYPE m histogram\nm_bucket{le=\"+Inf\"} 3\nm_count 4\nm_sum 1\n",
    "# TYPE n histogram\nn_bucket{le=\"inf\"} 3\nn_count 3\nn_sum 1\nn_bucket 3\n",
    // Counters without their suffix, negative, or none.
    "# TYPE o counter\no 1\n# TYPE p_total counter\np_total -1\n# TYPE q_total counter\nq_total NaN\n",
    "# TYPE q gauge\nq 1\n# TYPE q_total counter\nq_total 1\n",
    // Summaries, and labels that only their like may have.
    "# TYPE s summary\ns{quantile=\"0.5\"} 1\ns{quantile=\"2\"} 1\ns_count 1\ns_sum 1\n",
    "# TYPE t summary\nt_count{x=\"1\"} 1\nt_count{x=\"2\"} 1\nt_sum{x=\"1\"} 1\nt_sum{x=\"2\"} 1\n",
    "# TYPE u gauge\nu{le=\"1\"} 1\nu{quantile=\"x\"} 1\n# TYPE v info\nv_info 1\n# TYPE w stateset\nw{w=\"a\"} 1\n",
    "# HELP x back\\\\slash, \"quotes\" and a line\\nmore\n# TYPE x gauge\nx 1\nuntyped_total 1\nuntyped_created 2\n",
];

/// Prometheus' own Python client reads OpenMetrics by the letter.
#[test]
fn a_strict_reader_takes_the_page() {
    let engines = [
        include_str!("fixtures/engines/vllm-0.32.0.txt"),
        include_str!("fixtures/engines/llama.cpp-b11669.txt"),
        include_str!("fixtures/engines/vllm-0.4.0.txt"),
        include_str!("fixtures/engines/sglang-0.5.23.txt"),
        include_str!("fixtures/engines/triton-24.07.txt"),
        include_str!("fixtures/engines/litellm-1.108.txt"),
    ];
    let all: Vec<&str> = engines.iter().chain(LAX).copied().collect();
    strictly(&together(&all));
    for page in LAX {
        strictly(&together(&[page]));
    }
    // What keeps the rules keeps its type.
    let vllm = parse(&text(together(&engines[..1]), Format::OpenMetrics));
    assert_eq!(vllm.kind["vllm:time_to_first_token_seconds"], "histogram");
    assert_eq!(vllm.kind["vllm:prompt_tokens"], "counter");
    assert_eq!(vllm.kind["vllm:num_requests_running"], "gauge");
}

fn strictly(page: &Page) {
    let open = text(page.clone(), Format::OpenMetrics);
    let script = "import sys\nfrom prometheus_client.openmetrics.parser import text_string_to_metric_families as read\n\
                  print(sum(len(family.samples) for family in read(sys.stdin.read())))";
    let python = std::env::var("CITADEL_PYTHON").unwrap_or_else(|_| "/usr/bin/python3".to_owned());
    let mut reader = Command::new(&python)
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{python}: {error}"));
    reader.stdin.take().unwrap().write_all(open.as_bytes()).unwrap();
    let output = reader.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n(Debian: python3-prometheus-client)\n{open}");
    let samples: usize = page.foreign.values().map(|family| family.samples.len()).sum();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), samples.to_string(), "samples were lost:\n{open}");
    // And 0.0.4 has the same samples.
    let (open, plain) = (parse(&open), parse(&text(page.clone(), Format::Text)));
    assert_eq!(format!("{:?}", open.samples), format!("{:?}", plain.samples));
    assert_eq!(plain.samples.len(), samples);
}

proptest! {
    // Without controls, format characters and separators of lines, which are left out of label values.
    #[test]
    fn what_is_passed_on_is_what_was_said(
        samples in prop::collection::btree_map(
            ("[a-z:_][a-z0-9:_]{0,8}", prop::collection::btree_map("[a-z][a-z0-9_]{0,5}", "[^\\p{C}\\p{Zl}\\p{Zp}]{0,9}|[\"\\\\{},=]{0,4}", 0..3)),
            prop::num::f64::NORMAL | prop::num::f64::ZERO, 0..12,
        ),
    ) {
        let escape = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let page: String = samples.iter().map(|((name, labels), value)| {
            let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escape(value))).collect();
            format!("{name}{{{}}} {value}\n", labels.join(","))
        }).collect();
        let limits = PageLimits { samples: 100, labels: 8, text: 100, memory: 1 << 20 };
        prop_assume!(!samples.keys().any(|(name, _)| name == "up"));
        let mut families = foreign::parse(&page, limits).unwrap().families;
        foreign::label(&mut families, "port", "11400");
        let mut whole = Page::default();
        foreign::merge(&mut whole.foreign, families);
        for format in [Format::Text, Format::OpenMetrics] {
            let parsed = parse(&text(whole.clone(), format));
            for ((name, labels), value) in &samples {
                let mut labels = labels.clone();
                if let Some(theirs) = labels.insert("port".to_owned(), "11400".to_owned()) {
                    labels.insert("exported_port".to_owned(), theirs);
                }
                let found = parsed.samples.get(&(name.clone(), labels));
                prop_assert_eq!(found, Some(value), "{} in {:?}", name, format);
            }
        }
    }

    #[test]
    fn nothing_that_a_server_says_makes_the_reader_panic(page in "\\PC{0,80}|[a-z{}=\"\\\\ \n#0-9.]{0,80}") {
        _ = foreign::parse(&page, LIMITS);
    }
}
